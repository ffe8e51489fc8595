"""The exact execution of tensor operations agrees with torch's."""

import math
import warnings
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.nn import functional

from gradbias.stochastic.derivatives.coefficients import SurrogateError
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.tracing.interpretation import Paths, UnfitError, interpret
from gradbias.stochastic.tracing.polynomials import exponents, is_plain, symbol
from gradbias.stochastic.tracing.tensors import ExactTensor
from gradbias.stochastic.tracing.trace import RefusedError, Trace

SHAPE = (2, 3, 4)


def both(function):
    """A function's results on symbols, evaluated at random numbers, and on the numbers."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=SHAPE)
    trace = Trace()
    symbols = np.empty(SHAPE, dtype=object)
    for i, place in enumerate(np.ndindex(SHAPE)):
        symbols[place] = symbol(i, 1)
    with trace.running():
        exact = ExactTensor(symbols, torch.float64, {"rewards"})
        results = function(exact)
    assert not trace.refusals
    at = numbers.ravel()
    wanted = function(torch.from_numpy(numbers.copy()))
    if not isinstance(results, list | tuple):
        results, wanted = [results], [wanted]
    found = [np.vectorize(lambda n: evaluated(n, at), otypes=[float])(r.array) for r in results]
    return found, [w.numpy() for w in wanted], [r.dtype for r in results]


def evaluated(number, at):
    if is_plain(number):
        return float(number)
    return sum(
        float(coefficient) * math.prod(at[i] ** e for i, e in exponents(monomial))
        for monomial, coefficient in number.parts[0].items()
    )


def filled(x):
    out = torch.zeros(3, 4, dtype=torch.float64)
    out[0] = x[0, 1]
    out[1:, ::2] += 2.0 * x[1, :2, ::2]
    out.select(0, 2).mul_(x[0, 0])
    out.T[1].add_(1.5)
    return out


def scattered(x):
    index = torch.tensor([[0, 2, 1, 0], [1, 0, 2, 2]])
    return torch.zeros_like(x[0]).scatter_add(0, index, x[0, :2]) + x[0].scatter(0, index, x[1, :2])


def put(x):
    y = x.clone()
    y[torch.tensor([0, 1]), torch.tensor([2, 0])] = 7.0
    y[y.new_zeros(2, dtype=torch.bool)] = 1.0
    y.index_put_((torch.tensor([0, 0]),), torch.ones(3, 4, dtype=torch.float64), accumulate=True)
    return y


MASK = torch.tensor([True, False, True, False])
OPERATIONS = {
    "affine": lambda x: 1 - 2 * x + x / 4 - (-x) + torch.rsub(x, 1.0, alpha=3),
    "powers": lambda x: x**2 + torch.square(x) + x.pow(3) + torch.float_power(2.0, torch.arange(4)),
    "sums": lambda x: [x.sum(), x.sum(-1), x.sum((0, 2), keepdim=True), x.mean(1), x.mean()],
    "products": lambda x: [x[0].prod(), x.prod(1), x.cumprod(-1), x.cumsum(0), x.cumsum(2)],
    "matrices": lambda x: [x @ x.mT, x[0] @ x[1].T, x[0] @ x[1, 0], x[0, 0] @ x[1, 0], x @ x[0].T],
    "einsum": lambda x: [torch.einsum("nij,nkj->nik", x, x), torch.einsum("nij->j", x)],
    "addmm": lambda x: torch.addmm(x[0, :, :3], x[0], x[1].T, beta=2.0, alpha=0.5),
    "fused": lambda x: [torch.addcmul(x, x, x, value=0.5), torch.lerp(x, 2 * x, 0.25)],
    "views": lambda x: [x.mT, x.permute(2, 0, 1), x.reshape(6, 4), x.flatten(), x[None], x[:, 1]],
    "slices": lambda x: [
        x[..., 1:3],
        x[:, ::2],
        x[1, 2, 3],
        x.narrow(2, 1, 2),
        x.diagonal(0, 1, 2),
    ],
    "expanded": lambda x: [x[:, :1].expand(2, 5, 4), x[0].repeat(2, 1), x[0, 0].unsqueeze(0)],
    "split": lambda x: [*x.split(2, 1), *x.chunk(2, -1), *x.unbind(1), *x.split([1, 3], 2)],
    "joined": lambda x: [torch.cat([x, x], 1), torch.stack([x, 2 * x], -1), torch.hstack([x, x])],
    "moved": lambda x: [x.flip(-1), x.roll(1, 0), x.roll(2), x.tril(), x.triu(1), x.movedim(0, 2)],
    "padded": lambda x: [functional.pad(x, (1, 2)), functional.pad(x, (0, 0, 1, 1), value=3.0)],
    "indexed": lambda x: [x[torch.tensor([1, 0])], x[:, torch.tensor([0, 2])], x[..., MASK]],
    "gathered": lambda x: x.gather(2, torch.tensor([[[0, 3], [1, 1], [2, 0]]]).expand(2, 3, 2)),
    "selected": lambda x: [
        x.index_select(1, torch.tensor([2, 0, 0])),
        x.take(torch.tensor([5, 1])),
    ],
    "chosen": lambda x: [torch.where(MASK, x, 0.0), x.masked_fill(MASK, 2.0), x * MASK],
    "made": lambda x: [torch.ones_like(x), torch.full_like(x, 0.3) * x, x.new_zeros(2, 2)],
    "filled": filled,
    "scattered": scattered,
    "put": put,
    "difference": lambda x: [x.diff(dim=-1), torch.outer(x[0, 0], x[0, 1])],
    "constants": lambda x: x * torch.linspace(0, 1, 4, dtype=torch.float64).exp().sort()[0].floor(),
    "cumulative": lambda x: torch.cumsum(x * 0.9 ** torch.arange(4), -1).squeeze(),
}


@pytest.fixture
def double():
    """torch's default dtype as it is while surrogates run."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_exact_execution_gives_torch_s_results(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, wanted, dtypes = both(OPERATIONS[name])
    assert len(found) == len(wanted)
    for one, other, dtype in zip(found, wanted, dtypes, strict=True):
        assert one.shape == other.shape
        assert dtype is torch.float64
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


ONE = Paths(np.zeros((1, 3), int), np.zeros((1, 2), int), np.zeros((1, 3), dtype=bool))


def read(function, order=1):
    return interpret(function, "program", ONE, 2, order, by_time=True)


def test_derivatives_follow_detach_data_and_no_grad():
    def stopped(record):
        with torch.no_grad():
            quiet = record.log_probs * 1.0
        return (
            record.log_probs * (quiet + record.log_probs.detach() + record.log_probs.data)
        ).sum()

    with pytest.raises(UnfitError, match="depend on the policy"):
        read(stopped)
    terms = read(lambda r: stopped(r) - 3 * (r.log_probs.detach() * r.log_probs).sum()).terms
    assert not any(power for powers in terms.values() for power in powers.values())
    twice = read(lambda r: (torch.exp(r.log_probs - r.log_probs.data) * r.rewards).sum(), 2).terms
    assert twice[((0, 0, -1), (0, 0, -1)), (0, 1)] == {0: 1}


def test_a_reading_says_what_the_program_read():
    sources = read(lambda r: (r.log_probs * r.rewards).sum()).sources
    assert sources == {"log_probs", "rewards"}
    looked = read(lambda r: r.log_probs.sum() * (2.0 if r.actions[0, 0].item() else 1.0)).sources
    assert "actions" in looked
    shapes = read(lambda r: r.log_probs.sum() * torch.nonzero(r.states).shape[0]).sources
    assert "states" in shapes
    ones = read(lambda r: (torch.ones_like(r.states[..., 1:]) * r.log_probs).sum()).sources
    assert "states" not in ones


def test_a_refusal_stands_where_the_program_catches_it():
    def caught(record):
        try:
            hit = bool((record.rewards > 0).any())
        except Exception:
            hit = False
        return record.log_probs.sum() * (2.0 if hit else 1.0)

    with pytest.raises(UnfitError, match="gt depends on the values of its input"):
        read(caught)


KEPT = []


def test_a_tensor_kept_from_an_earlier_call_is_refused():
    def keeps(record):
        KEPT.append(record.rewards)
        return (record.log_probs * KEPT[0]).sum()

    read(keeps)
    with pytest.raises(UnfitError, match="kept from another call"):
        read(keeps)
    with pytest.raises(RuntimeError, match="after its trace had ended"):
        KEPT[0] + 1


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda r: r.log_probs.mul_(2.0).sum(), "changes record.log_probs in place"),
        (lambda r: r.rewards[:, 0].zero_().sum(), "changes record.rewards in place"),
        (lambda r: (r.log_probs / 0).sum(), "a division by 0"),
        (lambda r: (r.log_probs * float("nan")).sum(), "a number that is not finite"),
        (lambda r: r.log_probs.sum() + torch.empty(()), "raised TypeError on symbols"),
        (lambda r: torch.tensor(r.rewards[0, 0] * 2).sum(), "scalar float64 tensor|copy construct"),
        (
            lambda r: torch.logsumexp(r.log_policy, -1).sum(),
            "logsumexp is no operation that is read exactly",
        ),
        (lambda r: r.log_probs.requires_grad_().sum(), "is taken by the program"),
    ],
)
def test_what_cannot_be_read_is_refused(function, text):
    with pytest.raises((UnfitError, SurrogateError, UserWarning), match=text):
        read(function)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda r: 1.0, "expected a scalar float64 tensor"),
        (lambda r: r.log_probs, "expected a scalar float64 tensor"),
        (lambda r: r.nothing, "raised AttributeError: .* has no attribute 'nothing'"),
    ],
)
def test_a_program_s_own_mistakes_are_said(function, text):
    with pytest.raises(SurrogateError, match=text):
        read(function)


def test_refusals_outside_of_a_program_have_no_line_of_it():
    trace = Trace()
    error = trace.refusal("eq", {"rewards", "states"})
    assert isinstance(error, RefusedError)
    assert "computed from record.rewards" in str(error)
    assert trace.refusals[0].operation == "eq"
    assert {field.name for field in fields(Record)} >= {"rewards", "discount"}
