"""False-alarm rates and power of intervals and verdicts, measured: about a quarter of an hour, on
one core.

    python -m benchmarks.calibration [FOLDER] [RUNS]

writes calibration.md and calibration.png into FOLDER (default: docs), and fails where a method that
is valid for every number of samples, or a verdict on a rare reward, exceeds its rate.
"""

import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from gradbias.verification.confidence.mean_tests import MeanTest
from gradbias.verification.confidence.scaled_sequences import Method

ROOT = Path(__file__).parents[1]
RATES = (0.05, 0.01)
RUNS = 4000
NORM_RUNS = 2000
POWER_RUNS = 1000
BIAS = 0.3
RARE = (
    (1e-2, 100_000, 100),
    (1e-3, 100_000, 100),
    (1e-4, 10_000, 200),
    (1e-5, 10_000, 200),
    (1e-6, 10_000, 200),
)
"""Probability of the reward, trajectories, runs."""
RARE_RATE, PLANTED = 1e-3, 1.1
WIDTH_RUNS = 15
BUDGETS = ((1.0, 5), (0.2, 1), (0.05, 5), (0.03, 5))
METHODS = {
    Method.BETTING: "betting",
    Method.EMPIRICAL_BERNSTEIN: "empirical Bernstein",
    Method.TRUNCATED: "truncated",
    Method.ASYMPTOTIC: "asymptotic sequence",
    "t": "t-interval",
}
VALID = (Method.BETTING, Method.EMPIRICAL_BERNSTEIN, Method.TRUNCATED)


def false_alarms(cases_of, runs, rate):
    """``{(case, method): (runs with a miss at some look, at the last)}``."""
    found = {}
    for k, case in enumerate(cases_of.cases()):
        for m, method in enumerate(METHODS):
            missed = cases_of.misses(method, case, runs, rate, seed=[k, m, round(1e4 * rate)])
            if missed is not None:
                found[case, method] = tuple(int(part.sum()) for part in missed)
    return found


def powers(cases_of, runs):
    """Rows ``(case, what is known, samples, rate of misses)`` at a designed 10%."""
    rows = []
    for k, case in enumerate(cases_of.cases()):
        if case.low is None:
            continue
        width, variance = case.high - case.low, case.second - case.mean**2
        for known, bias in ((None, 0.2 * width), (variance, np.sqrt(variance))):
            test = MeanTest(case.low, case.high, 0.05, 0.1, known)
            if bias > 0.5 * width or test.samples_needed(bias) > 3000:
                continue
            missed = cases_of.missed_biases(case, test, bias, runs, seed=[k, known is None])
            what = "range" if known is None else "range and variance"
            rows.append((case, what, test.samples_needed(bias), float(missed.mean())))
    return rows


def sequential_powers(cases_of, runs):
    """Rows ``(direction, share of the design's samples, samples, looks, not found, promised by the
    run itself, not found though promised)``.
    """
    rates, size = cases_of.DESIGNED, 6
    directions = {"one component": np.eye(size)[0], "all alike": (-1.0) ** np.arange(size)}
    found = []
    for d, (name, along) in enumerate(directions.items()):
        for share, looks in BUDGETS:
            seed = [d, round(1000 * share)]
            n, missed, promised = cases_of.sequential_misses(
                share, along, rates, 0.01, BIAS, runs, seed, looks
            )
            counts = (int(part.sum()) for part in (missed, promised, missed & promised))
            found.append((name, share, n, looks, *counts))
    return found


def rare_verdicts(rewards, shrink):
    """Rows ``(probability, kind, trajectories, runs, BIASED by the sample alone, BIASED, UNDECIDED,
    BIASED with a planted bias)``.
    """
    rows = []
    for p, count, most in RARE:
        runs = max(most // shrink, 2)
        for kind, measure in rewards.KINDS.items():
            alone = [
                rewards.by_the_sample_alone(kind, 1.0, p, count, s).verdict for s in range(runs)
            ]
            ours = [measure(1.0, p, count, s).verdict for s in range(runs)]
            planted = [measure(PLANTED, p, count, s).verdict for s in range(runs)]
            biased = (sum(v.name == "BIASED" for v in group) for group in (alone, ours, planted))
            before, after, found = biased
            undecided = sum(v.name == "UNDECIDED" for v in ours)
            rows.append((p, kind, count, runs, before, after, undecided, found))
    return rows


def widths(of):
    """Rows ``(law, observations, ratio to capped fractions, ratio to hedged capital)``."""
    return [
        (name, n, *of.width_ratios(name, n, 1e-3, WIDTH_RUNS, seed=[k, n]))
        for k, name in enumerate(of.LAWS)
        for n in (1000, 10_000)
    ]


def percent(count, runs):
    """A rate, as printed."""
    return f"{100 * count / runs:.2f}%"


def table(found, runs, rate):
    """Lines of one table: at some look / at the last."""
    lines = [
        f"| estimator | kind | {' | '.join(METHODS.values())} |",
        "|---|---|" + "---|" * len(METHODS),
    ]
    for case in dict.fromkeys(case for case, _ in found):
        cells = []
        for method in METHODS:
            counts = found.get((case, method))
            text = "" if counts is None else " / ".join(percent(c, runs) for c in counts)
            cells.append(text)
        lines.append(f"| {case.name} | {case.kind} | {' | '.join(cells)} |")
    return [f"Nominal {100 * rate:g}%:", "", *lines, ""]


INTRODUCTION = """\
# Calibration

How often does an interval miss the true mean? The tables give the share of {runs:,} seeded runs
in which it did. The first number counts runs with a miss at any of the looks after {looks}
estimates, the second those with a miss at the last look. An interval that may be looked at any
time must keep its rate in the first number; the t-interval is made for the second only. Betting
and empirical Bernstein intervals use the range; truncated means use the second moment, which is
all that is known of the Pareto distribution. The last two columns are approximations, which
assume a normal mean. `python -m benchmarks.calibration` makes this page.

![Measured against nominal rates](calibration.png)
"""

REMARKS = """\
Many rates are 0 because the first three methods are valid for every distribution, at all times
and on both sides: they are conservative, not exact. An interval that uses the sample's own
standard deviation cannot allow for a rare reward that has not been seen; one that uses a range or
a moment can.

For vector estimates (AD's gradient, six components, {norm_runs:,} runs, two looks), the interval
of a component or that of the norm was wrong in {norms}.

## Power

The table gives the share of {runs:,} runs in which `MeanTest` missed a bias, with as many samples
as it asks for (`samples_needed`). The tests are designed for a missed-bias rate (type II error)
of 10% and a false-alarm rate (type I error) of 5%. The bias is a fifth of the range, or one
standard deviation if the variance is given:

| estimator | known | samples | missed |
|---|---|---|---|
{rows}

The design is a guarantee for every distribution with that range and variance, so a particular
bias is missed less often than designed.

The next table is for sequential runs (AD's gradient, six components, betting, false-alarm rate
5%, missed-bias rate 10%, {power_runs:,} runs each) with a bias of norm {bias:g}, for which the
runs are designed (`SequentialDesign`). *Not found* is the share of runs that did not find the
bias within the budget; it is guaranteed to be at most 10% with the whole budget of the design.
*Promised* is the share of runs that ended with a smallest detectable bias below {bias:g}. The
last column is the share of runs that promised to find the bias and did not; it is guaranteed to
be at most 10% with any budget:

| bias in | share of the budget | estimates | looks | not found | promised | of these not found |
|---|---|---|---|---|---|---|
{sequential}

The design knows only the ranges, so it asks for far more samples than a particular distribution
needs.

## Widths

How much narrower betting is than with fractions of at most a half of the wealth, and than hedged
capital (Waudby-Smith and Ramdas 2024), whose fractions follow the sample: median ratios of the
widths of {width_runs} samples, at a rate of 0.1%. Numbers above 1 mean that these intervals are the
narrower ones:

| law | observations | capped fractions | hedged capital |
|---|---|---|---|
{widths}

## Rare rewards

The reward 1 / p is paid with probability p, after one of two actions. The estimator is REINFORCE
with a constant baseline, and nothing is known of its range. *By the sample alone* is the share of
runs that said BIASED without the exact kurtosis and the control variate (see
[sampling.md](sampling.md#rare-events)), the next columns are the verdicts with them: BIASED is a
false alarm, of a nominal {rare_rate:g}%. The last column is the share of runs that said BIASED of
{planted:g}% more than the gradient (tolerance 2%). Where too few trajectories earn the reward, all
verdicts are UNDECIDED, and more trajectories, enumeration or a range decide:

| p | evidence | trajectories | runs | by the sample alone | BIASED | UNDECIDED | bias found |
|---|---|---|---|---|---|---|---|
{rare}
"""


def page(found, norms, power, sequential, runs, looks, widened, rare):
    """The page's text."""
    ratios = [f"| {name} | {n:,} | {a:.2f} | {b:.2f} |" for name, n, a, b in widened]
    lines = []
    for p, kind, n, count, *counts in rare:
        cells = (f"{p:g}", kind, f"{n:,}", str(count), *(f"{100 * c / count:.1f}%" for c in counts))
        lines.append(f"| {' | '.join(cells)} |")
    tables = [line for rate in RATES for line in table(found[rate], runs, rate)]
    wrong = [f"{percent(norms[r], NORM_RUNS)} at a nominal {100 * r:g}%" for r in RATES]
    rows = [f"| {c.name} | {what} | {n:,} | {100 * m:.2f}% |" for c, what, n, m in power]
    shown = []
    for name, share, n, times, *counts in sequential:
        cells = (f"{share:g}", f"{n:,}", str(times), *(percent(c, POWER_RUNS) for c in counts))
        shown.append(f"| {' | '.join([name, *cells])} |")
    begin = INTRODUCTION.format(runs=runs, looks=", ".join(map(str, looks)))
    end = REMARKS.format(
        norm_runs=NORM_RUNS,
        norms=" and in ".join(wrong),
        runs=runs // 2,
        rows="\n".join(rows),
        power_runs=POWER_RUNS,
        bias=BIAS,
        sequential="\n".join(shown),
        width_runs=WIDTH_RUNS,
        widths="\n".join(ratios),
        rare_rate=100 * RARE_RATE,
        planted=100 * (PLANTED - 1),
        rare="\n".join(lines),
    )
    return "\n".join([begin, *tables, end])


def draw(found, runs, path):
    """Measured rates at any look, by case and method, with the nominal one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.add_subplot()
    rate = RATES[0]
    cases = list(dict.fromkeys(case for case, _ in found[rate]))
    marks = ("o", "s", "^", "x", "+")
    for mark, (method, name) in zip(marks, METHODS.items(), strict=True):
        at = [i for i, case in enumerate(cases) if (case, method) in found[rate]]
        shares = [found[rate][cases[i], method][0] / runs for i in at]
        axes.plot(np.maximum(shares, 0.5 / runs), at, mark, label=name)
    axes.axvline(rate, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(cases)), [f"{c.name} ({c.kind})" for c in cases])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"share of {runs:,} runs with a miss at some look (dashed: nominal)")
    axes.legend(fontsize=8, loc="upper center", ncols=5, bbox_to_anchor=(0.4, 1.12))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def unexplained(found, norms, power, sequential, rare, runs, exceeds):
    """Sentences on rates that are exceeded."""
    wrong = []
    for p, kind, _, count, _, after, *_ in rare:
        if exceeds(after, count, RARE_RATE):
            wrong.append(f"rare reward of {p:g}, {kind}: {percent(after, count)} at {RARE_RATE}")
    for rate, counts in found.items():
        for (case, method), (ever, _) in counts.items():
            if method in VALID and exceeds(ever, runs, rate):
                wrong.append(f"{METHODS[method]} on {case.name}: {percent(ever, runs)} at {rate}")
        if exceeds(norms[rate], NORM_RUNS, rate):
            wrong.append(f"norms: {percent(norms[rate], NORM_RUNS)} at {rate}")
    for case, _, _, missed in power:
        if exceeds(round(missed * (runs // 2)), runs // 2, 0.1):
            wrong.append(f"missed biases on {case.name}: {missed:.3g}")
    for name, share, _, _, missed, _, broken in sequential:
        if share >= 1.0 and exceeds(missed, POWER_RUNS, 0.1):
            wrong.append(f"sequential runs, {name}: {percent(missed, POWER_RUNS)} not found")
        if exceeds(broken, POWER_RUNS, 0.1):
            wrong.append(f"sequential runs, {name}: {percent(broken, POWER_RUNS)} though promised")
    return wrong


def main():
    """Measures, writes, and returns 1 if a rate is exceeded."""
    cases_of = import_module("tests.cases.calibration")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
    began = time.perf_counter()
    found = {rate: false_alarms(cases_of, runs, rate) for rate in RATES}
    print(f"false alarms of means, {time.perf_counter() - began:.0f} s", flush=True)
    norms = {r: int(cases_of.norm_misses(r, NORM_RUNS, seed=7).sum()) for r in RATES}
    print(f"false alarms of norms, {time.perf_counter() - began:.0f} s", flush=True)
    power = powers(cases_of, runs // 2)
    sequential = sequential_powers(cases_of, POWER_RUNS)
    print(f"power, {time.perf_counter() - began:.0f} s", flush=True)
    widened = widths(import_module("tests.cases.widths"))
    rare = rare_verdicts(import_module("tests.cases.rare_rewards"), max(RUNS // runs, 1))
    print(f"widths and rare rewards, {time.perf_counter() - began:.0f} s", flush=True)
    text = page(found, norms, power, sequential, runs, cases_of.LOOKS, widened, rare)
    (folder / "calibration.md").write_text(text)
    draw(found, runs, folder / "calibration.png")
    wrong = unexplained(found, norms, power, sequential, rare, runs, cases_of.exceeds)
    print("\n".join([f"wrote {folder}, {time.perf_counter() - began:.0f} s", *wrong]))
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
