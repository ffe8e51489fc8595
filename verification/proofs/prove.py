"""Proofs: an estimator's bias as a polynomial that reduces to 0, or what it is instead."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

from gradbias.analytic.symbolic.problems import SymbolicMDP
from gradbias.analytic.utils.validation import whole_number
from gradbias.stochastic.estimators.exact_coefficients import ExactCoefficients, exact_coefficients
from gradbias.stochastic.estimators.kinds import Estimator, SurrogateEstimator
from gradbias.verification.proofs.exact_problems import (
    ExactProblem,
    SymbolicProblem,
    check_critic,
    checked_shape,
)
from gradbias.verification.proofs.expectation import mean_derivative
from gradbias.verification.proofs.results import BiasFormula, Proof
from gradbias.verification.proofs.scores import Array, difference, return_derivatives
from gradbias.verification.proofs.symbolic_problems import of_shape, of_symbolic_mdp

MAX_PROOF = 1_500_000
"""Terms (an upper bound) that a proof adds up at most."""

_ROUNDING = 1e-9
"""Of the largest number: a bias below it may be what constants were rounded by."""


class NothingToProveError(ValueError):
    """A problem on which estimate and derivative have mean 0 for every policy."""


def prove_unbiased(
    estimator: Estimator,
    shape: tuple[int, int, int] | SymbolicMDP,
    *,
    critic_kind: str = "zero",
    max_size: int = MAX_PROOF,
) -> Proof | BiasFormula:
    """A proof that a surrogate's derivative is unbiased for the return's, or its bias.

    ``shape`` is (states, actions, steps): then policy, transition law, rewards, discount and start
    are symbols, and a proof holds for all problems of that shape without terminal states, with
    a batch of one trajectory drawn from the policy itself. Or it is a problem with entries of the
    caller's, numbers and symbols. ``critic_kind`` is "zero", "exact" (the policy's own values),
    "any" or "any, then 0" (at the horizon). ``max_size`` bounds the terms that are added up.

    Raises:
        ValueError: an estimator that is no surrogate, or whose coefficients are not exact
            polynomials (see `stochastic.estimators.exact_coefficients`), or hold constants that
            were rounded, by which the bias may be explained; a shape that is too large, or one
            where estimate and derivative are both identically 0.

    >>> from gradbias.stochastic import dice, from_surrogate, lvc
    >>> prove_unbiased(from_surrogate(dice, order=2), (2, 2, 2)).proved
    True
    >>> prove_unbiased(from_surrogate(lvc, order=2), (2, 2, 2)).proved
    False
    """
    check_critic(critic_kind)
    if isinstance(shape, SymbolicMDP):
        symbolic = of_symbolic_mdp(shape, critic_kind)
    else:
        symbolic = of_shape(checked_shape(shape), critic_kind)
    return proof_or_formula(estimator, symbolic, max_size)


def proof_or_formula(
    estimator: Estimator, symbolic: SymbolicProblem, largest: int
) -> Proof | BiasFormula:
    """As `prove_unbiased`, of a problem in symbols."""
    began = time.perf_counter()
    problem = symbolic.problem
    own = checked_surrogate(estimator)
    check_terms(problem, own.order, whole_number("largest", largest, at_least=1))
    found = coefficients_of(own, problem)
    mean = mean_derivative(problem, found)
    exact = return_derivatives(symbolic, own.order)
    bias = difference(mean, exact)
    if not any(mean.values()) and not any(exact.values()):
        raise NothingToProveError(
            "shape: nothing to prove, the estimate's mean and the derivative are identically 0"
        )
    check_rounding(own, found, bias, mean)
    known: dict[str, Any] = {
        "estimator": own.name,
        "shape": problem.shape,
        "order": own.order,
        "holds_for": symbolic.entries,
        "assumption": found.assumption,
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
            f"{name}: expected an estimator that `from_surrogate` made: only a "
            "surrogate's coefficients can be told exactly"
        )
    return estimator


def check_rounding(
    estimator: SurrogateEstimator, found: ExactCoefficients, bias: Array, mean: Array
) -> None:
    """Raises ValueError where constants were rounded, and the bias is not larger than that."""
    size, whole = (max(map(_largest, array.values()), default=0) for array in (bias, mean))
    if found.rounded and 0 < size <= _ROUNDING * whole:
        raise ValueError(
            f"{estimator.name}: what is left of the bias, {float(size / whole):.1g} of the mean, "
            "may be the rounding of its constants; use constants that are simple fractions, such "
            "as 1/2, fewer steps, or enumeration"
        )


def _largest(element: Any) -> Fraction:
    """The size of a number, or of a polynomial's largest coefficient."""
    numbers = element.values() if isinstance(element, dict) else [element]
    return max(
        (Fraction(abs(int(x.numerator)), int(x.denominator)) for x in numbers), default=Fraction(0)
    )


def coefficients_of(estimator: SurrogateEstimator, problem: ExactProblem) -> ExactCoefficients:
    """On all trajectories of a problem."""
    n_states, n_actions, _ = problem.shape
    return exact_coefficients(estimator, problem.paths, n_states, n_actions)


def check_terms(problem: ExactProblem, order: int, largest: int) -> None:
    """Raises ValueError where trajectories' probabilities have too many terms in all."""
    n_states, n_actions, steps = problem.shape
    sizes = [len(p) for p in problem.start]
    for t in range(steps):
        acted = [sizes[s] * sum(len(p) for p in problem.policy[s]) for s in range(n_states)]
        if t + 1 == steps:
            sizes = acted
            break
        sizes = [
            sum(
                acted[s] * sum(len(problem.transition[s][a][u]) for a in range(n_actions))
                for s in range(n_states)
            )
            // n_actions
            for u in range(n_states)
        ]
    total = sum(sizes) * (steps**order + order * (n_states * n_actions) ** order)
    if total > largest:
        raise ValueError(
            f"shape: expected at most {largest:,} terms to add up, got about {total:,}; use "
            "`certify`, which takes far larger shapes, or fewer symbols, or raise `largest`"
        )
