"""The exact side: problems, policies, targets, and every derivative in closed form (no torch).

Names are imported on first use, so that ``import gradbias.analytic`` costs next to nothing.
"""

from typing import TYPE_CHECKING

from gradbias.analytic.exports import lazy_exports

if TYPE_CHECKING:
    from gradbias.analytic.additive_expansions import AdditiveExpansion as AdditiveExpansion
    from gradbias.analytic.additive_expansions import additive_expansion as additive_expansion
    from gradbias.analytic.additive_expansions import linearised_bias_bound as linearised_bias_bound
    from gradbias.analytic.additive_expansions import quadratic_bias as quadratic_bias
    from gradbias.analytic.additive_expansions import score_function_growth as score_function_growth
    from gradbias.analytic.additive_objectives import AdditiveFunction as AdditiveFunction
    from gradbias.analytic.additive_objectives import AdditiveLaw as AdditiveLaw
    from gradbias.analytic.additive_objectives import AdditiveMoments as AdditiveMoments
    from gradbias.analytic.additive_objectives import additive_moments as additive_moments
    from gradbias.analytic.bilevel import BilevelProblem as BilevelProblem
    from gradbias.analytic.bilevel import Lirpg as Lirpg
    from gradbias.analytic.bilevel import Lola as Lola
    from gradbias.analytic.bilevel import Maml as Maml
    from gradbias.analytic.bilevel import Mgrl as Mgrl
    from gradbias.analytic.bilevel import Outer as Outer
    from gradbias.analytic.chain_moments import StepMoments as StepMoments
    from gradbias.analytic.chain_moments import chain_oracle as chain_oracle
    from gradbias.analytic.chain_moments import chain_step_moments as chain_step_moments
    from gradbias.analytic.compositional import CompositionalBias as CompositionalBias
    from gradbias.analytic.compositional import compositional_bias as compositional_bias
    from gradbias.analytic.constants import ReturnConstants as ReturnConstants
    from gradbias.analytic.constants import return_constants as return_constants
    from gradbias.analytic.derivatives import discount_derivative as discount_derivative
    from gradbias.analytic.derivatives import gradient as gradient
    from gradbias.analytic.derivatives import hessian as hessian
    from gradbias.analytic.derivatives import hvp as hvp
    from gradbias.analytic.derivatives import reward_jvp as reward_jvp
    from gradbias.analytic.derivatives import reward_vjp as reward_vjp
    from gradbias.analytic.derivatives import state_action_occupancy as state_action_occupancy
    from gradbias.analytic.derivatives import third_derivative as third_derivative
    from gradbias.analytic.estimate_means import hessian_estimate_mean as hessian_estimate_mean
    from gradbias.analytic.game_bounds import GameConstants as GameConstants
    from gradbias.analytic.game_bounds import game_constants as game_constants
    from gradbias.analytic.game_derivatives import game_gradient as game_gradient
    from gradbias.analytic.game_derivatives import game_hvp as game_hvp
    from gradbias.analytic.game_derivatives import game_values as game_values
    from gradbias.analytic.games import StochasticGame as StochasticGame
    from gradbias.analytic.games import memory_one_game as memory_one_game
    from gradbias.analytic.games import prisoners_dilemma as prisoners_dilemma
    from gradbias.analytic.gaussian_objectives import GaussianGradients as GaussianGradients
    from gradbias.analytic.gaussian_objectives import ScalarMoments as ScalarMoments
    from gradbias.analytic.gaussian_objectives import (
        gaussian_mean_gradients as gaussian_mean_gradients,
    )
    from gradbias.analytic.gaussian_objectives import (
        gaussian_square_gradients as gaussian_square_gradients,
    )
    from gradbias.analytic.inner_steps import InnerStep as InnerStep
    from gradbias.analytic.inner_steps import PulledBack as PulledBack
    from gradbias.analytic.lambda_returns import LambdaReturns as LambdaReturns
    from gradbias.analytic.lambda_returns import LambdaUpdate as LambdaUpdate
    from gradbias.analytic.linearised_steps import StepExpansion as StepExpansion
    from gradbias.analytic.linearised_steps import step_expansion as step_expansion
    from gradbias.analytic.linearised_steps import step_spread as step_spread
    from gradbias.analytic.metagradients import TaskFamily as TaskFamily
    from gradbias.analytic.metagradients import inner_loop as inner_loop
    from gradbias.analytic.metagradients import meta_gradient as meta_gradient
    from gradbias.analytic.metagradients import meta_objective as meta_objective
    from gradbias.analytic.mixtures import Validation as Validation
    from gradbias.analytic.mixtures import mixing_weights as mixing_weights
    from gradbias.analytic.moments import Curvature as Curvature
    from gradbias.analytic.moments import EstimateMoments as EstimateMoments
    from gradbias.analytic.moments import gradient_moments as gradient_moments
    from gradbias.analytic.moments import hvp_moments as hvp_moments
    from gradbias.analytic.policies import LinearSoftmax as LinearSoftmax
    from gradbias.analytic.policies import Policy as Policy
    from gradbias.analytic.policies import TabularSoftmax as TabularSoftmax
    from gradbias.analytic.policies import softmax as softmax
    from gradbias.analytic.problem_batches import MDPBatch as MDPBatch
    from gradbias.analytic.problems import TabularMDP as TabularMDP
    from gradbias.analytic.reward_chains import ChainLearner as ChainLearner
    from gradbias.analytic.reward_chains import RewardChain as RewardChain
    from gradbias.analytic.sampled_steps import SampledStepObjective as SampledStepObjective
    from gradbias.analytic.sampled_steps import sampled_step_objective as sampled_step_objective
    from gradbias.analytic.sampling_expansion import (
        leading_compositional_bias as leading_compositional_bias,
    )
    from gradbias.analytic.scoped_constants import LoopConstants as LoopConstants
    from gradbias.analytic.scoped_constants import Scope as Scope
    from gradbias.analytic.scoped_constants import loop_constants as loop_constants
    from gradbias.analytic.sparse_problems import SparseMDP as SparseMDP
    from gradbias.analytic.step_objectives import adapted_return as adapted_return
    from gradbias.analytic.step_objectives import trajectory_law as trajectory_law
    from gradbias.analytic.symbolic import SymbolicGame as SymbolicGame
    from gradbias.analytic.symbolic import SymbolicMDP as SymbolicMDP
    from gradbias.analytic.symbolic_expressions import Expression as Expression
    from gradbias.analytic.symbolic_loops import StagedExpression as StagedExpression
    from gradbias.analytic.symbolic_loops import lirpg_expression as lirpg_expression
    from gradbias.analytic.symbolic_loops import lola_expression as lola_expression
    from gradbias.analytic.symbolic_loops import maml_expression as maml_expression
    from gradbias.analytic.systems import IllConditionedWarning as IllConditionedWarning
    from gradbias.analytic.target_values import evaluate_target as evaluate_target
    from gradbias.analytic.targets import BootstrappedHorizon as BootstrappedHorizon
    from gradbias.analytic.targets import Discounted as Discounted
    from gradbias.analytic.targets import FiniteHorizon as FiniteHorizon
    from gradbias.analytic.targets import GivenTarget as GivenTarget
    from gradbias.analytic.targets import GivenWeights as GivenWeights
    from gradbias.analytic.targets import InfiniteHorizon as InfiniteHorizon
    from gradbias.analytic.targets import InnerLoop as InnerLoop
    from gradbias.analytic.targets import Target as Target
    from gradbias.analytic.targets import Undiscounted as Undiscounted
    from gradbias.analytic.targets import bootstrapped_gradient as bootstrapped_gradient
    from gradbias.analytic.targets import return_derivative as return_derivative
    from gradbias.analytic.targets import update_field as update_field
    from gradbias.analytic.trajectory_classes import Credit as Credit
    from gradbias.analytic.truncation import truncation_bias as truncation_bias
    from gradbias.analytic.values import action_values as action_values
    from gradbias.analytic.values import condition_number as condition_number
    from gradbias.analytic.values import expected_return as expected_return
    from gradbias.analytic.values import occupancy as occupancy
    from gradbias.analytic.values import state_values as state_values

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
