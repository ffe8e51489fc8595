"""The way to add an estimator that CONTRIBUTING.md shows is taken, literally, in a copy."""

import re
import subprocess
import sys

import pytest

from tests.cases.checkout import ROOT, copy_packages, environment_of

RUN = "import sys; from gradbias.experiments.cli import main; sys.exit(main())"


@pytest.fixture
def copy(tmp_path):
    return copy_packages(tmp_path)


def blocks():
    """The section's file, its name, and the line that registers it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text[text.index("## Adding an estimator") : text.index("## House rules")]
    code = [
        re.sub(r"(?m)^   ", "", c) for c in re.findall(r"```python\n(.*?)   ```", section, re.S)
    ]
    path = re.search(r"one file, `(stochastic/surrogates/(\w+)\.py)`", section)
    return path[1], path[2], code[0], code[1].strip()


def check(folder, name):
    command = [sys.executable, "-c", RUN, "check", name, "--random", "2x2", "--horizon", "3"]
    found = subprocess.run(
        command, env=environment_of(folder), capture_output=True, text=True, check=False
    )
    return found.returncode, found.stdout + found.stderr


def register(folder, path, name, line):
    catalogue = folder / "stochastic/surrogates/catalogue.py"
    text = catalogue.read_text()
    table = "MappingProxyType(\n    {\n"
    assert table in text
    module = "gradbias." + path.removesuffix(".py").replace("/", ".")
    text = text.replace(table, f"{table}        {line}\n")
    last = text.rindex("\nfrom gradbias.stochastic.")
    catalogue.write_text(f"{text[:last]}\nfrom {module} import {name}{text[last:]}")


def test_one_file_and_one_line_add_an_estimator(copy):
    path, name, code, line = blocks()
    status, text = check(copy, name)
    assert status == 2, text  # not there yet
    (copy / path).write_text(code)
    register(copy, path, name, line)
    status, text = check(copy, name)
    assert status == 0, text
    assert f"{name}: UNBIASED for the gradient of the 3-step return" in text
    # And the check can fail: a baseline that depends on what was chosen.
    (copy / path).write_text(code.replace("self.b)", "self.b * record.actions)"))
    status, text = check(copy, name)
    assert status == 1, text
    assert f"{name}: BIASED" in text
