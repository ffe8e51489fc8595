"""Evidence on estimators: exact expectations, intervals, verdicts, reports as data.

Names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verification.measurement import assert_unbiased as assert_unbiased
    from verification.measurement import measure_bias as measure_bias
    from verification.reports import BiasReport as BiasReport
    from verification.reports import Evidence as Evidence
    from verification.reports import Verdict as Verdict

_HOME = {
    "assert_unbiased": "measurement",
    "measure_bias": "measurement",
    "BiasReport": "reports",
    "Evidence": "reports",
    "Verdict": "reports",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
