"""The 1/N part of what sampled steps add, where Hessians are those of biased estimates: against
Richardson's extrapolation of exact values for three N, by enumeration."""

from itertools import pairwise

import numpy as np
import pytest

from gradbias.analytic.meta.bilevel import Lirpg, Maml
from gradbias.analytic.meta.compositional_bias import compositional_bias, expected_path
from gradbias.analytic.meta.compositional_expansion import leading_compositional_bias
from gradbias.analytic.moments.estimators import Curvature
from gradbias.analytic.moments.trajectory_classes import Credit
from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.bounds.biased_hessians import with_hessian_error

LOOP = {"steps": 2, "step_size": 0.7}
ARMS = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.5]], 0.9, [1.0], horizon=1)
DECIDED = TabularMDP(
    np.broadcast_to(np.eye(2), (2, 2, 2)), [[1.0, 0.2], [-0.4, 0.5]], 0.9, [1.0, 0.0], horizon=2
)


def given(mdp, lirpg):
    rng = np.random.default_rng(3)
    phi, theta = 0.5 * rng.normal(size=(2, mdp.n_states, 2))
    return (Lirpg(mdp), phi, theta) if lirpg else (Maml(mdp), theta, None)


def limit(arguments, curvature, times, counts, loop=LOOP):
    """N times what sampled steps add, extrapolated to 1/N = 0."""
    problem, *rest = arguments
    inner = expected_path(*arguments, *loop.values(), Credit.REWARD_TO_GO, None).inner
    erring = with_hessian_error(problem, inner, curvature, times)
    found = [
        n * compositional_bias(erring, *rest, **loop, batch_size=n).meta_gradient for n in counts
    ]
    order = 1
    while len(found) > 1:
        found = [(2**order * two - one) / (2**order - 1) for one, two in pairwise(found)]
        order += 1
    return found[0]


@pytest.mark.parametrize("lirpg", [False, True])
@pytest.mark.parametrize("times", [1.0, 0.3])
def test_ad_s_hessians_bend_with_the_sampled_path(lirpg, times):
    arguments = given(ARMS, lirpg)
    wanted = limit(arguments, Curvature.AD, times, (16, 32, 64, 128))
    asked = {"curvature": Curvature.AD, "hessian_error": times}
    found = leading_compositional_bias(*arguments, **LOOP, **asked).meta_gradient
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-6 * np.abs(wanted).max())
    without = leading_compositional_bias(*arguments, **LOOP).meta_gradient
    assert np.abs(without - wanted).max() > 1e-2 * np.abs(wanted).max()  # exact Hessians' part


@pytest.mark.parametrize("lirpg", [False, True])
def test_lvc_s_hessians_bend_with_the_sampled_path(lirpg):
    """Small steps, as N stays small here: what is of higher order is then small too."""
    arguments, loop = given(DECIDED, lirpg), LOOP | {"step_size": 0.1}
    wanted = limit(arguments, Curvature.LVC, 1.0, (2, 4, 8), loop)
    found = leading_compositional_bias(*arguments, **loop, curvature=Curvature.LVC).meta_gradient
    without = leading_compositional_bias(*arguments, **loop).meta_gradient
    error = np.abs(found - wanted).max()
    assert error < 2e-4 * np.abs(wanted).max()
    assert np.abs(without - wanted).max() > 20 * error


def test_dice_s_hessians_are_exact_ones():
    arguments = given(DECIDED, False)
    exact = leading_compositional_bias(*arguments, **LOOP).meta_gradient
    dice = leading_compositional_bias(*arguments, **LOOP, curvature=Curvature.DICE).meta_gradient
    none = {"curvature": Curvature.AD, "hessian_error": 0.0}
    still = leading_compositional_bias(*arguments, **LOOP, **none).meta_gradient
    np.testing.assert_array_equal(dice, exact)
    np.testing.assert_allclose(still, exact, rtol=1e-14)


def test_bad_input_is_named():
    theta, bad = np.zeros((2, 2)), "curvature: expected rewards-to-go, no critic and a tabular"
    with pytest.raises(ValueError, match="curvature: expected a Curvature"):
        leading_compositional_bias(Maml(DECIDED), theta, **LOOP, curvature="ad")
    with pytest.raises(ValueError, match="hessian_error: expected"):
        leading_compositional_bias(Maml(DECIDED), theta, **LOOP, hessian_error=-1.0)
    asked = LOOP | {"curvature": Curvature.AD}
    for options in ({"critic": [0.5, 0.5]}, {"credit": Credit.TOTAL_RETURN}):
        with pytest.raises(ValueError, match=bad):
            leading_compositional_bias(Maml(DECIDED), theta, **asked, **options)
    linear = Maml(DECIDED, LinearSoftmax(np.ones((2, 2, 1))))
    with pytest.raises(ValueError, match=bad):
        leading_compositional_bias(linear, np.zeros(1), **asked)
