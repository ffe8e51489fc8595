"""docs/errata.md is what its cases give, with every remark in one class."""

from collections import Counter

from tests.cases.checkout import ROOT
from tests.errata import cases
from tests.errata.records import Kind


def test_the_page_is_what_its_cases_give():
    assert (ROOT / "docs" / "errata.md").read_text() == cases.page()


def test_every_remark_is_in_its_class_s_part_alone():
    page = cases.page()
    parts = page.split("\n## ")[1:]
    assert [part.split("\n")[0].lower() for part in parts] == [kind.value for kind in Kind]
    for kind, part in zip(Kind, parts, strict=True):
        titles = [line[4:] for line in part.split("\n") if line.startswith("### ")]
        assert titles == [each.title for each in cases.ERRATA if each.kind is kind]
        for title in titles:
            assert page.count(f"[{title}](#{cases.anchor(title)})") == 1  # in the index
    assert max(Counter(cases.anchor(each.title) for each in cases.ERRATA).values()) == 1


def test_signs_in_words_are_not_read_as_markup():
    """A table's row has as many bars as its columns need; no wrapped line starts with a sign."""
    for line in cases.page().split("\n"):
        if line.startswith("|"):
            assert line.count("|") in (3, 5), line
        assert not line.startswith(("  - ", "  + ", "  > ", "  >= ", "  = ")), line
    joined = " ".join(line.strip() for line in cases.wrapped("- Holds: a" + " - b >= c" * 60))
    assert joined == "- Holds: a" + " - b >= c" * 60


def test_numbers_that_differ_by_rounding_look_alike():
    """Else a bound that is attained could be shown below what it bounds."""
    tie = 0.0082625
    assert {cases.shown(tie * (1.0 + k * 1e-15)) for k in range(-3, 4)} == {cases.shown(tie)}
    assert cases.shown(0.00826249) == "0.008262" != cases.shown(0.00826251)
