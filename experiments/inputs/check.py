"""One check: from the options of the command line to a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradbias.analytic.utils.validation import whole_number
from gradbias.experiments.inputs.commands import Check
from gradbias.experiments.inputs.problems import generators, load_critic, load_problem, load_theta
from gradbias.experiments.inputs.progress import shown_progress
from gradbias.experiments.inputs.user_files import UserFile, load_file
from gradbias.stochastic.estimators.kinds import Estimator, from_surrogate
from gradbias.stochastic.surrogates.catalogue import CATALOGUE
from gradbias.verification.evidence.reports import BiasReport
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.sequential.measure import measure_bias_sequentially


@dataclass(frozen=True, eq=False)
class Checked:
    """A report, and the files that its estimator comes from."""

    report: BiasReport
    sources: tuple[Path, ...]
    """The user's file and the neighbours that it imports; empty for a built-in estimator."""

    @property
    def setting(self) -> Setting:
        """Where the report was measured."""
        assert self.report.setting is not None
        return self.report.setting


def run_check(command: Check) -> Checked:
    """Runs the check that the command line asks for.

    Raises:
        ValueError: bad input of any kind, in one sentence.
    """
    if command.order not in (1, 2):
        raise ValueError(f"--order: expected 1 or 2, got {command.order}")
    whole_number("--budget", command.budget, at_least=1)
    problem_rng, policy_rng, sample_rng = generators(command.seed)
    # The user's file is loaded last, as it may do anything, even change the working directory.
    mdp = load_problem(command, problem_rng)
    theta = load_theta(command.theta, mdp, policy_rng)
    critic = load_critic(command.critic, mdp, theta)
    estimator, user_file = find_estimator(command.estimator, command.order)
    with shown_progress(estimator.name) as progress:
        measure, options = _measure(command)
        report = measure(
            estimator,
            mdp,
            theta,
            false_alarm=command.false_alarm,
            batch_size=command.batch_size,
            critic=critic,
            length=command.length,
            budget=command.budget,
            rng=sample_rng,
            progress=progress,
            **options,
        )
    sources = () if user_file is None else user_file.sources
    return Checked(report, sources)


def _measure(command: Check) -> tuple[Callable[..., BiasReport], dict[str, Any]]:
    """The function that measures, and those of its options that the other one lacks or that have
    another default there.
    """
    tolerance = {} if command.tolerance is None else {"tolerance": command.tolerance}
    options = {name: getattr(command, name) for name in ("bounds", "second_moment", "checkpoint")}
    sequential = {name: value for name, value in options.items() if value is not None}
    if command.evidence == "sequential":
        return measure_bias_sequentially, tolerance | sequential
    if sequential:
        option = next(iter(sequential)).replace("_", "-")
        raise ValueError(f"--{option}: expected --evidence sequential, got {command.evidence}")
    return measure_bias, tolerance | {"evidence": command.evidence}


def find_estimator(name: str, order: int) -> tuple[Estimator, UserFile | None]:
    """The estimator of a name, and the file that it comes from (None for a built-in).

    FILE.py:NAME may be a surrogate, or an estimator made by `from_surrogate`, `from_callable` or
    `from_draws`.

    Raises:
        ValueError: an unknown name, an object that cannot be called, or one of another order.
    """
    check_name(name)
    if name in CATALOGUE:
        return from_surrogate(CATALOGUE[name], order=order, name=name), None
    file, _, attribute = name.rpartition(":")
    user_file = load_file(Path(file))
    loaded = user_file.named(attribute)
    if isinstance(loaded, Estimator):
        if loaded.order != order:
            raise ValueError(f"--order: expected {loaded.order}, the order of {name}, got {order}")
        return loaded, user_file
    if not callable(loaded):
        raise ValueError(
            f"{file}: expected {attribute!r} to be callable, got {type(loaded).__name__}"
        )
    return from_surrogate(loaded, order=order, name=attribute), user_file


def check_name(name: str) -> None:
    """Raises ValueError unless the name is a built-in's or has the form FILE.py:NAME."""
    file, _, attribute = name.rpartition(":")
    if name not in CATALOGUE and not (file.endswith(".py") and attribute):
        raise ValueError(
            f"estimator: expected FILE.py:NAME or one of {', '.join(sorted(CATALOGUE))}, "
            f"got {name!r}"
        )
