"""Surrogates of all kinds, for tests; each treats gradients in a way of its own."""

from dataclasses import replace

import torch

from gradbias.analytic.problems.targets import GivenWeights, Undiscounted
from gradbias.stochastic.networks.torch_policy import TorchPolicy
from gradbias.stochastic.surrogates.dice import Dice, LoadedDice, Tmaml, tmaml
from gradbias.stochastic.surrogates.group_relative import Length, Penalty, dr_grpo, grpo, rloo
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice, Ratio
from gradbias.stochastic.surrogates.penalties import k1, k2, k3
from gradbias.stochastic.surrogates.returns import discounts, rewards_to_go
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction, actor_critic
from gradbias.stochastic.surrogates.taylor import Taylor, VTrace, v_trace


def tanh_network(features):
    """A one-hidden-layer policy of eight parameters on ``features [S, 2]``, with two actions."""

    def forward(parameters):
        return torch.tanh(features @ parameters[:4].reshape(2, 2)) @ parameters[4:].reshape(2, 2)

    return TorchPolicy(forward, 8)


def lvc_under_no_grad(record):
    """LVC with its denominator computed under no_grad: forward mode would make it AD."""
    with torch.no_grad():
        fixed = record.log_probs * 1.0
    return (discounts(record) * torch.exp(record.log_probs - fixed) * rewards_to_go(record)).sum()


def lvc_with_detach(record):
    """LVC with its denominator detached."""
    ratios = torch.exp(record.log_probs - record.log_probs.detach())
    return (discounts(record) * ratios * rewards_to_go(record)).sum()


def ppo_clip(record, clip=0.2):
    """PPO's clipped surrogate with rewards-to-go as advantages, discounted."""
    ratios = torch.exp(record.log_probs - record.behaviour_log_probs)
    weights = discounts(record) * rewards_to_go(record) * record.alive
    clipped = ratios.clamp(1 - clip, 1 + clip)
    return torch.minimum(ratios * weights, clipped * weights).sum(-1).mean()


def entropy_bonus(record):
    """The return's score function and the entropy of every visited state's policy, discounted."""
    entropy = -(torch.exp(record.log_policy) * record.log_policy).sum(-1)
    weights = discounts(record) * record.alive
    score = (weights * rewards_to_go(record) * record.log_probs).sum(-1)
    # The visited states depend on the policy too: their log-probabilities carry later entropies.
    later = torch.flip(torch.cumsum(torch.flip(weights * entropy, [-1]), -1), [-1]) - (
        weights * entropy
    )
    return (score + 0.5 * (weights * entropy + later.detach() * record.log_probs).sum(-1)).mean()


def leave_one_out(record):
    """Each trajectory's total return minus the mean of the others', times its score."""
    total = (discounts(record) * record.rewards).sum(-1)
    n = len(total)
    baseline = (total.sum() - total) / (n - 1)
    return ((total - baseline) * (record.log_probs * record.alive).sum(-1)).mean()


def batch_mean_baseline(record):
    """Each trajectory's total return minus the mean of all, times its score."""
    total = (discounts(record) * record.rewards).sum(-1)
    return ((total - total.mean()) * (record.log_probs * record.alive).sum(-1)).mean()


def kl_to_reference(record):
    """Exact KL to a reference policy at each visited state."""
    gaps = record.log_policy - record.reference_log_policy
    return (torch.exp(record.log_policy) * gaps).sum(-1).sum(-1).mean()


def mixed_leaves(record):
    """A product of both leaves, ``log_probs`` and ``log_policy``."""
    return (record.log_probs * record.log_policy[..., 0]).sum() + record.log_policy.exp().sum()


def cubic(record):
    """A surrogate whose third derivatives are not 0, also across steps."""
    return record.log_probs.sum() ** 3 + (record.log_probs**3).sum()


def branching(record):
    """A surrogate in Python that branches on values, which vmap rejects."""
    sign = 1.0 if record.rewards.sum().item() > 0 else 2.0
    return sign * (record.log_probs * rewards_to_go(record)).sum()


def numpy_inside(record):
    """A surrogate that computes returns in numpy, which vmap rejects."""
    weights = torch.tensor(record.rewards.numpy()[..., ::-1].cumsum(-1)[..., ::-1].copy())
    return (record.log_probs * weights).sum(-1).mean()


FAST = {
    "ad": AD(),
    "ad, total return": AD(reward_to_go=False),
    "ad, undiscounted": AD(weighting=Undiscounted()),
    "ad, given weights": AD(weighting=GivenWeights((1.0, 0.5, 0.25))),
    "ad, gae": AD(gae_lambda=0.6),
    "actor_critic": actor_critic,
    "lvc": LVC(),
    "lvc, bootstrapped": LVC(gae_lambda=1.0),
    "dice": Dice(),
    "tmaml": tmaml,
    "tmaml, half": Tmaml(0.5),
    "loaded_dice": LoadedDice(),
    "loaded_dice, lambda 0.5": LoadedDice(0.5),
    "loaded_dice, undiscounted": LoadedDice(0.5, Undiscounted()),
    "off-policy dice": OffPolicyDice(),
    "off-policy dice, trajectory": OffPolicyDice(Ratio.TRAJECTORY),
    "off-policy dice, step": OffPolicyDice(Ratio.PER_STEP),
    "taylor, 1": Taylor(),
    "taylor, 1, lambda 0.3": Taylor(1, 0.3),
    "v_trace": v_trace,
}
CLEAN = FAST | {
    "ad, mean over steps": AD(reduction=Reduction.MEAN_OVER_STEPS),
    "lvc, total return": replace(LVC(), reward_to_go=False),
    "lvc under no_grad": lvc_under_no_grad,
    "lvc with detach": lvc_with_detach,
    "ppo_clip": ppo_clip,
    "entropy_bonus": entropy_bonus,
    "leave_one_out": leave_one_out,
    "batch_mean_baseline": batch_mean_baseline,
    "kl_to_reference": kl_to_reference,
    "mixed_leaves": mixed_leaves,
    "cubic": cubic,
    "rloo": rloo,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo, k1 in the return": replace(rloo, penalty=Penalty(k1, 0.3)),
    "rloo, k2 as a loss": replace(rloo, penalty=Penalty(k2, 0.3, as_loss=True)),
    "rloo, k3 as a loss": replace(rloo, penalty=Penalty(k3, 0.3, as_loss=True)),
    "rloo, by length": replace(rloo, length=Length.GROUP),
    "off-policy dice, cut off": OffPolicyDice(max_ratio=1.5),
    "branching": branching,
    "numpy_inside": numpy_inside,
    "taylor, 2": Taylor(2, 0.9),
    "v_trace, cut off": VTrace(1.1, 0.9),
}
