"""Writes docs/errata.md: remarks on three papers, with exact numbers; a few seconds.

python -m benchmarks.errata [FILE]
"""

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main():
    """Writes the page."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "errata.md"
    path.write_text(import_module("tests.errata.cases").page())
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
