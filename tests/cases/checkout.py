"""Copies of the checkout's packages, for tests that change sources or install them."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("analytic", "stochastic", "verification", "experiments")


def copy_packages(folder):
    """The four packages, the links to them and pyproject.toml, in ``folder``, which is returned."""
    skipped = shutil.ignore_patterns("__pycache__")
    for package in (*PACKAGES, "src"):
        shutil.copytree(ROOT / package, folder / package, symlinks=True, ignore=skipped)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def environment_of(folder):
    """The environment in which Python imports the packages of a checkout in ``folder``."""
    paths = [str(folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
