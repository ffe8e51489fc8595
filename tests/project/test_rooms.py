"""docs/rooms.svg shows the contracts of pyproject.toml."""

import re
from xml.etree import ElementTree

import pytest

from benchmarks import rooms
from tests.cases.checkout import ROOT

SETTINGS = (ROOT / "pyproject.toml").read_text()
TEXT = "{http://www.w3.org/2000/svg}text"


def labels(path):
    """Each text of a picture and the point where it stands, rounded: versions of the drawing
    library differ in the rest.
    """
    return [
        (
            element.text,
            [round(float(x)) for x in re.findall(r"-?\d+\.\d+", element.get("transform"))],
        )
        for element in ElementTree.parse(path).iter(TEXT)
    ]


def drawn(folder, settings):
    """The labels of the picture that the script draws of these settings."""
    rooms.write(folder / "rooms.svg", rooms.contracts(settings))
    return labels(folder / "rooms.svg")


def test_the_picture_is_the_one_that_the_contracts_give(tmp_path):
    shown = labels(ROOT / "docs" / "rooms.svg")
    assert len(shown) > 30
    assert shown == drawn(tmp_path, SETTINGS)


CHANGES = {
    "two layers change places": (
        '"verification.proofs",\n    "verification.evidence",',
        '"verification.evidence",\n    "verification.proofs",',
    ),
    "two rooms see each other": (
        '"analytic.meta | analytic.additive",',
        '"analytic.meta",\n    "analytic.additive",',
    ),
    "an inner layer is gone": ('    "derivatives",\n', ""),
    "something else is forbidden": ('"gymnasium",\n    "jinja2",', '"gymnasium",'),
    "a contract is weakened": ("allow_indirect_imports = true", "allow_indirect_imports = false"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_contracts_makes_another_picture(tmp_path, name):
    before, after = CHANGES[name]
    assert SETTINGS.count(before) == 1
    assert labels(ROOT / "docs" / "rooms.svg") != drawn(tmp_path, SETTINGS.replace(before, after))
