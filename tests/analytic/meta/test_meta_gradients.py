"""K-step meta-gradients against differentiating through the loop, and the protocol's identities."""

import itertools
import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradbias.analytic.meta.bilevel import Lirpg, Lola, Maml, Mgrl, Outer
from gradbias.analytic.meta.inner_steps import PulledBack
from gradbias.analytic.meta.meta_gradients import (
    TaskFamily,
    inner_loop,
    meta_gradient,
    meta_objective,
)
from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.analytic.problems.batches import MDPBatch
from gradbias.analytic.problems.games import prisoners_dilemma
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.sparse import SparseMDP
from gradbias.analytic.problems.targets import DISCOUNTED, Undiscounted
from gradbias.analytic.returns.derivatives import gradient
from gradbias.analytic.returns.evaluation import expected_return
from tests.cases.strategies import games, mdps, parameters, shapes_of
from tests.oracles import brute_force as oracles
from tests.oracles import torch_functions as by_torch
from tests.oracles.tolerances import close

STEPS = (1, 2, 3, 5, 10)
LOOP = {"steps": 1, "step_size": 0.1}


@dataclass(frozen=True)
class Case:
    """A bilevel problem, where to take it, and its inner update and outer return in torch."""

    problem: object
    phi: np.ndarray
    theta: np.ndarray | None
    inner: object
    outer: object

    def check_against_autograd(self, steps, step_size, scale):
        value, wanted = by_torch.through_the_loop(
            self.inner, self.outer, self.phi, self.theta, steps, step_size
        )
        loop = {"steps": steps, "step_size": step_size}
        assert close(meta_objective(self.problem, self.phi, self.theta, **loop), value, scale)
        assert close(meta_gradient(self.problem, self.phi, self.theta, **loop), wanted, scale)


def maml(mdp, theta, policy=None, logits=lambda p: p):
    """phi = theta^0."""

    def outer(phi, here):
        return by_torch.return_of(mdp, logits(here))

    def inner(phi, here):
        return by_torch.gradient_in(outer(phi, here), here)

    problem = Maml(mdp) if policy is None else Maml(mdp, policy)
    return Case(problem, theta, None, inner, outer)


def lirpg(mdp, phi, theta, policy=TABULAR, logits=lambda p: p):
    """phi is an intrinsic reward."""

    def inner(extra, here):
        value = by_torch.return_of(mdp, logits(here), extra_reward=extra)
        return by_torch.gradient_in(value, here)

    def outer(extra, here):
        return by_torch.return_of(mdp, logits(here))

    return Case(Lirpg(mdp, policy), phi, theta, inner, outer)


def mgrl(mdp, phi, theta, critic, undiscounted=False, policy=TABULAR, logits=lambda p: p):
    """phi is (discount, lambda)."""
    state_discount = 1.0 if undiscounted else mdp.discount
    weighting = Undiscounted() if undiscounted else DISCOUNTED

    def inner(eta, here):
        z = logits(here)
        field = by_torch.lambda_update(
            mdp, z, critic, eta[0], eta[1], state_discount=state_discount
        )
        # In the parameters: the field times the logits' derivative, with the field held.
        return torch.autograd.grad(z, here, field, create_graph=True)[0] if z is not here else field

    def outer(eta, here):
        return by_torch.return_of(mdp, logits(here))

    return Case(Mgrl(mdp, critic, weighting, policy), phi, theta, inner, outer)


def lola(game, player, phi, theta):
    """phi are the parameters of the player who looks ahead."""

    def value(of, ego, other):
        one = by_torch.player_logits(game, player, ego)
        two = by_torch.player_logits(game, 3 - player, other)
        return by_torch.game_return(game, of, *((one, two) if player == 1 else (two, one)))

    return Case(
        Lola(game, player),
        phi,
        theta,
        lambda ego, other: by_torch.gradient_in(value(3 - player, ego, other), other),
        lambda ego, other: value(player, ego, other),
    )


def case_of(data):
    """One case of any kind."""
    kind = data.draw(st.sampled_from(["maml", "lirpg", "mgrl", "lola"]))
    if kind == "lola":
        game, player = data.draw(games(telling=True)), data.draw(st.sampled_from([1, 2]))
        shapes = shapes_of(game)
        phi, theta = (
            data.draw(parameters(shapes[p - 1], (0.0, 1.0))) for p in (player, 3 - player)
        )
        return lola(game, player, phi, theta), game.discount, game.horizon
    mdp = data.draw(mdps(horizons=(None, 1, 3), telling=True))
    size = (mdp.n_states, mdp.n_actions)
    theta = data.draw(parameters(size, (0.0, 1.0)))
    if kind == "maml":
        case = maml(mdp, theta)
    elif kind == "lirpg":
        case = lirpg(mdp, data.draw(parameters(size, (0.0, 1.0))), theta)
    else:
        critic = np.where(mdp.terminal, 0.0, data.draw(parameters((mdp.n_states,))))
        eta = np.array([data.draw(st.sampled_from([0.2, 0.9])) for _ in range(2)])
        case = mgrl(mdp, eta, theta, critic, bool(mdp.horizon) and data.draw(st.booleans()))
    return case, mdp.discount, mdp.horizon


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_meta_gradients_agree_with_differentiating_through_the_loop(data):
    case, discount, horizon = case_of(data)
    steps = data.draw(st.sampled_from(STEPS[:4]))
    time = horizon or 1.0 / (1.0 - discount)
    # Step sizes for which the inner loop neither diverges nor does nothing.
    step_size = data.draw(st.sampled_from([0.3, 2.0])) / time**2
    case.check_against_autograd(steps, step_size, time**2)


KINDS = [
    (kind, horizon)
    for kind in ("maml", "lirpg", "mgrl", "mgrl, undiscounted", "lola 1", "lola 2")
    for horizon in (None, 3)
    if (kind, horizon) != ("mgrl, undiscounted", None)  # refused
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("kind", "horizon"), KINDS)
def test_every_number_of_steps(kind, horizon, steps):
    rng = np.random.default_rng(steps)
    mdp = oracles.random_mdp(11, horizon=horizon, n_states=3, n_actions=2)
    theta, phi, critic = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), rng.normal(size=3)
    if kind == "maml":
        case = maml(mdp, theta)
    elif kind == "lirpg":
        case = lirpg(mdp, phi, theta)
    elif "mgrl" in kind:
        case = mgrl(mdp, np.array([0.8, 0.7]), theta, critic, "undiscounted" in kind)
    else:
        game = prisoners_dilemma(discount=0.9, horizon=horizon)
        case = lola(game, int(kind[-1]), *rng.normal(size=(2, 5)))
    case.check_against_autograd(steps, 0.3, 1e-6)


@pytest.mark.parametrize("horizon", [None, 3])
@pytest.mark.parametrize("kind", ["linear", "network"])
def test_other_policies_follow_by_the_chain_rule(kind, horizon):
    mdp = oracles.random_mdp(11, horizon=horizon, n_states=3, n_actions=2)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 2, 4))
    policy, logits, size = network_policy(), network_policy().forward, 8
    if kind == "linear":
        policy, size = LinearSoftmax(features), 4
        logits = lambda p: by_torch.tensor(features) @ p  # noqa: E731
    theta, phi, critic = rng.normal(size=size), rng.normal(size=(3, 2)), rng.normal(size=3)
    eta = np.array([0.8, 0.6])
    maml(mdp, theta, policy, logits).check_against_autograd(3, 0.3, 1e-6)
    lirpg(mdp, phi, theta, policy, logits).check_against_autograd(3, 0.3, 1e-6)
    case = mgrl(mdp, eta, theta, critic, policy=policy, logits=logits)
    case.check_against_autograd(3, 0.3, 1e-6)


def network_policy():
    from gradbias.stochastic.networks.torch_policy import TorchPolicy

    inputs = by_torch.tensor(np.random.default_rng(5).normal(size=(3, 2)))
    return TorchPolicy(lambda p: torch.tanh(inputs @ p[:4].reshape(2, 2)) @ p[4:].reshape(2, 2), 8)


def test_differences_of_the_objective_converge_to_the_meta_gradient():
    """Central differences along a direction: the error falls with the step squared."""
    mdp = oracles.random_mdp(11, n_states=3, n_actions=2)
    rng = np.random.default_rng(0)
    theta, phi, along = rng.normal(size=(3, 3, 2))
    problem, loop = Lirpg(mdp), {"steps": 3, "step_size": 0.5}
    slope = (meta_gradient(problem, phi, theta, **loop) * along).sum()

    def error(step):
        ahead, behind = (
            meta_objective(problem, phi + sign * step * along, theta, **loop) for sign in (1, -1)
        )
        return abs((ahead - behind) / (2 * step) - slope)

    errors = np.array([error(step) for step in (0.2, 0.1, 0.05)])
    assert (np.abs(np.log2(errors[:-1] / errors[1:]) - 2.0) < 0.2).all()


def test_a_cotangent_and_a_tangent_meet_in_the_same_number():
    """<lambda, J v> = <J^T lambda, v> for every kind of inner step."""
    mdp = oracles.random_mdp(11, horizon=3, n_states=3, n_actions=2)
    rng = np.random.default_rng(0)
    theta, phi, v, cotangent = rng.normal(size=(4, 3, 2))
    five = rng.normal(size=(4, 5))
    steps = [
        (Maml(mdp).inner_step(theta, theta), v, cotangent),
        (Lirpg(mdp).inner_step(phi, theta), v, cotangent),
        (Mgrl(mdp, np.ones(3)).inner_step(np.array([0.8, 0.7]), theta), v, cotangent),
        (Lola(prisoners_dilemma(0.9)).inner_step(five[0], five[1]), five[2], five[3]),
    ]
    for step, direction, back in steps:
        forward = (back * step.jvp(direction)).sum()
        assert abs(forward - (step.pull_back(back).state() * direction).sum()) < 1e-12
        assert abs(forward) > 1e-3


def test_the_inner_loop_is_gradient_ascent():
    mdp = oracles.random_mdp(11, n_states=3, n_actions=2)
    theta = np.random.default_rng(0).normal(size=(3, 2))
    path = inner_loop(Maml(mdp), theta, steps=3, step_size=0.3)
    for here, there in itertools.pairwise(path):
        np.testing.assert_allclose(there, here + 0.3 * gradient(mdp, here), rtol=1e-14)


class TowardsPhi:
    """A bilevel problem of a user's own: each step goes a part of the way to phi."""

    starts_at_meta = False

    def __init__(self, mdp):
        self.mdp = mdp

    def start(self, meta_parameters, theta):
        return np.asarray(meta_parameters), np.asarray(theta)

    def inner_step(self, meta_parameters, theta):
        return TowardsPhiStep(meta_parameters - theta)

    def outer(self, meta_parameters, theta):
        value = np.asarray(expected_return(self.mdp, theta))
        return Outer(value, gradient(self.mdp, theta))


@dataclass(frozen=True)
class TowardsPhiStep:
    update: np.ndarray

    def jvp(self, v):
        return -v

    def pull_back(self, cotangent):
        return PulledBack(state=lambda: -cotangent, meta=lambda: cotangent)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_any_record_with_the_protocol_is_a_bilevel_problem(steps):
    """theta^K = phi + (1 - alpha)^K (theta - phi), so dtheta^K/dphi = 1 - (1 - alpha)^K."""
    mdp = oracles.random_mdp(11, n_states=3, n_actions=2)
    theta, phi = np.random.default_rng(0).normal(size=(2, 3, 2))
    left = 0.7**steps
    loop = {"steps": steps, "step_size": 0.3}
    after = phi + left * (theta - phi)
    np.testing.assert_allclose(inner_loop(TowardsPhi(mdp), phi, theta, **loop)[-1], after)
    found = meta_gradient(TowardsPhi(mdp), phi, theta, **loop)
    np.testing.assert_allclose(found, (1 - left) * gradient(mdp, after), rtol=1e-12)


def test_a_family_of_tasks_is_an_expectation():
    tasks = [Maml(oracles.random_mdp(i, n_states=3, n_actions=2)) for i in range(3)]
    theta = np.random.default_rng(0).normal(size=(3, 2))
    loop = {"steps": 2, "step_size": 0.3}
    weights = np.array([0.5, 0.2, 0.3])
    each = [meta_gradient(task, theta, **loop) for task in tasks]
    family = TaskFamily(tasks, weights)
    found = meta_gradient(family, theta, **loop)
    np.testing.assert_allclose(found, np.tensordot(weights, each, 1), rtol=1e-14)
    values = [meta_objective(task, theta, **loop) for task in tasks]
    assert abs(meta_objective(family, theta, **loop) - weights @ values) < 1e-14
    equal = meta_gradient(TaskFamily(tasks), theta, **loop)
    np.testing.assert_allclose(equal, np.mean(each, axis=0), rtol=1e-13)
    with pytest.raises(ValueError, match="tasks: expected at least one"):
        TaskFamily([])
    with pytest.raises(ValueError, match="probabilities: expected probabilities that sum"):
        TaskFamily(tasks, [0.5, 0.5, 0.5])


@pytest.mark.parametrize("horizon", [None, 3])
def test_many_problems_or_parameters_are_one_call(horizon):
    mdps = [oracles.random_mdp(i, horizon=horizon, n_states=3, n_actions=2) for i in range(4)]
    rng = np.random.default_rng(0)
    theta, phi = rng.normal(size=(2, 4, 3, 2))
    loop = {"steps": 3, "step_size": 0.2}
    batch, eta = MDPBatch(mdps), np.array([0.8, 0.6])
    critic = rng.normal(size=3)
    both = [
        (Maml(batch), lambda mdp: Maml(mdp), theta, None),
        (Lirpg(batch), lambda mdp: Lirpg(mdp), phi, theta),
    ]
    for together, alone, meta, start in both:
        found = meta_gradient(together, meta, start, **loop)
        values = meta_objective(together, meta, start, **loop)
        for i, mdp in enumerate(mdps):
            own = None if start is None else start[i]
            assert close(found[i], meta_gradient(alone(mdp), meta[i], own, **loop), 1.0)
            assert close(values[i], meta_objective(alone(mdp), meta[i], own, **loop), 1.0)
    found = meta_gradient(Mgrl(batch, critic), eta, theta, **loop)
    for i, mdp in enumerate(mdps):
        assert close(found[i], meta_gradient(Mgrl(mdp, critic), eta, theta[i], **loop), 1.0)
    found = meta_gradient(Lirpg(mdps[0]), phi, theta, **loop)
    shared = meta_gradient(Lirpg(mdps[0]), phi, theta[0], **loop)
    for i in range(4):
        assert close(found[i], meta_gradient(Lirpg(mdps[0]), phi[i], theta[i], **loop), 1.0)
        assert close(shared[i], meta_gradient(Lirpg(mdps[0]), phi[i], theta[0], **loop), 1.0)
    game, five = prisoners_dilemma(0.9, horizon), rng.normal(size=(2, 4, 5))
    found = meta_gradient(Lola(game), *five, **loop)
    for i in range(4):
        assert close(found[i], meta_gradient(Lola(game), five[0, i], five[1, i], **loop), 1.0)


def test_sparse_problems_have_the_same_meta_gradient():
    from scipy import sparse

    mdp = oracles.random_mdp(3, n_states=6, n_actions=2)
    twin = SparseMDP(
        [sparse.csr_array(mdp.transition[:, a]) for a in range(2)],
        mdp.reward,
        mdp.discount,
        mdp.start,
    )
    theta, phi = np.random.default_rng(0).normal(size=(2, 6, 2))
    loop = {"steps": 3, "step_size": 0.2}
    assert close(
        meta_gradient(Maml(twin), theta, **loop), meta_gradient(Maml(mdp), theta, **loop), 1.0
    )
    found, wanted = (meta_gradient(Lirpg(one), phi, theta, **loop) for one in (twin, mdp))
    assert close(found, wanted, 1.0)


def test_no_dense_hessian_is_formed():
    """The peak of a meta-gradient's memory stays below half a Hessian."""
    mdp = TabularMDP.random(150, 8, rng=np.random.default_rng(0), discount=0.9)
    theta = np.zeros((150, 8))
    hessian_bytes = 8 * theta.size**2
    meta_gradient(Maml(mdp), theta, steps=1, step_size=1.0)
    tracemalloc.start()
    meta_gradient(Maml(mdp), theta, steps=5, step_size=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * hessian_bytes


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (
            lambda m, t: meta_gradient(Maml(m), t, t + 1, steps=1, step_size=0.1),
            "theta: expected None",
        ),
        (
            lambda m, t: meta_gradient(Maml(m), t[:2], steps=1, step_size=0.1),
            r"meta_parameters: exp",
        ),
        (lambda m, t: meta_gradient(Lirpg(m), t, steps=1, step_size=0.1), "got None"),
        (
            lambda m, t: meta_gradient(Lirpg(m), t[0], t, steps=1, step_size=0.1),
            r"meta_parameters: ",
        ),
        (
            lambda m, t: meta_gradient(Maml(m), t, steps=-1, step_size=0.1),
            "steps: expected an integer",
        ),
        (lambda m, t: meta_gradient(Maml(m), t, steps=1, step_size=np.nan), "step_size: expected"),
        (lambda m, t: meta_gradient(Maml(m), t, steps=1, step_size="1"), "step_size: expected"),
        (
            lambda m, t: meta_gradient(Maml(m), t, steps=1.5, step_size=0.1),
            "steps: expected an integer",
        ),
        (
            lambda m, t: meta_gradient(Mgrl(m, np.ones(3)), [0.9], t, steps=1, step_size=0.1),
            r"meta_parameters: expected shape \(2\)",
        ),
        (
            lambda m, t: meta_gradient(Mgrl(m, np.ones(3)), [1.9, 0.5], t, steps=1, step_size=0.1),
            "discount: expected a number in",
        ),
        (lambda m, t: Lola(prisoners_dilemma(), player=3), "player: expected player 1 or 2"),
    ],
)
def test_bad_input_is_named(call, complaint):
    mdp = oracles.random_mdp(11, n_states=3, n_actions=2)
    with pytest.raises(ValueError, match=complaint):
        call(mdp, np.zeros((3, 2)))


def test_an_inner_loop_that_diverges_is_an_error_not_nan():
    mdp = oracles.random_mdp(11, n_states=3, n_actions=2)
    big = replace(mdp, reward=1e300 * mdp.reward)
    with pytest.raises(ValueError, match="step_size: expected parameters that stay below 1e\\+100"):
        meta_gradient(Maml(big), np.zeros((3, 2)), steps=3, step_size=1e12)
