"""K-step meta-gradients as expressions.

After an inner step the policy is a softmax of ``theta + alpha g``, whose probabilities are not
rational functions of the earlier probabilities. So each step i has separate symbols ``pi^(i)`` for
the policy before it, and the meta-gradient is a rational function of all of them and of the step
size alpha, by the adjoint recursion (`analytic.meta.meta_gradients`) from the last step back,

    out += alpha (dg/dphi)^T lambda,    lambda += alpha (dg/dtheta)^T lambda.

The products are not multiplied out. `StagedExpression.in_logits` substitutes the inner steps.

Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Prop. 3.1 with dtheta^0/dphi.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.symbolic.expressions import (
    Expression,
    check_count,
    check_symbols,
    high_precision,
    player_numbers,
    probabilities_at,
    rounded,
    wide,
)
from gradbias.analytic.symbolic.policy_rings import PolicySymbols, each
from gradbias.analytic.symbolic.problems import SymbolicGame, SymbolicMDP
from gradbias.analytic.utils.validation import FloatArray, whole_number

MAX_STEPS = 4


@dataclass(frozen=True, eq=False)
class StagedExpression:
    """A meta-gradient in the probabilities of the policies along the inner loop.

    Attributes:
        entries: an object array of sympy expressions.
        update: the inner step's direction, in the symbols of the still players and of ``moving``.
        moving: the policy that the inner steps change.
        stages: the symbols of that policy before each inner step and after the last.
        still: the players whose parameters do not change.
        step_size: the symbol alpha.
    """

    entries: np.ndarray[Any, np.dtype[np.object_]]
    update: Expression
    moving: PolicySymbols
    stages: tuple[PolicySymbols, ...]
    still: tuple[PolicySymbols, ...]
    step_size: Any

    @property
    def expression(self) -> Any:
        """The entries as one sympy array."""
        return Expression(self.entries, (*self.still, *self.stages)).expression

    def latex(self) -> str:
        """The LaTeX source of `expression`."""
        return Expression(self.entries, (*self.still, *self.stages)).latex()

    def in_logits(self) -> Expression:
        """The meta-gradient as a function of the parameters that the inner loop starts from, with
        every inner step substituted.
        """
        replacements: dict[Any, Any] = {}
        for player in self.still:
            replacements.update(player.in_parameters())
        theta = list(self.moving.parameters)
        for stage in self.stages:
            replacements.update(stage.in_parameters(theta))
            here = replacements | self.moving.in_parameters(theta)
            steps = [entry.xreplace(here) for entry in self.update.entries.ravel()]
            theta = [t + self.step_size * step for t, step in zip(theta, steps, strict=True)]
        entries = each(lambda entry: entry.xreplace(replacements), self.entries)
        return Expression(entries, (*self.still, self.moving))

    def function(self, *symbols: Any) -> Callable[..., FloatArray]:
        """A numerical function of the still players' parameters, the moving one's, the step size,
        and numbers for ``symbols``, as `Expression.function`.
        """
        import sympy

        everyone = (*self.still, *self.stages)
        names = [s for player in everyone for s in (*player.flat, *player.parameters)]
        extra = (self.step_size, *symbols)
        check_symbols(self.entries, names, extra)
        entries, moves = list(self.entries.ravel()), list(self.update.entries.ravel())
        compiled = sympy.lambdify([*names, *extra], entries, modules="mpmath", cse=True)
        before = [s for p in (*self.still, self.moving) for s in (*p.flat, *p.parameters)]
        update = sympy.lambdify([*before, *symbols], moves, modules="mpmath", cse=True)
        count, shape = len(self.still), self.entries.shape

        def evaluate(*arguments: npt.ArrayLike) -> FloatArray:
            check_count(arguments, count + 1, 1 + len(symbols))
            with high_precision():
                players = zip(self.still, arguments, strict=False)
                still = [x for player, theta in players for x in player_numbers(player, theta)]
                here = player_numbers(self.moving, arguments[count])
                step_size, *numbers = (wide(x) for x in arguments[count + 1 :])
                path = list(here)
                for _ in self.stages[1:]:
                    theta = here[len(self.moving.flat) :]
                    slopes = update(*still, *here, *numbers)
                    theta = [t + step_size * g for t, g in zip(theta, slopes, strict=True)]
                    here = probabilities_at(self.moving, theta)
                    path += here
                return rounded(compiled(*still, *path, step_size, *numbers), shape)

        return evaluate


def maml_expression(mdp: SymbolicMDP, *, steps: int) -> StagedExpression:
    """The meta-gradient of `analytic.meta.bilevel.Maml` as an expression.

    Args:
        mdp: the problem, with exact entries.
        steps: K, the number of inner steps, at most 4.

    Returns:
        Shaped like theta, ``[S, A]`` for the tabular softmax.

    Raises:
        ValueError: steps below 1 or above 4, or an expression that would be too large.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Prop. 3.1 with dtheta^0/dphi.

    >>> bandit = SymbolicMDP([[["1"], ["1"]]], [["1", "0"]], "1/2", ["1"], horizon=1)
    >>> staged = maml_expression(bandit, steps=1)
    >>> staged.function()([[0.0, 0.0]], 1.0).round(4).tolist()
    [[0.235, -0.235]]
    """
    gradient, hessian = mdp.gradient(), mdp.hessian()
    loop = _Loop.of(mdp.player, _checked_steps(steps))
    cotangent = loop.carried_back(gradient.entries.ravel(), _matrix(hessian))
    return loop.staged(cotangent.reshape(gradient.entries.shape), gradient)


def lirpg_expression(
    mdp: SymbolicMDP, meta_parameters: Any = None, *, steps: int
) -> StagedExpression:
    """The meta-gradient of `analytic.meta.bilevel.Lirpg` as an expression.

    Args:
        mdp: the problem, with exact entries.
        meta_parameters: the intrinsic reward ``[S][A]``, numbers or symbols (default: 0).
        steps: K, the number of inner steps, at most 4.

    Returns:
        Shaped ``[S, A]``.

    Raises:
        ValueError: steps below 1 or above 4, meta_parameters of a wrong shape, or an expression
            that would be too large.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Prop. 3.1 with dtheta^0/dphi.

    >>> bandit = SymbolicMDP([[["1"], ["1"]]], [["1", "0"]], "1/2", ["1"], horizon=1)
    >>> staged = lirpg_expression(bandit, steps=1)
    >>> staged.function()([[0.0, 0.0]], 1.0).round(4).tolist()
    [[0.1175, -0.1175]]
    """
    inner = mdp if meta_parameters is None else mdp.with_reward(meta_parameters)
    update, jacobian = inner.gradient(), mdp.mixed_jacobian()
    mixed = _matrix(jacobian, rows=mdp.shape[0] * mdp.shape[1])
    loop = _Loop.of(mdp.player, _checked_steps(steps))
    hessian = _matrix(inner.hessian()) if loop.count > 1 else None
    total = loop.carried_back(mdp.gradient().entries.ravel(), hessian, mixed)
    return loop.staged(total.reshape(mdp.shape), update)


def lola_expression(game: SymbolicGame, *, steps: int, player: int = 1) -> StagedExpression:
    """The meta-gradient of `analytic.meta.bilevel.Lola` as an expression.

    Args:
        game: the game, with exact entries.
        steps: K, the number of inner steps, at most 4.
        player: 1 or 2, the player who looks ahead.

    Returns:
        Shaped like the player's parameters, ``[S, A]`` for the tabular softmax.

    Raises:
        ValueError: steps below 1 or above 4, a player other than 1 or 2, or an expression that
            would be too large.

    Source: *A Theoretical Understanding of Gradient Bias in Meta-RL*, Prop. 3.1 with dtheta^0/dphi.

    >>> from gradbias.analytic import prisoners_dilemma
    >>> staged = lola_expression(SymbolicGame.of(prisoners_dilemma(horizon=1)), steps=1)
    >>> staged.function()([0.0] * 5, [0.0] * 5, 1.0).round(4).tolist()
    [-0.25, 0.0, 0.0, 0.0, 0.0]
    """
    direct = game.gradient(of=player, wrt=player)
    other = 3 - player
    update = game.gradient(of=other, wrt=other)
    mixed = _matrix(game.hessian(of=other, wrt=player, along=other), rows=direct.entries.size)
    still, moving = game.players[player - 1], game.players[other - 1]
    loop = _Loop.of(moving, _checked_steps(steps), still)
    hessian = _matrix(game.hessian(of=other, wrt=other, along=other)) if loop.count > 1 else None
    shaping = game.gradient(of=player, wrt=other)
    start = loop.at(direct.entries.ravel(), loop.count)
    total = loop.carried_back(shaping.entries.ravel(), hessian, mixed, start)
    return loop.staged(total.reshape(direct.entries.shape), update)


def _checked_steps(steps: int) -> int:
    """The number of steps. Raises ValueError beyond `MAX_STEPS`, where expressions explode."""
    if whole_number("steps", steps, at_least=1) > MAX_STEPS:
        raise ValueError(f"steps: expected at most {MAX_STEPS} in an expression, got {steps}")
    return steps


@dataclass(frozen=True, eq=False)
class _Loop:
    """The symbols of a loop of ``count`` steps."""

    moving: PolicySymbols
    stages: tuple[PolicySymbols, ...]
    still: tuple[PolicySymbols, ...]
    step_size: Any

    @classmethod
    def of(cls, moving: PolicySymbols, count: int, *still: PolicySymbols) -> _Loop:
        import sympy

        stages = tuple(moving.marked(f"({i})") for i in range(count + 1))
        return cls(moving, stages, still, sympy.Symbol("alpha", real=True))

    @property
    def count(self) -> int:
        return len(self.stages) - 1

    def at(self, entries: Any, stage: int) -> Any:
        """Entries with the moving policy's probabilities replaced by those of a stage."""
        renamed = dict(zip(self.moving.flat, self.stages[stage].flat, strict=True))
        return each(lambda entry: entry.xreplace(renamed), entries)

    def carried_back(self, outer: Any, hessian: Any, mixed: Any = None, total: Any = 0) -> Any:
        """The adjoint recursion from the outer gradient: ``out``, which starts as ``total``; or
        lambda, if phi is theta^0 (``mixed``, the derivative dg/dphi, is None).
        """
        cotangent = self.at(outer, self.count)
        for i in reversed(range(self.count)):
            if mixed is not None:
                total = total + self.step_size * self.at(mixed, i) @ cotangent
            if i > 0 or mixed is None:
                cotangent = cotangent + self.step_size * self.at(hessian, i) @ cotangent
        return cotangent if mixed is None else total

    def staged(self, entries: Any, update: Expression) -> StagedExpression:
        moving = Expression(update.entries, (*self.still, self.moving))
        return StagedExpression(
            entries, moving, self.moving, self.stages, self.still, self.step_size
        )


def _matrix(expression: Expression, rows: int | None = None) -> Any:
    entries = expression.entries
    return entries.reshape(round(entries.size**0.5) if rows is None else rows, -1)
