"""Sample estimators and how to draw for them (numpy and torch).

Nothing here sees an exact value or derivative: critics and baselines are arguments. Names are
imported on first use. (Another project on the package index is called ``stochastic`` too; the
command line says so in one sentence when that one is found in this one's place.)
"""

from typing import TYPE_CHECKING

from analytic.exports import lazy_exports

if TYPE_CHECKING:
    from stochastic.bias_reduction import Levels as Levels
    from stochastic.bias_reduction import Multilevel as Multilevel
    from stochastic.bias_reduction import MultilevelEstimate as MultilevelEstimate
    from stochastic.bias_reduction import richardson as richardson
    from stochastic.contexts import Context as Context
    from stochastic.contexts import OtherPlayer as OtherPlayer
    from stochastic.estimators import Estimator as Estimator
    from stochastic.estimators import estimate as estimate
    from stochastic.estimators import from_callable as from_callable
    from stochastic.estimators import from_draws as from_draws
    from stochastic.estimators import from_surrogate as from_surrogate
    from stochastic.networks import TorchPolicy as TorchPolicy
    from stochastic.records import Record as Record
    from stochastic.surrogates.dice import Dice as Dice
    from stochastic.surrogates.dice import LoadedDice as LoadedDice
    from stochastic.surrogates.dice import dice as dice
    from stochastic.surrogates.dice import loaded_dice as loaded_dice
    from stochastic.surrogates.group_relative import Baseline as Baseline
    from stochastic.surrogates.group_relative import GroupRelative as GroupRelative
    from stochastic.surrogates.group_relative import Length as Length
    from stochastic.surrogates.group_relative import Penalty as Penalty
    from stochastic.surrogates.group_relative import dr_grpo as dr_grpo
    from stochastic.surrogates.group_relative import grpo as grpo
    from stochastic.surrogates.group_relative import rloo as rloo
    from stochastic.surrogates.off_policy import OffPolicyDice as OffPolicyDice
    from stochastic.surrogates.off_policy import Ratio as Ratio
    from stochastic.surrogates.off_policy import effective_sample_size as effective_sample_size
    from stochastic.surrogates.off_policy import off_policy_dice as off_policy_dice
    from stochastic.surrogates.penalties import k1 as k1
    from stochastic.surrogates.penalties import k2 as k2
    from stochastic.surrogates.penalties import k3 as k3
    from stochastic.surrogates.penalties import negative_entropy as negative_entropy
    from stochastic.surrogates.score_function import AD as AD
    from stochastic.surrogates.score_function import LVC as LVC
    from stochastic.surrogates.score_function import Reduction as Reduction
    from stochastic.surrogates.score_function import ad as ad
    from stochastic.surrogates.score_function import lvc as lvc
    from stochastic.trajectories import Trajectories as Trajectories
    from stochastic.trajectories import sample as sample

_HOME = {
    "Levels": "bias_reduction",
    "Multilevel": "bias_reduction",
    "MultilevelEstimate": "bias_reduction",
    "richardson": "bias_reduction",
    "Context": "contexts",
    "OtherPlayer": "contexts",
    "Estimator": "estimators",
    "estimate": "estimators",
    "from_callable": "estimators",
    "from_draws": "estimators",
    "from_surrogate": "estimators",
    "TorchPolicy": "networks",
    "Record": "records",
    "Dice": "surrogates.dice",
    "LoadedDice": "surrogates.dice",
    "dice": "surrogates.dice",
    "loaded_dice": "surrogates.dice",
    "Baseline": "surrogates.group_relative",
    "GroupRelative": "surrogates.group_relative",
    "Length": "surrogates.group_relative",
    "Penalty": "surrogates.group_relative",
    "dr_grpo": "surrogates.group_relative",
    "grpo": "surrogates.group_relative",
    "rloo": "surrogates.group_relative",
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
    "ad": "surrogates.score_function",
    "lvc": "surrogates.score_function",
    "Trajectories": "trajectories",
    "sample": "trajectories",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOME)
