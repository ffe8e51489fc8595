"""Proofs: an estimator's bias as a polynomial that reduces to 0, or what it is instead."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, frozen_array, whole_number
from analytic.policies import softmax
from analytic.symbolic import SymbolicMDP
from analytic.symbolic_expressions import Expression
from stochastic.estimators import Estimator, SurrogateEstimator
from stochastic.exact_coefficients import ExactCoefficients, exact_coefficients
from verification.exact_means import Array, mean_derivative, return_derivatives
from verification.exact_problems import (
    ExactProblem,
    SymbolicProblem,
    check_critic,
    checked_shape,
    of_shape,
    of_symbolic_mdp,
)

LARGEST_PROOF = 3_000_000
"""Terms (an upper bound) that a proof adds up at most."""

_SHOWN_TERMS = 12
_SHOWN = 240
"""Terms and characters of a component up to which it is printed."""


@dataclass(frozen=True, eq=False)
class Proof:
    """``E[estimate] - derivative``, with ``terms`` monomials on either side, reduced to 0.

    ``holds_for`` says for what, ``assumption`` on what the coefficients rest.
    """

    estimator: str
    shape: tuple[int, int, int]
    order: int
    holds_for: str
    assumption: str
    trajectories: int
    terms: int
    seconds: float

    proved = True

    @property
    def identity(self) -> str:
        """What reduced to 0."""
        count = self.shape[0] * self.shape[1]
        return (
            f"E[estimate] - {_derivative(self.order)} of the {self.shape[2]}-step return = 0, all "
            f"{count**self.order:,} components as polynomials ({self.terms:,} terms that cancel)"
        )

    def __str__(self) -> str:
        n_states, n_actions, steps = self.shape
        lines = [
            f"{self.estimator}: proved unbiased for the {_derivative(self.order)} of the "
            f"{steps}-step return, {n_states} states, {n_actions} actions, N = 1",
            f"  identity    {self.identity}",
            f"  holds for   {self.holds_for}",
            f"  sum over    {self.trajectories:,} trajectories",
            f"  assumption  {self.assumption}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class BiasFormula:
    """The bias of an estimator that is not unbiased, as polynomials in the policy's probabilities
    and the problem's symbols.

    ``bias`` and ``mean`` are expressions shaped like the estimate; ``at`` evaluates the bias.
    """

    estimator: str
    shape: tuple[int, int, int]
    order: int
    holds_for: str
    assumption: str
    trajectories: int
    seconds: float
    symbolic: SymbolicProblem
    components: Mapping[tuple[int, ...], Any]
    means: Mapping[tuple[int, ...], Any]

    proved = False

    @cached_property
    def bias(self) -> Expression:
        """E[estimate] less the derivative."""
        return self._expression(self.components)

    @cached_property
    def mean(self) -> Expression:
        """E[estimate]."""
        return self._expression(self.means)

    @property
    def terms(self) -> int:
        """Monomials of the bias."""
        return sum(len(element) for element in self.components.values())

    def at(
        self, theta: npt.ArrayLike, symbols: Mapping[str, float] | None = None
    ) -> FloatArray:
        """The bias at logits theta ``[S, A]`` and numbers for the problem's symbols, by name.

        Raises:
            ValueError: a theta of another shape, or symbols that are not the problem's.
        """
        n_states, n_actions, _ = self.shape
        logits = frozen_array("theta", theta, (n_states, n_actions))
        policy = [Fraction(p) for row in softmax(logits).tolist() for p in row[:-1]]
        names = [str(symbol) for symbol in self.symbolic.ring.symbols]
        given = {} if symbols is None else dict(symbols)
        if set(given) != set(names):
            raise ValueError(f"symbols: expected numbers for {names}, got {sorted(given)}")
        point = [*policy, *(Fraction(given[name]) for name in names)]
        found = np.zeros((n_states * n_actions,) * self.order)
        for key, element in self.components.items():
            found[key] = float(evaluated(element, point))
        return found.reshape((n_states, n_actions) * self.order)

    def simplest(self) -> str:
        """The component with the fewest terms that is not 0, in full if that is short."""
        left = {key: e for key, e in self.components.items() if e}
        key = min(left, key=lambda k: (len(left[k]), k))
        text = str(left[key].as_expr()) if len(left[key]) <= _SHOWN_TERMS else ""
        if not text or len(text) > _SHOWN:
            text = f"{len(left[key]):,} terms"
        n_actions = self.shape[1]
        where = " x ".join(f"(state {i // n_actions}, action {i % n_actions})" for i in key)
        return f"{where}: {text}"

    def __str__(self) -> str:
        n_states, n_actions, steps = self.shape
        left = sum(bool(element) for element in self.components.values())
        lines = [
            f"{self.estimator}: biased for the {_derivative(self.order)} of the {steps}-step "
            f"return, {n_states} states, {n_actions} actions, N = 1",
            f"  bias        {left:,} components that are not 0, {self.terms:,} terms",
            f"  simplest    {self.simplest()}",
            f"  holds for   {self.holds_for}",
            f"  sum over    {self.trajectories:,} trajectories",
            f"  assumption  {self.assumption}",
        ]
        return "\n".join(lines)

    def _expression(self, array: Mapping[tuple[int, ...], Any]) -> Expression:
        n_states, n_actions, _ = self.shape
        entries = np.empty((n_states * n_actions,) * self.order, dtype=object)
        for key, element in array.items():
            entries[key] = element.as_expr()
        shaped = entries.reshape((n_states, n_actions) * self.order)
        return Expression(shaped, self.symbolic.ring.players)


def prove_unbiased(
    estimator: Estimator,
    shape: tuple[int, int, int] | SymbolicMDP,
    *,
    critic: str = "zero",
    largest: int = LARGEST_PROOF,
) -> Proof | BiasFormula:
    """A proof that a surrogate's derivative is unbiased for the return's, or its bias.

    ``shape`` is (states, actions, steps): then policy, transition law, rewards, discount and start
    are symbols, and a proof holds for all problems of that shape without terminal states, with
    a batch of one trajectory drawn from the policy itself. Or it is a problem with entries of the
    caller's, numbers and symbols. ``critic`` is "zero", "exact" (the policy's own values), "any" or
    "any, then 0" (at the horizon). ``largest`` bounds the terms that are added up.

    Raises:
        ValueError: an estimator that is no surrogate, or whose coefficients are not exact
            polynomials (see `stochastic.exact_coefficients`), a shape that is too large, or one
            where estimate and derivative are both identically 0.

    >>> from stochastic.estimators import from_surrogate
    >>> from stochastic.surrogates.dice import dice
    >>> from stochastic.surrogates.score_function import lvc
    >>> prove_unbiased(from_surrogate(dice, 2), (2, 2, 2)).proved
    True
    >>> print(prove_unbiased(from_surrogate(lvc, 2), (1, 2, 1)).proved)
    True
    """
    check_critic(critic)
    if isinstance(shape, SymbolicMDP):
        symbolic = of_symbolic_mdp(shape, critic)
    else:
        symbolic = of_shape(checked_shape(shape), critic)
    return proof_or_formula(estimator, symbolic, largest)


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
    bias = {key: element - exact[key] for key, element in mean.items()}
    if not any(mean.values()) and not any(exact.values()):
        raise ValueError(
            "shape: nothing to prove, the estimate's mean and the derivative are identically 0"
        )
    known = {
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
        raise ValueError(
            f"{estimator.name}: expected an estimator that `from_surrogate` made: only a "
            "surrogate's coefficients can be told exactly"
        )
    return estimator


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
    total = sum(sizes) * steps**order
    if total > largest:
        raise ValueError(
            f"shape: expected at most {largest:,} terms to add up, got about {total:,}; use "
            "`certify`, which takes far larger shapes, or fewer symbols, or raise `largest`"
        )


def evaluated(element: Any, point: list[Fraction]) -> Fraction:
    """A polynomial at a point."""
    total = Fraction(0)
    for monomial, coefficient in element.items():
        term = Fraction(int(coefficient.numerator), int(coefficient.denominator))
        for base, power in zip(point, monomial, strict=False):
            if power:
                term *= base**power
        total += term
    return total


def evaluated_array(array: Array, point: list[Fraction]) -> Array:
    """Every entry at a point."""
    return {key: evaluated(element, point) for key, element in array.items()}


def _derivative(order: int) -> str:
    return {1: "gradient", 2: "Hessian", 3: "third derivative"}[order]
