"""What a proof is, and what a bias is as a formula."""

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
from gradbias.verification.evidence.reports import counted
from gradbias.verification.proofs.exact_problems import SymbolicProblem

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
        what = _subject(self.shape, self.order)
        lines = [
            f"{self.estimator}: proved unbiased for the {what}",
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

    def at(self, theta: npt.ArrayLike, symbols: Mapping[str, float] | None = None) -> FloatArray:
        """The bias at logits theta ``[S, A]`` and numbers for the problem's symbols, by name.

        Raises:
            ValueError: a theta of another shape, symbols that are not the problem's, or values that
                are no numbers.
        """
        n_states, n_actions, _ = self.shape
        logits = frozen_array("theta", theta, (n_states, n_actions))
        policy = [Fraction(p) for row in softmax(logits).tolist() for p in row[:-1]]
        names = [str(symbol) for symbol in self.symbolic.ring.symbols]
        given: object = {} if symbols is None else symbols
        if not isinstance(given, Mapping) or set(given) != set(names):
            raise ValueError(f"symbols: expected numbers for {names}, got {given}")
        point = [*policy, *(_fraction(name, given[name]) for name in names)]
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
        what = _subject(self.shape, self.order)
        left = sum(bool(element) for element in self.components.values())
        lines = [
            f"{self.estimator}: biased for the {what}",
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


def _fraction(name: str, value: object) -> Fraction:
    return value if isinstance(value, Fraction) else Fraction(finite_number(name, value))


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


def evaluated_array(
    array: Mapping[tuple[int, ...], Any], point: list[Fraction]
) -> dict[tuple[int, ...], Fraction]:
    """Every entry at a point."""
    return {key: evaluated(element, point) for key, element in array.items()}


def _derivative(order: int) -> str:
    return {1: "gradient", 2: "Hessian", 3: "third derivative"}[order]


def _subject(shape: tuple[int, int, int], order: int) -> str:
    n_states, n_actions, steps = shape
    what = f"{_derivative(order)} of the {steps}-step return"
    return f"{what}, {counted(n_states, 'state')}, {n_actions} actions, N = 1"
