"""The recipes of CONTRIBUTING.md are carried out, word for word, in a copy of the checkout."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cases.checkout import ROOT, copy_packages, environment_of

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = re.findall(r"^## (Adding .*)$", TEXT, re.MULTILINE)
BLOCK = re.compile(r"^( *)```(python|diff|console)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`([\w/]+\.pyi?)`")
GRADBIAS = "import sys; from gradbias.experiments.cli import main; sys.exit(main())"


def steps(recipe, until="\n## "):
    """A recipe's blocks: each one's kind, the file that was named last before it, its text."""
    section = TEXT[TEXT.index(f"## {recipe}\n") :]
    section = section[: section.index(until, 1)]
    for block in BLOCK.finditer(section):
        path = PATH.findall(section[: block.start()])[-1]
        yield block[2], path, textwrap.dedent(block[3])


def create(path, text):
    """A python block is a new file."""
    assert not path.exists(), path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def change(path, diff):
    """A diff block changes one place of a file."""
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text()
    assert text.count(before) == 1, (path, before)
    path.write_text(text.replace(before, after))


def run(folder, program, *arguments):
    """Exit status and output of a program in the copy."""
    scripts = Path(sys.executable).parent
    start = {"python": [sys.executable], "gradbias": [sys.executable, "-c", GRADBIAS]}
    found = subprocess.run(
        [*start.get(program, [str(scripts / program)]), *arguments],
        cwd=folder,
        env=environment_of(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


def sessions(console):
    """The commands of a console block, each with the lines that it is said to print."""
    return [
        (command.split(), shown.splitlines())
        for command, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", console, re.MULTILINE)
    ]


@pytest.fixture
def copy(tmp_path):
    return copy_packages(tmp_path)


def test_there_is_a_recipe_for_each_kind_of_thing():
    kinds = ("a surrogate", "a target", "a kind of evidence", "a study")
    assert [f"Adding {kind}" for kind in kinds] == RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_does_what_it_says_and_its_check_can_fail(copy, recipe):
    consoles = [text for kind, _, text in steps(recipe) if kind == "console"]
    first = sessions(consoles[0])[0][0]
    assert first[0] == "python" or run(copy, *first)[0] == 2  # what is added is not there yet
    statuses = []
    for kind, path, text in steps(recipe):
        if kind == "python":
            create(copy / path, text)
        elif kind == "diff":
            change(copy / path, text)
        else:
            for command, shown in sessions(text):
                status, printed = run(copy, *command)
                assert shown, command
                for line in shown:
                    assert line in printed, (command, printed)
                statuses.append(status)
    assert statuses[0] == 0
    assert statuses[-1] == 1


def test_what_the_recipes_add_keeps_the_house_rules(copy):
    """All recipes are carried out in one copy, each up to its planted error."""
    changed = set()
    for recipe in RECIPES:
        for kind, path, text in steps(recipe, until="Show that the check can fail"):
            if kind != "console":
                {"python": create, "diff": change}[kind](copy / path, text)
                changed.add(path)
    assert len(changed) > 2 * len(RECIPES)
    for arguments in (
        ("ruff", "format", "--no-cache", "--check", *sorted(changed)),
        ("ruff", "check", "--no-cache", *sorted(changed)),
        ("lint-imports", "--no-cache"),
    ):
        status, text = run(copy, *arguments)
        assert status == 0, text
