"""How far off policy trajectories are: the share of them that importance weights leave."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray


def effective_share(
    mdp: TabularMDP, log_policy: FloatArray, log_behaviour: FloatArray, steps: int
) -> float:
    """``1 / E[w^2]`` of whole trajectories' ratios w under the behaviour policy, in (0, 1]: what a
    large sample's effective size is of its number. Both policies are ``[S, A]``.

    Source: Kong 1992; the recursion is that of a return with factors ``pi^2 / mu``.
    """
    weights = 2.0 * log_policy - log_behaviour
    weights[mdp.terminal] = log_policy[mdp.terminal]
    # In logarithms: over many steps the second moment is beyond a float.
    second = np.zeros(mdp.n_states)
    for _ in range(steps):
        later = logsumexp(second, b=mdp.transition, axis=-1)
        second = logsumexp(weights + later, axis=-1)
    return float(np.exp(-logsumexp(second, b=mdp.start)))
