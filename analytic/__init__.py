"""The exact side: problems, policies, targets, and every derivative in closed form (no torch).

Names are imported on first use, so that ``import analytic`` costs next to nothing.
"""

from typing import TYPE_CHECKING

from analytic.exports import lazy_exports

if TYPE_CHECKING:
    from analytic.derivatives import evaluate_target as evaluate_target
    from analytic.derivatives import gradient as gradient
    from analytic.derivatives import hessian as hessian
    from analytic.derivatives import hvp as hvp
    from analytic.policies import Policy as Policy
    from analytic.policies import TabularSoftmax as TabularSoftmax
    from analytic.policies import softmax as softmax
    from analytic.problems import TabularMDP as TabularMDP
    from analytic.targets import BootstrappedHorizon as BootstrappedHorizon
    from analytic.targets import FiniteHorizon as FiniteHorizon
    from analytic.targets import GivenTarget as GivenTarget
    from analytic.targets import GivenWeights as GivenWeights
    from analytic.targets import InfiniteHorizon as InfiniteHorizon
    from analytic.targets import InnerLoop as InnerLoop
    from analytic.targets import Target as Target
    from analytic.targets import Undiscounted as Undiscounted
    from analytic.targets import bootstrapped_gradient as bootstrapped_gradient
    from analytic.targets import return_derivative as return_derivative
    from analytic.targets import update_field as update_field
    from analytic.values import action_values as action_values
    from analytic.values import expected_return as expected_return
    from analytic.values import occupancy as occupancy
    from analytic.values import state_values as state_values

_HOME = {
    "evaluate_target": "derivatives",
    "gradient": "derivatives",
    "hessian": "derivatives",
    "hvp": "derivatives",
    "Policy": "policies",
    "TabularSoftmax": "policies",
    "softmax": "policies",
    "TabularMDP": "problems",
    "BootstrappedHorizon": "targets",
    "FiniteHorizon": "targets",
    "GivenWeights": "targets",
    "InfiniteHorizon": "targets",
    "InnerLoop": "targets",
    "Undiscounted": "targets",
    "bootstrapped_gradient": "targets",
    "GivenTarget": "targets",
    "Target": "targets",
    "return_derivative": "targets",
    "update_field": "targets",
    "action_values": "values",
    "expected_return": "values",
    "occupancy": "values",
    "state_values": "values",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
