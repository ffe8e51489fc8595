"""For all small MDPs: a property of an estimator, searched for a counter-example.

Problems and policies are drawn by Hypothesis, in stages of growing size, and each is measured, by
enumeration where that fits. A bias that is found shrinks to the smallest and plainest problem that
shows it. A problem on which nothing was tested (VACUOUS), or nothing decided, counts for nothing:
a search in which too few told anything fails as well.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytic.arrays import FloatArray, real_number, whole_number
from analytic.policies import TABULAR
from analytic.problems import TabularMDP
from analytic.targets import AnyTarget
from stochastic.coefficients import Surrogate
from stochastic.estimators import (
    CallableEstimator,
    DrawEstimator,
    Estimator,
    SurrogateEstimator,
    from_surrogate,
)
from verification.constructors import as_constructor, as_line, as_lists
from verification.diagnosis import diagnose
from verification.error_budgets import ErrorBudget
from verification.ledgers import Claim, Ledger
from verification.measurement import measure_bias
from verification.reports import BiasReport, Verdict
from verification.strategies import policies_for, tabular_mdps

Options = Callable[[TabularMDP, FloatArray], Mapping[str, Any]]
"""What `measure_bias` takes beside the problem, for each one: ``critic``, ``trajectories``..."""

_QUICK = {"samples": 20_000, "enumeration_limit": 50_000}
_SHOWN = 64


def for_all_mdps(
    estimator: Estimator | Surrogate,
    *,
    order: int = 1,
    target: AnyTarget | Callable[[TabularMDP], AnyTarget] | None = None,
    options: Options | Mapping[str, Any] | None = None,
    max_states: int = 3,
    max_actions: int = 3,
    max_horizon: int = 3,
    problems: st.SearchStrategy[TabularMDP] | None = None,
    policies: Callable[[TabularMDP], st.SearchStrategy[FloatArray]] = policies_for,
    max_examples: int = 100,
    least_telling: float = 0.25,
) -> Callable[[Ledger], None]:
    """A test: for all small MDPs and policies, the estimator's mean is its target.

    ``test_my_hessian = for_all_mdps(my_surrogate, order=2)`` in a test file is all; pytest gives it
    the fixture ``gradbias``. Elsewhere, call it with a `Ledger`. A surrogate is differentiated
    ``order`` times; an estimator has its own order. ``target`` is one, or depends on the problem
    (default: the derivative of its own return); ``options`` go to `measure_bias`, and may depend on
    problem and policy. Problems are drawn with 2 to ``max_actions`` actions and up to the other
    sizes, or from ``problems``. It fails with the smallest problem found on which the estimator is
    biased, or where less than the share ``least_telling`` of the examples told anything. Sampled
    examples share the false-alarm rate of one claim.

    Raises:
        ValueError: a size, count or share out of range.

    >>> from stochastic.surrogates.score_function import lvc
    >>> for_all_mdps(lvc, order=1, max_states=2, max_horizon=2, max_examples=10)(Ledger())
    """
    kinds = SurrogateEstimator | CallableEstimator | DrawEstimator
    one = estimator if isinstance(estimator, kinds) else from_surrogate(estimator, order)
    whole_number("max_examples", max_examples, at_least=1)
    real_number("least_telling", least_telling, low=0.0, high=1.0)
    stages = [problems] if problems is not None else _stages(max_states, max_actions, max_horizon)

    def for_all(gradbias: Ledger) -> None:
        rate = ErrorBudget(gradbias.next_rate()).split(examples=max_examples)
        search = _Search(one, target, options, rate)
        share = -(-max_examples // len(stages))
        try:
            for stage in stages:
                examples = min(share, max_examples - search.examples)
                search.run(stage, policies, max(examples, 1))
        except _BiasFoundError as found:
            raise AssertionError(_failure(search, found)) from None
        finally:
            gradbias.record(search.claim(least_telling))
        if not search.is_telling(least_telling):
            raise AssertionError(search.shortfall(least_telling))

    for_all.__doc__ = f"For all small MDPs: {one.name}, order {one.order}, is unbiased."
    return for_all


class _BiasFoundError(AssertionError):
    """A problem on which the estimator is biased."""

    def __init__(self, report: BiasReport, mdp: TabularMDP, theta: FloatArray) -> None:
        super().__init__(report.sentence())
        self.report, self.mdp, self.theta = report, mdp, theta


@dataclass
class _Search:
    """The examples of one property, and what became of them."""

    estimator: Estimator
    target: AnyTarget | Callable[[TabularMDP], AnyTarget] | None
    options: Options | Mapping[str, Any] | None
    rate: float
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    evidence: Counter[str] = field(default_factory=Counter)
    sampled: int = 0
    detectable: list[float] = field(default_factory=list)
    known: dict[bytes, BiasReport] = field(default_factory=dict)
    found: bool = False

    @property
    def examples(self) -> int:
        return self.verdicts.total()

    def run(
        self,
        problems: st.SearchStrategy[TabularMDP],
        policies: Callable[[TabularMDP], st.SearchStrategy[FloatArray]],
        examples: int,
    ) -> None:
        """Measures that many problems. Raises _BiasFoundError with the smallest biased one."""

        def unbiased(example: tuple[TabularMDP, FloatArray]) -> None:
            self.measure(*example)

        # The name is what Hypothesis files failures under.
        unbiased.__name__ = re.sub(
            r"\W+", "_", f"order_{self.estimator.order}_{self.estimator.name}"
        )
        quiet = settings(
            max_examples=examples,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        )
        quiet(given(_examples(problems, policies))(unbiased))()

    def measure(self, mdp: TabularMDP, theta: FloatArray) -> None:
        """Measures and counts one example. Raises _BiasFoundError if it is biased."""
        key = _digest(mdp, theta)
        report = self.known.get(key)
        if report is None:
            options = self.asked(mdp, theta, int.from_bytes(key[:8], "big"))
            report = self.known[key] = measure_bias(self.estimator, mdp, theta, **options)
            if not self.found:  # what comes after is the search for a smaller one
                self.count(report)
        if report.verdict is Verdict.BIASED:
            self.found = True
            raise _BiasFoundError(report, mdp, theta)

    def count(self, report: BiasReport) -> None:
        """Adds one example, measured for the first time."""
        self.verdicts[report.verdict] += 1
        self.evidence[report.evidence.value] += 1
        if report.interval is not None:
            self.sampled += 1
            self.detectable.append(report.smallest_detectable or 0.0)

    def asked(self, mdp: TabularMDP, theta: FloatArray, seed: int) -> dict[str, Any]:
        """The options of one measurement; what is sampled depends on the problem alone."""
        options = self.options(mdp, theta) if callable(self.options) else self.options or {}
        target = self.target(mdp) if callable(self.target) else self.target
        rng = np.random.default_rng(seed)
        return _QUICK | {"rng": rng, "target": target} | dict(options) | {"false_alarm": self.rate}

    @property
    def telling(self) -> int:
        """Examples whose verdict is one."""
        return self.verdicts[Verdict.UNBIASED] + self.verdicts[Verdict.BIASED]

    def is_telling(self, least: float) -> bool:
        """Whether enough of the examples are."""
        return self.telling >= max(1.0, least * self.examples)

    def claim(self, least: float) -> Claim:
        """All examples as one claim."""
        return Claim(
            held=not self.found and self.is_telling(least),
            evidence=dict(self.evidence),
            vacuous=self.verdicts[Verdict.VACUOUS],
            undecided=self.verdicts[Verdict.UNDECIDED],
            spent=self.sampled * self.rate,
            smallest_detectable=max(self.detectable, default=None),
        )

    def shortfall(self, least: float) -> str:
        """The sentence on too few telling examples."""
        return (
            f"{self.estimator.name}: only {self.telling} of {self.examples} problems told anything "
            f"({self.verdicts[Verdict.VACUOUS]} vacuous, {self.verdicts[Verdict.UNDECIDED]} "
            f"undecided), fewer than the share {least:g} that counts as a test; draw other "
            "problems, or take more samples"
        )


def _stages(
    max_states: int, max_actions: int, max_horizon: int
) -> list[st.SearchStrategy[TabularMDP]]:
    """Problems of at most 1 state, 2 actions, 1 step; of at most 2, 2, 2; and so on to the sizes:
    a bias that the smallest problems have is found on them.
    """
    whole_number("max_actions", max_actions, at_least=2)
    bounds = (max_states, max_actions, max_horizon)
    sizes = dict.fromkeys(
        (min(k, bounds[0]), min(max(k, 2), bounds[1]), min(k, bounds[2]))
        for k in range(1, max(bounds) + 1)
    )
    return [tabular_mdps(*size, min_actions=2) for size in sizes]


@st.composite
def _examples(
    draw: st.DrawFn,
    problems: st.SearchStrategy[TabularMDP],
    policies: Callable[[TabularMDP], st.SearchStrategy[FloatArray]],
) -> tuple[TabularMDP, FloatArray]:
    mdp = draw(problems)
    return mdp, np.asarray(draw(policies(mdp)))


def _digest(mdp: TabularMDP, theta: FloatArray) -> bytes:
    """Equal for equal examples: Hypothesis comes back to one by many ways."""
    content = hashlib.sha256(repr((mdp.discount, mdp.horizon, mdp.reward.shape)).encode())
    for array in (mdp.transition, mdp.reward, mdp.start, theta):
        content.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return content.digest()


def _failure(search: _Search, found: _BiasFoundError) -> str:
    """What a failure prints: the problem, the bias and its target, and what it looks like."""
    mdp, theta, report = found.mdp, found.theta, found.report
    steps = "infinite horizon" if mdp.horizon is None else f"horizon {mdp.horizon}"
    states, actions = _counted(mdp.n_states, "state"), _counted(mdp.n_actions, "action")
    lines = [
        f"{report.estimator} is biased for {report.target}.",
        f"The smallest problem found ({states}, {actions}, {steps}):",
        "",
        f"mdp = {as_constructor(mdp)}",
        f"theta = {as_lists(theta)}",
        "",
        str(report),
    ]
    if report.bias.size <= _SHOWN:
        lines += [f"  mean        {as_line(report.mean)}", f"  target      {as_line(report.exact)}"]
    if report.target.order in (1, 2):
        given = search.asked(mdp, theta, 0)
        known = {name: given.get(name) for name in ("critic", "length")}
        diagnosis = diagnose(report, mdp, theta, policy=given.get("policy", TABULAR), **known)
        lines += [f"  diagnosis   {diagnosis.sentence}", *str(diagnosis).splitlines()[1:]]
    vacuous = search.verdicts[Verdict.VACUOUS]
    lines += [f"  found on    example {search.examples}, of which {vacuous} vacuous"]
    return "\n".join(lines)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
