"""Time and memory of an exact meta-gradient as the number of states grows.

Memory is the peak of what numpy allocates during the call (tracemalloc), beside the problem's
tables; sparse LU factors, which are allocated elsewhere, are counted by their entries.
"""

import csv
import tracemalloc
from pathlib import Path
from statistics import median

import numpy as np
from scipy import sparse

from benchmarks.timing import seconds
from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.meta_gradients import meta_gradient
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.problems.sparse import SparseMDP
from gradbias.analytic.returns.bellman import SparseFactors
from gradbias.experiments.reports.figures import new_figure

STEPS = 3
N_ACTIONS = 4
DENSE = (30, 100, 300, 1000)
SPARSE = (100, 900, 2500, 10_000)
ROUNDS = 3


def dense_problem(n_states):
    """A dense MDP, in which every state can follow every other."""
    rng = np.random.default_rng(0)
    return TabularMDP.random(n_states, N_ACTIONS, rng=rng, discount=0.95)


def grid_problem(n_states):
    """A square grid, on which a move fails one time in five; each state has 5 successors."""
    side = round(n_states**0.5)
    cells = np.arange(n_states).reshape(side, side)
    x, y = np.indices((side, side))
    moves = [(0, 1), (0, -1), (1, 0), (-1, 0), (0, 0)]
    ends = [cells[np.clip(x + i, 0, side - 1), np.clip(y + j, 0, side - 1)] for i, j in moves]
    rows = np.tile(np.arange(n_states), len(moves))
    columns = np.concatenate([end.ravel() for end in ends])
    matrices = []
    for action in range(N_ACTIONS):
        probabilities = np.where(np.arange(len(moves)) == action, 0.8, 0.05)
        entries = (np.repeat(probabilities, n_states), (rows, columns))
        matrices.append(sparse.csr_array(entries, shape=(n_states, n_states)))
    reward = np.random.default_rng(0).normal(size=(n_states, N_ACTIONS))
    return SparseMDP(matrices, reward, 0.95, np.full(n_states, 1.0 / n_states))


def measured(problem):
    """A row: milliseconds, and megabytes at the peak, of the factors and of a dense Hessian."""
    theta = np.zeros((problem.n_states, N_ACTIONS))

    def job():
        return meta_gradient(Maml(problem), theta, steps=STEPS, step_size=1.0)

    job()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    job()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    factors = (STEPS + 1) * factor_bytes(problem)
    if isinstance(problem, SparseMDP):
        peak += factors  # SuperLU's own memory is not traced
    return {
        "states": problem.n_states,
        "kind": "sparse grid" if isinstance(problem, SparseMDP) else "dense",
        "ms": 1e3 * median(seconds(job) for _ in range(ROUNDS)),
        "peak_mb": peak / 1e6,
        "factors_mb": factors / 1e6,
        "dense_hessian_mb": 8 * theta.size**2 / 1e6,
    }


def factor_bytes(problem):
    """The memory of one factorisation, in bytes."""
    if not isinstance(problem, SparseMDP):
        return 8 * problem.n_states**2
    policy = np.full((problem.n_states, N_ACTIONS), 1.0 / N_ACTIONS)
    matrix = problem.tables.kernel.under(policy).scaled(np.asarray(problem.discount))
    return 12 * SparseFactors(matrix).n_stored


def measure_scaling(folder: Path):
    """Prints the table and writes scaling.csv and scaling.png to the folder."""
    print(f"\nexact meta-gradient (MAML), K = {STEPS}, A = {N_ACTIONS}")
    names = ("kind", "states", "ms", "peak_mb", "factors_mb", "dense_hessian_mb")
    print("".join(f"{name:>18}" for name in names))
    rows = []
    problems = [(dense_problem, n) for n in DENSE] + [(grid_problem, n) for n in SPARSE]
    for make, n_states in problems:
        row = measured(make(n_states))
        rows.append(row)
        cells = [row[name] for name in names]
        shown = [f"{c:>18.2f}" if isinstance(c, float) else f"{c:>18}" for c in cells]
        print("".join(shown), flush=True)
    with open(folder / "scaling.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, folder / "scaling.png")
    print(f"wrote {folder / 'scaling.csv'} and {folder / 'scaling.png'}")


def draw(rows, path):
    """Memory and time against the number of states."""
    figure = new_figure(9.0, 3.6)
    memory, times = figure.subplots(1, 2)
    for kind in ("dense", "sparse grid"):
        of_kind = [row for row in rows if row["kind"] == kind]
        states = [row["states"] for row in of_kind]
        (line,) = memory.plot(
            states, [row["peak_mb"] for row in of_kind], "o-", label=f"{kind}: peak"
        )
        factors = [row["factors_mb"] for row in of_kind]
        memory.plot(states, factors, ":", color=line.get_color(), label=f"{kind}: factors")
        times.plot(states, [row["ms"] for row in of_kind], "o-", label=kind)
    every = sorted({row["states"]: row["dense_hessian_mb"] for row in rows}.items())
    memory.plot(*zip(*every, strict=True), "--", color="0.5", label="one dense Hessian")
    for axes, label in ((memory, "megabytes"), (times, "milliseconds")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("states")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
