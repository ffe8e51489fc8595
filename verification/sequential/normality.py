"""When the central limit theorem is trusted.

An asymptotic interval gives no verdict

- before 10% of the budget is drawn: few samples show few tails;
- off policy, with an effective sample size below 1,000 at the end of the budget;
- where one estimate makes more than 1% of the sum of squares;
- where exact moments say that few outcomes carry the spread (`rare_doubt`).
"""

from __future__ import annotations

from gradbias.verification.confidence.norm_intervals import max_share
from gradbias.verification.evidence.reasons import Doubt, Reason
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.sequential.stream import Stream

FIRST_LOOK = 0.1
"""The share of the budget before which a normal mean decides nothing."""

MIN_EFFECTIVE = 1000.0
"""The smallest effective number of trajectories off policy."""


def sampled_doubt(stream: Stream, limit: int) -> Doubt | None:
    """Why the mean of the estimates so far, of at most ``limit``, is not taken for normal."""
    if stream.count < limit * FIRST_LOOK:
        return Reason.TOO_FEW_ESTIMATES, f"{stream.count:,} of {limit:,}"
    share = stream.largest_share
    if share > max_share(stream.count):
        return Reason.HEAVY_TAILS, f"{100 * share:.3g}% in one of {stream.count:,}"
    return None


def off_policy_doubt(setting: Setting, limit: int) -> Doubt | None:
    """Why the mean of ``limit`` importance-weighted estimates is not taken for normal."""
    effective = limit * setting.effective_share
    if setting.on_policy or effective >= MIN_EFFECTIVE:
        return None
    return (
        Reason.LOW_EFFECTIVE_SIZE,
        f"{effective:.3g} at the end of the budget, less than {MIN_EFFECTIVE:g}",
    )
