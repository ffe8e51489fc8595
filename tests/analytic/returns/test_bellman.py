"""Numerical health: near-singular systems warn with their condition number."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from gradbias.analytic.problems.batches import MDPBatch
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.sparse import SparseMDP
from gradbias.analytic.returns import bellman as systems
from gradbias.analytic.returns.bellman import IllConditionedWarning
from gradbias.analytic.returns.derivatives import gradient
from gradbias.analytic.returns.evaluation import condition_number, expected_return, state_values
from tests.oracles import brute_force as oracles


def recurrent(discount):
    """Two states that never end."""
    rows = np.array([[[0.5, 0.5], [0.9, 0.1]], [[0.2, 0.8], [1.0, 0.0]]])
    return TabularMDP(rows, [[1.0, 0.0], [0.0, 2.0]], discount, [1.0, 0.0])


def ending(discount):
    """Ends after two steps on average, whatever the discount."""
    rows = np.zeros((2, 2, 2))
    rows[0, :] = [0.5, 0.5]
    rows[1, :, 1] = 1.0
    return TabularMDP(rows, [[1.0, 2.0], [0.0, 0.0]], discount, [1.0, 0.0])


def exact_condition(mdp, theta):
    """||A|| ||A^-1|| in the maximum norm, from the matrix itself."""
    policy = oracles.softmax_rows(np.array(theta))
    kernel = np.einsum("sa,sat->st", policy, mdp.transition)
    return np.linalg.cond(np.eye(2) - mdp.discount * kernel, np.inf)


def test_a_discount_close_to_one_warns_with_the_condition_number():
    mdp, theta = recurrent(1.0 - 1e-9), np.zeros((2, 2))
    with pytest.warns(IllConditionedWarning, match="condition number") as caught:
        value = expected_return(mdp, theta)
    named = float(str(caught[0].message).split("condition number ")[1].split()[0])
    assert abs(named / exact_condition(mdp, theta) - 1.0) < 0.05
    # Not garbage: right to what the warning says.
    gain = expected_return(replace(mdp, discount=0.999), theta) * 0.001
    assert abs(value * 1e-9 / gain - 1.0) < 1e-2
    with pytest.warns(IllConditionedWarning):
        gradient(mdp, theta)


def test_the_condition_number_is_the_matrix_s():
    rng = np.random.default_rng(0)
    for seed in range(20):
        mdp = oracles.random_mdp(seed, n_states=2, n_actions=2)
        theta = rng.normal(size=(2, 2))
        exact = exact_condition(mdp, theta)
        assert abs(condition_number(mdp, theta) - exact) <= 1e-12 * exact
        matrices = [sparse.csr_array(mdp.transition[:, a]) for a in range(2)]
        twin = SparseMDP(matrices, mdp.reward, mdp.discount, mdp.start)
        assert abs(condition_number(twin, theta) - exact) <= 1e-12 * exact
    # Of what comes before the end alone, whatever the discount: one equation.
    assert abs(condition_number(ending(1.0 - 1e-12), np.zeros((2, 2))) - 1.0) < 1e-9
    batch = MDPBatch([recurrent(0.5), recurrent(0.9)])
    one = condition_number(recurrent(0.9), np.zeros((2, 2)))
    assert abs(condition_number(batch, np.zeros((2, 2)))[1] - one) < 1e-12
    with pytest.raises(ValueError, match="horizon: expected None, got 3"):
        condition_number(replace(recurrent(0.9), horizon=3), np.zeros((2, 2)))


def test_ordinary_discounts_and_ending_episodes_do_not_warn():
    theta = np.zeros((2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected_return(recurrent(0.9999), theta)
        value = expected_return(ending(1.0 - 1e-12), theta)
        expected_return(replace(recurrent(1.0 - 1e-9), horizon=50), theta)
    assert abs(value - 3.0) < 1e-9


def test_sparse_problems_warn_likewise():
    dense = recurrent(1.0 - 1e-9)
    matrices = [sparse.csr_array(dense.transition[:, a]) for a in range(2)]
    mdp = SparseMDP(matrices, dense.reward, dense.discount, dense.start)
    with pytest.warns(IllConditionedWarning, match="condition number"):
        expected_return(mdp, np.zeros((2, 2)))


def test_a_solver_that_is_wrong_is_noticed(monkeypatch):
    """A planted bug: an inverse off by a millionth is refined, a useless one is reported."""
    mdp, theta = recurrent(0.9), np.zeros((2, 2))
    right = state_values(mdp, theta)
    solve = systems.Inverse._correction
    monkeypatch.setattr(
        systems.Inverse,
        "_correction",
        lambda self, own, *, transposed: (1 + 1e-6) * solve(self, own, transposed=transposed),
    )
    np.testing.assert_allclose(state_values(mdp, theta), right, rtol=1e-14)
    monkeypatch.setattr(systems.Inverse, "_correction", lambda self, own, *, transposed: 0.5 * own)
    with pytest.warns(IllConditionedWarning, match="not solved to rounding: relative residual"):
        state_values(mdp, theta)


@pytest.mark.parametrize("solver", ["Inverse", "DenseFactors", "SparseFactors", "Krylov"])
def test_every_solver_solves_both_systems(solver):
    rng = np.random.default_rng(0)
    entries = 0.9 * rng.dirichlet(np.ones(6), size=6)
    matrix = systems.DenseMatrix(entries)
    if "Sparse" in solver or solver == "Krylov":
        matrix = systems.SparseMatrix(sparse.csr_array(entries))
    system = getattr(systems, solver)(matrix)
    own = rng.normal(size=(3, 1, 6)) * np.array([1.0, 1e-12, 0.0])[:, None, None]
    plain = np.linalg.solve(np.eye(6) - entries, own[:, 0].T).T[:, None]
    np.testing.assert_allclose(system.solve(own), plain, rtol=1e-12)
    plain = np.linalg.solve((np.eye(6) - entries).T, own[:, 0].T).T[:, None]
    np.testing.assert_allclose(system.solve_adjoint(own), plain, rtol=1e-11)


def sparse_matrix(rows, columns, size):
    """0.9 times the uniform law over each row's successors."""
    counts = np.bincount(rows, minlength=size)
    return systems.SparseMatrix(
        sparse.csr_array((0.9 / counts[rows], (rows, columns)), shape=(size, size))
    )


def test_sparse_factors_are_for_local_patterns_and_iteration_for_the_rest():
    size = 1600
    states = np.arange(size)
    grid = states.reshape(40, 40)
    neighbours = [np.roll(grid, 1, axis).ravel() for axis in (0, 1)]
    rows = np.concatenate([states, states])
    local = np.concatenate(neighbours)
    assert systems._is_local(sparse_matrix(rows, local, size))
    # All but the last may also end in one absorbing state: still local.
    ends = np.full(size - 1, size - 1)
    with_end = np.concatenate([rows[rows != size - 1], states[:-1], [size - 1]])
    targets = np.concatenate([local[rows != size - 1], ends, [size - 1]])
    assert systems._is_local(sparse_matrix(with_end, targets, size))
    anywhere = np.random.default_rng(0).permutation(size)
    assert not systems._is_local(
        sparse_matrix(rows, np.concatenate([local[:size], anywhere]), size)
    )


class Slipping(systems.Inverse):
    """A factorisation that is off by a millionth, in one direction."""

    def _correction(self, residual, *, transposed):
        factor = 1.0 + 1e-6 * transposed
        return factor * super()._correction(residual, transposed=transposed)


def some_matrix(size=6):
    rng = np.random.default_rng(0)
    return 0.9 * rng.dirichlet(np.ones(size), size=size), rng.normal(size=(1, size))


def test_a_factorisation_is_trusted_in_the_direction_that_was_right_at_once():
    entries, own = some_matrix()
    system = Slipping(systems.DenseMatrix(entries))
    exact = np.linalg.solve((np.eye(6) - entries).T, own[0])
    system.solve(own)
    for _ in range(3):  # refined every time
        np.testing.assert_allclose(system.solve_adjoint(own)[0], exact, rtol=1e-13)
    assert system._trusted == {False}
    quiet = systems.Inverse(systems.DenseMatrix(entries))
    quiet.solve(np.zeros((1, 6)))
    assert not quiet._trusted  # zero is solved by anything


def test_iterations_are_checked_every_time(monkeypatch):
    entries, own = some_matrix()
    system = systems.Krylov(systems.SparseMatrix(sparse.csr_array(entries)))
    exact = np.linalg.solve(np.eye(6) - entries, own[0])
    for _ in range(3):
        np.testing.assert_allclose(system.solve(own)[0], exact, rtol=1e-13)
    monkeypatch.setattr(system, "_iterated", lambda own, *, transposed: 0.5 * own)
    with pytest.warns(IllConditionedWarning, match="not solved to rounding"):
        system.solve(own)


def test_warnings_point_at_the_caller():
    with pytest.warns(IllConditionedWarning) as caught:
        expected_return(recurrent(1.0 - 1e-9), np.zeros((2, 2)))
    assert caught[0].filename == __file__
