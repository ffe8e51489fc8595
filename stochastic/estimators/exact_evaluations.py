"""A surrogate's derivatives on given trajectories, with any rewards, critic, policy, discount."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from gradbias.analytic.utils.validation import BoolArray, FloatArray, IntArray
from gradbias.stochastic.derivatives.coefficients import Coefficients, SurrogateCall, coefficients
from gradbias.stochastic.estimators.kinds import SurrogateEstimator
from gradbias.stochastic.rollouts.records import Tensors

_BLOCK = 4096

_SIZES = (-2.0, 8.0)
"""Powers of ten between which rewards and critic values are."""

_LOGARITHM = 600.0
"""A trajectory's log-probability is above minus this: in floating point it is not 0."""


@dataclass(frozen=True, eq=False)
class Paths:
    """B trajectories without their numbers: ``states [B, H + 1]``, ``actions [B, H]`` and
    ``ended [B, H + 1]``, whether the state is terminal.
    """

    states: IntArray
    actions: IntArray
    ended: BoolArray

    def __getitem__(self, index: IntArray | slice) -> Paths:
        """Some of them."""
        return Paths(self.states[index], self.actions[index], self.ended[index])

    def keys(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Each one's states and actions."""
        for states, actions in zip(self.states.tolist(), self.actions.tolist(), strict=True):
            yield tuple(states), tuple(actions)

    @property
    def inputs(self) -> BoolArray:
        """``[B, 2H + 2]``: which of x (see `Term`) can differ from 0."""
        alive = ~self.ended
        first = np.ones((len(self.actions), 1), dtype=np.bool_)
        return np.concatenate([first, alive[:, :-1], alive], axis=1)


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Of one surrogate on trajectories of ``steps`` steps, a batch of one each unless said."""

    estimator: SurrogateEstimator
    n_states: int
    n_actions: int
    steps: int
    vmapped: bool

    def visits(self, leaves: tuple[str, ...]) -> list[tuple[int, int]]:
        """Time and action of each leaf's entries."""
        found = []
        for leaf in leaves:
            actions = [-1] if leaf == "log_probs" else list(range(self.n_actions))
            found += [(t, a) for t in range(self.steps) for a in actions]
        return found

    def tensors(
        self, paths: Paths, inputs: FloatArray, logits: FloatArray | None = None, n: int = 1
    ) -> Tensors:
        """Records of the paths, ``n`` a batch, with rewards and values from ``inputs [B, 2H + 2]``,
        each batch at a policy of its own, ``logits [B / n, S, A]``, or all at the uniform one.
        """
        count, steps = paths.actions.shape
        alive = ~paths.ended[:, :-1]
        if logits is None:
            logits = np.zeros((1, self.n_states, self.n_actions))
        centred = logits - logits.max(axis=-1, keepdims=True)
        table = centred - np.log(np.exp(centred).sum(axis=-1, keepdims=True))
        rows = np.minimum(np.arange(count) // n, len(table) - 1)
        policy = np.where(alive[..., None], table[rows[:, None], paths.states[:, :-1]], 0.0)
        own = np.take_along_axis(policy, paths.actions[..., None], axis=-1)[..., 0]
        arrays = {
            "log_probs": own,
            "log_policy": policy,
            "behaviour_log_probs": own,
            "rewards": inputs[:, 1 : steps + 1],
            "states": paths.states,
            "actions": paths.actions,
            "alive": alive,
            "values": inputs[:, steps + 1 :],
        }
        return {
            name: torch.from_numpy(np.array(a).reshape(count // n, n, *a.shape[1:]))
            for name, a in arrays.items()
        }

    def call(self, discount: float) -> SurrogateCall:
        """The surrogate at one discount."""
        return SurrogateCall(self.estimator.function, self.estimator.name, discount, {})

    def derivatives(self, tensors: Tensors, discount: float) -> Coefficients:
        """At one discount, all orders.

        Raises:
            SurrogateError: as `stochastic.derivatives.coefficients.coefficients`.
        """
        call, order = self.call(discount), self.estimator.order
        parts = [
            coefficients(
                call,
                {name: tensor[begin : begin + _BLOCK] for name, tensor in tensors.items()},
                order,
                vmapped=self.vmapped,
            )
            for begin in range(0, len(tensors["actions"]), _BLOCK)
        ]
        joined = [
            np.concatenate(group) for group in zip(*(p.derivatives for p in parts), strict=True)
        ]
        return Coefficients(parts[0].leaves, tuple(joined))

    def random_inputs(self, paths: Paths, seed: int) -> FloatArray:
        """Real numbers ``[B, 2H + 2]``, the first 1; 0 after the end.

        Every row has a size of its own, between 0.01 and 10^8: what clips or rounds, does so
        somewhere. Half the rows have no critic; some have numbers of one sign or one number alone.
        """
        rng = np.random.default_rng(seed)
        found = rng.normal(size=paths.inputs.shape)
        kind = rng.integers(6, size=len(found))
        found[kind == 0] = np.abs(found[kind == 0])
        found[kind == 1] = -np.abs(found[kind == 1])
        found[kind == 2] = found[kind == 2, :1]
        found *= 10.0 ** rng.uniform(*_SIZES, size=(len(found), 1))
        found[rng.random(len(found)) < 0.5, self.steps + 1 :] = 0.0
        found[:, 0] = 1.0
        return np.where(paths.inputs, found, 0.0)

    def random_logits(self, count: int, seed: int) -> FloatArray:
        """``[count, S, A]``, of policies from nearly uniform to nearly deterministic."""
        rng = np.random.default_rng(seed)
        spread = 10.0 ** rng.uniform(-1.0, 2.0, size=(count, 1, 1))
        largest = _LOGARITHM / (2 * self.steps)
        drawn = rng.normal(size=(count, self.n_states, self.n_actions)) * spread
        return np.clip(drawn, -largest, largest)

    def alive(self, paths: Paths, leaves: tuple[str, ...], k: int) -> FloatArray:
        """``[B, M, ...]``: 1 where all k visits are before the end."""
        times = [t for t, _ in self.visits(leaves)]
        alive = (~paths.ended[:, times]).astype(np.float64)
        found = alive
        for _ in range(k - 1):
            found = found[..., None] * alive.reshape(len(alive), *(1,) * (found.ndim - 1), -1)
        return found

    def members(self, leaves: tuple[str, ...]) -> Iterator[IntArray]:
        """Where each of two trajectories' leaf entries stand."""
        for n in range(2):
            parts, begin = [], 0
            for leaf in leaves:
                size = self.steps * (1 if leaf == "log_probs" else self.n_actions)
                parts.append(begin + n * size + np.arange(size))
                begin += 2 * size
            yield np.concatenate(parts)
