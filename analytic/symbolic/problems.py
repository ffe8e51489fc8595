"""Values and derivatives as expressions: rational functions of a policy's action probabilities.

What the numerical side computes at one policy is here an identity in the policy, exact where the
problem's entries are rational, and in the entries too where they are symbols:

- infinite horizon: Cramer's rule, ``J = rho^T adj(I - gamma P_pi) r_pi / det(I - gamma P_pi)``;
- H steps: the backward recursion, a polynomial.

Derivatives in the parameters follow by softmax's derivation on polynomials
(`analytic.symbolic.policy_rings`), which is independent of the closed forms of
`analytic.returns.derivatives`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.games import StochasticGame, check_player
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.symbolic.expressions import Expression, as_expression, symmetric
from gradbias.analytic.symbolic.models import (
    SymbolicModel,
    check_expression_size,
    exact_entries,
    exact_rows,
    free_symbols,
    nested,
)
from gradbias.analytic.symbolic.policy_rings import PolicyRing, PolicySymbols, each, exact

MAX_EXPRESSION = 600_000
"""Terms (an upper bound) up to which an expression is derived."""


@dataclass(frozen=True, eq=False)
class SymbolicMDP:
    """A finite MDP with exact entries, its values and derivatives as expressions.

    Entries are integers, fractions, sympy expressions or strings of them (polynomials in any
    symbols), or floats, which become rationals (`analytic.symbolic.policy_rings.exact`).

    Attributes:
        transition: ``[S][A][S]``.
        reward: its mean over the next state, ``[S][A]``, or ``[H][S][A]`` over time.
        discount: gamma.
        start: the initial distribution, ``[S]``.
        horizon: H, in steps (None: infinite).
        policy: a `TabularSoftmax`, or a `LinearSoftmax` with integer features.
        max_size: the largest number of terms of an expression.

    Raises:
        ValueError: wrong shapes; rows that do not sum to one identically; another policy.

    >>> from sympy import Symbol, factor
    >>> gamma = Symbol("gamma")
    >>> bandit = SymbolicMDP([[["1"], ["1"]]], [["1", "0"]], gamma, ["1"])
    >>> factor(bandit.expected_return().expression)
    -pi_0_0/(gamma - 1)
    """

    transition: Any
    reward: Any
    discount: Any
    start: Any
    horizon: int | None = None
    policy: Policy = TABULAR
    max_size: int = field(default=MAX_EXPRESSION, kw_only=True)

    @classmethod
    def of(
        cls, mdp: TabularMDP, policy: Policy = TABULAR, *, max_size: int = MAX_EXPRESSION
    ) -> SymbolicMDP:
        """A `TabularMDP` with its entries as rationals, rows renormalised exactly.

        Args:
            mdp: the problem.
            policy: a `TabularSoftmax`, or a `LinearSoftmax` with integer features.
            max_size: the largest number of terms of an expression.

        >>> mdp = TabularMDP([[[0.1, 0.9]], [[0.0, 1.0]]], [[1.0], [0.0]], 0.5, [1.0, 0.0])
        >>> SymbolicMDP.of(mdp).expected_return().expression
        20/19
        """
        transition = exact_rows(mdp.transition)
        table = each(exact, mdp.next_state_reward)
        mean = (transition * table).sum(axis=-1)
        reward = mean if mdp.reward.ndim == 4 else mean[0]
        start = exact_rows(mdp.start)
        discount = exact(mdp.discount)
        return cls(transition, reward, discount, start, mdp.horizon, policy, max_size=max_size)

    def expected_return(self) -> Expression:
        """The expected return J, of shape ()."""
        self._check_size(0)
        quotients, value = self._model.expected_return(0)
        return as_expression(quotients, [value], (), (self.player,))

    def state_values(self) -> Expression:
        """The state values V_0, ``[S]``."""
        self._check_size(0, self.shape[0])
        quotients, values = self._model.values(0)
        return as_expression(quotients, values, self.shape[:1], (self.player,))

    def gradient(self) -> Expression:
        """The gradient dJ/dtheta, shaped like theta."""
        self._check_size(1)
        quotients, value = self._model.expected_return(0)
        slopes = quotients.gradient(value, 0)
        return as_expression(quotients, slopes, self.player.shape, (self.player,))

    def hessian(self) -> Expression:
        """The Hessian d2J/dtheta2, theta's axes twice."""
        self._check_size(2)
        quotients, value = self._model.expected_return(0)
        entries = symmetric(quotients, quotients.gradient(value, 0), 0)
        return Expression(entries.reshape(self.player.shape * 2), (self.player,))

    def mixed_jacobian(self) -> Expression:
        """``d/dphi dJ/dtheta`` for a reward phi ``[S, A]`` that is added at every step (the
        derivative of the state-action visits): axes S, A, then theta's.
        """
        n_states, n_actions = self.shape
        self._check_size(1, n_states * n_actions * self.player.weights.shape[-1])
        quotients, visits = self._model.visits()
        slopes = [slope for visit in visits for slope in quotients.gradient(visit, 0)]
        shape = (*self.shape, *self.player.shape)
        return as_expression(quotients, slopes, shape, (self.player,))

    @cached_property
    def _entries(self) -> dict[str, Any]:
        reward = np.array(self.reward, dtype=object)
        timed = reward.ndim == 3 and self.horizon is not None and len(reward) == self.horizon
        if reward.ndim != 2 and not timed:
            raise ValueError(
                f"reward: expected [S][A], or [H][S][A] over a finite horizon, got {reward.shape}"
            )
        rewards = reward[None] if timed else reward[None, None]
        tables = (self.transition, rewards, self.discount, self.start)
        return exact_entries(*tables, players=1, horizon=self.horizon)

    def with_reward(self, phi: Any) -> SymbolicMDP:
        """The problem with ``phi [S][A]`` (numbers or expressions) added to the reward of every
        step. Raises ValueError if phi has another shape.
        """
        extra = np.array(phi, dtype=object)
        if extra.shape != self.shape:
            raise ValueError(f"phi: expected shape {self.shape}, got {extra.shape}")
        reward = self._entries["rewards"][0] + each(exact, extra)
        return replace(self, reward=reward if len(reward) > 1 else reward[0])

    def __post_init__(self) -> None:
        self.player  # noqa: B018 (checks entries and policy)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of states and actions (S, A)."""
        n_states, n_actions, _ = self._entries["transition"].shape
        return n_states, n_actions

    @cached_property
    def player(self) -> PolicySymbols:
        """The symbols of the policy."""
        return PolicySymbols.of(self.policy, *self.shape)

    def _check_size(self, order: int, count: int | None = None) -> None:
        count = self.player.weights.shape[-1] ** order if count is None else count
        sizes = {"order": order, "count": count, "max_size": self.max_size}
        check_expression_size(self._entries, [self.player], self.horizon, **sizes)

    @cached_property
    def _model(self) -> SymbolicModel:
        entries = self._entries
        ring = PolicyRing((self.player,), free_symbols(entries))
        return SymbolicModel(
            ring=ring,
            transition=nested(ring, entries["transition"]),
            rewards=nested(ring, entries["rewards"]),
            discount=ring.element(entries["discount"]),
            start=nested(ring, entries["start"]),
            horizon=self.horizon,
            policy=ring.policies[0],
        )


@dataclass(frozen=True, eq=False)
class SymbolicGame:
    """A two-player game with exact entries, its values and derivatives as expressions.

    Attributes:
        transition: ``[S][A1][A2][S]``.
        rewards: ``[2][S][A1][A2]``.
        discount, start, horizon, max_size: as in `SymbolicMDP`.
        policies: one for each player; their symbols are ``pi__1_s_a`` and ``pi__2_s_a``, printed
            with the player as a superscript.

    Raises:
        ValueError: as `SymbolicMDP`.

    >>> from gradbias.analytic import prisoners_dilemma
    >>> once = SymbolicGame.of(prisoners_dilemma(horizon=1))
    >>> once.expected_return(of=1).expression
    -pi__1_0_0 + 2*pi__2_0_0 - 2
    """

    transition: Any
    rewards: Any
    discount: Any
    start: Any
    horizon: int | None = None
    policies: tuple[Policy, Policy] = (TABULAR, TABULAR)
    max_size: int = field(default=MAX_EXPRESSION, kw_only=True)

    @classmethod
    def of(cls, game: StochasticGame, *, max_size: int = MAX_EXPRESSION) -> SymbolicGame:
        """A `StochasticGame` with its entries as rationals.

        Args:
            game: the game; its rewards must not depend on time (else a ValueError).
            max_size: the largest number of terms of an expression.
        """
        if game.rewards.ndim == 5:
            raise ValueError("rewards: expected ones that do not depend on time")
        return cls(
            exact_rows(game.transition),
            each(exact, game.rewards),
            exact(game.discount),
            exact_rows(game.start),
            game.horizon,
            game.policies,
            max_size=max_size,
        )

    def expected_return(self, *, of: int) -> Expression:
        """The expected return J of player ``of``, of shape ()."""
        check_player("of", of)
        self._check_size(0)
        quotients, value = self._model.expected_return(of - 1)
        return as_expression(quotients, [value], (), self.players)

    def gradient(self, *, of: int, wrt: int) -> Expression:
        """The gradient of player ``of``'s return.

        Args:
            of: whose return, 1 or 2.
            wrt: whose parameters, 1 or 2.

        Returns:
            Shaped like player ``wrt``'s parameters.
        """
        check_player("of", of)
        check_player("wrt", wrt)
        self._check_size(1)
        quotients, value = self._model.expected_return(of - 1)
        slopes = quotients.gradient(value, wrt - 1)
        return as_expression(quotients, slopes, self.players[wrt - 1].shape, self.players)

    def hessian(self, *, of: int, wrt: int, along: int) -> Expression:
        """The second derivatives ``d/dtheta_along dJ_of/dtheta_wrt``.

        Args:
            of: whose return, 1 or 2.
            wrt: in whose parameters the gradient is taken, 1 or 2.
            along: in whose parameters it is differentiated, 1 or 2.

        Returns:
            The axes of player ``wrt``'s parameters, then those of player ``along``'s.
        """
        for name, player in (("of", of), ("wrt", wrt), ("along", along)):
            check_player(name, player)
        self._check_size(2)
        quotients, value = self._model.expected_return(of - 1)
        first = quotients.gradient(value, wrt - 1)
        shape = (*self.players[wrt - 1].shape, *self.players[along - 1].shape)
        if wrt == along:
            return Expression(symmetric(quotients, first, wrt - 1).reshape(shape), self.players)
        second = [entry for slope in first for entry in quotients.gradient(slope, along - 1)]
        return as_expression(quotients, second, shape, self.players)

    @cached_property
    def _entries(self) -> dict[str, Any]:
        rewards = np.array(self.rewards, dtype=object)
        if rewards.ndim != 4:
            raise ValueError(f"rewards: expected [2][S][A1][A2], got shape {rewards.shape}")
        tables = (self.transition, rewards[:, None], self.discount, self.start)
        return exact_entries(*tables, players=2, horizon=self.horizon)

    def __post_init__(self) -> None:
        self.players  # noqa: B018 (checks entries and policies)

    @cached_property
    def players(self) -> tuple[PolicySymbols, PolicySymbols]:
        """The symbols of both players' policies."""
        n_states, first, second, _ = self._entries["transition"].shape
        return (
            PolicySymbols.of(self.policies[0], n_states, first, "1"),
            PolicySymbols.of(self.policies[1], n_states, second, "2"),
        )

    def _check_size(self, order: int) -> None:
        count = max(player.weights.shape[-1] for player in self.players) ** order
        sizes = {"order": order, "count": count, "max_size": self.max_size}
        check_expression_size(self._entries, self.players, self.horizon, **sizes)

    @cached_property
    def _model(self) -> SymbolicModel:
        entries = self._entries
        n_states = len(entries["transition"])
        ring = PolicyRing(self.players, free_symbols(entries))
        pairs = entries["transition"].reshape(n_states, -1, n_states)
        rewards = entries["rewards"].reshape(2, 1, n_states, -1)
        one, two = ring.policies
        return SymbolicModel(
            ring=ring,
            transition=nested(ring, pairs),
            rewards=nested(ring, rewards),
            discount=ring.element(entries["discount"]),
            start=nested(ring, entries["start"]),
            horizon=self.horizon,
            policy=[[p * q for p in one[s] for q in two[s]] for s in range(n_states)],
        )
