"""Which known mistake explains a bias: the measured mean against the means of mistakes.

Simpler explanations first: a mistake without a free number, then those with one that is fitted (a
scale, another discount), then a known mistake times a scale. The first kind that fits is reported
with all that fit alike: on a small problem several mistakes have one mean, and `diagnose_all` asks
for one that fits on several problems. A number is fitted only
where there is something left to explain: if target and mistakes all lie on one line, as for a
bandit of two actions, a scale would fit anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.diagnosis.gradient_errors import gradient_families, gradient_mistakes
from gradbias.verification.diagnosis.hessian_errors import hessian_families, hessian_mistakes
from gradbias.verification.diagnosis.known_errors import ExactQuantities, Mistake, best_number
from gradbias.verification.diagnosis.matching import EXACT, Case, Cases, Explanation
from gradbias.verification.evidence.reports import BiasReport, Evidence, Verdict

_SHOWN = 3


@dataclass(frozen=True)
class Match:
    """A mistake that explains the mean: ``residual`` is what it leaves, relative like the report's
    bias; ``fitted`` is its free number, where it has one.
    """

    name: str
    what: str
    residual: float
    fitted: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What explains a bias: ``sentence``, the ``matches`` (more than one: they coincide here, or
    sampling does not tell them apart), the ``nearest`` mistakes where none matches, and ``notes``.
    """

    sentence: str
    matches: tuple[Match, ...]
    nearest: tuple[Match, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"diagnosis: {self.sentence}"]
        lines += [f"  fits        {_line(match)}" for match in self.matches]
        lines += [f"  nearest     {_line(match)}" for match in self.nearest]
        lines += [f"  note        {note}" for note in self.notes]
        return "\n".join(lines)


def diagnose(report: BiasReport, *, action_baseline: npt.ArrayLike | None = None) -> Diagnosis:
    """The known errors that give the report's mean, at the setting that it was measured at.

    With exact evidence an error matches to rounding. With sampling the error's mean lies in the
    confidence region of the measured one, at the report's false-alarm rate. Trajectories are taken
    to be drawn on policy.

    Args:
        report: from `measure_bias` or `measure_bias_sequentially`.
        action_baseline: a baseline ``[S, A]`` of the estimator's own that depends on the action.

    Returns:
        A `Diagnosis`: its ``matches`` are the errors that give the mean.

    Raises:
        ValueError: the report has no setting (as those of meta-gradients), or the baseline's shape
            does not fit.

    >>> from gradbias.analytic import TabularMDP
    >>> from gradbias.stochastic import from_surrogate, lvc
    >>> from gradbias.verification import measure_bias
    >>> mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=3)
    >>> theta = [[1.0, 0.0], [0.0, 0.5], [0.3, 0.0]]
    >>> report = measure_bias(from_surrogate(lvc, order=2), mdp, theta)
    >>> [match.name for match in diagnose(report).matches]
    ['LVC']
    """
    return _explain(Cases((Case.of(report, action_baseline),)))


def diagnose_all(reports: Iterable[BiasReport]) -> Diagnosis:
    """The known errors that give the means of all reports on one estimator.

    An error that cannot be made on some problem, as a shift by a step where there is only one, is
    compared on the others.

    Args:
        reports: from `measure_bias`, on several problems; the first is the biased one.

    Returns:
        A `Diagnosis`.

    Raises:
        ValueError: a report has no setting.
    """
    return _explain(Cases(tuple(Case.of(report) for report in reports)))


def _explain(found: Cases) -> Diagnosis:
    report = found.all[0].report
    tested = report.verdict is not Verdict.VACUOUS or report.relative_bias > report.tolerance
    if report.verdict is Verdict.UNBIASED or not tested:
        return Diagnosis(f"nothing to explain: the verdict is {report.verdict.value}", ())
    slips, known = found.collected(_scales), found.collected(_mistakes)
    kinds, notes = [lambda: [*slips, *known]], []
    if found.explained_by(found.target):
        notes.append("the target itself is not ruled out: more samples would tell")
    if _dimensions([found.stacked(one) for one in (found.target, *known)]) < 2:
        notes.append(
            "target and known mistakes lie on one line here, so a fitted scale would say nothing; "
            "more states, actions or steps would tell more"
        )
    elif found.means.any():
        kinds += [lambda: list(_fitted(found)), lambda: [_scaled(found, one) for one in known]]
    return _first_that_fits(found, kinds, tuple(notes))


def _first_that_fits(
    found: Cases, kinds: list[Callable[[], list[Explanation]]], notes: tuple[str, ...]
) -> Diagnosis:
    seen: list[Match] = []
    for kind in kinds:
        tried = [(one, _match(found, one)) for one in kind()]
        fits = [match for one, match in tried if found.explained_by(one)]
        if fits:
            ordered = tuple(sorted(fits, key=lambda m: m.residual))
            return Diagnosis(_sentence(ordered, found), ordered, (), notes)
        seen += [match for _, match in tried]
    nearest = sorted(seen, key=lambda m: m.residual)[:_SHOWN]
    return Diagnosis(_unknown(nearest, found), (), tuple(nearest), notes)


def _match(found: Cases, one: Explanation) -> Match:
    return Match(one.name, one.what, found.residual(one), one.fitted)


def _mistakes(quantities: ExactQuantities, report: BiasReport) -> Iterable[Mistake]:
    if report.target.order == 1:
        return gradient_mistakes(quantities)
    return hessian_mistakes(quantities) if report.target.order == 2 else ()


def _scales(quantities: ExactQuantities, report: BiasReport) -> Iterator[Mistake]:
    """The target times a number that a slip gives."""
    steps, n, target = quantities.steps, report.batch_size, report.exact
    yield Mistake("sign", "the target with the wrong sign", -target)
    what = f"a mean over the {steps} steps instead of a sum"
    yield Mistake("mean over steps", what, target / steps, "a mean over the steps, not a sum")
    what = f"the target times the {steps} steps"
    yield Mistake("times steps", what, steps * target, "the target times the number of steps")
    what = "steps that count gamma^(t + 1): the target times gamma"
    yield Mistake("one gamma too many", what, quantities.mdp.discount * target)
    if n == 1:
        return
    what = f"a sum over {n} trajectories, not a mean"
    yield Mistake("sum over trajectories", what, n * target)
    what = f"a mean over {n} trajectories divided by {n} once more"
    yield Mistake("divided twice", what, target / n)
    what = f"the target times (N - 1) / N, N = {n}: each trajectory is in its own baseline"
    yield Mistake("own baseline", what, (n - 1) / n * target)


def _fitted(found: Cases) -> Iterator[Explanation]:
    """Mistakes with one number, at the number that fits best."""
    if any(case.report.exact.any() for case in found.all):
        yield replace(found.scaled(found.target), name="pure scale")
    of = {1: gradient_families, 2: hessian_families}.get(found.all[0].report.target.order)
    for family in () if of is None else found.families(of):
        best = best_number(found.means, family)
        what = family.what.format(x=f"{best:.6g}")
        one = found.at_number(family.name, what, family.value(best), best)
        if found.told_from_target(one):
            yield one


def _scaled(found: Cases, known: Explanation) -> Explanation:
    return replace(found.scaled(known), name=f"{known.name}, scaled")


def _dimensions(values: list[FloatArray]) -> int:
    """Of the space that they span, to rounding."""
    matrix = np.stack([value.ravel() for value in values])
    sizes = np.linalg.norm(matrix, axis=1)
    kept = matrix[sizes > EXACT * sizes.max()]
    if not len(kept):
        return 0
    singular = np.linalg.svd(kept / np.linalg.norm(kept, axis=1)[:, None], compute_uv=False)
    return int((singular > EXACT * singular[0]).sum())


def _sentence(matches: tuple[Match, ...], found: Cases) -> str:
    if len(matches) == 1:
        return f"the mean is that of {matches[0].what}{_everywhere(found)}"
    why = "sampling does not tell them apart"
    if found.all[0].report.evidence is not Evidence.SAMPLING:
        where = _everywhere(found).lstrip(",") or " at this MDP and policy"
        why = f"they have one mean{where}"
    names = "; or ".join(match.what for match in matches)
    return f"the mean fits {len(matches)} known mistakes alike ({why}): that of {names}"


def _everywhere(found: Cases) -> str:
    return f", on all {len(found.all)} problems compared" if len(found.all) > 1 else ""


def _unknown(nearest: list[Match], found: Cases) -> str:
    opening = f"no known mistake gives this mean{_everywhere(found)}"
    if not nearest:
        return opening
    best = nearest[0]
    return (
        f"{opening}; the nearest, {best.what}, is off by "
        f"{100 * best.residual:.3g}% of what the bias is measured by"
    )


def _line(match: Match) -> str:
    return f"{match.name}: {match.what} (residual {match.residual:.3g})"
