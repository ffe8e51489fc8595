"""What is claimed of the inner-loop surrogates that depend on meta-parameters."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.returns.derivatives import gradient
from tests.mutation import definitions
from tests.mutation.claims import check_close, defined, fact, frozen, refused, unbiased
from tests.mutation.definitions import advantages, discounting, mean_of_walks
from tests.mutation.problems import DISCOUNT, record_of, setting, walks

REWARD = np.random.default_rng(5).normal(size=(3, 2))
FACTORS = (0.6, 0.8)


def _meta(phi):
    return {"meta": {"phi": torch.tensor(np.array(phi))}}


def _paid_more():
    """The gradient of the return with the intrinsic reward in it."""
    where = setting("ending")
    live = np.where(where.mdp.terminal[:, None], 0.0, REWARD)
    mdp = replace(where.mdp, reward=where.mdp.reward + live[:, :, None])
    value = gradient(mdp, where.theta)
    return GivenTarget("the gradient of the return with the intrinsic reward", value)


def _with_reward(walk):
    return replace(walk, rewards=walk.rewards + REWARD[walk.states[:-1], walk.actions] * walk.alive)


def _dice_with_reward(group):
    return definitions.dice([_with_reward(walk) for walk in group])


def _paying(world, shape):
    """The intrinsic reward of a phi of that shape, on a record with two actions."""
    record = SimpleNamespace(log_policy=torch.zeros(1, 1, 2), meta={"phi": torch.zeros(shape)})
    world.IntrinsicReward(world.ad)(record)


INTRINSIC_REWARD = [
    *unbiased(
        lambda world: world.IntrinsicReward(world.ad), "ending", target=_paid_more, **_meta(REWARD)
    ),
    *defined(
        lambda world: world.IntrinsicReward(world.dice),
        _dice_with_reward,
        "ending",
        **_meta(REWARD),
    ),
    *frozen(lambda world: world.IntrinsicReward(world.ad)),
    *refused(lambda world: _paying(world, (1, 3)), "phi: expected shape [S, 2], got (1, 3)"),
    *refused(lambda world: _paying(world, (1, 2, 2)), "phi: expected shape [S, 2], got (1, 2, 2)"),
]


def _lambda_return(kind, weights=None):
    """Its definition, with the factor of AD, LVC or Loaded-DiCE."""

    def one(walk):
        given = discounting(walk) if weights is None else np.array(weights)
        c = given * advantages(walk, FACTORS[1], FACTORS[0])
        later = np.maximum.outer(np.arange(walk.horizon), np.arange(walk.horizon))
        return {
            "AD": (c @ walk.log_pi, c, np.zeros_like(later)),
            "LVC": (c.sum(), c, np.diag(c)),
            "Loaded-DiCE": (0.0, c, c[later]),
        }[kind]

    return mean_of_walks(one)


def _slopes_in_phi(world):
    """The gradient's derivatives in phi, lambda 0 and discount 0 included, by the complex step."""
    group = [walks("ending")[k] for k in (0, 3, -1)]
    for phi in (FACTORS, (0.6, 0.0), (0.0, 0.5)):
        leaf = torch.tensor(phi, dtype=torch.float64, requires_grad=True)
        record = replace(record_of("ending", group), meta={"phi": leaf})
        (slope,) = torch.autograd.grad(world.LambdaReturn()(record), leaf)
        step, wanted = 1e-30, []
        for moved in ((step * 1j, 0), (0, step * 1j)):
            discount, lam = phi[0] + moved[0], phi[1] + moved[1]
            value = sum(
                (discounting(walk) * _complex_advantages(walk, lam, discount)) @ walk.log_pi
                for walk in group
            )
            wanted.append(value.imag / step / len(group))
        check_close(slope.numpy(), wanted)


def _complex_advantages(walk, lam, discount):
    found, after = np.zeros(walk.horizon, dtype=complex), 0.0
    for t in reversed(range(walk.horizon)):
        error = walk.rewards[t] + discount * walk.values[t + 1] - walk.values[t]
        after = found[t] = (error + discount * lam * after) * walk.alive[t]
    return found


LAMBDA_RETURN = [
    *defined(lambda world: world.LambdaReturn(), _lambda_return("AD"), "ending", **_meta(FACTORS)),
    *defined(
        lambda world: world.LambdaReturn(world.probability_ratios),
        _lambda_return("LVC"),
        "ending",
        **_meta(FACTORS),
    ),
    *defined(
        lambda world: world.LambdaReturn(world.path_ratio_steps),
        _lambda_return("Loaded-DiCE"),
        "ending",
        **_meta(FACTORS),
    ),
    *unbiased(lambda world: world.LambdaReturn(), "critic", **_meta((DISCOUNT, 1.0))),
    *fact(_slopes_in_phi),
    *frozen(lambda world: world.LambdaReturn()),
]
