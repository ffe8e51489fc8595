"""Reward chains: value prediction with a discount factor for each state, to be meta-learned.

States s_0, ..., s_{m-1} are passed from left to right, and s_j pays an independent reward r_j. The
value of s_i is learned from the target

    g(s_i) = sum_{j >= i} gamma_j^(j-i+1) r_j,

each reward with a power of its *own* state's factor, and judged by the undiscounted return. Values
are a table, and an inner step is a plain gradient step on ``w/2 x mean of |g - v|^2`` over a batch:
``v <- v + alpha w (mean of g - v)``.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, App. B.1 and C.1 (there
with a network and Adam); the chain is that of Xu et al. 2018.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, frozen_array, real_number, whole_number

_ANY = sys.float_info.max


@dataclass(frozen=True, eq=False)
class RewardChain:
    """Independent Gaussian rewards of ``means [m]`` and standard ``deviations [m]``, one a state.

    Source: *One Step at a Time*, App. B.1.

    Raises:
        ValueError: no state, shapes that differ, numbers that are not finite, or a negative
            deviation.

    >>> RewardChain.alternating(4).means.tolist()
    [0.1, 0.0, 0.1, 0.0]
    """

    means: FloatArray
    deviations: FloatArray

    def __post_init__(self) -> None:
        means = frozen_array("means", self.means, (None,))
        deviations = frozen_array("deviations", self.deviations, means.shape)
        if means.size == 0:
            raise ValueError("means: expected at least one state, got none")
        if (deviations < 0.0).any():
            worst = int(deviations.argmin())
            raise ValueError(
                f"deviations: expected numbers >= 0, got {deviations[worst]} at index {worst}"
            )
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "deviations", deviations)

    @property
    def n_states(self) -> int:
        """How many states there are, m."""
        return len(self.means)

    @classmethod
    def alternating(cls, n_states: int = 10) -> RewardChain:
        """The paper's chain: even states pay 0.1, odd ones N(0, 1).

        Raises:
            ValueError: n_states is no whole number >= 1.
        """
        even = np.arange(whole_number("n_states", n_states, at_least=1)) % 2 == 0
        return cls(np.where(even, 0.1, 0.0), np.where(even, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class ChainLearner:
    """Who learns the values of ``chain``: from ``values [m]``, with ``discounts [m]``, both any
    real numbers, in steps of ``step_size`` on batches of ``batch_size`` trajectories.

    The outer loss is taken on ``outer_batch_size``. ``loss_weight`` is w: 1 for a loss that sums
    over the states, 1/m for their mean; inner and outer loss share it.

    Source: *One Step at a Time*, eq. (5) and App. C.1.

    Raises:
        ValueError: shapes that do not fit the chain, counts < 1, or a step size or weight <= 0.

    >>> learner = ChainLearner(RewardChain.alternating(3), [0.5, 0.5, 0.5], [0.0, 0.0, 0.0])
    >>> learner.target_weights.tolist()
    [[0.5, 0.25, 0.125], [0.0, 0.5, 0.25], [0.0, 0.0, 0.5]]
    """

    chain: RewardChain
    discounts: FloatArray
    values: FloatArray
    step_size: float = 1.0
    loss_weight: float = 0.1
    batch_size: int = 32
    outer_batch_size: int = 32

    def __post_init__(self) -> None:
        if not isinstance(self.chain, RewardChain):
            raise ValueError(f"chain: expected a RewardChain, got {type(self.chain).__name__}")
        for name in ("discounts", "values"):
            array = frozen_array(name, getattr(self, name), (self.chain.n_states,))
            object.__setattr__(self, name, array)
        for name in ("step_size", "loss_weight"):
            number = real_number(name, getattr(self, name), low=-_ANY, high=_ANY)
            if number <= 0.0:
                raise ValueError(f"{name}: expected a number > 0, got {number}")
            object.__setattr__(self, name, number)
        for name in ("batch_size", "outer_batch_size"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), at_least=1))

    @property
    def pace(self) -> float:
        """The share of the way to the target that one step goes, alpha w."""
        return self.step_size * self.loss_weight

    @property
    def contraction(self) -> float:
        """How much of the values an inner step keeps, b = 1 - alpha w: its derivative is b I."""
        return 1.0 - self.pace

    @property
    def _ahead(self) -> FloatArray:
        """``j - i + 1``, ``[m, m]``: how many factors reward j has in the target of state i."""
        states = np.arange(self.chain.n_states)
        return np.asarray(states[None, :] - states[:, None] + 1.0)

    @property
    def target_weights(self) -> FloatArray:
        """``W [m, m]``: the inner targets are W r."""
        ahead = np.maximum(self._ahead, 0.0)
        return np.triu(self.discounts**ahead)

    @property
    def target_slopes(self) -> FloatArray:
        """``[m, m]``, in column k the derivative of W's column k in gamma_k, the only one that
        moves with it.
        """
        ahead = np.maximum(self._ahead, 1.0)
        return np.triu(ahead * self.discounts ** (ahead - 1.0))

    @property
    def outer_weights(self) -> FloatArray:
        """``[m, m]``: the outer targets, undiscounted returns, are this times the rewards."""
        return np.triu(np.ones((self.chain.n_states, self.chain.n_states)))
