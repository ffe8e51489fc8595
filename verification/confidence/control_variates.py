"""Control variates: quantities of known mean from the same draws, which take off shared noise.

The coefficients come from draws that are not used again: given them, the mean is unchanged.
"""

from __future__ import annotations

import numpy as np

from gradbias.analytic.utils.validation import FloatArray

_ROUNDING = 1e-10


def control_coefficients(values: FloatArray, controls: FloatArray) -> FloatArray:
    """The regression coefficients ``[D]`` of ``values [B, D]`` on ``controls [B, D]``, for each
    component on its own.
    """
    gaps = controls - controls.mean(axis=0)
    spread = (gaps**2).sum(axis=0)
    crossed = (gaps * (values - values.mean(axis=0))).sum(axis=0)
    # A control that varies by rounding alone gets 0: the quotient would be one of rounding errors.
    varies = spread > _ROUNDING**2 * (controls**2).sum(axis=0)
    return np.where(varies, crossed / np.where(varies, spread, 1.0), 0.0)
