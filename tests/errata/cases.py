"""Printed statements that do not hold, each as a counterexample with its numbers.

`python -m benchmarks.errata` writes them as docs/errata.md; `tests/errata/test_errata.py` says
which number must be what. Exact values here are sums over all samples, or exact derivatives.
"""

from tests.errata import estimates as errata_estimates
from tests.errata import merits as errata_merits
from tests.errata import paths as errata_paths
from tests.errata import theorem as errata_theorem
from tests.errata import unrolled as errata_unrolled

SECTIONS = (errata_unrolled, errata_estimates, errata_paths, errata_theorem, errata_merits)
ERRATA = tuple(each for section in SECTIONS for each in section.ERRATA)

HEADER = """# Errata

The statements below are printed in two papers and do not hold; each has a counterexample. All
numbers are exact: sums over all samples, or exact derivatives; nothing is sampled. The formulas
that this project uses instead have their own tests, and `tests/errata/test_errata.py` has a test
for each erratum.

    python -m benchmarks.errata

writes this page, and a test compares it. Numbers below 1e-9 are shown as 0. K is the number of
inner steps, N the number of trajectories in a batch, alpha (or eta) the inner step size.
"""


def shown(value):
    """Four digits."""
    return "0" if abs(value) < 1e-9 else f"{value:.4g}"


def page():
    """docs/errata.md."""
    parts = [HEADER]
    for each in ERRATA:
        parts.append(f"\n## {each.title}\n\n*{each.where}.*\n")
        parts.append(f"- Printed: {each.printed}.\n- Holds: {each.holds}.\n")
        parts.append(f"| {each.example} | |\n|---|---|")
        parts += [f"| {label} | {shown(value)} |" for label, value in each.numbers().items()]
    return "\n".join(parts) + "\n"
