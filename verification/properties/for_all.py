"""Tests that an estimator is unbiased for all small MDPs, or games, by a search for a
counter-example.

Hypothesis draws problems and policies in stages of growing size, and each is measured, by
enumeration where that fits. A biased example is shrunk to the smallest and simplest problem that
shows the bias, and explained by a known error that explains it on other problems too. A search in
which too few problems are evidence fails as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradbias.analytic.meta.bilevel import Lola
from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.games import StochasticGame
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import AnyTarget
from gradbias.analytic.utils.validation import real_number, whole_number
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
    max_sizes,
    options_at,
)
from gradbias.verification.properties.examples import (
    JointParametersFor,
    ParametersFor,
    PolicyFor,
    Stages,
    game_stages,
    mdp_stages,
)
from gradbias.verification.properties.failures import code, diagnosed, failure
from gradbias.verification.properties.ledgers import Ledger
from gradbias.verification.properties.search import (
    BiasFoundError,
    Example,
    NotMeasuredError,
    Search,
)
from gradbias.verification.properties.simplest_problems import simplest_problems
from gradbias.verification.properties.strategies import joint_policies_for

_QUICK = {"budget": 20_000, "max_outcomes": 50_000}
"""Limits of one measurement, which `options` may change."""


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
    policies: ParametersFor | None = None,
    policy: Policy | PolicyFor = TABULAR,
    max_examples: int = 100,
    min_informative_share: float = 0.25,
) -> Callable[[Ledger], None]:
    """A test that an estimator's mean is its target, for all small MDPs and policies.

    ``test_my_hessian = for_all_mdps(my_surrogate, order=2)`` in a test file is all; pytest gives it
    the fixture ``gradbias``. Elsewhere, call it with a `Ledger`. It fails with the smallest problem
    found on which the estimator is biased, or where too few examples are evidence. Sampled examples
    share the false-alarm rate of one claim.

    Args:
        estimator: a surrogate, or an estimator, which has its own order.
        order: how many times a surrogate is differentiated (default 1).
        target: the target, or a function of the problem (default: the derivative of its return).
        options: arguments of `measure_bias`, or a function of problem and parameters.
        max_states: the largest number of states (default 3).
        max_actions: the largest number of actions (default 3); the fewest is 2.
        max_horizon: the largest number of steps (default 3).
        problems: a strategy for problems, in place of the three sizes.
        policies: gives a strategy for the policy's parameters, for a problem.
        policy: the policy, or a function of the problem that gives it, or a strategy for it, as
            `linear_policies` does.
        max_examples: the largest number of examples that are counted.
        min_informative_share: the share of the examples that must be evidence.

    Returns:
        The test, a function of a `Ledger`.

    Raises:
        ValueError: a size, count or share out of range; a wrong estimator, option or strategy; an
            order that is not the estimator's.

    >>> from gradbias.stochastic import lvc
    >>> for_all_mdps(lvc, order=1, max_states=2, max_horizon=2, max_examples=10)(Ledger())
    """
    checked = checked_estimator(estimator, order)
    check_options(options, measure_bias)
    if target is not None and not callable(target) and not hasattr(target, "order"):
        raise ValueError(f"target: expected a target, or a function of the problem, got {target!r}")
    if policies is not None and not callable(policies):
        raise ValueError(f"policies: expected a function of the problem, got {policies!r}")
    sizes = max_sizes(problems, 3, states=max_states, actions=max_actions, horizon=max_horizon)
    stages = mdp_stages(problems, sizes, policy, policies)
    default = problems is None and policies is None and policy is TABULAR

    def chosen(example: Example) -> dict[str, Any]:
        mdp, theta = example.problem, example.parameters[0]
        wanted = target(mdp) if callable(target) else target
        at = options_at(options, measure_bias, mdp, theta)
        return {"target": wanted, "policy": example.policy} | at

    def measure(example: Example, rate: float) -> BiasReport:
        arguments = _QUICK | {"rng": np.random.default_rng(example.seed)} | chosen(example)
        theta = example.parameters[0]
        return measure_bias(checked, example.problem, theta, **arguments, false_alarm=rate)

    def explain(search: Search, biased: BiasFoundError) -> list[str]:
        others = search.more(stages[-1]) if biased.report.interval is None else []
        return diagnosed(biased.report, others)

    return _property(
        f"For all small MDPs: {checked.name}, order {checked.order}, is unbiased.",
        partial(Search, checked.name),
        measure,
        stages,
        max_examples,
        min_informative_share,
        simpler=simplest_problems if default else lambda example: (),
        explain=explain,
    )


def for_all_games(
    estimator: Callable[[StochasticGame], MetaGradient],
    *,
    options: Options | Mapping[str, Any] | None = None,
    max_states: int | None = None,
    max_actions: int | None = None,
    max_horizon: int | None = None,
    problems: st.SearchStrategy[StochasticGame] | None = None,
    policies: JointParametersFor = joint_policies_for,
    max_examples: int = 60,
    min_informative_share: float = 0.25,
) -> Callable[[Ledger], None]:
    """A test that a LOLA gradient's mean is LOLA's, for all small two-player games and policies.

    Args:
        estimator: makes the `stochastic.MetaGradient` of a `stochastic.SampledGame`, for a game.
            Its target is the gradient of the player's return after the opponent's *expected* steps,
            so that a sampled value slot is biased by itself.
        options: arguments of `measure_meta_gradient`, or a function of the game and both players'
            parameters (the meta-parameters first).
        max_states: the largest number of states (default 2).
        max_actions: the largest number of actions of a player (default 2).
        max_horizon: the largest number of steps (default 2).
        problems: a strategy for games, in place of the three sizes. A game may have memory-one
            players, whose policies are linear.
        policies: gives a strategy for both players' parameters, for a game.
        max_examples: the largest number of examples that are counted.
        min_informative_share: the share of the examples that must be evidence.

    Returns:
        The test, a function of a `Ledger`; it works as that of `for_all_mdps`.

    Raises:
        ValueError: as `for_all_mdps`; an estimator that makes no `MetaGradient` of a game.

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
    sizes = max_sizes(problems, 2, states=max_states, actions=max_actions, horizon=max_horizon)
    stages = game_stages(problems, sizes, policies)
    name = getattr(estimator, "__name__", type(estimator).__name__)

    def measure(example: Example, rate: float) -> BiasReport:
        game, (phi, theta) = example.problem, example.parameters
        made: object = estimator(game)
        if not isinstance(made, MetaGradient) or not isinstance(made.loop, SampledGame):
            raise ValueError(
                f"estimator: expected it to make a MetaGradient of a SampledGame, got {made!r}"
            )
        rng = np.random.default_rng(example.seed)
        quick: dict[str, Any] = {"max_outcomes": _QUICK["max_outcomes"], "rng": rng}
        arguments = quick | options_at(options, measure_meta_gradient, game, phi, theta)
        exact = Lola(game, made.loop.player)
        return measure_meta_gradient(made, phi, theta, exact=exact, **arguments, false_alarm=rate)

    return _property(
        f"For all small games: {name} is unbiased.",
        partial(Search, name),
        measure,
        stages,
        max_examples,
        min_informative_share,
    )


def _property(
    words: str,
    search_of: Callable[..., Search],
    measure: Callable[[Example, float], BiasReport],
    stages: Stages,
    max_examples: int,
    min_informative_share: float,
    *,
    simpler: Callable[[Example], Iterable[Example]] = lambda example: (),
    explain: Callable[[Search, BiasFoundError], list[str]] = lambda search, biased: [],
) -> Callable[[Ledger], None]:
    """The test: a search through the stages and, if it fails, the simplest biased example and the
    message.
    """
    count = whole_number("max_examples", max_examples, at_least=1)
    real_number("min_informative_share", min_informative_share, low=0.0, high=1.0)

    def for_all(gradbias: Ledger) -> None:
        _check_ledger(gradbias)
        rate = ErrorBudget(gradbias.next_rate()).split(examples=count)
        search = search_of(max_examples=count, rate=rate, measure=measure)
        try:
            search.run(stages)
        except BiasFoundError as biased:
            simplest = search.first_biased(simpler(biased.example), biased)
            raise AssertionError(failure(search, simplest, explain(search, simplest))) from None
        except NotMeasuredError as error:
            raise _with_example(error) from None
        finally:
            gradbias.record(search.claim(min_informative_share))
        if not search.is_informative(min_informative_share):
            raise AssertionError(search.shortfall(min_informative_share))

    for_all.__doc__ = words
    return for_all


def _check_ledger(ledger: object) -> None:
    """Raises ValueError unless the object is a `Ledger`."""
    if not isinstance(ledger, Ledger):
        kind = type(ledger).__name__
        raise ValueError(
            f"gradbias: expected the fixture, a Ledger, got a {kind}; in a class, make the test a "
            "staticmethod"
        )


def _with_example(unmeasured: NotMeasuredError) -> BaseException:
    """The estimator's own exception, with the smallest problem on which it was raised."""
    error, problem = unmeasured.__cause__ or unmeasured, code(unmeasured.example)
    error.add_note(f"The smallest problem found on which it is raised:\n\n{problem}\n")
    return error
