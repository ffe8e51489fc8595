"""Finite Markov decision processes with tabular dynamics.

A problem is a transition kernel ``P(s'|s,a)``, a reward for each step, an initial distribution, a
discount gamma and a horizon H. Rewards are collected at t = 0..H-1, so a trajectory of H steps
visits H + 1 states. In a *terminal* state every action leads back to it with reward 0.

Every function of the project takes a `TabularMDP`. The classes of `analytic.problems.sparse` and
`analytic.problems.batches` are taken by exact functions alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.problems.gymnasium_tables import gymnasium_table
from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.problems.transitions import DenseKernel
from gradbias.analytic.utils.numpy_files import read_npz
from gradbias.analytic.utils.validation import (
    BoolArray,
    FloatArray,
    frozen_array,
    probability_rows,
    real_number,
    set_fields,
    whole_number,
)


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite MDP with dense tables; arrays are copied, checked and made read-only.

    Attributes:
        transition: ``P(s'|s,a)``, ``[S, A, S]``; rows may be off from sum 1 by rounding only.
        reward: ``[S, A]`` or ``[S, A, S]`` (which is kept as such: an estimator's variance needs
            more than its mean). Rewards that depend on time are ``[H, S, A, S]``, or
            ``[H, S, A, 1]``: with three axes they could not be told from ``[S, A, S]``.
        discount: gamma, in [0, 1), or up to 1 with a finite horizon.
        start: the initial distribution, ``[S]``.
        horizon: H >= 1, the number of steps (None: the infinite discounted problem).

    Raises:
        ValueError: naming the argument, what was expected and what came.

    >>> chain = TabularMDP([[[0.0, 1.0]], [[0.0, 1.0]]], [[1.0], [0.0]], 0.9, [1.0, 0.0])
    >>> chain.n_states, chain.n_actions, chain.terminal.tolist()
    (2, 1, [False, True])
    """

    transition: FloatArray
    reward: FloatArray
    discount: float
    start: FloatArray
    horizon: int | None = None

    def __post_init__(self) -> None:
        transition = probability_rows("transition", self.transition, (None, None, None))
        n_states, n_actions, n_next = transition.shape
        if n_next != n_states or transition.size == 0:
            raise ValueError(
                "transition: expected shape [S, A, S] with S, A >= 1, "
                f"got {tuple(transition.shape)}"
            )
        reward = frozen_array("reward", self.reward)
        discount, horizon = checked_discount(self.discount, self.horizon)
        stationary = ((n_states, n_actions), (n_states, n_actions, n_states))
        timed = ((horizon, *stationary[0], 1), (horizon, *stationary[1]))
        if reward.shape not in stationary and (horizon is None or reward.shape not in timed):
            over_time = "" if horizon is None else f", or {timed[0]} or {timed[1]} over time,"
            raise ValueError(
                f"reward: expected shape {stationary[0]} or {stationary[1]}{over_time} to match "
                f"transition, got {reward.shape}"
            )
        start = probability_rows("start", self.start, (n_states,))
        set_fields(self, transition=transition, reward=reward, discount=discount, start=start)
        set_fields(self, horizon=horizon)

    @property
    def n_states(self) -> int:
        """The number of states S."""
        return int(self.transition.shape[0])

    @property
    def n_actions(self) -> int:
        """The number of actions A."""
        return int(self.transition.shape[1])

    @cached_property
    def expected_reward(self) -> FloatArray:
        """The reward's mean over the next state, ``[S, A]``, or ``[H, S, A]`` over time."""
        if self.reward.ndim == 2:
            return self.reward
        mean: FloatArray = np.einsum("sat,...sat->...sa", self.transition, self.reward)
        mean.setflags(write=False)
        return mean

    @cached_property
    def terminal(self) -> BoolArray:
        """``[S]``: True where every action leads back with reward 0, so that nothing can follow."""
        states = np.arange(self.n_states)
        elsewhere = self.transition > 0.0
        elsewhere[states, :, states] = False
        stays = ~elsewhere.any(axis=2)
        table = self.next_state_reward
        back = states if table.shape[-1] > 1 else 0
        rewarded = (table[:, states, :, back] != 0.0).any(axis=1)
        ends: BoolArray = np.all(stays & ~rewarded, axis=1)
        ends.setflags(write=False)
        return ends

    @cached_property
    def tables(self) -> Tables:
        """The problem's tables, from which the exact side computes."""
        reward = self.expected_reward
        return Tables(
            kernel=DenseKernel(self.transition),
            reward=reward if reward.ndim == 3 else reward[None],
            discount=np.asarray(self.discount),
            start=self.start,
            terminal=self.terminal,
            horizon=self.horizon,
            timed=reward.ndim == 3,
        )

    @cached_property
    def next_state_reward(self) -> FloatArray:
        """Every reward, with axes for time and the next state: ``[H or 1, S, A, S or 1]``."""
        if self.reward.ndim == 2:
            return self.reward[None, :, :, None]
        return self.reward if self.reward.ndim == 4 else self.reward[None]

    def step_reward(
        self,
        states: npt.NDArray[np.integer[Any]],
        actions: npt.NDArray[np.integer[Any]],
        next_states: npt.NDArray[np.integer[Any]],
    ) -> FloatArray:
        """The reward of each step of sampled trajectories.

        Args:
            states: s_t, ``[..., H]`` (the last axis is time).
            actions: a_t, ``[..., H]``.
            next_states: s_{t+1}, ``[..., H]``.

        Returns:
            ``[..., H]``.
        """
        table = self.next_state_reward
        times = np.arange(states.shape[-1]) if table.shape[0] > 1 else 0
        successors = next_states if table.shape[-1] > 1 else 0
        return np.asarray(table[times, states, actions, successors])

    @classmethod
    def random(
        cls,
        n_states: int,
        n_actions: int,
        *,
        rng: np.random.Generator,
        discount: float,
        concentration: float = 1.0,
        horizon: int | None = None,
    ) -> TabularMDP:
        """A random MDP with rewards from Uniform(0, 1) that starts in state 0.

        Args:
            n_states: S >= 1.
            n_actions: A >= 1.
            rng: the generator that it is drawn from.
            discount: gamma.
            concentration: of the Dirichlet distribution of each row ``P(.|s,a)``; small values make
                the problem nearly deterministic.
            horizon: H, in steps (None: infinite).

        Returns:
            The problem, with ``reward [S, A]``.

        Raises:
            ValueError: a count or a number out of range.

        Source: the tabular experiments of *A Theoretical Understanding of Gradient Bias in
        Meta-RL*, Sec. 5.1 (there with concentration 0.001).

        >>> mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9)
        >>> mdp.transition.shape, mdp.start.tolist()
        ((3, 2, 3), [1.0, 0.0, 0.0])
        """
        n_states = whole_number("n_states", n_states, at_least=1)
        n_actions = whole_number("n_actions", n_actions, at_least=1)
        concentration = real_number("concentration", concentration, low=1e-6, high=1e6)
        rows = rng.dirichlet(np.full(n_states, concentration), size=(n_states, n_actions))
        reward = rng.uniform(size=(n_states, n_actions))
        start = np.zeros(n_states)
        start[0] = 1.0
        return cls(rows, reward, discount, start, horizon)

    @classmethod
    def from_gymnasium(cls, env: Any, discount: float, horizon: int | None = None) -> TabularMDP:
        """The MDP of a gymnasium environment that publishes its table (toy text).

        A state in which an episode ends (``done``) becomes terminal even where the table lets it go
        on (CliffWalking, Taxi). The environment's own step limit is not used.

        Args:
            env: with ``env.unwrapped.P[s][a] = [(probability, next state, reward, done), ...]`` and
                the initial distribution ``env.unwrapped.initial_state_distrib``.
            discount: gamma.
            horizon: H, in steps (None: infinite).

        Returns:
            The problem, with ``reward [S, A, S]``.

        Raises:
            ValueError: no table, or one that a `TabularMDP` cannot hold (two rewards for one
                transition, a state that is entered both ending and not ending the episode).
        """
        transition, reward, start = gymnasium_table(env)
        return cls(transition, reward, discount, start, horizon)

    def save(self, path: str | Path) -> None:
        """Writes the problem as an npz archive of plain arrays (no pickle)."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "transition": self.transition,
            "reward": self.reward,
            "discount": np.float64(self.discount),  # type: ignore[dict-item]
            "start": self.start,
        }
        if self.horizon is not None:
            arrays["horizon"] = np.int64(self.horizon)  # type: ignore[assignment]
        with open(path, "wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> TabularMDP:
        """The problem that `save` wrote: arrays transition, reward, discount, start[, horizon].

        Raises:
            ValueError: no such file, not an npz archive, pickled objects, or arrays missing.
        """
        return cls(**read_problem(path))


def checked_discount(discount: object, horizon: object) -> tuple[float, int | None]:
    """The discount as a float and the horizon as an int or None. Raises ValueError for a discount
    outside [0, 1], for discount 1 without a horizon, or for a horizon below 1.
    """
    factor = real_number("discount", discount, low=0.0, high=1.0)
    if horizon is None and factor == 1.0:
        raise ValueError("discount: 1 needs a finite horizon, got horizon None")
    return factor, None if horizon is None else whole_number("horizon", horizon, at_least=1)


def read_problem(path: str | Path) -> dict[str, Any]:
    """The arguments of a `TabularMDP` from an npz archive, not yet checked against each other.
    Raises ValueError as `TabularMDP.load` does.
    """
    arrays = read_npz(path)
    missing = [n for n in ("transition", "reward", "discount", "start") if n not in arrays]
    if missing:
        raise ValueError(f"{path}: expected an array named {missing[0]}, got {sorted(arrays)}")
    arguments: dict[str, Any] = {name: arrays[name] for name in ("transition", "reward", "start")}
    for name in ("discount", "horizon"):
        if name in arrays:
            if arrays[name].size != 1:
                raise ValueError(f"{path}: {name}: expected one number, got an array")
            arguments[name] = arrays[name].reshape(()).item()
    return arguments
