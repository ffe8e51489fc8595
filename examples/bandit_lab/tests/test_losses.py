"""For all small MDPs: which derivatives of the project's losses are right."""

import bandit_lab
import numpy as np
import pytest

from gradbias.analytic import TabularMDP
from gradbias.stochastic import from_surrogate
from gradbias.verification import for_all_mdps

test_the_gradient_of_the_plain_loss_is_right = for_all_mdps(
    bandit_lab.policy_gradient_loss, order=1, max_examples=40
)
test_the_hessian_of_dice_is_right = for_all_mdps(bandit_lab.dice_loss, order=2, max_examples=40)

broken = pytest.mark.xfail(strict=True, raises=AssertionError, reason="a known bias")
test_the_hessian_of_the_plain_loss_is_right = broken(
    for_all_mdps(bandit_lab.policy_gradient_loss, order=2)
)
test_the_hessian_of_lvc_is_right = broken(for_all_mdps(bandit_lab.lvc_loss, order=2))


def test_the_hessian_of_dice_on_the_problem_that_we_train_on(gradbias):
    """One problem, by name, within the same budget."""
    mdp = TabularMDP.random(3, 2, rng=np.random.default_rng(0), discount=0.9, horizon=4)
    gradbias.assert_unbiased(from_surrogate(bandit_lab.dice_loss, order=2), mdp, np.zeros((3, 2)))
