"""The problem record: what it accepts, refuses, keeps and reads."""

import pickle

import gymnasium
import numpy as np
import pytest

from gradbias.analytic.policies.softmax import log_softmax, softmax
from gradbias.analytic.problems.mdp import TabularMDP

ROWS = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.2, 0.8]]])
REWARD = np.array([[1.0, 0.0], [0.0, 2.0]])
START = np.array([1.0, 0.0])


def changed(array, index, value):
    copy = np.array(array, dtype=float)
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            {"transition": changed(ROWS, (0, 0, 0), 0.4)},
            r"transition: .*sum to one.*0.9 in row \(0, 0\)",
        ),
        (
            {"transition": changed(ROWS, (0, 0), [1.5, -0.5])},
            r"transition: .*-0.5 at index \(0, 0, 1\)",
        ),
        ({"transition": changed(ROWS, (1, 1, 0), np.nan)}, "transition: expected finite"),
        ({"transition": ROWS[0]}, r"transition: expected shape \(any, any, any\), got \(2, 2\)"),
        ({"transition": np.ones((2, 2, 1))}, r"transition: expected shape \[S, A, S\]"),
        ({"transition": np.ones((0, 2, 0))}, "S, A >= 1"),
        ({"transition": [[[1.0], [1.0, 2.0]]]}, "rectangular"),
        ({"reward": np.ones((2, 3))}, r"reward: expected shape \(2, 2\) or \(2, 2, 2\)"),
        ({"reward": changed(REWARD, (0, 0), np.inf)}, "reward: expected finite numbers, got inf"),
        ({"discount": 1.1}, r"discount: expected a number in \[0, 1\], got 1.1"),
        ({"discount": -0.1}, "discount"),
        ({"discount": float("nan")}, "discount"),
        ({"discount": "0.9"}, "discount"),
        ({"discount": 1.0}, "discount: 1 needs a finite horizon"),
        ({"start": [0.5, 0.4]}, "start: .*sum of 0.9"),
        ({"start": [1.5, -0.5]}, "start: expected probabilities"),
        ({"start": [1.0]}, r"start: expected shape \(2\)"),
        ({"horizon": 0}, "horizon: expected an integer >= 1, got 0"),
        ({"horizon": -3}, "horizon: .* got -3"),
        ({"horizon": 2.5}, "horizon: .* got 2.5"),
        ({"horizon": True}, "horizon"),
    ],
)
def test_bad_problems_are_refused_with_what_was_expected(arguments, complaint):
    good = {"transition": ROWS, "reward": REWARD, "discount": 0.9, "start": START}
    with pytest.raises(ValueError, match=complaint):
        TabularMDP(**(good | arguments))


def test_rounding_is_renormalised_and_arrays_are_read_only_copies():
    rows = ROWS * (1 + 1e-11)
    mdp = TabularMDP(rows, REWARD, 1, START, horizon=2)
    assert np.abs(mdp.transition.sum(axis=2) - 1).max() <= 2e-16
    rows[0, 0, 0] = 7
    assert mdp.transition[0, 0, 0] < 1
    for array in (mdp.transition, mdp.reward, mdp.start, mdp.expected_reward, mdp.terminal):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        mdp.discount = 0.5


def test_terminal_states_are_absorbing_without_reward():
    rows = ROWS.copy()
    rows[1] = [0.0, 1.0]
    unpaid = changed(REWARD, 1, 0.0)
    assert TabularMDP(rows, unpaid, 0.9, START).terminal.tolist() == [False, True]
    assert TabularMDP(rows, REWARD, 0.9, START).terminal.tolist() == [False, False]
    by_next = np.zeros((2, 2, 2))
    by_next[1, :, 0] = 5.0  # a reward on a transition that never happens
    assert TabularMDP(rows, by_next, 0.9, START).terminal.tolist() == [False, True]


def test_next_state_rewards_keep_their_values_and_have_their_mean():
    reward = np.arange(8.0).reshape(2, 2, 2)
    mdp = TabularMDP(ROWS, reward, 0.9, START)
    np.testing.assert_allclose(mdp.expected_reward, (ROWS * reward).sum(axis=2))
    s, a, t = np.array([0, 1]), np.array([0, 1]), np.array([1, 0])
    assert mdp.step_reward(s, a, t).tolist() == [1.0, 6.0]


@pytest.mark.parametrize("horizon", [None, 5])
@pytest.mark.parametrize("reward", [REWARD, np.arange(8.0).reshape(2, 2, 2)])
def test_a_saved_problem_is_read_back_exactly(tmp_path, horizon, reward):
    mdp = TabularMDP(ROWS, reward, 0.9, START, horizon)
    mdp.save(tmp_path / "p.npz")
    again = TabularMDP.load(tmp_path / "p.npz")
    for name in ("transition", "reward", "start"):
        assert np.array_equal(getattr(mdp, name), getattr(again, name))
    assert (again.discount, again.horizon) == (0.9, horizon)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        TabularMDP.load(tmp_path / "none.npz")
    junk = tmp_path / "junk.npz"
    junk.write_bytes(b"this is no archive")
    with pytest.raises(
        ValueError, match=r"junk.npz: expected an npz archive of plain arrays: it is not one"
    ):
        TabularMDP.load(junk)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, transition=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="pickled"):
        TabularMDP.load(pickled)
    raw = tmp_path / "raw.npz"
    raw.write_bytes(pickle.dumps({"transition": 1}))
    with pytest.raises(ValueError, match="pickled"):
        TabularMDP.load(raw)
    partial = tmp_path / "partial.npz"
    np.savez(partial, transition=ROWS, reward=REWARD, start=START)
    with pytest.raises(ValueError, match="expected an array named discount"):
        TabularMDP.load(partial)
    single = tmp_path / "single.npz"
    with open(single, "wb") as stream:
        np.save(stream, ROWS)
    with pytest.raises(ValueError, match="expected an npz archive"):
        TabularMDP.load(single)
    vector = tmp_path / "vector.npz"
    np.savez(vector, transition=ROWS, reward=REWARD, start=START, discount=[0.9, 0.8])
    with pytest.raises(ValueError, match="discount: expected one number"):
        TabularMDP.load(vector)


@pytest.mark.parametrize("concentration", [1.0, 0.001])
def test_random_problems_are_reproducible_and_valid(concentration):
    def make():
        rng = np.random.default_rng(3)
        return TabularMDP.random(5, 3, rng=rng, discount=0.9, concentration=concentration)

    first, second = make(), make()
    assert np.array_equal(first.transition, second.transition)
    assert ((first.reward >= 0) & (first.reward <= 1)).all()
    with pytest.raises(ValueError, match="n_states"):
        TabularMDP.random(0, 2, rng=np.random.default_rng(0), discount=0.9)


TERMINAL = {
    "FrozenLake-v1": [5, 7, 11, 12, 15],
    "CliffWalking-v1": [47],
    "Taxi-v4": [0, 85, 410, 475],
}


@pytest.mark.parametrize("name", sorted(TERMINAL))
def test_environments_end_where_their_tables_say_done(name):
    env = gymnasium.make(name)
    mdp = TabularMDP.from_gymnasium(env, 0.9, 4)
    assert np.flatnonzero(mdp.terminal).tolist() == TERMINAL[name]
    table = env.unwrapped.P
    for s in range(mdp.n_states):
        if mdp.terminal[s]:
            continue
        for a in range(mdp.n_actions):
            for probability, following, reward, _ in table[s][a]:
                assert mdp.reward[s, a, following] == reward
                assert mdp.transition[s, a, following] >= probability - 1e-12
    np.testing.assert_allclose(mdp.start, env.unwrapped.initial_state_distrib)


def test_the_eight_by_eight_lake_is_read():
    env = gymnasium.make("FrozenLake-v1", map_name="8x8", is_slippery=False)
    mdp = TabularMDP.from_gymnasium(env, 0.9, 4)
    assert mdp.n_states == 64
    assert set(np.unique(mdp.transition)) == {0.0, 1.0}


class Table:
    """An environment that is nothing but its table."""

    def __init__(self, table, start):
        self.P, self.initial_state_distrib = table, np.array(start)

    @property
    def unwrapped(self):
        return self


def test_tables_that_no_tabular_mdp_can_hold_are_refused():
    with pytest.raises(ValueError, match="with a table"):
        TabularMDP.from_gymnasium(gymnasium.make("CartPole-v1"), 0.9, 3)
    two_rewards = Table({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 2.0, False)]}}, [1.0])
    with pytest.raises(ValueError, match="one reward for each transition"):
        TabularMDP.from_gymnasium(two_rewards, 0.9, 3)
    both = Table(
        {
            0: {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 1, 0.0, True)]},
            1: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 0, 0.0, False)]},
        },
        [1.0, 0.0],
    )
    with pytest.raises(ValueError, match="state 1, which is entered both ways"):
        TabularMDP.from_gymnasium(both, 0.9, 3)


def test_softmax_is_stable_and_normalised():
    theta = np.array([[0.0, 1000.0, -1000.0], [30.0, -30.0, 0.0]])
    policy = softmax(theta)
    np.testing.assert_allclose(policy.sum(axis=1), 1.0, rtol=1e-15)
    assert np.isfinite(log_softmax(theta)).all()
    np.testing.assert_allclose(log_softmax(theta)[1], np.log(policy[1]), rtol=1e-12)
    with pytest.raises(ValueError, match="finite"):
        softmax([[np.nan, 0.0]])
