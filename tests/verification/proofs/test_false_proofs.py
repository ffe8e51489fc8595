"""What is biased somewhere is not proved, and what is right is."""

import pytest

from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.proofs.identity_testing import certify
from gradbias.verification.proofs.prove import prove_unbiased
from tests.cases.false_proofs import FALSE, right
from tests.cases.true_proofs import TRUE


def answer(prove, surrogate, order, name, steps=2):
    """The verdict, or the message of a refusal."""
    try:
        return prove(from_surrogate(surrogate, order=order, name=name), (2, 2, steps)).verdict
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", sorted(FALSE))
def test_no_planted_surrogate_is_called_unbiased(name):
    for prove in (prove_unbiased, certify):
        said = answer(prove, FALSE[name], 1, name)
        assert said is Verdict.BIASED or said.startswith((f"{name}: ", f"surrogate {name}: "))


def test_the_collection_is_large_and_right_where_nothing_is_planted():
    assert len(FALSE) > 80
    assert answer(prove_unbiased, right, 1, "right") is Verdict.UNBIASED


@pytest.mark.parametrize("name", sorted(TRUE))
def test_what_is_right_is_proved_however_it_is_written(name):
    surrogate, order = TRUE[name]
    for prove in (prove_unbiased, certify):
        assert answer(prove, surrogate, order, name) is Verdict.UNBIASED
