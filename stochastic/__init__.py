"""Sample estimators and how to draw for them (numpy and torch).

Nothing here sees an exact value or derivative: critics and baselines are arguments. Names are
imported on first use. (Another project on the package index is called ``stochastic`` too; the
command line says so in one sentence when that one is found in this one's place.)
"""

from typing import TYPE_CHECKING

from gradbias.analytic.utils.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from gradbias.stochastic.derivatives.jacobian_products import Side as Side
    from gradbias.stochastic.derivatives.jacobian_products import SurrogateBatch as SurrogateBatch
    from gradbias.stochastic.estimators.additive import AdditiveDraws as AdditiveDraws
    from gradbias.stochastic.estimators.additive import (
        generalised_linearised_gradient as generalised_linearised_gradient,
    )
    from gradbias.stochastic.estimators.additive import (
        generalised_score_function_gradient as generalised_score_function_gradient,
    )
    from gradbias.stochastic.estimators.additive import linearised_gradient as linearised_gradient
    from gradbias.stochastic.estimators.additive import pathwise_gradient as pathwise_gradient
    from gradbias.stochastic.estimators.additive import (
        score_function_gradient as score_function_gradient,
    )
    from gradbias.stochastic.estimators.bias_reduction import Levels as Levels
    from gradbias.stochastic.estimators.bias_reduction import Multilevel as Multilevel
    from gradbias.stochastic.estimators.bias_reduction import (
        MultilevelEstimate as MultilevelEstimate,
    )
    from gradbias.stochastic.estimators.bias_reduction import richardson as richardson
    from gradbias.stochastic.estimators.contexts import Context as Context
    from gradbias.stochastic.estimators.contexts import OtherPlayer as OtherPlayer
    from gradbias.stochastic.estimators.kinds import Estimator as Estimator
    from gradbias.stochastic.estimators.kinds import estimate as estimate
    from gradbias.stochastic.estimators.kinds import from_callable as from_callable
    from gradbias.stochastic.estimators.kinds import from_draws as from_draws
    from gradbias.stochastic.estimators.kinds import from_surrogate as from_surrogate
    from gradbias.stochastic.meta.game_loops import SampledGame as SampledGame
    from gradbias.stochastic.meta.inner_loops import SampledLoop as SampledLoop
    from gradbias.stochastic.meta.maml import e_maml as e_maml
    from gradbias.stochastic.meta.maml import first_order_maml as first_order_maml
    from gradbias.stochastic.meta.maml import (
        linearised_score_function as linearised_score_function,
    )
    from gradbias.stochastic.meta.maml import maml as maml
    from gradbias.stochastic.meta.maml import over_sampled_tasks as over_sampled_tasks
    from gradbias.stochastic.meta.meta_gradients import MetaGradient as MetaGradient
    from gradbias.stochastic.meta.reward_chains import ChainRewards as ChainRewards
    from gradbias.stochastic.meta.reward_chains import chain_meta_gradients as chain_meta_gradients
    from gradbias.stochastic.meta.reward_chains import draw_chain_rewards as draw_chain_rewards
    from gradbias.stochastic.meta.slots import FIRST_ORDER as FIRST_ORDER
    from gradbias.stochastic.meta.slots import Given as Given
    from gradbias.stochastic.meta.slots import Reuse as Reuse
    from gradbias.stochastic.meta.slots import Sampled as Sampled
    from gradbias.stochastic.meta.unrolled import Average as Average
    from gradbias.stochastic.meta.unrolled import Unroll as Unroll
    from gradbias.stochastic.meta.unrolled import averaged as averaged
    from gradbias.stochastic.meta.unrolled import replayed as replayed
    from gradbias.stochastic.networks.torch_policy import TorchPolicy as TorchPolicy
    from gradbias.stochastic.rollouts.records import Record as Record
    from gradbias.stochastic.rollouts.trajectories import Trajectories as Trajectories
    from gradbias.stochastic.rollouts.trajectories import sample as sample
    from gradbias.stochastic.surrogates.dice import Dice as Dice
    from gradbias.stochastic.surrogates.dice import LoadedDice as LoadedDice
    from gradbias.stochastic.surrogates.dice import Tmaml as Tmaml
    from gradbias.stochastic.surrogates.dice import dice as dice
    from gradbias.stochastic.surrogates.dice import loaded_dice as loaded_dice
    from gradbias.stochastic.surrogates.dice import tmaml as tmaml
    from gradbias.stochastic.surrogates.group_relative import Baseline as Baseline
    from gradbias.stochastic.surrogates.group_relative import GroupRelative as GroupRelative
    from gradbias.stochastic.surrogates.group_relative import Length as Length
    from gradbias.stochastic.surrogates.group_relative import Penalty as Penalty
    from gradbias.stochastic.surrogates.group_relative import dr_grpo as dr_grpo
    from gradbias.stochastic.surrogates.group_relative import grpo as grpo
    from gradbias.stochastic.surrogates.group_relative import rloo as rloo
    from gradbias.stochastic.surrogates.meta_losses import IntrinsicReward as IntrinsicReward
    from gradbias.stochastic.surrogates.meta_losses import LambdaReturn as LambdaReturn
    from gradbias.stochastic.surrogates.off_policy import OffPolicyDice as OffPolicyDice
    from gradbias.stochastic.surrogates.off_policy import Ratio as Ratio
    from gradbias.stochastic.surrogates.off_policy import (
        effective_sample_size as effective_sample_size,
    )
    from gradbias.stochastic.surrogates.off_policy import off_policy_dice as off_policy_dice
    from gradbias.stochastic.surrogates.penalties import k1 as k1
    from gradbias.stochastic.surrogates.penalties import k2 as k2
    from gradbias.stochastic.surrogates.penalties import k3 as k3
    from gradbias.stochastic.surrogates.penalties import negative_entropy as negative_entropy
    from gradbias.stochastic.surrogates.score_function import AD as AD
    from gradbias.stochastic.surrogates.score_function import LVC as LVC
    from gradbias.stochastic.surrogates.score_function import Reduction as Reduction
    from gradbias.stochastic.surrogates.score_function import actor_critic as actor_critic
    from gradbias.stochastic.surrogates.score_function import ad as ad
    from gradbias.stochastic.surrogates.score_function import gpomdp as gpomdp
    from gradbias.stochastic.surrogates.score_function import lvc as lvc
    from gradbias.stochastic.surrogates.score_function import reinforce as reinforce
    from gradbias.stochastic.surrogates.taylor import Taylor as Taylor
    from gradbias.stochastic.surrogates.taylor import VTrace as VTrace
    from gradbias.stochastic.surrogates.taylor import v_trace as v_trace

_HOME = {
    "AdditiveDraws": "estimators.additive",
    "generalised_linearised_gradient": "estimators.additive",
    "generalised_score_function_gradient": "estimators.additive",
    "linearised_gradient": "estimators.additive",
    "pathwise_gradient": "estimators.additive",
    "score_function_gradient": "estimators.additive",
    "Levels": "estimators.bias_reduction",
    "Multilevel": "estimators.bias_reduction",
    "MultilevelEstimate": "estimators.bias_reduction",
    "richardson": "estimators.bias_reduction",
    "ChainRewards": "meta.reward_chains",
    "chain_meta_gradients": "meta.reward_chains",
    "draw_chain_rewards": "meta.reward_chains",
    "Context": "estimators.contexts",
    "OtherPlayer": "estimators.contexts",
    "Estimator": "estimators.kinds",
    "estimate": "estimators.kinds",
    "from_callable": "estimators.kinds",
    "from_draws": "estimators.kinds",
    "from_surrogate": "estimators.kinds",
    "SampledGame": "meta.game_loops",
    "SampledLoop": "meta.inner_loops",
    "e_maml": "meta.maml",
    "first_order_maml": "meta.maml",
    "linearised_score_function": "meta.maml",
    "maml": "meta.maml",
    "over_sampled_tasks": "meta.maml",
    "MetaGradient": "meta.meta_gradients",
    "TorchPolicy": "networks.torch_policy",
    "Side": "derivatives.jacobian_products",
    "SurrogateBatch": "derivatives.jacobian_products",
    "Record": "rollouts.records",
    "FIRST_ORDER": "meta.slots",
    "Given": "meta.slots",
    "Reuse": "meta.slots",
    "Sampled": "meta.slots",
    "Dice": "surrogates.dice",
    "LoadedDice": "surrogates.dice",
    "Tmaml": "surrogates.dice",
    "dice": "surrogates.dice",
    "loaded_dice": "surrogates.dice",
    "tmaml": "surrogates.dice",
    "Baseline": "surrogates.group_relative",
    "GroupRelative": "surrogates.group_relative",
    "Length": "surrogates.group_relative",
    "Penalty": "surrogates.group_relative",
    "dr_grpo": "surrogates.group_relative",
    "grpo": "surrogates.group_relative",
    "rloo": "surrogates.group_relative",
    "IntrinsicReward": "surrogates.meta_losses",
    "LambdaReturn": "surrogates.meta_losses",
    "OffPolicyDice": "surrogates.off_policy",
    "Ratio": "surrogates.off_policy",
    "effective_sample_size": "surrogates.off_policy",
    "off_policy_dice": "surrogates.off_policy",
    "k1": "surrogates.penalties",
    "k2": "surrogates.penalties",
    "k3": "surrogates.penalties",
    "negative_entropy": "surrogates.penalties",
    "AD": "surrogates.score_function",
    "LVC": "surrogates.score_function",
    "Reduction": "surrogates.score_function",
    "actor_critic": "surrogates.score_function",
    "ad": "surrogates.score_function",
    "gpomdp": "surrogates.score_function",
    "lvc": "surrogates.score_function",
    "reinforce": "surrogates.score_function",
    "Taylor": "surrogates.taylor",
    "VTrace": "surrogates.taylor",
    "v_trace": "surrogates.taylor",
    "Trajectories": "rollouts.trajectories",
    "sample": "rollouts.trajectories",
    "Average": "meta.unrolled",
    "Unroll": "meta.unrolled",
    "averaged": "meta.unrolled",
    "replayed": "meta.unrolled",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
