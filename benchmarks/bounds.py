"""Writes docs/bounds.md: how loose each bound is, over 600 loops whose biases are exact; a minute.

    python -m benchmarks.bounds [FOLDER]

The pictures beside it, bounds.png, linearised.png and mixtures.png, are those of

    gradbias bounds --random 2x2 --horizon 2 --seed 0 (the four sweeps)
    gradbias bounds --random 2x2 --horizon 1 --loop reuse --step-size 0.1 --values 1 2 4 8 16 32
    gradbias bounds --loop chain --sweep kappa --discount 0.95 --step-size 1 --steps 10
"""

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCALAR, DECISIONS = 2000, 600


def main():
    """Writes the page and the pictures."""
    instances = import_module("tests.cases.bound_loops")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    every = list(instances.findings(SCALAR, DECISIONS))
    failed = [found for found in every if not found.holds]
    (folder / "bounds.md").write_text(page(instances.table(every), len(every), len(failed)))
    draw(folder)
    print(f"wrote {folder / 'bounds.md'}, {len(failed)} of {len(every)} fail")
    return min(len(failed), 1)


def page(rows, total, failed):
    """docs/bounds.md."""
    cells = [
        f"| {name} | {count} | {low:.3g} | {median:.3g} | {high:.3g} |"
        for name, count, low, median, high in rows
    ]
    told = {"TOTAL": f"{total:,}", "FAILED": str(failed), "ROWS": "\n".join(cells)}
    told |= {"SCALAR": f"{SCALAR:,}", "DECISIONS": f"{DECISIONS:,}"}
    text = (Path(__file__).parent / "bounds_page.md").read_text()
    for word, value in told.items():
        text = text.replace("{" + word + "}", value)
    return text


def pictures():
    """Each picture's name, and the commands whose panels it has."""
    from gradbias.experiments.inputs.commands import Bounds

    same = {"random": "2x2", "horizon": 2}
    values = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    return {
        "bounds.png": [
            Bounds(**same, sweep="batch-size", values=(1.0, 2.0, 3.0, 4.0), steps=2),
            Bounds(**same, sweep="step-size", steps=2, batch_size=2),
            Bounds(**same, sweep="K", values=(1.0, 2.0, 3.0), batch_size=2),
            Bounds(**same, sweep="hessian-error", steps=3),
        ],
        "mixtures.png": [
            Bounds(loop="chain", sweep="kappa", discount=0.95, step_size=1.0, steps=10)
        ],
        "linearised.png": [
            Bounds(random="2x2", horizon=1, loop="reuse", step_size=0.1, values=values)
        ],
    }


def draw(folder):
    """All pictures of the page."""
    import_module("matplotlib").use("agg")
    from gradbias.experiments.reports.study_folder import draw_studies
    from gradbias.experiments.studies.bounds import study_of

    for name, commands in pictures().items():
        draw_studies([study_of(command) for command in commands]).savefig(folder / name, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
