"""Which method a sequential measurement takes, and what it needs: ranges, or a second moment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy.typing as npt

from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.confidence.scaled_sequences import Method
from gradbias.verification.evidence.ranges import ComponentRange, component_range
from gradbias.verification.sequential.draws import Draws
from gradbias.verification.sequential.functionals import shaped

Bounds = tuple[npt.ArrayLike, npt.ArrayLike]


@dataclass(frozen=True, eq=False)
class MethodChoice:
    """What the caller said of the method."""

    method: str | Method
    bounds: Bounds | None
    second_moment: npt.ArrayLike | None
    projections: int | None


_WANTS = {
    Method.BETTING: "bounds",
    Method.EMPIRICAL_BERNSTEIN: "bounds",
    Method.TRUNCATED: "second_moment",
}


def chosen_method(draws: Draws, given: MethodChoice) -> tuple[Method, ComponentRange | None]:
    """The method, with the range that it needs."""
    known = _known_range(draws, given)
    method = _named_method(given, known)
    unused = {"bounds": given.bounds, "second_moment": given.second_moment}
    unused.pop(_WANTS.get(method, ""), None)
    for name, argument in unused.items():
        if argument is not None:
            raise ValueError(f"{name}: not used by method {method.value}; give one of the two")
    if method in (Method.BETTING, Method.EMPIRICAL_BERNSTEIN) and known is None:
        raise ValueError(
            f"method: {method.value} needs the range of {draws.asked.estimator.name}'s estimates, "
            "which is not known here; give bounds=(low, high), or a second_moment"
        )
    if method is Method.TRUNCATED and given.second_moment is None:
        raise ValueError("method: truncated needs second_moment, a bound of E[x^2]")
    return method, known


def _named_method(given: MethodChoice, known: ComponentRange | None) -> Method:
    if given.method == "auto":
        if given.second_moment is not None:
            return Method.TRUNCATED
        return Method.ASYMPTOTIC if known is None else Method.BETTING
    try:
        return Method(given.method)
    except ValueError:
        names = ", ".join(["auto", *(m.value for m in Method)])
        raise ValueError(f"method: expected one of {names}, got {given.method!r}") from None


def _known_range(draws: Draws, given: MethodChoice) -> ComponentRange | None:
    shape = draws.asked.shape
    if given.bounds is not None:
        ends: object = given.bounds
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise ValueError(f"bounds: expected (low, high), got {ends!r}")
        low, high = (shaped("bounds", end, shape) for end in ends)
        if not (low <= high).all():
            raise ValueError("bounds: expected low <= high everywhere")
        return ComponentRange(low, high)
    known = component_range(draws.asked)  # a mean over N trajectories is in the range of one
    if draws.control is None or known is None:
        return known
    return known if control_range(draws) is not None else None


def control_range(draws: Draws) -> ComponentRange | None:
    """That of the control variate, on the same trajectories; None where none is known."""
    assert draws.control is not None
    return component_range(replace(draws.asked, estimator=draws.control.estimator))


def second_moment_of(given: MethodChoice, shape: tuple[int, ...]) -> FloatArray:
    """The one that was given, for each component. Raises ValueError where it is negative."""
    moment = shaped("second_moment", given.second_moment, shape).ravel()
    if (moment < 0).any():
        raise ValueError(f"second_moment: expected numbers >= 0, got {moment.min():g}")
    return moment
