"""Which known mistake explains a bias: the measured mean against the means of mistakes.

Simpler explanations first: a mistake without a free number, then those with one that is fitted (a
scale, another discount), then a known mistake times a scale. The first kind that fits is reported
with all that fit alike: on a small problem several mistakes have one mean. A number is fitted only
where there is something left to explain: if target and mistakes all lie on one line, as for a
bandit of two actions, a scale would fit anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analytic.arrays import FloatArray
from analytic.policies import TABULAR, Policy
from analytic.problems import TabularMDP
from verification.gradient_mistakes import gradient_families, gradient_mistakes
from verification.hessian_mistakes import hessian_families, hessian_mistakes
from verification.intervals import Spread
from verification.mistakes import Mistake, Setting, best_number
from verification.reports import BiasReport, Direction, Evidence, Verdict

_EXACT = 1e-9
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


def diagnose(
    report: BiasReport,
    mdp: TabularMDP,
    theta: npt.ArrayLike,
    *,
    critic: npt.ArrayLike | None = None,
    action_baseline: npt.ArrayLike | None = None,
    policy: Policy = TABULAR,
    length: int | None = None,
) -> Diagnosis:
    """The known mistakes that give the report's mean, at the problem and policy it is of.

    ``critic`` is what the estimator was given, ``action_baseline [S, A]`` a baseline of its own
    that depends on the action, ``length`` the steps of its trajectories where the horizon is
    infinite. Exact evidence: what matches does so to rounding. Sampling: the mistake's mean lies in
    the confidence region of the measured one, at the report's false-alarm rate. Trajectories are
    taken to be drawn on policy.

    Raises:
        ValueError: theta, critic or baseline does not fit, or the report is of another problem.

    >>> from stochastic.estimators import from_surrogate
    >>> from stochastic.surrogates.score_function import lvc
    >>> from verification.measurement import measure_bias
    >>> mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=3)
    >>> theta = [[1.0, 0.0], [0.0, 0.5], [0.3, 0.0]]
    >>> report = measure_bias(from_surrogate(lvc, 2), mdp, theta)
    >>> [match.name for match in diagnose(report, mdp, theta).matches]
    ['LVC']
    """
    setting = Setting.of(
        mdp,
        theta,
        critic=critic,
        action_baseline=action_baseline,
        policy=policy,
        length=length,
    )
    shape = setting.at.shape * report.target.order
    if report.mean.shape != shape:
        raise ValueError(f"report: expected a mean of shape {shape}, got {report.mean.shape}")
    tested = report.verdict is not Verdict.VACUOUS or report.relative_bias > report.tolerance
    if report.verdict is Verdict.UNBIASED or not tested:
        return Diagnosis(f"nothing to explain: the verdict is {report.verdict.value}", ())
    return _explained(_Mean.of(report), setting, report)


@dataclass(frozen=True, eq=False)
class _Mean:
    """What is to be explained, and how near is near enough."""

    mean: FloatArray
    target: FloatArray
    normaliser: float
    explains: Callable[[float], bool]
    """Whether a mean at that distance (a norm) explains this one."""

    @classmethod
    def of(cls, report: BiasReport) -> _Mean:
        unit = report.normaliser or 1.0
        if report.evidence is not Evidence.SAMPLING:
            allowed = max(report.tolerance, _EXACT) * unit
            return cls(report.mean, report.exact, unit, lambda distance: distance <= allowed)
        per_estimate = 1 if report.coupled else report.trajectories
        trace = float(report.variance.sum()) * per_estimate
        # The trace bounds the covariance's other norms: the region is wider than need be.
        spread, rate = Spread(trace, trace), report.false_alarm or 1e-3

        def inside(distance: float) -> bool:
            return spread.interval(distance, report.samples, rate).low == 0.0

        return cls(report.mean, report.exact, unit, inside)

    def distance(self, value: FloatArray) -> float:
        return float(np.linalg.norm(self.mean - value))

    def match(self, known: Mistake, fitted: float | None = None) -> Match:
        residual = self.distance(known.value) / self.normaliser
        return Match(known.name, known.what, residual, fitted)

    def told_from_target(self, known: Mistake) -> bool:
        """Whether the mistake moves the mean at all here."""
        gap = float(np.linalg.norm(known.value - self.target))
        return gap > _EXACT * self.normaliser


def _explained(found: _Mean, setting: Setting, report: BiasReport) -> Diagnosis:
    order, notes = report.target.order, []
    known = [one for one in _mistakes(setting, order) if found.told_from_target(one)]
    slips = [one for one in _scales(found, setting, report) if found.told_from_target(one)]
    tried = [(found.match(mistake), mistake.value) for mistake in [*slips, *known]]
    if found.explains(found.distance(found.target)):
        notes.append("the target itself is not ruled out: more samples would tell")
    if _dimensions([found.target, *(mistake.value for mistake in known)]) > 1:
        kinds: tuple[Callable[[], list[tuple[Match, FloatArray]]], ...] = (
            lambda: tried,
            lambda: list(_fitted(found, setting, order)),
            lambda: [_scaled(found, mistake) for mistake in known],
        )
    else:
        kinds = (lambda: tried,)
        notes.append(
            "target and known mistakes lie on one line here, so a fitted scale would say nothing; "
            "more states, actions or steps would tell more"
        )
    seen: list[tuple[Match, FloatArray]] = []
    for kind in kinds:
        seen += (new := kind())
        matches = [m for m, value in new if found.explains(found.distance(value))]
        if matches:
            ordered = tuple(sorted(matches, key=lambda m: m.residual))
            return Diagnosis(_sentence(ordered, report), ordered, (), tuple(notes))
    nearest = sorted((match for match, _ in seen), key=lambda m: m.residual)[:_SHOWN]
    return Diagnosis(_unknown(nearest), (), tuple(nearest), tuple(notes))


def _mistakes(setting: Setting, order: int) -> Iterable[Mistake]:
    if order == 1:
        return gradient_mistakes(setting)
    return hessian_mistakes(setting) if order == 2 else ()


def _scales(found: _Mean, setting: Setting, report: BiasReport) -> Iterator[Mistake]:
    """The target times a number that a slip gives."""
    steps, n = setting.steps, report.trajectories
    slips = {"sign": (-1.0, "the target with the wrong sign")}
    if steps > 1:
        slips["mean over steps"] = (1 / steps, f"a mean over the {steps} steps instead of a sum")
        slips["times steps"] = (float(steps), f"the target times the {steps} steps")
    if n > 1:
        slips["sum over trajectories"] = (float(n), f"a sum over {n} trajectories, not a mean")
        slips["divided twice"] = (1 / n, f"a mean over {n} trajectories divided by {n} once more")
        what = f"the target times (N - 1) / N, N = {n}: each trajectory is in its own baseline"
        slips["own baseline"] = ((n - 1) / n, what)
    for name, (factor, what) in slips.items():
        yield Mistake(name, what, factor * found.target)


def _fitted(found: _Mean, setting: Setting, order: int) -> Iterator[tuple[Match, FloatArray]]:
    """Mistakes with one number, at the number that fits best."""
    target = Mistake("pure scale", "the target", found.target)
    if np.any(found.target):
        yield _scaled(found, target)
    families = {1: gradient_families, 2: hessian_families}.get(order)
    for family in () if families is None else families(setting):
        best = best_number(found.mean, family)
        value = family.value(best)
        known = Mistake(family.name, family.what.format(x=f"{best:.6g}"), value)
        if found.told_from_target(known):
            yield found.match(known, best), value


def _scaled(found: _Mean, known: Mistake) -> tuple[Match, FloatArray]:
    scale = Direction.of(found.mean, known.value).scale
    scale = 0.0 if math.isnan(scale) else scale
    value = scale * known.value
    what = f"{scale:.6g} times {known.what}"
    name = known.name if known.name == "pure scale" else f"{known.name}, scaled"
    return found.match(replace(known, name=name, what=what, value=value), scale), value


def _dimensions(values: list[FloatArray]) -> int:
    """Of the space that they span, to rounding."""
    matrix = np.stack([value.ravel() for value in values])
    sizes = np.linalg.norm(matrix, axis=1)
    kept = matrix[sizes > _EXACT * sizes.max()]
    if not len(kept):
        return 0
    singular = np.linalg.svd(kept / np.linalg.norm(kept, axis=1)[:, None], compute_uv=False)
    return int((singular > _EXACT * singular[0]).sum())


def _sentence(matches: tuple[Match, ...], report: BiasReport) -> str:
    if len(matches) == 1:
        return f"the mean is that of {matches[0].what}"
    why = "sampling does not tell them apart"
    if report.evidence is not Evidence.SAMPLING:
        why = "they have one mean at this MDP and policy"
    names = "; or ".join(match.what for match in matches)
    return f"the mean fits {len(matches)} known mistakes alike ({why}): that of {names}"


def _unknown(nearest: list[Match]) -> str:
    if not nearest:
        return "no known mistake gives this mean"
    best = nearest[0]
    return (
        f"no known mistake gives this mean; the nearest, {best.what}, is off by "
        f"{100 * best.residual:.3g}% of what the bias is measured by"
    )


def _line(match: Match) -> str:
    return f"{match.name}: {match.what} (residual {match.residual:.3g})"
