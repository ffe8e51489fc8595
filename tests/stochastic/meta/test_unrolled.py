"""Meta-gradients of an unroll, by the sweep back, equal reverse mode through the whole loop."""

import numpy as np
import pytest
import torch

from gradbias.analytic.problems.mixing import Validation, mixing_weights
from gradbias.analytic.problems.reward_chains import ChainLearner, RewardChain
from gradbias.stochastic.meta.reward_chains import ChainRewards, chain_meta_gradients
from gradbias.stochastic.meta.unrolled import Unroll, monte_carlo_average, replayed
from tests.oracles.reward_chains import chain_target, every_outcome, unrolled_meta_gradients
from tests.oracles.tolerances import close

STEPS = 4
N_PARAMETERS = 10
HERE = np.linspace(-1.0, 1.0, 3)


def values_of(theta):
    """A network of three hidden units at three states: neither loss is quadratic in theta."""
    states = torch.tensor(HERE)[:, None]
    hidden = torch.tanh(states * theta[:3] + theta[3:6])
    return hidden @ theta[6:9] + theta[9]


def inner_loss(theta, eta, batch):
    targets = chain_target(torch.sigmoid(eta), batch)
    return ((targets - values_of(theta)) ** 2).mean()


def outer_loss(theta, batch):
    returns = batch.flip(-1).cumsum(-1).flip(-1)
    return ((returns - values_of(theta)) ** 2).mean()


def problem(seed=0):
    """(theta, eta, inner batches, outer batches)."""
    rng = np.random.default_rng(seed)
    tensors = [rng.normal(size=shape) for shape in (N_PARAMETERS, 3, (STEPS, 2, 3), (STEPS, 2, 3))]
    theta, eta, inner, outer = (torch.tensor(each) for each in tensors)
    return theta, eta, inner, outer


def whole_graph(theta, eta, inner, outer, *, step_size):
    """The i-step meta-gradients ``[n, 3]``, each by reverse mode through everything before it."""
    eta, found = eta.clone().requires_grad_(), []
    theta = theta.clone().requires_grad_()
    for j in range(STEPS):
        loss = inner_loss(theta, eta, inner[j])
        (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - step_size * slope
        judged = outer_loss(theta, outer[j])
        found.append(torch.autograd.grad(judged, eta, retain_graph=True)[0])
    return torch.stack(found).numpy()


def summed(theta, eta, inner, outer, *, step_size, factor, turned=False):
    """T sum_i (prod_{j<i} factor(H_{n-j})) N_{n-i}, with full Hessians, as App. D.1 prints it."""
    hessians, mixed = [], []
    for j in range(STEPS):
        slope = torch.func.grad(inner_loss)
        second = torch.func.jacrev(slope, argnums=(0, 1))(theta, eta, inner[j])
        hessians.append(-step_size * second[0])
        mixed.append(-step_size * second[1])
        theta = theta - step_size * slope(theta, eta, inner[j])
    product, total = torch.eye(N_PARAMETERS, dtype=torch.float64), 0.0
    for i in range(1, STEPS + 1):
        total = total + product @ mixed[STEPS - i]
        latest = factor(hessians[STEPS - i])
        product = latest @ product if turned else product @ latest
    return (torch.func.grad(outer_loss)(theta, outer[-1]) @ total).numpy()


def identity(matrix):
    return torch.eye(len(matrix), dtype=matrix.dtype)


def n_step(unroll, theta, eta, inner, outer):
    found = unroll.n_step(theta, eta, replayed(inner), replayed(outer[-1:]), steps=STEPS)
    return found.numpy()


@pytest.mark.parametrize("seed", range(3))
def test_the_sweep_back_is_reverse_mode_through_the_loop(seed):
    at = problem(seed)
    unroll = Unroll(inner_loss, outer_loss, 0.3)
    wanted = whole_graph(*at, step_size=0.3)
    found = n_step(unroll, *at)
    assert close(found, wanted[-1], 1.0)

    def printed(factor, turned=False):
        return summed(*at, step_size=0.3, factor=factor, turned=turned)

    assert close(found, printed(lambda h: identity(h) + h), 1.0)
    # Without the Hessians, with their sign turned, and in the other order it is not.
    assert not close(found, printed(identity), 1.0)
    assert not close(found, printed(lambda h: identity(h) - h), 1.0)
    assert not close(found, printed(lambda h: identity(h) + h, turned=True), 1.0)


@pytest.mark.parametrize("kappa", [None, 0.0, 0.6, 1.0])
def test_a_mix_from_one_unroll_is_the_mix_of_all_steps(kappa):
    theta, eta, inner, outer = problem(1)
    unroll = Unroll(inner_loss, outer_loss, 0.3)
    found = unroll.mixed(theta, eta, replayed(inner), replayed(outer), steps=STEPS, kappa=kappa)
    each = whole_graph(theta, eta, inner, outer, step_size=0.3)
    ratio = 0.75 if kappa is None else kappa
    wanted = sum(ratio**i * one for i, one in enumerate(each)) / sum(ratio**i for i in range(STEPS))
    assert close(found.numpy(), wanted, 1.0)
    assert not close(found.numpy(), each[-1], 1.0)
    assert close(found.numpy(), each[0], 1.0) is (kappa == 0.0)


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_the_trace_puts_mu_for_every_hessian(mu):
    at = problem(2)
    found = n_step(Unroll(inner_loss, outer_loss, 0.3, trace_decay=mu), *at)
    wanted = summed(*at, step_size=0.3, factor=lambda h: mu * identity(h))
    assert close(found, wanted, 1.0)
    assert not close(found, whole_graph(*at, step_size=0.3)[-1], 1.0)
    other = summed(*at, step_size=0.3, factor=lambda h: (mu + 1e-6) * identity(h))
    assert not close(found, other, 1.0)


CHAIN = ChainLearner(
    RewardChain([0.4, -0.3, 0.8], [0.5, 0.0, 1.0]),
    [0.9, 0.4, 0.6],
    [0.1, 0.2, -0.3],
    0.7,
    0.6,
    2,
    1,
)


def chain_unroll(trace_decay=None):
    """The reward chain's table of values, as a user would write its losses."""

    def weighed(gap):
        return CHAIN.loss_weight / 2 * (gap**2).sum(-1).mean()

    return Unroll(
        lambda values, gamma, batch: weighed(chain_target(gamma, batch) - values),
        lambda values, batch: weighed(batch.flip(-1).cumsum(-1).flip(-1) - values),
        CHAIN.step_size,
        trace_decay,
    )


@pytest.mark.parametrize("decay", [None, 0.8, "as the step"])
def test_on_the_reward_chain_it_is_the_vectorised_estimator(decay):
    if decay == "as the step":
        decay = CHAIN.contraction
    rng = np.random.default_rng(0)
    inner, outer = rng.normal(size=(3, 2, 3)), rng.normal(size=(3, 1, 3))
    table, gamma = (torch.tensor(np.array(x)) for x in (CHAIN.values, CHAIN.discounts))
    draws = replayed(torch.tensor(inner)), replayed(torch.tensor(outer))
    found = chain_unroll(decay).mixed(table, gamma, *draws, steps=3, kappa=0.5).numpy()
    rewards = ChainRewards(inner, outer)
    each = chain_meta_gradients(CHAIN, rewards, trace_decay=decay)
    assert close(found, mixing_weights(3, 0.5) @ each, 1.0)
    exact = mixing_weights(3, 0.5) @ chain_meta_gradients(CHAIN, rewards)
    assert close(found, exact, 1.0) is (decay != 0.8)


def test_batches_are_drawn_where_the_loop_has_come():
    """What on-policy data needs: theta_0..theta_{n-1} for the steps, theta_1..theta_n to judge."""
    theta, eta, inner, outer = problem(3)
    asked = {"inner": [], "outer": []}

    def recorded(name, batches):
        draw = replayed(batches)

        def draw_and_record(here):
            assert not here.requires_grad
            asked[name].append(here)
            return draw(here)

        return draw_and_record

    unroll = Unroll(inner_loss, outer_loss, 0.3)
    unroll.mixed(theta, eta, recorded("inner", inner), recorded("outer", outer), steps=STEPS)
    path = [theta]
    for batch in inner:
        path.append(path[-1] - 0.3 * torch.func.grad(inner_loss)(path[-1], eta, batch))
    torch.testing.assert_close(asked["inner"], path[:-1], rtol=1e-12, atol=0.0)
    torch.testing.assert_close(asked["outer"], path[1:], rtol=1e-12, atol=0.0)
    asked["outer"].clear()
    unroll.n_step(theta, eta, replayed(inner), recorded("outer", outer[-1:]), steps=STEPS)
    torch.testing.assert_close(asked["outer"], path[-1:], rtol=1e-12, atol=0.0)


def test_each_loss_is_called_once_a_step():
    theta, eta, inner, outer = problem(4)
    calls = {"inner": 0, "outer": 0}

    def counted(name, loss):
        def call(*arguments):
            calls[name] += 1
            return loss(*arguments)

        return call

    unroll = Unroll(counted("inner", inner_loss), counted("outer", outer_loss), 0.3)
    unroll.mixed(theta, eta, replayed(inner), replayed(outer), steps=STEPS)
    assert calls == {"inner": STEPS, "outer": STEPS}


def test_the_caller_s_tensors_and_gradient_mode_do_not_matter():
    theta, eta, inner, outer = problem(5)
    unroll = Unroll(inner_loss, outer_loss, 0.3)
    wanted = n_step(unroll, theta, eta, inner, outer)
    leaves = theta.clone().requires_grad_(), eta.clone().requires_grad_()
    with torch.no_grad():
        found = n_step(unroll, *leaves, inner, outer)
    np.testing.assert_array_equal(found, wanted)
    assert leaves[0].grad is None
    assert leaves[1].grad is None


def test_an_average_over_every_outcome_s_draws_is_the_mean():
    """Outcomes handed out in turn, as often as they are likely (in 36ths): their exact moments."""
    one = ChainLearner(RewardChain([0.4], [0.5]), [0.9], [0.1], batch_size=1, outer_batch_size=1)
    weights, inner, outer = every_outcome(one, 1, Validation.FRESH)
    each = np.repeat(np.arange(9), np.rint(36 * weights).astype(int))
    assert len(each) == 36
    estimates = unrolled_meta_gradients(one, inner, outer)[each, 0]
    left = iter(torch.tensor(estimates))
    found = monte_carlo_average(lambda: next(left), replications=36)
    assert close(found.mean.numpy(), estimates.mean(axis=0), 1.0)
    assert close(found.variance.numpy(), estimates.var(axis=0, ddof=1), 1.0)
    assert not close(found.variance.numpy(), estimates.var(axis=0), 1.0)
    assert close(found.standard_error.numpy() ** 2, estimates.var(axis=0, ddof=1) / 36, 1.0)


def test_bad_input_is_named():
    theta, eta, inner, outer = problem(6)

    def call(inner_function=inner_loss, outer_function=outer_loss, batches=inner, **settings):
        unroll = Unroll(inner_function, outer_function, 0.3)
        given = {"weights": [0.5, 0.5], **settings}
        return unroll.weighted(theta, eta, replayed(batches), replayed(outer), **given)

    def unmoved(theta, eta, batch):
        return (values_of(theta) ** 2).sum()

    bad = [
        (lambda: Unroll(inner_loss, outer_loss, np.inf), "step_size: expected a number"),
        (lambda: Unroll(inner_loss, outer_loss, 0.1, 1.5), "trace_decay: expected a number"),
        (lambda: call(weights=[]), "weights: expected one for each step"),
        (lambda: call(weights=[[1.0]]), "weights: expected shape"),
        (lambda: call(batches=inner[:1]), "batches: expected one for each draw, got fewer"),
        (lambda: call(lambda *_: 1.0), "inner_loss: expected a scalar tensor, got float"),
        (lambda: call(lambda t, e, b: t), r"inner_loss: expected a scalar tensor, got \(10,\)"),
        (lambda: call(lambda t, e, b: e.sum()), "inner_loss: expected a function of theta"),
        (lambda: call(lambda t, e, b: torch.zeros(())), "inner_loss: expected a function of theta"),
        (lambda: call(lambda t, e, b: t.sum() * np.nan), "inner_loss: expected a finite number"),
        (lambda: call(unmoved), "inner_loss: expected its gradient in theta to depend on eta"),
        (lambda: call(lambda t, e, b: t.sum()), "inner_loss: expected its gradient in theta to"),
        (lambda: call(outer_function=lambda t, b: b.sum()), "outer_loss: expected a function of"),
        (
            lambda: monte_carlo_average(lambda: eta, replications=1),
            "replications: expected an integer >= 2",
        ),
    ]
    for attempt, complaint in bad:
        with pytest.raises(ValueError, match=complaint):
            attempt()
