"""One check: from what the command line says to a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analytic.arrays import FloatArray
from analytic.problems import TabularMDP
from experiments.problem_sources import generators, load_critic, load_problem, load_theta
from experiments.progress import shown_progress
from experiments.user_files import load_named
from stochastic.coefficients import Surrogate
from stochastic.estimators import (
    CallableEstimator,
    DrawEstimator,
    Estimator,
    SurrogateEstimator,
    from_surrogate,
)
from stochastic.surrogates.dice import dice, loaded_dice
from stochastic.surrogates.score_function import ad, lvc
from verification.measurement import measure_bias
from verification.reports import BiasReport

if TYPE_CHECKING:
    from experiments.cli import Check

BUILTINS: dict[str, Surrogate] = {"ad": ad, "lvc": lvc, "dice": dice, "loaded_dice": loaded_dice}


@dataclass(frozen=True, eq=False)
class Checked:
    """A report with what it was made from."""

    report: BiasReport
    mdp: TabularMDP
    theta: FloatArray
    critic: FloatArray | None
    source: Path | None
    """The user's file; None for a built-in."""


def run_check(command: Check) -> Checked:
    """The check that the command line asks for.

    Raises:
        ValueError: bad input of any kind, in one sentence.
    """
    if command.order not in (1, 2):
        raise ValueError(f"--order: expected 1 or 2, got {command.order}")
    problem_rng, policy_rng, sample_rng = generators(command.seed)
    estimator, source = find_estimator(command.estimator, command.order)
    mdp = load_problem(command, problem_rng)
    theta = load_theta(command.theta, mdp, policy_rng)
    critic = load_critic(command.critic, mdp, theta)
    with shown_progress(estimator.name) as progress:
        report = measure_bias(
            estimator,
            mdp,
            theta,
            evidence=command.evidence,
            tolerance=command.tolerance,
            false_alarm=command.false_alarm,
            trajectories=command.trajectories,
            critic=critic,
            length=command.length,
            samples=command.budget,
            rng=sample_rng,
            progress=progress,
        )
    return Checked(report, mdp, theta, critic, source)


def find_estimator(name: str, order: int) -> tuple[Estimator, Path | None]:
    """A built-in by its name, or what FILE.py:NAME names: a surrogate, or an estimator that
    `from_surrogate`, `from_callable` or `from_draws` made.

    Raises:
        ValueError: neither, or an estimator of another order.
    """
    if name in BUILTINS:
        return from_surrogate(BUILTINS[name], order, name=name), None
    file, separator, attribute = name.rpartition(":")
    if not separator or not file.endswith(".py") or not attribute:
        raise ValueError(
            f"estimator: expected FILE.py:NAME or one of {', '.join(sorted(BUILTINS))}, "
            f"got {name!r}"
        )
    found = load_named(Path(file), attribute)
    if not isinstance(found, SurrogateEstimator | CallableEstimator | DrawEstimator):
        return from_surrogate(found, order, name=attribute), Path(file)
    if found.order != order:
        raise ValueError(f"--order: expected {found.order}, the order of {name}, got {order}")
    return found, Path(file)
