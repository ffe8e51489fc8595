"""Evidence on estimators: exact expectations, intervals, verdicts, reports as data.

Names are imported on first use.
"""

from typing import TYPE_CHECKING

from analytic.exports import lazy_exports

if TYPE_CHECKING:
    from verification.bound_sweeps import BoundSweep as BoundSweep
    from verification.bound_sweeps import Sweep as Sweep
    from verification.bound_sweeps import bound_versus_empirical as bound_versus_empirical
    from verification.bounds import BiasBound as BiasBound
    from verification.bounds import CompositionalErrorBound as CompositionalErrorBound
    from verification.bounds import compositional_error_bound as compositional_error_bound
    from verification.bounds import meta_gradient_bias_bound as meta_gradient_bias_bound
    from verification.measurement import assert_unbiased as assert_unbiased
    from verification.measurement import measure_bias as measure_bias
    from verification.meta_measurement import measure_meta_gradient as measure_meta_gradient
    from verification.reports import BiasReport as BiasReport
    from verification.reports import Evidence as Evidence
    from verification.reports import Verdict as Verdict
    from verification.variance_bounds import VarianceBound as VarianceBound
    from verification.variance_bounds import (
        meta_gradient_variance_bound as meta_gradient_variance_bound,
    )

_HOME = {
    "BoundSweep": "bound_sweeps",
    "Sweep": "bound_sweeps",
    "bound_versus_empirical": "bound_sweeps",
    "BiasBound": "bounds",
    "CompositionalErrorBound": "bounds",
    "compositional_error_bound": "bounds",
    "meta_gradient_bias_bound": "bounds",
    "assert_unbiased": "measurement",
    "measure_bias": "measurement",
    "measure_meta_gradient": "meta_measurement",
    "BiasReport": "reports",
    "Evidence": "reports",
    "Verdict": "reports",
    "VarianceBound": "variance_bounds",
    "meta_gradient_variance_bound": "variance_bounds",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
