"""What is claimed of each public surrogate: a registry, to which a new one adds an entry."""

from dataclasses import replace

import numpy as np
import oracles
import torch
from mutation import definitions
from mutation.claims import (
    Claim,
    biased,
    built,
    check_close,
    defined,
    fact,
    frozen,
    is_default,
    mean_is,
    refused,
    unbiased,
)
from mutation.group_claims import GROUP_RELATIVE, PENALTIES
from mutation.problems import record_of, setting, walks

from analytic.game_derivatives import game_gradient
from analytic.games import StochasticGame
from analytic.targets import GivenWeights, Undiscounted, bootstrapped_gradient, update_field
from analytic.values import state_values
from stochastic.contexts import Context, OtherPlayer
from stochastic.estimators import estimate, from_surrogate
from stochastic.trajectories import Trajectories

UNEVEN = (1.0, 0.5, 0.3)

# Score functions: closed forms of the mean Hessians, from tests/oracles.py.


def _ad_hessian(name, *, reward_to_go=True):
    where = setting(name)
    critic = None if where.critic is None else where.critic[:-1]
    with_critic = oracles.ad_hessian_mean(where.mdp, where.theta, critic)
    if reward_to_go:
        return with_critic
    without = oracles.ad_hessian_mean(where.mdp, where.theta)
    total = oracles.ad_total_return_hessian_mean(where.mdp, where.theta)
    total[where.mdp.terminal] = 0.0  # nothing is chosen after the end
    return total + with_critic - without


def _score_function(kind, definition, hessian):
    """The claims that AD and LVC share; ``hessian(name, reward_to_go)`` is the mean of theirs."""
    found = []
    for to_go in (True, False):
        make = lambda world, to_go=to_go: getattr(world, kind)(reward_to_go=to_go)  # noqa: E731
        found += unbiased(make, "ending") + unbiased(make, "critic")
        for name in ("plain", "ending", "critic"):
            value = lambda name=name, to_go=to_go: hessian(name, reward_to_go=to_go)  # noqa: E731
            found += mean_is(make, name, 2, value)
        found += defined(make, definition(to_go), "ending")
        for weighting, weights in ((Undiscounted(), (1.0,) * 3), (GivenWeights(UNEVEN), UNEVEN)):
            other = lambda world, make=make, w=weighting: replace(make(world), weighting=w)  # noqa: E731
            found += defined(other, definition(to_go, weights), "ending")
            if to_go:
                target = lambda w=weighting: update_field(horizon=3, weighting=w)  # noqa: E731
                found += unbiased(other, "critic", target=target)

    def averaged(world):
        return getattr(world, kind)(reduction=world.Reduction.MEAN_OVER_STEPS)

    found += defined(averaged, definition(True, None, True), "one step", n=2)
    found += defined(averaged, definition(True, None, True), "ending")
    found += defined(averaged, definition(True, None, True), "group", (1,), n=2)
    found += frozen(lambda world: getattr(world, kind)())
    short = lambda world: getattr(world, kind)(weighting=GivenWeights((1.0, 1.0)))  # noqa: E731
    call = lambda world: short(world)(record_of("plain", walks("plain")[:1]))  # noqa: E731
    found += refused(call, "weighting: expected 3 weights, got 2")

    def nothing_alive(world):
        record = record_of("ending", walks("ending")[:2])
        record = replace(record, alive=torch.zeros_like(record.alive))
        check_close(float(averaged(world)(record).detach()), 0.0)

    return [*found, *fact(nothing_alive), *is_default(kind.lower(), kind)]


def _lvc_hessian(name, *, reward_to_go=True):
    return oracles.lvc_hessian_mean(setting(name).mdp, setting(name).theta)


# DiCE and Loaded-DiCE.


def _exact_values():
    where = setting("plain")
    return {"critic": state_values(where.mdp, where.theta)}


def _wrong_end(order=1):
    return bootstrapped_gradient(3, setting("bootstrap").critic)


DICE = [
    *unbiased(lambda world: world.dice, "ending", (1, 2)),
    *unbiased(lambda world: world.dice, "critic", (1, 2)),
    *unbiased(lambda world: world.dice, "group", (3,)),
    *defined(lambda world: world.Dice(), definitions.dice, "ending"),
    *defined(lambda world: world.Dice(), definitions.dice, "critic", (1,)),
    *frozen(lambda world: world.Dice()),
    *is_default("dice", "Dice"),
]

LOADED_DICE = [
    *unbiased(lambda world: world.loaded_dice, "ending", (1, 2)),
    *unbiased(lambda world: world.loaded_dice, "critic", (1, 2)),
    *unbiased(lambda world: world.loaded_dice, "group", (3,)),
    *unbiased(lambda world: world.loaded_dice, "one step", (1, 2)),
    *unbiased(lambda world: world.loaded_dice, "bootstrap", target=_wrong_end),
    *unbiased(lambda world: world.LoadedDice(0.5), "plain", (1, 2), **_exact_values()),
    *biased(lambda world: world.LoadedDice(0.5), "critic"),
    *defined(lambda world: world.LoadedDice(0.5), definitions.loaded_dice(0.5), "ending"),
    *defined(lambda world: world.LoadedDice(0.0), definitions.loaded_dice(0.0), "bootstrap"),
    *defined(
        lambda world: world.LoadedDice(weighting=GivenWeights(UNEVEN)),
        definitions.loaded_dice(1.0, UNEVEN),
        "critic",
    ),
    *frozen(lambda world: world.LoadedDice()),
    *is_default("loaded_dice", "LoadedDice"),
    *is_default("loaded_dice", "LoadedDice", 1.0),
    *refused(lambda world: world.LoadedDice(1.1), "lam: expected a number in [0, 1], got 1.1"),
    *refused(lambda world: world.LoadedDice(-0.1), "lam: expected a number in [0, 1], got -0.1"),
]


# Off policy.


def _off_policy(ratio, largest=None):
    return lambda world: world.OffPolicyDice(getattr(world.Ratio, ratio), largest)


def two_players(world):
    """Two steps of a 2x2 game with one state, both off policy: its gradient for both."""
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(2, 1, 2, 2))
    game = StochasticGame(np.ones((1, 2, 2, 1)), rewards, 0.9, [1.0], 2)
    own, other, mu1, mu2 = rng.normal(size=(4, 1, 2))
    first, second = (
        a.reshape(16, 1, 2) for a in np.indices((2,) * 4).reshape(2, 2, 16).swapaxes(1, 2)
    )
    logs = [np.log(oracles.softmax_rows(mu))[0] for mu in (mu1, mu2)]
    drawn = logs[0][first], logs[1][second]
    batch = Trajectories(
        np.zeros((16, 1, 3)), first, rewards[0, 0][first, second], np.ones((16, 1, 2), dtype=bool),
        drawn[0], second, rewards[1, 0][first, second], drawn[1],
    )  # fmt: skip
    estimator = from_surrogate(world.off_policy_dice, 1)
    estimates = estimate(estimator, batch, Context(own, 0.9, other=OtherPlayer(other)))
    weights = np.exp(sum(drawn).sum(axis=(1, 2)))
    wanted = [game_gradient(game, own, other, of=1, wrt=wrt).ravel() for wrt in (1, 2)]
    check_close(weights @ estimates.reshape(16, -1), np.concatenate(wanted))


def _effective_size(world):
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
    *(Claim("bias", two_players),),
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
    *built(lambda world: world.OffPolicyDice(largest=0.5)),
    *refused(lambda world: world.OffPolicyDice(largest=0.0), "largest: expected a positive number"),
    *refused(
        lambda world: world.OffPolicyDice(largest=-1.0), "largest: expected a positive number"
    ),
]


# Returns and weights along a record.


def _loops(rows, factor):
    """sum_{k >= t} factor^(k - t) rows_k, by its recursion."""
    found, after = np.zeros_like(rows), np.zeros(len(rows))
    for t in reversed(range(rows.shape[1])):
        after = found[:, t] = rows[:, t] + factor * after
    return found


def _records():
    """Some that go on and some that end, with values that are not 0 after the end."""
    group = [walks("ending")[k] for k in (0, 2, 5, -1)]
    values = torch.tensor(np.random.default_rng(4).normal(size=(4, 4)))
    for discount in (0.7, 0.0, 1.0):
        yield record_of("ending", group, values=values, discount=discount)


def _discounts(world):
    for record in _records():
        powers = [1.0, record.discount, record.discount**2]
        check_close(world.discounts(record).numpy(), powers)


def _rewards_to_go(world):
    for record in _records():
        wanted = _loops(record.rewards.numpy(), record.discount)
        check_close(world.rewards_to_go(record).numpy(), wanted)


def _generalised_advantages(world):
    for record in _records():
        values, alive = record.values.numpy(), record.alive.numpy()
        after = record.rewards.numpy() + record.discount * values[:, 1:]
        for lam in (0.0, 0.6, 1.0):
            wanted = _loops((after - values[:, :-1]) * alive, record.discount * lam)
            check_close(world.generalised_advantages(record, lam).numpy(), wanted)


CLAIMS = {
    "discounts": fact(_discounts),
    "rewards_to_go": fact(_rewards_to_go),
    "generalised_advantages": fact(_generalised_advantages),
    "AD": _score_function("AD", definitions.ad, _ad_hessian),
    "LVC": _score_function("LVC", definitions.lvc, _lvc_hessian),
    "Dice": DICE,
    "LoadedDice": LOADED_DICE,
    "OffPolicyDice": OFF_POLICY_DICE,
    "effective_sample_size": fact(_effective_size),
    "GroupRelative": GROUP_RELATIVE,
    "k1": PENALTIES["k1"],
    "k2": PENALTIES["k2"],
    "k3": PENALTIES["k3"],
    "negative_entropy": PENALTIES["negative entropy"],
}
"""The claims about each public name of the surrogate modules; one entry for each."""
