"""What is claimed of the surrogates for trajectories that another policy drew."""

from dataclasses import replace

import numpy as np

from gradbias.analytic.problems.games import StochasticGame
from gradbias.analytic.returns.game_derivatives import game_gradient
from gradbias.stochastic.estimators.contexts import Context, OtherPlayer
from gradbias.stochastic.estimators.kinds import estimate, from_surrogate
from gradbias.stochastic.rollouts.trajectories import Trajectories
from tests.mutation import definitions, product_definitions
from tests.mutation.claims import (
    Claim,
    biased,
    built,
    check_close,
    defined,
    frozen,
    is_default,
    refused,
    unbiased,
)
from tests.mutation.problems import record_of, walks
from tests.oracles import brute_force as oracles


def _off_policy(ratio, largest=None):
    return lambda world: world.OffPolicyDice(getattr(world.Ratio, ratio), largest)


def two_players(surrogate, *, off_policy):
    """Claims that it is unbiased for both players' gradient: two steps of a 2x2 game, one state."""

    def check(world):
        rng = np.random.default_rng(0)
        rewards = rng.normal(size=(2, 1, 2, 2))
        game = StochasticGame(np.ones((1, 2, 2, 1)), rewards, 0.9, [1.0], 2)
        own, other, *drawn_at = rng.normal(size=(4, 1, 2))
        joint = np.indices((2,) * 4).reshape(2, 2, 16).swapaxes(1, 2)
        first, second = (actions.reshape(16, 1, 2) for actions in joint)
        behaviour = drawn_at if off_policy else (own, other)
        logs = [np.log(oracles.softmax_rows(mu))[0] for mu in behaviour]
        drawn = logs[0][first], logs[1][second]
        batch = Trajectories(
            np.zeros((16, 1, 3)), first, rewards[0, 0][first, second],
            np.ones((16, 1, 2), dtype=bool), drawn[0], second, rewards[1, 0][first, second],
            drawn[1],
        )  # fmt: skip
        estimator = from_surrogate(getattr(world, surrogate), order=1)
        estimates = estimate(estimator, batch, Context(own, 0.9, other=OtherPlayer(other)))
        weights = np.exp(sum(drawn).sum(axis=(1, 2)))
        wanted = [game_gradient(game, own, other, of=1, wrt=wrt).ravel() for wrt in (1, 2)]
        check_close(weights @ estimates.reshape(16, -1), np.concatenate(wanted))

    return [Claim("bias", check)]


def effective_size(world):
    group = [walks("off policy")[k] for k in (0, 3, 5, 8)]
    weights = np.array([np.exp((walk.log_pi - walk.log_mu).sum()) for walk in group])
    found = float(world.effective_sample_size(record_of("off policy", group)).detach())
    check_close(found, weights.sum() ** 2 / (weights**2).sum())
    record = record_of("off policy", group)
    far = replace(record, log_probs=record.log_probs - 1e3)  # ratios below the smallest float
    check_close(float(world.effective_sample_size(far).detach()), found)


OFF_POLICY_DICE = [
    *unbiased(lambda world: world.off_policy_dice, "off policy", (1, 2)),
    *unbiased(_off_policy("TRAJECTORY"), "off policy", (1, 2)),
    *biased(_off_policy("PER_STEP"), "off policy"),
    *biased(_off_policy("PER_DECISION", 1.05), "off policy"),
    *two_players("off_policy_dice", off_policy=True),
    *defined(_off_policy("TRAJECTORY"), definitions.off_policy_dice("trajectory"), "off policy"),
    *defined(
        lambda world: world.off_policy_dice,
        definitions.off_policy_dice("per decision"),
        "off policy",
    ),
    *defined(_off_policy("PER_STEP"), definitions.off_policy_dice("per step"), "off policy"),
    *defined(
        _off_policy("PER_DECISION", 0.9),
        definitions.off_policy_dice("per decision", 0.9),
        "off policy",
    ),
    *frozen(lambda world: world.OffPolicyDice()),
    *is_default("off_policy_dice", "OffPolicyDice"),
    *built(lambda world: world.OffPolicyDice(max_ratio=0.5)),
    *refused(
        lambda world: world.OffPolicyDice(max_ratio=0.0), "max_ratio: expected a positive number"
    ),
    *refused(
        lambda world: world.OffPolicyDice(max_ratio=-1.0), "max_ratio: expected a positive number"
    ),
]


def _taylor(order=1, lam=1.0):
    return lambda world: world.Taylor(order, lam)


def _v_trace(*largest):
    return lambda world: world.VTrace(*largest)


TAYLOR = [
    *unbiased(lambda world: world.Taylor(), "critic"),
    *unbiased(_taylor(2), "critic", (1, 2)),
    *unbiased(_taylor(3), "off policy", (1, 2)),
    *unbiased(_taylor(3), "group", (3,)),
    *biased(lambda world: world.Taylor(), "critic", 2),
    *unbiased(_taylor(2), "one step", (1, 2)),
    *biased(_taylor(2), "off policy"),
    *defined(lambda world: world.Taylor(), product_definitions.taylor(), "ending"),
    *defined(_taylor(2, 0.5), product_definitions.taylor(2, 0.5), "ending"),
    *defined(_taylor(1, 0.0), product_definitions.taylor(1, 0.0), "off policy"),
    *defined(_taylor(2), product_definitions.taylor(2), "off policy"),
    *defined(_taylor(3), product_definitions.taylor(3), "off policy"),
    *frozen(lambda world: world.Taylor()),
    *refused(_taylor(0), "order: expected"),
    *refused(_taylor(1, 1.1), "gae_lambda: expected"),
    *refused(_taylor(1, -0.1), "gae_lambda: expected"),
]

V_TRACE = [
    *unbiased(lambda world: world.v_trace, "off policy", (1, 2)),
    *unbiased(lambda world: world.v_trace, "critic", (1, 2)),
    *unbiased(lambda world: world.v_trace, "group", (3,)),
    *biased(_v_trace(1.0, 1.0), "off policy"),
    *defined(_v_trace(), product_definitions.v_trace(), "off policy"),
    *defined(_v_trace(), product_definitions.v_trace(), "ending"),
    *defined(_v_trace(1.1, None), product_definitions.v_trace(1.1), "off policy"),
    *defined(_v_trace(None, 0.9), product_definitions.v_trace(np.inf, 0.9), "off policy"),
    *frozen(lambda world: world.VTrace()),
    *is_default("v_trace", "VTrace"),
    *built(_v_trace(0.5, 0.5)),
    *refused(_v_trace(0.0), "max_rho: expected a positive number"),
    *refused(_v_trace(-1.0), "max_rho: expected a positive number"),
    *refused(_v_trace(None, 0.0), "max_c: expected a positive number"),
]
