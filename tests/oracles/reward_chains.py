"""Second derivations on a reward chain: every reward at quadrature nodes, and torch autograd
through the unrolled updates. Of the library, only the records are used.
"""

import itertools

import numpy as np
import torch

from gradbias.analytic.problems.mixing import Validation

# Three Gauss-Hermite points: exact for polynomials of degree 5 in each reward, and a squared
# meta-gradient has degree 4. Two points have a normal's mean and variance, not its fourth moment.
GAUSS_HERMITE = {-np.sqrt(3.0): 1 / 6, 0.0: 2 / 3, np.sqrt(3.0): 1 / 6}
TWO_POINTS = {-1.0: 1 / 2, 1.0: 1 / 2}


def every_outcome(learner, steps, validation, law=GAUSS_HERMITE):
    """Probability ``[P]``, inner rewards ``[P, n, N, m]`` and outer rewards ``[P, n, N', m]`` of
    every outcome."""
    chain, reused = learner.chain, validation is Validation.REUSED
    n_outer = {Validation.FRESH: steps, Validation.SHARED: 1, Validation.REUSED: 0}[validation]
    slots = [("inner", j, b) for j in range(steps + reused) for b in range(learner.batch_size)]
    slots += [("outer", j, b) for j in range(n_outer) for b in range(learner.outer_batch_size)]
    noisy = [(slot, c) for slot in slots for c in range(len(chain.means)) if chain.deviations[c]]
    points = np.array(list(itertools.product(law, repeat=len(noisy))))
    weights = np.array(list(itertools.product(law.values(), repeat=len(noisy)))).prod(axis=1)
    rewards = {slot: np.tile(np.array(chain.means), (len(points), 1)) for slot in slots}
    for column, (slot, c) in enumerate(noisy):
        rewards[slot][:, c] += chain.deviations[c] * points[:, column]

    def batch(kind, j):
        return np.stack([each for slot, each in rewards.items() if slot[:2] == (kind, j)], axis=1)

    inner = np.stack([batch("inner", j) for j in range(steps)], axis=1)
    place = {
        Validation.FRESH: lambda i: ("outer", i),
        Validation.SHARED: lambda _: ("outer", 0),
        Validation.REUSED: lambda i: ("inner", i + 1),
    }[validation]
    outer = np.stack([batch(*place(i)) for i in range(steps)], axis=1)
    return weights, inner, outer


def chain_target(discounts, rewards, power=True):
    """``sum_{j >= i} gamma_j^(j-i+1) r_j`` for each i; without ``power``, r_j is discounted by the
    product of gamma_i to gamma_j."""
    m = rewards.shape[-1]
    columns = []
    for i in range(m):
        total = 0.0
        for j in range(i, m):
            factor = (
                discounts[..., j] ** (j - i + 1) if power else discounts[..., i : j + 1].prod(-1)
            )
            total = total + factor * rewards[..., j]
        columns.append(total)
    return torch.stack(columns, dim=-1)


def _loss(learner, values, targets):
    """Each outcome's loss, ``w/2`` times the batch's mean of ``|g - v|^2``."""
    return learner.loss_weight / 2 * ((targets - values[:, None]) ** 2).sum(-1).mean(-1)


def unrolled_meta_gradients(learner, inner, outer, trace_decay=None, power=True):
    """Each outcome's gradients ``[P, n, m]`` of the outer loss at each iterate, by reverse mode
    through the inner loop; with ``trace_decay`` mu, the trace's estimate T sum_i mu^(i-1) N_{n-i},
    each factor by reverse mode."""
    inner, outer = torch.tensor(inner), torch.tensor(outer)
    outcomes, n = inner.shape[:2]
    gamma = torch.tensor(np.array(learner.discounts)).repeat(outcomes, 1).requires_grad_()
    theta = torch.tensor(np.array(learner.values)).repeat(outcomes, 1).requires_grad_()
    traced, found = torch.zeros_like(theta), []
    for j in range(n):
        here = theta if trace_decay is None else theta.detach().requires_grad_()
        loss = _loss(learner, here, chain_target(gamma[:, None], inner[:, j], power)).sum()
        (slope,) = torch.autograd.grad(loss, here, create_graph=True)
        theta = here - learner.step_size * slope
        judged = theta
        if trace_decay is not None:
            traced = trace_decay * traced - learner.step_size * slope
            judged = theta.detach().requires_grad_()
        returns = outer[:, j].flip(-1).cumsum(-1).flip(-1)
        outer_loss = _loss(learner, judged, returns).sum()
        if trace_decay is not None:
            (cotangent,) = torch.autograd.grad(outer_loss, judged)
            outer_loss = (cotangent * traced).sum()
        found.append(torch.autograd.grad(outer_loss, gamma, retain_graph=True)[0])
    return torch.stack(found, dim=1).detach().numpy()


def moments_of(weights, estimates):
    """The mean ``[n, m]`` and covariance ``[n, n, m, m]`` of estimates ``[P, n, m]``."""
    mean = np.einsum("p,pik->ik", weights, estimates)
    gaps = estimates - mean
    return mean, np.einsum("p,pik,plq->ilkq", weights, gaps, gaps, optimize=True)
