"""First-order estimates of many batches at once, and products with their Jacobians.

The gradient of a surrogate on a batch is an estimate g(theta). Inner loops need g and, going back,
the vector-Jacobian products ``(dg/dtheta)^T v`` and ``(dg/dphi)^T v``. With c and C the surrogate's
first and second derivatives in the log-probabilities, and u_i the score of visit i,

    g = sum_i c_i u_i,     (dg/dtheta)^T v = sum_i (C (u . v))_i u_i + sum_i c_i (grad u_i) v,

so that no Hessian is formed: a batch takes O(N H) numbers. Replications may differ in their
parameters. Coefficients come from reverse-mode differentiation of the surrogate or, for the
built-in ones, in closed form (`stochastic.derivatives.known_surrogates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as with_default
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.jets import required
from gradbias.analytic.policies.softmax import log_softmax
from gradbias.analytic.problems.critics import critic_rows
from gradbias.analytic.utils.validation import FloatArray, IntArray, real_number
from gradbias.stochastic.derivatives.closed_forms import ClosedForm, Steps
from gradbias.stochastic.derivatives.coefficients import (
    CHANGED_BY_VMAP,
    SurrogateCall,
    evaluated,
    name_of,
    probe,
)
from gradbias.stochastic.derivatives.known_surrogates import known_of
from gradbias.stochastic.rollouts.records import (
    LEAVES,
    META,
    PlayerTables,
    Surrogate,
    Tensors,
    check_range,
    record_tensors,
)
from gradbias.stochastic.rollouts.trajectories import Trajectories, looked_up


@dataclass(frozen=True, eq=False)
class PlayerState:
    """One player's policy and critic.

    Attributes:
        at: the policy at parameters ``[*shape]``, or ``[B, *shape]``, one for each replication.
        critic: values ``[S]``, ``[H + 1, S]`` or ``[B, H + 1, S]``; None: zeros.
    """

    at: PolicyAt
    critic: FloatArray | None = None

    def tables(self, steps: int) -> PlayerTables:
        """The tables that records of ``steps`` steps are looked up in."""
        log_policy = log_softmax(self.at.logits)
        n_states = log_policy.shape[-2]
        by_replication = self.critic is not None and self.critic.ndim == 3
        values = self.critic if by_replication else critic_rows(self.critic, steps, n_states)
        return PlayerTables(log_policy, required(values), None, np.arange(n_states))


@dataclass(frozen=True, eq=False)
class LeafValues:
    """A number for each entry of the leaves, by the leaves' names; missing leaves are 0."""

    entries: Mapping[str, FloatArray]

    def of(self, leaf: str) -> FloatArray | None:
        """The numbers of one leaf, ``[B, N, H]`` or ``[B, N, H, A]``; None if they are 0."""
        return self.entries.get(leaf)


class Weights(Protocol):
    """A surrogate's coefficients on B batches, in closed form or by reverse mode.

    Estimates and products need the first derivatives and the second ones times a direction. Closed
    forms give both in numpy for the built-in surrogates; reverse mode gives them for any other. The
    protocol keeps `SurrogateBatch` free of that choice.
    """

    def first(self) -> LeafValues:
        """The first derivatives in the leaves and in the meta-parameters."""
        ...

    def along(self, directions: LeafValues) -> LeafValues:
        """The second derivatives times ``directions`` in the player's own leaves."""
        ...


@dataclass(frozen=True, eq=False)
class PulledEstimate:
    """The vector-Jacobian product of an estimate with a cotangent v.

    Attributes:
        own: the product in the player's parameters, ``[B, *shape]``.
        other: the product in the other player's parameters, or None.
        meta: the products in the meta-parameters by name, ``[B, *its shape]`` each.
    """

    own: FloatArray
    other: FloatArray | None
    meta: Mapping[str, FloatArray]


@dataclass(frozen=True, eq=False)
class SurrogateBatch:
    """A surrogate on batches, as an estimate of a gradient.

    Attributes:
        surrogate: maps a `Record` to a scalar tensor.
        batch: the trajectories, ``[B, N, H]``.
        own: the player whose record the surrogate sees.
        discount: gamma.
        other: the other player of a game, or None.
        meta: named meta-parameters, the same for all batches.
        closed_forms: whether closed forms of coefficients are used where they are known; reverse
            mode is used elsewhere.

    Raises:
        SurrogateError: when estimates are computed, if the surrogate misbehaves.
    """

    surrogate: Surrogate
    batch: Trajectories
    own: PlayerState
    discount: float
    other: PlayerState | None = None
    meta: Mapping[str, FloatArray] = with_default(default_factory=dict)
    closed_forms: bool = True

    def gradient(self) -> FloatArray:
        """The estimates, ``[B, *shape]``."""
        return self.own.at.vjp(self._in_logits(self._first, "", self.own))

    def other_gradient(self) -> FloatArray:
        """The estimates in the other player's parameters. Raises ValueError without one."""
        other = self._other
        return other.at.vjp(self._in_logits(self._first, OTHER, other))

    def meta_gradient(self, name: str) -> FloatArray:
        """The surrogates' gradients in a meta-parameter, ``[B, *its shape]``."""
        return self._in_meta(self._first, name)

    def pull_back(self, v: FloatArray) -> PulledEstimate:
        """The vector-Jacobian product of `gradient` with ``v [B, *shape]``."""
        at = self.own.at
        # The directional derivatives along v: of the probabilities, the logits z and, as
        # z' - sum_a pi z', of the log-probabilities, all [B, S, A].
        d_probabilities = required(at.jet([v])[1])
        d_logits = required(at.logit_jet([v])[1])
        d_logs = d_logits - (at.probabilities * d_logits).sum(axis=-1, keepdims=True)
        second = self._weights.along(self._directions(d_logs))
        totals = self._sums(self._first, "").sum(axis=-1, keepdims=True)
        in_logits = self._in_logits(self._first, "", self.own)
        d_in_logits = self._in_logits(second, "", self.own) - totals * d_probabilities
        other = None
        if self.other is not None:
            other = self.other.at.vjp(self._in_logits(second, OTHER, self.other))
        meta = {name: self._in_meta(second, name) for name in self.meta}
        return PulledEstimate(at.vjp_jet([in_logits, d_in_logits], [v]), other, meta)

    def probe(self) -> None:
        """Checks the surrogate on each batch by itself.

        Raises:
            SurrogateError: as `stochastic.derivatives.coefficients.probe`.
        """
        call, tensors = self.tensors()
        if probe(call, tensors, 1) == CHANGED_BY_VMAP:
            raise call.error("has another value under vmap; expected a function of its record")

    def tensors(self) -> tuple[SurrogateCall, Tensors]:
        """The surrogate, and the records' tensors, with a copy of ``meta`` for each batch."""
        own, other = self._tables
        call = SurrogateCall(self.surrogate, name_of(self.surrogate), self.discount, {})
        tensors = record_tensors(self.batch, own, other)
        for name, value in self.meta.items():
            copies = np.array(np.broadcast_to(value, (self.count, *value.shape)))
            tensors[META + name] = torch.from_numpy(copies)
        return call, tensors

    @property
    def count(self) -> int:
        """The number B of batches."""
        return len(self.batch.actions)

    @property
    def _other(self) -> PlayerState:
        if self.other is None:
            raise ValueError("other: expected two players, got one")
        return self.other

    @cached_property
    def _tables(self) -> tuple[PlayerTables, PlayerTables | None]:
        steps = self.batch.shape[-1]
        return self.own.tables(steps), None if self.other is None else self.other.tables(steps)

    @cached_property
    def _weights(self) -> Weights:
        known = known_of(self.surrogate) if self.closed_forms else None
        if known is None:
            return _DifferentiatedWeights.of(self)
        critic = self._tables[0].critic
        times = np.broadcast_to(np.arange(critic.shape[-2]), self.batch.states.shape)
        values = looked_up(critic, times, self.batch.states)
        steps = Steps(self.batch, values, self._log_ratios(), self.discount)
        return _KnownWeights(known.closed_form(steps), both=self.other is not None)

    def _log_ratios(self) -> FloatArray:
        """The logarithms ``[B, N, H]`` of the chosen actions' probabilities over those under the
        policies that drew them.
        """
        own, other = self._tables
        now, batch = self.batch.states[..., :-1], self.batch
        ratios = looked_up(own.log_policy, now, batch.actions) - batch.behaviour_log_probs
        theirs, drawn = batch.other_actions, batch.other_behaviour_log_probs
        if other is not None and theirs is not None and drawn is not None:
            ratios = ratios + looked_up(other.log_policy, now, theirs) - drawn
        return ratios * batch.alive

    @cached_property
    def _first(self) -> LeafValues:
        return self._weights.first()

    def _directions(self, change: FloatArray) -> LeafValues:
        """The derivatives of the own leaves, from those of log-probabilities, ``[..., S, A]``."""
        now, alive = self.batch.states[..., :-1], self.batch.alive
        n_states, n_actions = self.own.at.size
        cells = now if change.ndim == 2 else self._rows(n_states)
        taken = change.reshape(-1).take(cells * n_actions + self.batch.actions) * alive
        if isinstance(self._weights, _KnownWeights):
            return LeafValues({"log_probs": taken})
        every = looked_up(change, now) * alive[..., None]
        return LeafValues({"log_probs": taken, "log_policy": every})

    def _rows(self, n_states: int) -> IntArray:
        """``[B, N, H]``: the row of each visit in a table ``[B * S, ...]``."""
        firsts = np.arange(self.count)[:, None, None] * n_states
        return firsts + self.batch.states[..., :-1]

    def _in_logits(self, values: LeafValues, prefix: str, player: PlayerState) -> FloatArray:
        """Derivatives in the leaves as derivatives in the logits, ``[B, S, A]``."""
        sums = self._sums(values, prefix)
        gradient: FloatArray = sums - sums.sum(axis=-1, keepdims=True) * player.at.probabilities
        return gradient

    def _in_meta(self, values: LeafValues, name: str) -> FloatArray:
        """Derivatives in a meta-parameter, ``[B, *its shape]``; 0 where none are stored."""
        entries = values.of(META + name)
        return np.zeros((self.count, *self.meta[name].shape)) if entries is None else entries

    def __post_init__(self) -> None:
        if len(self.batch.shape) != 3:
            raise ValueError(f"batch: expected shape [B, N, H], got {self.batch.shape}")
        real_number("discount", self.discount, low=0.0, high=1.0)
        check_range("states", self.batch.states, self.own.at.size[0])
        check_range("actions", self.batch.actions, self.own.at.size[1])
        if self.other is not None and self.batch.other_actions is not None:
            check_range("other_actions", self.batch.other_actions, self.other.at.size[1])

    def _sums(self, values: LeafValues, prefix: str) -> FloatArray:
        """``[B, S, A]``: numbers at the leaves, summed over the visits of each state and action."""
        size = (self.own if prefix == "" else self._other).at.size
        actions = self.batch.actions if prefix == "" else self.batch.other_actions
        cells = self._rows(size[0])
        total = np.zeros(self.count * size[0] * size[1])
        taken, every = values.of(prefix + "log_probs"), values.of(prefix + "log_policy")
        if taken is not None and actions is not None:
            live = (taken * self.batch.alive).ravel()
            total += np.bincount((cells * size[1] + actions).ravel(), live, total.size)
        if every is not None:
            places = cells[..., None] * size[1] + np.arange(size[1])
            live = (every * self.batch.alive[..., None]).ravel()
            total += np.bincount(places.ravel(), live, total.size)
        return total.reshape(self.count, *size)


OTHER = "other."


@dataclass(frozen=True, eq=False)
class _KnownWeights:
    """Coefficients in closed form: derivatives in the chosen actions' log-probabilities alone."""

    known: ClosedForm
    both: bool

    def first(self) -> LeafValues:
        return self._at_leaves(self.known.first)

    def along(self, directions: LeafValues) -> LeafValues:
        taken = directions.of("log_probs")
        return self._at_leaves(self.known.along(required(taken)))

    def _at_leaves(self, values: FloatArray) -> LeafValues:
        leaves = ("log_probs", OTHER + "log_probs") if self.both else ("log_probs",)
        return LeafValues(dict.fromkeys(leaves, values))


@dataclass(frozen=True, eq=False)
class _DifferentiatedWeights:
    """Coefficients by reverse-mode differentiation."""

    call: SurrogateCall
    leaves: Tensors
    gradients: Mapping[str, Tensor]

    @classmethod
    def of(cls, estimate: SurrogateBatch) -> _DifferentiatedWeights:
        call, tensors = estimate.tensors()
        for name, tensor in tensors.items():
            if name in LEAVES or name.startswith(META):
                tensor.requires_grad_()
        values, leaves = evaluated(call, tensors, vmapped=True)
        # A surrogate that is constant on this batch (all rewards are 0, say) has no gradient.
        if not values.requires_grad:
            return cls(call, leaves, {})
        return cls(call, leaves, _gradients(values.sum(), leaves, create_graph=True))

    def first(self) -> LeafValues:
        return self._finite({n: g.detach().numpy() for n, g in self.gradients.items()}, 1)

    def along(self, directions: LeafValues) -> LeafValues:
        along = torch.zeros((), dtype=torch.float64)
        for leaf in ("log_probs", "log_policy"):
            direction = directions.of(leaf)
            if leaf in self.gradients and direction is not None:
                along = along + (self.gradients[leaf] * torch.from_numpy(direction)).sum()
        if not along.requires_grad:
            return LeafValues({})
        products = _gradients(along, self.leaves, create_graph=False)
        return self._finite({n: g.numpy() for n, g in products.items()}, 2)

    def _finite(self, entries: dict[str, FloatArray], order: int) -> LeafValues:
        for values in entries.values():
            if not np.isfinite(values).all():
                raise self.call.error(f"has a derivative of order {order} that is not finite")
        return LeafValues(entries)


def _gradients(value: Tensor, leaves: Tensors, *, create_graph: bool) -> Tensors:
    """The gradients in the leaves that ``value`` depends on."""
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        value,
        list(leaves.values()),
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
    )
    return {n: g for n, g in zip(leaves, gradients, strict=True) if g is not None}
