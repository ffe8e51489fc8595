"""The record that a surrogate objective sees, and how it is built from trajectories.

A surrogate depends on the policy through log-probabilities only. They are leaves: what the
estimator differentiates. Everything else is data.
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
    """One replication: N trajectories of H steps, float64 tensors.

    log_probs ``[N, H]``
        log-probability of the action taken: a leaf. 0 after the end.
    log_policy ``[N, H, A]``
        log-probabilities of all actions: a leaf of its own (for entropies). 0 after the end.
    behaviour_log_probs ``[N, H]``
        those of the policy that drew the actions: data.
    rewards ``[N, H]``, states ``[N, H + 1]``, actions ``[N, H]``, alive ``[N, H]`` (bool)
        alive is False after the end of the episode; rewards are 0 there.
    values ``[N, H + 1]``
        the critic's values of the states (zeros where none was given): data.
    discount
        gamma, a float.
    reference_log_policy ``[N, H, A]``
        a reference policy's log-probabilities, None if none was given.
    other
        the same record for the other player of a game, None elsewhere.
    meta
        named meta-parameter tensors.
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
"""A record's tensors by name: what vmap maps over. ``other.`` comes before those of the other
player, ``meta.`` before meta-parameters that each replication has its own copy of."""

META = "meta."

LEAVES = ("log_probs", "log_policy", "other.log_probs", "other.log_policy")


Surrogate = Callable[[Record], Tensor]
"""A surrogate objective: a scalar tensor from one replication's record."""


@dataclass(frozen=True, eq=False)
class PlayerTables:
    """What one player's record is looked up in: ``log_policy [S, A]``, ``critic [H + 1, S]``,
    ``reference [S, A]`` or None, ``rows [S]`` the row of the tables that each state reads. Policy
    and critic may have a leading axis: one table for each replication.
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
        found = looked_up(other.log_policy, rows, batch.other_actions)
        behaviour = np.where(batch.alive, found, 0.0)
    theirs = _player_tensors(batch, other, batch.other_actions, batch.other_rewards, behaviour)
    return tensors | {f"other.{name}": tensor for name, tensor in theirs.items()}


def _player_tensors(
    batch: Trajectories,
    tables: PlayerTables,
    actions: npt.NDArray[np.int64],
    rewards: FloatArray,
    behaviour_log_probs: FloatArray,
) -> Tensors:
    check_range("states", batch.states, len(tables.rows))
    check_range("actions", actions, tables.log_policy.shape[-1])
    rows = tables.rows[batch.states[..., :-1]]
    alive = batch.alive
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


def check_range(name: str, found: npt.NDArray[np.int64], size: int) -> None:
    """Raises ValueError for numbers that are not 0, ..., size - 1."""
    wrong = found[(found < 0) | (found >= size)]
    if wrong.size:
        raise ValueError(f"{name}: expected numbers from 0 to {size - 1}, got {wrong[0]}")


def _named(tensors: Tensors, prefix: str) -> Tensors:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def build_record(tensors: Tensors, discount: float, meta: Mapping[str, Tensor]) -> Record:
    """One replication's record from its tensors."""
    own: dict[str, Any] = {n: t for n, t in tensors.items() if "." not in n}
    theirs: dict[str, Any] = _named(tensors, "other.")
    frozen = MappingProxyType({**meta, **_named(tensors, META)})
    other = Record(**theirs, discount=discount, meta=frozen) if theirs else None
    return Record(**own, discount=discount, other=other, meta=frozen)
