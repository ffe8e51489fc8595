"""Remarks on *One Step at a Time*."""

from tests.errata.records import ONE_STEP_PAPER, Erratum, Kind

DEVIATIONS = {"3-step": 4.6, "3-mix": 1.7, "5-step": 8.6, "5-mix": 2.6}
"""Table 1: the meta-gradient's standard deviation, divided by that of one step."""


def mixed_deviations():
    found = {}
    for n in (3, 5):
        ratio = DEVIATIONS[f"{n}-step"] / DEVIATIONS[f"{n}-mix"]
        found[f"standard deviation, {n} steps over {n}-mix"] = ratio
        found[f"its square, {n} steps over {n}-mix"] = ratio**2
    return found


def underbraced_sign():
    """Loss (theta - eta)^2 / 2, two steps of 1/2: d theta_2 / d eta by the recursion of App. D.1,
    with the derivatives of alpha times the loss's gradient and of minus that."""
    alpha, found = 0.5, {}
    for name, sign in (("with the minus sign in f", -1.0), ("with f as underbraced", 1.0)):
        slope = 0.0
        for _ in range(2):
            slope = (1.0 + sign * alpha) * slope - sign * alpha
        found[f"d theta_2 / d eta {name}"] = slope
    eps, ends = 0.5, []
    for eta in (eps, -eps):
        theta = 0.0
        for _ in range(2):
            theta -= alpha * (theta - eta)
        ends.append(theta)
    return {"d theta_2 / d eta, exact": (ends[0] - ends[1]) / (2.0 * eps)} | found


ERRATA = (
    Erratum(
        title="Variance and standard deviation",
        paper=ONE_STEP_PAPER,
        where="abstract and Sec. 3.5",
        kind=Kind.NOTATION,
        printed='mixing cuts "the variance by a factor of 3"',
        holds=(
            "the numbers of Table 1 are standard deviations, as its row says; the variance falls "
            "by about 7 for n = 3 and 11 for n = 5, so that the effect is larger than claimed"
        ),
        elsewhere="Table 1",
        example="from the rounded numbers of Table 1, which are averages over four meta-parameters",
        numbers=mixed_deviations,
    ),
    Erratum(
        title="The sign of f",
        paper=ONE_STEP_PAPER,
        where="App. D.1",
        kind=Kind.NOTATION,
        printed="f is the underbraced alpha times the loss's gradient, without the minus before it",
        holds="f includes the minus sign",
        elsewhere="eq. (11), and H and N at the end of the proof, have it",
        example="loss (theta - eta)^2 / 2, alpha = 1/2, n = 2",
        numbers=underbraced_sign,
    ),
)
