"""What the documents show of commands and code is what happens."""

import doctest
import re
import runpy

import pytest

from benchmarks import calibration
from gradbias.experiments import demo
from gradbias.experiments.cli import main
from gradbias.experiments.inputs.commands import Check
from tests.cases.checkout import PACKAGES, ROOT


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


@pytest.mark.parametrize("template", [calibration.INTRODUCTION, calibration.REMARKS])
def test_the_calibration_page_is_the_text_that_writes_it(template):
    page = (ROOT / "docs" / "calibration.md").read_text()
    fixed = re.split(r"\{.*?\}", template)
    assert len(fixed) > 2
    for text in fixed:
        assert text in page


PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/*/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            path, _, section = target.partition("#")
            linked = (page.parent / path) if path else page
            assert linked.exists(), target
            assert not section or section in anchors(linked), target


def anchors(page):
    """The names of a page's sections, as links write them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_files_that_the_pages_name_are_there():
    for page in PAGES:
        named = re.findall(r"`((?:tests|docs|examples|benchmarks)/[\w/.]+)`", page.read_text())
        for path in named:
            recipe = page.name == "CONTRIBUTING.md"
            assert recipe or (ROOT / path).exists(), (page.name, path)


MAP = (ROOT / "docs" / "architecture.md").read_text()


def test_the_map_names_every_room():
    rooms = [
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).glob("*/__init__.py")
    ]
    assert sorted(re.findall(r"^\| `(\w+\.\w+)` \|", MAP, re.MULTILINE)) == sorted(rooms)


def test_the_map_names_every_protocol_and_where_it_is():
    rows = re.findall(r"\[(`[^\]]*`)\]\(\.\./([\w/]+\.py)\)", MAP)
    shown = {(name, path) for names, path in rows for name in re.findall(r"`([A-Z]\w+)`", names)}
    defined = {
        (name, path.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"^class (\w+)\(Protocol\)", path.read_text(), re.MULTILINE)
    }
    assert defined
    assert defined <= shown
