"""The arguments of a property, checked before anything is drawn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from gradbias.analytic.utils.validation import whole_number
from gradbias.stochastic.estimators.kinds import Estimator, from_surrogate
from gradbias.stochastic.rollouts.records import Surrogate
from gradbias.verification.evidence.reports import BiasReport
from gradbias.verification.evidence.setting import SettingOptions

Options = Callable[..., Mapping[str, Any]]
"""The arguments of `measure_bias` beside the problem, for each (mdp, theta): ``critic``, ..."""

_SET = {"estimator", "mdp", "theta", "meta_parameters", "exact", "target", "false_alarm"}
"""Arguments that a property sets itself."""


def checked_estimator(estimator: Estimator | Surrogate, order: int | None) -> Estimator:
    """The estimator, or that of a surrogate and an order (default 1). Raises ValueError for another
    object, or an order that is not the estimator's.
    """
    if isinstance(estimator, Estimator):
        if order not in (None, estimator.order):
            raise ValueError(f"order: expected the estimator's own, {estimator.order}, got {order}")
        return estimator
    if not callable(estimator):
        raise ValueError(f"estimator: expected an estimator or a surrogate, got {estimator!r}")
    return from_surrogate(estimator, order=1 if order is None else order)


def check_options(options: object, measure: Callable[..., BiasReport]) -> None:
    """Raises ValueError unless options are arguments of ``measure`` by name, or a function."""
    if options is None or callable(options):
        return
    if not isinstance(options, Mapping):
        raise ValueError(
            f"options: expected a mapping, or a function of problem and parameters, got {options!r}"
        )
    _check_names(options, measure)


def _check_names(options: Mapping[str, Any], measure: Callable[..., BiasReport]) -> None:
    """Raises ValueError for a name that is no argument of ``measure``, or one in `_SET`."""
    parameters = set(inspect.signature(measure).parameters)
    if "setting" in parameters:  # **setting: Unpack[SettingOptions]
        parameters = parameters - {"setting"} | set(SettingOptions.__annotations__)
    known = parameters - _SET
    if wrong := sorted(set(options) - known):
        raise ValueError(f"options: expected some of {', '.join(sorted(known))}, got {wrong[0]!r}")


def options_at(
    options: Options | Mapping[str, Any] | None, measure: Callable[..., BiasReport], *at: Any
) -> dict[str, Any]:
    """The options at a problem and its parameters. Raises ValueError as `check_options`."""
    chosen = options(*at) if callable(options) else options or {}
    if not isinstance(chosen, Mapping):
        raise ValueError(f"options: expected the function to return a mapping, got {chosen!r}")
    _check_names(chosen, measure)
    return dict(chosen)


def checked_strategy(name: str, strategy: object) -> Any:
    """The strategy. Raises ValueError unless it is a Hypothesis strategy."""
    if not isinstance(strategy, st.SearchStrategy):
        raise ValueError(f"{name}: expected a Hypothesis strategy, got {strategy!r}")
    return strategy


def max_sizes(problems: object, default: int, **sizes: int | None) -> tuple[int, ...]:
    """The largest ``states``, ``actions`` and ``horizon`` to draw, with a default for each None.
    Raises ValueError for a size that is given together with a strategy for problems.
    """
    named = [name for name, size in sizes.items() if size is not None]
    if problems is not None and named:
        raise ValueError(f"max_{named[0]}: expected none beside problems, which have sizes already")
    return tuple(default if size is None else size for size in sizes.values())


def growing_sizes(
    max_states: int, max_actions: int, max_horizon: int
) -> list[tuple[int, int, int]]:
    """(States, actions, steps) from (1, 2, 1) over (2, 2, 2) to the largest, so that a bias which
    the smallest problems have is found on these.
    """
    whole_number("max_states", max_states, at_least=1)
    whole_number("max_actions", max_actions, at_least=2)
    whole_number("max_horizon", max_horizon, at_least=1)
    bounds = (max_states, max_actions, max_horizon)
    sizes = (
        (min(k, bounds[0]), min(max(k, 2), bounds[1]), min(k, bounds[2]))
        for k in range(1, max(bounds) + 1)
    )
    return list(dict.fromkeys(sizes))
