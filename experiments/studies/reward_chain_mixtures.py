"""`gradbias bounds --loop chain`: mixes of multi-step meta-gradients on the reward chain.

The chain is the paper's: ten states, each with its own discount (all equal here), and values of 0.
The loss is a mean over the states.

Source: *One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient RL*, eq. (10) and App. B.1.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gradbias.analytic.problems.reward_chains import ChainLearner, RewardChain
from gradbias.experiments.inputs.commands import Bounds
from gradbias.experiments.reports.study_folder import Panel, Study, StudyRow
from gradbias.verification.bounds.mixture_sweep import MixtureSweep, mixture_versus_bounds

STATES = 10
DEFAULT_BATCH_SIZE = 32
DEFAULT_DISCOUNT = 0.9
SWEEPS = {
    "kappa": (MixtureSweep.KAPPA, (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)),
    "K": (MixtureSweep.STEPS, (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)),
}
NOT_OF_A_CHAIN = (
    *("npz", "gym", "random", "horizon", "start", "curvature", "env_option", "replications"),
)
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "{}_bound": ("bound of the mix", {"color": "#0b5fa5", "marker": "^"}),
    "{}": ("mix, exact", {"color": "black", "marker": "o", "lw": 3.0}),
    "last_{}": ("n-step estimate alone, exact", {"color": "#fdb863", "ls": "--"}),
}


def mixture_study(command: Bounds) -> Study:
    """Biases and variances of mixes on the chain, beside their bounds.

    Raises:
        ValueError: bad input of any kind, in one sentence.
    """
    command.refuse(NOT_OF_A_CHAIN)
    if command.theta != "random":
        raise ValueError("--theta: expected none with --loop chain")
    if command.sweep not in SWEEPS:
        raise ValueError(f"--sweep: expected kappa or K with --loop chain, got {command.sweep}")
    sweep, defaults = SWEEPS[command.sweep]
    of_kappa = sweep is MixtureSweep.KAPPA
    rows = mixture_versus_bounds(
        _learner(command),
        sweep=sweep,
        values=command.swept(defaults, integers=not of_kappa),
        steps=command.inner_steps,
        kappa=command.kappa,
    )
    swept = [row.kappa or 0.0 if of_kappa else row.steps for row in rows]
    return Study(
        swept=sweep.label,
        rows=[StudyRow(x, dataclasses.asdict(r)) for x, r in zip(swept, rows, strict=True)],
        columns=(
            *("bias", "bias_bound", "last_bias", "variance", "variance_bound", "last_variance"),
            *("aligned", "decreasing"),
        ),
        panels=[
            Panel(_lines("bias"), sweep.label, "Norm of the bias", log_x=not of_kappa),
            Panel(
                _lines("variance"),
                sweep.label,
                "Norm of the standard deviation",
                log_x=not of_kappa,
                transform=np.sqrt,
            ),
        ],
    )


def _lines(measure: str) -> dict[str, tuple[str, dict[str, Any]]]:
    return {name.format(measure): look for name, look in LINES.items()}


def _learner(command: Bounds) -> ChainLearner:
    batch_size = DEFAULT_BATCH_SIZE if command.batch_size is None else command.batch_size
    discount = DEFAULT_DISCOUNT if command.discount is None else command.discount
    return ChainLearner(
        RewardChain.alternating(STATES),
        np.full(STATES, discount),
        np.zeros(STATES),
        command.step_size,
        1.0 / STATES,
        batch_size,
        batch_size,
    )
