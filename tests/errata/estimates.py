"""Remarks on estimates and experiments: ratios, labels, the measure of bias, DiCE's gradient."""

import itertools
import math

import numpy as np
import torch

from gradbias.analytic.policies.softmax import softmax
from gradbias.analytic.problems.games import memory_one_game
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.returns.derivatives import gradient, hessian
from gradbias.analytic.returns.evaluation import expected_return
from gradbias.analytic.returns.game_derivatives import game_values
from tests.errata.records import BIAS_PAPER, Erratum, Kind, relative


def dilemma_labels():
    own = np.array([[-2.0, 0.0], [-3.0, -1.0]])
    printed = memory_one_game(np.stack([own, own.T]))
    zero, one = np.full(5, 800.0), np.full(5, -800.0)
    return {
        "both play action 0, called cooperation: value": game_values(printed, zero, zero)[0],
        "both play action 1, called defection: value": game_values(printed, one, one)[0],
        "action 0 against action 1: value": game_values(printed, zero, one)[0],
        "action 1 against action 0: value": game_values(printed, one, zero)[0],
    }


def off_policy_ratios():
    """Gradients of the surrogates, summed over all trajectories of three steps."""
    rng = np.random.default_rng(1)
    mdp = TabularMDP.random(3, 2, rng=rng, discount=0.9, horizon=3)
    theta, behaviour = rng.normal(size=(2, 3, 2))
    pi, mu, exact = softmax(theta), softmax(behaviour), gradient(mdp, theta)
    means = {name: np.zeros((3, 2)) for name in ("product", "step", "law")}
    for walk in itertools.product(itertools.product(range(2), range(3)), repeat=3):
        state, by_pi, by_mu, ratio, total = 0, 1.0, 1.0, 1.0, 0.0
        score, steps, product = np.zeros((3, 3, 2))
        for t, (action, following) in enumerate(walk):
            by_pi *= pi[state, action] * mdp.transition[state, action, following]
            by_mu *= mu[state, action] * mdp.transition[state, action, following]
            own = np.zeros((3, 2))
            own[state] = np.eye(2)[action] - pi[state]
            single, paid = pi[state, action] / mu[state, action], mdp.reward[state, action]
            ratio, score, steps = ratio * single, score + own, steps + single * own
            product += mdp.discount**t * paid * ratio * score
            total, state = total + mdp.discount**t * paid, following
        means["product"] += by_mu * product
        means["step"] += by_mu * total * steps
        means["law"] += by_pi * total * steps
    return {
        "under mu, product of the ratios up to t, times the reward at t": relative(
            means["product"], exact
        ),
        "under mu, ratio of each step, times the return": relative(means["step"], exact),
        "under pi, ratio of each step, times the return (as printed)": relative(
            means["law"], exact
        ),
    }


TRIALS = 10  # of the scripts that make Fig. 2a to 2c


def published_measure():
    """Two arms: over all batches of 10 trials of an unbiased estimator, one trajectory each; then
    for the meta-gradient after one sampled step of N trajectories, all else exact."""
    bandit = TabularMDP(np.ones((1, 2, 1)), [[1.0, -0.5]], 0.9, [1.0], horizon=1)
    theta = np.array([[0.9, -0.3]])
    p, exact = softmax(theta)[0], gradient(bandit, theta)[0]
    estimates = np.array([1.0, -0.5])[:, None] * (np.eye(2) - p)
    means = sampled_means(estimates, TRIALS)
    variance = p @ ((estimates - exact) ** 2).sum(axis=1)
    found = {
        "bias, policy gradient": float(np.linalg.norm(p @ estimates - exact)),
        "the measure's expectation, policy gradient": binomial(p[0], TRIALS)
        @ ((means - exact) ** 2).mean(axis=1),
        "variance / (10 d), policy gradient": variance / (TRIALS * 2),
    }
    step, factor = 3.0, np.eye(2) + 3.0 * hessian(bandit, theta).reshape(2, 2)
    wanted = factor @ gradient(bandit, theta + step * exact)[0]
    for n in (2, 32, 256):
        chance, steps = binomial(p[0], n), sampled_means(estimates, n)
        after = np.array([factor @ gradient(bandit, theta + step * s)[0] for s in steps])
        bias = chance @ after - wanted
        spread = chance @ ((after - chance @ after) ** 2).sum(axis=1) / TRIALS
        found[f"share of variance in the measure, meta-gradient, N = {n}"] = float(
            spread / (bias @ bias + spread)
        )
    return found


def binomial(p, n):
    """The chances of n, n - 1, .. 0 times the first of two arms."""
    return np.array([math.comb(n, k) * p**k * (1.0 - p) ** (n - k) for k in range(n, -1, -1)])


def sampled_means(values, n):
    """The means of n of two ``values``, as `binomial` orders them."""
    counts = np.arange(n, -1, -1)[:, None]
    return (counts * values[0] + (n - counts) * values[1]) / n


def dice_gradient():
    """DiCE's gradient by autograd on every trajectory, beside both estimates written out."""
    rng = np.random.default_rng(2)
    mdp = TabularMDP.random(2, 2, rng=rng, discount=0.9, horizon=3)
    theta = rng.normal(size=(2, 2))
    pi, exact = softmax(theta), gradient(mdp, theta)
    squares = dict.fromkeys(("to go", "total", "to go, variance", "total, variance"), 0.0)
    powers = mdp.discount ** np.arange(3)
    for walk in itertools.product(range(2), repeat=7):
        states, actions = np.array(walk[:4]), np.array(walk[4:])
        chance = mdp.start[states[0]] * np.prod(pi[states[:3], actions])
        chance *= np.prod(mdp.transition[states[:3], actions, states[1:]])
        paid = powers * mdp.reward[states[:3], actions]
        scores = np.zeros((3, 2, 2))
        scores[np.arange(3), states[:3]] = np.eye(2)[actions] - pi[states[:3]]
        leaf = torch.tensor(theta, requires_grad=True)
        logs = torch.log_softmax(leaf, -1)[states[:3], actions].cumsum(0)
        (torch.tensor(paid) * torch.exp(logs - logs.detach())).sum().backward()
        to_go = np.tensordot(paid[::-1].cumsum()[::-1], scores, axes=1)
        total = paid.sum() * scores.sum(axis=0)
        for name, off in (
            ("to go", leaf.grad.numpy() - to_go),
            ("total", leaf.grad.numpy() - total),
            ("to go, variance", to_go - exact),
            ("total, variance", total - exact),
        ):
            squares[name] += chance * float((off**2).sum())
    return {
        "DiCE to sum_t gamma^t G_t score_t (reward-to-go), root mean square distance": math.sqrt(
            squares["to go"]
        ),
        "DiCE to R sum_t score_t (Williams), root mean square distance": math.sqrt(
            squares["total"]
        ),
        "variance with rewards-to-go": squares["to go, variance"],
        "variance with the total return": squares["total, variance"],
    }


def steps_of_a_return():
    """The returns of H and of H + 1 steps."""
    found = {}
    for label, steps in (("up to t = H - 1", 3), ("up to t = H, as printed", 4)):
        mdp = TabularMDP([[[1.0]]], [[1.0]], 1.0, [1.0], horizon=steps)
        found[f"sum {label}"] = float(expected_return(mdp, [[0.0]]))
    return found


ERRATA = (
    Erratum(
        title="Off-policy ratios",
        paper=BIAS_PAPER,
        where="Sec. 4.4",
        kind=Kind.WRONG,
        printed="the expectation under p(tau; theta) of sum_t pi/mu(a_t|s_t) R_phi(tau)",
        holds=(
            "the expectation under mu, from which the samples are, and the product of all ratios "
            "up to t, times the reward at t"
        ),
        elsewhere="Sec. 5.2 prints that product, in off-policy DiCE (and leaves the law open)",
        example="three states, three steps; errors of the surrogates' gradients, relative",
        numbers=off_policy_ratios,
    ),
    Erratum(
        title="The dilemma's labels",
        paper=BIAS_PAPER,
        where="App. I.2.1",
        kind=Kind.WRONG,
        printed='with R1 = [[-2, 0], [-3, -1]], action 0 is "cooperation" and action 1 "defection"',
        holds=(
            "action 0 is defection: it pays more whatever the other player does, and both do worse "
            "if both take it; only the labels are swapped"
        ),
        elsewhere="the payoffs and the social optimum (-1, -1) are right",
        example="discount 0.96; player 1's discounted sums",
        numbers=dilemma_labels,
    ),
    Erratum(
        title="The measure of bias in Fig. 2",
        paper=BIAS_PAPER,
        where="Sec. 5.1, Fig. 2, and its code",
        kind=Kind.WRONG,
        printed=(
            'the figure shows the "pure meta-gradient bias term"; the published code takes for it '
            "the mean squared distance from the mean of some trials to the exact value (Table 2: "
            "20 trials; the script of Fig. 2c, as those of 2a and 2b: 10)"
        ),
        holds=(
            "with 10 trials and d parameters, the expectation of that is "
            "(|bias|^2 + variance / 10) / d, which is not 0 for an unbiased estimator; in the "
            "example most of it is variance"
        ),
        example=(
            "two arms with rewards 1 and -0.5, 10 trials: the policy gradient from one trajectory; "
            "then MAML's meta-gradient, with one sampled step of size 3, all else exact"
        ),
        numbers=published_measure,
    ),
    Erratum(
        title="DiCE's gradient, called REINFORCE",
        paper=BIAS_PAPER,
        where="App. I.1.3",
        kind=Kind.NOTATION,
        printed=(
            'DiCE\'s "first-order gradient corresponds to the REINFORCE algorithm [38]" (Williams '
            "1992)"
        ),
        holds=(
            "it is REINFORCE with rewards-to-go and without a baseline, as Sutton and Barto, [32], "
            "define it; that of Williams multiplies the sum of all scores by the total return, as "
            "Sec. 3 does"
        ),
        example="two states, three steps, all trajectories",
        numbers=dice_gradient,
    ),
    Erratum(
        title="The last step of a return",
        paper=BIAS_PAPER,
        where="Sec. 3",
        kind=Kind.NOTATION,
        printed="the return and the sum of scores run from t = 0 to H",
        holds="they end at H - 1, as a trajectory (s_0, a_0, .., s_(H-1), a_(H-1), s_H) has no a_H",
        elsewhere="Secs. 4.4, 5.2 and 5.3 sum to H - 1",
        example="H = 3, a reward of 1 in every step, no discount",
        numbers=steps_of_a_return,
    ),
)
