"""Speed against the naive way: both are timed in interleaved rounds, and medians are reported.

    python -m benchmarks.run [FOLDER]

prints two tables and writes benchmarks.csv, scaling.csv and their pictures to FOLDER (default:
out).
"""

import csv
import platform
import sys
from pathlib import Path

import gymnasium
import numpy as np
import torch

from benchmarks import estimators, exact
from benchmarks.scaling import measure_scaling
from benchmarks.timing import Job
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.experiments.reports.figures import new_figure
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.rollouts.trajectories import sample
from gradbias.stochastic.surrogates.dice import dice
from gradbias.verification.measurement.measure import measure_bias


def python_rollouts(mdp, policy, n, rng):
    """Draws n trajectories by a Python loop over trajectories and steps."""
    for _ in range(n):
        state = rng.choice(mdp.n_states, p=mdp.start)
        for _ in range(mdp.horizon):
            action = rng.choice(mdp.n_actions, p=policy[state])
            state = rng.choice(mdp.n_states, p=mdp.transition[state, action])


def naive_hessians(mdp, theta, batch):
    """DiCE's Hessian of each trajectory, by autograd in all of theta."""
    weights = torch.tensor(mdp.discount ** np.arange(batch.shape[-1]))
    for states, actions, rewards in zip(batch.states, batch.actions, batch.rewards, strict=True):
        rows, chosen = torch.tensor(states[:-1].copy()), torch.tensor(actions.copy())
        discounted = weights * torch.tensor(rewards.copy())

        def objective(logits, rows=rows, chosen=chosen, discounted=discounted):
            log_probs = torch.log_softmax(logits, -1)[rows, chosen]
            ratios = torch.exp(torch.cumsum(log_probs - log_probs.detach(), 0))
            return (discounted * ratios).sum()

        torch.autograd.functional.hessian(objective, theta)


def sampled_jobs():
    """Jobs on enumeration and sampling."""
    cliff = TabularMDP.from_gymnasium(gymnasium.make("CliffWalking-v1"), 0.9, 4)
    uniform = np.zeros((48, 4))
    few = sample(cliff, uniform, 16, rng=np.random.default_rng(1))
    yield Job(
        "enumerated DiCE Hessian, CliffWalking, H = 4",
        lambda: measure_bias(from_surrogate(dice, order=2), cliff, uniform),
        lambda: naive_hessians(cliff, torch.tensor(uniform), few),
        share=16 / 256,
    )
    short = TabularMDP.random(20, 5, rng=np.random.default_rng(0), discount=0.8, horizon=20)
    generator = np.random.default_rng(2)
    yield Job(
        "10,000 trajectories, S = 20, A = 5, H = 20",
        lambda: sample(short, np.zeros((20, 5)), 10_000, rng=generator),
        lambda: python_rollouts(short, np.full((20, 5), 0.2), 20, generator),
        share=20 / 10_000,
    )


def main():
    """Runs all jobs and writes their figures; naive times are scaled up from their shares."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    print(f"{'job':<46} {'ours, ms':>10} {'naive, ms':>11} {'ratio':>8}")
    for job in (*exact.jobs(), *sampled_jobs(), *estimators.jobs()):
        row = job.measured()
        rows.append(row)
        print(
            f"{row['job']:<46} {row['ours_ms']:>10.3f} {row['naive_ms']:>11.2f} "
            f"{row['ratio']:>7.1f}x",
            flush=True,
        )
    with open(folder / "benchmarks.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    figure = new_figure(8.0, 5.2)
    axes = figure.add_subplot()
    axes.barh([row["job"] for row in rows], [row["ratio"] for row in rows])
    axes.set_xscale("log")
    axes.set_xlim(left=1.0)
    axes.set_xlabel(f"times faster than the naive way ({platform.machine()}, one thread)")
    axes.invert_yaxis()
    figure.savefig(folder / "benchmarks.png", dpi=110)
    print(f"wrote {folder / 'benchmarks.csv'} and {folder / 'benchmarks.png'}")
    measure_scaling(folder)


if __name__ == "__main__":
    main()
