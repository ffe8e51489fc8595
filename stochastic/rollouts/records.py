"""The record that a surrogate objective sees, and how it is built from trajectories.

A surrogate depends on the policy through log-probabilities only. These are the leaves, in which the
estimator differentiates; everything else is data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradbias.analytic.utils.validation import FloatArray
from gradbias.stochastic.rollouts.trajectories import Trajectories, looked_up


@dataclass(frozen=True, eq=False)
class Record:
    """One replication of N trajectories of H steps, as float64 tensors.

    Attributes:
        log_probs: log-probability of the action taken, ``[N, H]``: a leaf; 0 after the end.
        log_policy: log-probabilities of all actions, ``[N, H, A]``: a separate leaf (for
            entropies); 0 after the end.
        behaviour_log_probs: log-probabilities under the policy that drew the actions, ``[N, H]``.
        rewards: the rewards, ``[N, H]``; 0 after the end.
        states: numbers of the states, ``[N, H + 1]``.
        actions: numbers of the actions, ``[N, H]``.
        alive: False after the end of the episode, ``[N, H]``.
        values: the critic's values of the states, ``[N, H + 1]`` (zeros without a critic).
        discount: gamma, a float.
        reference_log_policy: a reference policy's log-probabilities, ``[N, H, A]``, or None.
        other: the record of the other player of a game, or None.
        meta: named meta-parameter tensors.
    """

    log_probs: Tensor
    log_policy: Tensor
    behaviour_log_probs: Tensor
    rewards: Tensor
    states: Tensor
    actions: Tensor
    alive: Tensor
    values: Tensor
    discount: float
    reference_log_policy: Tensor | None = None
    other: Record | None = None
    meta: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))


Tensors = dict[str, Tensor]
"""A record's tensors by name, which vmap maps over. Names of the other player's begin with
``other.``; names of meta-parameters that each replication has a copy of begin with ``meta.``."""

META = "meta."

LEAVES = ("log_probs", "log_policy", "other.log_probs", "other.log_policy")


Surrogate = Callable[[Record], Tensor]
"""A surrogate objective: a scalar tensor from one replication's record."""


@dataclass(frozen=True, eq=False)
class PlayerTables:
    """The tables that one player's record is looked up in.

    Attributes:
        log_policy: log-probabilities ``[S, A]``, or ``[B, S, A]``, one table a replication.
        critic: values ``[H + 1, S]``, or ``[B, H + 1, S]``.
        reference: log-probabilities of the reference policy, ``[S, A]``, or None.
        rows: the row of the tables that each state reads, ``[S]``.
    """

    log_policy: FloatArray
    critic: FloatArray
    reference: FloatArray | None
    rows: npt.NDArray[np.int64]


def record_tensors(batch: Trajectories, own: PlayerTables, other: PlayerTables | None) -> Tensors:
    """The tensors of a batch ``[B, N, H]``, one record for each of the B replications."""
    tensors = _player_tensors(batch, own, batch.actions, batch.rewards, batch.behaviour_log_probs)
    if other is None:
        return tensors
    if batch.other_actions is None or batch.other_rewards is None:
        raise ValueError("a two-player context: expected other_actions and other_rewards, got none")
    rows = other.rows[batch.states[..., :-1]]
    behaviour = batch.other_behaviour_log_probs
    if behaviour is None:  # drawn by the other player's own policy
        log_probs = looked_up(other.log_policy, rows, batch.other_actions)
        behaviour = np.where(batch.alive, log_probs, 0.0)
    theirs = _player_tensors(batch, other, batch.other_actions, batch.other_rewards, behaviour)
    return tensors | {f"other.{name}": tensor for name, tensor in theirs.items()}


def _player_tensors(
    batch: Trajectories,
    tables: PlayerTables,
    actions: npt.NDArray[np.int64],
    rewards: FloatArray,
    behaviour_log_probs: FloatArray,
) -> Tensors:
    """One player's tensors, from the tables and what that player did and received."""
    check_range("states", batch.states, len(tables.rows))
    check_range("actions", actions, tables.log_policy.shape[-1])
    rows, alive = tables.rows[batch.states[..., :-1]], batch.alive
    steps = np.broadcast_to(np.arange(batch.states.shape[-1]), batch.states.shape)
    arrays = {
        "log_probs": np.where(alive, looked_up(tables.log_policy, rows, actions), 0.0),
        "log_policy": np.where(alive[..., None], looked_up(tables.log_policy, rows), 0.0),
        "behaviour_log_probs": behaviour_log_probs,
        "rewards": rewards,
        "states": batch.states,
        "actions": actions,
        "alive": alive,
        "values": looked_up(tables.critic, steps, batch.states),
    }
    if tables.reference is not None:
        arrays["reference_log_policy"] = np.where(alive[..., None], tables.reference[rows], 0.0)
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def check_range(name: str, numbers: npt.NDArray[np.int64], size: int) -> None:
    """Raises ValueError for numbers that are not among 0, ..., size - 1."""
    wrong = numbers[(numbers < 0) | (numbers >= size)]
    if wrong.size:
        raise ValueError(f"{name}: expected numbers from 0 to {size - 1}, got {wrong[0]}")


def _without_prefix(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with ``prefix``, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def build_record(tensors: Tensors, discount: float, meta: Mapping[str, Tensor]) -> Record:
    """One replication's record from its tensors."""
    own: dict[str, Any] = {n: t for n, t in tensors.items() if "." not in n}
    theirs: dict[str, Any] = _without_prefix(tensors, "other.")
    frozen = MappingProxyType({**meta, **_without_prefix(tensors, META)})
    other = Record(**theirs, discount=discount, meta=frozen) if theirs else None
    return Record(**own, discount=discount, other=other, meta=frozen)
