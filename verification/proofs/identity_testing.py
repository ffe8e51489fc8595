"""Zero bias at one random point certifies an identity (Schwartz and Zippel).

The bias is a polynomial in the free coordinates of policy, transition law, start, rewards, discount
and critic. One that is not 0 vanishes at a point drawn uniformly from n^k points with a probability
of at most its degree over n. So the bias, evaluated exactly in fractions at such a point, decides
for shapes whose polynomials are far too large to write down.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gradbias.analytic.utils.validation import whole_number
from gradbias.stochastic.estimators.exact_coefficients import ExactCoefficients
from gradbias.stochastic.estimators.kinds import Estimator, SurrogateEstimator
from gradbias.verification.evidence.reports import counted
from gradbias.verification.proofs.exact_problems import (
    ExactProblem,
    check_critic,
    checked_shape,
)
from gradbias.verification.proofs.expectation import additions, mean_derivative
from gradbias.verification.proofs.prove import check_rounding, checked_surrogate, coefficients_of
from gradbias.verification.proofs.random_points import random_problem, with_symbolic_policy
from gradbias.verification.proofs.results import evaluated_array
from gradbias.verification.proofs.scores import Array, return_derivatives

SIZE = 2**60
"""Numbers that each coordinate is drawn from."""


MOST_ADDITIONS = 20_000_000
"""Of a certificate: minutes."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """What random points say of an estimator on all problems of a shape.

    ``unbiased``: the bias was exactly 0 at ``points`` points; were it not 0 everywhere, that would
    have had at most the ``probability``. Otherwise ``problem`` is one at which it is not 0, with
    the components of the bias that are not (by flat parameters), which leaves no doubt.
    """

    estimator: str
    shape: tuple[int, int, int]
    order: int
    critic: str
    unbiased: bool
    degree: int
    points: int
    probability: float
    assumption: str
    trajectories: int
    seconds: float
    problem: ExactProblem | None
    components: Mapping[tuple[int, ...], Fraction]

    def __str__(self) -> str:
        n_states, n_actions, steps = self.shape
        where = (
            f"{counted(n_states, 'state')}, {n_actions} actions, {counted(steps, 'step')}, "
            f"order {self.order}, "
            f"rewards r_t(s, a, s'), no terminal states, {self.critic} critic, N = 1"
        )
        if not self.unbiased:
            return f"{self.estimator}: biased, {where}: not 0 at a random point"
        return (
            f"{self.estimator}: unbiased, {where}: exactly 0 at {self.points} random points; were "
            f"it not 0 everywhere, a probability of at most {self.probability:.1e} (degree "
            f"{self.degree}); assumption: {self.assumption}"
        )


def certify(
    estimator: Estimator,
    shape: tuple[int, int, int],
    *,
    critic: str = "zero",
    points: int = 1,
    rng: np.random.Generator | None = None,
) -> Certificate:
    """Is a surrogate's derivative unbiased for the return's, on every problem of a shape?

    Problems are those of `prove_unbiased`, with rewards ``r_t(s, a, s')`` that depend on time and
    the next state. Points are drawn with ``rng``, by default seeded 0.

    Raises:
        ValueError: as `prove_unbiased`.

    >>> from gradbias.stochastic.estimators.kinds import from_surrogate
    >>> from gradbias.stochastic.surrogates.dice import dice
    >>> found = certify(from_surrogate(dice, 2), (2, 2, 3))
    >>> found.unbiased, found.probability < 1e-15
    (True, True)
    """
    began = time.perf_counter()
    check_critic(critic)
    sizes = checked_shape(shape)
    own = checked_surrogate(estimator)
    whole_number("points", points, at_least=1)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy Generator, got {type(rng).__name__}")
    rng = np.random.default_rng(0) if rng is None else rng
    problem = random_problem(sizes, critic, SIZE, rng)
    found = coefficients_of(own, problem)
    if (count := additions(problem, found)) > MOST_ADDITIONS:
        raise ValueError(
            f"shape: expected at most {MOST_ADDITIONS:,} additions of fractions, got {count:,} of "
            f"{own.name} and {sizes}; use fewer steps, or `measure_bias` at a problem of yours"
        )
    left = _exact_bias(own, problem, found)
    for _ in range(points - 1):
        if not left:
            problem = random_problem(sizes, critic, SIZE, rng)
            left = _exact_bias(own, problem, found)
    degree = bias_degree(sizes, own.order, found.degree, critic)
    return Certificate(
        estimator=own.name,
        shape=sizes,
        order=own.order,
        critic=critic,
        unbiased=not left,
        degree=degree,
        points=points,
        probability=0.0 if left else (degree / SIZE) ** points,
        assumption=found.assumption,
        trajectories=len(problem.paths.actions),
        seconds=time.perf_counter() - began,
        problem=problem if left else None,
        components=left,
    )


def _exact_bias(
    estimator: SurrogateEstimator, problem: ExactProblem, found: ExactCoefficients
) -> Array:
    """The components of the bias that are not 0, at a problem and policy in fractions."""
    mean = mean_derivative(problem, found)
    symbolic = with_symbolic_policy(problem)
    point = [p for row in problem.policy for p in row[:-1]]
    exact = evaluated_array(return_derivatives(symbolic, found.order), point)
    bias = {key: value - exact[key] for key, value in mean.items() if value != exact[key]}
    check_rounding(estimator, found, bias, mean)
    return bias


def bias_degree(shape: tuple[int, int, int], order: int, in_discount: int, critic: str) -> int:
    """A bound on the bias's total degree in all free coordinates.

    A trajectory has H actions, H transitions and a start; each derivative brings one more
    probability; coefficients are affine in rewards and critic. The policy's own values have H - 1
    transitions and powers of the discount, H actions and a reward of their own.
    """
    steps = shape[2]
    degree = (steps + order) + steps + 1 + 1 + max(in_discount, steps)
    return degree + (3 * steps - 2 if critic == "exact" else 0)
