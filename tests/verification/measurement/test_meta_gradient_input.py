"""What does not fit a sampled meta-gradient is refused, in one sentence that names the argument."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.problems.games import prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.stochastic.meta.game_loops import SampledGame
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import FIRST_ORDER, Given, Reuse, Sampled
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from tests.cases.meta_gradients import exact_mean, maml, small

# What each slot may be unbiased for.

MDP, THETA, _ = small()
LOOP = SampledLoop(MDP, starts_at_meta=True)
SLOT, GIVEN = Sampled(ad, 2), Given(Maml(MDP))
ENDING = TabularMDP(
    [[[0.3, 0.7], [0.6, 0.4]], [[0.0, 1.0], [0.0, 1.0]]],
    [[1.0, -0.5], [0.0, 0.0]],
    0.8,
    [1.0, 0.0],
    3,
)
HUGE = replace(MDP, reward=MDP.reward * 1e95)


REFUSED = [
    (lambda: Sampled(ad, 0), "batch_size: expected"),
    (lambda: MetaGradient(LOOP, 0, 1.0, SLOT, SLOT, SLOT), "steps: expected"),
    (lambda: MetaGradient(LOOP, 201, 1.0, SLOT, SLOT, SLOT), "steps: expected at most 200"),
    (lambda: MetaGradient(LOOP, 1, np.inf, SLOT, SLOT, SLOT), "step_size"),
    (lambda: MetaGradient(LOOP, 1, 1.0, SLOT, SLOT, SLOT, jacobian=SLOT), "jacobian: expected"),
    (lambda: MetaGradient(SampledLoop(MDP), 1, 1.0, SLOT, SLOT, SLOT), "jacobian: expected"),
    (lambda: MetaGradient(LOOP, 1, 1.0, SLOT, SLOT, SLOT, correction=1.5), "correction"),
    (lambda: MetaGradient(LOOP, 1, 1.0, GIVEN, SLOT, SLOT, correction=0.5), "correction"),
    (
        lambda: MetaGradient(LOOP, 1, 1.0, SLOT, Sampled(ad, 3), SLOT, reuse=Reuse.HESSIAN),
        "reuse: expected slots of as many trajectories",
    ),
    (
        lambda: MetaGradient(LOOP, 1, 1.0, GIVEN, SLOT, SLOT, reuse=Reuse.HESSIAN),
        "reuse: expected slots of as many trajectories",
    ),
    (lambda: SampledLoop(MDP, length=3), "length"),
    (lambda: SampledGame(prisoners_dilemma(), length=None), "length"),
    (lambda: SampledGame(prisoners_dilemma(horizon=2), player=3), "player"),
    (lambda: exact_mean(maml(MDP), np.zeros((3, 2))), "theta"),
    (lambda: exact_mean(maml(MDP), THETA, THETA + 1), "theta: expected None"),
    (
        lambda: exact_mean(maml(HUGE, step_size=1e12, value=Given(Maml(HUGE))), THETA),
        "step_size: expected parameters that stay below",
    ),
    (lambda: MetaGradient(LOOP, 1, 1.0, ad, SLOT, SLOT), "value: expected Sampled"),
    (lambda: MetaGradient(LOOP, 1, 1.0, SLOT, None, SLOT), "hessian: expected Sampled"),
    (lambda: MetaGradient(LOOP, 1, 1.0, SLOT, SLOT, FIRST_ORDER), "outer: expected Sampled"),
    (lambda: MetaGradient(MDP, 1, 1.0, SLOT, SLOT, SLOT), "loop: expected a SampledLoop"),
    (
        lambda: MetaGradient(LOOP, 1, 1.0, SLOT, SLOT, SLOT, reuse="all"),
        "reuse: expected one of none, hessian, inner, replay, got 'all'",
    ),
    (lambda: Given(MDP), "problem: expected one with exact inner steps"),
    (lambda: Sampled("ad", 1), "surrogate: expected a function"),
    (lambda: SampledLoop(Maml(MDP)), "mdp: expected a TabularMDP"),
    (lambda: SampledGame(MDP), "game: expected a StochasticGame"),
    (lambda: SampledLoop(ENDING, critic=np.ones(2)), "critic: expected 0 at terminal"),
    (lambda: SampledLoop(MDP, critic=np.ones(3)), "critic: expected shape"),
    (
        lambda: exact_mean(
            replace(maml(MDP), loop=replace(LOOP, critic=lambda t: np.ones((len(t), 3, 5)))),
            THETA,
        ),
        "critic: expected values of shape",
    ),
    (
        lambda: SampledGame(prisoners_dilemma(horizon=2), critics=(np.ones(5),)),
        "critics: expected one for each player",
    ),
    (
        lambda: SampledGame(prisoners_dilemma(horizon=2), critics=(None, np.ones(4))),
        "critics|critic: expected shape",
    ),
    (lambda: maml(MDP).estimates(THETA, replications=0, rng=None), "replications: expected"),
    (lambda: maml(MDP).estimates(THETA, replications=1, rng=3), "rng: expected a numpy"),
    (
        lambda: measure_meta_gradient(maml(MDP), THETA, exact=Lirpg(MDP)),
        "exact: expected starts_at_meta True",
    ),
    (
        lambda: measure_meta_gradient(maml(MDP), THETA, exact=Maml(small(1)[0])),
        "exact: expected the transition of the estimator's problem",
    ),
    (
        lambda: measure_meta_gradient(
            maml(MDP, outer=lambda r: ad(r) * np.random.rand()), THETA, exact=Maml(MDP)
        ),
        "random numbers",
    ),
    (lambda: measure_meta_gradient(maml(MDP), THETA), "exact: expected the problem"),
    (
        lambda: measure_meta_gradient(maml(MDP), THETA, target=GivenTarget("wrong", np.zeros(3))),
        "target value: expected shape",
    ),
    (
        lambda: measure_meta_gradient(
            maml(MDP, batch_size=30), THETA, exact=Maml(MDP), evidence="enumeration"
        ),
        "enumeration: .* batches of 30 at one step",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
