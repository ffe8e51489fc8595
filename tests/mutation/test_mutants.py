"""Every mutant of a surrogate is found out by the exact check, or known to be no change."""

import ast

import pytest

from tests.cases.checkout import ROOT
from tests.mutation.battery import claims_about, outcome_in
from tests.mutation.claims import KINDS, Claim
from tests.mutation.equivalents import EQUIVALENT
from tests.mutation.mutants import World, home_of, module_names, mutants_of, source_of
from tests.mutation.operators import OPERATORS
from tests.mutation.registry import CLAIMS
from tests.mutation.report import account_of, page, survivors, unexplained

PAGE = ROOT / "docs" / "mutants.md"
FEWEST = 500
"""Mutants of all modules: fewer means that operators no longer find their sites."""


def test_every_surrogate_module_has_a_claim():
    claimed = {home_of(name) for name, claims in CLAIMS.items() if claims}
    assert claimed == set(module_names())


def test_every_claim_holds_of_the_sources_as_they_are():
    world, ran = World(), 0
    for name, claims in CLAIMS.items():
        outcome = outcome_in(world, [(name, claim) for claim in claims])
        assert outcome.by == "survived", (name, outcome)
        ran += len(claims)
    assert ran >= 300
    assert {claim.kind for claims in CLAIMS.values() for claim in claims} == set(KINDS)


def test_each_mutant_is_one_change_that_is_not_the_source():
    keys, operators = [], set()
    for module in module_names():
        tree, mutants = ast.dump(ast.parse(source_of(module))), mutants_of(module)
        for mutant in mutants:
            assert ast.dump(ast.parse(mutant.source)) != tree, str(mutant)
            keys.append(mutant.key)
            operators.add(mutant.operator)
    assert operators == set(OPERATORS)
    assert len(set(keys)) == len(keys) >= FEWEST
    assert {key[0] for key in keys} == set(module_names())


def test_a_part_of_the_mutants_is_found_out():
    """Every sixth of the score functions and of DiCE, in a few seconds."""
    account = account_of(["score_function", "dice"], every=6)
    assert len(account) >= 20
    assert unexplained(account, EQUIVALENT) == []


def test_a_mutant_reaches_the_surrogates_that_import_it():
    """A wrong discount in `returns` is seen by DiCE, which imports it."""
    mutant = next(m for m in mutants_of("returns") if "arange(record" in m.before)
    from_mutant = [item for item in claims_about("returns") if item[0] in ("Dice", "discounts")]
    outcomes = [outcome_in(World(mutant), [item]) for item in from_mutant]
    assert {outcome.name for outcome in outcomes if outcome.by != "survived"} == {
        "Dice",
        "discounts",
    }
    assert World().discounts is not World(mutant).discounts


def test_survivors_without_reasons_and_reasons_without_survivors_are_named():
    account = account_of(["penalties"], every=9)
    (mutant, _), *_ = account
    assert unexplained(account, {}) == []
    assert unexplained(account, {mutant.key: "none"}) == [f"no survivor: {mutant.key}"]
    nothing = Claim("fact", lambda world: None)
    outcome = outcome_in(World(mutant), [("k1", nothing)])
    (text,) = unexplained([(mutant, outcome)], {})
    assert text == f"survives without a reason: {mutant}"


@pytest.mark.slow
def test_every_mutant_is_found_out_or_known_to_be_the_same():
    account = account_of(module_names())
    assert len(account) >= FEWEST
    assert unexplained(account, EQUIVALENT) == []
    assert survivors(account) == set(EQUIVALENT)
    # A mutant that names what its module does not know would be killed for nothing.
    assert [str(m) for m, outcome in account if "NameError" in outcome.text] == []
    assert page(account) == PAGE.read_text(), "run python -m benchmarks.mutants"
