"""Strategies for the examples of a property: problems of growing size, with policies for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import TABULAR, Policy
from gradbias.analytic.problems.games import StochasticGame
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.properties.arguments import checked_strategy, growing_sizes
from gradbias.verification.properties.search import Example
from gradbias.verification.properties.strategies import (
    Dynamics,
    Rewards,
    games,
    parameters_for,
    policies_for,
    tabular_mdps,
)

_GENERAL: Any = {
    "dynamics": [Dynamics.SPARSE, Dynamics.DENSE],
    "rewards": [Rewards.BY_ACTION, Rewards.BY_NEXT_STATE],
    "discounts": (0.5, 0.9),
}
"""Kinds of problems on which known errors have different means and no special case hides a bias."""

ParametersFor = Callable[[TabularMDP], st.SearchStrategy[FloatArray]]
PolicyFor = Callable[[TabularMDP], "Policy | st.SearchStrategy[Policy]"]
JointParametersFor = Callable[[StochasticGame], st.SearchStrategy[tuple[FloatArray, FloatArray]]]
Stages = list[st.SearchStrategy[Example]]


def mdp_stages(
    problems: st.SearchStrategy[TabularMDP] | None,
    sizes: tuple[int, ...],
    policy: Policy | PolicyFor,
    policies: ParametersFor | None,
) -> Stages:
    """The strategies of a search: for ``problems`` or, if None, for growing sizes and then for
    general problems.
    """
    if problems is not None:
        return [_examples(checked_strategy("problems", problems), policy, policies)]
    stages = [tabular_mdps(*size, min_actions=2) for size in growing_sizes(*sizes)]
    stages.append(tabular_mdps(*sizes, min_states=min(2, sizes[0]), min_actions=2, **_GENERAL))
    return [_examples(stage, policy, policies) for stage in stages]


def game_stages(
    problems: st.SearchStrategy[StochasticGame] | None,
    sizes: tuple[int, ...],
    policies: JointParametersFor,
) -> Stages:
    """The strategies of a search: for ``problems`` or, if None, for growing sizes and then for
    memory-one games too.
    """
    if problems is not None:
        return [_game_examples(checked_strategy("problems", problems), policies)]
    finite: dict[str, Any] = {"min_actions": 2, "infinite": False}
    stages = [games(*size, **finite, memory_one=False) for size in growing_sizes(*sizes)]
    return [_game_examples(stage, policies) for stage in (*stages, games(*sizes, **finite))]


@st.composite
def _examples(
    draw: st.DrawFn,
    problems: st.SearchStrategy[TabularMDP],
    policy: Policy | PolicyFor,
    policies: ParametersFor | None,
) -> Example:
    """A strategy for a problem with a policy and its parameters."""
    mdp = draw(problems)
    chosen: Any = policy(mdp) if callable(policy) else policy
    if isinstance(chosen, st.SearchStrategy):
        chosen = draw(chosen)
    if policies is not None:
        theta = draw(policies(mdp))
    elif chosen is TABULAR:
        theta = draw(policies_for(mdp))
    else:
        theta = draw(parameters_for(chosen, mdp.n_states, mdp.n_actions))
    return Example(mdp, (np.asarray(theta),), chosen)


@st.composite
def _game_examples(
    draw: st.DrawFn, problems: st.SearchStrategy[StochasticGame], policies: JointParametersFor
) -> Example:
    """A strategy for a game with both players' parameters."""
    game = draw(problems)
    return Example(game, tuple(np.asarray(theta) for theta in draw(policies(game))))
