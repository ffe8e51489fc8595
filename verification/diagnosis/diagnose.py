"""Which known error explains a bias: the measured mean beside the means of known errors.

Simpler explanations come first: errors without a free number, then those with a number that is
fitted (a scale, another discount), then a known error times a scale. The first kind that fits is
reported, with all errors of that kind that fit: on a small problem several have the same mean, so
`diagnose_all` looks for one that fits on several problems. A number is not fitted where target and
errors all lie on one line, as for a bandit of two actions: there a scale fits anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.diagnosis.gradient_errors import gradient_errors, gradient_families
from gradbias.verification.diagnosis.hessian_errors import hessian_errors, hessian_families
from gradbias.verification.diagnosis.known_errors import ExactQuantities, KnownError, best_number
from gradbias.verification.diagnosis.matching import EXACT, Case, Cases, Explanation
from gradbias.verification.evidence.reports import BiasReport, Evidence, Verdict

_SHOWN = 3


@dataclass(frozen=True)
class Match:
    """A known error beside the measured mean.

    Attributes:
        name: the error's name.
        what: what was probably done, in words that follow "the mean is that of".
        residual: the distance of its mean from the measured one, relative like the report's bias.
        fitted: its free number, where it has one.
    """

    name: str
    what: str
    residual: float
    fitted: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What explains a bias.

    Attributes:
        sentence: the answer.
        matches: the errors that give the mean; if there are several, they coincide here, or
            sampling does not tell them apart.
        nearest: the errors that come nearest, where none matches.
        notes: what else a reader should know.
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
        action_baseline: the estimator's baseline ``[S, A]``, if that depends on the action.

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

    An error that is impossible on some problem, such as a shift by a step where there is only one
    step, is compared on the others.

    Args:
        reports: from `measure_bias`, on several problems; the first is the biased one.

    Returns:
        A `Diagnosis`.

    Raises:
        ValueError: a report has no setting.
    """
    return _explain(Cases(tuple(Case.of(report) for report in reports)))


def _explain(cases: Cases) -> Diagnosis:
    report = cases.all[0].report
    tested = report.verdict is not Verdict.VACUOUS or report.relative_bias > report.tolerance
    if report.verdict is Verdict.UNBIASED or not tested:
        return Diagnosis(f"nothing to explain: the verdict is {report.verdict.value}", ())
    scales, known = cases.collected(_scales), cases.collected(_errors)
    kinds, notes = [lambda: [*scales, *known]], []
    if cases.explained_by(cases.target):
        notes.append("the target itself is not ruled out: more samples would tell")
    if _dimensions([cases.stacked(each) for each in (cases.target, *known)]) < 2:
        notes.append(
            "target and known errors lie on one line here, so a fitted scale would say nothing; "
            "more states, actions or steps would tell more"
        )
    elif cases.means.any():
        kinds += [lambda: list(_fitted(cases)), lambda: [_scaled(cases, each) for each in known]]
    return _first_that_fits(cases, kinds, tuple(notes))


def _first_that_fits(
    cases: Cases, kinds: list[Callable[[], list[Explanation]]], notes: tuple[str, ...]
) -> Diagnosis:
    seen: list[Match] = []
    for kind in kinds:
        tried = [(explanation, _match(cases, explanation)) for explanation in kind()]
        fits = [match for explanation, match in tried if cases.explained_by(explanation)]
        if fits:
            ordered = tuple(sorted(fits, key=lambda m: m.residual))
            return Diagnosis(_sentence(ordered, cases), ordered, (), notes)
        seen += [match for _, match in tried]
    nearest = sorted(seen, key=lambda m: m.residual)[:_SHOWN]
    return Diagnosis(_unknown(nearest, cases), (), tuple(nearest), notes)


def _match(cases: Cases, explanation: Explanation) -> Match:
    residual = cases.residual(explanation)
    return Match(explanation.name, explanation.what, residual, explanation.fitted)


def _errors(quantities: ExactQuantities, report: BiasReport) -> Iterable[KnownError]:
    if report.target.order == 1:
        return gradient_errors(quantities)
    return hessian_errors(quantities) if report.target.order == 2 else ()


def _scales(quantities: ExactQuantities, report: BiasReport) -> Iterator[KnownError]:
    """The errors whose mean is a multiple of the target."""
    steps, n, target = quantities.steps, report.batch_size, report.exact
    yield KnownError("sign", "the target with the wrong sign", -target)
    what = f"a mean over the {steps} steps instead of a sum"
    yield KnownError("mean over steps", what, target / steps, "a mean over the steps, not a sum")
    what = f"the target times the {steps} steps"
    yield KnownError("times steps", what, steps * target, "the target times the number of steps")
    what = "steps that count gamma^(t + 1): the target times gamma"
    yield KnownError("one gamma too many", what, quantities.mdp.discount * target)
    if n == 1:
        return
    what = f"a sum over {n} trajectories, not a mean"
    yield KnownError("sum over trajectories", what, n * target)
    what = f"a mean over {n} trajectories divided by {n} once more"
    yield KnownError("divided twice", what, target / n)
    what = f"the target times (N - 1) / N, N = {n}: each trajectory is in its own baseline"
    yield KnownError("own baseline", what, (n - 1) / n * target)


def _fitted(cases: Cases) -> Iterator[Explanation]:
    """Errors with one number, at the number that fits best."""
    if any(case.report.exact.any() for case in cases.all):
        yield replace(cases.scaled(cases.target), name="pure scale")
    of = {1: gradient_families, 2: hessian_families}.get(cases.all[0].report.target.order)
    for family in () if of is None else cases.families(of):
        best = best_number(cases.means, family)
        what = family.what.format(x=f"{best:.6g}")
        explanation = cases.at_number(family.name, what, family.value(best), best)
        if cases.told_from_target(explanation):
            yield explanation


def _scaled(cases: Cases, known: Explanation) -> Explanation:
    return replace(cases.scaled(known), name=f"{known.name}, scaled")


def _dimensions(values: list[FloatArray]) -> int:
    """The dimension of the space that the values span, to rounding."""
    matrix = np.stack([value.ravel() for value in values])
    sizes = np.linalg.norm(matrix, axis=1)
    kept = matrix[sizes > EXACT * sizes.max()]
    if not len(kept):
        return 0
    singular = np.linalg.svd(kept / np.linalg.norm(kept, axis=1)[:, None], compute_uv=False)
    return int((singular > EXACT * singular[0]).sum())


def _sentence(matches: tuple[Match, ...], cases: Cases) -> str:
    if len(matches) == 1:
        return f"the mean is that of {matches[0].what}{_everywhere(cases)}"
    why = "sampling does not tell them apart"
    if cases.all[0].report.evidence is not Evidence.SAMPLING:
        where = _everywhere(cases).lstrip(",") or " at this MDP and policy"
        why = f"they have one mean{where}"
    names = "; or ".join(match.what for match in matches)
    return f"the mean fits {len(matches)} known errors alike ({why}): that of {names}"


def _everywhere(cases: Cases) -> str:
    return f", on all {len(cases.all)} problems compared" if len(cases.all) > 1 else ""


def _unknown(nearest: list[Match], cases: Cases) -> str:
    opening = f"no known error gives this mean{_everywhere(cases)}"
    if not nearest:
        return opening
    best = nearest[0]
    return (
        f"{opening}; the nearest, {best.what}, is off by "
        f"{100 * best.residual:.3g}% of what the bias is measured by"
    )


def _line(match: Match) -> str:
    return f"{match.name}: {match.what} (residual {match.residual:.3g})"
