"""Ratios against the naive way, measured side by side in one run: medians of interleaved rounds.

    python -m benchmarks.run [FOLDER]

prints a table and leaves FOLDER/benchmarks.csv and FOLDER/benchmarks.png (default: out).
"""

import csv
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch

from analytic.derivatives import gradient, hessian, hvp
from analytic.problems import TabularMDP
from experiments.figures import new_figure
from stochastic.estimators import from_surrogate
from stochastic.surrogates.dice import dice
from stochastic.trajectories import sample
from verification.measurement import measure_bias

ROUNDS = 7


@dataclass(frozen=True)
class Job:
    """One job done two ways; ``share`` is the part of the job that the naive way is given."""

    name: str
    ours: Any
    naive: Any
    share: float = 1.0


def torch_return(mdp, theta):
    """The infinite-horizon return as a torch function: what one writes first."""
    policy = torch.softmax(theta, -1)
    transition, reward = torch.tensor(np.array(mdp.transition)), torch.tensor(np.array(mdp.reward))
    kernel = torch.einsum("sa,sat->st", policy, transition)
    system = torch.eye(mdp.n_states, dtype=torch.float64) - mdp.discount * kernel
    values = torch.linalg.solve(system, (policy * reward).sum(-1))
    return torch.tensor(np.array(mdp.start)) @ values


def python_rollouts(mdp, policy, n, rng):
    """A loop over trajectories and steps."""
    for _ in range(n):
        state = rng.choice(mdp.n_states, p=mdp.start)
        for _ in range(mdp.horizon):
            action = rng.choice(mdp.n_actions, p=policy[state])
            state = rng.choice(mdp.n_states, p=mdp.transition[state, action])


def naive_hessians(mdp, theta, batch):
    """DiCE's Hessian of each trajectory by autograd through all of theta."""
    weights = torch.tensor(mdp.discount ** np.arange(batch.shape[-1]))
    for states, actions, rewards in zip(batch.states, batch.actions, batch.rewards, strict=True):
        rows, chosen = torch.tensor(states[:-1].copy()), torch.tensor(actions.copy())
        paid = weights * torch.tensor(rewards.copy())

        def objective(logits, rows=rows, chosen=chosen, paid=paid):
            log_probs = torch.log_softmax(logits, -1)[rows, chosen]
            ratios = torch.exp(torch.cumsum(log_probs - log_probs.detach(), 0))
            return (paid * ratios).sum()

        torch.autograd.functional.hessian(objective, theta)


def jobs():
    """All jobs, built once."""
    rng = np.random.default_rng(0)
    mdp = TabularMDP.random(20, 5, rng=rng, discount=0.8)
    theta = rng.normal(size=(20, 5))
    leaf, v = torch.tensor(theta), rng.normal(size=(20, 5))
    function = lambda t: torch_return(mdp, t)  # noqa: E731
    yield Job(
        "exact gradient, S = 20, A = 5",
        lambda: gradient(mdp, theta),
        lambda: torch.autograd.functional.jacobian(function, leaf),
    )
    yield Job(
        "exact Hessian, S = 20, A = 5",
        lambda: hessian(mdp, theta),
        lambda: torch.autograd.functional.hessian(function, leaf),
    )
    yield Job(
        "exact Hessian-vector product, S = 20, A = 5",
        lambda: hvp(mdp, theta, v),
        lambda: torch.autograd.functional.vhp(function, leaf, torch.tensor(v)),
    )
    cliff = TabularMDP.from_gymnasium(gymnasium.make("CliffWalking-v1"), 0.9, 4)
    uniform = np.zeros((48, 4))
    few = sample(cliff, uniform, 16, rng=np.random.default_rng(1))
    yield Job(
        "enumerated DiCE Hessian, CliffWalking, H = 4",
        lambda: measure_bias(from_surrogate(dice, 2), cliff, uniform),
        lambda: naive_hessians(cliff, torch.tensor(uniform), few),
        share=16 / 256,
    )
    short = TabularMDP(mdp.transition, mdp.reward, 0.8, mdp.start, 20)
    generator = np.random.default_rng(2)
    yield Job(
        "10,000 trajectories, S = 20, A = 5, H = 20",
        lambda: sample(short, np.zeros((20, 5)), 10_000, rng=generator),
        lambda: python_rollouts(short, np.full((20, 5), 0.2), 20, generator),
        share=20 / 10_000,
    )


def timed(function):
    """Seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main():
    """Runs all jobs; the naive time is scaled up from its share."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    print(f"{'job':<46} {'ours, ms':>10} {'naive, ms':>11} {'ratio':>8}")
    for job in jobs():
        job.ours(), job.naive()
        rounds = [(timed(job.ours), timed(job.naive) / job.share) for _ in range(ROUNDS)]
        ours, naive = (1e3 * median(times) for times in zip(*rounds, strict=True))
        ratio = median(slow / fast for fast, slow in rounds)
        rows.append({"job": job.name, "ours_ms": ours, "naive_ms": naive, "ratio": ratio})
        print(f"{job.name:<46} {ours:>10.3f} {naive:>11.2f} {ratio:>7.1f}x", flush=True)
    with open(folder / "benchmarks.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    figure = new_figure(8.0, 3.2)
    axes = figure.add_subplot()
    axes.barh([row["job"] for row in rows], [row["ratio"] for row in rows])
    axes.set_xscale("log")
    axes.set_xlim(left=1.0)
    axes.set_xlabel(f"times faster than the naive way ({platform.machine()}, one thread)")
    axes.invert_yaxis()
    figure.savefig(folder / "benchmarks.png", dpi=110)
    print(f"wrote {folder / 'benchmarks.csv'} and {folder / 'benchmarks.png'}")


if __name__ == "__main__":
    main()
