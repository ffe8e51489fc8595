"""The compositional bias: by ordered batches and autograd, by noise derivatives in torch, and by
extrapolation of its exact values."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradbias.analytic.meta.bilevel import Lirpg, Lola, Maml
from gradbias.analytic.meta.compositional_bias import compositional_bias
from gradbias.analytic.meta.compositional_expansion import leading_compositional_bias
from gradbias.analytic.meta.meta_gradients import inner_loop, meta_gradient
from gradbias.analytic.moments.estimators import Curvature, gradient_moments
from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.batches import MDPBatch
from gradbias.analytic.problems.games import prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import hessian, third_derivative
from gradbias.stochastic.networks.torch_policy import TorchPolicy
from tests.cases.bandits import bandit
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch
from tests.oracles.sampled_loops import PARTS, TO_GO, WHOLE, Loop, by_noise, ending, enumerated
from tests.oracles.tolerances import close


def check_parts(found, wanted, names=PARTS, scale=1.0):
    for name in names:
        one = np.asarray(getattr(found, name))
        assert close(one, np.reshape(wanted[name], one.shape), scale), name


def random_loop(seed, steps, *, lirpg=False, **more):
    rng = np.random.default_rng(seed)
    mdp = oracles.random_mdp(seed, horizon=2, n_states=2, n_actions=2)
    theta, phi = rng.normal(size=(2, 2, 2))
    return Loop(mdp, theta, steps, 0.7, phi if lirpg else None, **more)


FEATURES = np.random.default_rng(0).normal(size=(2, 2, 3))


def bent_logits(p):
    return torch.tanh(by_torch.tensor(FEATURES) @ p) + (by_torch.tensor(FEATURES) @ p) ** 2


def straight_logits(p):
    return by_torch.tensor(FEATURES) @ p


def loops():
    critic = np.array([[0.5, -0.4], [0.2, 0.9], [0.0, 0.0]])
    p = np.array([0.3, -0.2, 0.5])
    linear = {"policy": LinearSoftmax(FEATURES), "logits": straight_logits}
    network = {"policy": TorchPolicy(bent_logits, 3), "logits": bent_logits}
    rewards = np.random.default_rng(3).normal(size=(2, 2, 2))
    return {
        "maml, one step": random_loop(1, 1),
        "maml, three steps": random_loop(2, 3),
        "maml, whole returns": random_loop(3, 2, credit=WHOLE),
        "maml, critic": random_loop(4, 2, critic=critic),
        "maml, whole returns and critic": random_loop(5, 2, critic=critic[0], credit=WHOLE),
        "maml, linear": replace(random_loop(6, 2, **linear), theta=p),
        "maml, network": replace(random_loop(7, 2, **network), theta=p),
        "maml, ending": Loop(ending(), np.array([[0.4, -0.1], [0.3, 0.2]]), 2, 0.9),
        "lirpg, one step": random_loop(8, 1, lirpg=True),
        "lirpg, three steps": random_loop(9, 3, lirpg=True),
        "lirpg, critic": random_loop(10, 2, lirpg=True, critic=critic[0]),
        "lirpg, by next state": Loop(
            replace(random_loop(11, 2).mdp, reward=rewards), rewards[0], 2, 0.7, rewards[1]
        ),
        "lirpg, paid after the end": Loop(ending(), rewards[0], 2, 0.7, rewards[1]),
        "lirpg, network": replace(random_loop(12, 2, lirpg=True, **network), theta=p),
    }


LOOPS = loops()


@pytest.mark.parametrize("name", sorted(LOOPS))
def test_leading_constants_are_second_derivatives_in_the_noise(name):
    loop = LOOPS[name]
    path = loop.ask(inner_loop)[:-1]
    wanted = by_noise(loop, [loop.covariance(theta) for theta in path])
    found = loop.bias()
    check_parts(found, wanted)
    if loop.steps > 1:  # the covariance at the first step is not that of the others
        wrong = by_noise(loop, [loop.covariance(path[0])] * loop.steps)
        for part in PARTS:
            one = np.asarray(getattr(found, part))
            same = part == "iterate" and loop.steps == 2  # the last step's noise adds none to it
            assert close(one, np.reshape(wrong[part], one.shape), 1.0) is same, part


def small_loops():
    theta, critic = np.array([[0.9, -0.3]]), np.array([0.4])
    three = TabularMDP(np.ones((1, 3, 1)), [[1.0, -0.5, 0.3]], 0.9, [1.0], horizon=1)
    timed = replace(LOOPS["maml, critic"], steps=1)
    alike = replace(timed, mdp=replace(timed.mdp, discount=1.0), credit=WHOLE)
    many = replace(random_loop(9, 1, lirpg=True), theta=np.array([[0.4, 0.1], [-0.3, 0.2]]))
    return {
        "maml, two steps": (Loop(bandit(), theta, 2, 1.3), 3),
        "maml, three steps of one": (Loop(bandit(), theta, 3, 1.3), 1),
        "maml, three actions": (Loop(three, np.array([[0.2, -0.4, 0.1]]), 2, 0.9), 2),
        "maml, critic": (Loop(bandit(), theta, 2, 1.3, critic=critic), 2),
        "maml, critic over time": (timed, 1),
        "maml, orders alike but for the critic": (alike, 1),
        "maml, whole returns and critic": (
            Loop(replace(bandit(), horizon=2), theta, 2, 0.4, credit=WHOLE, critic=critic),
            1,
        ),
        "maml, ending": (replace(LOOPS["maml, ending"], steps=1), 2),
        "maml, network": (replace(LOOPS["maml, network"], steps=1), 1),
        "lirpg, two steps": (Loop(bandit(), theta, 2, 0.9, np.array([[0.3, 0.6]])), 3),
        "lirpg, two states": (many, 1),
    }


SMALL = small_loops()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_bias_is_that_over_all_ordered_batches(name):
    loop, n = SMALL[name]
    found = loop.bias(batch_size=n)
    check_parts(found, enumerated(loop, n))


def test_batches_of_later_steps_are_drawn_where_they_are_needed():
    loop, n = SMALL["maml, two steps"]
    wrong = enumerated(loop, n, drawn_at=loop.theta)
    for name in PARTS:
        one = np.asarray(getattr(loop.bias(batch_size=n), name))
        assert not close(one, np.reshape(wrong[name], one.shape), 1.0), name


def bandit_estimates(theta):
    """(probability, gradient R u, Hessian R (u u^T + du), AD's R du) from each action."""
    policy = oracles.softmax_rows(theta)[0]
    slope = np.outer(policy, policy) - np.diag(policy)
    for action, reward in enumerate(bandit().reward[0]):
        u = np.eye(2)[action] - policy
        yield policy[action], reward * u, reward * (np.outer(u, u) + slope), reward * slope


def mean_estimate(theta, steps, step_size, *, reuse=False, ad=False):
    """E of (I + alpha H_0) .. (I + alpha H_{K-1}) G over all samples, one trajectory for each: the
    steps' own, the Hessians' (``reuse``: the steps' again) and the outer gradient's."""
    if steps == 0:
        return sum(p * g for p, g, *_ in bandit_estimates(theta))
    total = np.zeros(2)
    for p, g, *own in bandit_estimates(theta):
        later = mean_estimate(theta + step_size * g, steps - 1, step_size, reuse=reuse, ad=ad)
        for q, _, *fresh in bandit_estimates(theta):
            turned = (own if reuse else fresh)[ad]
            total = total + p * q * (later + step_size * turned @ later)
    return total


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_it_is_the_bias_of_estimates_from_independent_samples(steps):
    """And not of those that use the inner steps' samples again for their Hessians."""
    loop = Loop(bandit(), np.array([[0.4, -0.9]]), steps, 1.3)
    exact = loop.ask(meta_gradient)
    given = (loop.theta, steps, loop.step_size)
    wanted = mean_estimate(*given) - exact
    assert close(loop.bias(batch_size=1).meta_gradient, wanted, 1.0)
    reused = mean_estimate(*given, reuse=True) - exact
    assert np.linalg.norm(reused - wanted) > 1e-3
    by_ad = mean_estimate(*given, ad=True) - exact
    assert close(loop.bias(batch_size=1, curvature=Curvature.AD).meta_gradient, by_ad, 1.0)


@pytest.mark.parametrize("credit", [TO_GO, WHOLE])
def test_biased_hessians_add_theirs(credit):
    critic = np.array([0.5, -0.4])
    loop = random_loop(4, 1, credit=credit, critic=None if credit is WHOLE else critic)
    plain = loop.bias(batch_size=2)
    after = oracles.policy_gradient_any_dtype(loop.mdp, loop.ask(inner_loop)[1])
    after = after + plain.outer_gradient
    truth = oracles.complex_step_hessian(loop.mdp, loop.theta)
    ad = oracles.ad_total_return_hessian_mean(loop.mdp, loop.theta)
    if credit is TO_GO:
        ad = oracles.ad_hessian_mean(loop.mdp, loop.theta, critic)
        dice = loop.bias(batch_size=2, curvature=Curvature.DICE)
        assert close(dice.meta_gradient, plain.meta_gradient, 1.0)
    lvc = oracles.lvc_hessian_mean(loop.mdp, loop.theta)
    for curvature, mean in ((Curvature.AD, ad), (Curvature.LVC, lvc)):
        found = loop.bias(batch_size=2, curvature=curvature).meta_gradient
        added = loop.step_size * np.tensordot(mean - truth, after, axes=2)
        assert close(found, plain.meta_gradient + added, 1.0)
        assert np.linalg.norm(added) > 1e-3


def test_unbiased_hessians_of_what_is_paid_add_nothing():
    loop, n = SMALL["lirpg, two steps"]
    plain = loop.bias(batch_size=n).meta_gradient
    assert close(loop.bias(batch_size=n, curvature=Curvature.DICE).meta_gradient, plain, 1.0)
    by_ad = loop.bias(batch_size=n, curvature=Curvature.AD).meta_gradient
    assert np.linalg.norm(by_ad - plain) > 1e-3


EXTRAPOLATION = 1e-8
"""Relative agreement with limits: what rounding in the exact values, times N, leaves of them."""


def extrapolated(loop, sizes):
    """The limit of N times the bias, by polynomial extrapolation in 1/N."""
    tables = {name: [] for name in PARTS}
    for n in sizes:
        found = loop.bias(batch_size=n)
        for name in PARTS:
            tables[name].append(n * np.asarray(getattr(found, name)))
    for name, rows in tables.items():
        for k in range(1, len(sizes)):
            ratios = [sizes[i + k] / sizes[i] for i in range(len(rows) - 1)]
            rows = [(r * rows[i + 1] - rows[i]) / (r - 1) for i, r in enumerate(ratios)]
        tables[name] = rows[0]
    return tables


EXTRAPOLATED = {
    "maml, one step": (Loop(bandit(), np.array([[0.9, -0.3]]), 1, 1.3), [16, 32, 64, 128, 256]),
    "maml, two steps": (Loop(bandit(), np.array([[0.9, -0.3]]), 2, 0.9), [6, 9, 12, 18, 24, 36]),
    "lirpg, two steps": (
        Loop(bandit(), np.array([[0.9, -0.3]]), 2, 0.9, np.array([[0.6, -0.4]])),
        [6, 9, 12, 18, 24, 36],
    ),
    "maml, three steps": (Loop(bandit(), np.array([[0.9, -0.3]]), 3, 0.4), [2, 3, 4, 6, 8, 12]),
    "maml, two states": (replace(random_loop(1, 1), step_size=0.1), [1, 2, 3, 4, 5, 6]),
}


@pytest.mark.parametrize("name", sorted(EXTRAPOLATED))
def test_leading_constants_are_the_limits_of_exact_biases(name):
    loop, sizes = EXTRAPOLATED[name]
    found, wanted = loop.bias(), extrapolated(loop, sizes)
    for part in PARTS:
        one, limit = np.asarray(getattr(found, part)), wanted[part]
        gap, size = np.abs(one - limit).max(), np.linalg.norm(one)
        assert gap <= max(EXTRAPOLATION * size, 1e-11), (part, gap / max(size, 1e-300))
    # What is left of N times the bias at the largest N is far from the limit.
    last = sizes[-1] * np.asarray(loop.bias(batch_size=sizes[-1]).meta_gradient)
    assert not np.allclose(last, found.meta_gradient, rtol=100 * EXTRAPOLATION, atol=0.0)


def by_matrices(loop, third=third_derivative):
    """Mean and covariance of theta^K by the recursion of their leading terms, in dense matrices."""
    p = loop.theta.size
    mean, spread = np.zeros(p), np.zeros((p, p))
    for theta in loop.ask(inner_loop)[:-1]:
        values, vectors = np.linalg.eigh(spread)
        q = (vectors * np.sqrt(np.maximum(values, 0.0))).T.reshape(p, *theta.shape)
        bent = third(loop.paid, theta, q, q).sum(axis=0).ravel()
        move = np.eye(p) + loop.step_size * hessian(loop.paid, theta).reshape(p, p)
        mean = move @ mean + 0.5 * loop.step_size * bent
        own = gradient_moments(loop.paid, theta, credit=loop.credit, critic=loop.critic)
        spread = move @ spread @ move + loop.step_size**2 * own.covariance
    return mean.reshape(loop.theta.shape), spread


def timed_loop(lirpg):
    """Five steps, rewards over time and by the next state: far beyond enumeration of batches."""
    rng = np.random.default_rng(0)
    plain = oracles.random_mdp(5, horizon=5, n_states=4, n_actions=3)
    mdp = replace(plain, reward=rng.normal(size=(5, 4, 3, 4)))
    theta, phi = rng.normal(size=(2, 4, 3))
    return Loop(mdp, theta, 3, 0.3, phi if lirpg else None)


@pytest.mark.parametrize("lirpg", [False, True])
def test_the_iterate_s_mean_and_covariance_follow_their_recursion(lirpg):
    loop = timed_loop(lirpg)
    found = loop.bias()
    mean, spread = by_matrices(loop)
    assert close(found.iterate, mean, 1.0)
    assert close(found.iterate_covariance, spread, 1.0)
    straight, _ = by_matrices(loop, third=lambda *given: 0.0 * third_derivative(*given))
    assert np.linalg.norm(found.iterate - straight) > 0.1 * np.linalg.norm(found.iterate)


def test_the_first_sampled_iterate_is_unbiased_and_no_other():
    for name, (loop, n) in SMALL.items():
        one = replace(loop, steps=1).bias(batch_size=n)
        assert np.abs(one.iterate).max() < 1e-14, name
        spread = loop.step_size**2 * loop.covariance(loop.theta) / n
        assert close(one.iterate_covariance, spread, 1.0)
        assert np.linalg.norm(one.meta_gradient) > 1e-4
        assert abs(one.outer_return) > 1e-6
        if loop.steps == 1:
            continue
        assert np.linalg.norm(loop.bias(batch_size=n).iterate) > 1e-5, name


def test_nothing_is_biased_where_nothing_is_random_or_worth_a_step():
    theta = np.array([[0.9, -0.3]])
    still = (replace(bandit(), reward=[[0.0, 0.0]]), theta)
    alone = (TabularMDP([[[1.0]]], [[1.0]], 0.9, [1.0], 2), np.zeros((1, 1)))
    count = 0
    for mdp, start in (still, alone):
        for found in (Loop(mdp, start, 2, 0.7).bias(), Loop(mdp, start, 2, 0.7).bias(batch_size=2)):
            for part in PARTS:
                assert np.abs(getattr(found, part)).max() < 1e-15
                count += 1
    assert count == 20


def test_the_return_s_bias_is_of_second_order_in_the_step_size_for_every_number_of_steps():
    """So the rate K alpha^K of the abstract of *A Theoretical Understanding of Gradient Bias in
    Meta-RL* does not hold: at K = 3 it is exceeded without bound as alpha falls."""
    loop = timed_loop(lirpg=False)
    p = loop.theta.size
    curvature = hessian(loop.mdp, loop.theta).reshape(p, p)
    noise = gradient_moments(loop.mdp, loop.theta).covariance
    wanted = 0.5 * loop.steps * np.trace(curvature @ noise)
    ratios = []
    for alpha in (1e-2, 1e-3, 1e-4):
        bias = replace(loop, step_size=alpha).bias().outer_return
        assert abs(bias / alpha**2 - wanted) < 10 * alpha * abs(wanted)
        ratios.append(abs(bias) / (loop.steps * alpha**loop.steps))
    assert ratios[1] > 9 * ratios[0]
    assert ratios[2] > 9 * ratios[1]


def test_the_variance_must_be_bounded_where_sampled_iterates_go():
    """Lemma 4.4 prints the largest deviation *on the expected path*: noise eps at 0, where that
    path stays, and 1 elsewhere, makes an expected error of 1, not of 2 eps."""
    eps = 0.01
    ends = [a * eps + b for a in (-1, 1) for b in (-1, 1)]
    error = np.mean(np.abs(ends))
    assert error == 1.0
    on_path, reachable = 2 * eps, eps + 1.0  # K alpha sigma, steps of a linear objective
    assert on_path < error <= reachable


def test_bad_input_is_named():
    theta = np.array([[0.9, -0.3]])
    loop = {"steps": 1, "step_size": 1.0}
    zero = np.zeros(5)
    endless = replace(bandit(), horizon=None)
    bad = [
        (
            Lola(prisoners_dilemma()),
            (zero, zero),
            {},
            "problem: expected a Maml or Lirpg, got a Lola",
        ),
        (Maml(endless), (theta,), {}, "problem: expected a TabularMDP with a finite horizon"),
        (Maml(MDPBatch([bandit()])), (theta,), {}, "problem: expected a TabularMDP"),
        (Maml(bandit()), (theta[None],), {}, "theta: expected one policy, got shape"),
        (Maml(bandit()), (theta,), {"critic": [1.0, 2.0]}, "critic: expected shape"),
        (Maml(ending()), (np.zeros((2, 2)),), {"critic": [1.0, 2.0]}, "critic: expected 0 at"),
        (Maml(bandit()), (theta,), {"credit": "total"}, "credit: expected a Credit"),
        (Maml(bandit()), (theta,), {"steps": 0}, "steps: expected an integer"),
        (Lirpg(bandit()), (theta, None), {}, "theta: expected the parameters"),
    ]
    for problem, given, options, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            leading_compositional_bias(problem, *given, **loop | options)
        with pytest.raises(ValueError, match=complaint):
            compositional_bias(problem, *given, batch_size=1, **loop | options)
    with pytest.raises(ValueError, match="curvature: expected a Curvature or None, got 'AD'"):
        compositional_bias(Maml(bandit()), theta, batch_size=1, curvature="AD", **loop)
    sizes = [
        ({"batch_size": 0}, bandit(), "batch_size: expected an integer"),
        (
            {"batch_size": 2000, "steps": 2},
            bandit(),
            "batch_size, steps: expected at most 1,000,000",
        ),
        ({"batch_size": 1, "steps": 101}, bandit(), "steps: expected at most 100"),
    ]
    for options, mdp, complaint in sizes:
        with pytest.raises(ValueError, match=complaint):
            compositional_bias(Maml(mdp), theta, **loop | options)
