"""The pytest plugin: claims within the suite's false-alarm budget, and their summary.

The fixture ``gradbias`` is the test's `Ledger`: ``gradbias.assert_unbiased(estimator, mdp, ...)``.
``--gradbias-budget`` is the false-alarm rate of the whole run. Each test that asks for the fixture
gets an equal share. All tests that were collected count, so that workers of pytest-xdist, which
collect the same ones, come to the same shares. Nothing heavy is imported, and nothing printed,
until the fixture is used.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import pytest

from gradbias.verification.confidence.error_budgets import ErrorBudget, check_rate
from gradbias.verification.properties.ledgers import (
    DEFAULT_BUDGET,
    Ledger,
    LedgerEntry,
    summary_lines,
)

_CLAIMS = "gradbias_claims"
_BUDGET = "gradbias_budget"


@dataclass
class _Run:
    """The claims of this process, and those that workers sent."""

    budget: float
    tests: int = 0
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    received: list[LedgerEntry] = field(default_factory=list)
    silent_workers: int = 0

    @property
    def claims(self) -> list[LedgerEntry]:
        return [c for ledger in self.ledgers.values() for c in ledger.claims] + self.received


_RUN = pytest.StashKey[_Run]()
_COUNTED = pytest.StashKey[bool]()


def _rate(text: str) -> float:
    """The option's value, for argparse."""
    try:
        return check_rate("--gradbias-budget", float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--gradbias-budget``."""
    parser.getgroup("gradbias").addoption(
        "--gradbias-budget",
        type=_rate,
        default=DEFAULT_BUDGET,
        metavar="RATE",
        help="false-alarm rate of all the run's claims of unbiasedness (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Sets the run's false-alarm budget; a worker of pytest-xdist gets it from the controller."""
    from_controller = getattr(config, "workerinput", {})
    budget = from_controller.get(_BUDGET, config.getoption("--gradbias-budget"))
    config.stash[_RUN] = _Run(budget)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Counts the tests that share the budget, before any are deselected."""
    for item in items:
        if "gradbias" in getattr(item, "fixturenames", ()):
            item.stash[_COUNTED] = True
            config.stash[_RUN].tests += 1


@pytest.fixture
def gradbias(request: pytest.FixtureRequest) -> Ledger:
    """The test's ledger: its claims, and ``assert_unbiased`` at its share of the suite's rate."""
    run = request.config.stash[_RUN]
    if _COUNTED not in request.node.stash:
        raise pytest.UsageError(
            "gradbias: expected as an argument of the test or of its fixtures, so that the tests "
            "which share the budget can be counted; got getfixturevalue"
        )
    # A test that is run again goes on with what is left of its share.
    share = ErrorBudget(run.budget).split(tests=run.tests)
    return run.ledgers.setdefault(request.node.nodeid, Ledger(share))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends a worker's claims to the controller."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_CLAIMS] = [claim.as_dict() for claim in session.config.stash[_RUN].claims]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist its budget: all of it, as each test runs on one worker; or an
    equal part, where every test runs on each.
    """
    everywhere = node.config.getoption("dist") == "each"
    parts = node.workerinput["workercount"] if everywhere else 1
    node.workerinput[_BUDGET] = ErrorBudget(node.config.stash[_RUN].budget).split(workers=parts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Takes the claims of a worker that ended; one that died hands in none."""
    run = node.config.stash[_RUN]
    claims = getattr(node, "workeroutput", {}).get(_CLAIMS)
    if claims is None:
        run.silent_workers += 1
        return
    run.received += [LedgerEntry(**claim) for claim in claims]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints a summary of the claims, and nothing where none was made."""
    run = config.stash[_RUN]
    lines = summary_lines(run.claims, run.budget)
    if run.silent_workers and (lines or run.tests):
        lines.append(f"workers that ended without handing in their claims: {run.silent_workers}")
    if lines:
        terminalreporter.section("gradbias")
        for line in lines:
            terminalreporter.write_line(line)
