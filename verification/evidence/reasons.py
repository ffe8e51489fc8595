"""Why a verdict is what it is: reasons that a program can branch on and a person can read."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Why a verdict is what it is. The value of each member is the sentence that says it; the
    numbers that belong to it stand beside it, in a report's ``detail``.
    """

    # UNBIASED, by exact evidence
    WITHIN_TOLERANCE = "the bias is not 0, but within the tolerance"
    ROUNDED = "the bias is no more than the rounding of the estimator's coarsest numbers"
    GUARDED = "the bias is that of a small constant in the estimator, and vanishes with it"
    NOTHING_ON_AVERAGE = "the estimate varies, and does nothing on average"
    # UNBIASED, by sampling
    SIGNIFICANT = "the bias is within the tolerance, but significantly different from 0"
    NOT_SIGNIFICANT = "the bias is not significantly different from 0"
    # UNDECIDED
    MORE_SAMPLES = "the interval contains the tolerance; draw more samples"
    AT_TOLERANCE = (
        "the interval contains the tolerance, and the bias is so near to it that no number of "
        "samples decides; use another tolerance"
    )
    NO_VARIATION = "the interval contains the tolerance, although the estimates do not vary"
    NO_ESTIMATE = "no estimate was drawn"
    ONLY_ZEROS = (
        "every estimate that was drawn is 0, and the target is not; what makes the estimator "
        "differ from 0 may be rare: enumerate, or draw more"
    )
    TOO_FEW_ESTIMATES = (
        "too few estimates were drawn for their mean to be taken for normal; draw more, or give "
        "bounds or a second_moment"
    )
    HEAVY_TAILS = (
        "one estimate makes so much of the sum of squares that the mean is not taken for normal; "
        "give bounds or a second_moment"
    )
    LOW_EFFECTIVE_SIZE = (
        "importance weights leave so small an effective sample size that the mean is not taken "
        "for normal; give a second_moment, more samples, or a nearer behaviour policy"
    )
    RARE_OUTCOMES = (
        "by the exact moments of this problem's known estimates so few outcomes carry their spread "
        "that a sample's mean is not taken for normal; draw more, enumerate, or give bounds or a "
        "second_moment"
    )
    UNKNOWN_TAILS = (
        "the problem is too large to compute how rare the outcomes are that matter, so the mean is "
        "not taken for normal; give bounds or a second_moment"
    )
    CONSTANT_DIFFERENCE = (
        "the difference is the same in all estimates; what would change its mean may be rare, and "
        "was not seen"
    )
    # VACUOUS
    NO_REWARD = (
        "every reward that can be reached is 0; use a longer horizon, another start, or a problem "
        "with rewards"
    )
    ZERO_ESTIMATOR = (
        "the estimator is 0 on every trajectory, as the target is; look at what it multiplies"
    )
    ZERO_TARGET = (
        "the target is 0 to rounding, and the estimate's mean was not found to differ; use another "
        "policy or problem"
    )

    def with_detail(self, detail: str) -> str:
        """The sentence, and the numbers in brackets."""
        return f"{self.value} ({detail})" if detail else self.value


Doubt = tuple[Reason, str]
"""Why a mean is not taken for normal, and the numbers that belong to it."""
