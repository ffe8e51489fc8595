"""The ``gradbias`` command: starts `experiments.cli` once it is sure that it is ours.

The four packages have plain names (``analytic``, ``stochastic``, ``verification``,
``experiments``), and another project on the package index is called ``stochastic`` too.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("analytic", "stochastic", "verification", "experiments")


def foreign_package() -> str | None:
    """One sentence on a package that is found in place of this project's; None if all are ours."""
    home = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            return f"gradbias: its package '{name}' is not installed in {home}"
        found = Path(spec.origin).resolve().parent
        if found != home / name:
            return (
                f"gradbias: another package called '{name}' ({found}) is found in place of this "
                f"project's ({home / name}); uninstall it or take it off the Python path"
            )
    return None


def main() -> int:
    """Runs the command line; exit status 2 where a foreign package is in the way."""
    problem = foreign_package()
    if problem is not None:
        print(problem, file=sys.stderr)
        return 2
    from experiments.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
