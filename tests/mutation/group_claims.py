"""What is claimed of the group losses, and of the penalties that they take."""

from dataclasses import replace

import numpy as np
import torch

from gradbias.analytic.problems.targets import GivenTarget
from gradbias.analytic.returns.derivatives import gradient
from tests.mutation.claims import (
    biased,
    built,
    check_close,
    defined,
    fact,
    frozen,
    is_default,
    refused,
    unbiased,
)
from tests.mutation.definitions import Group, penalties
from tests.mutation.problems import record_of, setting, softmax, walks
from tests.oracles import brute_force as oracles

NAMES = {"k1": "k1", "k2": "k2", "k3": "k3", "negative entropy": "negative_entropy"}
COEFFICIENT = 0.3


def each_step(record):
    """A penalty of 1 for every step, dead ones included: whoever sums it must leave those out."""
    return torch.ones_like(record.rewards)


def _made(baseline="LEAVE_ONE_OUT", length="NONE", penalty=None, **options):
    """A group loss; ``penalty`` is (kind, as_loss)."""

    def make(world):
        chosen = None
        if penalty is not None:
            kind, as_loss = penalty
            step = each_step if kind == "each step" else getattr(world, NAMES[kind])
            chosen = world.Penalty(step, COEFFICIENT, *((True,) if as_loss else ()))
        return world.GroupRelative(
            getattr(world.Baseline, baseline),
            length=getattr(world.Length, length),
            penalty=chosen,
            **options,
        )

    return make


def _penalised(kind, as_loss, **definition):
    """Both the loss and its definition, with a penalty."""
    return (
        _made(penalty=(kind, as_loss)),
        Group(penalty=(kind, COEFFICIENT, as_loss), **definition),
    )


def _call(make, *group):
    return lambda world: make(world)(record_of("group", group))


def _nothing_alive(world):
    for length in ("NONE", "TRAJECTORY", "GROUP"):
        record = record_of("group", walks("group")[:2])
        record = replace(record, alive=torch.zeros_like(record.alive))
        check_close(float(_made(length=length)(world)(record).detach()), 0.0)


def _alone(world):
    """One trajectory is a group, where neither others nor a deviation are asked for."""
    walk = walks("far group")[0]
    for baseline, name in (("NONE", "none"), ("GROUP_MEAN", "mean")):
        found = float(_made(baseline)(world)(record_of("far group", [walk])).detach())
        check_close(found, Group(name)([walk])[0])


def _log_ratios():
    """``[S, A]``: log pi - log pi_ref, 0 at the end."""
    where = setting("reference")
    gaps = np.log(softmax(where.theta)) - np.log(softmax(where.reference))
    return np.where(where.mdp.terminal[:, None], 0.0, gaps)


def _of_penalties(charge):
    """The gradient of the undiscounted sum of a charge ``[S, A]`` for each step, held fixed."""
    where = setting("reference")
    return gradient(replace(where.mdp, reward=charge, discount=1.0), where.theta)


def _along_visits(slopes):
    """Each state's slopes ``[S, A]``, times how often it is visited."""
    where = setting("reference")
    undiscounted = replace(where.mdp, discount=1.0)
    visits = oracles.per_step_quantities(undiscounted, where.theta)[3].sum(axis=0)
    return np.where(where.mdp.terminal[:, None], 0.0, visits[:, None] * slopes)


def _mean_gradients(kind, as_loss):
    """What the penalty adds to the mean gradient: in closed form, of divergences and entropies."""
    where, x = setting("reference"), _log_ratios()
    pi, ref = softmax(where.theta), softmax(where.reference)
    forms = {
        ("k1", False): lambda: _of_penalties(x),
        ("k1", True): lambda: 0.0,
        ("k2", False): lambda: _of_penalties(x**2 / 2),
        ("k2", True): lambda: _along_visits(pi * (x - (pi * x).sum(axis=1, keepdims=True))),
        ("k3", False): lambda: _of_penalties(np.exp(-x) - 1 + x),
        ("k3", True): lambda: _along_visits(pi - ref),
        ("negative entropy", False): lambda: _of_penalties(
            np.where(where.mdp.terminal[:, None], 0.0, np.log(pi))
        ),
        ("negative entropy", True): lambda: 0.0,
    }
    return forms[kind, as_loss]()


def _less_penalty(kind, as_loss):
    """The target of a penalised loss."""
    where = setting("reference")
    added = COEFFICIENT * _mean_gradients(kind, as_loss)
    value = gradient(where.mdp, where.theta) - added
    return GivenTarget(f"the gradient of the return less that of {kind}", value)


def _penalised_mean(kind, as_loss):
    make, _ = _penalised(kind, as_loss)
    return unbiased(make, "reference", n=2, target=lambda: _less_penalty(kind, as_loss))


_PLAIN = walks("group")[0]

GROUP_RELATIVE = [
    *unbiased(lambda world: world.rloo, "group", n=2),
    *unbiased(lambda world: world.rloo, "one step", n=3),
    *unbiased(_made("NONE"), "group"),
    *biased(lambda world: world.dr_grpo, "group", n=2, scale=1 / 2),
    *biased(lambda world: world.dr_grpo, "one step", n=3, scale=2 / 3),
    *biased(lambda world: world.grpo, "group", n=2),
    *_penalised_mean("k1", False),
    *_penalised_mean("k2", True),
    *defined(lambda world: world.rloo, Group(), "far group", n=2),
    *defined(lambda world: world.rloo, Group(), "one step", (1,), n=3),
    *defined(_made("NONE", clip=0.2), Group("none", clip=0.2), "far group"),
    *defined(_made("NONE", clip=1.5), Group("none", clip=1.5), "far group", (1,)),
    *defined(_made("GROUP_MEAN"), Group("mean"), "one step", (1,), n=3),
    *defined(
        lambda world: world.grpo,
        Group("mean", normalise=True, length="own", clip=0.2),
        "far group",
        (1,),
        n=2,
    ),
    *defined(_made(normalise=True), Group(normalise=True), "one step", (1,), n=3),
    *defined(_made(length="GROUP"), Group(length="group"), "far group", (1,), n=2),
    *defined(lambda world: world.dr_grpo, Group("mean", clip=0.2), "far group", (1,), n=2),
    *defined(*_penalised("k2", False), "far group", (1,), n=2),
    *defined(*_penalised("k2", True), "far group", (1,), n=2),
    *defined(*_penalised("each step", False), "far group", (1,), n=2),
    *defined(*_penalised("each step", True), "far group", (1,), n=2),
    *frozen(lambda world: world.GroupRelative()),
    *frozen(lambda world: world.Penalty(each_step, 0.1)),
    *is_default("rloo", "GroupRelative"),
    *fact(_nothing_alive),
    *fact(_alone),
    *refused(_call(_made(), _PLAIN), "expected a group of at least 2, got 1"),
    *refused(_call(_made("NONE", normalise=True), _PLAIN), "expected a group of at least 2, got 1"),
    *built(_made(clip=0.5)),
    *refused(_made(clip=0.0), "clip: expected a positive number, got 0"),
    *refused(_made(clip=-1.0), "clip: expected a positive number, got -1"),
]


def _values(kind):
    """The step penalties of a record, and their first two derivatives in log pi."""

    def check(world):
        group = [walks("reference")[k] for k in (0, 1, -1)]
        record = record_of("reference", group)
        found = getattr(world, NAMES[kind])(record)
        wanted = [np.array(part) for part in zip(*(penalties(w, kind) for w in group), strict=True)]
        check_close(found.detach().numpy(), wanted[0])
        (slopes,) = torch.autograd.grad(found.sum(), record.log_probs, create_graph=True)
        live = record.alive
        check_close((slopes.detach() * live).numpy(), wanted[1])
        if slopes.requires_grad:
            (bends,) = torch.autograd.grad(slopes.sum(), record.log_probs)
            check_close((bends * live).numpy(), wanted[2])
        else:
            check_close(0.0 * wanted[2], wanted[2])

    return check


def _of_one(kind):
    found = []
    for as_loss in (False, True):
        make, definition = _penalised(kind, as_loss)
        found += _penalised_mean(kind, as_loss)
        found += defined(make, definition, "far group", (1, 2) if kind == "k3" else (1,), n=2)
    return [*found, *fact(_values(kind))]


def _without_reference(world, kind):
    return getattr(world, kind)(record_of("group", [_PLAIN]))


PENALTIES = {
    kind: [
        *_of_one(kind),
        *(
            refused(
                lambda world, kind=kind: _without_reference(world, kind),
                "reference: expected a reference policy for a KL penalty, got none",
            )
            if kind != "negative entropy"
            else ()
        ),
    ]
    for kind in NAMES
}
