"""What is claimed of each public surrogate: a registry, to which a new one adds an entry."""

from dataclasses import replace

import numpy as np
import torch

from gradbias.analytic.problems.targets import (
    GivenWeights,
    Undiscounted,
    bootstrapped_gradient,
    update_field,
)
from gradbias.analytic.returns.evaluation import state_values
from tests.mutation import definitions, product_definitions
from tests.mutation.claims import (
    biased,
    check_close,
    defined,
    fact,
    frozen,
    is_default,
    mean_is,
    refused,
    unbiased,
)
from tests.mutation.group_claims import GROUP_RELATIVE, PENALTIES
from tests.mutation.meta_claims import INTRINSIC_REWARD, LAMBDA_RETURN
from tests.mutation.off_policy_claims import (
    OFF_POLICY_DICE,
    TAYLOR,
    V_TRACE,
    effective_size,
    two_players,
)
from tests.mutation.problems import record_of, setting, walks
from tests.oracles import brute_force as oracles

UNEVEN = (1.0, 0.5, 0.3)

# Score functions: closed forms of the mean Hessians, from tests/oracles/brute_force.py.


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
    found += _with_gae(kind, definition) + two_players(kind.lower(), off_policy=False)
    found += frozen(lambda world: getattr(world, kind)())
    short = lambda world: getattr(world, kind)(weighting=GivenWeights((1.0, 1.0)))  # noqa: E731
    call = lambda world: short(world)(record_of("plain", walks("plain")[:1]))  # noqa: E731
    found += refused(call, "weighting: expected 3 weights, got 2")

    def nothing_alive(world):
        record = record_of("ending", walks("ending")[:2])
        record = replace(record, alive=torch.zeros_like(record.alive))
        check_close(float(averaged(world)(record).detach()), 0.0)

    return [*found, *fact(nothing_alive), *is_default(kind.lower(), kind)]


def _with_gae(kind, definition):
    made = lambda world, lam, **more: getattr(world, kind)(gae_lambda=lam, **more)  # noqa: E731
    found = unbiased(lambda world: made(world, 0.4), "plain", **_exact_values())
    found += unbiased(lambda world: made(world, 1.0), "critic")
    for lam in (0.0, 0.4, 1.0):
        make = lambda world, lam=lam: made(world, lam)  # noqa: E731
        found += defined(make, definition(lam=lam), "bootstrap")
    for lam in (-0.1, 1.1):
        found += refused(lambda world, lam=lam: made(world, lam), "gae_lambda: expected")
    total = lambda world: made(world, 0.4, reward_to_go=False)  # noqa: E731
    return found + refused(total, "reward_to_go: expected True with gae_lambda")


def _exact_values():
    where = setting("plain")
    return {"critic": state_values(where.mdp, where.theta)}


def _actor_critic(world):
    assert world.actor_critic == world.AD(gae_lambda=0.0)


def _lvc_hessian(name, *, reward_to_go=True):
    return oracles.lvc_hessian_mean(setting(name).mdp, setting(name).theta)


# DiCE and Loaded-DiCE.


def _wrong_end(order=1):
    return bootstrapped_gradient(3, setting("bootstrap").critic)


DICE = [
    *unbiased(lambda world: world.dice, "ending", (1, 2)),
    *unbiased(lambda world: world.dice, "critic", (1, 2)),
    *unbiased(lambda world: world.dice, "group", (3,)),
    *defined(lambda world: world.Dice(), definitions.dice, "ending"),
    *defined(lambda world: world.Dice(), definitions.dice, "critic", (1,)),
    *two_players("dice", off_policy=False),
    *frozen(lambda world: world.Dice()),
    *is_default("dice", "Dice"),
]

TMAML = [
    *unbiased(lambda world: world.tmaml, "ending", (1, 2)),
    *unbiased(lambda world: world.tmaml, "critic", (1, 2)),
    *unbiased(lambda world: world.Tmaml(0.4), "group", (3,)),
    *unbiased(lambda world: world.tmaml, "one step", (1, 2)),
    *defined(lambda world: world.tmaml, product_definitions.tmaml(), "ending"),
    *defined(lambda world: world.Tmaml(0.4), product_definitions.tmaml(0.4), "critic"),
    *frozen(lambda world: world.Tmaml()),
    *is_default("tmaml", "Tmaml"),
    *refused(lambda world: world.Tmaml(float("nan")), "coefficient: expected a number"),
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
    *two_players("loaded_dice", off_policy=False),
    *frozen(lambda world: world.LoadedDice()),
    *is_default("loaded_dice", "LoadedDice"),
    *is_default("loaded_dice", "LoadedDice", 1.0),
    *refused(
        lambda world: world.LoadedDice(1.1), "gae_lambda: expected a number in [0, 1], got 1.1"
    ),
    *refused(
        lambda world: world.LoadedDice(-0.1), "gae_lambda: expected a number in [0, 1], got -0.1"
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


def _catalogue(world):
    named = dict(world.CATALOGUE)
    assert named.pop("taylor") == world.Taylor()
    assert named.pop("taylor_2") == world.Taylor(2)
    assert named == {name: getattr(world, name) for name in named}


CLAIMS = {
    "CATALOGUE": fact(_catalogue),
    "discounts": fact(_discounts),
    "rewards_to_go": fact(_rewards_to_go),
    "generalised_advantages": fact(_generalised_advantages),
    "AD": _score_function("AD", definitions.ad, _ad_hessian),
    "reinforce": is_default("reinforce", "AD", False),
    "actor_critic": fact(_actor_critic),
    "LVC": _score_function("LVC", definitions.lvc, _lvc_hessian),
    "Dice": DICE,
    "Tmaml": TMAML,
    "LoadedDice": LOADED_DICE,
    "OffPolicyDice": OFF_POLICY_DICE,
    "Taylor": TAYLOR,
    "VTrace": V_TRACE,
    "IntrinsicReward": INTRINSIC_REWARD,
    "LambdaReturn": LAMBDA_RETURN,
    "effective_sample_size": fact(effective_size),
    "GroupRelative": GROUP_RELATIVE,
    "k1": PENALTIES["k1"],
    "k2": PENALTIES["k2"],
    "k3": PENALTIES["k3"],
    "negative_entropy": PENALTIES["negative entropy"],
}
"""The claims about each public name of the surrogate modules; one entry for each."""
