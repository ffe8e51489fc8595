"""`prove_unbiased`: an estimator's bias as a polynomial, which is either 0 or a formula."""

from __future__ import annotations

import time
from fractions import Fraction
from operator import mul
from typing import Any

from gradbias.analytic.symbolic.problems import SymbolicMDP
from gradbias.analytic.utils.validation import choice, whole_number
from gradbias.stochastic.estimators.exact_coefficients import ExactCoefficients, exact_coefficients
from gradbias.stochastic.estimators.kinds import Estimator, SurrogateEstimator
from gradbias.verification.proofs.exact_problems import (
    CriticKind,
    ExactProblem,
    SymbolicProblem,
    checked_shape,
)
from gradbias.verification.proofs.expectation import mean_derivative
from gradbias.verification.proofs.results import BiasFormula, Proof
from gradbias.verification.proofs.scores import Array, difference, return_derivatives
from gradbias.verification.proofs.symbolic_problems import of_shape, of_symbolic_mdp

MAX_PROOF = 1_500_000
"""The largest number of terms (an upper bound of it) that a proof adds up, by default."""

_ROUNDING = 1e-9
"""A bias below this share of the mean, by largest coefficients, may come from rounded constants."""


class NothingToProveError(ValueError):
    """A problem on which the estimate's mean and the derivative are 0 for every policy."""


def prove_unbiased(
    estimator: Estimator,
    shape: tuple[int, int, int] | SymbolicMDP,
    *,
    critic_kind: str | CriticKind = CriticKind.ZERO,
    max_size: int = MAX_PROOF,
) -> Proof | BiasFormula:
    """A proof that a surrogate's derivative is unbiased for the return's, or its bias.

    The bias is a polynomial in the policy's probabilities and the problem's symbols; it is 0 on all
    problems if and only if all its coefficients are. Batches are single trajectories, drawn from
    the policy itself, a tabular softmax.

    Args:
        estimator: made by `from_surrogate`; its order, 1 to 3, is that of the derivative.
        shape: (states, actions, steps) for all problems of that shape without terminal states, with
            policy, transition law, rewards r(s, a), discount and initial distribution as symbols;
            or one problem, with numbers and symbols of the caller's.
        critic_kind: a `CriticKind` or its value: "zero", "exact" (the policy's own values), "any",
            or "any, then 0" (at the horizon).
        max_size: the largest number of terms that are added up.

    Returns:
        A `Proof`, whose verdict is UNBIASED, or a `BiasFormula`, whose verdict is BIASED.

    Raises:
        ValueError: an estimator that is no surrogate, or whose program cannot be read exactly (see
            `stochastic.estimators.exact_coefficients`), or holds rounded constants that may explain
            the bias; a shape that is too large, or one on which the estimate's
            mean and the derivative are both identically 0.

    >>> from gradbias.stochastic import dice, from_surrogate, lvc
    >>> prove_unbiased(from_surrogate(dice, order=2), (2, 2, 2)).verdict
    <Verdict.UNBIASED: 'UNBIASED'>
    >>> prove_unbiased(from_surrogate(lvc, order=2), (2, 2, 2)).verdict
    <Verdict.BIASED: 'BIASED'>
    """
    kind = choice("critic_kind", critic_kind, CriticKind)
    if isinstance(shape, SymbolicMDP):
        symbolic = of_symbolic_mdp(shape, kind)
    else:
        symbolic = of_shape(checked_shape(shape), kind)
    return proof_or_formula(estimator, symbolic, max_size)


def proof_or_formula(
    estimator: Estimator, symbolic: SymbolicProblem, max_size: int
) -> Proof | BiasFormula:
    """The result of `prove_unbiased` for a problem in symbols."""
    began = time.perf_counter()
    problem = symbolic.problem
    surrogate = checked_surrogate(estimator)
    _check_size(problem, surrogate.order, whole_number("max_size", max_size, at_least=1))
    coefficients = coefficients_of(surrogate, problem)
    mean = mean_derivative(problem, coefficients)
    exact = return_derivatives(symbolic, surrogate.order)
    bias = difference(mean, exact)
    if not any(mean.values()) and not any(exact.values()):
        raise NothingToProveError(
            "shape: nothing to prove, the estimate's mean and the derivative are identically 0"
        )
    check_rounding(surrogate, coefficients, bias, mean)
    known: dict[str, Any] = {
        "estimator": surrogate.name,
        "shape": problem.shape,
        "order": surrogate.order,
        "holds_for": symbolic.holds_for,
        "covered": coefficients.covered,
        "trajectories": len(problem.paths.actions),
        "seconds": time.perf_counter() - began,
    }
    if any(bias.values()):
        return BiasFormula(**known, symbolic=symbolic, components=bias, means=mean)
    return Proof(**known, terms=sum(len(element) for element in exact.values()))


def checked_surrogate(estimator: Estimator) -> SurrogateEstimator:
    """The estimator. Raises ValueError unless it is made from a surrogate."""
    if not isinstance(estimator, SurrogateEstimator):
        name = getattr(estimator, "name", type(estimator).__name__)
        raise ValueError(
            f"{name}: expected an estimator that `from_surrogate` made: only a surrogate's "
            "coefficients can be found exactly"
        )
    return estimator


def coefficients_of(estimator: SurrogateEstimator, problem: ExactProblem) -> ExactCoefficients:
    """The surrogate's coefficients on all trajectories of a problem."""
    n_states, n_actions, _ = problem.shape
    return exact_coefficients(estimator, problem.paths, n_states, n_actions)


def check_rounding(
    estimator: SurrogateEstimator, coefficients: ExactCoefficients, bias: Array, mean: Array
) -> None:
    """Raises ValueError if constants were rounded and the bias is small enough to come from it."""
    if not coefficients.rounded or not any(bias.values()):
        return
    bias_size, size = (max(map(_largest, array.values()), default=0) for array in (bias, mean))
    if 0 < bias_size <= _ROUNDING * size:
        raise ValueError(
            f"{estimator.name}: what is left of the bias, {float(bias_size / size):.1g} of the "
            "mean, may be the rounding of its constants; use constants that are simple fractions, "
            "such as 1/2, fewer steps, or enumeration"
        )


def _largest(element: Any) -> Fraction:
    """The absolute value of a fraction, or of a polynomial's largest coefficient."""
    numbers = element.values() if isinstance(element, dict) else [element]
    sizes = (Fraction(abs(int(x.numerator)), int(x.denominator)) for x in numbers)
    return max(sizes, default=Fraction(0))


def _check_size(problem: ExactProblem, order: int, max_size: int) -> None:
    """Raises ValueError if the trajectories' probabilities have too many terms in all."""
    n_states, n_actions, steps = problem.shape
    policy = [sum(map(len, row)) for row in problem.policy]
    transition = [
        [sum(map(len, column)) for column in zip(*rows, strict=True)] for rows in problem.transition
    ]
    # sizes[s]: an estimate of the number of terms of the probabilities of all ways to s.
    sizes = [len(p) for p in problem.start]
    for t in range(steps):
        sizes = list(map(mul, sizes, policy))
        if t + 1 < steps:
            columns = zip(*transition, strict=True)
            sizes = [sum(map(mul, sizes, column)) // n_actions for column in columns]
    total = sum(sizes) * (steps**order + order * (n_states * n_actions) ** order)
    if total > max_size:
        raise ValueError(
            f"shape: expected at most {max_size:,} terms to add up, got about {total:,}; use "
            "`certify`, which takes far larger shapes, or fewer symbols, or raise `max_size`"
        )
