"""Batches of trajectories, and sampling them from a tabular problem.

After an episode's end a trajectory continues with ``alive`` False, the terminal state repeated,
action 0, reward 0 and log-probability 0, so that these steps carry no information, whether
trajectories are sampled or enumerated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.at_parameters import policy_at
from gradbias.analytic.policies.softmax import TABULAR, Policy, log_softmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import BoolArray, FloatArray, IntArray, whole_number


@dataclass(frozen=True, eq=False)
class Trajectories:
    """N trajectories of H steps; leading axes are independent replications.

    Arrays are made read-only.

    Attributes:
        states: numbers of the states, ``[..., N, H + 1]``.
        actions: numbers of the actions, ``[..., N, H]``.
        rewards: the rewards, ``[..., N, H]``.
        alive: whether the step is before the end of the episode, ``[..., N, H]``.
        behaviour_log_probs: log-probabilities of the policy that drew the actions, ``[..., N, H]``.
        other_actions: in two-player games, the other player's actions.
        other_rewards: in two-player games, the other player's rewards.
        other_behaviour_log_probs: those of the policy that drew the other player's actions; None if
            it is the policy that is evaluated.

    Raises:
        ValueError: shapes that do not match.
    """

    states: IntArray
    actions: IntArray
    rewards: FloatArray
    alive: BoolArray
    behaviour_log_probs: FloatArray
    other_actions: IntArray | None = None
    other_rewards: FloatArray | None = None
    other_behaviour_log_probs: FloatArray | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.actions)
        if len(shape) < 2:
            raise ValueError(f"actions: expected shape [..., N, H], got {shape}")
        integers = dict.fromkeys(("states", "actions", "other_actions"), np.dtype(np.int64))
        dtypes = integers | {"alive": np.dtype(np.bool_)}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            array = np.asarray(value, dtype=dtypes.get(field.name, np.dtype(np.float64)))
            wanted = (*shape[:-1], shape[-1] + 1) if field.name == "states" else shape
            if array.shape != wanted:
                raise ValueError(f"{field.name}: expected shape {wanted}, got {array.shape}")
            array = array.view()
            array.setflags(write=False)
            object.__setattr__(self, field.name, array)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape ``(..., N, H)``."""
        return self.actions.shape

    def __getitem__(self, index: Any) -> Trajectories:
        """The replications or trajectories that numpy indexing of the leading axes selects."""
        return self._mapped(lambda array: array[index])

    def reshape(self, *leading: int) -> Trajectories:
        """The same trajectories with other leading axes (the last one is N)."""
        return self._mapped(lambda array: array.reshape(*leading, array.shape[-1]))

    @classmethod
    def concatenated(cls, batches: Sequence[Trajectories]) -> Trajectories:
        """The batches joined along their first axis; all must have the same optional fields."""
        parts: dict[str, Any] = {}
        for field in fields(cls):
            arrays = [getattr(batch, field.name) for batch in batches]
            parts[field.name] = None if arrays[0] is None else np.concatenate(arrays)
        return cls(**parts)

    def _mapped(self, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Trajectories:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: None if array is None else change(array) for name, array in parts.items()
        }
        return Trajectories(**changed)


@dataclass(frozen=True, eq=False)
class _Distributions:
    """Rows of discrete distributions, without their entries of probability 0.

    ``cumulative [rows, K]`` ends in exact ones, so that every uniform number in [0, 1) selects an
    outcome; ``outcomes [rows, K]`` are the entries' indices.
    """

    cumulative: FloatArray
    outcomes: IntArray

    @classmethod
    def of(cls, probabilities: FloatArray) -> _Distributions:
        positive = probabilities > 0
        width = int(positive.sum(axis=1).max())
        # A stable sort on "is zero" brings each row's positive entries to its front, in order.
        order = np.argsort(~positive, axis=1, kind="stable")[:, :width]
        cumulative = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
        last = positive.sum(axis=1, keepdims=True) - 1
        cumulative[np.arange(width) >= last] = 1.0
        return cls(cumulative, order)

    def draw(self, rows: IntArray, rng: np.random.Generator) -> IntArray:
        uniform = rng.random(rows.shape)
        chosen = (self.cumulative[rows] <= uniform[..., None]).sum(axis=-1)
        outcomes: IntArray = self.outcomes[rows, chosen]
        return outcomes


def sample(
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    batch_size: int,
    *,
    rng: np.random.Generator,
    replications: int | None = None,
    length: int | None = None,
    policy: Policy = TABULAR,
) -> Trajectories:
    """Trajectories of a policy, sampled from the problem.

    Args:
        mdp: the problem.
        theta: the policy's parameters (``[S, A]`` for the tabular softmax), or one for each
            replication, ``[R, *shape]``.
        batch_size: N, the number of trajectories in a batch.
        rng: the generator of all draws.
        replications: R, the number of batches; None is one batch without a leading axis.
        length: the number of steps, for an infinite horizon alone: it causes a truncation bias.
        policy: maps theta to logits (default: the tabular softmax).

    Returns:
        A batch ``[N, H]``, or R batches ``[R, N, H]``.

    Raises:
        ValueError: theta does not fit, batch_size or replications below 1; a length that is
            missing, or given with a finite horizon.

    >>> mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=4)
    >>> sample(mdp, np.zeros((3, 2)), 5, rng=np.random.default_rng(1)).states.shape
    (5, 5)
    """
    steps = trajectory_length(mdp, length)
    count = whole_number("batch_size", batch_size, at_least=1)
    leading = (
        () if replications is None else (whole_number("replications", replications, at_least=1),)
    )
    at = policy_at(policy, theta, mdp.n_states, mdp.n_actions, leading)
    if at.leading != leading:
        raise ValueError(f"theta: expected one policy, got leading axes {at.leading}")
    return draw_trajectories(mdp, log_softmax(at.logits), (*leading, count), steps, rng)


def draw_trajectories(
    mdp: TabularMDP,
    log_policy: FloatArray,
    shape: tuple[int, ...],
    steps: int,
    rng: np.random.Generator,
) -> Trajectories:
    """Trajectories ``[*shape, steps]`` of ``log_policy [S, A]``, or ``[R, S, A]``, one policy for
    each entry of the first axis.
    """
    choices = _Distributions.of(np.exp(log_policy).reshape(-1, mdp.n_actions))
    successors = _Distributions.of(mdp.transition.reshape(-1, mdp.n_states))
    starts = _Distributions.of(mdp.start[None])
    states = np.empty((*shape, steps + 1), dtype=np.int64)
    actions = np.empty((*shape, steps), dtype=np.int64)
    states[..., 0] = starts.draw(np.zeros(shape, dtype=np.int64), rng)
    first = np.zeros((1,) * len(shape), dtype=np.int64)
    if log_policy.ndim == 3:
        first = (np.arange(len(log_policy)) * mdp.n_states).reshape(-1, *(1,) * (len(shape) - 1))
    for t in range(steps):
        now = states[..., t]
        actions[..., t] = np.where(mdp.terminal[now], 0, choices.draw(first + now, rng))
        states[..., t + 1] = successors.draw(now * mdp.n_actions + actions[..., t], rng)
    return complete_trajectories(mdp, log_policy, states, actions)


def complete_trajectories(
    mdp: TabularMDP, log_policy: FloatArray, states: IntArray, actions: IntArray
) -> Trajectories:
    """The trajectories with given states ``[..., H + 1]`` and actions, drawn from ``log_policy [S,
    A]``, or ``[R, S, A]``, one policy for each entry of the first axis.
    """
    now = states[..., :-1]
    alive = ~mdp.terminal[now]
    rewards = mdp.step_reward(now, actions, states[..., 1:])
    log_probs = np.where(alive, looked_up(log_policy, now, actions), 0.0)
    return Trajectories(states, actions, rewards, alive, log_probs)


def looked_up(table: FloatArray, *index: IntArray) -> FloatArray:
    """``table[index]`` of a table with two axes; a third, leading axis is matched with the first
    axis of the indices.
    """
    if table.ndim == 3:
        index = (np.arange(len(table)).reshape(-1, *(1,) * (index[0].ndim - 1)), *index)
    entries: FloatArray = table[index]
    return entries


def trajectory_length(mdp: TabularMDP, length: int | None) -> int:
    """The number of steps to draw. Raises ValueError unless ``length`` is given if and only if the
    horizon is infinite.
    """
    if mdp.horizon is None:
        if length is None:
            raise ValueError(
                "length: the horizon is infinite, so trajectories need a length (or give the "
                "problem a horizon)"
            )
        return whole_number("length", length, at_least=1)
    if length is not None:
        raise ValueError(
            f"length: only for an infinite horizon, got {length} with horizon {mdp.horizon}"
        )
    return mdp.horizon


def empty_batches(replications: int) -> Trajectories:
    """Batches without a step, on which an estimate that draws its own batches is evaluated."""
    actions = np.zeros((replications, 1, 0), dtype=np.int64)
    states = np.zeros((replications, 1, 1), dtype=np.int64)
    rewards = np.zeros((replications, 1, 0))
    return Trajectories(states, actions, rewards, actions.astype(bool), rewards)
