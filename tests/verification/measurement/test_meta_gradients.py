"""Sampled K-step meta-gradients: exact means and variances, and what they are unbiased for."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.meta.bilevel import Lirpg, Lola, Maml, Mgrl
from gradbias.analytic.meta.meta_gradients import inner_loop, meta_gradient
from gradbias.analytic.meta.sampled_objective import sampled_step_objective
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.at_parameters import policy_at
from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.games import StochasticGame, prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.returns.derivatives import gradient, state_action_occupancy
from gradbias.analytic.returns.evaluation import evaluate
from gradbias.stochastic.derivatives.jacobian_products import PlayerState, SurrogateBatch
from gradbias.stochastic.meta.game_loops import SampledGame
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import FIRST_ORDER, Given, Reuse, Sampled
from gradbias.stochastic.rollouts.trajectories import sample
from gradbias.stochastic.surrogates.dice import LoadedDice, dice, loaded_dice
from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward, LambdaReturn
from gradbias.stochastic.surrogates.score_function import LVC, ad, lvc, reinforce
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.meta_gradients import measure_meta_gradient
from tests.cases.meta_gradients import TWO_ARMS, close, exact_mean, maml, small

# What each slot may be unbiased for.


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_exact_slots_are_the_exact_meta_gradient(steps):
    mdp, theta, _ = small()
    given = Given(Maml(mdp))
    estimator = maml(mdp, steps, value=given, hessian=given, outer=given)
    assert close(
        exact_mean(estimator, theta), meta_gradient(Maml(mdp), theta, steps=steps, step_size=0.7)
    )


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("hessian", [dice, loaded_dice, LoadedDice(0.3)])
def test_unbiased_slots_after_exact_steps_are_unbiased(steps, hessian):
    """Values exact, Hessian and outer slot sampled: no compositional bias is left. (Loaded-DiCE of
    lambda 0.3 needs exact values, which move with theta.)"""
    mdp, theta, _ = small(1)

    def values(parameters):
        rows = [evaluate(mdp, policy_at(TABULAR, one, 2, 2).probabilities) for one in parameters]
        return np.stack([one.values for one in rows])

    loop = SampledLoop(mdp, starts_at_meta=True, critic=values)
    estimator = MetaGradient(
        loop, steps, 0.7, Given(Maml(mdp)), Sampled(hessian, 1), Sampled(ad, 1)
    )
    wanted = meta_gradient(Maml(mdp), theta, steps=steps, step_size=0.7)
    assert close(exact_mean(estimator, theta), wanted)
    broken = replace(estimator, hessian=Sampled(lvc, 1))
    assert not close(exact_mean(broken, theta), wanted, 1e-3)


def test_first_order_maml_is_the_outer_gradient():
    mdp, theta, _ = small(2)
    given = Given(Maml(mdp))
    path = inner_loop(Maml(mdp), theta, steps=2, step_size=0.7)
    estimator = maml(mdp, 2, value=given, hessian=FIRST_ORDER, outer=given)
    assert close(exact_mean(estimator, theta), gradient(mdp, path[-1]))
    assert not close(
        exact_mean(estimator, theta), meta_gradient(Maml(mdp), theta, steps=2, step_size=0.7), 1e-3
    )


def test_lirpg_is_unbiased_after_exact_steps_and_ad_at_one_step_too():
    mdp, theta, rng = small(3)
    phi, problem = rng.normal(size=(2, 2)), Lirpg(mdp)
    for steps, hessian, unbiased in ((1, ad, True), (2, dice, True), (2, ad, False)):
        estimator = MetaGradient(
            SampledLoop(mdp),
            steps,
            0.7,
            Given(problem),
            Sampled(IntrinsicReward(hessian), 1),
            Sampled(dice, 1),
            Sampled(IntrinsicReward(ad), 1),
        )
        wanted = meta_gradient(problem, phi, theta, steps=steps, step_size=0.7)
        assert close(exact_mean(estimator, phi, theta), wanted, 1e-12) == unbiased


@pytest.mark.parametrize("discount_and_lambda", [(0.9, 0.6), (0.0, 0.5), (0.7, 1.0)])
def test_mgrls_jacobian_in_discount_and_lambda_is_unbiased(discount_and_lambda):
    """One exact step. At two, the update's Jacobian is not symmetric, as every surrogate's is."""
    mdp, theta, rng = small(4)
    critic = rng.normal(size=2)
    problem, phi = Mgrl(mdp, critic), np.array(discount_and_lambda)
    loop = SampledLoop(mdp, critic=critic)
    found = {}
    for steps in (1, 2):
        slot = Sampled(LambdaReturn(), 1)
        estimator = MetaGradient(
            loop, steps, 0.7, Given(problem), slot, Given(problem), jacobian=slot
        )
        wanted = meta_gradient(problem, phi, theta, steps=steps, step_size=0.7)
        found[steps] = close(exact_mean(estimator, phi, theta), wanted)
    assert found == {1: True, 2: False}


@pytest.mark.parametrize("player", [1, 2])
@pytest.mark.parametrize("kind", ["prisoners", "uneven"])
def test_lola_needs_both_players_scores(player, kind):
    rng = np.random.default_rng(5)
    game, sizes = prisoners_dilemma(0.9, horizon=2), [(5,), (5,)]
    if kind == "uneven":
        rows = rng.dirichlet(np.ones(2), size=(2, 2, 3))
        rewards = rng.normal(size=(2, 2, 2, 2, 3))
        game = StochasticGame(rows, rewards, 0.9, [0.7, 0.3], horizon=2)
        sizes = [(2, 2), (2, 3)]
    phi, theta = rng.normal(size=sizes[player - 1]), rng.normal(size=sizes[2 - player])
    problem, loop = Lola(game, player), SampledGame(game, player)
    for surrogate, unbiased in ((dice, True), (ad, False)):
        slot = Sampled(surrogate, 1)
        estimator = MetaGradient(loop, 2, 0.7, Given(problem), slot, Sampled(ad, 1), jacobian=slot)
        wanted = meta_gradient(problem, phi, theta, steps=2, step_size=0.7)
        assert close(exact_mean(estimator, phi, theta), wanted) == unbiased


def test_a_users_problem_reads_its_meta_parameters_from_the_record():
    """phi scales the inner step: d/dphi of J(theta + alpha phi g) is alpha g . grad J."""
    mdp, theta, _ = small(6)

    def scaled(record):
        return record.meta["phi"] * ad(record)

    class Scaled:
        """What the library does not know: an inner step of length phi."""

        def inner_step(self, phi, theta):
            step = Maml(mdp).inner_step(phi, theta)
            return type("Step", (), {"update": phi * step.update})

    estimator = MetaGradient(
        SampledLoop(mdp),
        1,
        0.7,
        Given(Scaled()),
        FIRST_ORDER,
        Sampled(dice, 1),
        jacobian=Sampled(scaled, 1),
    )
    after = theta + 0.7 * 0.5 * gradient(mdp, theta)
    wanted = 0.7 * (gradient(mdp, theta) * gradient(mdp, after)).sum()
    assert close(exact_mean(estimator, 0.5, theta), wanted)


# The sampled-step objective, and the correction for sampling.


@pytest.mark.parametrize(("steps", "samples"), [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("credit", Credit)
def test_e_maml_is_unbiased_for_the_sampled_step_objective(steps, samples, credit):
    """Correction 1, and the derivative of the drawn batch's own update: AD on the same samples."""
    mdp, theta, _ = small(7)
    surrogate = ad if credit is Credit.REWARD_TO_GO else reinforce
    estimator = maml(
        mdp,
        steps,
        value=surrogate,
        hessian=surrogate,
        batch_size=samples,
        reuse=Reuse.HESSIAN,
        correction=1.0,
    )
    wanted = sampled_step_objective(
        mdp, theta, batch_size=samples, steps=steps, step_size=0.7, credit=credit
    ).gradient
    assert close(exact_mean(estimator, theta), wanted)
    for broken in (
        replace(estimator, correction=0.9),
        replace(estimator, reuse=Reuse.NONE),
        replace(estimator, hessian=Sampled(lvc, samples)),
    ):
        assert not close(exact_mean(broken, theta), wanted, 1e-4)


def test_a_partial_correction_interpolates():
    mdp, theta, _ = small(7)
    means = [exact_mean(maml(mdp, 2, correction=c), theta) for c in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(means[1], (means[0] + means[2]) / 2, atol=1e-14)


ONE_LOGIT = LinearSoftmax(np.array([[[1.0], [0.0]]]))
TABLE = {
    "DiCE, independent batches": (dice, Reuse.NONE, 0.0, -0.068, -0.020),
    "DiCE, the same batch": (dice, Reuse.HESSIAN, 0.0, -0.081, -0.035),
    "AD, the same batch": (ad, Reuse.HESSIAN, 0.0, -0.49, -0.46),
    "E-MAML": (ad, Reuse.HESSIAN, 1.0, -0.048, 0.0),
}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_which_estimator_is_biased_for_which_target(name):
    """Two arms, one logit at -0.5, one step of size 4 from 4 samples: relative biases against the
    expected-step and the sampled-step objective. No estimator is unbiased for both."""
    hessian, reuse, correction, for_expected, for_sampled = TABLE[name]
    theta = np.array([-0.5])
    loop = SampledLoop(TWO_ARMS, starts_at_meta=True, policy=ONE_LOGIT)
    exact = Maml(TWO_ARMS, policy=ONE_LOGIT)
    estimator = MetaGradient(
        loop,
        1,
        4.0,
        Sampled(ad, 4),
        Sampled(hessian, 4),
        Given(exact),
        reuse=reuse,
        correction=correction,
    )
    expected = meta_gradient(exact, theta, steps=1, step_size=4.0)
    sampled = sampled_step_objective(
        TWO_ARMS, theta, batch_size=4, steps=1, step_size=4.0, policy=ONE_LOGIT
    ).gradient
    found = exact_mean(estimator, theta)
    digits = 2 if name.startswith("AD") else 3
    assert round(float(found[0] / expected[0]) - 1, digits) == for_expected
    assert round(float(found[0] / sampled[0]) - 1, digits) == for_sampled
    if name == "E-MAML":
        assert close(found, sampled)


# Reports, and what does not fit.


def test_the_report_names_target_and_slots():
    mdp, theta, _ = small(11)
    report = measure_meta_gradient(maml(mdp), theta, exact=Maml(mdp))
    text = str(report)
    assert report.verdict is Verdict.BIASED
    assert "after 1 expected inner steps" in text
    assert "of one estimate\n" in text
    assert "value AD() x 1, Hessian Dice() x 1, outer AD() x 1" in text
    given = maml(mdp, value=Given(Maml(mdp)))
    assert measure_meta_gradient(given, theta, exact=Maml(mdp)).verdict is Verdict.UNBIASED
    sampled = measure_meta_gradient(
        given, theta, exact=Maml(mdp), evidence="sampling", replications=4_000, tolerance=3.0
    )
    assert sampled.verdict is Verdict.UNBIASED
    value = sampled_step_objective(mdp, theta, batch_size=1, steps=1, step_size=0.7).gradient
    target = GivenTarget("the gradient of the objective of one sampled step", value)
    emaml = maml(mdp, hessian=ad, reuse=Reuse.HESSIAN, correction=1.0)
    assert measure_meta_gradient(emaml, theta, target=target).verdict is Verdict.UNBIASED


def ending():
    """The second state is terminal."""
    rows = np.array([[[0.3, 0.7], [0.6, 0.4]], [[0.0, 1.0], [0.0, 1.0]]])
    return TabularMDP(rows, [[1.0, -0.5], [0.0, 0.0]], 0.8, [1.0, 0.0], 3)


def test_an_intrinsic_reward_that_ends_with_the_episode():
    """Sampled trajectories pay nothing after their end; `Lirpg` does unless it is told not to."""
    mdp, rng = ending(), np.random.default_rng(0)
    theta, phi = rng.normal(size=(2, 2, 2))
    for paid_at_end in (False, True):
        problem = Lirpg(mdp, paid_at_end=paid_at_end)
        slot = Sampled(IntrinsicReward(dice), 1)
        estimator = MetaGradient(
            SampledLoop(mdp), 2, 0.7, Given(problem), slot, Given(problem), jacobian=slot
        )
        found = exact_mean(estimator, phi, theta)
        wanted = meta_gradient(problem, phi, theta, steps=2, step_size=0.7)
        assert close(found, wanted) != paid_at_end
        assert (found[1] == 0.0).all()


def test_the_report_says_where_the_target_has_another_horizon():
    rng = np.random.default_rng(15)
    mdp = TabularMDP.random(2, 2, rng=rng, discount=0.8)
    given, theta = Given(Maml(mdp)), rng.normal(size=(2, 2))
    loop = SampledLoop(mdp, starts_at_meta=True, length=2)
    estimator = MetaGradient(loop, 1, 0.7, given, given, Sampled(dice, 1))
    text = str(measure_meta_gradient(estimator, theta, exact=Maml(mdp)))
    assert "infinite-horizon discounted return" in text
    assert "trajectories are cut at 2 steps, the target has an infinite horizon" in text


def test_an_outer_surrogate_that_reads_phi_has_the_return_as_its_value():
    """The outer return of r + phi, whose derivative in phi is the occupancy: DiCE's value is the
    return, AD's is not."""
    mdp, theta, rng = small(16)
    phi = rng.normal(size=(2, 2))
    paid = replace(mdp, reward=mdp.reward + phi)
    for surrogate, right in ((dice, True), (ad, False)):
        estimator = MetaGradient(
            SampledLoop(mdp),
            1,
            0.7,
            Given(Lirpg(mdp)),
            FIRST_ORDER,
            Sampled(IntrinsicReward(surrogate), 1),
            jacobian=Sampled(IntrinsicReward(ad), 1),
        )
        through = replace(estimator, outer=Given(_Paid(paid, mdp)))
        direct = exact_mean(estimator, phi, theta) - exact_mean(through, phi, theta)
        after = inner_loop(Lirpg(mdp), phi, theta, steps=1, step_size=0.7)[-1]
        assert close(direct, state_action_occupancy(mdp, after)) == right


class _Paid:
    """The outer return of r + phi, without its own derivative in phi."""

    def __init__(self, paid, mdp):
        self.paid, self.inner_step = paid, Lirpg(mdp).inner_step

    def outer(self, phi, theta):
        return Maml(self.paid).outer(phi, theta)


def test_lvc_is_an_estimate_of_the_same_gradient():
    """The slots' surrogates are used as they are: a value slot of LVC is AD's."""
    mdp, theta, rng = small(13)
    batch = sample(mdp, theta, 3, rng=rng, replications=2)
    side = PlayerState(policy_at(TABULAR, theta, 2, 2))
    one, other = (SurrogateBatch(s, batch, side, 0.8).gradient() for s in (ad, LVC()))
    np.testing.assert_allclose(one, other, atol=1e-14)


def test_a_critic_that_is_a_function_has_values_of_its_own_for_each_replication():
    mdp, _, rng = small(17)
    thetas = rng.normal(size=(3, 2, 2))
    loop = SampledLoop(
        mdp, starts_at_meta=True, critic=lambda at: np.repeat(at.sum(axis=2)[:, None], 3, axis=1)
    )
    batch = sample(mdp, thetas, 2, rng=rng, replications=3)
    together = loop.inner(ad, thetas[0], thetas, batch).gradient()
    for i in range(3):
        alone = loop.inner(ad, thetas[0], thetas[i : i + 1], batch[i : i + 1]).gradient()
        np.testing.assert_allclose(together[i], alone[0], atol=1e-14)
