"""What a sequential measurement refuses, what it says when it is stopped, and by what a checkpoint
is known."""

import numpy as np
import pytest
import torch

from gradbias.analytic.returns.derivatives import gradient
from gradbias.stochastic.estimators.kinds import from_callable, from_draws, from_surrogate
from gradbias.stochastic.surrogates.dice import dice
from gradbias.stochastic.surrogates.score_function import ad, lvc
from gradbias.verification.confidence.scaled_sequences import Method
from gradbias.verification.evidence.reasons import Reason
from gradbias.verification.evidence.reports import Verdict
from gradbias.verification.measurement.measure import measure_bias
from gradbias.verification.sequential.checkpoints import save_checkpoint
from gradbias.verification.sequential.functionals import ControlVariate
from gradbias.verification.sequential.measure import measure_bias_sequentially
from gradbias.verification.sequential.plan import Plan
from gradbias.verification.sequential.stream import Stopped
from tests.oracles import brute_force as oracles

MDP = oracles.random_mdp(0, horizon=3, n_states=3, n_actions=2)
THETA = np.random.default_rng(1).normal(size=(3, 2))
PLAIN = from_surrogate(lambda record: 1.0 * ad(record), order=1)
SCORE = from_surrogate(lambda record: record.log_probs.sum(-1).mean(), order=1, name="score")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounds": 3}, r"bounds: expected \(low, high\), got 3"),
        ({"bounds": (1, 2, 3)}, r"bounds: expected \(low, high\), got \(1, 2, 3\)"),
        ({"bounds": (np.zeros(4), 1)}, r"bounds: expected shape \(3, 2\) or a number, got \(4,\)"),
        ({"bounds": (np.zeros((1, 2)), 1)}, r"bounds: expected shape \(3, 2\) or a number"),
        ({"second_moment": np.zeros(4)}, r"second_moment: expected shape \(3, 2\) or a number"),
        ({"second_moment": [[1.0, 2.0]]}, r"second_moment: expected shape \(3, 2\) or a number"),
        ({"second_moment": 0.0}, "second_moment: expected at least E.x.2. of component"),
        ({"bounds": (-9, 9), "second_moment": 1.0}, "bounds: not used by method truncated"),
        ({"bounds": (-9, 9), "method": "asymptotic"}, "bounds: not used by method asymptotic"),
        ({"second_moment": 1, "method": "asymptotic"}, "second_moment: not used by method asymp"),
        ({"control": 3}, "control: expected a ControlVariate, got 3"),
        ({"control": SCORE}, "control: expected a ControlVariate, got SurrogateEstimator"),
        ({"control": ControlVariate(SCORE, "x")}, "control mean: expected real numbers"),
        ({"control": ControlVariate(SCORE, None)}, "control mean: expected real numbers"),
        ({"control": ControlVariate(SCORE, np.nan)}, "control mean: expected finite numbers"),
        (
            {"control": ControlVariate(SCORE, np.zeros((2, 3)))},
            r"control mean: expected shape \(3, 2\) or a number, got \(2, 3\)",
        ),
        ({"rng": 5}, "rng: expected a numpy Generator, got 5"),
        ({"checkpoint": 3}, "checkpoint: expected a path, got 3"),
        ({"checkpoint": "no/such/folder/run.npz"}, "checkpoint: .* is in no folder that exists"),
        ({"projections": 10**7}, "projections: expected at most"),
    ],
)
def test_bad_input_is_refused_by_its_name(options, message):
    with pytest.raises(ValueError, match=message):
        measure_bias_sequentially(PLAIN, MDP, THETA, budget=2000, **options)


def test_numbers_of_numpy_are_numbers(tmp_path):
    options = {"tolerance": np.float32(0.1), "projections": np.int64(3), "budget": np.int64(1200)}
    for _ in range(2):
        report = measure_bias_sequentially(
            PLAIN, MDP, THETA, checkpoint=tmp_path / "a.npz", **options
        )
    assert report.samples == 1200


def interrupted(monkeypatch, at, estimator, **options):
    """The report of a run that is interrupted while it draws block number ``at``."""
    drawn, block = [], Plan.block

    def interrupting(self, draws, count):
        drawn.append(count)
        if len(drawn) > at:
            raise KeyboardInterrupt
        return block(self, draws, count)

    monkeypatch.setattr(Plan, "block", interrupting)
    return measure_bias_sequentially(estimator, MDP, THETA, **options)


@pytest.mark.parametrize("method", ["asymptotic", "betting"])
def test_without_a_block_nothing_is_said_of_the_estimator(monkeypatch, method):
    """It was VACUOUS: "the estimator is 0 on every sampled trajectory", of none."""
    report = interrupted(monkeypatch, 0, from_surrogate(ad, order=1), method=method)
    assert (report.samples, report.stopped) == (0, Stopped.INTERRUPTED)
    assert report.verdict is Verdict.UNDECIDED
    assert "no estimate was drawn" in report.sentence()
    assert report.samples_to_decide is None


def test_an_interrupted_normal_mean_is_not_judged_early(monkeypatch):
    """A bias of 100% is plain in 10,000 estimates: they are fewer than a tenth of a million."""
    twice = from_surrogate(lambda record: 2 * lvc(record), order=1)
    options = {"method": "asymptotic", "tolerance": 0.01}
    report = interrupted(monkeypatch, 5, twice, budget=1_000_000, **options)
    assert report.samples == 5 * 2048
    assert report.verdict is Verdict.UNDECIDED
    assert report.reason is Reason.TOO_FEW_ESTIMATES
    monkeypatch.undo()
    report = interrupted(monkeypatch, 5, twice, budget=100_000, **options)
    assert report.verdict is Verdict.BIASED


@pytest.mark.parametrize("method", ["betting", "asymptotic"])
def test_the_number_of_samples_that_would_decide_is_about_right(method, no_control):
    """An unbiased estimator's mean lies beyond a tolerance of 0.1% by chance: the interval's width
    says how far the run is from a decision, not its lower end, which is 0."""
    options = {"tolerance": 1e-3, "budget": 8192, "method": method}
    report = measure_bias_sequentially(from_surrogate(dice, order=1), MDP, THETA, **options)
    assert report.half_width > 0.03
    assert report.samples_to_decide is None or report.samples_to_decide > 1e5
    # And of a bias that is there: at four times the number it is found.
    biased = from_surrogate(lambda record: 1.05 * ad(record), order=1)
    options |= {"tolerance": 0.01}
    options |= {"bounds": (-8, 8)} if method == "betting" else {}
    few = measure_bias_sequentially(biased, MDP, THETA, **options)
    assert few.verdict is Verdict.UNDECIDED
    assert 8192 < few.samples_to_decide < 1e6
    options["budget"] = 4 * few.samples_to_decide
    report = measure_bias_sequentially(biased, MDP, THETA, **options)
    assert report.verdict is Verdict.BIASED


def test_given_bounds_are_of_what_a_control_variate_leaves():
    """They are not widened by the control's own range."""
    control = ControlVariate(from_surrogate(dice, order=1), gradient(MDP, THETA))
    options = {"bounds": (-1.0, 1.0), "budget": 1200, "tolerance": 1e-3}
    report = measure_bias_sequentially(
        from_surrogate(lambda r: 1.5 * ad(r), order=1), MDP, THETA, control=control, **options
    )
    plain = from_callable(lambda batch, theta: np.zeros((3, 2)), order=1)
    zero = measure_bias_sequentially(plain, MDP, THETA, **options)
    width = (report.component_high - report.component_low).max()
    assert width < 1.2 * (zero.component_high - zero.component_low).max()


def test_a_second_moment_is_of_one_trajectory_s_estimate_and_says_so():
    """Estimates that do not interact are sampled one at a time, whatever N the report is for."""
    report = measure_bias_sequentially(
        PLAIN, MDP, THETA, second_moment=1.0, batch_size=10, budget=2000
    )
    assert "one trajectory" in report.assumption


def scaled_last(factor):
    """A Hessian that only depends on the factor where the last state is visited."""

    def surrogate(record):
        last = torch.as_tensor(record.states[..., :-1] == 5)
        return (torch.where(last, factor, 1.0) * record.rewards * record.log_probs).sum(-1).mean()

    return from_surrogate(surrogate, order=2, name="mine")


def test_a_checkpoint_is_not_taken_for_another_s(tmp_path):
    """Controls and their means, estimates that draw, and what only late components show."""
    draw_one, draw_two = (
        from_draws(
            lambda draw, theta, c=c: c + np.full((3, 2), draw(theta, 1).rewards.sum()), order=1
        )
        for c in (0.0, 7.0)
    )
    right = gradient(MDP, THETA)
    by_mean = [ControlVariate(from_surrogate(dice, order=1), mean) for mean in (right, 2 * right)]
    first_step = from_surrogate(lambda r: r.log_probs[..., 0].mean(), order=1, name="score")
    by_estimator = [ControlVariate(SCORE), ControlVariate(first_step)]
    large = oracles.random_mdp(3, horizon=2, n_states=6, n_actions=2)
    cases = (
        ("draws", MDP, (draw_one, draw_two), ({}, {}), "estimates"),
        ("mean", MDP, (PLAIN, PLAIN), [{"control": c} for c in by_mean], "control"),
        ("control", MDP, (PLAIN, PLAIN), [{"control": c} for c in by_estimator], "control"),
        ("late", large, (scaled_last(1.0), scaled_last(50.0)), ({}, {}), "estimates"),
    )
    for name, mdp, estimators, options, differs in cases:
        path = tmp_path / f"{name}.npz"
        theta = np.zeros((mdp.n_states, 2))
        if mdp is MDP:
            theta = THETA
        settings = {"budget": 800, "tolerance": 1e-4, "checkpoint": path}
        first = measure_bias_sequentially(estimators[0], mdp, theta, **settings, **options[0])
        again = measure_bias_sequentially(estimators[0], mdp, theta, **settings, **options[0])
        assert again.samples == first.samples
        with pytest.raises(ValueError, match=f"another measurement .*{differs}.* differ"):
            measure_bias_sequentially(estimators[1], mdp, theta, **settings, **options[1])
    path = tmp_path / "bare.npz"
    save_checkpoint(path, {}, {})
    with pytest.raises(ValueError, match="is of another measurement"):
        measure_bias_sequentially(PLAIN, MDP, THETA, budget=800, checkpoint=path)


def test_a_control_without_a_known_range_leaves_no_range():
    """LVC has one; what a score takes off it may be of any size."""
    options = {"budget": 2000, "tolerance": 0.5}
    alone = measure_bias_sequentially(from_surrogate(lvc, order=1), MDP, THETA, **options)
    assert alone.method is Method.BETTING
    score = ControlVariate(SCORE, 0.0)
    beside = measure_bias_sequentially(
        from_surrogate(lvc, order=1), MDP, THETA, control=score, **options
    )
    assert beside.method is Method.ASYMPTOTIC
    with pytest.raises(ValueError, match="betting needs the range of"):
        measure_bias_sequentially(
            from_surrogate(lvc, order=1), MDP, THETA, control=score, method="betting", **options
        )


def test_a_control_that_does_not_vary_is_left_alone():
    """Its regression would be a quotient of roundings: the range would be lost with it."""
    flat = oracles.random_mdp(0, horizon=1, n_states=2, n_actions=2)
    constant = from_surrogate(ad, order=2)
    theta = np.array([[0.3, -0.2], [1.0, 0.5]])
    mean = measure_bias(constant, flat, theta).mean
    options = {"budget": 4000, "tolerance": 0.5, "method": "betting"}
    plain = measure_bias_sequentially(from_surrogate(lvc, order=2), flat, theta, **options)
    control = ControlVariate(constant, mean)
    helped = measure_bias_sequentially(
        from_surrogate(lvc, order=2), flat, theta, control=control, **options
    )
    assert helped.method is Method.BETTING
    assert helped.half_width < 1.5 * plain.half_width


@pytest.mark.parametrize("measure", [measure_bias_sequentially, measure_bias])
def test_the_samples_that_would_decide_are_those_of_a_bias_that_the_sentence_names(
    measure, no_control
):
    """Of one unbiased estimator they differ by orders of magnitude from run to run, with the bias
    that chance shows: without it the number promises what it does not keep."""
    options = {"tolerance": 1e-3, "budget": 4096}
    if measure is measure_bias:
        options["evidence"] = "sampling"
    seen = []
    for seed in range(8):
        report = measure(
            from_surrogate(ad, order=1), MDP, THETA, rng=np.random.default_rng(seed), **options
        )
        assert report.verdict is Verdict.UNDECIDED
        assert f"if the bias is {report.relative_bias:.3g} (here 4,096)" in report.sentence()
        seen.append((report.relative_bias, report.samples_to_decide))
    least, most = (end(needed for _, needed in seen) for end in (min, max))
    assert most > 100 * least
