"""Runs the tests on every mutant of the surrogates: some minutes, on one core.

    python -m benchmarks.mutants [FILE]

writes FILE (default: docs/mutants.md), and fails if a mutant survives without a stated reason.
"""

import sys
import time
from importlib import import_module
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def report_progress(done, total, began=time.perf_counter()):  # noqa: B008
    """Prints a line after every twentieth mutant."""
    if done % 20 == 0 or done == total:
        print(f"{done} of {total} mutants, {time.perf_counter() - began:.0f} s", flush=True)


def main():
    """Runs all mutants, writes the page, and returns 1 if a survivor has no reason, else 0."""
    torch.set_num_threads(1)
    report, mutants = (
        import_module("tests.mutation.report"),
        import_module("tests.mutation.mutants"),
    )
    equivalents = import_module("tests.mutation.equivalents")
    account = report.account_of(mutants.module_names(), progress=report_progress)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "mutants.md"
    path.write_text(report.page(account))
    wrong = report.unexplained(account, equivalents.EQUIVALENT)
    print("\n".join([f"wrote {path}", *wrong]))
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
