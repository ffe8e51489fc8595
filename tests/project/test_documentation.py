"""What the documents show of commands and code is what happens."""

import doctest
import re
import runpy

import pytest

from gradbias.experiments import demo
from gradbias.experiments.cli import main
from gradbias.experiments.inputs.commands import Check
from tests.cases.checkout import ROOT


def blocks(name, language):
    text = (ROOT / name).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_s_own_check_prints_what_it_shows(capsys, tmp_path, monkeypatch):
    code = blocks("README.md", "python")[0]
    session = blocks("README.md", "console")[1].splitlines()
    (tmp_path / "my_loss.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert session[0].startswith("$ gradbias check my_loss.py:surrogate")
    assert main(session[0].split()[2:]) == 1
    printed = capsys.readouterr().out
    shown = [line for line in session[1:] if line.strip() != "..."]
    assert len(shown) == 8
    for line in shown:
        assert line in printed
    assert (tmp_path / "report" / "report.html").is_file()


def test_the_readme_s_python_runs(capsys, tmp_path):
    path = tmp_path / "shown.py"
    path.write_text(blocks("README.md", "python")[1])
    runpy.run_path(str(path))
    assert "BIASED for the Hessian of the 3-step return" in capsys.readouterr().out


def test_the_readme_s_table_is_the_demo_s(tmp_path):
    shown = blocks("README.md", "text")[0].splitlines()
    printed = [demo.HEADER, *(demo._table_line(row) for row in demo.run_demo(tmp_path))]
    assert len(shown) > 6
    for line in shown[:-1]:
        # Biases of rounding size differ between machines.
        kept = re.sub(r" [\d.]+e-1\d ", " rounding ", line).split()
        assert kept in [re.sub(r" [\d.]+e-1\d ", " rounding ", other).split() for other in printed]


def test_the_readme_names_options_that_exist():
    table = (ROOT / "README.md").read_text().split("| option |")[1].split("\n\n")[0]
    named = set(re.findall(r"--([a-z][a-z-]*)", table))
    known = {field.replace("_", "-") for field in Check.__dataclass_fields__}
    assert len(named) > 10
    assert named <= known


@pytest.mark.parametrize(
    ("page", "fewest"), [("exact.md", 25), ("guide.md", 5), ("sampling.md", 10)]
)
def test_the_examples_of_the_docs_run(page, fewest):
    found = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)
    assert found.failed == 0
    assert found.attempted > fewest
