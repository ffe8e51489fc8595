"""A two-armed bandit and its score-function gradient, in numpy."""

import numpy as np

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.mdp import TabularMDP


def bandit():
    return TabularMDP([[[1.0], [1.0]]], [[1.0, -0.5]], 0.9, [1.0], horizon=1)


def score_gradient(batch, theta):
    """REINFORCE on the bandit, in numpy."""
    policy = softmax(theta)[0]
    scores = np.eye(2)[batch.actions[:, 0]] - policy
    return (batch.rewards * scores).mean(axis=0)[None]
