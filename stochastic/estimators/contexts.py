"""What an estimate depends on besides its trajectories: parameters, critics, players."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gradbias.analytic.policies.softmax import TABULAR, Policy, TabularSoftmax, log_softmax
from gradbias.analytic.problems.critics import critic_rows
from gradbias.analytic.utils.validation import FloatArray, IntArray, frozen_array, real_number
from gradbias.stochastic.derivatives.assembly import Visits
from gradbias.stochastic.rollouts.records import PlayerTables
from gradbias.stochastic.rollouts.trajectories import Trajectories

Draw = Callable[[npt.ArrayLike, int], Trajectories]
"""``draw(theta, n)``: a fresh batch ``[n, H]`` from the policy with parameters ``theta``."""


class UnansweredDrawError(ValueError):
    """A draw that the source of batches refuses, such as one beyond the limit of an enumeration. It
    is not reported as an error of the estimator.
    """


@dataclass(frozen=True, eq=False)
class OtherPlayer:
    """The second player of a game.

    Attributes:
        theta: logits ``[S, A]``.
        rows: ``[S]``, the row of theta that is used in each state (default: row s in state s; a
            memory-one player numbers the last round's outcomes with its own action first).
        critic: values ``[S]`` or ``[H + 1, S]``, or None.
    """

    theta: FloatArray
    rows: IntArray | None = None
    critic: FloatArray | None = None

    def __post_init__(self) -> None:
        theta = frozen_array("other: theta", self.theta, (None, None))
        object.__setattr__(self, "theta", theta)
        if self.critic is not None:
            critic = frozen_array("other: critic", self.critic)
            object.__setattr__(self, "critic", critic)
        if self.rows is not None:
            rows = np.asarray(self.rows)
            if rows.dtype.kind not in "iu" or rows.ndim != 1 or rows.min() < 0:
                raise ValueError(f"other: rows: expected states' rows [S], got {self.rows!r}")
            if rows.max() >= len(theta):
                raise ValueError(
                    f"other: rows: expected rows below {len(theta)}, got {int(rows.max())}"
                )
            object.__setattr__(self, "rows", rows)


@dataclass(frozen=True, eq=False)
class Context:
    """What an estimate depends on besides its trajectories.

    Attributes:
        theta: the parameters at which the estimate is taken.
        discount: gamma.
        policy: maps parameters to logits.
        critic: values ``[S]`` or, one row a step, ``[H + 1, S]``; None stands for 0.
        reference: the parameters of a reference policy, or None.
        meta: meta-parameter tensors by name.
        other: the second player; estimates are then in both players' logits, the second's last.
        draw: gives an estimator from `from_draws` its batches; without it such an estimator cannot
            be evaluated.

    Raises:
        ValueError: an array that is not finite, a discount outside [0, 1], or two players with
            a policy that is not tabular or with different numbers of actions.
    """

    theta: FloatArray
    discount: float
    policy: Policy = TABULAR
    critic: FloatArray | None = None
    reference: FloatArray | None = None
    meta: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    other: OtherPlayer | None = None
    draw: Draw | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", frozen_array("theta", self.theta))
        real_number("discount", self.discount, low=0.0, high=1.0)
        if self.critic is not None:
            object.__setattr__(self, "critic", frozen_array("critic", self.critic))
        tensors: dict[str, object] = dict(self.meta)
        wrong = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
        if wrong:
            raise ValueError(f"meta: expected torch tensors, got something else as {wrong[0]!r}")
        if self.reference is not None:
            reference = frozen_array("reference", self.reference, self.theta.shape)
            object.__setattr__(self, "reference", reference)
        if self.other is not None and not isinstance(self.policy, TabularSoftmax):
            raise ValueError(f"two players: expected tabular policies, got {self.policy!r}")
        if self.other is not None and self.other.theta.shape[1] != self.theta.shape[1]:
            raise ValueError(
                f"two players: expected as many actions each, got {self.theta.shape[1]} and "
                f"{self.other.theta.shape[1]}"
            )

    @property
    def estimate_axes(self) -> tuple[int, ...]:
        """The shape of a first-order estimate."""
        if self.other is None:
            return self.theta.shape
        return (self.theta.size + self.other.theta.size,)


def player_tables(context: Context, steps: int) -> tuple[PlayerTables, PlayerTables | None]:
    """The tables of both players that records of ``steps`` steps are filled from."""
    log_policy = log_softmax(context.policy.logits(context.theta))
    reference = None
    if context.reference is not None:
        reference = log_softmax(context.policy.logits(context.reference))
    n_states = len(log_policy)
    critic = critic_rows(context.critic, steps, n_states)
    player = PlayerTables(log_policy, critic, reference, np.arange(n_states))
    if context.other is None:
        return player, None
    other = context.other
    rows = np.arange(n_states) if other.rows is None else other.rows
    theirs = critic_rows(other.critic, steps, n_states)
    return player, PlayerTables(log_softmax(other.theta), theirs, None, rows)


def batch_visits(batch: Trajectories, player: PlayerTables, other: PlayerTables | None) -> Visits:
    """The rows of the policy tables that the steps of a batch ``[B, N, H]`` read."""
    count = len(batch.actions)
    states = batch.states[..., :-1].reshape(count, -1)
    alive = batch.alive.reshape(count, -1)
    actions = batch.actions.reshape(count, -1)
    n_rows = len(player.log_policy)
    tables, rows = player.log_policy, player.rows[states]
    if other is not None and batch.other_actions is not None:
        rows = np.concatenate([rows, n_rows + other.rows[states]], axis=1)
        alive = np.concatenate([alive, alive], axis=1)
        actions = np.concatenate([actions, batch.other_actions.reshape(count, -1)], axis=1)
        tables = np.concatenate([player.log_policy, other.log_policy])
    return Visits(rows, len(tables), actions, alive, np.exp(tables[rows]), states.shape[1])
