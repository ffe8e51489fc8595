"""Richardson and multilevel estimates: their exact mean and variance over all possible batches."""

import itertools
from functools import partial

import numpy as np
import pytest
from scipy.stats import binom

from gradbias.analytic.meta.bilevel import Maml
from gradbias.analytic.meta.compositional_bias import compositional_bias
from gradbias.analytic.moments.multisets import log_orders, multisets
from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.returns.derivatives import gradient, hvp
from gradbias.analytic.returns.evaluation import expected_return
from gradbias.stochastic.estimators.bias_reduction import Levels, Multilevel, richardson
from gradbias.stochastic.rollouts.trajectories import sample
from tests.cases.bandits import bandit
from tests.cases.checkout import ROOT

THETA = np.array([[-0.5, 0.0]])
STEP_SIZE = 2.0


def law():
    """The inner gradient's first component on the bandit, one value an action, and their
    probabilities."""
    mdp, policy = bandit(), softmax(THETA)[0]
    return np.array([1.0 - policy[0], -policy[0]]) * mdp.reward[0], policy


def adapted(batch, axis=-1):
    """The outer return and meta-gradient of a bandit after a step from a batch of estimates."""
    mean = np.asarray(batch).mean(axis=axis)
    move = np.stack([mean, -mean], axis=-1)[..., None, :]
    after = THETA + STEP_SIZE * move
    slope = gradient(bandit(), after)
    meta = slope + STEP_SIZE * hvp(bandit(), THETA, slope)
    return np.concatenate(
        [np.asarray(expected_return(bandit(), after))[..., None], meta[..., 0, :]], axis=-1
    )


def every_batch(blocks):
    """All batches ``[B, N]`` of the law that differ, each block sorted, and their weights."""
    values, probabilities = law()
    choices = [np.concatenate(list(multisets(2, n, 10_000))) for n in blocks]
    weights = [np.exp(log_orders(c) + np.log(probabilities)[c].sum(axis=1)) for c in choices]
    rows = list(itertools.product(*(range(len(c)) for c in choices)))
    each = np.array(rows).T
    batches = np.concatenate([c[i] for c, i in zip(choices, each, strict=True)], axis=1)
    chance = np.prod([w[i] for w, i in zip(weights, each, strict=True)], axis=0)
    assert chance.sum() == pytest.approx(1.0, abs=1e-12)
    return values[batches], chance


def moments(estimate, blocks):
    """Exact mean and second moment of an estimate ``(batches [B, N]) -> [B, ...]``."""
    batches, chance = every_batch(blocks)
    found = estimate(batches)
    return chance @ found, chance @ found**2


def truth():
    values, probabilities = law()
    return adapted(np.full(1, values @ probabilities))


def bias_of(order, n):
    blocks = [n // 2**order] * 2**order
    return moments(lambda x: richardson(adapted, x, order=order, axis=1), blocks)[0] - truth()


@pytest.mark.parametrize("order", [0, 1, 2])
def test_richardson_removes_terms_of_the_bias_one_by_one(order):
    """The bias falls like N^-(order + 1), as its slope in log N says; a wrong weight of the halves
    leaves N^-1."""
    sizes = {0: [64, 128, 256], 1: [64, 128, 256], 2: [32, 64]}[order]
    biases = np.abs([bias_of(order, n) for n in sizes])
    slopes = np.log2(biases[:-1] / biases[1:])
    assert np.abs(slopes[-1] - (order + 1)).max() < 0.25, slopes


def test_richardson_is_the_combination_that_it_says():
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(8, 3))
    square = lambda x: x.mean(axis=0) ** 2  # noqa: E731
    halves = (square(batch[:4]) + square(batch[4:])) / 2
    quarters = sum(square(batch[i : i + 2]) for i in (0, 2, 4, 6)) / 4
    full = square(batch)
    np.testing.assert_array_equal(richardson(square, batch, order=0), full)
    np.testing.assert_allclose(richardson(square, batch), 2 * full - halves, rtol=1e-14)
    second = (8 * full - 6 * halves + quarters) / 3
    np.testing.assert_allclose(richardson(square, batch, order=2), second, rtol=1e-12)


def at_level(plan, level, batches):
    return plan.at_level(adapted, batches, level, axis=1)


@pytest.mark.parametrize("form", list(Levels))
@pytest.mark.parametrize("base", [1, 3])
def test_the_multilevel_mean_is_that_of_the_largest_batch(form, base):
    """So what is left of the bias is a plain batch's of base 2^(levels) samples; weights that are
    not the levels' probabilities would leave more."""
    for largest in range(3):
        plan = Multilevel(base, largest_level=largest, form=form)
        wanted, _ = moments(adapted, [base * 2 ** (largest + 1)])
        other = Multilevel(base, 0.2, largest, form)
        mean, wrong = 0.0, 0.0
        for level in range(largest + 1):
            blocks = [base] * 2 ** (level + 1)
            found, _ = moments(partial(at_level, plan, level), blocks)
            mean = mean + plan.probabilities[level] * found
            wrong = wrong + other.probabilities[level] * found
        np.testing.assert_allclose(mean, wanted, rtol=1e-12, atol=1e-14)
        if largest:
            assert np.abs(wrong - wanted).max() > 1e-4


def by_a_tree(plan):
    """Exact mean and variance of the meta-gradient's multilevel estimate: of a batch's halves given
    how many of their samples are of the first kind, from the smallest parts up."""
    mean, second = 0.0, 0.0
    for level, chance in enumerate(plan.probabilities):
        law_of, first, square = merged_parts(weights_of_sizes(plan, level), plan.base)
        assert law_of.sum() == pytest.approx(1.0, abs=1e-12)
        mean, second = mean + chance * first.sum(), second + chance * square.sum()
    return mean, second - mean**2


def weights_of_sizes(plan, level):
    """What weighs f's mean over parts of base, 2 base, .. samples in the estimate."""
    weights = np.zeros(level + 2)
    weights[0] = 1.0
    single = plan.form is Levels.SINGLE_TERM
    for i in [level] if single else range(level + 1):
        chance = plan.probabilities[i] if single else plan.probabilities[i:].sum()
        weights[i + 1] += 1.0 / chance
        weights[i] -= 1.0 / chance
    return weights


def merged_parts(weights, base):
    """The law of a batch's count, with the estimate's first and second moments on it."""
    values, probabilities = law()

    def on_counts(n):
        k = np.arange(n + 1)
        return adapted((k * values[0] + (n - k) * values[1])[:, None] / n)[:, 1]

    chance = binom.pmf(np.arange(base + 1), base, probabilities[0])
    own = weights[0] * on_counts(base)
    parts = (chance, chance * own, chance * own**2)
    for i, weight in enumerate(weights[1:]):
        size = base * 2**i
        counts = np.add.outer(np.arange(size + 1), np.arange(size + 1))
        own = weight * on_counts(2 * size)[counts]
        p, m, s = parts
        joint = np.outer(p, p)
        half = (np.outer(m, p) + np.outer(p, m)) / 2
        both = (np.outer(s, p) + np.outer(p, s) + 2 * np.outer(m, m)) / 4
        tables = (joint, half + joint * own, both + 2 * own * half + joint * own**2)
        parts = tuple(np.bincount(counts.ravel(), table.ravel()) for table in tables)
    return parts


@pytest.mark.parametrize("form", list(Levels))
def test_the_multilevel_variance_is_that_over_all_batches(form):
    for base, largest in ((2, 1), (1, 2)):
        plan = Multilevel(base, 0.4, largest, form)
        mean, second = 0.0, 0.0
        for level, chance in enumerate(plan.probabilities):
            first, square = moments(partial(at_level, plan, level), [base] * 2 ** (level + 1))
            mean, second = mean + chance * first[1], second + chance * square[1]
        wanted = by_a_tree(plan)
        assert mean == pytest.approx(wanted[0], rel=1e-12)
        assert second - mean**2 == pytest.approx(wanted[1], rel=1e-10)


@pytest.mark.parametrize("form", list(Levels))
def test_a_level_more_halves_the_bias_for_little_cost_and_variance(form):
    """Base 4: from 4 levels to 8 the bias falls 16-fold, at 1.3 times the cost; a plain batch
    that is as little biased takes 1,024 samples where this takes 17."""
    few, many = Multilevel(4, largest_level=3, form=form), Multilevel(4, largest_level=7, form=form)
    wanted = truth()[1]
    (coarse, coarse_variance), (fine, variance) = by_a_tree(few), by_a_tree(many)
    assert (coarse - wanted) / (fine - wanted) == pytest.approx(16.0, rel=0.02)
    assert many.expected_samples < 1.3 * few.expected_samples < 18.0
    assert variance < 1.1 * coarse_variance
    # It is not for nothing: per sample it varies more than Richardson's estimate.
    mean, second = moments(lambda x: richardson(adapted, x, axis=1), [16, 16])
    assert variance * many.expected_samples > 1.3 * 32 * (second - mean**2)[1]
    # Rates at which differences are worth too little, or too much: variance, or cost, runs away.
    for rate, bounded in ((0.2, False), (2**-1.5, True), (0.6, False)):
        plans = [Multilevel(4, rate, largest, form) for largest in (3, 5, 7)]
        work = [by_a_tree(plan)[1] * plan.expected_samples for plan in plans]
        assert bool(work[2] - work[1] < work[1] - work[0]) is bounded


@pytest.mark.parametrize("n", [1, 5, 40])
def test_what_is_reduced_is_the_compositional_bias(n):
    found, _ = moments(adapted, [n])
    loop = {"steps": 1, "step_size": STEP_SIZE, "batch_size": n}
    wanted = compositional_bias(Maml(bandit()), THETA, **loop)
    gap = found - truth()
    assert gap[0] == pytest.approx(wanted.outer_return, rel=1e-9)
    np.testing.assert_allclose(gap[1:], wanted.meta_gradient[0], rtol=1e-9)


def test_differences_of_levels_fall_fast_enough():
    """Their second moments like 4^-l: variance and cost are finite for rates in (1/4, 1/2)."""
    seconds = []
    for level in range(2, 6):
        half = 4 * 2**level
        gap = lambda x: richardson(adapted, x, axis=1) - adapted(x)  # noqa: E731
        seconds.append(moments(gap, [half, half])[1])
    ratios = np.array(seconds[1:]) / seconds[:-1]
    assert np.abs(4 * ratios[-1] - 1).max() < 0.1


def on_trajectories(batch, axis):
    """The same, of the bandit's trajectories ``[..., N, 1]``."""
    policy = softmax(THETA)[0]
    estimates = np.where(batch.actions[..., 0] == 0, 1.0 - policy[0], -policy[0])
    return adapted(estimates * batch.rewards[..., 0], axis)


def test_batches_may_be_trajectories_with_replications():
    mdp, rng = bandit(), np.random.default_rng(0)
    batch = sample(mdp, THETA, 8, rng=rng, replications=3)
    evaluate = lambda one: on_trajectories(one, 1)  # noqa: E731
    found = richardson(evaluate, batch, order=2, axis=1)
    assert found.shape == (3, 3)
    plan = Multilevel(2, largest_level=1)
    several = plan.at_level(evaluate, batch, 1, axis=1)
    for i in range(3):
        single = lambda one: on_trajectories(one, 0)  # noqa: E731
        np.testing.assert_allclose(richardson(single, batch[i], order=2), found[i], rtol=1e-12)
        np.testing.assert_allclose(plan.at_level(single, batch[i], 1), several[i], rtol=1e-12)


def test_levels_are_drawn_with_their_probabilities():
    """4,000 draws, fixed seed; a false alarm has probability 3e-4 (four levels, 4 deviations)."""
    plan = Multilevel(2, 0.4, 3)
    rng = np.random.default_rng(1)
    drawn = [plan(lambda x: x.sum(), np.ones, rng=rng) for _ in range(4000)]
    levels = np.bincount([one.level for one in drawn], minlength=4) / 4000
    spread = np.sqrt(plan.probabilities * (1 - plan.probabilities) / 4000)
    assert (np.abs(levels - plan.probabilities) < 4 * spread).all()
    assert all(one.samples == 2 ** (one.level + 2) for one in drawn)
    mean = np.mean([one.samples for one in drawn])
    assert mean == pytest.approx(plan.expected_samples, rel=0.1)


def test_bad_input_is_named():
    batch = np.ones(8)
    mean = np.mean
    bad = [
        (lambda: richardson(mean, batch, order=-1), "order: expected an integer"),
        (lambda: richardson(mean, batch[:6], order=2), "batch: expected a multiple of 4 samples"),
        (lambda: richardson(mean, batch[:0], order=1), "batch: expected a multiple of 2 samples"),
        (lambda: Multilevel(0), "base: expected an integer"),
        (lambda: Multilevel(1, 1.0), "rate: expected a number"),
        (lambda: Multilevel(largest_level=61), "largest_level: expected at most 60"),
        (lambda: Multilevel(1).at_level(mean, batch, 1), "batch: expected 4 samples, got 8"),
        (lambda: Multilevel(1, 0.3, 1).at_level(mean, batch, 2), "level: expected at most 1"),
        (
            lambda: Multilevel(1)(mean, lambda n: np.ones(3), rng=np.random.default_rng(0)),
            "batch: expected",
        ),
    ]
    for call, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            call()


GUIDE = ROOT / "docs" / "guide.md"


def measured_rows():
    """Cost, bias and variance of the meta-gradient in the guide's table, row by row."""
    for order, n in ((0, 8), (0, 256), (1, 32), (2, 64)):
        blocks = [n // 2**order] * 2**order
        first, second = moments(lambda x, k=order: richardson(adapted, x, order=k, axis=1), blocks)
        yield n, first[1] - truth()[1], second[1] - first[1] ** 2
    plan = Multilevel(4, largest_level=7)
    mean, variance = by_a_tree(plan)
    yield plan.expected_samples, mean - truth()[1], variance


def test_the_guides_table_is_what_is_measured():
    section = GUIDE.read_text().split("| estimator | cost | bias | variance x cost |")[1]
    rows = [line.split("|")[2:5] for line in section.splitlines()[2:7]]
    for row, (cost, bias, variance) in zip(rows, measured_rows(), strict=True):
        printed = [float(cell) for cell in row]
        assert abs(printed[0] / cost - 1) < 0.01
        assert abs(printed[1] / bias - 1) < 0.05
        assert abs(printed[2] / (cost * variance) - 1) < 0.03
