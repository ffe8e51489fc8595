"""Evidence on estimators: exact expectations, intervals, verdicts, reports as data.

Names are imported on first use.
"""

from typing import TYPE_CHECKING

from analytic.exports import lazy_exports

if TYPE_CHECKING:
    from verification.comparison import compare_estimators as compare_estimators
    from verification.error_budgets import ErrorBudget as ErrorBudget
    from verification.error_budgets import benjamini_hochberg as benjamini_hochberg
    from verification.error_budgets import e_benjamini_hochberg as e_benjamini_hochberg
    from verification.mean_tests import MeanTest as MeanTest
    from verification.measurement import assert_unbiased as assert_unbiased
    from verification.measurement import measure_bias as measure_bias
    from verification.meta_measurement import measure_meta_gradient as measure_meta_gradient
    from verification.readings import ControlVariate as ControlVariate
    from verification.reports import BiasReport as BiasReport
    from verification.reports import Evidence as Evidence
    from verification.reports import Verdict as Verdict
    from verification.sequential import measure_bias_sequentially as measure_bias_sequentially

_HOME = {
    "assert_unbiased": "measurement",
    "benjamini_hochberg": "error_budgets",
    "compare_estimators": "comparison",
    "e_benjamini_hochberg": "error_budgets",
    "measure_bias": "measurement",
    "measure_bias_sequentially": "sequential",
    "measure_meta_gradient": "meta_measurement",
    "BiasReport": "reports",
    "ControlVariate": "readings",
    "ErrorBudget": "error_budgets",
    "Evidence": "reports",
    "MeanTest": "mean_tests",
    "Verdict": "reports",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
