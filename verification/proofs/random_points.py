"""A random problem and policy in fractions, and the same with its policy in symbols."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TABULAR
from gradbias.analytic.symbolic.policy_rings import PolicyRing, PolicySymbols
from gradbias.verification.proofs.exact_problems import ExactProblem, SymbolicProblem


def random_problem(
    shape: tuple[int, int, int], critic: str, size: int, rng: np.random.Generator
) -> ExactProblem:
    """One of that shape, in fractions: every free coordinate is drawn uniformly from ``size``
    numbers. Probabilities are positive, rewards are ``r_t(s, a, s')``.
    """
    n_states, n_actions, steps = shape

    def row(count: int) -> list[Fraction]:
        free = [
            Fraction(int(rng.integers(1, size + 1)), (size + 1) * count) for _ in range(count - 1)
        ]
        return [*free, 1 - sum(free, Fraction(0))]

    def numbers(*counts: int) -> Any:
        if not counts:
            return Fraction(int(rng.integers(1, size + 1)) - size // 2)
        return [numbers(*counts[1:]) for _ in range(counts[0])]

    problem = ExactProblem(
        policy=[row(n_actions) for _ in range(n_states)],
        transition=[[row(n_states) for _ in range(n_actions)] for _ in range(n_states)],
        start=row(n_states),
        rewards=numbers(steps, n_states, n_actions, n_states),
        discount=Fraction(int(rng.integers(1, size + 1)), size),
        critic=None,
        ended=(False,) * n_states,
        zero=Fraction(0),
        one=Fraction(1),
    )
    return problem.with_critic(critic, numbers(steps + 1, n_states))


def with_symbolic_policy(problem: ExactProblem) -> SymbolicProblem:
    """A problem in fractions with its policy in symbols."""
    n_states, n_actions, _ = problem.shape
    ring = PolicyRing((PolicySymbols.of(TABULAR, n_states, n_actions),))

    def lifted(value: Any) -> Any:
        if isinstance(value, Fraction):
            number = ring.rational.domain(value.numerator, value.denominator)
            return ring.rational.ground_new(number)
        return [lifted(part) for part in value]

    found = replace(
        problem,
        policy=ring.policies[0],
        transition=lifted(problem.transition),
        start=lifted(problem.start),
        rewards=lifted(problem.rewards),
        discount=lifted(problem.discount),
        critic=lifted(problem.critic),
        zero=ring.rational.zero,
        one=ring.rational.one,
    )
    return SymbolicProblem(ring, found, "every policy, at one problem")
