"""For all small MDPs, or games: a property of an estimator, searched for a counter-example.

Problems and policies are drawn by Hypothesis, in stages of growing size, and each is measured, by
enumeration where that fits. A bias that is found shrinks to the smallest and plainest problem that
shows it, and is explained by what explains it on other problems too. A search in which too few
problems told anything fails as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradbias.analytic.meta.bilevel import Lola
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.games import StochasticGame
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import AnyTarget
from gradbias.analytic.utils.validation import FloatArray, real_number, whole_number
from gradbias.stochastic.estimators.kinds import Estimator
from gradbias.stochastic.meta.game_loops import SampledGame
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.rollouts.records import Surrogate
from gradbias.verification.confidence.error_budgets import ErrorBudget
from gradbias.verification.evidence.reports import BiasReport
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from gradbias.verification.properties.arguments import (
    Options,
    check_options,
    checked_estimator,
    checked_strategy,
    given_options,
    growing_sizes,
    sizes_beside,
)
from gradbias.verification.properties.failures import code, diagnosed, failure
from gradbias.verification.properties.ledgers import Ledger
from gradbias.verification.properties.search import (
    BiasFoundError,
    Example,
    NotMeasuredError,
    Search,
)
from gradbias.verification.properties.simplest_problems import plainer
from gradbias.verification.properties.strategies import (
    Dynamics,
    Rewards,
    games,
    joint_policies_for,
    parameters_for,
    policies_for,
    tabular_mdps,
)

_QUICK = {"budget": 20_000, "max_outcomes": 50_000}
_GENERAL: Any = {
    "dynamics": [Dynamics.SPARSE, Dynamics.DENSE],
    "rewards": [Rewards.BY_ACTION, Rewards.BY_NEXT_STATE],
    "discounts": (0.5, 0.9),
}
"""Problems on which errors differ."""

Drawn = st.SearchStrategy[FloatArray]
PolicyOf = Callable[[TabularMDP], "Policy | st.SearchStrategy[Policy]"]


def for_all_mdps(
    estimator: Estimator | Surrogate,
    *,
    order: int | None = None,
    target: AnyTarget | Callable[[TabularMDP], AnyTarget] | None = None,
    options: Options | Mapping[str, Any] | None = None,
    max_states: int | None = None,
    max_actions: int | None = None,
    max_horizon: int | None = None,
    problems: st.SearchStrategy[TabularMDP] | None = None,
    policies: Callable[[TabularMDP], Drawn] | None = None,
    policy: Policy | PolicyOf = TABULAR,
    max_examples: int = 100,
    min_informative_share: float = 0.25,
) -> Callable[[Ledger], None]:
    """A test: for all small MDPs and policies, the estimator's mean is its target.

    ``test_my_hessian = for_all_mdps(my_surrogate, order=2)`` in a test file is all; pytest gives it
    the fixture ``gradbias``. Elsewhere, call it with a `Ledger`. A surrogate is differentiated
    ``order`` times (default 1); an estimator has its own order. ``target`` is one, or depends on
    the problem (default: the derivative of its own return); ``options`` go to `measure_bias`, and
    may depend on problem and parameters. Problems are drawn with 2 to ``max_actions`` actions and
    up to the other sizes (3 unless said), or from ``problems``. ``policy`` is one, or depends on
    the problem, or is drawn for it (`verification.properties.strategies.linear_policies`);
    ``policies(mdp)`` draws its parameters. It fails with the smallest problem found on which the
    estimator is biased, or where less than the share ``min_informative_share`` of the examples told
    anything. Sampled examples share the false-alarm rate of one claim.

    Raises:
        ValueError: a size, count or share out of range; an estimator, option or strategy that is
            none; an order that is not the estimator's own.

    >>> from gradbias.stochastic import lvc
    >>> for_all_mdps(lvc, order=1, max_states=2, max_horizon=2, max_examples=10)(Ledger())
    """
    one = checked_estimator(estimator, order)
    check_options(options, measure_bias)
    if target is not None and not callable(target) and not hasattr(target, "order"):
        raise ValueError(f"target: expected a target, or a function of the problem, got {target!r}")
    if policies is not None and not callable(policies):
        raise ValueError(f"policies: expected a function of the problem, got {policies!r}")
    sizes = sizes_beside(problems, 3, states=max_states, actions=max_actions, horizon=max_horizon)
    stages = _stages(*sizes) if problems is None else [problems]
    examples = [_examples(checked_strategy("problems", each), policy, policies) for each in stages]
    if problems is None:  # last, those on which no bias is hidden by what is special
        general = tabular_mdps(*sizes, min_states=min(2, sizes[0]), min_actions=2, **_GENERAL)
        examples.append(_examples(general, policy, policies))
    plain = problems is None and policies is None and policy is TABULAR

    def asked(example: Example) -> dict[str, Any]:
        mdp, theta = example.problem, example.parameters[0]
        given = given_options(options, measure_bias, mdp, theta)
        wanted = target(mdp) if callable(target) else target
        return {"target": wanted, "policy": example.policy} | given

    def measured(example: Example, rate: float) -> BiasReport:
        given = _QUICK | {"rng": np.random.default_rng(example.seed)} | asked(example)
        theta = example.parameters[0]
        return measure_bias(one, example.problem, theta, **given, false_alarm=rate)

    def explained(search: Search, found: BiasFoundError) -> list[str]:
        around = search.around(examples[-1]) if found.report.interval is None else []
        return diagnosed(found.report, around)

    return _property(
        f"For all small MDPs: {one.name}, order {one.order}, is unbiased.",
        partial(Search, one.name),
        measured,
        examples,
        max_examples,
        min_informative_share,
        smaller=(lambda found: plainer(found)) if plain else (lambda found: ()),
        explained=explained,
    )


def for_all_games(
    estimator: Callable[[StochasticGame], MetaGradient],
    *,
    options: Options | Mapping[str, Any] | None = None,
    max_states: int | None = None,
    max_actions: int | None = None,
    max_horizon: int | None = None,
    problems: st.SearchStrategy[StochasticGame] | None = None,
    policies: Callable[
        [StochasticGame], st.SearchStrategy[tuple[FloatArray, FloatArray]]
    ] = joint_policies_for,
    max_examples: int = 60,
    min_informative_share: float = 0.25,
) -> Callable[[Ledger], None]:
    """A test: for all small two-player games and policies, a LOLA gradient's mean is LOLA's.

    ``estimator(game)`` makes the `stochastic.MetaGradient` of a `stochastic.SampledGame`; its
    target is the gradient of the player's return after the opponent's *expected* steps, so that a
    sampled value slot is biased by itself. ``options`` go to `measure_meta_gradient`, and may
    depend on the game and both players' parameters (the meta-parameters first). Sizes are 2
    unless said, the rest is as in `for_all_mdps`. A game may have memory-one players, whose
    policies are linear.

    Raises:
        ValueError: as `for_all_mdps`; an estimator that is none of a game.

    >>> from gradbias.analytic import Lola
    >>> from gradbias.stochastic import Given, MetaGradient, Sampled, SampledGame, dice
    >>> def lola(game):
    ...     exact, own = Given(Lola(game)), Sampled(dice, 1)
    ...     return MetaGradient(SampledGame(game), 1, 0.5, exact, exact, own, jacobian=own)
    >>> for_all_games(lola, max_states=1, max_horizon=1, max_examples=5)(Ledger())
    """
    if not callable(estimator):
        raise ValueError(f"estimator: expected a function of the game, got {estimator!r}")
    check_options(options, measure_meta_gradient)
    sizes = sizes_beside(problems, 2, states=max_states, actions=max_actions, horizon=max_horizon)
    stages = (
        [checked_strategy("problems", problems)]
        if problems is not None
        else [
            games(*size, min_actions=2, infinite=False, memory_one=False)
            for size in growing_sizes(*sizes)
        ]
        + [games(*sizes, min_actions=2, infinite=False)]
    )
    name = getattr(estimator, "__name__", type(estimator).__name__)

    def measured(example: Example, rate: float) -> BiasReport:
        game, (phi, theta) = example.problem, example.parameters
        one: object = estimator(game)
        if not isinstance(one, MetaGradient) or not isinstance(one.loop, SampledGame):
            raise ValueError(
                f"estimator: expected it to make a MetaGradient of a SampledGame, got {one!r}"
            )
        quick: dict[str, Any] = {
            "max_outcomes": 50_000,
            "rng": np.random.default_rng(example.seed),
        }
        given = quick | given_options(options, measure_meta_gradient, game, phi, theta)
        exact = Lola(game, one.loop.player)
        return measure_meta_gradient(one, phi, theta, exact=exact, **given, false_alarm=rate)

    return _property(
        f"For all small games: {name} is unbiased.",
        partial(Search, name),
        measured,
        [_game_examples(stage, policies) for stage in stages],
        max_examples,
        min_informative_share,
    )


def _property(
    words: str,
    search_of: Callable[..., Search],
    measured: Callable[[Example, float], BiasReport],
    stages: list[st.SearchStrategy[Example]],
    max_examples: int,
    min_informative_share: float,
    *,
    smaller: Callable[[Example], Any] = lambda found: (),
    explained: Callable[[Search, BiasFoundError], list[str]] = lambda search, found: [],
) -> Callable[[Ledger], None]:
    most = whole_number("max_examples", max_examples, at_least=1)
    real_number("min_informative_share", min_informative_share, low=0.0, high=1.0)

    def for_all(gradbias: Ledger) -> None:
        _check_ledger(gradbias)
        rate = ErrorBudget(gradbias.next_rate()).split(examples=most)
        search = search_of(most=most, rate=rate, measured=measured)
        try:
            search.run(stages)
        except BiasFoundError as biased:
            found = search.smaller(biased, smaller(biased.example))
            raise AssertionError(failure(search, found, explained(search, found))) from None
        except NotMeasuredError as wrong:
            raise _told_where(wrong) from None
        finally:
            gradbias.record(search.claim(min_informative_share))
        if not search.is_telling(min_informative_share):
            raise AssertionError(search.shortfall(min_informative_share))

    for_all.__doc__ = words
    return for_all


def _check_ledger(given: object) -> None:
    if not isinstance(given, Ledger):
        kind = type(given).__name__
        raise ValueError(
            f"gradbias: expected the fixture, a Ledger, got a {kind}; in a class, make the test a "
            "staticmethod"
        )


def _told_where(wrong: NotMeasuredError) -> BaseException:
    """The estimator's own exception, with the smallest problem on which it was raised."""
    error = wrong.__cause__ or wrong
    error.add_note(f"The smallest problem found on which it is raised:\n\n{code(wrong.example)}\n")
    return error


def _stages(max_states: int, max_actions: int, max_horizon: int) -> list[Any]:
    sizes = growing_sizes(max_states, max_actions, max_horizon)
    return [tabular_mdps(*size, min_actions=2) for size in sizes]


@st.composite
def _examples(
    draw: st.DrawFn,
    problems: st.SearchStrategy[TabularMDP],
    policy: Policy | PolicyOf,
    policies: Callable[[TabularMDP], Drawn] | None,
) -> Example:
    mdp = draw(problems)
    chosen: Any = policy(mdp) if callable(policy) else policy
    if isinstance(chosen, st.SearchStrategy):
        chosen = draw(chosen)
    if policies is not None:
        theta = draw(policies(mdp))
    elif chosen is TABULAR:
        theta = draw(policies_for(mdp))
    else:
        theta = draw(parameters_for(chosen, mdp.n_states, mdp.n_actions))
    return Example(mdp, (np.asarray(theta),), chosen)


@st.composite
def _game_examples(draw: st.DrawFn, problems: Any, policies: Callable[..., Any]) -> Example:
    game = draw(problems)
    return Example(game, tuple(np.asarray(theta) for theta in draw(policies(game))))
