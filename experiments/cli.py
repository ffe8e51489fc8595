"""The command line. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import tyro

from gradbias.experiments.inputs.commands import Bounds, Check, Command, List, Report, Survey

if TYPE_CHECKING:
    from gradbias.experiments.reports.kept_checks import KeptCertificate

EXIT_STATUS = {"UNBIASED": 0, "BIASED": 1, "UNDECIDED": 3, "VACUOUS": 3}
CHANGED = 1
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    command = _parse(arguments)
    if isinstance(command, int):
        return command
    try:
        status = _run(command)
        sys.stdout.flush()  # here, where a broken pipe can still be handled
        return status
    except ValueError as error:
        return _bad_input(str(error))
    except MemoryError as error:
        return _bad_input(f"out of memory ({error}); use a smaller problem or a shorter horizon")
    except KeyboardInterrupt:
        print("gradbias: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return _broken_pipe()
    except BaseException as error:  # Python's status 1 would say "biased"
        return _bad_input(_unexpected(error))


def _broken_pipe() -> int:
    """The exit status if the reader of the output has gone, as `head` does. Standard output is
    redirected to the null device, so that Python's flush at exit does not fail either.
    """
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)
    return BROKEN_PIPE


def _unexpected(error: BaseException) -> str:
    """The message for an error that nothing else handles, such as one in a user's code."""
    if isinstance(error, SystemExit):
        return f"the estimator's code called sys.exit({error.code!r})"
    from gradbias.stochastic.derivatives.coefficients import located  # here, as it imports torch

    return f"stopped: {located(error)}"


def _bad_input(sentence: str) -> int:
    """Prints one line on standard error and returns the status of bad input."""
    print(f"gradbias: {' '.join(sentence.split())}", file=sys.stderr)
    return BAD_INPUT


def _parse(arguments: Sequence[str] | None) -> Command | int:
    """The command that the arguments ask for, or the exit status if there is none to run."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            command: Command = tyro.extras.subcommand_cli_from_dict(
                {
                    "check": Check,
                    "survey": Survey,
                    "bounds": Bounds,
                    "report": Report,
                    "list": List,
                },
                prog="gradbias",
                description="Is my gradient estimator biased, and by how much?",
                args=arguments,
            )
            return command
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0
        return status if status == 0 else _bad_input(_one_sentence(complaint.getvalue()))


def _one_sentence(boxed: str) -> str:
    """Tyro's message without its frame, help texts and colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    plain = re.sub(r"[╭╮╰╯│─├┤]+|-{4,}|^[|+]|[|+]$", " ", plain, flags=re.MULTILINE)
    for end in ("Got errors:", "Argument helptext", "For full helptext"):
        plain = plain.split(end)[0]
    return " ".join(plain.split()) + " (`gradbias COMMAND --help` lists the options)"


def _run(command: Command) -> int:
    if isinstance(command, List):
        from gradbias.experiments.inputs.problems import KNOWN_ENVIRONMENTS
        from gradbias.stochastic.surrogates.catalogue import CATALOGUE

        print("estimators:  ", ", ".join(sorted(CATALOGUE)))
        print("environments:", ", ".join(KNOWN_ENVIRONMENTS))
        return 0
    if isinstance(command, Report):
        from gradbias.experiments.reports.check_folder import draw_again

        print(f"wrote {draw_again(command.folder)}")
        return 0
    if isinstance(command, Bounds):
        from gradbias.experiments.studies.bounds import run_bounds

        print(run_bounds(command))
        return 0
    return _survey(command) if isinstance(command, Survey) else _check(command)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirects Python's standard output, and the process's (which subprocesses write to)."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _check(command: Check) -> int:
    from gradbias.experiments.reports.check_folder import written_check
    from gradbias.experiments.reports.kept_checks import KeptCertificate

    kept = None if command.certificate is None else KeptCertificate.at(command.certificate)
    # The output of the user's code must not get into the report.
    with _stdout_to_stderr():
        checked, page = written_check(command)
    report = checked.report
    change = None if kept is None else kept.settle(report)
    if command.json:
        print(json.dumps(report.as_dict(), allow_nan=False))
    else:
        print(report)
        print(f"  time        {report.seconds:.2f} s")
        if page is not None:
            print(f"  report      {page}")
    status = EXIT_STATUS[report.verdict.value]
    return status if kept is None else _settled(kept, change, status)


def _survey(command: Survey) -> int:
    from gradbias.experiments.reports.survey_folder import run_survey

    with _stdout_to_stderr():
        result = run_survey(command)
    print(json.dumps(result.as_dict(), allow_nan=False) if command.json else result)
    if command.out is not None and not command.json:
        print(f"  written     {command.out}")
    if len(result.reports) < len(command.estimators):
        done = f"{len(result.reports)} of {len(command.estimators)} estimators were measured"
        print(f"gradbias: interrupted: {done}", file=sys.stderr)
        return INTERRUPTED
    statuses = {EXIT_STATUS[report.verdict.value] for report in result.reports}
    if result.findings.any():
        return EXIT_STATUS["BIASED"]
    return EXIT_STATUS["UNBIASED"] if statuses == {0} else EXIT_STATUS["UNDECIDED"]


def _settled(kept: KeptCertificate, change: str | None, status: int) -> int:
    """The exit status with a certificate: the verdict's if the certificate is new, otherwise that
    for a change or for none.
    """
    if kept.content is None:
        print(f"gradbias: wrote the certificate {kept.path}", file=sys.stderr)
        return status
    if change is not None:
        print(f"gradbias: certificate {kept.path.name}: {change}", file=sys.stderr)
        return CHANGED
    print(f"gradbias: certificate {kept.path.name}: unchanged", file=sys.stderr)
    return 0
