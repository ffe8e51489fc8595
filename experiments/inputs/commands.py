"""What the command line can be asked, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A tabular problem, named in one of three ways."""

    npz: str | None = None
    """The problem: an archive with arrays transition, reward, discount, start[, horizon]."""
    gym: str | None = None
    """The problem: a gymnasium environment with a table (FrozenLake-v1, CliffWalking-v1, Taxi-v4).
    """
    env_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of the environment, KEY=VALUE (may be repeated)."""
    random: str | None = None
    """The problem: a random MDP of SxA, such as 3x2 (see --seed)."""
    seed: int = 0
    """Of the random problem, random logits and samples."""
    discount: float | None = None
    """Between 0 and 1; default 0.9, or what the npz file says."""
    horizon: int | None = None
    """Steps with rewards; without it the horizon is infinite, or what the npz file says."""
    start: str | None = None
    """'uniform' over states, or a state's number; default: the problem's own."""


@dataclass(frozen=True, kw_only=True)
class Measurement(Problem):
    """What a bias is measured at, and on what evidence."""

    length: int | None = None
    """For an infinite horizon: steps after which trajectories are cut."""
    theta: str = "uniform"
    """The policy's logits: 'uniform', 'random' (standard normal, see --seed) or FILE.npy."""
    order: int = 1
    """1 for the gradient, 2 for the Hessian."""
    batch_size: int | None = None
    """N, the batch size; needed where the estimator couples the trajectories of a batch."""
    critic: str = "zero"
    """The values that the record carries: 'zero', 'exact' or FILE.npy."""
    evidence: Literal["auto", "symbolic", "enumeration", "moments", "sampling", "sequential"] = (
        "auto"
    )
    """Where the expectation comes from; 'sequential' samples until it is decided."""
    bounds: tuple[float, float] | None = None
    """Sequential evidence: the range that every component of an estimate keeps to."""
    second_moment: float | None = None
    """Sequential evidence: at least E[x^2] of every component of an estimate."""
    tolerance: float = 0.01
    """The largest relative bias that sampled evidence still calls unbiased."""
    false_alarm: float = 1e-3
    """Probability that sampled evidence is wrong about an unbiased estimator."""
    budget: int = 200_000
    """Trajectories that sampled evidence may draw."""
    out: str | None = None
    """A folder for the report, its pictures and numbers, and all that is needed to repeat it."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class Check(Measurement):
    """Is an estimator biased? Exit status: 0 unbiased, 1 biased, 2 bad input, 3 undecided or
    vacuous; where a certificate is there to compare with: 0 unchanged, 1 changed.
    """

    estimator: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE.py:NAME|BUILTIN")]
    """A surrogate in your own file, or a name that `gradbias list` prints (ad, lvc, dice, ...)."""
    certificate: str | None = None
    """A file to keep the answer in, or, where it exists, to compare it with."""
    checkpoint: str | None = None
    """Sequential evidence: a file that a killed run goes on from."""


@dataclass(frozen=True, kw_only=True)
class Survey(Measurement):
    """Which of several estimators are biased? Exit status: 0 none, 1 some, 2 bad input, 3 none for
    certain.
    """

    estimators: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="FILE.py:NAME|BUILTIN ...")
    ]
    """Surrogates in your own files, or names that `gradbias list` prints."""
    false_discovery: float = 0.05
    """Share of the biases that are found by sampling which may be false, in expectation."""

    def checks(self) -> list[Check]:
        """One for each estimator, with a folder of its own."""
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
    """Draws report.html again from the data that `check --out DIR` left."""

    folder: tyro.conf.Positional[str]
    """The folder."""


@dataclass(frozen=True)
class List:
    """Lists the built-in estimators and the environments that are known to have a table."""


@dataclass(frozen=True, kw_only=True)
class Bounds(Problem):
    """The bias of a sampled meta-gradient beside theory's bounds, over a sweep of one number."""

    horizon: int | None = None
    """Steps with rewards; needed, but where the npz file says it. Exact biases need few."""
    theta: str = "random"
    """Where the inner loop starts: 'uniform', 'random' (standard normal) or FILE.npy."""
    loop: Literal["maml", "reuse", "lirpg", "chain"] = "maml"
    """What the meta-parameters are: theta^0 (with 'reuse': of one step whose trajectories are used
    again for its Hessian), an intrinsic reward (0 here), or the discounts of the reward chain,
    whose multi-step meta-gradients are mixed (no problem is given then)."""
    sweep: Literal["K", "step-size", "batch-size", "hessian-error", "kappa"] = "batch-size"
    """What is varied; the Hessian's error by factors; kappa or K on the chain."""
    values: tuple[float, ...] = ()
    """Of what is varied; there are defaults."""
    steps: int | None = None
    """K, the inner steps; default 2, or 1 with 'reuse'."""
    step_size: float = 0.1
    """alpha."""
    batch_size: int | None = None
    """N, trajectories a step; default 2, or expected steps where the Hessian's error is swept."""
    curvature: Literal["exact", "dice", "lvc", "ad"] | None = None
    """Whose mean the Hessians have; default exact ones, or AD's where their error is swept."""
    kappa: float | None = None
    """How the chain's steps are mixed; default 1 - 1/K."""
    replications: int = 0
    """Sampled loops that are drawn where batches are too many to enumerate (0: none)."""
    out: str | None = None
    """A folder for results.csv, slopes.csv, bounds.png, bounds.svg and what repeats it."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of a table."""

    @property
    def inner_steps(self) -> int:
        """K, the number of inner steps, 2 by default."""
        return 2 if self.steps is None else self.steps

    def swept(self, defaults: tuple[float, ...], *, integers: bool) -> list[float]:
        """The values of the varied quantity; as integers where it is a number of things."""
        values = self.values or defaults
        return [int(v) if integers and float(v).is_integer() else v for v in values]

    def refuse(self, names: tuple[str, ...]) -> None:
        """Raises ValueError if one of these options, which the loop does not have, was given."""
        for name in names:
            if getattr(self, name):
                option = name.replace("_", "-")
                raise ValueError(f"--{option}: expected none with --loop {self.loop}")

    def repeated(self) -> list[str]:
        """The options that were given, but for those of the problem and of the output."""
        skipped = {"theta", "out", "json", *(f.name for f in fields(Problem))} - {"discount"}
        arguments = []
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name not in skipped and value is not None and value != ():
                values = value if isinstance(value, tuple) else (value,)
                arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
        return arguments


Command = Check | Survey | Bounds | Report | List
