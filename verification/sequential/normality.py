"""When is a sampled mean taken for normal? Not early, not off policy where weights leave too few
trajectories, and not where single estimates carry the sum of squares: what cannot be believed
leaves a claim undecided.
"""

from __future__ import annotations

import numpy as np

from gradbias.analytic.policies.softmax import log_softmax
from gradbias.verification.evidence.importance_weights import effective_share
from gradbias.verification.evidence.request import Request
from gradbias.verification.sequential.stream import Stream

FIRST_LOOK = 0.1
"""Share of the budget before which a normal mean decides nothing: few samples show few tails."""

MAX_SHARE = 0.01
"""Of one estimate in the sum of squares, up to which a normal mean is believed: in few samples
that of one which is five deviations off.
"""

MIN_EFFECTIVE = 1000.0
"""Effective trajectories off policy, from which on a normal mean is believed."""


def believed_share(n: int) -> float:
    """The largest share of one of n estimates that a normal mean is believed with."""
    return max(MAX_SHARE, 25.0 / max(n, 1))


def sampled_doubt(stream: Stream, limit: int) -> str | None:
    """Why a normal mean is not believed of the estimates so far, of ``limit`` at most."""
    if stream.count < limit * FIRST_LOOK:
        return (
            f"{stream.count:,} estimates are too few of {limit:,} for their mean to be taken for "
            "normal; draw more, or give bounds or a second_moment"
        )
    share = stream.largest_share
    if share > believed_share(stream.count):
        return (
            f"one of {stream.count:,} estimates makes {100 * share:.3g}% of their sum of "
            "squares: their mean is not taken for normal; give bounds or a second_moment"
        )
    return None


def off_policy_doubt(asked: Request, limit: int) -> str | None:
    """Why a normal mean is not believed of importance-weighted estimates, ``limit`` of them."""
    if np.array_equal(asked.behaviour, asked.context.theta):
        return None
    policy = asked.context.policy
    wanted, drawn = (
        log_softmax(policy.logits(at)) for at in (asked.context.theta, asked.behaviour)
    )
    effective = limit * effective_share(asked.mdp, wanted, drawn, asked.length)
    if effective >= MIN_EFFECTIVE:
        return None
    return (
        f"importance weights leave an effective sample size of {effective:.3g} at the end of the "
        f"budget, less than {MIN_EFFECTIVE:g}, so that the mean is not taken for normal; give a "
        "second_moment, more samples, or a nearer behaviour policy"
    )
