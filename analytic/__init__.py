"""The exact side: problems, policies, targets, and every derivative in closed form (no torch).

Names are imported on first use, so that ``import gradbias.analytic`` costs next to nothing.
"""

from typing import TYPE_CHECKING

from gradbias.analytic.utils.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from gradbias.analytic.additive.expansion import AdditiveExpansion as AdditiveExpansion
    from gradbias.analytic.additive.expansion import additive_expansion as additive_expansion
    from gradbias.analytic.additive.expansion import linearised_bias_bound as linearised_bias_bound
    from gradbias.analytic.additive.expansion import quadratic_bias as quadratic_bias
    from gradbias.analytic.additive.expansion import score_function_growth as score_function_growth
    from gradbias.analytic.additive.gaussian import GaussianGradients as GaussianGradients
    from gradbias.analytic.additive.gaussian import ScalarMoments as ScalarMoments
    from gradbias.analytic.additive.gaussian import (
        gaussian_mean_gradients as gaussian_mean_gradients,
    )
    from gradbias.analytic.additive.gaussian import (
        gaussian_square_gradients as gaussian_square_gradients,
    )
    from gradbias.analytic.additive.maml_expansion import StepExpansion as StepExpansion
    from gradbias.analytic.additive.maml_expansion import step_expansion as step_expansion
    from gradbias.analytic.additive.maml_expansion import step_spread as step_spread
    from gradbias.analytic.additive.maml_step import adapted_return as adapted_return
    from gradbias.analytic.additive.maml_step import trajectory_law as trajectory_law
    from gradbias.analytic.additive.objectives import AdditiveFunction as AdditiveFunction
    from gradbias.analytic.additive.objectives import AdditiveLaw as AdditiveLaw
    from gradbias.analytic.additive.objectives import AdditiveMoments as AdditiveMoments
    from gradbias.analytic.additive.objectives import additive_moments as additive_moments
    from gradbias.analytic.constants.games import GameConstants as GameConstants
    from gradbias.analytic.constants.games import game_constants as game_constants
    from gradbias.analytic.constants.loops import LoopConstants as LoopConstants
    from gradbias.analytic.constants.loops import Scope as Scope
    from gradbias.analytic.constants.loops import loop_constants as loop_constants
    from gradbias.analytic.constants.returns import ReturnConstants as ReturnConstants
    from gradbias.analytic.constants.returns import return_constants as return_constants
    from gradbias.analytic.meta.bilevel import BilevelProblem as BilevelProblem
    from gradbias.analytic.meta.bilevel import Lirpg as Lirpg
    from gradbias.analytic.meta.bilevel import Lola as Lola
    from gradbias.analytic.meta.bilevel import Maml as Maml
    from gradbias.analytic.meta.bilevel import Mgrl as Mgrl
    from gradbias.analytic.meta.bilevel import Outer as Outer
    from gradbias.analytic.meta.compositional_bias import CompositionalBias as CompositionalBias
    from gradbias.analytic.meta.compositional_bias import compositional_bias as compositional_bias
    from gradbias.analytic.meta.compositional_expansion import (
        leading_compositional_bias as leading_compositional_bias,
    )
    from gradbias.analytic.meta.inner_steps import InnerStep as InnerStep
    from gradbias.analytic.meta.inner_steps import PulledBack as PulledBack
    from gradbias.analytic.meta.meta_gradients import TaskFamily as TaskFamily
    from gradbias.analytic.meta.meta_gradients import inner_loop as inner_loop
    from gradbias.analytic.meta.meta_gradients import meta_gradient as meta_gradient
    from gradbias.analytic.meta.meta_gradients import meta_objective as meta_objective
    from gradbias.analytic.meta.sampled_objective import (
        SampledStepObjective as SampledStepObjective,
    )
    from gradbias.analytic.meta.sampled_objective import (
        sampled_step_objective as sampled_step_objective,
    )
    from gradbias.analytic.moments.estimators import Curvature as Curvature
    from gradbias.analytic.moments.estimators import EstimateMoments as EstimateMoments
    from gradbias.analytic.moments.estimators import gradient_moments as gradient_moments
    from gradbias.analytic.moments.estimators import hvp_moments as hvp_moments
    from gradbias.analytic.moments.hessian_means import (
        hessian_estimate_mean as hessian_estimate_mean,
    )
    from gradbias.analytic.moments.reward_chains import StepMoments as StepMoments
    from gradbias.analytic.moments.reward_chains import chain_oracle as chain_oracle
    from gradbias.analytic.moments.reward_chains import chain_step_moments as chain_step_moments
    from gradbias.analytic.moments.trajectory_classes import Credit as Credit
    from gradbias.analytic.policies.softmax import LinearSoftmax as LinearSoftmax
    from gradbias.analytic.policies.softmax import Policy as Policy
    from gradbias.analytic.policies.softmax import TabularSoftmax as TabularSoftmax
    from gradbias.analytic.policies.softmax import softmax as softmax
    from gradbias.analytic.problems.batches import MDPBatch as MDPBatch
    from gradbias.analytic.problems.games import StochasticGame as StochasticGame
    from gradbias.analytic.problems.games import memory_one_game as memory_one_game
    from gradbias.analytic.problems.games import prisoners_dilemma as prisoners_dilemma
    from gradbias.analytic.problems.mdp import TabularMDP as TabularMDP
    from gradbias.analytic.problems.mixing import Validation as Validation
    from gradbias.analytic.problems.mixing import mixing_weights as mixing_weights
    from gradbias.analytic.problems.reward_chains import ChainLearner as ChainLearner
    from gradbias.analytic.problems.reward_chains import RewardChain as RewardChain
    from gradbias.analytic.problems.sparse import SparseMDP as SparseMDP
    from gradbias.analytic.problems.targets import BootstrappedHorizon as BootstrappedHorizon
    from gradbias.analytic.problems.targets import Discounted as Discounted
    from gradbias.analytic.problems.targets import FiniteHorizon as FiniteHorizon
    from gradbias.analytic.problems.targets import GivenTarget as GivenTarget
    from gradbias.analytic.problems.targets import GivenWeights as GivenWeights
    from gradbias.analytic.problems.targets import InfiniteHorizon as InfiniteHorizon
    from gradbias.analytic.problems.targets import InnerLoop as InnerLoop
    from gradbias.analytic.problems.targets import Target as Target
    from gradbias.analytic.problems.targets import Undiscounted as Undiscounted
    from gradbias.analytic.problems.targets import bootstrapped_gradient as bootstrapped_gradient
    from gradbias.analytic.problems.targets import return_derivative as return_derivative
    from gradbias.analytic.problems.targets import update_field as update_field
    from gradbias.analytic.returns.bellman import IllConditionedWarning as IllConditionedWarning
    from gradbias.analytic.returns.derivatives import discount_derivative as discount_derivative
    from gradbias.analytic.returns.derivatives import gradient as gradient
    from gradbias.analytic.returns.derivatives import hessian as hessian
    from gradbias.analytic.returns.derivatives import hvp as hvp
    from gradbias.analytic.returns.derivatives import reward_jvp as reward_jvp
    from gradbias.analytic.returns.derivatives import reward_vjp as reward_vjp
    from gradbias.analytic.returns.derivatives import (
        state_action_occupancy as state_action_occupancy,
    )
    from gradbias.analytic.returns.derivatives import third_derivative as third_derivative
    from gradbias.analytic.returns.evaluation import action_values as action_values
    from gradbias.analytic.returns.evaluation import condition_number as condition_number
    from gradbias.analytic.returns.evaluation import expected_return as expected_return
    from gradbias.analytic.returns.evaluation import occupancy as occupancy
    from gradbias.analytic.returns.evaluation import state_values as state_values
    from gradbias.analytic.returns.game_derivatives import game_gradient as game_gradient
    from gradbias.analytic.returns.game_derivatives import game_hvp as game_hvp
    from gradbias.analytic.returns.game_derivatives import game_values as game_values
    from gradbias.analytic.returns.lambda_returns import LambdaReturns as LambdaReturns
    from gradbias.analytic.returns.lambda_returns import LambdaUpdate as LambdaUpdate
    from gradbias.analytic.returns.target_values import evaluate_target as evaluate_target
    from gradbias.analytic.returns.truncation import truncation_bias as truncation_bias
    from gradbias.analytic.symbolic.expressions import Expression as Expression
    from gradbias.analytic.symbolic.meta_gradients import StagedExpression as StagedExpression
    from gradbias.analytic.symbolic.meta_gradients import lirpg_expression as lirpg_expression
    from gradbias.analytic.symbolic.meta_gradients import lola_expression as lola_expression
    from gradbias.analytic.symbolic.meta_gradients import maml_expression as maml_expression
    from gradbias.analytic.symbolic.problems import SymbolicGame as SymbolicGame
    from gradbias.analytic.symbolic.problems import SymbolicMDP as SymbolicMDP

_HOME = {
    "AdditiveExpansion": "additive.expansion",
    "additive_expansion": "additive.expansion",
    "linearised_bias_bound": "additive.expansion",
    "quadratic_bias": "additive.expansion",
    "score_function_growth": "additive.expansion",
    "AdditiveFunction": "additive.objectives",
    "AdditiveLaw": "additive.objectives",
    "AdditiveMoments": "additive.objectives",
    "additive_moments": "additive.objectives",
    "BilevelProblem": "meta.bilevel",
    "Lirpg": "meta.bilevel",
    "Lola": "meta.bilevel",
    "Maml": "meta.bilevel",
    "Mgrl": "meta.bilevel",
    "Outer": "meta.bilevel",
    "StepMoments": "moments.reward_chains",
    "chain_oracle": "moments.reward_chains",
    "chain_step_moments": "moments.reward_chains",
    "CompositionalBias": "meta.compositional_bias",
    "compositional_bias": "meta.compositional_bias",
    "ReturnConstants": "constants.returns",
    "return_constants": "constants.returns",
    "discount_derivative": "returns.derivatives",
    "gradient": "returns.derivatives",
    "hessian": "returns.derivatives",
    "hvp": "returns.derivatives",
    "reward_jvp": "returns.derivatives",
    "reward_vjp": "returns.derivatives",
    "state_action_occupancy": "returns.derivatives",
    "third_derivative": "returns.derivatives",
    "hessian_estimate_mean": "moments.hessian_means",
    "GameConstants": "constants.games",
    "game_constants": "constants.games",
    "game_gradient": "returns.game_derivatives",
    "game_hvp": "returns.game_derivatives",
    "game_values": "returns.game_derivatives",
    "StochasticGame": "problems.games",
    "memory_one_game": "problems.games",
    "prisoners_dilemma": "problems.games",
    "GaussianGradients": "additive.gaussian",
    "ScalarMoments": "additive.gaussian",
    "gaussian_mean_gradients": "additive.gaussian",
    "gaussian_square_gradients": "additive.gaussian",
    "InnerStep": "meta.inner_steps",
    "PulledBack": "meta.inner_steps",
    "LambdaReturns": "returns.lambda_returns",
    "LambdaUpdate": "returns.lambda_returns",
    "StepExpansion": "additive.maml_expansion",
    "step_expansion": "additive.maml_expansion",
    "step_spread": "additive.maml_expansion",
    "TaskFamily": "meta.meta_gradients",
    "inner_loop": "meta.meta_gradients",
    "meta_gradient": "meta.meta_gradients",
    "meta_objective": "meta.meta_gradients",
    "Validation": "problems.mixing",
    "mixing_weights": "problems.mixing",
    "Curvature": "moments.estimators",
    "EstimateMoments": "moments.estimators",
    "gradient_moments": "moments.estimators",
    "hvp_moments": "moments.estimators",
    "LinearSoftmax": "policies.softmax",
    "Policy": "policies.softmax",
    "TabularSoftmax": "policies.softmax",
    "softmax": "policies.softmax",
    "MDPBatch": "problems.batches",
    "TabularMDP": "problems.mdp",
    "ChainLearner": "problems.reward_chains",
    "RewardChain": "problems.reward_chains",
    "SampledStepObjective": "meta.sampled_objective",
    "sampled_step_objective": "meta.sampled_objective",
    "leading_compositional_bias": "meta.compositional_expansion",
    "LoopConstants": "constants.loops",
    "Scope": "constants.loops",
    "loop_constants": "constants.loops",
    "SparseMDP": "problems.sparse",
    "adapted_return": "additive.maml_step",
    "trajectory_law": "additive.maml_step",
    "SymbolicGame": "symbolic.problems",
    "SymbolicMDP": "symbolic.problems",
    "Expression": "symbolic.expressions",
    "StagedExpression": "symbolic.meta_gradients",
    "lirpg_expression": "symbolic.meta_gradients",
    "lola_expression": "symbolic.meta_gradients",
    "maml_expression": "symbolic.meta_gradients",
    "IllConditionedWarning": "returns.bellman",
    "evaluate_target": "returns.target_values",
    "BootstrappedHorizon": "problems.targets",
    "Discounted": "problems.targets",
    "FiniteHorizon": "problems.targets",
    "GivenTarget": "problems.targets",
    "GivenWeights": "problems.targets",
    "InfiniteHorizon": "problems.targets",
    "InnerLoop": "problems.targets",
    "Target": "problems.targets",
    "Undiscounted": "problems.targets",
    "bootstrapped_gradient": "problems.targets",
    "return_derivative": "problems.targets",
    "update_field": "problems.targets",
    "Credit": "moments.trajectory_classes",
    "truncation_bias": "returns.truncation",
    "action_values": "returns.evaluation",
    "condition_number": "returns.evaluation",
    "expected_return": "returns.evaluation",
    "occupancy": "returns.evaluation",
    "state_values": "returns.evaluation",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
