"""The results of `prove_unbiased`: a proof that the bias is 0, or the bias as a formula."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.symbolic.expressions import Expression
from gradbias.analytic.utils.validation import FloatArray, finite_number, frozen_array
from gradbias.verification.evidence.reports import Verdict, counted
from gradbias.verification.proofs.exact_problems import SymbolicProblem

_SHOWN_TERMS = 12
_SHOWN = 240
"""Terms and characters of a component up to which it is printed."""

_DERIVATIVES = {1: "gradient", 2: "Hessian", 3: "third derivative"}


@dataclass(frozen=True, eq=False)
class ExactResult:
    """The fields that `Proof`, `BiasFormula` and `IdentityTest` share, described in `Proof`."""

    estimator: str
    shape: tuple[int, int, int]
    order: int
    holds_for: str
    covered: str
    trajectories: int
    seconds: float

    @property
    def _derivative(self) -> str:
        return f"{_DERIVATIVES[self.order]} of the {self.shape[2]}-step return"

    def _text(self, claim: str, *lines: str) -> str:
        """The claim, the given lines, and those that all results have."""
        n_states, n_actions, _ = self.shape
        problem = f"{counted(n_states, 'state')}, {n_actions} actions, N = 1"
        parts = (
            f"{self.estimator}: {claim} for the {self._derivative}, {problem}",
            *lines,
            f"holds for   {self.holds_for}",
            f"sum over    {self.trajectories:,} trajectories",
            f"covered     {self.covered}",
        )
        return "\n  ".join(parts)


@dataclass(frozen=True, eq=False)
class Proof(ExactResult):
    """A proof: ``E[estimate] - derivative`` is 0 as a polynomial, so its `verdict` is UNBIASED.

    Attributes:
        estimator: the estimator's name.
        shape: the numbers of states, actions and steps, (S, A, H).
        order: of the derivative, 1 to 3.
        holds_for: the policies and problems that the result holds for, in words.
        covered: which inputs of the surrogate were symbols and which concrete, how often it was
            run, and what is assumed, in words.
        trajectories: the number of trajectories that were summed over.
        seconds: the time that it took.
        terms: the number of monomials of the derivative, which the expectation's cancel.
    """

    terms: int

    verdict = Verdict.UNBIASED

    @property
    def identity(self) -> str:
        """The identity that was proved, in words."""
        count = (self.shape[0] * self.shape[1]) ** self.order
        return (
            f"E[estimate] - {self._derivative} = 0, all {count:,} components as polynomials "
            f"({self.terms:,} terms that cancel)"
        )

    def __str__(self) -> str:
        return self._text("proved unbiased", f"identity    {self.identity}")


@dataclass(frozen=True, eq=False)
class BiasFormula(ExactResult):
    """The bias of a biased estimator, as polynomials in the policy's probabilities and the
    problem's symbols; its `verdict` is BIASED. It is not 0 as a polynomial, but may be at a policy.

    Attributes:
        estimator, shape, order, holds_for, covered, trajectories, seconds: as in `Proof`.
        symbolic: the problem in symbols.
        components: the bias, a polynomial for each tuple of flat parameters (state x A + action).
        means: the estimate's mean, in the same form.
    """

    symbolic: SymbolicProblem
    components: Mapping[tuple[int, ...], Any]
    means: Mapping[tuple[int, ...], Any]

    verdict = Verdict.BIASED

    @cached_property
    def bias(self) -> Expression:
        """The bias, E[estimate] - derivative, as an expression shaped like the estimate."""
        return self._expression(self.components)

    @cached_property
    def mean(self) -> Expression:
        """E[estimate], as an expression shaped like the estimate."""
        return self._expression(self.means)

    @property
    def terms(self) -> int:
        """The number of the bias's monomials."""
        return sum(len(element) for element in self.components.values())

    def at(self, theta: npt.ArrayLike, symbols: Mapping[str, float] | None = None) -> FloatArray:
        """The bias at one policy and one choice of the problem's symbols.

        Args:
            theta: the policy's logits, ``[S, A]``.
            symbols: a number for each of the problem's symbols, by name (None: it has none).

        Returns:
            The bias, shaped like the estimate.

        Raises:
            ValueError: a theta of another shape, symbols that are not the problem's, or values that
                are no numbers.
        """
        n_states, n_actions, _ = self.shape
        logits = frozen_array("theta", theta, (n_states, n_actions))
        policy = [Fraction(p) for row in softmax(logits).tolist() for p in row[:-1]]
        names = [str(symbol) for symbol in self.symbolic.ring.symbols]
        numbers: object = {} if symbols is None else symbols
        if not isinstance(numbers, Mapping) or set(numbers) != set(names):
            raise ValueError(f"symbols: expected numbers for {names}, got {numbers}")
        point = [*policy, *(_fraction(name, numbers[name]) for name in names)]
        bias = np.zeros((n_states * n_actions,) * self.order)
        for key, element in self.components.items():
            bias[key] = float(evaluated(element, point))
        return bias.reshape((n_states, n_actions) * self.order)

    def simplest(self) -> str:
        """The component with the fewest terms that is not 0, in full if that is short."""
        nonzero = {key: element for key, element in self.components.items() if element}
        key = min(nonzero, key=lambda k: (len(nonzero[k]), k))
        text = str(nonzero[key].as_expr()) if len(nonzero[key]) <= _SHOWN_TERMS else ""
        if not text or len(text) > _SHOWN:
            text = f"{len(nonzero[key]):,} terms"
        n_actions = self.shape[1]
        where = " x ".join(f"(state {i // n_actions}, action {i % n_actions})" for i in key)
        return f"{where}: {text}"

    def __str__(self) -> str:
        nonzero = sum(bool(element) for element in self.components.values())
        return self._text(
            "biased",
            f"bias        {nonzero:,} components that are not 0, {self.terms:,} terms",
            f"simplest    {self.simplest()}",
        )

    def _expression(self, components: Mapping[tuple[int, ...], Any]) -> Expression:
        n_states, n_actions, _ = self.shape
        entries = np.empty((n_states * n_actions,) * self.order, dtype=object)
        for key, element in components.items():
            entries[key] = element.as_expr()
        shaped = entries.reshape((n_states, n_actions) * self.order)
        return Expression(shaped, self.symbolic.ring.players)


def _fraction(name: str, value: object) -> Fraction:
    return value if isinstance(value, Fraction) else Fraction(finite_number(name, value))


def evaluated(element: Any, point: list[Fraction]) -> Fraction:
    """A polynomial's value at a point."""
    total = Fraction(0)
    for monomial, coefficient in element.items():
        term = Fraction(int(coefficient.numerator), int(coefficient.denominator))
        # A ring without variables has a placeholder, which the point has no number for.
        for base, power in zip(point, monomial, strict=False):
            if power:
                term *= base**power
        total += term
    return total
