"""What a failed property prints: the problem as code, the bias, its target, what it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TabularSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.diagnosis.diagnose import Diagnosis, diagnose_all
from gradbias.verification.evidence.reports import BiasReport, Verdict, counted
from gradbias.verification.properties.search import BiasFoundError, Example, Search
from gradbias.verification.properties.source_code import (
    as_constructor,
    as_line,
    as_lists,
    as_policy,
)

_SHOWN = 64
_COMPARED = 7


def failure(search: Search, found: BiasFoundError, explained: Sequence[str]) -> str:
    """The text; ``explained`` are the lines on what it looks like."""
    report, example = found.report, found.example
    lines = [
        f"{report.estimator} is biased for {report.target}.",
        f"The smallest problem found ({sizes(example.problem)}):",
        "",
        code(example),
        "",
        str(report),
    ]
    if report.interval is not None:
        lines.append(f"  drawn       with rng=np.random.default_rng({example.seed})")
    if report.bias.size <= _SHOWN:
        lines += [f"  mean        {as_line(report.mean)}", f"  target      {as_line(report.exact)}"]
    lines += explained
    vacuous = search.verdicts[Verdict.VACUOUS]
    lines += [f"  found on    example {search.examples}, of which {vacuous} vacuous"]
    return "\n".join(lines)


def code(example: Example) -> str:
    """Python that makes the problem and the parameters."""
    is_mdp = isinstance(example.problem, TabularMDP)
    names = ("theta",) if is_mdp else ("meta_parameters", "theta")
    lines = [f"{'mdp' if is_mdp else 'game'} = {as_constructor(example.problem)}"]
    if not isinstance(example.policy, TabularSoftmax):
        lines.append(f"policy = {as_policy(example.policy)}")
    parameters = zip(names, example.parameters, strict=True)
    lines += [f"{name} = {as_lists(array)}" for name, array in parameters]
    return "\n".join(lines)


def sizes(problem: Any) -> str:
    """Its states, actions and steps, in words."""
    steps = "infinite horizon" if problem.horizon is None else f"horizon {problem.horizon}"
    actions = problem.n_actions
    chosen = (
        f"{actions[0]} x {actions[1]} actions"
        if isinstance(actions, tuple)
        else counted(actions, "action")
    )
    return f"{counted(problem.n_states, 'state')}, {chosen}, {steps}"


def diagnosed(first: BiasReport, others: Sequence[BiasReport]) -> list[str]:
    """The lines on which known error explains the biased first and the others.

    An error is one only if it gives the mean on every problem: on the smallest one, where most
    terms are 0, too many would.
    """
    if first.target.order not in (1, 2):
        return []
    kept = sorted(others, key=_tells, reverse=True)[:_COMPARED]
    found = diagnose_all([first, *kept])
    if found.matches and not kept:
        alone = "compared on this problem alone; on a small one many errors have one mean"
        found = replace(found, notes=(*found.notes, alone))
    return _lines(found)


def _lines(found: Diagnosis) -> list[str]:
    return [f"  diagnosis   {found.sentence}", *str(found).splitlines()[1:]]


def _tells(report: BiasReport) -> tuple[bool, int, int]:
    """The biased ones first, then those where little is special: on these errors differ."""
    assert report.setting is not None
    mdp, theta = report.setting.mdp, report.setting.theta
    general = (
        mdp.horizon != 1,
        mdp.n_states > 1,
        bool((mdp.transition != mdp.transition[:, :1]).any()),
        0.0 < mdp.discount < 1.0,
        bool(theta.any()),
        np.unique(mdp.reward).size > 2,
    )
    return report.verdict is Verdict.BIASED, sum(general), np.unique(report.exact.round(12)).size
