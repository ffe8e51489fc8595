"""Evidence on estimators: exact expectations, intervals, verdicts, reports as data.

Names are imported on first use.
"""

from typing import TYPE_CHECKING

from gradbias.analytic.utils.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from gradbias.verification.bounds.meta_gradient_bias import BiasBound as BiasBound
    from gradbias.verification.bounds.meta_gradient_bias import (
        CompositionalErrorBound as CompositionalErrorBound,
    )
    from gradbias.verification.bounds.meta_gradient_bias import (
        compositional_error_bound as compositional_error_bound,
    )
    from gradbias.verification.bounds.meta_gradient_bias import (
        meta_gradient_bias_bound as meta_gradient_bias_bound,
    )
    from gradbias.verification.bounds.meta_gradient_variance import VarianceBound as VarianceBound
    from gradbias.verification.bounds.meta_gradient_variance import (
        meta_gradient_variance_bound as meta_gradient_variance_bound,
    )
    from gradbias.verification.bounds.mixture_sweep import MixtureSweep as MixtureSweep
    from gradbias.verification.bounds.mixture_sweep import (
        mixture_versus_bounds as mixture_versus_bounds,
    )
    from gradbias.verification.bounds.mixtures import MixtureBias as MixtureBias
    from gradbias.verification.bounds.mixtures import MixtureBound as MixtureBound
    from gradbias.verification.bounds.mixtures import mixture_bias as mixture_bias
    from gradbias.verification.bounds.mixtures import mixture_bound as mixture_bound
    from gradbias.verification.bounds.reused_batch import (
        linearised_step_bound as linearised_step_bound,
    )
    from gradbias.verification.bounds.reused_batch import (
        linearised_step_rows as linearised_step_rows,
    )
    from gradbias.verification.bounds.sweep import BoundSweep as BoundSweep
    from gradbias.verification.bounds.sweep import Sweep as Sweep
    from gradbias.verification.bounds.sweep import bound_versus_empirical as bound_versus_empirical
    from gradbias.verification.confidence.error_budgets import ErrorBudget as ErrorBudget
    from gradbias.verification.confidence.mean_tests import MeanTest as MeanTest
    from gradbias.verification.conformance.meta_suite import (
        check_meta_gradient as check_meta_gradient,
    )
    from gradbias.verification.conformance.suite import Claim as Claim
    from gradbias.verification.conformance.suite import assert_conforms as assert_conforms
    from gradbias.verification.conformance.suite import check_estimator as check_estimator
    from gradbias.verification.diagnosis.diagnose import diagnose as diagnose
    from gradbias.verification.diagnosis.update_fields import field_report as field_report
    from gradbias.verification.evidence.reports import BiasReport as BiasReport
    from gradbias.verification.evidence.reports import Evidence as Evidence
    from gradbias.verification.evidence.reports import Verdict as Verdict
    from gradbias.verification.measurement.measure import assert_unbiased as assert_unbiased
    from gradbias.verification.measurement.measure import measure_bias as measure_bias
    from gradbias.verification.measurement.meta_gradients import (
        measure_meta_gradient as measure_meta_gradient,
    )
    from gradbias.verification.proofs.identity_testing import Certificate as Certificate
    from gradbias.verification.proofs.identity_testing import certify as certify
    from gradbias.verification.proofs.prove import prove_unbiased as prove_unbiased
    from gradbias.verification.proofs.results import BiasFormula as BiasFormula
    from gradbias.verification.proofs.results import Proof as Proof
    from gradbias.verification.properties.for_all import for_all_games as for_all_games
    from gradbias.verification.properties.for_all import for_all_mdps as for_all_mdps
    from gradbias.verification.properties.ledgers import Ledger as Ledger
    from gradbias.verification.properties.strategies import games as games
    from gradbias.verification.properties.strategies import joint_policies_for as joint_policies_for
    from gradbias.verification.properties.strategies import linear_policies as linear_policies
    from gradbias.verification.properties.strategies import policies_for as policies_for
    from gradbias.verification.properties.strategies import tabular_mdps as tabular_mdps
    from gradbias.verification.sequential.comparison import compare_estimators as compare_estimators
    from gradbias.verification.sequential.functionals import ControlVariate as ControlVariate
    from gradbias.verification.sequential.measure import (
        measure_bias_sequentially as measure_bias_sequentially,
    )
    from gradbias.verification.sequential.surveys import Survey as Survey
    from gradbias.verification.sequential.surveys import survey as survey

_HOME = {
    "BoundSweep": "bounds.sweep",
    "Sweep": "bounds.sweep",
    "MixtureBias": "bounds.mixtures",
    "MixtureBound": "bounds.mixtures",
    "mixture_bias": "bounds.mixtures",
    "mixture_bound": "bounds.mixtures",
    "MixtureSweep": "bounds.mixture_sweep",
    "mixture_versus_bounds": "bounds.mixture_sweep",
    "bound_versus_empirical": "bounds.sweep",
    "BiasBound": "bounds.meta_gradient_bias",
    "CompositionalErrorBound": "bounds.meta_gradient_bias",
    "compositional_error_bound": "bounds.meta_gradient_bias",
    "meta_gradient_bias_bound": "bounds.meta_gradient_bias",
    "prove_unbiased": "proofs.prove",
    "compare_estimators": "sequential.comparison",
    "Claim": "conformance.suite",
    "assert_conforms": "conformance.suite",
    "check_estimator": "conformance.suite",
    "check_meta_gradient": "conformance.meta_suite",
    "diagnose": "diagnosis.diagnose",
    "ErrorBudget": "confidence.error_budgets",
    "field_report": "diagnosis.update_fields",
    "Certificate": "proofs.identity_testing",
    "certify": "proofs.identity_testing",
    "Ledger": "properties.ledgers",
    "linearised_step_bound": "bounds.reused_batch",
    "linearised_step_rows": "bounds.reused_batch",
    "MeanTest": "confidence.mean_tests",
    "assert_unbiased": "measurement.measure",
    "measure_bias": "measurement.measure",
    "measure_meta_gradient": "measurement.meta_gradients",
    "BiasFormula": "proofs.results",
    "Proof": "proofs.results",
    "for_all_games": "properties.for_all",
    "for_all_mdps": "properties.for_all",
    "ControlVariate": "sequential.functionals",
    "BiasReport": "evidence.reports",
    "Evidence": "evidence.reports",
    "Verdict": "evidence.reports",
    "measure_bias_sequentially": "sequential.measure",
    "games": "properties.strategies",
    "joint_policies_for": "properties.strategies",
    "linear_policies": "properties.strategies",
    "policies_for": "properties.strategies",
    "tabular_mdps": "properties.strategies",
    "Survey": "sequential.surveys",
    "survey": "sequential.surveys",
    "VarianceBound": "bounds.meta_gradient_variance",
    "meta_gradient_variance_bound": "bounds.meta_gradient_variance",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
