"""The certificate of a check: a file that keeps its answer and is compared with the next run's.

The file holds the JSON object that `check --json` prints. A run agrees with it if verdict, target
(and its norm), evidence and scope are the same, and so is the bias. Exact biases are the same if
they differ by at most the smaller of the two tolerances, relative to this run's normaliser. Sampled
ones are if their intervals overlap and neither tolerance nor false-alarm rate has grown.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradbias.analytic.utils.validation import FloatArray
from gradbias.experiments.reports.check_folder import write_text
from gradbias.verification.evidence.reports import BiasReport, Evidence

_WORDS = ("verdict", "target", "evidence", "scope")
_NUMBERS = ("bias_norm", "target_norm", "tolerance")
_CLAIMED = ("tolerance", "false_alarm")
_ROUNDING = 1e-12
"""The relative difference between machines that rounding explains."""

_SAME_TARGET = 1e-9
"""The largest relative change of a target's norm for the same problem and policy."""


@dataclass(frozen=True)
class KeptCertificate:
    """A certificate's file, and the JSON object in it (None: there is no such file yet)."""

    path: Path
    content: dict[str, Any] | None

    @classmethod
    def at(cls, name: str) -> KeptCertificate:
        """The certificate at a path. Raises ValueError if it is none, or cannot be written."""
        if not name:
            raise ValueError("--certificate: expected a file name, got an empty one")
        path = Path(name).absolute()
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
                raise ValueError(
                    f"--certificate {name}: expected a folder that can be written to"
                ) from None
            return cls(path, None)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--certificate {name}: cannot be read ({error})") from None
        return cls(path, _checked(name, text))

    def settle(self, report: BiasReport) -> str | None:
        """Writes a new certificate, or compares the report with the one that is there; returns the
        changes in one line, or None if there are none.

        Raises:
            ValueError: the file is that of another check, or cannot be written.
        """
        if self.content is None:
            self._write(report)
            return None
        now = report.as_dict()
        for key in ("estimator", "order"):
            if now[key] != self.content[key]:
                raise ValueError(
                    f"--certificate {self.path.name}: expected one of the same check, got another "
                    f"{key}: {self.content[key]!r} in the file, {now[key]!r} now"
                )
        changes = [
            f"{key} was {self.content[key]}, is {now[key]}"
            for key in _WORDS
            if now[key] != self.content[key]
        ]
        unit = max(report.normaliser, report.bias_norm)
        moved = (_target_moved(self.content, now, unit), _moved(self.content, now, unit))
        changes += [change for change in moved if change is not None]
        changes += _weakened(self.content, now)
        return "; ".join(changes) or None

    def _write(self, report: BiasReport) -> None:
        text = json.dumps(report.as_dict(), indent=1, allow_nan=False) + "\n"
        try:
            write_text(self.path, text)
        except OSError as error:
            raise ValueError(f"--certificate {self.path}: cannot be written ({error})") from None


def _checked(name: str, text: str) -> dict[str, Any]:
    """The object in a certificate's text. Raises ValueError for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(
            f"--certificate {name}: expected JSON, the output of `check --json`"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"--certificate {name}: expected one JSON object")
    wrong = [key for key in (*_WORDS, "estimator") if not isinstance(content.get(key), str)]
    wrong += [key for key in _NUMBERS if not _is_number(content.get(key)) or content[key] < 0]
    wrong += [] if content.get("order") in (1, 2, 3) else ["order"]
    wrong += [] if _bias(content) is not None else ["bias"]
    if not wrong and not _is_proper_interval(content):
        wrong.append("interval")
    if not wrong and not _is_proper_norm(content):
        wrong.append("bias_norm")
    if wrong:
        raise ValueError(
            f"--certificate {name}: expected the output of `check --json`, got an invalid "
            f"{wrong[0]!r}"
        )
    return content


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_proper_interval(content: dict[str, Any]) -> bool:
    """Whether there are two ordered numbers for sampled evidence, and no interval for exact."""
    interval = content.get("interval")
    if content["evidence"] != Evidence.SAMPLING.value:
        return interval is None
    if not isinstance(interval, list) or len(interval) != 2 or not all(map(_is_number, interval)):
        return False
    return bool(interval[0] <= interval[1])


def _is_proper_norm(content: dict[str, Any]) -> bool:
    """Whether the bias norm of exact evidence is the norm of the bias."""
    norm, bias = content["bias_norm"], _bias(content)
    if content["evidence"] == Evidence.SAMPLING.value or bias is None:
        return True
    return math.isclose(norm, float(np.linalg.norm(bias)), rel_tol=1e-9, abs_tol=1e-300)


def _bias(content: dict[str, Any]) -> FloatArray | None:
    try:
        array = np.asarray(content.get("bias"), dtype=np.float64)
    except (ValueError, TypeError):
        return None
    return array if array.ndim > 0 and np.isfinite(array).all() else None


def _weakened(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The ways in which a sampled verdict claims less than it did, though its word is the same."""
    if not then["evidence"] == now["evidence"] == Evidence.SAMPLING.value:
        return []
    return [
        f"{key} was {then[key]:g}, is {now[key]:g}: a weaker claim"
        for key in _CLAIMED
        if _is_number(then.get(key)) and _is_number(now.get(key)) and now[key] > then[key]
    ]


def _target_moved(then: dict[str, Any], now: dict[str, Any], unit: float) -> str | None:
    """The change of the target's norm, if it is too large for the same problem and policy."""
    before, after = then["target_norm"], now["target_norm"]
    if abs(after - before) <= _SAME_TARGET * max(unit, after):
        return None
    return f"target norm was {before:.6g}, is {after:.6g}: another problem or policy"


def _moved(then: dict[str, Any], now: dict[str, Any], unit: float) -> str | None:
    """The change of the bias, if it is larger than the tolerance allows."""
    before, after = _bias(then), _bias(now)
    if before is None or after is None or before.shape != after.shape:
        return "the estimate has another shape"
    gap = float(np.linalg.norm(after - before))
    if then["interval"] is not None and now["interval"] is not None:
        (low, high), (lower, higher) = then["interval"], now["interval"]
        if max(low - higher, lower - high) <= _ROUNDING * unit:
            return None
        return f"bias norm was in [{low:.3g}, {high:.3g}], is in [{lower:.3g}, {higher:.3g}]"
    tolerance = min(then["tolerance"], now["tolerance"])
    if then["interval"] is not now["interval"] or gap <= max(tolerance, _ROUNDING) * unit:
        return None  # a change of the kind of evidence is reported elsewhere
    moved = f"bias norm was {then['bias_norm']:.6g}, is {now['bias_norm']:.6g}"
    return f"{moved} (moved by {gap:.3g})"
