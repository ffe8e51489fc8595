"""Problems whose entries are symbols, or the rationals of a given problem."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.symbolic.models import exact_rows, free_symbols
from gradbias.analytic.symbolic.policy_rings import PolicyRing, PolicySymbols, each, exact
from gradbias.analytic.symbolic.problems import SymbolicMDP
from gradbias.verification.proofs.exact_problems import ExactProblem, SymbolicProblem


def of_shape(shape: tuple[int, int, int], critic: str) -> SymbolicProblem:
    """All of that shape: symbols ``rho_s``, ``P_s_a_u``, ``r_s_a``, ``gamma`` and ``v_t_s``; the
    last probability of each row is 1 minus the others.
    """
    n_states, n_actions, _ = shape
    kernel = np.empty((n_states, n_actions, n_states), dtype=object)
    reward = np.empty((n_states, n_actions), dtype=object)
    for s, a in product(range(n_states), range(n_actions)):
        reward[s, a] = f"r_{s}_{a}"
        kernel[s, a] = _row(f"P_{s}_{a}", n_states)
    mdp = {"transition": kernel, "rewards": reward, "discount": "gamma"}
    mdp["start"] = np.array(_row("rho", n_states), dtype=object)
    found = {name: each(exact, np.array(value, dtype=object)) for name, value in mdp.items()}
    found["discount"] = found["discount"].item()
    names = "every policy, transition law, reward r(s, a), discount and start, no terminal states"
    return _assembled(found, shape, critic, names, (False,) * n_states)


def _row(name: str, size: int) -> list[str]:
    names = [f"{name}_{u}" for u in range(size - 1)]
    return [*names, " - ".join(["1", *names])]


def of_symbolic_mdp(mdp: SymbolicMDP, critic: str) -> SymbolicProblem:
    """A problem with entries of the caller's. Raises ValueError for an infinite horizon, or another
    policy than a tabular softmax.
    """
    if mdp.horizon is None or mdp.policy is not TABULAR:
        raise ValueError("shape: expected a problem of finite horizon with a tabular policy")
    entries = dict(mdp._entries)
    entries["rewards"] = entries["rewards"][0]
    others = ", ".join(map(str, free_symbols(entries)))
    names = "every policy" + (f" and {others}" if others else "") + ", of the given problem"
    names += " with its rewards r(s, a)"
    shape = (*mdp.shape, mdp.horizon)
    ended = tuple(
        all(row[s] == 1 for row in entries["transition"][s])
        and not any(entries["rewards"][..., s, :].ravel())
        for s in range(shape[0])
    )
    if others:
        names += " and no more terminal states"
    return _assembled(entries, shape, critic, names, ended)


def of_mdp(mdp: TabularMDP, critic: Any) -> SymbolicProblem:
    """A problem in floating point, with its numbers as rationals; the critic may be an array
    ``[H + 1, S]``.
    """
    if mdp.horizon is None:
        raise ValueError("evidence: symbolic is for finite horizons")
    table = np.broadcast_to(mdp.next_state_reward, (mdp.horizon, *mdp.transition.shape))
    entries = {
        "transition": exact_rows(mdp.transition),
        "rewards": each(exact, table),
        "discount": exact(mdp.discount),
        "start": exact_rows(mdp.start),
    }
    shape = (mdp.n_states, mdp.n_actions, mdp.horizon)
    ended = tuple(bool(x) for x in mdp.terminal)
    return _assembled(entries, shape, critic, "every policy, at this problem", ended)


def _assembled(
    entries: dict[str, Any],
    shape: tuple[int, int, int],
    critic: Any,
    names: str,
    ended: tuple[bool, ...],
) -> SymbolicProblem:
    import sympy

    n_states, n_actions, steps = shape
    anything = np.array(
        [[sympy.Symbol(f"v_{t}_{s}") for s in range(n_states)] for t in range(steps + 1)]
    )
    symbols = list(free_symbols(entries))
    if not isinstance(critic, str):
        anything = each(exact, critic)
    elif critic.startswith("any"):
        symbols += _not_taken(list(anything.ravel()), symbols)
        names += ", any critic" + (" that is 0 at the horizon" if "0" in critic else "")
    else:
        names += f", {critic} critic"
    player = PolicySymbols.of(TABULAR, n_states, n_actions)
    ring = PolicyRing((player,), tuple(symbols))
    rewards = np.asarray(entries["rewards"], dtype=object)
    if rewards.ndim < 4:
        rewards = np.broadcast_to(rewards[..., None], (steps, *shape[:2], n_states))
    kind = critic if isinstance(critic, str) else "any"
    elements = {
        "policy": ring.policies[0],
        "transition": _lifted(ring, entries["transition"]),
        "start": _lifted(ring, entries["start"]),
        "rewards": _lifted(ring, rewards),
        "discount": ring.element(entries["discount"]),
        "critic": _lifted(ring, anything) if kind.startswith("any") else [],
    }
    own = ring.whole if all(map(_is_whole, elements.values())) else ring.rational
    known = {name: _in_ring(own, value) for name, value in elements.items()}
    problem = ExactProblem(**known, ended=ended, zero=own.zero, one=own.one)
    return SymbolicProblem(ring, problem.with_critic(kind, known["critic"]), names)


def _not_taken(new: list[Any], symbols: list[Any]) -> list[Any]:
    """The critic's symbols. Raises ValueError where the problem has some of their names."""
    taken = sorted({str(s) for s in new} & {str(s) for s in symbols})
    if taken:
        raise ValueError(f"entries: expected symbols other than the critic's, got {taken[0]}")
    return new


def _is_whole(value: Any) -> bool:
    """Whether no coefficient has a denominator: whole numbers add up several times as fast."""
    if isinstance(value, list):
        return all(map(_is_whole, value))
    return all(coefficient.denominator == 1 for coefficient in value.values())


def _in_ring(ring: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_in_ring(ring, part) for part in value]
    return value.set_ring(ring)


def _lifted(ring: PolicyRing, array: Any) -> Any:
    if np.ndim(array) == 0:
        return ring.element(array)
    return [_lifted(ring, part) for part in array]
