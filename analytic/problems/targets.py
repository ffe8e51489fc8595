"""Targets: what an estimator should have as its mean.

The same estimator is biased for one target and unbiased for another, so a verdict names its target.
A `Target` only *names* it: `analytic.returns.target_values.evaluate_target` computes the value of
one that has a closed form. A `GivenTarget` carries a value that the caller derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, frozen_array, set_fields, whole_number


@dataclass(frozen=True)
class FiniteHorizon:
    """The sum of the discounted rewards at t = 0..steps-1."""

    steps: int

    def __post_init__(self) -> None:
        whole_number("horizon", self.steps, at_least=1)

    def __str__(self) -> str:
        return f"{self.steps}-step return"


@dataclass(frozen=True)
class InfiniteHorizon:
    """The sum of all discounted rewards."""

    def __str__(self) -> str:
        return "infinite-horizon discounted return"


@dataclass(frozen=True)
class BootstrappedHorizon:
    """The discounted rewards at t = 0..steps-1, plus ``gamma^steps values[s_steps]``; ``values``
    has one number for each state and is held fixed in derivatives.
    """

    steps: int
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        whole_number("horizon", self.steps, at_least=1)

    def __str__(self) -> str:
        return f"{self.steps}-step return bootstrapped with given values"


Horizon = FiniteHorizon | InfiniteHorizon | BootstrappedHorizon


@dataclass(frozen=True)
class Discounted:
    """Step t has the weight gamma^t, as the derivative of the return requires."""

    def step_weights(self, discount: float, steps: int) -> FloatArray:
        """The weights gamma^t.

        Args:
            discount: gamma.
            steps: the number of weights.

        Returns:
            ``[steps]``.
        """
        return np.asarray(discount ** np.arange(steps, dtype=np.float64))

    def __str__(self) -> str:
        return "discounted state weighting"


@dataclass(frozen=True)
class Undiscounted:
    """Every step has the weight 1, as in most code: in general the gradient of no function."""

    def step_weights(self, discount: float, steps: int) -> FloatArray:
        """Ones, whatever the discount.

        Args:
            discount: gamma.
            steps: the number of weights.

        Returns:
            ``[steps]``.
        """
        return np.ones(steps)

    def __str__(self) -> str:
        return "undiscounted state weighting"


@dataclass(frozen=True)
class GivenWeights:
    """Step t has the weight ``weights[t]``."""

    weights: tuple[float, ...]

    def step_weights(self, discount: float, steps: int) -> FloatArray:
        """The given weights. Raises ValueError unless their number is ``steps``.

        Args:
            discount: gamma, which is not used.
            steps: the number of weights.

        Returns:
            ``[steps]``.
        """
        if len(self.weights) != steps:
            raise ValueError(f"state weighting: expected {steps} weights, got {len(self.weights)}")
        return frozen_array("state weighting", self.weights, (steps,))

    def __str__(self) -> str:
        return "given state weighting"


StateWeighting = Discounted | Undiscounted | GivenWeights
DISCOUNTED = Discounted()


@dataclass(frozen=True)
class InnerLoop:
    """The inner loop after which the outer objective is taken.

    Attributes:
        steps: the number of inner steps (None: up to the end of training).
        batch_size: N, the trajectories that each step is sampled from, as in E-MAML's objective
            (None: expected steps).
        optimiser: the name of the rule that takes the steps.
    """

    steps: int | None
    batch_size: int | None = None
    optimiser: str = "gradient ascent"

    def __str__(self) -> str:
        kind = "expected" if self.batch_size is None else f"{self.batch_size}-sample"
        count = "all" if self.steps is None else str(self.steps)
        return f"after {count} {kind} inner steps of {self.optimiser}"


class Kind(Enum):
    """Whether the target is a derivative of an objective, or an update that need not be one."""

    DERIVATIVE = "derivative"
    UPDATE_FIELD = "update field"


POLICY_PARAMETERS = "the policy's parameters"
_ORDER_NAMES = {1: "gradient", 2: "Hessian", 3: "third derivative"}


@dataclass(frozen=True)
class Target:
    """A derivative of a return, or an update field.

    Attributes:
        order: 1 for the gradient, 2 for the Hessian, and so on.
        horizon: which return.
        weighting: the weight of each step; a derivative's is `Discounted`.
        with_respect_to: the variable, in words.
        inner: the inner loop after which the return is taken (None: there is none).
        regulariser: a term added to the return, in words.
        kind: a derivative or an update field.

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
    """A target whose value the caller derived.

    Attributes:
        description: the words that name it in reports.
        value: shaped like the estimate: theta's axes, ``order`` times.
        order: 1 for a gradient, 2 for a Hessian, and so on.
    """

    description: str
    value: FloatArray
    order: int = 1

    def __post_init__(self) -> None:
        whole_number("order", self.order, at_least=1)
        set_fields(self, value=frozen_array("target value", self.value))

    def __str__(self) -> str:
        return self.description


@dataclass(frozen=True)
class ZeroTarget:
    """The target 0, for estimators that should do nothing on average, such as a baseline.

    Attributes:
        order: 1 for a gradient, 2 for a Hessian, and so on.
    """

    order: int

    def __post_init__(self) -> None:
        whole_number("order", self.order, at_least=1)

    def __str__(self) -> str:
        return f"zero, as the {_ORDER_NAMES.get(self.order, f'order-{self.order} derivative')}"


AnyTarget = Target | GivenTarget | ZeroTarget


def zero(order: int = 1) -> ZeroTarget:
    """The target 0, for estimators that should do nothing on average: baselines, control variates,
    a KL penalty's estimate at the reference policy.

    Args:
        order: 1 for the gradient, 2 for the Hessian, and so on.

    Returns:
        The target; its value has theta's axes ``order`` times, ``[S, A]`` for a tabular gradient.

    Raises:
        ValueError: an order below 1.

    Source: Weaver and Tao 2001 (a baseline's gradient has mean 0).

    >>> print(zero())
    zero, as the gradient
    """
    return ZeroTarget(order)


def return_derivative(order: int, *, horizon: int | None) -> Target:
    """The target that is a derivative of the return in the policy's parameters.

    Args:
        order: 1 for the gradient, 2 for the Hessian, and so on.
        horizon: H, in steps (None: the infinite discounted return).

    Returns:
        The target; its value has theta's axes ``order`` times, ``[S, A]`` for a tabular gradient.

    Raises:
        ValueError: an order or a horizon below 1.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Sec. 3.

    >>> print(return_derivative(1, horizon=None))
    the gradient of the infinite-horizon discounted return, discounted state weighting
    """
    return Target(order, InfiniteHorizon() if horizon is None else FiniteHorizon(horizon))


def bootstrapped_gradient(steps: int, values: npt.ArrayLike) -> Target:
    """The target that is the gradient of a return bootstrapped with fixed values.

    Args:
        steps: H, the number of rewards before the bootstrap.
        values: ``[S]``; gamma^H values[s_H] is added to the return and held fixed.

    Returns:
        The target; its value is shaped like theta.

    Raises:
        ValueError: steps below 1, or values that are not finite numbers ``[S]``.

    Source: Sutton and Barto 2018, ch. 7 (n-step returns).

    >>> print(bootstrapped_gradient(3, [0.0, 1.0]))
    the gradient of the 3-step return bootstrapped with given values, discounted state weighting
    """
    array = frozen_array("values", values, (None,))
    return Target(1, BootstrappedHorizon(steps, tuple(np.asarray(array).tolist())))


def update_field(*, horizon: int, weighting: StateWeighting | None = None) -> Target:
    """The target that is the policy-gradient update with other weights than gamma^t.

    Args:
        horizon: H, in steps.
        weighting: the weight of each step (default: undiscounted).

    Returns:
        The target; its value is shaped like theta, ``[S, A]`` for a tabular policy.

    Raises:
        ValueError: a horizon below 1.

    Source: Nota and Thomas 2020, *Is the Policy Gradient a Gradient?*

    >>> print(update_field(horizon=3))
    the policy-gradient update field of the 3-step return, undiscounted state weighting
    """
    return Target(
        1,
        FiniteHorizon(horizon),
        weighting=Undiscounted() if weighting is None else weighting,
        kind=Kind.UPDATE_FIELD,
    )
