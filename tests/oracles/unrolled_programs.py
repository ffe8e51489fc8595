"""A sampled meta-gradient as one torch program: the batches that were drawn, unrolled steps whose
values and derivatives come from batches of their own, and autograd through all of it."""

from dataclasses import dataclass, field

import numpy as np
import torch

from gradbias.analytic.policies.softmax import TABULAR, LinearSoftmax
from gradbias.stochastic.meta.meta_gradients import MetaGradient
from gradbias.stochastic.meta.slots import FirstOrder, Reuse
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.rollouts.trajectories import draw_trajectories
from gradbias.stochastic.surrogates.returns import log_probabilities


def logits_of(policy):
    """The policy's logits as a torch function of its parameters."""
    if policy is TABULAR:
        return lambda parameters: parameters
    if isinstance(policy, LinearSoftmax):
        features = torch.tensor(np.array(policy.features))
        return lambda parameters: (features * parameters).sum(-1)
    return policy.forward


def record_of(batch, log_policy, values, discount, **options):
    """One player's record; ``log_policy [S, A]`` is a torch function of its parameters."""
    as_tensor = lambda array: torch.tensor(np.array(array))  # noqa: E731
    alive, actions = as_tensor(batch.alive), as_tensor(batch.actions)
    every = log_policy[as_tensor(batch.states[..., :-1])] * alive[..., None]
    return Record(
        torch.gather(every, -1, actions[..., None])[..., 0],
        every,
        *(as_tensor(x) for x in (batch.behaviour_log_probs, batch.rewards, batch.states)),
        actions,
        alive,
        values,
        discount,
        **options,
    )


def values_of(critic, theta, batch):
    """The values ``[N, H + 1]`` of a critic ``[H + 1, S]``, which may be a function of theta."""
    if critic is None:
        return torch.zeros(batch.states.shape, dtype=torch.float64)
    table = critic(theta.detach().numpy()[None])[0] if callable(critic) else critic
    return torch.tensor(table[np.arange(batch.states.shape[-1]), batch.states])


class MdpProgram:
    """The surrogates of a `SampledLoop`, as functions of phi and theta."""

    def __init__(self, loop):
        self.loop = loop

    def surrogate(self, function, batch, phi, theta, outer=False):
        log_policy = torch.log_softmax(logits_of(self.loop.policy)(theta), -1)
        meta = {} if self.loop.starts_at_meta else {"phi": phi}
        values = values_of(self.loop.critic, theta, batch)
        return function(record_of(batch, log_policy, values, self.loop.mdp.discount, meta=meta))

    def rewards(self, batch):
        return self.loop.mdp.discount, batch.rewards


class GameProgram:
    """The surrogates of a `SampledGame`; batches are as player 1 sees them."""

    def __init__(self, loop):
        self.loop = loop

    def surrogate(self, function, batch, phi, theta, outer=False):
        game, me = self.loop.game, self.loop.player
        parameters = {me: phi, 3 - me: theta}
        seen = {1: batch, 2: exchanged(batch)}

        def of(player, other=None):
            log_policy = torch.log_softmax(
                logits_of(game.policies[player - 1])(parameters[player]), -1
            )
            values = values_of(self.loop.critics[player - 1], theta, batch)
            return record_of(seen[player], log_policy, values, game.discount, other=other)

        player = me if outer else 3 - me
        return function(of(player, of(3 - player)))

    def rewards(self, batch):
        mine = batch.rewards if self.loop.player == 1 else batch.other_rewards
        return self.loop.game.discount, mine


def exchanged(batch):
    """The same batch with the players exchanged."""

    class Seen:
        states, alive = batch.states, batch.alive
        actions, rewards = batch.other_actions, batch.other_rewards
        behaviour_log_probs = batch.other_behaviour_log_probs

    return Seen


@dataclass
class Recorded:
    """A source that draws one batch at a time and keeps it."""

    estimator: MetaGradient
    rng: np.random.Generator
    draws: list = field(default_factory=list)

    def draw(self, log_policy, n):
        loop = self.estimator.loop
        drawn = draw_trajectories(loop.problem, log_policy, (1, n), loop.steps, self.rng)
        self.draws.append(drawn)
        return drawn, np.ones((1, 1))


def gradient(value, leaf):
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(value, leaf, create_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def both_ways(estimator, phi, theta, rng):
    """The library's estimate and that of the torch program, from the same batches."""
    source = Recorded(estimator, rng)
    found = estimator.mean_over(source, phi, theta)[0]
    start = estimator.loop.start(phi, theta)
    program = MdpProgram if hasattr(estimator.loop, "mdp") else GameProgram
    return found, _program(estimator, program(estimator.loop), *start, source.draws)


def _program(estimator, program, phi_at, theta_at, draws):
    replay, starts = estimator.reuse is Reuse.REPLAY, estimator.loop.starts_at_meta
    draws = iter(draws)
    values = (
        [next(draws)] * estimator.steps if replay else [next(draws) for _ in range(estimator.steps)]
    )
    outer, own = next(draws), {}
    for i in reversed(range(estimator.steps)):
        if estimator.jacobian is not None and estimator.reuse in (Reuse.NONE, Reuse.HESSIAN):
            own["jacobian", i] = next(draws)
        hessian = not isinstance(estimator.hessian, FirstOrder) and (i > 0 or starts)
        if hessian and estimator.reuse is Reuse.NONE:
            own["hessian", i] = next(draws)
    assert next(draws, None) is None
    phi = torch.tensor(np.array(phi_at), requires_grad=True)
    here = phi if starts else torch.tensor(np.array(theta_at))
    read = lambda raw: estimator.loop.read(raw, phi_at, here.detach().numpy()[None])[0]  # noqa: E731
    first = read(values[0])
    likelihood = torch.zeros((), dtype=torch.float64)
    for i in range(estimator.steps):
        batch = first if replay else read(values[i])
        of = {
            key: read(own[key, i]) if (key, i) in own else batch for key in ("jacobian", "hessian")
        }
        leaf = here.detach().requires_grad_()
        step = gradient(
            program.surrogate(estimator.value.surrogate, batch, phi, leaf), leaf
        ).detach()
        if estimator.jacobian is not None:
            leaf = here.detach().requires_grad_()
            part = program.surrogate(estimator.jacobian.surrogate, of["jacobian"], phi, leaf)
            slope = gradient(part, leaf)
            step = step + slope - slope.detach()
        if not isinstance(estimator.hessian, FirstOrder) and (i > 0 or starts):
            at = here if here.requires_grad else here.requires_grad_()
            part = program.surrogate(estimator.hessian.surrogate, of["hessian"], phi.detach(), at)
            slope = gradient(part, at)
            step = step + slope - slope.detach()
        if estimator.correction and (i == 0 or not replay):
            likelihood = likelihood + program.surrogate(_log_likelihood, batch, phi, here)
        here = here + estimator.step_size * step
    last = read(outer)
    leaf, meta = here.detach().requires_grad_(), phi.detach().requires_grad_()
    slopes = [
        gradient(
            program.surrogate(estimator.outer.surrogate, last, meta, leaf, outer=True), x
        ).detach()
        for x in (leaf, meta)
    ]
    total = (slopes[0] * here).sum()
    if not starts:
        total = total + (slopes[1] * phi).sum()
    discount, rewards = program.rewards(last)
    mean_return = (discount ** np.arange(rewards.shape[-1]) * rewards).sum(-1).mean()
    total = total + estimator.correction * float(mean_return) * likelihood
    return torch.autograd.grad(total, phi)[0].numpy()


def _log_likelihood(record):
    return (log_probabilities(record) * record.alive).sum()
