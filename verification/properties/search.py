"""The search for a counter-example: the examples that were measured, and their verdicts.

A problem on which nothing was tested (VACUOUS), or nothing decided, is no evidence. Measurements
after a bias was found serve to make the example smaller, or to explain it, and are not counted.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.evidence.reports import BiasReport, Evidence, Verdict
from gradbias.verification.properties.ledgers import LedgerEntry

_COMPARED = 24
"""Examples that are drawn to compare known errors on, after a bias was found."""


@dataclass(frozen=True, eq=False)
class Example:
    """A problem and the parameters of its policy, or of both players' policies."""

    problem: Any
    parameters: tuple[FloatArray, ...]
    policy: Policy = TABULAR

    @property
    def digest(self) -> bytes:
        """A hash that is equal for equal examples, which Hypothesis may draw many times."""
        problem = self.problem
        features = getattr(self.policy, "features", np.zeros(0))
        rewards = problem.rewards if hasattr(problem, "rewards") else problem.reward
        arrays = (problem.transition, rewards, problem.start, features, *self.parameters)
        shapes = [np.shape(array) for array in arrays]
        players = getattr(problem, "policies", ())
        kinds: list[Any] = [getattr(policy, "features", None) is None for policy in players]
        kinds.append(type(self.policy).__qualname__)
        content = hashlib.sha256(repr((problem.discount, problem.horizon, shapes, kinds)).encode())
        for array in arrays:
            content.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        return content.digest()

    @property
    def seed(self) -> int:
        """The seed of all sampling on this example, which depends on the example alone."""
        return int.from_bytes(self.digest[:8], "big")


Measure = Callable[[Example, float], BiasReport]
"""Measures the estimator on an example, at a false-alarm rate."""


class BiasFoundError(AssertionError):
    """An example on which the estimator is biased."""

    def __init__(self, report: BiasReport, example: Example) -> None:
        super().__init__(report.sentence())
        self.report, self.example = report, example


class NotMeasuredError(Exception):
    """An example on which measuring raised ``__cause__``."""

    def __init__(self, example: Example) -> None:
        super().__init__("the estimator could not be measured")
        self.example = example


@dataclass
class Search:
    """A search over at most ``max_examples`` examples, each sampled one of which spends ``rate``.

    ``verdicts`` and ``evidence`` count the examples up to the first that is biased, ``sampled``
    those with sampled evidence, whose smallest detectable biases are ``detectable``. ``reports``
    has all measurements by the example's digest.
    """

    name: str
    measure: Measure
    max_examples: int
    rate: float
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    evidence: Counter[str] = field(default_factory=Counter)
    sampled: int = 0
    detectable: list[float] = field(default_factory=list)
    reports: dict[bytes, BiasReport] = field(default_factory=dict)
    failed: bool = False

    @property
    def examples(self) -> int:
        """The number of examples that were measured, up to the first that failed."""
        return self.verdicts.total()

    def run(self, stages: list[st.SearchStrategy[Example]]) -> None:
        """Measures examples of each stage. Raises BiasFoundError or NotMeasuredError, with the
        smallest such example of its stage.
        """
        share = -(-self.max_examples // len(stages))
        for stage in stages[-self.max_examples :]:
            if (left := self.max_examples - self.examples) > 0:
                self._over(stage, min(share, left))

    def _over(self, examples: st.SearchStrategy[Example], count: int) -> None:
        """Lets Hypothesis draw ``count`` examples, and shrink one that is biased."""

        def unbiased(example: Example) -> None:
            self.check(example)

        # The name is what Hypothesis files failures under.
        unbiased.__name__ = re.sub(r"\W+", "_", self.name)
        quiet = settings(
            max_examples=count,
            deadline=None,
            print_blob=False,
            phases=[Phase.reuse, Phase.generate, Phase.shrink],  # not "explain": it is slow
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        )
        quiet(given(examples)(unbiased))()

    def check(self, example: Example) -> None:
        """Measures and counts one example. Raises BiasFoundError if it is biased."""
        key = example.digest
        report = self.reports.get(key)
        if report is None:
            if self.examples >= self.max_examples and not self.failed:
                return  # the false-alarm rate is divided among max_examples examples
            report = self.reports[key] = self._measured(example)
            if not self.failed:
                self._count(report)
        if report.verdict is Verdict.BIASED:
            self.failed = True
            raise BiasFoundError(report, example)

    def first_biased(self, simpler: Iterable[Example], biased: BiasFoundError) -> BiasFoundError:
        """The first of the ``simpler`` examples that is biased; ``biased`` if there is none."""
        if biased.report.evidence is Evidence.SAMPLING:
            return biased
        for example in simpler:
            try:
                self.check(example)
            except BiasFoundError as first:
                return first
            except NotMeasuredError:
                continue
        return biased

    def more(self, examples: st.SearchStrategy[Example]) -> list[BiasReport]:
        """Exact reports on more examples, to compare known errors on; the same in every run."""
        reports: dict[bytes, BiasReport] = {}
        too_slow = False

        @settings(
            max_examples=_COMPARED,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(examples)
        def measure(example: Example) -> None:
            nonlocal too_slow
            key = example.digest
            if key in reports or too_slow:
                return
            try:
                report = self.reports.get(key) or self._measured(example)
            except NotMeasuredError:
                return
            too_slow = report.evidence is Evidence.SAMPLING
            if not too_slow:
                reports[key] = report

        measure()
        return list(reports.values())

    def _measured(self, example: Example) -> BiasReport:
        """The report on an example. Raises NotMeasuredError for whatever measuring raises."""
        try:
            return self.measure(example, self.rate)
        except Exception as error:
            self.failed = True
            raise NotMeasuredError(example) from error

    def _count(self, report: BiasReport) -> None:
        """Counts an example by its report."""
        self.verdicts[report.verdict] += 1
        self.evidence[report.evidence.value] += 1
        if report.interval is not None:
            self.sampled += 1
            self.detectable.append(report.smallest_detectable or 0.0)

    @property
    def informative(self) -> int:
        """The number of examples that are evidence, for or against."""
        return self.verdicts[Verdict.UNBIASED] + self.verdicts[Verdict.BIASED]

    def is_informative(self, min_share: float) -> bool:
        """Whether that share of the examples is evidence, and at least one."""
        return self.informative >= max(1.0, min_share * self.examples)

    def claim(self, min_share: float) -> LedgerEntry:
        """All examples as one claim."""
        return LedgerEntry(
            held=not self.failed and self.is_informative(min_share),
            evidence=dict(self.evidence),
            vacuous=self.verdicts[Verdict.VACUOUS],
            undecided=self.verdicts[Verdict.UNDECIDED],
            spent=self.sampled * self.rate,
            smallest_detectable=max(self.detectable, default=None),
        )

    def shortfall(self, min_share: float) -> str:
        """The sentence on too few informative examples."""
        needed = f"at least the share {min_share:g}" if min_share else "at least one"
        return (
            f"{self.name}: only {self.informative} of {self.examples} problems were informative "
            f"({self.verdicts[Verdict.VACUOUS]} vacuous, {self.verdicts[Verdict.UNDECIDED]} "
            f"undecided), and a test needs {needed}; draw other problems, or take more samples"
        )
