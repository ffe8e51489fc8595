"""Arrays of sympy expressions in action probabilities, to read, print and evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.symbolic.policy_rings import PolicySymbols, Quotient, QuotientField, each
from gradbias.analytic.utils.validation import FloatArray, frozen_array

_DIGITS = 100


@dataclass(frozen=True, eq=False)
class Expression:
    """An array of sympy expressions in the probabilities of one or two players.

    Attributes:
        entries: an object array (shape () for a number). Probabilities are symbols ``pi_s_a``, the
            last action's is written as 1 minus the others'; parameters are ``theta_s_a``.
        players: the players' symbols.
    """

    entries: np.ndarray[Any, np.dtype[np.object_]]
    players: tuple[PolicySymbols, ...]

    @property
    def expression(self) -> Any:
        """The entries as one sympy object: an expression, or an array of them."""
        import sympy

        if self.entries.ndim == 0:
            return self.entries.item()
        return sympy.ImmutableDenseNDimArray(self.entries.tolist())

    def in_logits(self) -> Expression:
        """The same expressions with every probability as a softmax of the parameters."""
        softmaxes: dict[Any, Any] = {}
        for player in self.players:
            softmaxes.update(player.in_parameters())
        return Expression(each(lambda entry: entry.xreplace(softmaxes), self.entries), self.players)

    def latex(self) -> str:
        """The LaTeX source of `expression`."""
        import sympy

        return str(sympy.latex(self.expression))

    def function(self, *symbols: Any) -> Callable[..., FloatArray]:
        """A numerical function of each player's parameters, then of numbers for ``symbols``.

        It computes with 100 digits and rounds at the end, because sums of many terms cancel where a
        policy is peaked. Common subexpressions are computed once.

        Raises:
            ValueError: symbols that are missing, repeated, or none of the expression's.
        """
        import sympy

        names = [s for player in self.players for s in (*player.flat, *player.parameters)]
        check_symbols(self.entries, names, symbols)
        entries = list(self.entries.ravel())
        compiled = sympy.lambdify([*names, *symbols], entries, modules="mpmath", cse=True)
        shape, players = self.entries.shape, self.players

        def evaluate(*arguments: npt.ArrayLike) -> FloatArray:
            check_count(arguments, len(players), len(symbols))
            with high_precision():
                pairs = zip(players, arguments, strict=False)
                numbers = [x for player, theta in pairs for x in player_numbers(player, theta)]
                values = [wide(x) for x in arguments[len(players) :]]
                return rounded(compiled(*numbers, *values), shape)

        return evaluate


def check_symbols(entries: Any, names: Sequence[Any], symbols: Sequence[Any]) -> None:
    """Raises ValueError for a symbol of ``entries`` that is not in ``names`` or ``symbols``, and
    for one that is in these twice.
    """
    import sympy

    if not all(isinstance(symbol, sympy.Symbol) for symbol in symbols):
        raise ValueError(f"symbols: expected sympy symbols, got {list(symbols)}")
    known = [*names, *symbols]
    if len({str(symbol) for symbol in known}) < len(known):
        raise ValueError(f"symbols: expected each once, and none of the policy's, got {symbols}")
    free: set[Any] = set().union(*(entry.free_symbols for entry in entries.ravel()))
    missing = sorted(free - set(known), key=str)
    if missing:
        raise ValueError(f"symbols: expected all that occur, got none for {missing}")


def check_count(arguments: Sequence[Any], players: int, numbers: int) -> None:
    """Raises ValueError unless there are that many arguments."""
    if len(arguments) != players + numbers:
        raise ValueError(
            f"expected parameters of {players} players and {numbers} numbers, got "
            f"{len(arguments)} arguments"
        )


def high_precision() -> Any:
    """The context of 100 digits in which expressions are evaluated."""
    import mpmath

    return mpmath.workdps(_DIGITS)


def wide(value: npt.ArrayLike) -> Any:
    """A number in high precision. Raises ValueError unless it is one number."""
    import mpmath

    return mpmath.mpf(float(frozen_array("number", value, ())))


def rounded(values: Sequence[Any], shape: tuple[int, ...]) -> FloatArray:
    """High-precision numbers as an array."""
    return np.array([float(value) for value in values]).reshape(shape)


def player_numbers(player: PolicySymbols, theta: npt.ArrayLike) -> list[Any]:
    """The numbers of `probabilities_at` for parameters. Raises ValueError if they do not fit."""
    import mpmath

    parameters = frozen_array("theta", theta, player.shape).ravel()
    return probabilities_at(player, [mpmath.mpf(x) for x in parameters.tolist()])


def probabilities_at(player: PolicySymbols, theta: list[Any]) -> list[Any]:
    """The independent probabilities at high-precision parameters, then the parameters."""
    import mpmath

    probabilities = []
    for row in player.weights:
        logits = [mpmath.fdot(zip(weights.tolist(), theta, strict=True)) for weights in row]
        largest = max(logits)
        exponentials = [mpmath.exp(z - largest) for z in logits]
        total = mpmath.fsum(exponentials)
        probabilities += [exponential / total for exponential in exponentials[:-1]]
    return [*probabilities, *theta]


def as_expression(
    quotients_field: QuotientField,
    quotients: Sequence[Quotient],
    shape: tuple[int, ...],
    players: tuple[PolicySymbols, ...],
) -> Expression:
    """An array of expressions, from quotients."""
    entries = np.empty(len(quotients), dtype=object)
    entries[:] = [quotients_field.expression(quotient) for quotient in quotients]
    return Expression(entries.reshape(shape), players)


def symmetric(quotients_field: QuotientField, first: list[Quotient], player: int) -> Any:
    """The matrix of second derivatives, computed once for each unordered pair."""
    n = len(first)
    matrix = np.empty((n, n), dtype=object)
    for i in range(n):
        for j in range(i, n):
            second = quotients_field.derivative(first[i], player, j)
            matrix[i, j] = matrix[j, i] = quotients_field.expression(second)
    return matrix
