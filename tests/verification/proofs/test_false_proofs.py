"""What is biased somewhere is not proved, and what is right is."""

from contextlib import contextmanager

import pytest

from gradbias.stochastic.estimators import agreement, exact_coefficients
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.tracing import interpretation, trace
from gradbias.stochastic.tracing.reachable_state import Watched
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.proofs.identity_testing import certify
from gradbias.verification.proofs.prove import prove_unbiased
from tests.cases.false_calls import FALSE
from tests.cases.false_proofs import right
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


def counting():
    """A surrogate that is wrong from its hundredth call on."""
    calls = []

    def surrogate(record):
        calls.append(0)
        return right(record) * (1.1 if len(calls) > 100 else 1.0)

    return surrogate


@contextmanager
def nothing(*_):
    yield Watched()


@contextmanager
def no_errors():
    yield []


NETS = {
    "errors that were caught": (
        [(trace, "errors_raised", no_errors), (agreement, "errors_raised", no_errors)],
        FALSE["tried_decimal"],
    ),
    "calls to the world outside": ([(trace, "outside_calls", nothing)], FALSE["clock"]),
    "state that changes": ([(exact_coefficients, "unchanged", nothing)], counting()),
    "derivatives of its own": (
        [(interpretation, "OWN_DERIVATIVE", ""), (agreement, "COMPARED", frozenset())],
        FALSE["own_derivative"],
    ),
    "other operations on numbers": ([(agreement, "COMPARED", frozenset())], FALSE["hidden_type"]),
    "refusals that stand": (
        [(interpretation, "_check", lambda *_: None), (agreement, "zip_longest", lambda *_: [])],
        FALSE["tried_item"],
    ),
}


@pytest.mark.parametrize("name", sorted(NETS))
def test_each_net_catches_what_nothing_else_does(name, monkeypatch):
    """With one net taken away, a planted surrogate is called unbiased."""
    patches, surrogate = NETS[name]
    assert answer(prove_unbiased, surrogate, 1, "planted") is not Verdict.UNBIASED
    for owner, attribute, replacement in patches:
        monkeypatch.setattr(owner, attribute, replacement)
    assert answer(prove_unbiased, surrogate, 1, "planted") is Verdict.UNBIASED
