"""A surrogate's derivatives on given trajectories, for any rewards, critic, policy and discount.

Rewards and critic values are inputs x ``[2H + 2]``: 1, then the rewards of steps 0..H-1, then the
critic's values at times 0..H.
"""

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
"""The powers of ten between which the sizes of rewards and critic values are."""

_LOGARITHM = 600.0
"""A trajectory's log-probability is above minus this, so that its probability is no float 0."""


@dataclass(frozen=True, eq=False)
class Paths:
    """B trajectories without rewards: ``states [B, H + 1]``, ``actions [B, H]``, and whether each
    state is terminal, ``ended [B, H + 1]``.
    """

    states: IntArray
    actions: IntArray
    ended: BoolArray

    def __getitem__(self, index: IntArray | slice) -> Paths:
        """The trajectories that ``index`` selects."""
        return Paths(self.states[index], self.actions[index], self.ended[index])

    def keys(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The states and actions of each trajectory."""
        for states, actions in zip(self.states.tolist(), self.actions.tolist(), strict=True):
            yield tuple(states), tuple(actions)

    @property
    def inputs(self) -> BoolArray:
        """Which of the inputs x can differ from 0, ``[B, 2H + 2]``."""
        alive = ~self.ended
        first = np.ones((len(self.actions), 1), dtype=np.bool_)
        return np.concatenate([first, alive[:, :-1], alive], axis=1)


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Evaluations of one surrogate on trajectories of ``steps`` steps."""

    estimator: SurrogateEstimator
    n_states: int
    n_actions: int
    steps: int
    vmapped: bool

    def visits(self, leaves: tuple[str, ...]) -> list[tuple[int, int]]:
        """Time and action of each entry of the leaves; action -1 is the one taken."""
        visits = []
        for leaf in leaves:
            actions = [-1] if leaf == "log_probs" else list(range(self.n_actions))
            visits += [(t, a) for t in range(self.steps) for a in actions]
        return visits

    def tensors(
        self, paths: Paths, inputs: FloatArray, logits: FloatArray | None = None, n: int = 1
    ) -> Tensors:
        """Records of the paths, ``n`` in each batch, with inputs x ``[B, 2H + 2]``.

        Each batch has a policy of its own, ``logits [B / n, S, A]``; None is the uniform one.
        """
        count, steps = paths.actions.shape
        alive = ~paths.ended[:, :-1]
        if logits is None:
            logits = np.zeros((1, self.n_states, self.n_actions))
        centred = logits - logits.max(axis=-1, keepdims=True)
        table = centred - np.log(np.exp(centred).sum(axis=-1, keepdims=True))
        rows = np.minimum(np.arange(count) // n, len(table) - 1)
        policy = np.where(alive[..., None], table[rows[:, None], paths.states[:, :-1]], 0.0)
        chosen = np.take_along_axis(policy, paths.actions[..., None], axis=-1)[..., 0]
        arrays = {
            "log_probs": chosen,
            "log_policy": policy,
            "behaviour_log_probs": chosen,
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
        """The derivatives of all orders up to the estimator's, at one discount.

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
        """Random inputs x ``[B, 2H + 2]``.

        Every row has a size of its own, between 0.01 and 10^8, so that a surrogate that clips or
        rounds does so somewhere. Half the rows have no critic; some have numbers of one sign, or
        one number only.
        """
        rng = np.random.default_rng(seed)
        inputs = rng.normal(size=paths.inputs.shape)
        kind = rng.integers(6, size=len(inputs))
        inputs[kind == 0] = np.abs(inputs[kind == 0])
        inputs[kind == 1] = -np.abs(inputs[kind == 1])
        inputs[kind == 2] = inputs[kind == 2, :1]
        inputs *= 10.0 ** rng.uniform(*_SIZES, size=(len(inputs), 1))
        inputs[rng.random(len(inputs)) < 0.5, self.steps + 1 :] = 0.0
        inputs[:, 0] = 1.0
        return np.where(paths.inputs, inputs, 0.0)

    def random_logits(self, count: int, seed: int) -> FloatArray:
        """Logits ``[count, S, A]`` of policies from nearly uniform to nearly deterministic."""
        rng = np.random.default_rng(seed)
        spread = 10.0 ** rng.uniform(-1.0, 2.0, size=(count, 1, 1))
        largest = _LOGARITHM / (2 * self.steps)
        drawn = rng.normal(size=(count, self.n_states, self.n_actions)) * spread
        return np.clip(drawn, -largest, largest)

    def alive(self, paths: Paths, leaves: tuple[str, ...], k: int) -> FloatArray:
        """``[B, M, ...]`` with k axes M: 1 where all k visits are before the end, else 0."""
        times = [t for t, _ in self.visits(leaves)]
        alive = (~paths.ended[:, times]).astype(np.float64)
        product = alive
        for _ in range(k - 1):
            product = product[..., None] * alive.reshape(len(alive), *(1,) * (product.ndim - 1), -1)
        return product

    def members(self, leaves: tuple[str, ...]) -> Iterator[IntArray]:
        """For each trajectory of a batch of two, the indices of its leaf entries."""
        for n in range(2):
            parts, begin = [], 0
            for leaf in leaves:
                size = self.steps * (1 if leaf == "log_probs" else self.n_actions)
                parts.append(begin + n * size + np.arange(size))
                begin += 2 * size
            yield np.concatenate(parts)
