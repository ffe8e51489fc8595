"""A surrogate's coefficients as exact polynomials, read from its program.

The program is run on symbols (see `stochastic.tracing.interpretation`), once for all trajectories
if it reads neither states nor actions, else once for each that differs in what it reads. Runs on
ordinary numbers then test the interpretation: derivatives and operations have to agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gradbias.analytic.utils.validation import IntArray
from gradbias.stochastic.derivatives.process_state import Generators, Settings
from gradbias.stochastic.estimators.agreement import Runs, check_interpretation
from gradbias.stochastic.estimators.kinds import SurrogateEstimator
from gradbias.stochastic.tracing.interpretation import (
    Paths,
    Reading,
    Terms,
    UnfitError,
    Visit,
    interpret,
    unfit,
)
from gradbias.stochastic.tracing.reachable_state import unchanged

MAX_RUNS = 10_000
"""The most runs of a program on symbols: some minutes."""

PAIRS = 8
"""The pairs of trajectories on which batches of two are tried, if trajectories differ."""

_DYADIC = 2**20
"""Fractions whose denominator divides this one are exact in what computes them in floats."""

Polynomial = tuple[Fraction, ...]
"""Coefficients in the discount, lowest power first, without leading zeros."""

Term = tuple[tuple[tuple[int, int], ...], int, Polynomial]
"""(visits, x, polynomial): the derivative in the log-probabilities of ``visits``, each a time and
an action (-1: the one taken), has ``polynomial`` in the discount times the input number x: of 1,
the rewards of steps 0..H-1, the critic's values at times 0..H."""


@dataclass(frozen=True, eq=False)
class ExactCoefficients:
    """The terms of all orders up to the estimator's, and how they were found.

    Attributes:
        order: the estimator's order.
        degree: the highest power of the discount.
        shared: the terms, if they are the same on every trajectory; else None.
        of_path: the terms by a trajectory's states and actions, if they are not.
        runs: the number of runs on symbols.
        operations: the number of tensor operations of a run.
        reads: what the program reads of states, actions and alive.
        casts: file and line of each cast to fewer digits.
        tests: the number of runs on ordinary numbers that agree.
        rounded: whether a coefficient is a fraction that floats only approximate in general.
    """

    order: int
    degree: int
    shared: tuple[Term, ...] | None
    of_path: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[Term, ...]]
    runs: int
    operations: int
    reads: tuple[str, ...]
    casts: tuple[tuple[str, int], ...]
    tests: int
    rounded: bool

    @property
    def covered(self) -> str:
        """What a proof that uses these coefficients covers, and what it assumes."""
        runs = "1 run" if self.runs == 1 else f"{self.runs:,} runs"
        text = (
            "rewards, critic, discount and log-probabilities as symbols; "
            f"{_listed(['shape', *self.reads])} as they are; read from {runs} of "
            f"{self.operations:,} operations, which {self.tests:,} runs on floats confirm to "
            "1e-10; arithmetic is taken for exact, each constant for the rational that its float "
            "is"
        )
        if self.casts:
            places = ", ".join(f"{file}, line {line}" for file, line in self.casts)
            text += f"; constants are cast to fewer digits in {places}"
        return text


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def exact_coefficients(
    estimator: SurrogateEstimator, paths: Paths, n_states: int, n_actions: int
) -> ExactCoefficients:
    """The coefficients of a surrogate on given trajectories, each a batch of one.

    Raises:
        UnfitError: an operation needs the value of a symbol or has no exact result; the
            derivatives depend on the policy, couple trajectories, or are not affine in rewards and
            critic; or runs on numbers do not agree.
        SurrogateError: as `stochastic.derivatives.coefficients.coefficients`.
    """
    runs = Runs(estimator, paths, n_states, n_actions)
    runs.warm()
    watch = Generators.now(), Settings.now()
    reader = _Reader(estimator, paths, n_actions)
    readings, classes, by_time = reader.readings()
    # After the first runs, since a program may well keep what it computes once.
    with unchanged(estimator.function) as state:
        reader.check_coupling(readings, classes, by_time=by_time)
        terms = [_listed_terms(reading.terms) for reading in readings]
        shared = _shared(terms, paths, classes)
        tests = check_interpretation(runs, terms, classes, readings)
    disturbed = watch[0].changed(Generators.now()) or watch[1].changed(Settings.now())
    if disturbed:
        raise unfit(estimator.name, f"changes {disturbed}")
    if state.changed:
        raise unfit(estimator.name, f"changes between calls what it can reach: {state.changed}")
    sources = set().union(*(reading.sources for reading in readings))
    polynomials = [polynomial for group in terms for _, _, polynomial in group]
    inverse = classes[1].tolist()
    return ExactCoefficients(
        order=estimator.order,
        degree=max((len(p) - 1 for p in polynomials), default=0),
        shared=shared,
        of_path=(
            {}
            if shared is not None
            else {key: terms[i] for key, i in zip(paths.keys(), inverse, strict=True)}
        ),
        runs=len(readings),
        operations=max(len(reading.operations) for reading in readings),
        reads=tuple(name for name in ("states", "actions", "alive") if name in sources),
        casts=tuple(sorted({place for reading in readings for place in reading.casts})),
        tests=tests,
        rounded=any(_DYADIC % c.denominator for p in polynomials for c in p),
    )


Classes = tuple[IntArray, IntArray]
"""One trajectory of each class, and the class of each trajectory."""


@dataclass(frozen=True, eq=False)
class _Reader:
    """Runs a surrogate on symbols."""

    estimator: SurrogateEstimator
    paths: Paths
    n_actions: int

    def read(self, chosen: list[int], *, by_time: bool) -> Reading:
        """One run, on a batch of the paths ``chosen``."""
        return interpret(
            self.estimator.function,
            self.estimator.name,
            self.paths[chosen],
            self.n_actions,
            self.estimator.order,
            by_time=by_time,
        )

    def readings(self) -> tuple[list[Reading], Classes, bool]:
        """A reading of each class of trajectories, the classes, and whether the policy's symbols
        were by time.
        """
        whole: list[Reading] = []
        try:
            whole = [self.read([self.paths.longest], by_time=True)]
            sources = whole[0].sources
            by_time = not sources & {"states", "actions"}
        except UnfitError:
            # Perhaps only as long as equal log-probabilities are different symbols.
            sources, by_time = {"states", "actions"}, False
        while True:
            concrete = sources & {"states", "actions", "alive"}
            classes = self.paths.classes(concrete)
            first = _longest_first(classes, self.paths)
            if len(first) > MAX_RUNS:
                raise UnfitError(
                    f"{self.estimator.name}: expected at most {MAX_RUNS:,} different trajectories, "
                    f"got {len(first):,} (it reads {', '.join(sorted(concrete))}); use a smaller "
                    "shape"
                )
            if whole and by_time and len(first) == 1:
                return whole, classes, by_time
            readings = [self.read([b], by_time=by_time) for b in first]
            more = set().union(*(reading.sources for reading in readings)) | sources
            if more & {"states", "actions", "alive"} == concrete:
                return readings, classes, by_time
            sources, by_time = more, by_time and not more & {"states", "actions"}

    def check_coupling(self, readings: list[Reading], classes: Classes, *, by_time: bool) -> None:
        """Raises UnfitError if a batch of two has other coefficients than half of each one's."""
        rng = np.random.default_rng(0)
        first = _longest_first(classes, self.paths)
        pairs = [(0, 0)] if len(first) == 1 else rng.integers(len(first), size=(PAIRS, 2)).tolist()
        for pair in pairs:
            both = self.read([first[i] for i in pair], by_time=by_time).terms
            wanted: Terms = {}
            for n, i in enumerate(pair):
                for (visits, (_, x)), powers in readings[i].terms.items():
                    moved: tuple[Visit, ...] = tuple((n, t, a) for _, t, a in visits)
                    key = (moved, (n if x else 0, x))
                    wanted[key] = {degree: c / 2 for degree, c in powers.items()}
            if _nonzero(both) != _nonzero(wanted):
                raise UnfitError(f"{self.estimator.name}: couples the trajectories of a batch")


def _longest_first(classes: Classes, paths: Paths) -> list[int]:
    """One trajectory of each class; for a single class, the longest."""
    first = classes[0].tolist()
    return [paths.longest] if len(first) == 1 else first


def _nonzero(terms: Terms) -> Terms:
    kept = {key: {d: c for d, c in powers.items() if c} for key, powers in terms.items()}
    return {key: powers for key, powers in kept.items() if powers}


def _listed_terms(terms: Terms) -> tuple[Term, ...]:
    """The terms of a batch of one, in an order that does not depend on the program's."""
    listed = []
    for (visits, (_, x)), powers in _nonzero(terms).items():
        polynomial = tuple(Fraction(powers.get(d, 0)) for d in range(max(powers) + 1))
        listed.append((tuple((t, a) for _, t, a in visits), x, polynomial))
    return tuple(sorted(listed, key=lambda term: (len(term[0]), term[0], term[1])))


def _shared(
    terms: list[tuple[Term, ...]], paths: Paths, classes: Classes
) -> tuple[Term, ...] | None:
    """The terms of the longest trajectory, if the others' are what is left of them while they last;
    else None.
    """
    if len(terms) == 1:
        return terms[0]
    whole = terms[int(classes[1][paths.longest])]
    steps = paths.actions.shape[1]
    for b, group in zip(classes[0].tolist(), terms, strict=True):
        alive = [*(~paths.ended[b]).tolist()]
        kept = (
            term
            for term in whole
            if all(alive[t] for t, _ in term[0])
            and (not 1 <= term[1] <= steps or alive[term[1] - 1])
        )
        if tuple(kept) != group:
            return None
    return whole
