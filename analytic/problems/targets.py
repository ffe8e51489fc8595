"""What is being estimated, as plain records.

The same estimator is biased for one target and unbiased for another, so a verdict names its target.
These records only *say* what the target is; `analytic.returns.derivatives.evaluate_target` computes
those that have a closed form here, and a `GivenTarget` carries a value that the caller derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array, whole_number


@dataclass(frozen=True)
class FiniteHorizon:
    """Rewards at t = 0..steps-1."""

    steps: int

    def __post_init__(self) -> None:
        whole_number("horizon", self.steps, at_least=1)

    def __str__(self) -> str:
        return f"{self.steps}-step return"


@dataclass(frozen=True)
class InfiniteHorizon:
    """All rewards, discounted."""

    def __str__(self) -> str:
        return "infinite-horizon discounted return"


@dataclass(frozen=True)
class BootstrappedHorizon:
    """Rewards at t = 0..steps-1, then ``values[s_H]`` (held fixed), one value a state."""

    steps: int
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        whole_number("horizon", self.steps, at_least=1)

    def __str__(self) -> str:
        return f"{self.steps}-step return bootstrapped with given values"


Horizon = FiniteHorizon | InfiniteHorizon | BootstrappedHorizon


@dataclass(frozen=True)
class Discounted:
    """State s_t counts gamma^t, as the derivative of the return requires."""

    def step_weights(self, discount: float, steps: int) -> FloatArray:
        """``[steps]``: gamma^t."""
        powers: FloatArray = discount ** np.arange(steps, dtype=np.float64)
        return powers

    def __str__(self) -> str:
        return "discounted state weighting"


@dataclass(frozen=True)
class Undiscounted:
    """Every step counts 1, as in most code (the gamma^t dropped): in general no gradient."""

    def step_weights(self, discount: float, steps: int) -> FloatArray:
        """``[steps]``: ones, whatever the discount."""
        return np.ones(steps)

    def __str__(self) -> str:
        return "undiscounted state weighting"


@dataclass(frozen=True)
class GivenWeights:
    """Step t counts ``weights[t]``."""

    weights: tuple[float, ...]

    def step_weights(self, discount: float, steps: int) -> FloatArray:
        """``[steps]``. Raises ValueError if as many are not given."""
        if len(self.weights) != steps:
            raise ValueError(f"state weighting: expected {steps} weights, got {len(self.weights)}")
        return frozen_array("state weighting", self.weights, (steps,))

    def __str__(self) -> str:
        return "given state weighting"


StateWeighting = Discounted | Undiscounted | GivenWeights
DISCOUNTED = Discounted()


@dataclass(frozen=True)
class InnerLoop:
    """The inner steps that the outer objective is taken after.

    ``batch_size=None`` are expected steps, an int N steps from N sampled trajectories each
    (E-MAML's objective). ``steps=None`` unrolls to the end of training.
    """

    steps: int | None
    batch_size: int | None = None
    optimiser: str = "gradient ascent"

    def __str__(self) -> str:
        kind = "expected" if self.batch_size is None else f"{self.batch_size}-sample"
        count = "all" if self.steps is None else str(self.steps)
        return f"after {count} {kind} inner steps of {self.optimiser}"


class Kind(Enum):
    """Whether the target is a derivative of an objective, or merely a field that is followed."""

    DERIVATIVE = "derivative"
    UPDATE_FIELD = "update field"


POLICY_PARAMETERS = "the policy's parameters"
_ORDER_NAMES = {1: "gradient", 2: "Hessian", 3: "third derivative"}


@dataclass(frozen=True)
class Target:
    """A derivative of a return (or an update field), spelled out.

    Raises:
        ValueError: order below 1, or a derivative with a weighting that makes it none.

    >>> print(return_derivative(2, horizon=6))
    the Hessian of the 6-step return, discounted state weighting
    """

    order: int
    horizon: Horizon
    weighting: StateWeighting = DISCOUNTED
    with_respect_to: str = POLICY_PARAMETERS
    inner: InnerLoop | None = None
    regulariser: str | None = None
    kind: Kind = Kind.DERIVATIVE

    def __post_init__(self) -> None:
        whole_number("order", self.order, at_least=1)
        if self.kind is Kind.DERIVATIVE and not isinstance(self.weighting, Discounted):
            raise ValueError(
                f"kind: {self.weighting} makes no derivative of a return; expected an update field"
            )

    def __str__(self) -> str:
        if self.kind is Kind.UPDATE_FIELD:
            name = "the policy-gradient update field"
        else:
            name = f"the {_ORDER_NAMES.get(self.order, f'order-{self.order} derivative')}"
        text = f"{name} of the {self.horizon}, {self.weighting}"
        if self.with_respect_to != POLICY_PARAMETERS:
            text += f", with respect to {self.with_respect_to}"
        if self.inner is not None:
            text += f", {self.inner}"
        if self.regulariser is not None:
            text += f", regularised by {self.regulariser}"
        return text


@dataclass(frozen=True, eq=False)
class GivenTarget:
    """A target whose value the caller derived, with the words that name it.

    ``value`` has the shape of the estimate: theta's axes, ``order`` times.
    """

    description: str
    value: FloatArray
    order: int = 1

    def __post_init__(self) -> None:
        whole_number("order", self.order, at_least=1)
        object.__setattr__(self, "value", frozen_array("target value", self.value))

    def __str__(self) -> str:
        return self.description


AnyTarget = Target | GivenTarget


def return_derivative(order: int, *, horizon: int | None) -> Target:
    """The derivative of that order of the H-step return (None: of the infinite discounted one); its
    value has theta's axes ``order`` times, ``[S, A]`` for a tabular gradient.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3.

    Raises:
        ValueError: an order or a horizon below 1.

    >>> print(return_derivative(1, horizon=None))
    the gradient of the infinite-horizon discounted return, discounted state weighting
    """
    return Target(order, InfiniteHorizon() if horizon is None else FiniteHorizon(horizon))


def bootstrapped_gradient(steps: int, values: npt.ArrayLike) -> Target:
    """The gradient of the ``steps``-step return plus gamma^H E[values[s_H]], values ``[S]``.

    Source: Sutton and Barto 2018, ch. 7 (n-step returns).

    Raises:
        ValueError: steps below 1, or values that are not finite numbers ``[S]``.

    >>> print(bootstrapped_gradient(3, [0.0, 1.0]))
    the gradient of the 3-step return bootstrapped with given values, discounted state weighting
    """
    array = frozen_array("values", values, (None,))
    return Target(1, BootstrappedHorizon(steps, tuple(np.asarray(array).tolist())))


def update_field(*, horizon: int, weighting: StateWeighting | None = None) -> Target:
    """The policy-gradient update, ``[S, A]`` for a tabular policy, with another state weighting
    (default: undiscounted).

    Source: Nota and Thomas 2020, *Is the Policy Gradient a Gradient?*

    Raises:
        ValueError: a horizon below 1.

    >>> print(update_field(horizon=3))
    the policy-gradient update field of the 3-step return, undiscounted state weighting
    """
    return Target(
        1,
        FiniteHorizon(horizon),
        weighting=Undiscounted() if weighting is None else weighting,
        kind=Kind.UPDATE_FIELD,
    )
