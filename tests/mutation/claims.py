"""The kinds of claims about surrogates, each checked on a `World` of theirs.

A claim is a function of a `World`. Three kinds: ``bias`` (the exact mean is the target's value, or
a known closed form, by the project's own check), ``spread`` (the exact mean and variance are those
of the surrogate's definition, written apart in numpy), ``fact`` (values, records, arguments).
"""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from functools import cache

import numpy as np

from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from tests.mutation import definitions
from tests.mutation.problems import record_of, setting, walks

KINDS = ("bias", "spread", "fact")


@dataclass(frozen=True, eq=False)
class Claim:
    """``check`` raises AssertionError where a world's surrogate does not keep the claim."""

    kind: str
    check: Callable


def _report(made, name, order, n, **more):
    where = setting(name)
    options = {"batch_size": n, "evidence": "enumeration"} | where.options | more
    return measure_bias(from_surrogate(made, order=order), where.mdp, where.theta, **options)


def unbiased(make, name, orders=(1,), *, n=None, target=None, **more):
    """Claims that ``make(world)`` is unbiased for the return's derivatives, or for a target."""

    def at(order):
        def check(world):
            report = _report(make(world), name, order, n, target=target and target(), **more)
            assert report.verdict is Verdict.UNBIASED, str(report)

        return Claim("bias", check)

    return [at(order) for order in orders]


def biased(make, name, order=1, *, n=None, scale=None, **more):
    """Claims that it is biased, and with ``scale`` that its mean is that multiple of the target."""

    def check(world):
        report = _report(make(world), name, order, n, **more)
        assert report.verdict is Verdict.BIASED, str(report)
        if scale is not None:
            assert abs(report.direction.scale - scale) < 1e-10, report.direction
            assert report.direction.residual < 1e-9, report.direction

    return [Claim("bias", check)]


def mean_is(make, name, order, value, *, n=None):
    """Claims that the exact mean is ``value()``, within 1e-10 relative."""
    wanted = cache(value)

    def check(world):
        check_close(_report(make(world), name, order, n).mean, wanted())

    return [Claim("bias", check)]


def defined(make, definition, name, orders=(1, 2), *, n=1, **more):
    """Claims that values, and exact means and variances at orders, are those of a definition."""

    def at(order):
        def check(world):
            report = _report(make(world), name, order, n, **more)
            for found, wanted in zip(
                (report.mean, report.variance),
                definitions.moments(name, definition, order, n),
                strict=True,
            ):
                check_close(found, wanted.reshape(found.shape))

        return Claim("spread", check)

    def check_value(world):
        surrogate = make(world)
        for group in groups(name, n):
            value = surrogate(record_of(name, group, **more))
            check_close(float(value.detach()), definition(group)[0])

    return [*(at(order) for order in orders), Claim("fact", check_value)]


def groups(name, n):
    """Three groups of n walks, which are unlike."""
    every = sorted(walks(name), key=lambda walk: int(walk.alive.sum()))
    start = (0, len(every) // 2, len(every) - 1)
    return [[every[(k + 3 * i) % len(every)] for i in range(n)] for k in start]


def check_close(found, wanted):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    gap = np.abs(found - wanted).max(initial=0.0)
    assert gap <= 1e-10 * max(np.abs(wanted).max(initial=0.0), 1e-2), (found, wanted)


def fact(check):
    return [Claim("fact", check)]


def refused(call, text):
    """Claims that ``call(world)`` raises a ValueError with that text."""

    def check(world):
        try:
            call(world)
            said = "nothing"
        except ValueError as error:
            said = str(error)
        assert text in said, f"expected {text!r}, got {said!r}"

    return fact(check)


def frozen(make):
    """Claims that it is a record that does not change and can be looked up."""

    def check(world):
        made = make(world)
        assert made == make(world)
        assert hash(made) == hash(make(world))
        for name in list(vars(made)) or ["new"]:
            try:
                setattr(made, name, None)
            except FrozenInstanceError:
                continue
            raise AssertionError(f"{name} can be set")

    return fact(check)


def built(call):
    """Claims that ``call(world)`` raises nothing."""
    return fact(lambda world: call(world) and None)


def is_default(instance, kind, *arguments):
    """Claims that a named record is what its class makes of these arguments."""

    def check(world):
        assert getattr(world, instance) == getattr(world, kind)(*arguments)

    return fact(check)
