"""Which bias a sequential measurement finds: before it starts, and by where it stopped.

It says BIASED where the lower end of the norm's interval is above the tolerance t. Let a component
have the true bias b_k and the interval [L_k, U_k] around its target. Where ``|b_k|`` is above the
nearest point of the interval by r_k at most, the norm's lower end is at least ``|b| - |r|``, by the
triangle inequality; so biases of a norm above ``t + |r|`` are found. The direction that a pilot
chose can only find more. r comes from

- *where it stopped*, `detectable_norm`: a second box at the missed-bias rate holds all means, at
  all times at once, so that r_k is at most the distance of its upper end from L_k, or of U_k from
  its lower end;
- *the design*, `SequentialDesign`: after n observations betting refutes the mean less r_k but for
  a D-th of the missed-bias rate (`verification.confidence.mean_tests`). A run may also end sooner,
  wrongly UNBIASED: with at most the false-alarm rate, which is therefore taken off the missed-bias
  rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.verification.confidence.mean_tests import MeanTest
from gradbias.verification.evidence.verdicts import ErrorRates
from gradbias.verification.sequential.functionals import Functionals, split_rates, stretches
from gradbias.verification.sequential.stream import Stream

_MAX_SAMPLES = 10**15


def detectable_norm(
    stream: Stream, functionals: Functionals, tolerated: float, rates: ErrorRates
) -> float:
    """The bias norm from which on a run that stopped here has said BIASED, but for the probability
    ``missed_bias``; with a normal mean approximately, as its interval.
    """
    claims = stream.intervals.claims
    count = len(claims) - (functionals.direction is not None)
    rate = rates.missed_bias if functionals.projections is None else rates.missed_bias / 2
    ours, spread = split_rates(stream, functionals, rates.false_alarm)
    second = ours.copy()  # the direction's is not used
    second[:count] = rate / max(int(claims[:count].sum()), 1)
    low, high = (end[:count] for end in stream.intervals.bounds(ours))
    lowest, highest = (end[:count] for end in stream.intervals.bounds(second))
    reach = float(np.linalg.norm(np.maximum(highest - low, high - lowest)))
    if functionals.projections is None:
        return tolerated + reach
    # In lengths of the projections, and back with their factor at the other half of the rate.
    length = tolerated * stretches(count, spread)[1] + reach
    return length / stretches(count, rate)[0]


@dataclass(frozen=True, eq=False)
class SequentialDesign:
    """What betting on components with ranges of ``widths [D]`` finds to be above ``tolerated`` (a
    norm), whatever their law.

    ``missed_bias`` holds for each bias of that norm, in any direction, if it is above the rate
    ``false_alarm``; else nothing is promised.
    """

    widths: FloatArray
    tolerated: float
    false_alarm: float
    missed_bias: float

    def smallest_detectable_bias(self, n: int) -> float:
        """The smallest bias norm that n estimates find but for the probability ``missed_bias``;
        infinite where none is promised.
        """
        whole_number("n", n, at_least=1)
        count = int((self.widths > 0).sum())
        missed = self.missed_bias - self.false_alarm
        if missed <= 0.0:
            return math.inf
        if count == 0:
            return self.tolerated
        # Half of the rate is kept for the direction, where there is one.
        alone = self.false_alarm / (2 if len(self.widths) > 1 else 1)
        test = MeanTest(0.0, 1.0, alone / count, missed / count)
        size = float(np.linalg.norm(self.widths))
        return self.tolerated + test.smallest_detectable_bias(n) * size

    def samples_needed(self, bias: float) -> int | None:
        """Estimates that find a bias of that norm but for the probability ``missed_bias``; None:
        no number up to 1e15 does.
        """
        high = 1
        while self.smallest_detectable_bias(high) > bias:
            high *= 2
            if high > _MAX_SAMPLES:
                return None
        low = high // 2
        while high - low > max(1, low // 1000):
            middle = (low + high) // 2
            suffices = self.smallest_detectable_bias(middle) <= bias
            low, high = (low, middle) if suffices else (middle, high)
        return high
