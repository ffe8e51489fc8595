"""Reward chains: value prediction with a discount factor for each state, to be meta-learned.

States s_0, ..., s_{m-1} are passed from left to right, and s_j gives an independent reward r_j. The
value v(s_i) is learned from the target

    g(s_i) = sum_{j >= i} gamma_j^(j-i+1) r_j,

in which each reward has a power of the discount gamma_j of the state that gave it; the outer loss
compares values with the undiscounted return. Values are a table, and an inner step is a plain
gradient step of size alpha on the loss ``w/2 x mean of |g - v|^2`` over a batch:
``v <- v + alpha w (mean of g - v)``.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, App. B.1 and C.1 (there
with a network and Adam); the chain is that of Xu et al. 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import (
    FloatArray,
    finite_number,
    frozen_array,
    set_fields,
    whole_number,
)


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
        set_fields(self, means=means, deviations=deviations)

    @property
    def n_states(self) -> int:
        """The number of states m."""
        return len(self.means)

    @classmethod
    def alternating(cls, n_states: int = 10) -> RewardChain:
        """The paper's chain: the reward is 0.1 in even states and drawn from N(0, 1) in odd ones.
        Raises ValueError if n_states is no integer >= 1.
        """
        even = np.arange(whole_number("n_states", n_states, at_least=1)) % 2 == 0
        return cls(np.where(even, 0.1, 0.0), np.where(even, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class ChainLearner:
    """A learner of a reward chain's values.

    Attributes:
        chain: the chain of m states.
        discounts: gamma_j of each state, ``[m]``, any real numbers.
        values: v before the first step, ``[m]``, any real numbers.
        step_size: alpha > 0.
        loss_weight: w > 0, of inner and outer loss: 1 sums over the states, 1/m averages.
        batch_size: trajectories in each inner batch.
        outer_batch_size: trajectories in the outer loss's batch.

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
            set_fields(self, **{name: array})
        for name in ("step_size", "loss_weight"):
            number = finite_number(name, getattr(self, name))
            if number <= 0.0:
                raise ValueError(f"{name}: expected a number > 0, got {number}")
            set_fields(self, **{name: number})
        for name in ("batch_size", "outer_batch_size"):
            set_fields(self, **{name: whole_number(name, getattr(self, name), at_least=1)})

    @property
    def pace(self) -> float:
        """The fraction alpha w of the distance to the target that one step covers."""
        return self.step_size * self.loss_weight

    @property
    def contraction(self) -> float:
        """The number ``b = 1 - alpha w``: the derivative of an inner step in the values is b I."""
        return 1.0 - self.pace

    @property
    def _exponents(self) -> FloatArray:
        """``j - i + 1``, ``[m, m]``: the power of gamma_j that r_j has in the target of state i."""
        states = np.arange(self.chain.n_states)
        return np.asarray(states[None, :] - states[:, None] + 1.0)

    @property
    def target_weights(self) -> FloatArray:
        """The matrix ``W [m, m]`` for which the inner targets are ``W r``."""
        return np.triu(self.discounts ** np.maximum(self._exponents, 0.0))

    @property
    def target_slopes(self) -> FloatArray:
        """The derivative of W's column k in gamma_k, the only nonzero one, as column k."""
        exponents = np.maximum(self._exponents, 1.0)
        return np.triu(exponents * self.discounts ** (exponents - 1.0))

    @property
    def outer_weights(self) -> FloatArray:
        """The matrix ``[m, m]`` that turns rewards into outer targets (undiscounted returns)."""
        return np.triu(np.ones((self.chain.n_states, self.chain.n_states)))
