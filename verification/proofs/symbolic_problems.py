"""Problems in symbols: all those of a shape, a caller's `SymbolicMDP`, or a given `TabularMDP`."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.symbolic.models import exact_rows, free_symbols, nested
from gradbias.analytic.symbolic.policy_rings import PolicyRing, PolicySymbols, each, exact
from gradbias.analytic.symbolic.problems import SymbolicMDP
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.proofs.exact_problems import CriticKind, ExactProblem, SymbolicProblem


def of_shape(shape: tuple[int, int, int], critic_kind: CriticKind) -> SymbolicProblem:
    """The problem that stands for all of that shape, in symbols ``rho_s``, ``P_s_a_u``, ``r_s_a``,
    ``gamma`` and ``v_t_s``; the last probability of each row is 1 minus the others.
    """
    n_states, n_actions, _ = shape
    transition = np.empty((n_states, n_actions, n_states), dtype=object)
    reward = np.empty((n_states, n_actions), dtype=object)
    for s, a in product(range(n_states), range(n_actions)):
        reward[s, a] = f"r_{s}_{a}"
        transition[s, a] = _row(f"P_{s}_{a}", n_states)
    entries = {
        "transition": each(exact, transition),
        "rewards": each(exact, reward),
        "discount": exact("gamma"),
        "start": each(exact, np.array(_row("rho", n_states), dtype=object)),
    }
    holds_for = every_problem("r(s, a)", critic_kind)
    return _assembled(entries, shape, critic_kind, holds_for, (False,) * n_states)


def every_problem(reward: str, critic_kind: CriticKind) -> str:
    """All problems of a shape, in words."""
    entries = f"every policy, transition law, reward {reward}, discount and start"
    return f"{entries}, no terminal states, {critic_kind}"


def _row(name: str, size: int) -> list[str]:
    """The names of a row's probabilities, the last one as 1 minus the others."""
    names = [f"{name}_{u}" for u in range(size - 1)]
    return [*names, " - ".join(["1", *names])]


def of_symbolic_mdp(mdp: SymbolicMDP, critic_kind: CriticKind) -> SymbolicProblem:
    """The caller's problem. Raises ValueError for an infinite horizon, or another policy than a
    tabular softmax.
    """
    if mdp.horizon is None or mdp.policy is not TABULAR:
        raise ValueError("shape: expected a problem of finite horizon with a tabular policy")
    entries = dict(mdp._entries)
    entries["rewards"] = entries["rewards"][0]
    ended = tuple(
        all(row[s] == 1 for row in entries["transition"][s])
        and not any(entries["rewards"][..., s, :].ravel())
        for s in range(mdp.shape[0])
    )
    symbols = ", ".join(map(str, free_symbols(entries)))
    holds_for = "every policy" + (f" and {symbols}" if symbols else "") + ", of the given problem"
    holds_for += " with its rewards r(s, a)" + (" and no more terminal states" if symbols else "")
    holds_for += f", {critic_kind}"
    return _assembled(entries, (*mdp.shape, mdp.horizon), critic_kind, holds_for, ended)


def of_mdp(mdp: TabularMDP, critic: FloatArray) -> SymbolicProblem:
    """A problem in floating point, its numbers taken for rationals; ``critic [H + 1, S]``."""
    if mdp.horizon is None:
        raise ValueError("evidence: symbolic is for finite horizons")
    rewards = np.broadcast_to(mdp.next_state_reward, (mdp.horizon, *mdp.transition.shape))
    entries = {
        "transition": exact_rows(mdp.transition),
        "rewards": each(exact, rewards),
        "discount": exact(mdp.discount),
        "start": exact_rows(mdp.start),
    }
    shape = (mdp.n_states, mdp.n_actions, mdp.horizon)
    ended = tuple(bool(x) for x in mdp.terminal)
    return _assembled(entries, shape, critic, "every policy, at this problem", ended)


def _assembled(
    entries: dict[str, Any],
    shape: tuple[int, int, int],
    critic: CriticKind | FloatArray,
    holds_for: str,
    ended: tuple[bool, ...],
) -> SymbolicProblem:
    """The problem of these entries (sympy expressions) as elements of one ring."""
    import sympy

    n_states, n_actions, steps = shape
    kind = critic if isinstance(critic, CriticKind) else CriticKind.ANY
    symbols = list(free_symbols(entries))
    values = np.array(
        [[sympy.Symbol(f"v_{t}_{s}") for s in range(n_states)] for t in range(steps + 1)]
    )
    if not isinstance(critic, CriticKind):
        values = each(exact, critic)
    elif kind.is_arbitrary:
        symbols += _critic_symbols(values, symbols)
    player = PolicySymbols.of(TABULAR, n_states, n_actions)
    ring = PolicyRing((player,), tuple(symbols))
    rewards = np.asarray(entries["rewards"], dtype=object)
    if rewards.ndim < 4:
        rewards = np.broadcast_to(rewards[..., None], (steps, *shape[:2], n_states))
    elements = {
        "policy": ring.policies[0],
        "transition": nested(ring, entries["transition"]),
        "start": nested(ring, entries["start"]),
        "rewards": nested(ring, rewards),
        "discount": ring.element(entries["discount"]),
        "critic": nested(ring, values) if kind.is_arbitrary else [],
    }
    # Integer coefficients add up several times as fast as rational ones.
    domain = ring.whole if all(map(_is_integral, elements.values())) else ring.rational
    known = {name: _in_ring(domain, value) for name, value in elements.items()}
    problem = ExactProblem(**known, ended=ended, zero=domain.zero, one=domain.one)
    return SymbolicProblem(ring, problem.with_critic(kind, known["critic"]), holds_for)


def _critic_symbols(values: Any, symbols: list[Any]) -> list[Any]:
    """The critic's symbols. Raises ValueError if the problem has some of their names."""
    taken = sorted({str(s) for s in values.ravel()} & {str(s) for s in symbols})
    if taken:
        raise ValueError(f"entries: expected symbols other than the critic's, got {taken[0]}")
    return list(values.ravel())


def _is_integral(value: Any) -> bool:
    """Whether no coefficient, of an element or of a list's elements, has a denominator."""
    if isinstance(value, list):
        return all(map(_is_integral, value))
    return all(coefficient.denominator == 1 for coefficient in value.values())


def _in_ring(ring: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_in_ring(ring, part) for part in value]
    return value.set_ring(ring)
