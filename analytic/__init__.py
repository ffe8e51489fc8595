"""The exact side: problems, policies, targets, and every derivative in closed form (no torch).

Names are imported on first use, so that ``import analytic`` costs next to nothing.
"""

from typing import TYPE_CHECKING

from analytic.exports import lazy_exports

if TYPE_CHECKING:
    from analytic.additive_expansions import AdditiveExpansion as AdditiveExpansion
    from analytic.additive_expansions import additive_expansion as additive_expansion
    from analytic.additive_expansions import linearised_bias_bound as linearised_bias_bound
    from analytic.additive_expansions import quadratic_bias as quadratic_bias
    from analytic.additive_expansions import score_function_growth as score_function_growth
    from analytic.additive_objectives import AdditiveFunction as AdditiveFunction
    from analytic.additive_objectives import AdditiveLaw as AdditiveLaw
    from analytic.additive_objectives import AdditiveMoments as AdditiveMoments
    from analytic.additive_objectives import additive_moments as additive_moments
    from analytic.bilevel import BilevelProblem as BilevelProblem
    from analytic.bilevel import Lirpg as Lirpg
    from analytic.bilevel import Lola as Lola
    from analytic.bilevel import Maml as Maml
    from analytic.bilevel import Mgrl as Mgrl
    from analytic.bilevel import Outer as Outer
    from analytic.chain_moments import StepMoments as StepMoments
    from analytic.chain_moments import chain_oracle as chain_oracle
    from analytic.chain_moments import chain_step_moments as chain_step_moments
    from analytic.compositional import CompositionalBias as CompositionalBias
    from analytic.compositional import compositional_bias as compositional_bias
    from analytic.constants import ReturnConstants as ReturnConstants
    from analytic.constants import return_constants as return_constants
    from analytic.derivatives import discount_derivative as discount_derivative
    from analytic.derivatives import gradient as gradient
    from analytic.derivatives import hessian as hessian
    from analytic.derivatives import hvp as hvp
    from analytic.derivatives import reward_jvp as reward_jvp
    from analytic.derivatives import reward_vjp as reward_vjp
    from analytic.derivatives import state_action_occupancy as state_action_occupancy
    from analytic.derivatives import third_derivative as third_derivative
    from analytic.estimate_means import hessian_estimate_mean as hessian_estimate_mean
    from analytic.game_bounds import GameConstants as GameConstants
    from analytic.game_bounds import game_constants as game_constants
    from analytic.game_derivatives import game_gradient as game_gradient
    from analytic.game_derivatives import game_hvp as game_hvp
    from analytic.game_derivatives import game_values as game_values
    from analytic.games import StochasticGame as StochasticGame
    from analytic.games import memory_one_game as memory_one_game
    from analytic.games import prisoners_dilemma as prisoners_dilemma
    from analytic.gaussian_objectives import GaussianGradients as GaussianGradients
    from analytic.gaussian_objectives import ScalarMoments as ScalarMoments
    from analytic.gaussian_objectives import gaussian_mean_gradients as gaussian_mean_gradients
    from analytic.gaussian_objectives import gaussian_square_gradients as gaussian_square_gradients
    from analytic.inner_steps import InnerStep as InnerStep
    from analytic.inner_steps import PulledBack as PulledBack
    from analytic.lambda_returns import LambdaReturns as LambdaReturns
    from analytic.lambda_returns import LambdaUpdate as LambdaUpdate
    from analytic.linearised_steps import StepExpansion as StepExpansion
    from analytic.linearised_steps import step_expansion as step_expansion
    from analytic.linearised_steps import step_spread as step_spread
    from analytic.metagradients import TaskFamily as TaskFamily
    from analytic.metagradients import inner_loop as inner_loop
    from analytic.metagradients import meta_gradient as meta_gradient
    from analytic.metagradients import meta_objective as meta_objective
    from analytic.mixtures import Validation as Validation
    from analytic.mixtures import mixing_weights as mixing_weights
    from analytic.moments import Curvature as Curvature
    from analytic.moments import EstimateMoments as EstimateMoments
    from analytic.moments import gradient_moments as gradient_moments
    from analytic.moments import hvp_moments as hvp_moments
    from analytic.policies import LinearSoftmax as LinearSoftmax
    from analytic.policies import Policy as Policy
    from analytic.policies import TabularSoftmax as TabularSoftmax
    from analytic.policies import softmax as softmax
    from analytic.problem_batches import MDPBatch as MDPBatch
    from analytic.problems import TabularMDP as TabularMDP
    from analytic.reward_chains import ChainLearner as ChainLearner
    from analytic.reward_chains import RewardChain as RewardChain
    from analytic.sampled_steps import SampledStepObjective as SampledStepObjective
    from analytic.sampled_steps import sampled_step_objective as sampled_step_objective
    from analytic.sampling_expansion import leading_compositional_bias as leading_compositional_bias
    from analytic.scoped_constants import LoopConstants as LoopConstants
    from analytic.scoped_constants import Scope as Scope
    from analytic.scoped_constants import loop_constants as loop_constants
    from analytic.sparse_problems import SparseMDP as SparseMDP
    from analytic.step_objectives import adapted_return as adapted_return
    from analytic.step_objectives import trajectory_law as trajectory_law
    from analytic.symbolic import SymbolicGame as SymbolicGame
    from analytic.symbolic import SymbolicMDP as SymbolicMDP
    from analytic.symbolic_expressions import Expression as Expression
    from analytic.symbolic_loops import StagedExpression as StagedExpression
    from analytic.symbolic_loops import lirpg_expression as lirpg_expression
    from analytic.symbolic_loops import lola_expression as lola_expression
    from analytic.symbolic_loops import maml_expression as maml_expression
    from analytic.systems import IllConditionedWarning as IllConditionedWarning
    from analytic.target_values import evaluate_target as evaluate_target
    from analytic.targets import BootstrappedHorizon as BootstrappedHorizon
    from analytic.targets import Discounted as Discounted
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
    from analytic.trajectory_classes import Credit as Credit
    from analytic.truncation import truncation_bias as truncation_bias
    from analytic.values import action_values as action_values
    from analytic.values import condition_number as condition_number
    from analytic.values import expected_return as expected_return
    from analytic.values import occupancy as occupancy
    from analytic.values import state_values as state_values

_HOME = {
    "AdditiveExpansion": "additive_expansions",
    "additive_expansion": "additive_expansions",
    "linearised_bias_bound": "additive_expansions",
    "quadratic_bias": "additive_expansions",
    "score_function_growth": "additive_expansions",
    "AdditiveFunction": "additive_objectives",
    "AdditiveLaw": "additive_objectives",
    "AdditiveMoments": "additive_objectives",
    "additive_moments": "additive_objectives",
    "BilevelProblem": "bilevel",
    "Lirpg": "bilevel",
    "Lola": "bilevel",
    "Maml": "bilevel",
    "Mgrl": "bilevel",
    "Outer": "bilevel",
    "StepMoments": "chain_moments",
    "chain_oracle": "chain_moments",
    "chain_step_moments": "chain_moments",
    "CompositionalBias": "compositional",
    "compositional_bias": "compositional",
    "ReturnConstants": "constants",
    "return_constants": "constants",
    "discount_derivative": "derivatives",
    "gradient": "derivatives",
    "hessian": "derivatives",
    "hvp": "derivatives",
    "reward_jvp": "derivatives",
    "reward_vjp": "derivatives",
    "state_action_occupancy": "derivatives",
    "third_derivative": "derivatives",
    "hessian_estimate_mean": "estimate_means",
    "GameConstants": "game_bounds",
    "game_constants": "game_bounds",
    "game_gradient": "game_derivatives",
    "game_hvp": "game_derivatives",
    "game_values": "game_derivatives",
    "StochasticGame": "games",
    "memory_one_game": "games",
    "prisoners_dilemma": "games",
    "GaussianGradients": "gaussian_objectives",
    "ScalarMoments": "gaussian_objectives",
    "gaussian_mean_gradients": "gaussian_objectives",
    "gaussian_square_gradients": "gaussian_objectives",
    "InnerStep": "inner_steps",
    "PulledBack": "inner_steps",
    "LambdaReturns": "lambda_returns",
    "LambdaUpdate": "lambda_returns",
    "StepExpansion": "linearised_steps",
    "step_expansion": "linearised_steps",
    "step_spread": "linearised_steps",
    "TaskFamily": "metagradients",
    "inner_loop": "metagradients",
    "meta_gradient": "metagradients",
    "meta_objective": "metagradients",
    "Validation": "mixtures",
    "mixing_weights": "mixtures",
    "Curvature": "moments",
    "EstimateMoments": "moments",
    "gradient_moments": "moments",
    "hvp_moments": "moments",
    "LinearSoftmax": "policies",
    "Policy": "policies",
    "TabularSoftmax": "policies",
    "softmax": "policies",
    "MDPBatch": "problem_batches",
    "TabularMDP": "problems",
    "ChainLearner": "reward_chains",
    "RewardChain": "reward_chains",
    "SampledStepObjective": "sampled_steps",
    "sampled_step_objective": "sampled_steps",
    "leading_compositional_bias": "sampling_expansion",
    "LoopConstants": "scoped_constants",
    "Scope": "scoped_constants",
    "loop_constants": "scoped_constants",
    "SparseMDP": "sparse_problems",
    "adapted_return": "step_objectives",
    "trajectory_law": "step_objectives",
    "SymbolicGame": "symbolic",
    "SymbolicMDP": "symbolic",
    "Expression": "symbolic_expressions",
    "StagedExpression": "symbolic_loops",
    "lirpg_expression": "symbolic_loops",
    "lola_expression": "symbolic_loops",
    "maml_expression": "symbolic_loops",
    "IllConditionedWarning": "systems",
    "evaluate_target": "target_values",
    "BootstrappedHorizon": "targets",
    "Discounted": "targets",
    "FiniteHorizon": "targets",
    "GivenTarget": "targets",
    "GivenWeights": "targets",
    "InfiniteHorizon": "targets",
    "InnerLoop": "targets",
    "Target": "targets",
    "Undiscounted": "targets",
    "bootstrapped_gradient": "targets",
    "return_derivative": "targets",
    "update_field": "targets",
    "Credit": "trajectory_classes",
    "truncation_bias": "truncation",
    "action_values": "values",
    "condition_number": "values",
    "expected_return": "values",
    "occupancy": "values",
    "state_values": "values",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
