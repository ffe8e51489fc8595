"""Evidence on estimators: exact expectations, intervals, verdicts, reports as data.

Names are imported on first use.
"""

from typing import TYPE_CHECKING

from gradbias.analytic.exports import lazy_exports

if TYPE_CHECKING:
    from gradbias.verification.bound_sweeps import BoundSweep as BoundSweep
    from gradbias.verification.bound_sweeps import Sweep as Sweep
    from gradbias.verification.bound_sweeps import bound_versus_empirical as bound_versus_empirical
    from gradbias.verification.bounds import BiasBound as BiasBound
    from gradbias.verification.bounds import CompositionalErrorBound as CompositionalErrorBound
    from gradbias.verification.bounds import compositional_error_bound as compositional_error_bound
    from gradbias.verification.bounds import meta_gradient_bias_bound as meta_gradient_bias_bound
    from gradbias.verification.certificates import prove_unbiased as prove_unbiased
    from gradbias.verification.comparison import compare_estimators as compare_estimators
    from gradbias.verification.conformance import Claim as Claim
    from gradbias.verification.conformance import assert_conforms as assert_conforms
    from gradbias.verification.conformance import check_estimator as check_estimator
    from gradbias.verification.conformance_meta import check_meta_gradient as check_meta_gradient
    from gradbias.verification.diagnosis import diagnose as diagnose
    from gradbias.verification.error_budgets import ErrorBudget as ErrorBudget
    from gradbias.verification.fields import field_report as field_report
    from gradbias.verification.generic_points import Certificate as Certificate
    from gradbias.verification.generic_points import certify as certify
    from gradbias.verification.ledgers import Ledger as Ledger
    from gradbias.verification.linearised_bounds import (
        linearised_step_bound as linearised_step_bound,
    )
    from gradbias.verification.linearised_bounds import linearised_step_rows as linearised_step_rows
    from gradbias.verification.mean_tests import MeanTest as MeanTest
    from gradbias.verification.measurement import assert_unbiased as assert_unbiased
    from gradbias.verification.measurement import measure_bias as measure_bias
    from gradbias.verification.meta_measurement import (
        measure_meta_gradient as measure_meta_gradient,
    )
    from gradbias.verification.mixture_bounds import MixtureBias as MixtureBias
    from gradbias.verification.mixture_bounds import MixtureBound as MixtureBound
    from gradbias.verification.mixture_bounds import mixture_bias as mixture_bias
    from gradbias.verification.mixture_bounds import mixture_bound as mixture_bound
    from gradbias.verification.mixture_sweeps import MixtureSweep as MixtureSweep
    from gradbias.verification.mixture_sweeps import mixture_versus_bounds as mixture_versus_bounds
    from gradbias.verification.proofs import BiasFormula as BiasFormula
    from gradbias.verification.proofs import Proof as Proof
    from gradbias.verification.properties import for_all_games as for_all_games
    from gradbias.verification.properties import for_all_mdps as for_all_mdps
    from gradbias.verification.readings import ControlVariate as ControlVariate
    from gradbias.verification.reports import BiasReport as BiasReport
    from gradbias.verification.reports import Evidence as Evidence
    from gradbias.verification.reports import Verdict as Verdict
    from gradbias.verification.sequential import (
        measure_bias_sequentially as measure_bias_sequentially,
    )
    from gradbias.verification.strategies import games as games
    from gradbias.verification.strategies import joint_policies_for as joint_policies_for
    from gradbias.verification.strategies import linear_policies as linear_policies
    from gradbias.verification.strategies import policies_for as policies_for
    from gradbias.verification.strategies import tabular_mdps as tabular_mdps
    from gradbias.verification.surveys import Survey as Survey
    from gradbias.verification.surveys import survey as survey
    from gradbias.verification.variance_bounds import VarianceBound as VarianceBound
    from gradbias.verification.variance_bounds import (
        meta_gradient_variance_bound as meta_gradient_variance_bound,
    )

_HOME = {
    "BoundSweep": "bound_sweeps",
    "Sweep": "bound_sweeps",
    "MixtureBias": "mixture_bounds",
    "MixtureBound": "mixture_bounds",
    "mixture_bias": "mixture_bounds",
    "mixture_bound": "mixture_bounds",
    "MixtureSweep": "mixture_sweeps",
    "mixture_versus_bounds": "mixture_sweeps",
    "bound_versus_empirical": "bound_sweeps",
    "BiasBound": "bounds",
    "CompositionalErrorBound": "bounds",
    "compositional_error_bound": "bounds",
    "meta_gradient_bias_bound": "bounds",
    "prove_unbiased": "certificates",
    "compare_estimators": "comparison",
    "Claim": "conformance",
    "assert_conforms": "conformance",
    "check_estimator": "conformance",
    "check_meta_gradient": "conformance_meta",
    "diagnose": "diagnosis",
    "ErrorBudget": "error_budgets",
    "field_report": "fields",
    "Certificate": "generic_points",
    "certify": "generic_points",
    "Ledger": "ledgers",
    "linearised_step_bound": "linearised_bounds",
    "linearised_step_rows": "linearised_bounds",
    "MeanTest": "mean_tests",
    "assert_unbiased": "measurement",
    "measure_bias": "measurement",
    "measure_meta_gradient": "meta_measurement",
    "BiasFormula": "proofs",
    "Proof": "proofs",
    "for_all_games": "properties",
    "for_all_mdps": "properties",
    "ControlVariate": "readings",
    "BiasReport": "reports",
    "Evidence": "reports",
    "Verdict": "reports",
    "measure_bias_sequentially": "sequential",
    "games": "strategies",
    "joint_policies_for": "strategies",
    "linear_policies": "strategies",
    "policies_for": "strategies",
    "tabular_mdps": "strategies",
    "Survey": "surveys",
    "survey": "surveys",
    "VarianceBound": "variance_bounds",
    "meta_gradient_variance_bound": "variance_bounds",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
