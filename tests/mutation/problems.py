"""A few small, telling problems with every walk through them, listed in plain Python.

Two or three states, two actions, three steps, discount 0.7, rewards of both signs that depend on
the next state, critics that are wrong and vary over time, and other policies that draw or are
referred to. Some walks end early.
"""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.rollouts.records import Record
from tests.oracles import brute_force as oracles

DISCOUNT = 0.7


@dataclass(frozen=True, eq=False)
class Setting:
    """A problem, the policy, and what else an estimate may be given."""

    mdp: TabularMDP
    theta: np.ndarray
    options: dict = field(default_factory=dict)

    def __getattr__(self, name):
        return self.options.get(name)


def _plain():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(2), size=(2, 2))
    return TabularMDP(rows, rng.normal(size=(2, 2, 2)), DISCOUNT, [0.4, 0.6], 3)


def _ending(horizon):
    """Action 0 mostly ends, action 1 goes on; one next state of two."""
    rows = np.zeros((3, 2, 3))
    rows[0], rows[1] = [[0, 0, 1], [0, 1, 0]], [[0.4, 0, 0.6], [0.5, 0.5, 0]]
    rows[2, :, 2] = 1.0
    reward = np.random.default_rng(1).normal(size=(3, 2, 3))
    reward[2] = 0.0
    return TabularMDP(rows, reward, DISCOUNT, [0.7, 0.3, 0.0], horizon)


def _settings():
    rng = np.random.default_rng(2)
    plain, ending, brief = _plain(), _ending(3), _ending(2)
    two, three = rng.normal(size=(2, 2)), rng.normal(size=(3, 2))
    critic = np.array([[0.7, -1.1], [0.2, 0.5], [-0.4, 0.9], [0.0, 0.0]])
    ends = np.array([[0.7, -1.1, 0], [0.2, 0.5, 0], [-0.4, 0.9, 0], [0.0, 0.0, 0]])
    far, referred = three + rng.normal(size=(3, 2)), three + rng.normal(size=(3, 2))
    return {
        "plain": Setting(plain, two),
        "critic": Setting(plain, two, {"critic": critic}),
        "bootstrap": Setting(plain, two, {"critic": np.array([0.4, -0.9])}),
        "ending": Setting(ending, three, {"critic": ends}),
        "off policy": Setting(ending, three, {"behaviour": far}),
        "group": Setting(brief, three),
        "one step": Setting(replace(brief, horizon=1), three),
        "reference": Setting(brief, three, {"reference": referred}),
        "far group": Setting(brief, three, {"reference": referred, "behaviour": far}),
    }


@cache
def setting(name):
    return _settings()[name]


@dataclass(frozen=True, eq=False)
class Walk:
    """One trajectory. Rows are steps; scores and curvatures are those of log pi in theta."""

    probability: float
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    alive: np.ndarray
    log_pi: np.ndarray
    log_mu: np.ndarray
    log_ref: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    curvatures: np.ndarray

    @property
    def horizon(self):
        return len(self.rewards)


@cache
def walks(name):
    """Every trajectory of positive probability; after the end the action is 0."""
    where = setting(name)
    mdp, theta = where.mdp, where.theta
    drawn = theta if where.behaviour is None else where.behaviour
    found = []
    for p, states, actions, rewards in oracles.all_trajectories(mdp, drawn, mdp.horizon):
        alive = ~mdp.terminal[states[:-1]]
        taken = np.array(actions)
        if taken[~alive].any():
            continue
        dead = softmax(drawn)[np.array(states[:-1]), 0][~alive].prod()
        found.append(_walk(where, p / dead, np.array(states), taken, np.array(rewards), alive))
    assert abs(sum(walk.probability for walk in found) - 1.0) < 1e-12
    return tuple(found)


def softmax(theta):
    return oracles.softmax_rows(theta)


def _walk(where, probability, states, actions, rewards, alive):
    theta, steps = where.theta, np.arange(len(actions))
    now, shape = states[:-1], (len(actions), *where.theta.shape)

    def logs(parameters):
        table = np.log(softmax(theta if parameters is None else parameters))
        return np.where(alive, table[now, actions], 0.0)

    scores, curvatures = np.zeros(shape), np.zeros((*shape, *theta.shape))
    for t in steps[alive]:
        policy = softmax(theta)[now[t]]
        scores[t, now[t]] = np.eye(len(policy))[actions[t]] - policy
        curvatures[t, now[t], :, now[t], :] = np.outer(policy, policy) - np.diag(policy)
    critic = np.zeros(len(theta)) if where.critic is None else where.critic
    rows = np.broadcast_to(critic, (len(states), len(theta)))
    size = theta.size
    return Walk(
        probability, states, actions, rewards, alive,
        logs(None), logs(where.behaviour), logs(where.reference),
        rows[np.arange(len(states)), states],
        scores.reshape(-1, size), curvatures.reshape(-1, size, size),
    )  # fmt: skip


def record_of(name, group, **changes):
    """A surrogate's record of some walks; ``changes`` replace its fields."""
    where = setting(name)
    tensor = lambda rows: torch.tensor(np.array(rows))  # noqa: E731
    states, alive = tensor([w.states for w in group]), tensor([w.alive for w in group])

    def looked_up(parameters):
        rows = tensor(np.log(softmax(parameters)))[states[:, :-1]]
        return torch.where(alive[..., None], rows, 0.0)

    fields = {
        "log_probs": tensor([w.log_pi for w in group]).requires_grad_(),
        "log_policy": looked_up(where.theta).requires_grad_(),
        "behaviour_log_probs": tensor([w.log_mu for w in group]),
        "rewards": tensor([w.rewards for w in group]),
        "states": states,
        "actions": tensor([w.actions for w in group]),
        "alive": alive,
        "values": tensor([w.values for w in group]),
        "discount": where.mdp.discount,
        "reference_log_policy": None if where.reference is None else looked_up(where.reference),
    }
    return Record(**(fields | changes))
