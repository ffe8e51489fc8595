"""What a sequential measurement fixes before it starts: its method with the ranges or the second
moment that this needs, and what a pilot run chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray, choice, whole_number
from gradbias.verification.confidence.control_variates import control_coefficients
from gradbias.verification.confidence.scaled_sequences import (
    Method,
    ScaledSequence,
    truncation_level,
    truncation_slack,
)
from gradbias.verification.confidence.sequences import Betting
from gradbias.verification.evidence.ranges import ComponentRange, component_range
from gradbias.verification.evidence.request import MAX_LOCAL
from gradbias.verification.evidence.verdicts import ErrorRates
from gradbias.verification.sequential.checkpoints import load_checkpoint, restore_generator
from gradbias.verification.sequential.draws import Draws
from gradbias.verification.sequential.functionals import (
    Functionals,
    pilot_direction,
    shaped,
)
from gradbias.verification.sequential.stream import SampledBlock, Stream, with_generator

Bounds = tuple[npt.ArrayLike, npt.ArrayLike]


@dataclass(frozen=True, eq=False)
class MethodChoice:
    """The arguments that choose the method."""

    method: str | Method
    bounds: Bounds | None
    second_moment: npt.ArrayLike | None
    projections: int | None


_WANTS = {
    Method.BETTING: "bounds",
    Method.EMPIRICAL_BERNSTEIN: "bounds",
    Method.TRUNCATED: "second_moment",
}


def chosen_method(draws: Draws, options: MethodChoice) -> tuple[Method, ComponentRange | None]:
    """The method, with the range of the estimates where that is known."""
    known = _known_range(draws, options)
    method = _named_method(options, known)
    unused = {"bounds": options.bounds, "second_moment": options.second_moment}
    unused.pop(_WANTS.get(method, ""), None)
    for name, argument in unused.items():
        if argument is not None:
            raise ValueError(f"{name}: not used by method {method.value}; give one of the two")
    if method in (Method.BETTING, Method.EMPIRICAL_BERNSTEIN) and known is None:
        raise ValueError(
            f"method: {method.value} needs the range of {draws.request.estimator.name}'s "
            "estimates, which is not known here; give bounds=(low, high), or a second_moment"
        )
    if method is Method.TRUNCATED and options.second_moment is None:
        raise ValueError("method: truncated needs second_moment, a bound of E[x^2]")
    return method, known


def _named_method(options: MethodChoice, known: ComponentRange | None) -> Method:
    if options.method == "auto":
        if options.second_moment is not None:
            return Method.TRUNCATED
        return Method.ASYMPTOTIC if known is None else Method.BETTING
    return choice("method", options.method, Method, also=["auto"])


def _known_range(draws: Draws, options: MethodChoice) -> ComponentRange | None:
    shape = draws.request.shape
    if options.bounds is not None:
        ends: object = options.bounds
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise ValueError(f"bounds: expected (low, high), got {ends!r}")
        low, high = (shaped("bounds", end, shape) for end in ends)
        if not (low <= high).all():
            raise ValueError("bounds: expected low <= high everywhere")
        return ComponentRange(low, high)
    known = component_range(draws.request)  # a mean over N trajectories is in the range of one
    if draws.control is None or known is None:
        return known
    return known if control_range(draws) is not None else None


def control_range(draws: Draws) -> ComponentRange | None:
    """The range of the control variate's estimates; None where none is known."""
    assert draws.control is not None
    return component_range(replace(draws.request, estimator=draws.control.estimator))


def second_moment_of(options: MethodChoice, shape: tuple[int, ...]) -> FloatArray:
    """The given second moment, for each component. Raises ValueError where it is negative."""
    moment = shaped("second_moment", options.second_moment, shape).ravel()
    if (moment < 0).any():
        raise ValueError(f"second_moment: expected numbers >= 0, got {moment.min():g}")
    return moment


_PILOT = 1000


@dataclass(frozen=True, eq=False)
class Plan:
    """What is fixed before the first estimate that counts, and the stream of those so far.

    ``coefficients [D]`` are those of the control variate; estimates are truncated at ``level [D]``.
    """

    method: Method
    assumption: str
    functionals: Functionals
    coefficients: FloatArray | None
    level: FloatArray | None
    stream: Stream

    def block(self, draws: Draws, count: int) -> SampledBlock:
        """A block of ``count`` estimates with their functionals."""
        values, controls, largest = draws.take(count)
        if controls is not None and self.coefficients is not None and draws.control is not None:
            mean = np.ravel(draws.control.mean)
            values = values - self.coefficients * (controls - mean)
        if self.level is None:
            return SampledBlock(values, self.functionals.of(values), largest)
        impossible = (values != 0.0) & (self.level == 0.0)
        if impossible.any():
            b, d = np.argwhere(impossible)[0]
            raise ValueError(
                f"second_moment: expected at least E[x^2] of component {d}, got 0 where an "
                f"estimate is {values[b, d]:g}"
            )
        truncated = np.clip(values, -self.level, self.level)
        return SampledBlock(values, self.functionals.of(truncated), largest)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that were fixed, for a checkpoint."""
        named = {
            "projections": self.functionals.projections,
            "direction": self.functionals.direction,
            "coefficients": self.coefficients,
        }
        return {f"plan_{name}": a for name, a in named.items() if a is not None}


def fresh_plan(
    draws: Draws, options: MethodChoice, rates: ErrorRates, exact: FloatArray, limit: int
) -> Plan:
    """A plan from a pilot run, whose estimates are not used again."""
    values, controls = draws.take_all(min(_PILOT, limit // 4))
    coefficients = None
    if controls is not None and draws.control is not None:
        coefficients = control_coefficients(values, controls)
        values = values - coefficients * (controls - np.ravel(draws.control.mean))
    matrix = None
    if options.projections is not None:
        count = whole_number("projections", options.projections, at_least=1)
        most = MAX_LOCAL // max(values.shape[1], draws.block)
        if count > most:
            raise ValueError(f"projections: expected at most {most:,} here, got {count:,}")
        matrix = draws.request.rng.normal(size=(count, values.shape[1]))
    functionals = Functionals(matrix, pilot_direction(values.mean(axis=0) - exact.ravel()))
    plan = _plan(draws, options, rates, limit, functionals, coefficients, values.mean(axis=0))
    return replace(plan, stream=with_generator(plan.stream, draws.request.rng))


def resumed_plan(
    path: Path,
    draws: Draws,
    options: MethodChoice,
    rates: ErrorRates,
    limit: int,
    identity: Mapping[str, Any],
) -> Plan:
    """The plan of a checkpoint. Raises ValueError for a checkpoint of another measurement."""
    arrays, header = load_checkpoint(path)
    known = header.get("identity")
    if known != identity:
        known = known if isinstance(known, dict) else {}
        differing = [k for k in identity if known.get(k) != identity[k]]
        raise ValueError(
            f"checkpoint: {path} is of another measurement ({', '.join(differing)} differ); give "
            "another file, or delete it"
        )
    fixed = {n.removeprefix("plan_"): a for n, a in arrays.items() if n.startswith("plan_")}
    functionals = Functionals(fixed.get("projections"), fixed.get("direction"))
    coefficients, centre = fixed.get("coefficients"), arrays["centre"]
    plan = _plan(draws, options, rates, limit, functionals, coefficients, centre)
    stream = plan.stream.restored(arrays, header["generator"])
    restore_generator(draws.request.rng, stream.generator)
    return replace(plan, stream=stream)


def _plan(
    draws: Draws,
    options: MethodChoice,
    rates: ErrorRates,
    limit: int,
    functionals: Functionals,
    coefficients: FloatArray | None,
    centre: FloatArray,
) -> Plan:
    method, known = chosen_method(draws, options)
    count = len(centre) if functionals.projections is None else len(functionals.projections)
    rate = rates.false_alarm / 2 / count
    level = None
    if method is Method.ASYMPTOTIC:
        count += functionals.direction is not None
        intervals = ScaledSequence.asymptotic(count, max(limit // 4, 1))
        assumption = (
            "approximate: the estimates' mean is taken for normal at all times (asymptotic "
            "confidence sequence); heavy tails that no sample shows exceed the stated rate"
        )
    elif method is Method.TRUNCATED:
        moment = second_moment_of(options, draws.request.shape)
        level = truncation_level(moment, limit, rate)
        intervals = _truncated(functionals, level, truncation_slack(moment, level))
        whose = f"an estimate from N = {draws.n}" if draws.coupled else "one trajectory's estimate"
        assumption = (
            f"E[x^2] of each component of {whose} is at most the second moment that was given; "
            "truncated means, by betting, valid at any stopping time"
        )
    else:
        assert known is not None
        intervals = _ranged(draws, options, known, functionals, coefficients, method, rate)
        whose = "that was given" if options.bounds is not None else "of the worst trajectory"
        assumption = (
            f"none but each component's range, {whose}; {method.value}, valid at any stopping time"
        )
    stream = Stream.empty(intervals, centre)
    return Plan(method, assumption, functionals, coefficients, level, stream)


def _truncated(functionals: Functionals, level: FloatArray, slack: FloatArray) -> ScaledSequence:
    low, high = functionals.range_of(-level, level)
    widened = functionals.range_of(-slack, slack)[1]
    return ScaledSequence(Betting.empty(len(low)), low, high, widened)


def _ranged(
    draws: Draws,
    options: MethodChoice,
    known: ComponentRange,
    functionals: Functionals,
    coefficients: FloatArray | None,
    method: Method,
    rate: float,
) -> ScaledSequence:
    low, high, rounding = _with_control(draws, options, known, coefficients)
    rounded = functionals.range_of(-rounding, rounding)[1]
    return ScaledSequence.bounded(*functionals.range_of(low, high), method, rate, rounded)


def _with_control(
    draws: Draws, options: MethodChoice, known: ComponentRange, coefficients: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The range of ``x - c (y - E y)``, and its rounding; one that was given holds for all of
    that.
    """
    low, high = known.low.ravel(), known.high.ravel()
    rounding = np.full_like(low, known.rounding)
    if options.bounds is not None or coefficients is None or draws.control is None:
        return low, high, rounding
    beside = control_range(draws)
    assert beside is not None
    mean = np.ravel(draws.control.mean)
    shifts = np.stack([coefficients * (e.ravel() - mean) for e in (beside.low, beside.high)])
    rounding = rounding + np.abs(coefficients) * beside.rounding
    return low - shifts.max(axis=0), high - shifts.min(axis=0), rounding
