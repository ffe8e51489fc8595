"""The search for a counter-example: which problems were measured, and what became of them.

A problem on which nothing was tested (VACUOUS), or nothing decided, is no evidence. What is
measured after a bias was found serves to make it smaller, or to explain it, and is not counted.
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
from gradbias.verification.properties.source_code import as_lists

_AROUND, _BELOW = 24, 60
"""Examples that are drawn to explain what was found, and to find a smaller one."""


@dataclass(frozen=True, eq=False)
class Example:
    """A problem and the parameters of its policy, or of both players' policies."""

    problem: Any
    parameters: tuple[FloatArray, ...]
    policy: Policy = TABULAR

    @property
    def digest(self) -> bytes:
        """Equal for equal examples: Hypothesis comes back to one by many ways."""
        one = self.problem
        features = getattr(self.policy, "features", np.zeros(0))
        rewards = one.rewards if hasattr(one, "rewards") else one.reward
        arrays = (one.transition, rewards, one.start, features, *self.parameters)
        shapes = [np.shape(array) for array in arrays]
        kinds: list[Any] = [
            getattr(p, "features", None) is None for p in getattr(one, "policies", ())
        ]
        kinds.append(type(self.policy).__qualname__)
        content = hashlib.sha256(repr((one.discount, one.horizon, shapes, kinds)).encode())
        for array in arrays:
            content.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        return content.digest()

    @property
    def seed(self) -> int:
        """Of what is sampled on it: it depends on the example alone."""
        return int.from_bytes(self.digest[:8], "big")

    @property
    def code(self) -> dict[str, str]:
        """The parameters as Python, by name."""
        return {"theta": as_lists(self.parameters[-1])}


Measure = Callable[[Example, float], BiasReport]
"""At a false-alarm rate."""


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
    """At most ``most`` examples are counted; each sampled one spends ``rate``."""

    name: str
    measured: Measure
    most: int
    rate: float
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    evidence: Counter[str] = field(default_factory=Counter)
    sampled: int = 0
    detectable: list[float] = field(default_factory=list)
    known: dict[bytes, BiasReport] = field(default_factory=dict)
    failed: bool = False

    @property
    def examples(self) -> int:
        """How many were measured, up to the first that failed."""
        return self.verdicts.total()

    def run(self, stages: list[st.SearchStrategy[Example]]) -> None:
        """Looks at the examples of each stage. Raises BiasFoundError or NotMeasuredError, with the
        smallest such example of its stage.
        """
        share = -(-self.most // len(stages))
        looked_at: list[st.SearchStrategy[Example]] = []
        for stage in stages[-self.most :]:
            if (left := self.most - self.examples) > 0:
                try:
                    self._over(stage, min(share, left))
                except BiasFoundError as found:
                    raise self._below(looked_at, found) from None
            looked_at.append(stage)

    def _below(
        self, stages: list[st.SearchStrategy[Example]], found: BiasFoundError
    ) -> BiasFoundError:
        """What more examples of smaller stages show, or what was found."""
        if found.report.evidence is Evidence.SAMPLING:
            return found
        for stage in stages:
            try:
                self._over(stage, _BELOW)
            except BiasFoundError as smaller:
                return smaller
            except NotMeasuredError:
                continue
        return found

    def _over(self, examples: st.SearchStrategy[Example], count: int) -> None:
        def unbiased(example: Example) -> None:
            self.look(example)

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

    def look(self, example: Example) -> None:
        """Measures and counts one example. Raises BiasFoundError if it is biased."""
        key = example.digest
        report = self.known.get(key)
        if report is None:
            if self.examples >= self.most and not self.failed:
                return  # the rate is divided among so many
            report = self.known[key] = self._measured(example)
            if not self.failed:
                self._count(report)
        if report.verdict is Verdict.BIASED:
            self.failed = True
            raise BiasFoundError(report, example)

    def smaller(self, found: BiasFoundError, plain: Iterable[Example]) -> BiasFoundError:
        """The first of the plain examples that is biased, or what was found."""
        if found.report.evidence is Evidence.SAMPLING:
            return found
        for example in plain:
            try:
                self.look(example)
            except BiasFoundError as smaller:
                return smaller
            except NotMeasuredError:
                continue
        return found

    def around(self, examples: st.SearchStrategy[Example]) -> list[BiasReport]:
        """Reports with exact means on more examples, the same ones in every run."""
        found: dict[bytes, BiasReport] = {}
        sampled: list[Example] = []

        @settings(
            max_examples=_AROUND,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(examples)
        def look(example: Example) -> None:
            key = example.digest
            if key in found or sampled:
                return
            try:
                report = self.known.get(key) or self._measured(example)
            except NotMeasuredError:
                return
            if report.evidence is Evidence.SAMPLING:
                sampled.append(example)  # too slow for what it tells
                return
            found[key] = report

        look()
        return list(found.values())

    def _measured(self, example: Example) -> BiasReport:
        try:
            return self.measured(example, self.rate)
        except Exception as error:
            self.failed = True
            raise NotMeasuredError(example) from error

    def _count(self, report: BiasReport) -> None:
        self.verdicts[report.verdict] += 1
        self.evidence[report.evidence.value] += 1
        if report.interval is not None:
            self.sampled += 1
            self.detectable.append(report.smallest_detectable or 0.0)

    @property
    def telling(self) -> int:
        """Examples whose verdict is one."""
        return self.verdicts[Verdict.UNBIASED] + self.verdicts[Verdict.BIASED]

    def is_telling(self, least: float) -> bool:
        """Whether enough of the examples are."""
        return self.telling >= max(1.0, least * self.examples)

    def claim(self, least: float) -> LedgerEntry:
        """All examples as one claim."""
        return LedgerEntry(
            held=not self.failed and self.is_telling(least),
            evidence=dict(self.evidence),
            vacuous=self.verdicts[Verdict.VACUOUS],
            undecided=self.verdicts[Verdict.UNDECIDED],
            spent=self.sampled * self.rate,
            smallest_detectable=max(self.detectable, default=None),
        )

    def shortfall(self, least: float) -> str:
        """The sentence on too few telling examples."""
        wanted = f"fewer than the share {least:g} that is" if least else "and one at least is"
        return (
            f"{self.name}: only {self.telling} of {self.examples} problems told anything "
            f"({self.verdicts[Verdict.VACUOUS]} vacuous, {self.verdicts[Verdict.UNDECIDED]} "
            f"undecided), {wanted} needed for a test; draw other problems, or take more samples"
        )
