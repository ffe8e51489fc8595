"""Choices are given as enumeration members or as their values, and are members afterwards."""

from dataclasses import replace

import numpy as np
import pytest

from gradbias.analytic.problems.mixing import Validation
from gradbias.analytic.problems.reward_chains import ChainLearner, RewardChain
from gradbias.analytic.utils.validation import choice
from gradbias.stochastic.estimators.bias_reduction import Levels, Multilevel
from gradbias.stochastic.meta.inner_loops import SampledLoop
from gradbias.stochastic.meta.maml_variants import maml
from gradbias.stochastic.meta.reward_chains import draw_chain_rewards
from gradbias.stochastic.meta.slots import Reuse
from gradbias.stochastic.surrogates.group_relative import Baseline, GroupRelative, Length
from gradbias.stochastic.surrogates.off_policy import OffPolicyDice, Ratio
from gradbias.stochastic.surrogates.score_function import AD, LVC, Reduction
from tests.oracles import brute_force as oracles

MDP = oracles.random_mdp(0, horizon=2, n_states=2, n_actions=2)
META = maml(
    SampledLoop(MDP, starts_at_meta=True),
    steps=1,
    step_size=0.1,
    batch_size=2,
    outer_batch_size=2,
)

CHOICES = [
    (OffPolicyDice(), "ratio", Ratio),
    (AD(), "reduction", Reduction),
    (LVC(), "reduction", Reduction),
    (GroupRelative(), "baseline", Baseline),
    (GroupRelative(), "length", Length),
    (Multilevel(), "form", Levels),
    (META, "reuse", Reuse),
]


@pytest.mark.parametrize(("record", "field", "kind"), CHOICES)
def test_a_choice_may_be_a_member_or_its_value_and_is_a_member_afterwards(record, field, kind):
    for member in kind:
        by_value, by_member = (replace(record, **{field: c}) for c in (member.value, member))
        assert getattr(by_value, field) is getattr(by_member, field) is member
    known = ", ".join(member.value for member in kind)
    for wrong in ("everything", None, 3):
        with pytest.raises(ValueError, match=f"^{field}: expected one of {known}, got {wrong!r}$"):
            replace(record, **{field: wrong})


def test_values_are_the_members_names():
    for _, _, kind in CHOICES:
        assert [member.value for member in kind] == [member.name.lower() for member in kind]


def test_validation_of_a_chain_may_be_given_by_value():
    chain = RewardChain(np.arange(3.0), np.ones(3))
    learner = ChainLearner(chain, np.full(3, 0.5), np.zeros(3), batch_size=2, outer_batch_size=2)
    for member in Validation:
        one, other = (
            draw_chain_rewards(
                learner, 2, rng=np.random.default_rng(0), replications=1, validation=given
            )
            for given in (member, member.value)
        )
        np.testing.assert_array_equal(one.outer, other.outer)
    with pytest.raises(ValueError, match="validation: expected one of"):
        draw_chain_rewards(
            learner, 2, rng=np.random.default_rng(0), replications=1, validation="none"
        )


def test_what_cannot_be_a_member_is_named():
    assert choice("ratio", Ratio.PER_STEP, Ratio) is choice("ratio", "per_step", Ratio)
    with pytest.raises(ValueError, match=r"ratio: expected one of .*, got \[\]"):
        choice("ratio", [], Ratio)
