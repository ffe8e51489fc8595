"""The tolerance at which two derivations agree."""

import numpy as np

RELATIVE = 1e-10
TINY = 1e-12


def close(found, wanted, scale):
    """Whether both agree to 1e-10 relative, or to 1e-12 of the natural scale where tiny."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    gap = np.abs(found - wanted).max(initial=0.0)
    return bool(gap <= max(RELATIVE * np.linalg.norm(wanted), TINY * scale))
