"""Estimates and their products of many batches at once: closed forms, reverse mode, and the dense
assembly agree; meta-parameters and the other player as autograd has them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gradbias.analytic.policies.at_parameters import policy_at
from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.targets import GivenWeights, Undiscounted
from gradbias.stochastic.derivatives.closed_forms import Steps
from gradbias.stochastic.derivatives.jacobian_products import PlayerState, SurrogateBatch
from gradbias.stochastic.derivatives.known_surrogates import is_known, known_of
from gradbias.stochastic.estimators.contexts import Context
from gradbias.stochastic.estimators.kinds import estimate, from_surrogate
from gradbias.stochastic.rollouts.trajectories import sample
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, Tmaml
from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward, LambdaReturn
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice
from gradbias.stochastic.surrogates.returns import (
    log_probabilities,
    path_ratio_steps,
    probability_ratios,
)
from gradbias.stochastic.surrogates.score_function import AD, Reduction, ad
from gradbias.stochastic.surrogates.taylor import Taylor, VTrace
from gradbias.verification.evidence.known_moments import recursion_of
from gradbias.verification.evidence.ranges import component_range
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.setting import Setting
from tests.cases.surrogates import CLEAN, FAST
from tests.oracles.torch_records import record_at

STEPS = 3


def problem():
    """Three states, the last terminal, rewards by next state."""
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(3), size=(3, 2))
    rows[2] = np.eye(3)[2]
    reward = rng.normal(size=(3, 2, 3))
    reward[2] = 0.0
    return TabularMDP(rows, reward, 0.8, [0.6, 0.4, 0.0], STEPS)


def policies():
    rng = np.random.default_rng(1)
    features = LinearSoftmax(rng.normal(size=(3, 2, 4)))
    return {
        "tabular": (TABULAR, rng.normal(size=(5, 3, 2))),
        "linear": (features, rng.normal(size=(5, 4))),
    }


def critic():
    values = np.random.default_rng(2).normal(size=(STEPS + 1, 3))
    values[:, 2] = 0.0
    return values


def close(found, wanted):
    return np.abs(found - wanted).max() <= 1e-12 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["tabular", "linear"])
@pytest.mark.parametrize("name", sorted(CLEAN))
def test_gradients_and_products_are_those_of_the_dense_hessian(name, kind):
    """Five replications, each at parameters of its own, against one dense Hessian each."""
    mdp, surrogate = problem(), CLEAN[name]
    policy, theta = policies()[kind]
    rng = np.random.default_rng(3)
    batch = sample(mdp, theta, 4, rng=rng, replications=5, policy=policy)
    v = rng.normal(size=theta.shape)
    reference = np.zeros(theta.shape[1:])
    needs_reference = "kl_to" in name or "k1" in name or "as a loss" in name
    at = policy_at(policy, theta, 3, 2, (5,))
    estimates = SurrogateBatch(surrogate, batch, PlayerState(at, critic()), mdp.discount)
    if needs_reference:
        with pytest.raises(ValueError, match="surrogate"):
            estimates.gradient()
        return
    gradient, product = estimates.gradient(), estimates.pull_back(v).own
    for i in range(5):
        context = Context(
            theta[i], mdp.discount, policy=policy, critic=critic(), reference=reference
        )
        one = batch[i : i + 1]
        assert close(gradient[i], estimate(from_surrogate(surrogate, order=1), one, context)[0])
        dense = estimate(from_surrogate(surrogate, order=2), one, context)[0]
        assert close(product[i], np.tensordot(dense, v[i], axes=v[i].ndim))


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("name", sorted(FAST))
def test_closed_forms_are_what_reverse_mode_finds(name, off_policy):
    """R replications of N trajectories, coefficients in numpy against autograd."""
    mdp, surrogate = problem(), FAST[name]
    rng = np.random.default_rng(4)
    theta = rng.normal(size=(6, 3, 2))
    drawn_at = theta + 0.3 * rng.normal(size=theta.shape) * off_policy
    batch = sample(mdp, drawn_at, 5, rng=rng, replications=6)
    side = PlayerState(policy_at(TABULAR, theta, 3, 2, (6,)), critic())
    v = rng.normal(size=theta.shape)
    known, found = (
        SurrogateBatch(surrogate, batch, side, mdp.discount, closed_forms=fast)
        for fast in (True, False)
    )
    assert is_known(surrogate)
    assert close(known.gradient(), found.gradient())
    assert close(known.pull_back(v).own, found.pull_back(v).own)
    assert np.abs(known.gradient()).max() > 1e-2


def test_a_wrong_closed_form_would_be_seen(monkeypatch):
    """One shift of a sum in the closed form, and the comparison above fails."""
    import gradbias.stochastic.derivatives.closed_forms as module

    monkeypatch.setattr(module, "suffix_sums", lambda x: np.cumsum(x[..., ::-1], axis=-1))
    with pytest.raises(AssertionError):
        test_closed_forms_are_what_reverse_mode_finds("dice", False)


def test_what_has_no_closed_form_says_so():
    batch = sample(problem(), np.zeros((3, 2)), 2, rng=np.random.default_rng(0), replications=1)
    given = (batch, np.zeros((1, 2, STEPS + 1)), np.zeros((1, 2, STEPS)), 0.9)
    for other in (
        AD(reduction=Reduction.MEAN_OVER_STEPS),
        OffPolicyDice(max_ratio=2.0),
        VTrace(max_c=1.0),
        Taylor(2),
        lambda record: record.log_probs.sum(),
    ):
        assert known_of(other) is None
        assert not is_known(other)
    with pytest.raises(ValueError, match="weighting: expected 3 weights, got 1"):
        known_of(AD(weighting=GivenWeights((1.0,)))).closed_form(Steps(*given))


@dataclass(frozen=True)
class Doubled(Dice):
    """A user's subclass, whose code is another."""

    def __call__(self, record):
        return 2 * super().__call__(record)


class Renamed(Dice):
    """A user's subclass that changes nothing."""


def test_nothing_is_known_of_a_subclass_of_a_known_surrogate():
    mdp, theta = problem(), np.random.default_rng(0).normal(size=(3, 2))
    for surrogate in (Doubled(), Renamed()):
        assert known_of(surrogate) is None
        for order in (1, 2):
            request = Request(from_surrogate(surrogate, order=order), Setting.of(mdp, theta))
            assert recursion_of(request) is component_range(request) is None
    batch = sample(mdp, theta, 4, rng=np.random.default_rng(1), replications=2)
    side = PlayerState(policy_at(TABULAR, theta, 3, 2), critic())
    one, two = (SurrogateBatch(s, batch, side, mdp.discount) for s in (Dice(), Doubled()))
    assert close(two.gradient(), 2 * one.gradient())
    v = np.ones((2, 3, 2))
    assert close(two.pull_back(v).own, 2 * one.pull_back(v).own)


def test_every_table_entry_is_of_a_public_surrogate_and_compared_with_reverse_mode():
    import gradbias.stochastic.derivatives.known_surrogates as module

    assert set(module._TABLE) == {type(surrogate) for surrogate in FAST.values()}


@pytest.mark.parametrize(
    "surrogate",
    [
        IntrinsicReward(AD()),
        IntrinsicReward(Dice()),
        IntrinsicReward(LoadedDice(0.7)),
    ],
)
def test_the_mixed_derivative_in_an_intrinsic_reward_is_autograds(surrogate):
    phi = np.random.default_rng(5).normal(size=(3, 2))
    check_mixed(surrogate, phi)


@pytest.mark.parametrize("factor", [log_probabilities, probability_ratios, path_ratio_steps])
@pytest.mark.parametrize("phi", [(0.9, 0.7), (0.0, 0.0), (1.0, 1.0)])
def test_the_mixed_derivative_in_discount_and_lambda_is_autograds(factor, phi):
    check_mixed(LambdaReturn(factor, Undiscounted()), np.array(phi))


def check_mixed(surrogate, phi):
    """d(g . v)/dphi and d(g . v)/dtheta through one torch program, theta and phi its leaves."""
    mdp = problem()
    rng = np.random.default_rng(6)
    theta, v = rng.normal(size=(2, 3, 2))
    batch = sample(mdp, theta, 4, rng=rng, replications=1)
    side = PlayerState(policy_at(TABULAR, theta, 3, 2), critic())
    found = SurrogateBatch(surrogate, batch, side, mdp.discount, meta={"phi": phi})
    leaf, meta = (torch.tensor(x, requires_grad=True) for x in (theta, phi))
    values = critic()[np.arange(STEPS + 1), batch[0].states]
    record = record_at(batch[0], leaf, mdp.discount, values, {"phi": meta})
    value = surrogate(record)
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    wanted = torch.autograd.grad((gradient * torch.tensor(v)).sum(), [leaf, meta])
    pulled = found.pull_back(v[None])
    assert close(found.gradient()[0], gradient.detach().numpy())
    assert close(pulled.own[0], wanted[0].numpy())
    assert close(pulled.meta["phi"][0], wanted[1].numpy())
    assert np.abs(pulled.meta["phi"]).max() > 1e-3


def gap(record):
    return record.log_probs - record.log_probs.detach()


def test_a_surrogate_that_misbehaves_is_named():
    mdp = problem()
    batch = sample(mdp, np.zeros((3, 2)), 2, rng=np.random.default_rng(0), replications=1)
    side = PlayerState(policy_at(TABULAR, np.zeros((3, 2)), 3, 2))
    for wrong, message in (
        (lambda r: r.log_probs.long().sum(), "torch.int64; expected a floating-point number"),
        (lambda r: ad(r) * torch.rand(()), "randomness|random numbers"),
        (lambda r: ad(r) * np.random.rand(), "drew random numbers"),
        (lambda r: gap(r).square().sum().sqrt() + ad(r), "derivative of order 1 .* not finite"),
        (lambda r: r.log_probs.sum() * float("nan"), "returned nan; expected a finite number"),
        (lambda r: r.meta["eta"] * r.log_probs.sum(), "KeyError"),
    ):
        with pytest.raises(ValueError, match=message):
            SurrogateBatch(wrong, batch, side, mdp.discount).gradient()
    with pytest.raises(ValueError, match=r"detached from record\.log_probs"):
        SurrogateBatch(lambda r: r.rewards.sum(), batch, side, mdp.discount).probe()
    constant = SurrogateBatch(lambda r: r.rewards.sum(), batch, side, mdp.discount)
    assert (constant.gradient() == 0.0).all()  # as a surrogate may be on one batch
    with pytest.raises(ValueError, match="discount: expected a number"):
        SurrogateBatch(ad, batch, side, 7.0)
    with pytest.raises(ValueError, match=r"batch: expected shape \[B, N, H\]"):
        SurrogateBatch(ad, batch[0], side, mdp.discount)
    one = PlayerState(policy_at(TABULAR, np.zeros((3, 1)), 3, 1))
    with pytest.raises(ValueError, match="actions: expected numbers from 0 to 0"):
        SurrogateBatch(ad, batch, one, mdp.discount)
    for phi in (np.zeros((3, 3)), np.zeros((2, 2, 2)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"phi: expected shape \[S, 2\]"):
            SurrogateBatch(IntrinsicReward(ad), batch, side, 0.8, meta={"phi": phi}).gradient()
    wrong_shape = {"phi": np.zeros((2, 2))}
    with pytest.raises(ValueError, match=r"phi: expected \(discount, lambda\)"):
        SurrogateBatch(LambdaReturn(), batch, side, 0.8, meta=wrong_shape).gradient()
    with pytest.raises(ValueError, match="other: expected two players, got one"):
        SurrogateBatch(Dice(), batch, side, mdp.discount).other_gradient()


def test_replications_have_policies_of_their_own():
    """A peaked policy for each of two replications: each draws its own action."""
    theta = np.zeros((2, 3, 2))
    theta[0, :, 0] = theta[1, :, 1] = 50.0
    batch = sample(problem(), theta, 20, rng=np.random.default_rng(0), replications=2)
    assert (batch.actions[0] == 0).all()
    assert (batch.actions[1][batch.alive[1]] == 1).all()
    with pytest.raises(ValueError, match="theta"):
        sample(problem(), theta, 20, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="theta"):
        sample(problem(), theta, 20, rng=np.random.default_rng(0), replications=3)


def test_tmaml_with_coefficient_one_is_loaded_dice():
    """Its coefficients, not only its mean."""
    mdp, rng = problem(), np.random.default_rng(7)
    theta, v = rng.normal(size=(2, 3, 2))
    batch = sample(mdp, theta, 3, rng=rng, replications=2)
    zero_end = critic()
    zero_end[-1] = 0.0
    side = PlayerState(policy_at(TABULAR, theta, 3, 2), zero_end)
    several = np.broadcast_to(v, (2, 3, 2))
    one, other, plain = (
        SurrogateBatch(s, batch, side, mdp.discount).pull_back(several).own
        for s in (Tmaml(), LoadedDice(), replace(Tmaml(), coefficient=0.0))
    )
    assert close(one, other)
    assert not close(one, plain)
    assert close(plain, SurrogateBatch(Dice(), batch, side, 0.8).pull_back(several).own)
