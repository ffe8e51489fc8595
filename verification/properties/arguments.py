"""What a property is asked, checked before anything is drawn."""

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
"""What `measure_bias` takes beside the problem, for each (mdp, theta): ``critic``, ``length``..."""

_OWN = {"estimator", "mdp", "theta", "meta_parameters", "exact", "target", "false_alarm"}
"""What a property sets itself."""


def checked_estimator(estimator: Estimator | Surrogate, order: int | None) -> Estimator:
    """The estimator, or a surrogate's of that order (default 1). Raises ValueError for another."""
    if isinstance(estimator, Estimator):
        if order not in (None, estimator.order):
            raise ValueError(f"order: expected the estimator's own, {estimator.order}, got {order}")
        return estimator
    if not callable(estimator):
        raise ValueError(f"estimator: expected one, or a function of a record, got {estimator!r}")
    return from_surrogate(estimator, order=1 if order is None else order)


def check_options(options: object, measure: Callable[..., BiasReport]) -> None:
    """Raises ValueError unless these are options of ``measure``, or a function."""
    if options is None or callable(options):
        return
    if not isinstance(options, Mapping):
        raise ValueError(
            f"options: expected a mapping, or a function of problem and parameters, got {options!r}"
        )
    _check_names(options, measure)


def _check_names(options: Mapping[str, Any], measure: Callable[..., BiasReport]) -> None:
    parameters = set(inspect.signature(measure).parameters)
    if "setting" in parameters:  # **setting: Unpack[SettingOptions]
        parameters = parameters - {"setting"} | set(SettingOptions.__annotations__)
    known = parameters - _OWN
    if wrong := sorted(set(options) - known):
        raise ValueError(f"options: expected some of {', '.join(sorted(known))}, got {wrong[0]!r}")


def given_options(
    options: Options | Mapping[str, Any] | None, measure: Callable[..., BiasReport], *at: Any
) -> dict[str, Any]:
    """The options at a problem and its parameters. Raises ValueError as `check_options`."""
    found = options(*at) if callable(options) else options or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"options: expected the function to return a mapping, got {found!r}")
    _check_names(found, measure)
    return dict(found)


def checked_strategy(name: str, given: object) -> Any:
    """``given``. Raises ValueError unless it is a Hypothesis strategy."""
    if not isinstance(given, st.SearchStrategy):
        raise ValueError(f"{name}: expected a Hypothesis strategy, got {given!r}")
    return given


def sizes_beside(problems: object, default: int, **given: int | None) -> tuple[int, ...]:
    """The largest ``states``, ``actions`` and ``horizon`` to draw, ``default`` unless said. Raises
    ValueError for one beside ``problems``, which have their own.
    """
    said = [name for name, size in given.items() if size is not None]
    if problems is not None and said:
        raise ValueError(
            f"max_{said[0]}: expected none beside problems, which have their own sizes"
        )
    return tuple(default if size is None else size for size in given.values())


def growing_sizes(
    max_states: int, max_actions: int, max_horizon: int
) -> list[tuple[int, int, int]]:
    """1 state, 2 actions, 1 step; 2, 2, 2; and so on to these: a bias that the smallest problems
    have is found on them.
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
