"""`certify`: is a surrogate unbiased on all problems of a shape? A polynomial identity test.

The bias is a polynomial in the free coordinates of policy, transition law, initial distribution,
rewards, discount and critic. A polynomial of degree d that is not 0 vanishes with probability at
most d / n at a point whose coordinates are drawn uniformly from n numbers each (Schwartz and
Zippel). The bias is therefore evaluated in fractions, without rounding, at random points: where it
is 0, it is 0 everywhere, up to that probability. This decides for shapes whose polynomials are far
too large to write down.

Source: Schwartz 1980 (Fast probabilistic algorithms for verification of polynomial identities);
Zippel 1979 (Probabilistic algorithms for sparse polynomials).
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
from gradbias.analytic.utils.validation import choice, whole_number
from gradbias.stochastic.estimators.exact_coefficients import ExactCoefficients
from gradbias.stochastic.estimators.kinds import Estimator, SurrogateEstimator
from gradbias.verification.evidence.reports import Verdict, counted
from gradbias.verification.proofs.exact_problems import (
    CriticKind,
    ExactProblem,
    SymbolicProblem,
    checked_shape,
)
from gradbias.verification.proofs.expectation import additions, mean_derivative
from gradbias.verification.proofs.prove import check_rounding, checked_surrogate, coefficients_of
from gradbias.verification.proofs.results import ExactResult, evaluated
from gradbias.verification.proofs.scores import Array, return_derivatives
from gradbias.verification.proofs.symbolic_problems import every_problem

SIZE = 2**60
"""n, the number of values that each coordinate is drawn from."""

MAX_ADDITIONS = 20_000_000
"""The largest number of additions of fractions at one point: minutes."""


@dataclass(frozen=True, eq=False)
class IdentityTest(ExactResult):
    """The result of `certify`: was the bias 0 at random points?

    Attributes:
        estimator, shape, order, holds_for, covered, trajectories, seconds: as in `Proof`.
        critic_kind: the kind of critic that the estimator read.
        degree: d, an upper bound of the bias's degree as a polynomial.
        points: the number of random points asked for.
        probability: an upper bound of the probability that the bias is 0 at all of them without
            being 0 everywhere; 0.0 if it was not 0.
        problem: the problem and policy at which the bias is not 0 (None: there was none).
        components: the components of the bias that are not 0 there, by flat parameters (state x A
            + action).
    """

    critic_kind: CriticKind
    degree: int
    points: int
    probability: float
    problem: ExactProblem | None
    components: Mapping[tuple[int, ...], Fraction]

    @property
    def verdict(self) -> Verdict:
        """UNBIASED, which is wrong with at most the `probability`, or BIASED, which is certain."""
        return Verdict.BIASED if self.components else Verdict.UNBIASED

    def __str__(self) -> str:
        if self.components:
            return self._text("biased", "test        the bias is not 0 at a random point")
        return self._text(
            "unbiased",
            f"test        the bias is exactly 0 at {counted(self.points, 'random point')}; if it "
            f"were not 0 everywhere, the probability of that would be at most "
            f"{self.probability:.1e} (degree {self.degree})",
        )


def certify(
    estimator: Estimator,
    shape: tuple[int, int, int],
    *,
    critic_kind: str | CriticKind = CriticKind.ZERO,
    points: int = 1,
    rng: np.random.Generator | None = None,
) -> IdentityTest:
    """Is a surrogate's derivative unbiased for the return's, on every problem of a shape?

    The problems are those of `prove_unbiased`, with rewards ``r_t(s, a, s')`` that may depend on
    time and the next state.

    Args:
        estimator: made by `from_surrogate`; its order, 1 to 3, is that of the derivative.
        shape: (states, actions, steps).
        critic_kind: a `CriticKind` or its value, as in `prove_unbiased`.
        points: the number of random points.
        rng: draws the points (default: a generator with seed 0).

    Returns:
        An `IdentityTest`: its verdict, and the probability that UNBIASED is wrong.

    Raises:
        ValueError: an estimator or a shape that `prove_unbiased` refuses, or more than
            `MAX_ADDITIONS` additions.

    >>> from gradbias.stochastic import dice, from_surrogate
    >>> test = certify(from_surrogate(dice, order=2), (2, 2, 3))
    >>> test.verdict, test.probability < 1e-15
    (<Verdict.UNBIASED: 'UNBIASED'>, True)
    """
    began = time.perf_counter()
    kind = choice("critic_kind", critic_kind, CriticKind)
    sizes = checked_shape(shape)
    surrogate = checked_surrogate(estimator)
    whole_number("points", points, at_least=1)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy Generator, got {type(rng).__name__}")
    rng = np.random.default_rng(0) if rng is None else rng
    problem = _random_problem(sizes, kind, rng)
    coefficients = coefficients_of(surrogate, problem)
    if (count := additions(problem, coefficients)) > MAX_ADDITIONS:
        raise ValueError(
            f"shape: expected at most {MAX_ADDITIONS:,} additions of fractions, got {count:,} for "
            f"{surrogate.name} and {sizes}; use fewer steps, or `measure_bias` at one problem"
        )
    bias = _exact_bias(surrogate, problem, coefficients)
    for _ in range(points - 1):
        if not bias:
            problem = _random_problem(sizes, kind, rng)
            bias = _exact_bias(surrogate, problem, coefficients)
    degree = bias_degree(sizes, surrogate.order, coefficients.degree, kind)
    return IdentityTest(
        estimator=surrogate.name,
        shape=sizes,
        order=surrogate.order,
        holds_for=every_problem("r_t(s, a, s')", kind),
        critic_kind=kind,
        degree=degree,
        points=points,
        probability=0.0 if bias else (degree / SIZE) ** points,
        covered=coefficients.covered,
        trajectories=len(problem.paths.actions),
        seconds=time.perf_counter() - began,
        problem=problem if bias else None,
        components=bias,
    )


def _random_problem(
    shape: tuple[int, int, int], kind: CriticKind, rng: np.random.Generator
) -> ExactProblem:
    """A random point: a problem, a policy and a critic in fractions, with every free coordinate
    drawn uniformly from `SIZE` numbers. Probabilities are positive, rewards are ``r_t(s, a, s')``.
    """
    n_states, n_actions, steps = shape

    def drawn() -> int:
        return int(rng.integers(1, SIZE + 1))

    def distribution(count: int) -> list[Fraction]:
        free = [Fraction(drawn(), (SIZE + 1) * count) for _ in range(count - 1)]
        return [*free, 1 - sum(free, Fraction(0))]

    def numbers(*counts: int) -> Any:
        if not counts:
            return Fraction(drawn() - SIZE // 2)
        return [numbers(*counts[1:]) for _ in range(counts[0])]

    problem = ExactProblem(
        policy=[distribution(n_actions) for _ in range(n_states)],
        transition=[[distribution(n_states) for _ in range(n_actions)] for _ in range(n_states)],
        start=distribution(n_states),
        rewards=numbers(steps, n_states, n_actions, n_states),
        discount=Fraction(drawn(), SIZE),
        critic=None,
        ended=(False,) * n_states,
        zero=Fraction(0),
        one=Fraction(1),
    )
    return problem.with_critic(kind, numbers(steps + 1, n_states))


def _exact_bias(
    estimator: SurrogateEstimator, problem: ExactProblem, coefficients: ExactCoefficients
) -> Array:
    """The bias's components that are not 0, at a problem and policy in fractions."""
    mean = mean_derivative(problem, coefficients)
    point = [p for row in problem.policy for p in row[:-1]]
    derivatives = return_derivatives(_with_symbolic_policy(problem), coefficients.order)
    bias = {key: mean[key] - evaluated(element, point) for key, element in derivatives.items()}
    bias = {key: value for key, value in bias.items() if value}
    check_rounding(estimator, coefficients, bias, mean)
    return bias


def _with_symbolic_policy(problem: ExactProblem) -> SymbolicProblem:
    """A problem in fractions with its policy in symbols, so that the return can be derived."""
    n_states, n_actions, _ = problem.shape
    ring = PolicyRing((PolicySymbols.of(TABULAR, n_states, n_actions),))
    rational = ring.rational

    def lifted(value: Any) -> Any:
        if isinstance(value, Fraction):
            return rational.ground_new(rational.domain(value.numerator, value.denominator))
        return [lifted(part) for part in value]

    names = ("transition", "start", "rewards", "discount", "critic")
    elements = {name: lifted(getattr(problem, name)) for name in names}
    elements |= {"policy": ring.policies[0], "zero": rational.zero, "one": rational.one}
    return SymbolicProblem(ring, replace(problem, **elements), "every policy, at one problem")


def bias_degree(
    shape: tuple[int, int, int], order: int, discount_degree: int, kind: CriticKind
) -> int:
    """An upper bound of the bias's total degree in all free coordinates.

    A trajectory has H actions, H transitions and an initial state; each derivative brings one more
    probability; coefficients are affine in rewards and critic, and polynomials of degree
    ``discount_degree`` in the discount. The policy's own values bring H - 1 transitions and powers
    of the discount, H actions and a reward in addition.
    """
    steps = shape[2]
    degree = (steps + order) + steps + 1 + 1 + max(discount_degree, steps)
    return degree + (3 * steps - 2 if kind is CriticKind.EXACT else 0)
