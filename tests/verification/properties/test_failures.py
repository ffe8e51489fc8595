"""What a failed property names, how small it is, and what is no property at all."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.stochastic.estimators.kinds import from_callable, from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.confidence.norm_intervals import Spread
from gradbias.verification.diagnosis.diagnose import diagnose, diagnose_all
from gradbias.verification.diagnosis.matching import Case, Cases, Explanation
from gradbias.verification.evidence.setting import Setting
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.properties.arguments import growing_sizes
from gradbias.verification.properties.failures import diagnosed
from gradbias.verification.properties.for_all import for_all_mdps
from gradbias.verification.properties.ledgers import Ledger
from gradbias.verification.properties.search import Example, Search
from gradbias.verification.properties.simplest_problems import simplest_problems
from gradbias.verification.properties.strategies import linear_policies
from tests.cases.failed_properties import failure, pasted

SMALL = {"max_states": 2, "max_actions": 2, "max_horizon": 2}


def weights(record):
    return record.discount ** torch.arange(record.rewards.shape[1], dtype=torch.float64)


def to_go(record):
    """gamma^t times the reward-to-go of step t."""
    return (weights(record) * record.rewards).flip(1).cumsum(1).flip(1)


def scored(record, credit):
    return (credit * record.log_probs).sum(1).mean()


def along(record, logs):
    """Each reward times the ratio of those log-probabilities."""
    ratio = torch.exp(logs - logs.detach())
    return (ratio * weights(record) * record.rewards).sum(1).mean()


def reversed_path(record):
    return along(record, record.log_probs.flip(1).cumsum(1).flip(1))


def half_crossed(record):
    return (dice(record) + lvc(record)) / 2


def mean_over_steps(record):
    return dice(record) / record.rewards.shape[1]


UNKNOWN = "no known error gives this mean, on all"
NAMED = {
    "credit without its sign": (1, lambda r: scored(r, to_go(r).abs()), UNKNOWN),
    "credit 2 R + 1": (1, lambda r: scored(r, 2 * to_go(r) + 1), "is that of 2 times the target,"),
    "the whole path, reversed": (2, reversed_path, UNKNOWN),
    "half of the cross term": (2, half_crossed, UNKNOWN),
    "AD": (
        2,
        ad,
        "is that of derivatives of scores alone, as AD keeps them: no distribution term,",
    ),
    "LVC": (2, lvc, "is that of terms of one step alone, as LVC keeps them: no cross term,"),
    "a mean over steps": (2, mean_over_steps, "is that of a mean over the steps, not a sum,"),
    "a factor too many": (
        1,
        lambda r: r.discount * scored(r, to_go(r)),
        "is that of steps that count gamma^(t + 1): the target times gamma,",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_a_mistake_is_named_only_if_it_is_one_on_other_problems_too(name):
    """The first four have, on the smallest problem, the mean of a mistake that they do not make."""
    order, surrogate, said = NAMED[name]
    text = failure(for_all_mdps(surrogate, order=order, max_states=2))
    (line,) = [line for line in text.splitlines() if line.startswith("  diagnosis")]
    assert said in line, text
    assert re.search(r"on all [2-9] problems compared", line)


def measured_at(surrogate, order, mdp, theta):
    return measure_bias(from_surrogate(surrogate, order=order), mdp, theta)


def test_what_fits_one_problem_alone_is_no_explanation_of_two():
    """The reversed path has LVC's mean where only the first step has a choice that matters."""
    first = TabularMDP([[[1, 0], [0, 1]], [[1, 0]] * 2], [[1, 0], [0, 0]], 1.0, [1, 0], 2)
    rng = np.random.default_rng(0)
    rows, reward = rng.dirichlet([1, 1], size=(2, 2)), rng.normal(size=(2, 2))
    second = TabularMDP(rows, reward, 0.8, [0.5, 0.5], 2)
    thetas = np.zeros((2, 2)), rng.normal(size=(2, 2))
    cases = [
        measured_at(reversed_path, 2, mdp, at)
        for mdp, at in zip((first, second), thetas, strict=True)
    ]
    assert "LVC" in [m.name for m in diagnose(cases[0]).matches]
    assert diagnose_all(cases).matches == ()
    twins = [measured_at(lvc, 2, mdp, at) for mdp, at in zip((first, second), thetas, strict=True)]
    assert [m.name for m in diagnose_all(twins).matches] == ["LVC"]


def test_a_fitted_number_is_one_number_for_all_problems():
    cases = []
    for seed, factor in ((0, 0.37), (1, 0.37), (2, 0.4)):
        rng = np.random.default_rng(seed)
        rows, theta = rng.dirichlet([1, 1], size=(2, 2)), rng.normal(size=(2, 2))
        mdp = TabularMDP(rows, rng.normal(size=(2, 2)), 0.8, [0.5, 0.5], 2)
        cases.append(measured_at(lambda r, factor=factor: factor * ad(r), 1, mdp, theta))
    (found,) = diagnose_all(cases[:2]).matches
    assert found.name == "pure scale"
    assert abs(found.fitted - 0.37) < 1e-12
    assert diagnose_all(cases).matches == ()


def test_what_a_sampled_mean_explains_does_not_depend_on_the_batch_it_is_reported_for():
    """An estimator that couples no trajectories is drawn one at a time, whatever N: the same draws,
    and the same values within reach, of a spread with the trace 1/8 (half of the estimates are
    +-1/2, the others 0); sqrt(8) times more or less is the broken twin."""
    mdp, theta = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1), np.zeros((1, 2))
    cases = []
    for n in (1, 8):
        options = {"evidence": "sampling", "budget": 4000, "rng": np.random.default_rng(0)}
        report = measure_bias(from_surrogate(dice, order=1), mdp, theta, batch_size=n, **options)
        cases.append(Case.of(report))
    one, eight = cases
    np.testing.assert_array_equal(one.report.mean, eight.report.mean)
    away = np.array([[1.0, -1.0]]) / np.sqrt(2.0)

    def reach(case):
        sizes = np.linspace(0.0, 0.2, 2001)
        return sizes[[case.explained_by(case.report.mean + x * away) for x in sizes]].max()

    spread, rate = Spread(0.125, 0.125), one.report.false_alarm
    ends = [spread.interval(x, 4000, rate).low for x in np.linspace(0.0, 0.2, 2001)]
    assert reach(one) == pytest.approx(
        np.linspace(0.0, 0.2, 2001)[np.array(ends) == 0.0].max(), rel=0.02
    )
    assert reach(one) == reach(eight)
    assert one.unit == pytest.approx(np.sqrt(2.0) / 4)


def test_a_failure_is_explained_with_the_critic_that_it_was_measured_with():
    """A return bootstrapped with the critic after the last step, unlike any mistake without one."""
    rng = np.random.default_rng(0)
    rows, theta = rng.dirichlet([1, 1], size=(2, 2)), rng.normal(size=(2, 2))
    mdp, critic = TabularMDP(rows, rng.normal(size=(2, 2)), 0.8, [0.5, 0.5], 2), rng.normal(size=2)

    def bootstrapped(record):
        left = record.discount ** torch.arange(2, 0, -1)
        return scored(record, to_go(record) + weights(record) * left * record.values[:, -1:])

    report = measure_bias(from_surrogate(bootstrapped, order=1), mdp, theta, critic=critic)
    found = diagnosed(report, [])
    assert "bootstrapped with given values" in found[0], found
    without = replace(report, setting=Setting.of(mdp, theta))
    assert "no known error" in diagnosed(without, [])[0]


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        ((3, 2, 4), [(1, 2, 1), (2, 2, 2), (3, 2, 3), (3, 2, 4)]),
        ((1, 3, 1), [(1, 2, 1), (1, 3, 1)]),
        ((1, 2, 1), [(1, 2, 1)]),
    ],
)
def test_problems_grow_to_the_largest_that_is_asked_for(largest, expected):
    assert growing_sizes(*largest) == expected


def test_a_mean_of_zero_is_nothing_and_no_multiple_of_the_target():
    rng = np.random.default_rng(0)
    rows, theta = rng.dirichlet([1, 1], size=(2, 2)), rng.normal(size=(2, 2))
    mdp = TabularMDP(rows, rng.normal(size=(2, 2)), 0.8, [0.5, 0.5], 3)
    past = measured_at(lambda r: scored(r, r.rewards.cumsum(1) - r.rewards), 1, mdp, theta)
    assert [m.name for m in diagnose_all([past]).matches] == ["zero"]


def test_nothing_simpler_is_passed_over():
    """All plain problems of fewer states are tried before those of more, and itself ends it."""
    rows = [[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]
    found = Example(TabularMDP(rows, np.ones((2, 2)), 0.9, [0.5, 0.5], 2), (np.ones((2, 2)),))
    tried = [example.problem for example in simplest_problems(found)]
    sizes = [(mdp.n_states, mdp.n_actions, mdp.horizon) for mdp in tried]
    assert sizes == sorted(sizes)
    assert {size[:1] for size in sizes} == {(1,), (2,)}
    plain = [mdp for mdp, size in zip(tried, sizes, strict=True) if size == (2, 2, 2)]
    assert len({mdp.transition.tobytes() for mdp in plain}) == 16
    assert all(mdp.discount == 1.0 and np.abs(mdp.reward).sum() == 1.0 for mdp in plain)
    assert {float(mdp.reward.sum()) for mdp in plain} == {1.0, -1.0}
    first = next(simplest_problems(found))
    assert list(simplest_problems(first)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("surrogate", "states"), [(mean_over_steps, 1), (half_crossed, 2), (lvc, 2), (reversed_path, 2)]
)
def test_the_smallest_problem_is_the_plainest_of_its_size(surrogate, states):
    """As it was not, in three of five searches, while Hypothesis alone made it smaller."""
    for _ in range(2):
        names = pasted(failure(for_all_mdps(surrogate, order=2, **SMALL)))
        mdp, theta = names["mdp"], np.array(names["theta"])
        assert (mdp.n_states, mdp.n_actions, mdp.horizon, mdp.discount) == (states, 2, 2, 1.0)
        assert mdp.start[0] == 1.0
        assert theta.any() == (states == 1)
        found = Example(mdp, (theta,))
        for example in simplest_problems(found):
            report = measure_bias(
                from_surrogate(surrogate, order=2), example.problem, example.parameters[0]
            )
            assert report.verdict.value != "BIASED"


@pytest.mark.parametrize("most", [1, 2, 3])
def test_few_sampled_examples_do_not_spend_more_than_one_claim(most, no_control):
    ledger = Ledger()
    options = {"evidence": "sampling", "budget": 200}
    property_ = for_all_mdps(dice, options=options, max_examples=most, min_informative_share=0.0)
    with pytest.raises(AssertionError, match="problems were informative"):
        property_(ledger)
    (claim,) = ledger.claims
    assert 0 < sum(claim.evidence.values()) <= most
    assert 0.0 < ledger.spent <= Ledger().next_rate() * (1 + 1e-12)


@pytest.mark.slow
def test_a_sampled_failure_says_how_it_was_drawn():
    options = {"evidence": "sampling", "budget": 5_000}
    text = failure(for_all_mdps(ad, order=2, options=options, max_examples=20, **SMALL))
    assert "note        compared on this problem alone" in text
    seed = int(re.search(r"rng=np.random.default_rng\((\d+)\)", text)[1])
    names = pasted(text)
    rate = Ledger().next_rate() / 20
    again = measure_bias(
        from_surrogate(ad, order=2),
        names["mdp"],
        names["theta"],
        rng=np.random.default_rng(seed),
        false_alarm=rate,
        **options,
    )
    assert str(again) in text


def test_an_estimator_that_raises_holds_nothing_and_says_where():
    def breaks(record):
        if record.rewards.shape[1] > 1 and bool((record.rewards < 0).any()):
            raise RuntimeError("no losses please")
        return dice(record)

    ledger = Ledger()
    with pytest.raises(ValueError, match="no losses please") as caught:
        for_all_mdps(breaks, order=1)(ledger)
    (claim,) = ledger.claims
    assert not claim.held
    names = pasted("\n".join(caught.value.__notes__) + "\n\n")
    assert (names["mdp"].horizon, names["mdp"].n_states) == (2, 1)
    with pytest.raises(ValueError, match="no losses please"):
        measure_bias(from_surrogate(breaks, order=1), names["mdp"], names["theta"])


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (lambda batch, theta: np.full_like(theta, np.nan), "expected finite numbers"),
        (lambda batch, theta: np.zeros(7), "expected shape"),
        (lambda batch, theta: np.random.normal(size=theta.shape), "two values for one batch"),
    ],
)
def test_estimates_that_are_none_are_refused_with_the_problem(estimate, said):
    ledger = Ledger()
    with pytest.raises(ValueError, match=said) as caught:
        for_all_mdps(from_callable(estimate, order=1), max_examples=10)(ledger)
    assert "mdp = TabularMDP(" in "\n".join(caught.value.__notes__)
    assert not ledger.claims[0].held


@pytest.mark.parametrize(
    "wrong",
    [
        {"options": {"false_alarm": 0.3}},
        {"options": {"nonsense": 1}},
        {"options": 3},
        {"options": lambda mdp, theta: None},
        {"options": lambda mdp, theta: {"target": None}},
        {"target": "the gradient"},
        {"problems": 3},
        {"policies": 3},
        {"problems": st.nothing(), "max_states": 2},
        {"estimator": None},
        {"estimator": from_surrogate(lvc, order=1), "order": 2},
    ],
    ids=lambda wrong: " ".join(wrong),
)
def test_what_is_no_part_of_a_property_is_refused_in_one_sentence(wrong):
    given = {"estimator": lvc, "max_examples": 3} | wrong
    with pytest.raises(ValueError, match=r"expected|false_alarm") as caught:
        for_all_mdps(given.pop("estimator"), **given)(Ledger())
    assert "\n" not in str(caught.value)


def test_in_a_class_the_missing_staticmethod_is_named():
    class Tests:
        test_it = for_all_mdps(lvc)

    with pytest.raises(ValueError, match="in a class, make the test a staticmethod"):
        Tests().test_it()


def test_policies_that_are_not_tabular_are_drawn_and_printed():
    ledger = Ledger()
    for_all_mdps(dice, order=2, policy=linear_policies, max_examples=20, **SMALL)(ledger)
    assert ledger.claims[0].held
    names = pasted(failure(for_all_mdps(ad, order=2, policy=linear_policies, **SMALL)))
    policy, mdp = names["policy"], names["mdp"]
    assert policy.parameter_shape(mdp.n_states, mdp.n_actions) == (1,)
    report = measure_bias(from_surrogate(ad, order=2), mdp, names["theta"], policy=policy)
    # -J F: half a unit of return, times the Fisher information of one feature, a quarter.
    assert abs(report.bias.item() + 1 / 8) < 1e-15


def test_examples_that_differ_in_one_thing_are_not_taken_for_each_other():
    """What was measured is looked up by it: a table, the policy's features, or a step more."""
    mdp = TabularMDP(np.full((2, 2, 2), 0.5), [[1.0, 0.0], [0.0, 0.0]], 1.0, [1.0, 0.0], 1)
    theta = np.array([0.5])
    features = [np.reshape(f, (2, 2, 1)) for f in ([1.0, 0, 0, 0], [0, 1.0, 0, 0])]
    first = Example(mdp, (theta,), LinearSoftmax(features[0]))
    others = [
        Example(mdp, (theta,), LinearSoftmax(features[1])),
        Example(mdp, (2 * theta,), first.policy),
    ]
    for change in (
        {"discount": 0.5},
        {"horizon": 2},
        {"reward": -mdp.reward},
        {"start": np.array([0.0, 1.0])},
        {"transition": mdp.transition * [0.5, 1.5]},
    ):
        others.append(Example(replace(mdp, **change), (theta,), first.policy))
    digests = {example.digest for example in (first, *others)}
    assert len(digests) == len(others) + 1
    assert Example(mdp, (theta.copy(),), LinearSoftmax(features[0])).digest == first.digest


def test_an_explanation_is_as_far_off_as_where_it_is_worst():
    rng = np.random.default_rng(0)
    rows, theta = rng.dirichlet([1, 1], size=(2, 2)), rng.normal(size=(2, 2))
    mdp = TabularMDP(rows, rng.normal(size=(2, 2)), 0.8, [0.5, 0.5], 2)
    reports = measured_at(dice, 1, mdp, theta), measured_at(ad, 1, mdp, 0.5 * theta)
    cases = Cases(tuple(Case.of(report) for report in reports))
    values = tuple(
        (1 + x) * case.report.mean for x, case in zip((0.1, 0.3), cases.all, strict=True)
    )
    for order in (1, -1):
        turned = Cases(cases.all[::order])
        one = Explanation("", "", values[::order])
        assert turned.residual(one) == pytest.approx(0.3, rel=1e-12)
        assert not turned.explained_by(one)


def test_a_claim_found_what_its_worst_example_would_have_shown():
    """Three sampled problems: the largest of their detectable biases, and the rate of each."""
    sizes = iter((0.2, 0.7, 0.3))
    mdp = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1)

    def measure(example, rate):
        exact = measure_bias(from_surrogate(dice, order=1), mdp, example.parameters[0])
        return replace(exact, interval=(0.0, 0.1), smallest_detectable=next(sizes))

    search = Search("dice", measure, max_examples=3, rate=1e-3)
    for tilt in range(3):
        search.check(Example(mdp, (np.array([[float(tilt), 0.0]]),)))
    claim = search.claim(0.25)
    assert (claim.smallest_detectable, claim.held) == (0.7, True)
    assert claim.spent == pytest.approx(3e-3)


def test_no_more_examples_are_measured_than_share_the_rate():
    mdp = TabularMDP([[[1.0]] * 2], [[1.0, 0.0]], 1.0, [1.0], 1)
    measured = []

    def measure(example, rate):
        measured.append(example)
        return measure_bias(
            from_surrogate(dice, order=1), mdp, example.parameters[0], false_alarm=rate
        )

    search = Search("dice", measure, max_examples=2, rate=1e-3)
    for tilt in range(4):
        search.check(Example(mdp, (np.array([[float(tilt), 0.0]]),)))
    assert len(measured) == search.examples == 2
