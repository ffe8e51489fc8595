"""Sparse transitions and batches of problems give what dense single problems give."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.batches import MDPBatch
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.sparse import SparseMDP
from gradbias.analytic.returns import bellman as systems
from gradbias.analytic.returns.derivatives import (
    discount_derivative,
    gradient,
    hessian,
    hvp,
    reward_jvp,
    reward_vjp,
    state_action_occupancy,
    third_derivative,
)
from gradbias.analytic.returns.evaluation import (
    action_values,
    expected_return,
    occupancy,
    state_values,
)
from gradbias.analytic.utils.validation import check_leading
from tests.cases.strategies import mdps, parameters
from tests.oracles import brute_force as oracles
from tests.oracles.tolerances import close


def sparse_twin(mdp):
    """The same problem with one CSR matrix an action."""
    matrices = [sparse.csr_array(mdp.transition[:, a]) for a in range(mdp.n_actions)]
    reward = mdp.reward[..., 0] if mdp.reward.ndim == 4 else mdp.reward
    return SparseMDP(matrices, reward, mdp.discount, mdp.start, mdp.horizon)


def everything(mdp, theta, v, w):
    """Every quantity of the exact side."""
    return {
        "J": expected_return(mdp, theta),
        "V": state_values(mdp, theta),
        "Q": action_values(mdp, theta),
        "m": occupancy(mdp, theta),
        "gradient": gradient(mdp, theta),
        "Hessian": hessian(mdp, theta),
        "hvp": hvp(mdp, theta, v),
        "third": third_derivative(mdp, theta, v, w),
        "visits": state_action_occupancy(mdp, theta),
        "reward jvp": reward_jvp(mdp, theta, w),
        "reward vjp": reward_vjp(mdp, theta, v),
        "discount": discount_derivative(mdp, theta),
    }


@pytest.fixture(params=["LU", "Krylov", "Krylov gives up"])
def sparse_solver(request, monkeypatch):
    """Each of the sparse solvers, whatever the size."""
    if request.param != "LU":
        monkeypatch.setattr(systems, "MAX_FILLED", 0)
        monkeypatch.setattr(systems, "LOCALITY", -1.0)
    if request.param == "Krylov gives up":
        monkeypatch.setattr(systems, "_KRYLOV_RESTARTS", 1)
        monkeypatch.setattr(systems, "_KRYLOV_DIMENSION", 1)


@pytest.mark.parametrize("horizon", [None, 1, 4])
@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.usefixtures("sparse_solver")
def test_sparse_problems_give_what_dense_ones_give(horizon, timed):
    rng = np.random.default_rng(0)
    dense = oracles.random_mdp(1, horizon=horizon, n_states=5, n_actions=3)
    if timed and horizon:
        over_time = rng.normal(size=(horizon, 5, 3, 1))
        dense = TabularMDP(dense.transition, over_time, 0.9, dense.start, horizon)
    theta, v, w = rng.normal(size=(3, 5, 3))
    wanted = everything(dense, theta, v, w)
    for name, found in everything(sparse_twin(dense), theta, v, w).items():
        assert close(found, wanted[name], 1.0), name


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_sparse_twins_of_drawn_problems_agree(data):
    mdp = data.draw(mdps())
    matrices = [sparse.csr_array(mdp.transition[:, a]) for a in range(mdp.n_actions)]
    twin = SparseMDP(matrices, mdp.expected_reward, mdp.discount, mdp.start, mdp.horizon)
    theta, v, w = (data.draw(parameters((mdp.n_states, mdp.n_actions))) for _ in range(3))
    wanted = everything(mdp, theta, v, w)
    time = mdp.horizon or 1.0 / (1.0 - mdp.discount)
    for name, found in everything(twin, theta, v, w).items():
        assert close(found, wanted[name], time**4), name


def test_degenerate_sparse_problems_have_the_same_terminal_states():
    for name, mdp in oracles.degenerate_mdps().items():
        if mdp.reward.ndim == 2:
            twin = sparse_twin(mdp)
            assert np.array_equal(twin.terminal, mdp.terminal), name
            theta = np.zeros((mdp.n_states, mdp.n_actions))
            assert close(gradient(twin, theta), gradient(mdp, theta), 1.0), name


@pytest.mark.parametrize("horizon", [None, 1, 4])
@pytest.mark.parametrize("one_policy", [False, True])
def test_a_batch_of_problems_gives_what_each_gives(horizon, one_policy):
    mdps = [oracles.random_mdp(i, horizon=horizon, n_states=3, n_actions=2) for i in range(4)]
    rng = np.random.default_rng(0)
    shape = (3, 2) if one_policy else (4, 3, 2)
    theta, v, w = rng.normal(size=(3, *shape))
    found = everything(MDPBatch(mdps), theta, v, w)
    rows = [np.broadcast_to(x, (4, 3, 2)) for x in (theta, v, w)]
    each = [everything(mdp, *(row[i] for row in rows)) for i, mdp in enumerate(mdps)]
    for name, value in found.items():
        assert close(value, np.stack([one[name] for one in each]), 1.0), name


@pytest.mark.parametrize("horizon", [None, 3])
def test_many_policies_give_what_each_gives(horizon):
    mdp = oracles.random_mdp(3, horizon=horizon, n_states=3, n_actions=2)
    theta, v, w = np.random.default_rng(0).normal(size=(3, 2, 5, 3, 2))
    found = everything(mdp, theta, v, w)
    for i in np.ndindex(2, 5):
        for name, value in everything(mdp, theta[i], v[i], w[i]).items():
            assert close(found[name][i], value, 1.0), name


def test_large_dense_problems_agree_with_a_plain_solve():
    """Above the size up to which inverses are kept: LU factors, reused."""
    size = systems.MAX_INVERSE + 16
    mdp = TabularMDP.random(size, 3, rng=np.random.default_rng(0), discount=0.95)
    theta, v = np.random.default_rng(1).normal(size=(2, size, 3))
    first = oracles.autograd_derivative(mdp, theta, 1)
    assert close(gradient(mdp, theta), first, 1.0)
    step = 1e-5
    moved = [oracles.autograd_derivative(mdp, theta + s * step * v, 1) for s in (1, -1)]
    difference = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(hvp(mdp, theta, v), difference, atol=1e-7)
    twin = sparse_twin(mdp)
    assert close(hvp(twin, theta, v), hvp(mdp, theta, v), 1.0)


ROWS = [sparse.csr_array([[0.5, 0.5], [0.0, 1.0]]), sparse.csr_array(np.eye(2))]
REWARD = np.ones((2, 2))
GOOD = {"transition": ROWS, "reward": REWARD, "discount": 0.9, "start": [1.0, 0.0]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"transition": []}, "transition: expected one real scipy.sparse matrix"),
        ({"transition": [np.eye(2)]}, "transition: expected one real scipy.sparse matrix"),
        ({"transition": [ROWS[0], sparse.eye_array(3)]}, "got shapes"),
        ({"transition": [2.0 * ROWS[0], ROWS[1]]}, "got a sum of 2 for state 0, action 0"),
        ({"transition": [-1.0 * ROWS[0], ROWS[1]]}, "negative"),
        ({"transition": ROWS[0]}, "transition: expected one real scipy.sparse matrix"),
        ({"transition": [1j * ROWS[0], ROWS[1]]}, "got .*complex128"),
        ({"reward": np.ones((2, 3))}, r"reward: expected shape \(2, 2\), got \(2, 3\)"),
        ({"reward": np.ones((4, 2, 2))}, r"reward: expected shape \(2, 2\), got"),
        ({"discount": 1.0}, "discount: 1 needs a finite horizon"),
        ({"start": [0.5, 0.4]}, "start: expected probabilities"),
    ],
)
def test_bad_sparse_problems_are_named(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        SparseMDP(**(GOOD | changes))


def test_iterated_values_are_0_at_terminal_states(monkeypatch):
    monkeypatch.setattr(systems, "MAX_FILLED", 0)
    monkeypatch.setattr(systems, "LOCALITY", -1.0)
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(12), size=(12, 2))
    rows[-1] = np.eye(12)[-1]
    reward = rng.normal(size=(12, 2))
    reward[-1] = 0.0
    mdp = sparse_twin(TabularMDP(rows, reward, 0.99, np.eye(12)[0]))
    values = state_values(mdp, rng.normal(size=(12, 2)))
    assert values[-1] == 0.0
    assert np.abs(values[:-1]).min() > 1e-3


def test_a_sparse_problem_takes_one_policy():
    mdp = SparseMDP(**GOOD)
    with pytest.raises(
        ValueError, match=r"theta: expected no leading axes with sparse transitions, got \(4,\)"
    ):
        gradient(mdp, np.zeros((4, 2, 2)))


def test_rows_are_renormalised_by_rounding_only():
    off = np.array([[0.5, 0.5 + 4e-10], [0.0, 1.0]])
    mdp = SparseMDP([sparse.csr_array(off), ROWS[1]], REWARD, 0.9, [1.0, 0.0])
    dense = TabularMDP(np.stack([off, np.eye(2)], axis=1), REWARD, 0.9, [1.0, 0.0])
    row = mdp.tables.kernel.table[[0]].toarray()[0]
    np.testing.assert_allclose(row, dense.transition[0, 0], rtol=1e-15)
    assert abs(row.sum() - 1.0) < 1e-15


def test_batches_mix_rewards_over_time_with_others_and_keep_each_terminal_state():
    rng = np.random.default_rng(0)
    going = oracles.random_mdp(4, horizon=3, n_states=3, n_actions=2)
    rows = np.array(going.transition)
    rows[2] = [0.0, 0.0, 1.0]
    over_time = rng.normal(size=(3, 3, 2, 1))
    over_time[:, 2] = 0.0
    ending = TabularMDP(rows, over_time, 0.9, going.start, 3)
    theta, v, w = rng.normal(size=(3, 3, 2))
    for pair in ((going, ending), (ending, going)):
        batch = MDPBatch(pair)
        assert batch.tables.terminal.tolist() == [mdp.terminal.tolist() for mdp in pair]
        found = everything(batch, theta, v, w)
        each = [everything(mdp, theta, v, w) for mdp in pair]
        for name, value in found.items():
            assert close(value, np.stack([one[name] for one in each]), 1.0), name


def test_bad_batches_are_named():
    mdp = oracles.random_mdp(0, n_states=3, n_actions=2)
    with pytest.raises(ValueError, match="problems: expected TabularMDPs, got none"):
        MDPBatch([])
    with pytest.raises(ValueError, match="expected one size"):
        MDPBatch([mdp, replace(mdp, horizon=3)])
    for wrong in (mdp, [SparseMDP(**GOOD)], [MDPBatch([mdp])]):
        with pytest.raises(ValueError, match="problems: expected TabularMDPs, got"):
            MDPBatch(wrong)
    batch = MDPBatch([mdp, mdp])
    zero, three = np.zeros((3, 2)), np.zeros((3, 3, 2))
    with pytest.raises(ValueError, match=r"v: expected leading axes \(2,\) \(or none\), got"):
        hvp(batch, zero, three)
    with pytest.raises(ValueError, match=r"w: expected leading axes \(3,\) \(or none\), got"):
        third_derivative(mdp, zero, three, np.zeros((4, 3, 2)))
    with pytest.raises(ValueError, match=r"w: expected leading axes \(3,\) \(or none\), got"):
        reward_jvp(mdp, three, np.zeros((4, 3, 2)))
    with pytest.raises(ValueError, match=r"theta: expected leading axes \(4, 2\)"):
        check_leading("theta", np.zeros((4, 3, 2)), (3, 2), (4, 2))  # not the end of (4, 2)
    check_leading("theta", np.zeros((2, 3, 2)), (3, 2), (4, 2))
    with pytest.raises(ValueError, match=r"theta: expected leading axes \(2,\) \(or none\), got"):
        gradient(batch, np.zeros((3, 3, 2)))
    linear = LinearSoftmax(np.random.default_rng(0).normal(size=(3, 2, 4)))
    found = gradient(batch, np.ones(4), policy=linear)
    assert close(found[1], gradient(mdp, np.ones(4), policy=linear), 0.0)
