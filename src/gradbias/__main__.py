"""`python -m gradbias`: the same as the command `gradbias`."""

import sys

from gradbias.experiments.cli import main

if __name__ == "__main__":
    sys.exit(main())
