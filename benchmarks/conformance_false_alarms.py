"""How often the conformance suite fails an estimator that conforms: counted over seeded runs.

    python -m benchmarks.conformance_false_alarms --runs 1000

Every run has problems, batches and samples of its own, in mode "sampling", with all that the
estimator may claim. The suite's bound is 1e-4 a run; this counts what is left besides: rounding,
and mistakes of the suite.
"""

import argparse
import time

import numpy as np

from gradbias.verification.conformance.suite import check_estimator
from tests.cases.conforming import CONFORMING


def false_alarms(runs, first=0):
    """The failing runs, as reports, and how many checks ran in all."""
    names, failing, checks = list(CONFORMING), [], 0
    for seed in range(first, first + runs):
        name = names[seed % len(names)]
        estimator, n, claims = CONFORMING[name]
        report = check_estimator(
            estimator,
            claims=claims,
            batch_size=n,
            mode="sampling",
            rng=np.random.default_rng(seed),
            replications=1_000,
        )
        checks += report.ran
        if report.failed:
            failing.append((seed, name, report))
    return failing, checks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    given = parser.parse_args()
    began = time.perf_counter()
    failing, checks = false_alarms(given.runs, given.first)
    for seed, name, report in failing:
        print(f"seed {seed}, {name}:\n{report}")
    print(
        f"{len(failing)} false alarms in {given.runs:,} runs ({checks:,} checks), "
        f"{time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
