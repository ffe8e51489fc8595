"""Arrays of sympy expressions in action probabilities, to read, print and evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray, frozen_array
from analytic.policies import softmax
from analytic.rings import PolicySymbols, Quotient, QuotientField, each


@dataclass(frozen=True, eq=False)
class Expression:
    """An array of sympy expressions in the probabilities of one or two players.

    ``entries`` is an object array (shape () for a number). Probabilities are symbols ``pi_s_a``,
    the last action's written as 1 minus the others'; parameters are ``theta_s_a``.
    """

    entries: np.ndarray[Any, np.dtype[np.object_]]
    players: tuple[PolicySymbols, ...]

    @property
    def expression(self) -> Any:
        """As one sympy object: an expression, or an array of them."""
        import sympy

        if self.entries.ndim == 0:
            return self.entries.item()
        return sympy.ImmutableDenseNDimArray(self.entries.tolist())

    def in_logits(self) -> Expression:
        """The same with every probability as a softmax of the parameters."""
        softmaxes: dict[Any, Any] = {}
        for player in self.players:
            softmaxes.update(player.in_parameters())
        return Expression(each(lambda entry: entry.xreplace(softmaxes), self.entries), self.players)

    def latex(self) -> str:
        """For print."""
        import sympy

        found: str = sympy.latex(self.expression)
        return found

    def function(self, *symbols: Any) -> Callable[..., FloatArray]:
        """A numerical function of each player's parameters, then of numbers for ``symbols``;
        common subexpressions are computed once.
        """
        import sympy

        names = [s for player in self.players for s in (*player.flat, *player.parameters)]
        entries = list(self.entries.ravel())
        compiled = sympy.lambdify([*names, *symbols], entries, modules="numpy", cse=True)
        shape, players = self.entries.shape, self.players

        def evaluate(*arguments: npt.ArrayLike) -> FloatArray:
            if len(arguments) != len(players) + len(symbols):
                raise ValueError(
                    f"expected parameters of {len(players)} players and {len(symbols)} numbers, "
                    f"got {len(arguments)} arguments"
                )
            numbers: list[float] = []
            for player, theta in zip(players, arguments, strict=False):
                numbers += probability_values(player, theta)
                numbers += np.ravel(np.asarray(theta, dtype=np.float64)).tolist()
            values = [float(np.asarray(value)) for value in arguments[len(players) :]]
            return np.array(compiled(*numbers, *values), dtype=np.float64).reshape(shape)

        return evaluate


def probability_values(player: PolicySymbols, theta: npt.ArrayLike) -> list[float]:
    """The independent probabilities at parameters theta. Raises ValueError if it does not fit."""
    parameters = frozen_array("theta", theta, player.shape).ravel()
    independent = softmax(player.weights @ parameters)[:, :-1]
    return [float(p) for p in independent.ravel()]


def as_expression(
    quotients_field: QuotientField,
    quotients: Sequence[Quotient],
    shape: tuple[int, ...],
    players: tuple[PolicySymbols, ...],
) -> Expression:
    """Quotients as an array of expressions."""
    entries = np.empty(len(quotients), dtype=object)
    entries[:] = [quotients_field.expression(quotient) for quotient in quotients]
    return Expression(entries.reshape(shape), players)


def symmetric(quotients_field: QuotientField, first: list[Quotient], player: int) -> Any:
    """The matrix of second derivatives, each unordered pair once."""
    n = len(first)
    found = np.empty((n, n), dtype=object)
    for i in range(n):
        for j in range(i, n):
            second = quotients_field.derivative(first[i], player, j)
            found[i, j] = found[j, i] = quotients_field.expression(second)
    return found
