"""Zero bias at one random point certifies an identity (Schwartz and Zippel).

The bias is a polynomial in the free coordinates of policy, transition law, start, rewards, discount
and critic. One that is not 0 vanishes at a point drawn uniformly from n^k points with a probability
of at most its degree over n. So the bias, evaluated exactly in fractions at such a point, decides
for shapes whose polynomials are far too large to write down.

A random problem and policy in fractions, and the same with its policy in symbols.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.symbolic.policy_rings import PolicyRing, PolicySymbols
from gradbias.analytic.utils.validation import whole_number
from gradbias.stochastic.estimators.exact_coefficients import ExactCoefficients
from gradbias.stochastic.estimators.kinds import Estimator, SurrogateEstimator
from gradbias.verification.evidence.reports import counted
from gradbias.verification.proofs.exact_problems import (
    ExactProblem,
    SymbolicProblem,
    check_critic,
    checked_shape,
)
from gradbias.verification.proofs.expectation import additions, mean_derivative
from gradbias.verification.proofs.prove import check_rounding, checked_surrogate, coefficients_of
from gradbias.verification.proofs.results import evaluated_array
from gradbias.verification.proofs.scores import Array, return_derivatives

SIZE = 2**60
"""Numbers that each coordinate is drawn from."""


MAX_ADDITIONS = 20_000_000
"""Of a certificate: minutes."""


@dataclass(frozen=True, eq=False)
class IdentityTest:
    """What random points say of an estimator on all problems of a shape.

    ``unbiased``: the bias was exactly 0 at ``points`` points; were it not 0 everywhere, that would
    have had at most the ``probability``. Otherwise ``problem`` is one at which it is not 0, with
    the components of the bias that are not (by flat parameters), which leaves no doubt.
    """

    estimator: str
    shape: tuple[int, int, int]
    order: int
    critic_kind: str
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
            f"rewards r_t(s, a, s'), no terminal states, {self.critic_kind} critic, N = 1"
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
    critic_kind: str = "zero",
    points: int = 1,
    rng: np.random.Generator | None = None,
) -> IdentityTest:
    """Is a surrogate's derivative unbiased for the return's, on every problem of a shape?

    Problems are those of `prove_unbiased`, with rewards ``r_t(s, a, s')`` that depend on time and
    the next state. Points are drawn with ``rng``, by default seeded 0.

    Raises:
        ValueError: as `prove_unbiased`.

    >>> from gradbias.stochastic import dice, from_surrogate
    >>> found = certify(from_surrogate(dice, order=2), (2, 2, 3))
    >>> found.unbiased, found.probability < 1e-15
    (True, True)
    """
    began = time.perf_counter()
    check_critic(critic_kind)
    sizes = checked_shape(shape)
    own = checked_surrogate(estimator)
    whole_number("points", points, at_least=1)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy Generator, got {type(rng).__name__}")
    rng = np.random.default_rng(0) if rng is None else rng
    problem = random_problem(sizes, critic_kind, SIZE, rng)
    found = coefficients_of(own, problem)
    if (count := additions(problem, found)) > MAX_ADDITIONS:
        raise ValueError(
            f"shape: expected at most {MAX_ADDITIONS:,} additions of fractions, got {count:,} of "
            f"{own.name} and {sizes}; use fewer steps, or `measure_bias` at a problem of yours"
        )
    left = _exact_bias(own, problem, found)
    for _ in range(points - 1):
        if not left:
            problem = random_problem(sizes, critic_kind, SIZE, rng)
            left = _exact_bias(own, problem, found)
    degree = bias_degree(sizes, own.order, found.degree, critic_kind)
    return IdentityTest(
        estimator=own.name,
        shape=sizes,
        order=own.order,
        critic_kind=critic_kind,
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


def random_problem(
    shape: tuple[int, int, int], critic: str, size: int, rng: np.random.Generator
) -> ExactProblem:
    """One of that shape, in fractions: every free coordinate is drawn uniformly from ``size``
    numbers. Probabilities are positive, rewards are ``r_t(s, a, s')``.
    """
    n_states, n_actions, steps = shape

    def row(count: int) -> list[Fraction]:
        free = [
            Fraction(int(rng.integers(1, size + 1)), (size + 1) * count) for _ in range(count - 1)
        ]
        return [*free, 1 - sum(free, Fraction(0))]

    def numbers(*counts: int) -> Any:
        if not counts:
            return Fraction(int(rng.integers(1, size + 1)) - size // 2)
        return [numbers(*counts[1:]) for _ in range(counts[0])]

    problem = ExactProblem(
        policy=[row(n_actions) for _ in range(n_states)],
        transition=[[row(n_states) for _ in range(n_actions)] for _ in range(n_states)],
        start=row(n_states),
        rewards=numbers(steps, n_states, n_actions, n_states),
        discount=Fraction(int(rng.integers(1, size + 1)), size),
        critic=None,
        ended=(False,) * n_states,
        zero=Fraction(0),
        one=Fraction(1),
    )
    return problem.with_critic(critic, numbers(steps + 1, n_states))


def with_symbolic_policy(problem: ExactProblem) -> SymbolicProblem:
    """A problem in fractions with its policy in symbols."""
    n_states, n_actions, _ = problem.shape
    ring = PolicyRing((PolicySymbols.of(TABULAR, n_states, n_actions),))

    def lifted(value: Any) -> Any:
        if isinstance(value, Fraction):
            number = ring.rational.domain(value.numerator, value.denominator)
            return ring.rational.ground_new(number)
        return [lifted(part) for part in value]

    found = replace(
        problem,
        policy=ring.policies[0],
        transition=lifted(problem.transition),
        start=lifted(problem.start),
        rewards=lifted(problem.rewards),
        discount=lifted(problem.discount),
        critic=lifted(problem.critic),
        zero=ring.rational.zero,
        one=ring.rational.one,
    )
    return SymbolicProblem(ring, found, "every policy, at one problem")
