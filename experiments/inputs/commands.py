"""The commands and their options, as frozen dataclasses; a field's comment is its help text."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import tyro


def _shown(metavar: str, default: str | None = None) -> Any:
    """How `--help` shows an option that may be left out: its value, and its default if any."""
    hint = "" if default is None else f"(default: {default})"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A tabular problem, named in one of three ways."""

    #: A problem from a file: arrays transition [S, A, S], reward [S, A] or [S, A, S], discount,
    #: start [S] and, for a finite horizon, horizon.
    npz: Annotated[str | None, _shown("FILE.npz")] = None
    #: A problem from gymnasium: an environment that has a transition table, such as FrozenLake-v1,
    #: CliffWalking-v1 or Taxi-v4.
    gym: Annotated[str | None, _shown("NAME")] = None
    #: An argument of the gymnasium environment, such as is_slippery=False.
    env_option: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], _shown("KEY=VALUE", "none; may be repeated")
    ] = ()
    #: A random problem with S states and A actions, such as 3x2 (see --seed).
    random: Annotated[str | None, _shown("SxA")] = None
    #: The seed of the random problem, of random logits and of all samples.
    seed: int = 0
    #: The discount, from 0 to 1.
    discount: Annotated[float | None, _shown("GAMMA", "the npz file's, or 0.9")] = None
    #: The number of steps of an episode.
    horizon: Annotated[int | None, _shown("H", "the npz file's, or infinite")] = None
    #: The initial state: its number, or 'uniform' for all states with equal probability.
    start: Annotated[str | None, _shown("STATE|uniform", "the problem's own distribution")] = None


@dataclass(frozen=True, kw_only=True)
class Measurement(Problem):
    """A bias measurement: the policy, the estimate, and the evidence."""

    #: The number of steps after which trajectories are truncated, if the horizon is infinite.
    length: Annotated[int | None, _shown("STEPS")] = None
    #: The policy's logits [S, A]: all 0, standard normal (see --seed), or those of a file.
    theta: Annotated[str, _shown("uniform|random|FILE.npy", "uniform")] = "uniform"
    #: The derivative that is estimated: 1 for the gradient, 2 for the Hessian.
    order: Annotated[int, _shown("1|2", "1")] = 1
    #: The number of trajectories in one estimate. It is needed if the estimator couples the
    #: trajectories of a batch, as a baseline from the batch's mean reward does.
    batch_size: Annotated[int | None, _shown("N")] = None
    #: The state values that the estimator is given: 0, the policy's own, or those of a file.
    critic: Annotated[str, _shown("zero|exact|FILE.npy", "zero")] = "zero"
    #: The way the estimator's expectation is found. Exact: symbolic (a proof for all policies),
    #: enumeration (a sum over all trajectories), moments (recursions for built-in estimators). By
    #: samples: sampling (a fixed number), sequential (until the verdict is clear). auto takes
    #: enumeration or moments where they are feasible, and sampling elsewhere.
    evidence: Literal["auto", "symbolic", "enumeration", "moments", "sampling", "sequential"] = (
        "auto"
    )
    #: For sequential evidence: a range that contains every component of every estimate.
    bounds: Annotated[tuple[float, float] | None, _shown("LOW HIGH")] = None
    #: For sequential evidence: an upper bound of E[x^2] for every component x of an estimate.
    second_moment: Annotated[float | None, _shown("BOUND")] = None
    #: The largest bias, relative to the target's norm, that is called unbiased. By default sampled
    #: evidence allows 0.01, and exact evidence rounding and small constants in the estimator alone.
    tolerance: Annotated[float | None, _shown("SHARE", "0.01 by samples, 1e-9 exactly")] = None
    #: The type I error rate of sampled evidence: the probability that it calls an unbiased
    #: estimator biased.
    false_alarm: float = 1e-3
    #: The largest number of trajectories that sampled evidence draws.
    budget: int = 200_000
    #: A folder for the report, its numbers and pictures, and everything that repeats it.
    out: Annotated[str | None, _shown("DIR", "nothing is written")] = None
    #: Print one JSON object instead of text.
    json: tyro.conf.FlagCreatePairsOff[bool] = False


@dataclass(frozen=True, kw_only=True)
class Check(Measurement):
    """Measures the bias of one estimator on a problem (--npz, --gym or --random).

    Exit status: 0 unbiased, 1 biased, 2 bad input, 3 undecided or vacuous (nothing was tested).
    With --certificate and an existing file: 0 unchanged, 1 changed.
    """

    #: The estimator: a function or an estimator in your own file, or a name from `gradbias list`,
    #: such as ad.
    estimator: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE.py:NAME|BUILTIN")]
    #: A file with the answer: written if there is none, else compared with the new answer.
    certificate: Annotated[str | None, _shown("FILE")] = None
    #: For sequential evidence: a file that keeps the progress, from which a run that was stopped
    #: continues.
    checkpoint: Annotated[str | None, _shown("FILE")] = None


@dataclass(frozen=True, kw_only=True)
class Survey(Measurement):
    """Measures the biases of several estimators on one problem (--npz, --gym or --random) and says
    which of them are findings.

    Exit status: 0 all are unbiased, 1 at least one finding, 2 bad input, 3 no finding, but not all
    are unbiased.
    """

    #: The estimators: functions in your own files, or names from `gradbias list` such as ad.
    estimators: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="FILE.py:NAME|BUILTIN ...")
    ]
    #: The false-discovery rate: the largest expected share of false findings among all findings
    #: that rest on samples.
    false_discovery: float = 0.05

    def checks(self) -> list[Check]:
        """A check for each estimator, each with a separate folder. Raises ValueError if two of the
        names are equal, or if there is none.
        """
        shared = {f.name: getattr(self, f.name) for f in fields(Measurement)}
        names = [name.rpartition(":")[2] for name in self.estimators]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            got = f"{twice[0]!r} twice" if twice else "none"
            raise ValueError(f"estimators: expected different names, at least one, got {got}")
        outs = [None if self.out is None else f"{self.out}/{name}" for name in names]
        return [
            Check(**shared | {"estimator": name, "out": out})
            for name, out in zip(self.estimators, outs, strict=True)
        ]


@dataclass(frozen=True)
class Report:
    """Draws report.html again from the numbers in a check's folder."""

    #: The folder that `gradbias check --out DIR` wrote.
    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]


@dataclass(frozen=True)
class List:
    """Lists the built-in estimators, and gymnasium environments that have a transition table."""


@dataclass(frozen=True, kw_only=True)
class Bounds(Problem):
    """Compares the bias of a sampled meta-gradient with its theoretical bounds, as one setting is
    varied, on a problem (--npz, --gym or --random) or on a reward chain (--loop chain).
    """

    #: The number of steps of an episode, which has to be finite. Exact biases need few steps.
    horizon: Annotated[int | None, _shown("H", "the npz file's")] = None
    #: The logits [S, A] that the inner loop starts from: all 0, standard normal (see --seed), or
    #: those of a file.
    theta: Annotated[str, _shown("uniform|random|FILE.npy", "random")] = "random"
    #: The inner loop. maml: the meta-parameters are its initial logits. reuse: the same for one
    #: step whose trajectories are used again for its Hessian. lirpg: the meta-parameters are an
    #: intrinsic reward (0 here). chain: they are the discounts of the reward chain of a paper, and
    #: multi-step meta-gradients are mixed (give no problem).
    loop: Literal["maml", "reuse", "lirpg", "chain"] = "maml"
    #: The setting that is varied: the number of inner steps K, the step size, the batch size, or a
    #: factor of the Hessian's error. The chain has kappa and K.
    sweep: Literal["K", "step-size", "batch-size", "hessian-error", "kappa"] = "batch-size"
    #: The values of the varied setting.
    values: Annotated[tuple[float, ...], _shown("X [X ...]", "a grid that suits it")] = ()
    #: The number of inner steps.
    steps: Annotated[int | None, _shown("K", "2, or 1 with --loop reuse")] = None
    #: The step size of the inner steps.
    step_size: Annotated[float, _shown("ALPHA", "0.1")] = 0.1
    #: The number of trajectories in each batch of an inner step.
    batch_size: Annotated[
        int | None, _shown("N", "2; 32 on the chain; exact steps with --sweep hessian-error")
    ] = None
    #: The Hessian estimator whose mean replaces the exact Hessian.
    curvature: Annotated[
        Literal["exact", "dice", "lvc", "ad"] | None,
        _shown("exact|dice|lvc|ad", "exact; ad with --sweep hessian-error"),
    ] = None
    #: On the chain: the ratio of the weights of i + 1 and of i steps in the mix, from 0 to 1.
    kappa: Annotated[float | None, _shown("KAPPA", "1 - 1/K")] = None
    #: The number of inner loops that are sampled where there are too many batches to enumerate;
    #: with 0 no bias is given there.
    replications: int = 0
    #: A folder for results.csv, slopes.csv, bounds.png, bounds.svg and what repeats the study.
    out: Annotated[str | None, _shown("DIR", "nothing is written")] = None
    #: Print one JSON object instead of a table.
    json: tyro.conf.FlagCreatePairsOff[bool] = False

    @property
    def inner_steps(self) -> int:
        """K, the number of inner steps, 2 by default."""
        return 2 if self.steps is None else self.steps

    def swept(self, defaults: tuple[float, ...], *, integers: bool) -> list[float]:
        """The values of the varied quantity; with ``integers``, whole ones as int."""
        values = self.values or defaults
        return [int(v) if integers and float(v).is_integer() else v for v in values]

    def refuse(self, names: tuple[str, ...]) -> None:
        """Raises ValueError if one of these options, which the loop does not have, was given."""
        for name in names:
            if getattr(self, name):
                option = name.replace("_", "-")
                raise ValueError(f"--{option}: expected none with --loop {self.loop}")

    def repeated(self) -> list[str]:
        """The options that were given, without those of the problem and of the output."""
        skipped = {"theta", "out", "json", *(f.name for f in fields(Problem))} - {"discount"}
        arguments = []
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name not in skipped and value is not None and value != ():
                values = value if isinstance(value, tuple) else (value,)
                arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
        return arguments


Command = Check | Survey | Bounds | Report | List
