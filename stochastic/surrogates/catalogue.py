"""The built-in surrogates by the names that the command line knows, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gradbias.stochastic.rollouts.records import Surrogate
from gradbias.stochastic.surrogates.dice import dice, loaded_dice, tmaml
from gradbias.stochastic.surrogates.group_relative import dr_grpo, grpo, rloo
from gradbias.stochastic.surrogates.off_policy import off_policy_dice
from gradbias.stochastic.surrogates.score_function import actor_critic, ad, lvc, reinforce
from gradbias.stochastic.surrogates.taylor import Taylor, v_trace

CATALOGUE: Mapping[str, Surrogate] = MappingProxyType(
    {
        "actor_critic": actor_critic,
        "ad": ad,
        "dice": dice,
        "dr_grpo": dr_grpo,
        "grpo": grpo,
        "loaded_dice": loaded_dice,
        "lvc": lvc,
        "off_policy_dice": off_policy_dice,
        "reinforce": reinforce,
        "rloo": rloo,
        "taylor": Taylor(),
        "taylor_2": Taylor(2),
        "tmaml": tmaml,
        "v_trace": v_trace,
    }
)
