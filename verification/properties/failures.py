"""The message of a failed property: the problem as code, the bias, its target, the known error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradbias.analytic.policies.softmax import TabularSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.diagnosis.diagnose import diagnose_all
from gradbias.verification.evidence.reports import BiasReport, Verdict, counted
from gradbias.verification.properties.search import BiasFoundError, Example, Search
from gradbias.verification.properties.source_code import (
    as_constructor,
    as_line,
    as_lists,
    as_policy,
)

_MAX_PRINTED = 64
"""The largest number of components whose mean and target are printed."""

_COMPARED = 7
"""Problems beside the smallest one on which a known error has to give the mean too."""


def failure(search: Search, biased: BiasFoundError, diagnosis: Sequence[str]) -> str:
    """The message; ``diagnosis`` are its lines on the known error."""
    report, example = biased.report, biased.example
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
    if report.bias.size <= _MAX_PRINTED:
        lines += [f"  mean        {as_line(report.mean)}", f"  target      {as_line(report.exact)}"]
    lines += diagnosis
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
    """The problem's states, actions and steps, in words."""
    steps = "infinite horizon" if problem.horizon is None else f"horizon {problem.horizon}"
    actions = problem.n_actions
    joint = isinstance(actions, tuple)
    choices = f"{actions[0]} x {actions[1]} actions" if joint else counted(actions, "action")
    return f"{counted(problem.n_states, 'state')}, {choices}, {steps}"


def diagnosed(first: BiasReport, others: Sequence[BiasReport]) -> list[str]:
    """The lines on the known error that explains the bias on the first problem.

    It must give the mean on every one of the other problems too: on the smallest one, where most
    terms are 0, too many known errors would.
    """
    if first.target.order not in (1, 2):
        return []
    kept = sorted(others, key=_informativeness, reverse=True)[:_COMPARED]
    diagnosis = diagnose_all([first, *kept])
    if diagnosis.matches and not kept:
        alone = "compared on this problem alone; on a small one many known errors have one mean"
        diagnosis = replace(diagnosis, notes=(*diagnosis.notes, alone))
    return [f"  diagnosis   {diagnosis.sentence}", *str(diagnosis).splitlines()[1:]]


def _informativeness(report: BiasReport) -> tuple[bool, int, int]:
    """A sort key: larger for biased examples, then for general ones, where known errors differ."""
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
