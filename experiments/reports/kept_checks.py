"""A check that is kept as a file and compared with the next run.

The file holds what `check --json` prints. A run agrees with it if verdict, target (and its norm),
evidence and scope are the same and the bias is, to the smaller tolerance of the two and relative to
what this run is relative to, or, of sampled biases, if their intervals meet and neither tolerance
nor false-alarm rate is larger than it was.
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
from gradbias.verification.evidence.reports import BiasReport, Evidence

_WORDS = ("verdict", "target", "evidence", "scope")
_NUMBERS = ("bias_norm", "target_norm", "tolerance")
_CLAIMED = ("tolerance", "false_alarm")
_LEAST = 1e-12
"""Relative: what rounding moves between machines."""

_SAME_TARGET = 1e-9
"""Relative: a target that moved by more is that of another problem or policy."""


@dataclass(frozen=True)
class KeptCertificate:
    """A certificate's file, and what it holds (None: no such file yet)."""

    path: Path
    found: dict[str, Any] | None

    @classmethod
    def at(cls, name: str) -> KeptCertificate:
        """What is there. Raises ValueError where it is no certificate, or cannot be written."""
        if not name:
            raise ValueError("--certificate: expected a file, got an empty name")
        path = Path(name).absolute()
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
                raise ValueError(f"--certificate {name}: cannot be written there") from None
            return cls(path, None)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--certificate {name}: cannot be read ({error})") from None
        return cls(path, _checked(name, text))

    def settle(self, report: BiasReport) -> str | None:
        """Writes the certificate, or says in one line what has changed since; None where nothing
        has.

        Raises:
            ValueError: the file is that of another check, or cannot be written.
        """
        if self.found is None:
            self._write(report)
            return None
        now = report.as_dict()
        for key in ("estimator", "order"):
            if now[key] != self.found[key]:
                raise ValueError(
                    f"--certificate {self.path.name}: is of another check: {key} "
                    f"{self.found[key]!r}, here {now[key]!r}"
                )
        changes = [
            f"{key} was {self.found[key]}, is {now[key]}"
            for key in _WORDS
            if now[key] != self.found[key]
        ]
        unit = max(report.normaliser, report.bias_norm)
        moved = (_target_moved(self.found, now, unit), _moved(self.found, now, unit))
        changes += [change for change in moved if change is not None]
        changes += _weakened(self.found, now)
        return "; ".join(changes) or None

    def _write(self, report: BiasReport) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(report.as_dict(), indent=1, allow_nan=False) + "\n")
            temporary.replace(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ValueError(f"--certificate {self.path}: cannot be written ({error})") from None


def _checked(name: str, text: str) -> dict[str, Any]:
    """A certificate's object. Raises ValueError for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"--certificate {name}: expected JSON, as `check --json` prints") from None
    if not isinstance(found, dict):
        raise ValueError(f"--certificate {name}: expected one JSON object")
    wrong = [key for key in (*_WORDS, "estimator") if not isinstance(found.get(key), str)]
    wrong += [key for key in _NUMBERS if not _is_number(found.get(key)) or found[key] < 0]
    wrong += [] if found.get("order") in (1, 2, 3) else ["order"]
    wrong += [] if _bias(found) is not None else ["bias"]
    if not wrong and not _is_proper_interval(found):
        wrong.append("interval")
    if not wrong and not _is_proper_norm(found):
        wrong.append("bias_norm")
    if wrong:
        raise ValueError(
            f"--certificate {name}: expected what `check --json` prints, got no proper {wrong[0]!r}"
        )
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_proper_interval(found: dict[str, Any]) -> bool:
    """Two numbers in their order for samples, else none."""
    interval = found.get("interval")
    if found["evidence"] != Evidence.SAMPLING.value:
        return interval is None
    if not isinstance(interval, list) or len(interval) != 2 or not all(map(_is_number, interval)):
        return False
    return bool(interval[0] <= interval[1])


def _is_proper_norm(found: dict[str, Any]) -> bool:
    """Exact evidence's is that of its bias."""
    norm, bias = found["bias_norm"], _bias(found)
    if found["evidence"] == Evidence.SAMPLING.value or bias is None:
        return True
    return math.isclose(norm, float(np.linalg.norm(bias)), rel_tol=1e-9, abs_tol=1e-300)


def _bias(found: dict[str, Any]) -> FloatArray | None:
    try:
        array = np.asarray(found.get("bias"), dtype=np.float64)
    except (ValueError, TypeError):
        return None
    return array if array.ndim > 0 and np.isfinite(array).all() else None


def _weakened(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How a claim on samples says less than it did: verdicts that are one word are not one."""
    if not then["evidence"] == now["evidence"] == Evidence.SAMPLING.value:
        return []
    return [
        f"{key} was {then[key]:g}, is {now[key]:g}: a weaker claim"
        for key in _CLAIMED
        if _is_number(then.get(key)) and _is_number(now.get(key)) and now[key] > then[key]
    ]


def _target_moved(then: dict[str, Any], now: dict[str, Any], unit: float) -> str | None:
    """Whether the target is that of another problem, or at another policy."""
    before, after = then["target_norm"], now["target_norm"]
    if abs(after - before) <= _SAME_TARGET * max(unit, after):
        return None
    return f"target norm was {before:.6g}, is {after:.6g}: another problem or policy"


def _moved(then: dict[str, Any], now: dict[str, Any], unit: float) -> str | None:
    """How far the bias has moved, where that is more than what is allowed."""
    before, after = _bias(then), _bias(now)
    if before is None or after is None or before.shape != after.shape:
        return "the estimate has another shape"
    gap = float(np.linalg.norm(after - before))
    if then["interval"] is not None and now["interval"] is not None:
        (low, high), (lower, higher) = then["interval"], now["interval"]
        if max(low - higher, lower - high) <= _LEAST * unit:
            return None
        return f"bias norm was in [{low:.3g}, {high:.3g}], is in [{lower:.3g}, {higher:.3g}]"
    tolerance = min(then["tolerance"], now["tolerance"])
    if then["interval"] is not now["interval"] or gap <= max(tolerance, _LEAST) * unit:
        return None  # evidence of two kinds is said to be so already
    moved = f"bias norm was {then['bias_norm']:.6g}, is {now['bias_norm']:.6g}"
    return f"{moved} (moved by {gap:.3g})"
