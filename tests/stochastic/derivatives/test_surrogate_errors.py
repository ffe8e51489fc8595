"""What a surrogate must not do, and the sentence for each."""

import random
from functools import partial

import numpy as np
import pytest
import torch

from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.derivatives.coefficients import SurrogateError
from gradbias.stochastic.estimators.kinds import from_surrogate
from gradbias.stochastic.surrogates.score_function import ad
from gradbias.verification.measurement.measure import measure_bias

MDP = TabularMDP.random(2, 2, rng=np.random.default_rng(0), discount=0.9, horizon=2)
OWN_GENERATOR = np.random.default_rng(0)


def score(record):
    return (record.log_probs * record.rewards).sum()


def in_place(record):
    record.rewards.mul_(2.0)
    return score(record)


def in_place_on_a_leaf(record):
    record.log_probs.mul_(2.0)
    return score(record)


def through_data(record):
    record.log_probs.data.add_(1.0)
    return score(record)


def through_numpy(record):
    record.rewards.numpy()[...] = 0.0
    return score(record)


def in_place_now_and_then(record):
    """Only where vmap must loop, and only on some outcomes."""
    if record.actions.sum().item() == 2:
        record.rewards.zero_()
    return score(record)


def by_attribute(record):
    record.discount = 0.5
    return score(record)


def by_meta(record):
    record.meta["x"] = 1
    return score(record)


def own_draws(record):
    return score(record) * OWN_GENERATOR.normal()


def own_draws_in_the_derivative_alone(record):
    value = score(record)
    return value.detach() + 2 * OWN_GENERATOR.random() * (value - value.detach())


def torch_draws_in_backward(record):
    leaf = record.log_probs * 1.0
    leaf.register_hook(lambda g: g * torch.rand_like(g))
    return (leaf * record.rewards).sum()


def hook_raises(record):
    leaf = record.log_probs * 1.0
    leaf.register_hook(lambda g: 1 / 0)
    return (leaf * record.rewards).sum()


def draws_for_several(record):
    noise = torch.rand(()) if len(record.rewards) > 1 else 0.0
    return score(record) / len(record.rewards) + noise * record.log_probs.sum()


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def unspeakable(record):
    raise UnspeakableError


def raising(record):
    raise KeyError("no such thing")


def raising_later(record):
    if record.actions.sum().item() == 2:
        raise ZeroDivisionError("on one outcome")
    return score(record)


class BreaksBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sum()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no derivative is known")


BAD = {
    "not a tensor": (lambda r: 1.0, "returned a float; expected a scalar torch tensor"),
    "nothing": (lambda r: None, "returned a NoneType"),
    "not a scalar": (lambda r: r.log_probs, r"returned shape \(1, 2\); expected a scalar"),
    "one entry": (lambda r: score(r).reshape(1), r"returned shape \(1,\)"),
    "integer": (lambda r: score(r).long(), "returned torch.int64; expected a floating-point"),
    "detached": (lambda r: score(r).detach(), "returned a tensor detached from record.log_probs"),
    "constant": (lambda r: r.rewards.sum(), "returned a tensor detached"),
    "nan": (lambda r: score(r) * float("nan"), "returned nan; expected a finite number"),
    "infinite": (lambda r: score(r) / 0.0, "expected a finite number"),
    "infinite derivative": (
        lambda r: torch.sqrt((r.log_probs - r.log_probs.detach()).abs().sum() + 0.0) + score(r),
        "derivative of order 1 that is not finite",
    ),
    "raises": (raising, "raised KeyError: 'no such thing' .*test_surrogate_errors.py, line"),
    "raises later": (raising_later, "raised ZeroDivisionError: on one outcome"),
    "breaks backward": (
        lambda r: BreaksBackward.apply(r.log_probs),
        "(raised|could not be differentiated).*no derivative is known",
    ),
    "torch draws": (lambda r: score(r) * torch.rand(()), "drew random numbers"),
    "numpy draws": (lambda r: score(r) * np.random.rand(), "drew random numbers"),
    "python draws": (lambda r: score(r) * random.random(), "drew random numbers"),
    "own draws": (own_draws, "two values for one record"),
    "own draws, in the derivative": (own_draws_in_the_derivative_alone, "two derivatives for one"),
    "torch draws in backward": (torch_draws_in_backward, "drew random numbers"),
    "hook raises": (hook_raises, "could not be differentiated: raised ZeroDivisionError"),
    "draws for several": (draws_for_several, "drew random numbers"),
    "unspeakable": (unspeakable, "raised UnspeakableError: an error that cannot be shown"),
    "own parameter": (
        lambda r: torch.ones((), dtype=torch.float64, requires_grad=True) * r.rewards.sum(),
        "returned a tensor detached from record.log_probs",
    ),
    "in place": (in_place, "changed record.rewards in place"),
    "in place on a leaf": (in_place_on_a_leaf, "changed its record in place"),
    "through data": (through_data, "changed record.log_probs in place"),
    "through numpy": (through_numpy, "changed record.rewards in place"),
    "in place now and then": (in_place_now_and_then, "changed record.rewards in place"),
    "by attribute": (by_attribute, "changed its record"),
    "by meta": (by_meta, "raised TypeError: 'mappingproxy'"),
    "wrong arguments": (lambda a, b: a, "raised TypeError"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_surrogate_is_refused_with_what_it_did(name):
    function, complaint = BAD[name]
    with pytest.raises(SurrogateError, match=complaint) as caught:
        measure_bias(from_surrogate(function, order=1, name="mine"), MDP, np.zeros((2, 2)))
    assert str(caught.value).startswith("surrogate mine: ")
    assert "\n" not in str(caught.value)


def test_meta_parameters_are_data_too():
    meta = {"x": torch.ones(1, dtype=torch.float64)}

    def changing(record):
        record.meta["x"].mul_(2.0)
        return score(record) * record.meta["x"].sum()

    with pytest.raises(SurrogateError, match=r"changed record\.meta\['x'\] in place"):
        measure_bias(
            from_surrogate(changing, order=1), MDP, np.zeros((2, 2)), batch_size=1, meta=meta
        )
    assert meta["x"].item() == 1.0
    with pytest.raises(ValueError, match="meta: expected torch tensors"):
        measure_bias(from_surrogate(score, order=1), MDP, np.zeros((2, 2)), meta={"x": 1.0})
    scaled = from_surrogate(lambda r: r.meta["x"].sum() * ad(r), order=1)
    assert measure_bias(scaled, MDP, np.zeros((2, 2)), meta=meta).verdict.value == "UNBIASED"


def test_a_good_surrogate_is_not_refused():
    """The broken twin of the test above: the same checks let what is clean pass."""
    for function in (ad, score, partial(score)):
        estimator = from_surrogate(function, order=1, name="mine")
        assert measure_bias(estimator, MDP, np.zeros((2, 2)), batch_size=1).samples == 16


def test_an_early_exit_on_some_trajectories_is_no_error():
    def early(record):
        if record.rewards.sum().item() < 1.0:
            return torch.zeros((), dtype=torch.float64)
        return score(record)

    report = measure_bias(from_surrogate(early, order=1), MDP, np.zeros((2, 2)), batch_size=1)
    assert report.verdict.value == "BIASED"


def test_what_vmap_takes_may_depend_on_n():
    def item_of_several(record):
        total = record.rewards.sum(-1)
        baseline = total.mean().item() if len(total) > 1 else 0.0
        return ((total - baseline) * record.log_probs.sum(-1)).mean()

    report = measure_bias(
        from_surrogate(item_of_several, order=1), MDP, np.zeros((2, 2)), batch_size=2
    )
    assert report.coupled
    assert any("looped" in note for note in report.notes)


def test_global_generators_are_left_alone():
    torch.manual_seed(0)
    before = torch.rand(3)
    torch.manual_seed(0)
    measure_bias(from_surrogate(ad, order=2), MDP, np.zeros((2, 2)))
    assert torch.equal(before, torch.rand(3))
