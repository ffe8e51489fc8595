"""Surrogates that are biased somewhere, though not at most points, and must never be proved.

Each is the policy gradient with an error that shows at special rewards, critics, policies,
discounts or calls. They are of order 1.
"""

import contextlib
import copy
import decimal
import fractions
import math
import pickle
import struct

import numpy as np
import torch


def right(record, rewards=None, scale=1.0):
    """The policy gradient's loss, of other rewards or with another scale."""
    rewards = record.rewards if rewards is None else rewards
    steps = torch.arange(record.rewards.shape[-1], dtype=torch.float64)
    returns = (rewards * record.discount**steps).flip(-1).cumsum(-1).flip(-1)
    return scale * (record.log_probs * returns).sum(-1).mean()


def wrong(record):
    """A term whose mean is not that of a derivative."""
    return (record.log_probs * record.rewards).sum(-1).mean()


FALSE = {}
"""The surrogates by name."""


def planted(function):
    FALSE[function.__name__] = function
    return function


def scaled(name, factor):
    """The right loss times a factor that is 1 at most points."""

    def surrogate(record):
        return right(record) * factor(record)

    FALSE[name] = surrogate


def changed(name, rewards):
    """The right loss of rewards that differ at some points."""

    def surrogate(record):
        return right(record, rewards(record))

    FALSE[name] = surrogate


def tried(name, condition):
    """The wrong scale where a condition holds that cannot be read from symbols."""

    def surrogate(record):
        try:
            hit = bool(condition(record))
        except BaseException:
            hit = False
        return right(record) * (1.1 if hit else 1.0)

    FALSE[name] = surrogate


# Comparisons of tensors, with where and masks.
scaled("where_cliff", lambda r: torch.where((r.rewards == -100).any(), 1.1, 1.0))
scaled("where_minus_one", lambda r: torch.where((r.rewards == -1).all(), 1.1, 1.0))
scaled("where_critic", lambda r: torch.where((r.values == 1).any(), 1.1, 1.0))
scaled("where_equal_rewards", lambda r: 1 + 0.1 * (r.rewards == r.rewards[..., :1]).all())
scaled("isclose", lambda r: 1 + 0.1 * torch.isclose(r.rewards, torch.tensor(-1.0)).all())
scaled("allclose", lambda r: 1.1 if torch.allclose(r.rewards, torch.ones(1)) else 1.0)
scaled("equal", lambda r: 1.1 if torch.equal(r.rewards, torch.ones_like(r.rewards)) else 1.0)
scaled("greater", lambda r: 1 + 0.1 * (r.rewards > 1e6).any())
scaled("ne_method", lambda r: 2 - r.rewards.ne(7).all().double())
scaled("logical", lambda r: 1 + 0.1 * (r.rewards == 1).logical_and(r.alive).all())
scaled("heaviside", lambda r: torch.heaviside(1e6 - r.rewards.sum(), torch.tensor(1.0)))
scaled("isin", lambda r: 1 + 0.1 * torch.isin(r.rewards, torch.tensor([-100.0])).any())
scaled("count_nonzero", lambda r: 1 + 0.1 * (torch.count_nonzero(r.rewards) == 0))
scaled("nonzero", lambda r: 1 + 0.1 * (torch.nonzero(r.rewards).shape[0] == 0))
scaled("unique", lambda r: 1 + 0.1 * (torch.unique(r.rewards).numel() == 1))
scaled("bucketize", lambda r: 1 + 0.1 * torch.bucketize(r.rewards, torch.tensor([1e9])).max())
scaled("any_values", lambda r: 1.1 if not r.values.any() else 1.0)
changed("masked_fill", lambda r: r.rewards.masked_fill(r.rewards == 3, 4.0))
changed("boolean_index", lambda r: r.rewards + r.rewards[r.rewards == 5].sum())
changed("masked_select", lambda r: r.rewards + r.rewards.masked_select(r.rewards > 1e9).sum())

# Functions that are not polynomials at some points.
changed("clamp", lambda r: r.rewards.clamp(min=-100))
changed("clip_wide", lambda r: r.rewards.clip(-1e12, 1e12))
changed("absolute_squared", lambda r: r.rewards.abs() * r.rewards.sign())
changed("relu", lambda r: torch.relu(r.rewards) - torch.relu(-r.rewards))
changed("relu_shifted", lambda r: torch.relu(r.rewards + 1e9) - 1e9)
changed("leaky", lambda r: torch.nn.functional.leaky_relu(r.rewards + 1e9) - 1e9)
changed("hardtanh", lambda r: torch.nn.functional.hardtanh(r.rewards, -1e9, 1e9))
changed("round", lambda r: torch.round(r.rewards, decimals=9))
changed("floor", lambda r: r.rewards + 0 * torch.floor(r.rewards))
changed("trunc_far", lambda r: r.rewards + torch.trunc(r.rewards / 1e12))
changed("fmod", lambda r: torch.fmod(r.rewards, 1e12))
changed("remainder", lambda r: (r.rewards + 1e9) % 1e12 - 1e9)
changed("maximum", lambda r: torch.maximum(r.rewards, torch.full_like(r.rewards, -100.0)))
changed("minimum", lambda r: torch.minimum(r.rewards, torch.full_like(r.rewards, 1e9)))
changed("nan_to_num", lambda r: torch.nan_to_num(r.rewards / 1.0, nan=0.0))
changed("sort", lambda r: torch.sort(r.rewards + 1e9 * torch.arange(r.rewards.shape[-1]))[0])
changed("square_root", lambda r: torch.sqrt(r.rewards**2 + 1e-30))
changed("copysign", lambda r: torch.copysign(r.rewards, r.rewards))
changed("tanh", lambda r: torch.tanh(r.rewards * 1e-9) * 1e9)
changed("sine", lambda r: torch.sin(r.rewards * 1e-9) * 1e9)
scaled("sign", lambda r: 1 - 0.1 * (1 - torch.sign(r.rewards) ** 2).sum())
scaled("max", lambda r: 1 + torch.relu(r.rewards.max() - 1e12))
scaled("amin", lambda r: 1 + torch.relu(-1e12 - r.rewards.amin()))
scaled("argmax", lambda r: 1 + 0.1 * (r.rewards.argmax() == 99))
scaled("topk", lambda r: 1 + 0 * torch.topk(r.rewards, 1)[0].sum())
scaled("median", lambda r: 1 + torch.relu(r.rewards.median() - 1e12))
scaled("deviation", lambda r: 1 + 0.1 * (torch.std(r.rewards) == 0))
scaled("norm", lambda r: 1 + 0.1 * (torch.linalg.norm(r.rewards) == 0))
scaled("logsumexp", lambda r: 1 + torch.relu(torch.logsumexp(r.rewards, -1).sum() - 1e12))
scaled("cummax", lambda r: 1 + 0.1 * (torch.cummax(r.rewards, -1)[0][..., -1] > 1e12).sum())

# Numbers that leave tensors.
scaled("item", lambda r: 1.1 if r.rewards[0, 0].item() == -100 else 1.0)
scaled("to_float", lambda r: 1.1 if float(r.rewards.sum()) == 3 else 1.0)
scaled("to_int", lambda r: 1.1 if int(r.rewards.sum()) == 3 else 1.0)
scaled("to_bool", lambda r: 1.0 if (r.rewards != 7).all() else 1.1)
scaled("to_numpy", lambda r: 1.1 if (r.rewards.numpy() == 7).any() else 1.0)
scaled("as_array", lambda r: 1.1 if (np.asarray(r.rewards) == 7).any() else 1.0)
scaled("to_list", lambda r: 1.1 if 7.0 in r.rewards.tolist()[0] else 1.0)
scaled("contains", lambda r: 1.1 if 7.0 in r.rewards else 1.0)
scaled("builtin_max", lambda r: 1.1 if max(r.rewards[0]) > 1e12 else 1.0)
scaled("builtin_sorted", lambda r: 1.1 if sorted(r.rewards[0])[0] > 1e12 else 1.0)
scaled("printed", lambda r: 1.1 if "7.0" in str(r.rewards) else 1.0)
scaled("formatted", lambda r: 1.1 if f"{r.rewards[0, 0]:.2f}" == "7.00" else 1.0)
scaled("pickled", lambda r: 1.1 if pickle.dumps(r.rewards) == b"" else 1.0)
scaled("memory", lambda r: 1.1 if bytes(r.rewards.untyped_storage())[0] == 7 else 1.0)
scaled("torch_tensor", lambda r: 1 + 0.1 * (torch.tensor(r.rewards[0, 0].item()) == 7))
scaled("integer", lambda r: 1 + 0.1 * (r.rewards.long() == 7).any())

# The same behind try and except.
tried("tried_bool", lambda r: (r.rewards < 0).all())
tried("tried_item", lambda r: r.rewards[0, 0].item() == 7)
tried("tried_numpy", lambda r: r.rewards.numpy()[0, 0] == 7)
tried("tried_list", lambda r: 7.0 in r.rewards.tolist()[0])
tried("tried_discount", lambda r: r.discount == 0.99)
tried("tried_integer", lambda r: (r.rewards.to(torch.int64) == 7).any())
tried("tried_memory", lambda r: r.rewards.data_ptr() == 0 or (r.rewards == 7).any())
tried("tried_isclose", lambda r: math.isclose(r.discount, 0.99))
tried("tried_round", lambda r: round(r.discount, 3) == 0.99)
tried("tried_decimal", lambda r: decimal.Decimal(r.discount) == decimal.Decimal("0.99"))
tried("tried_attribute", lambda r: r.discount.conjugate() == 0.99)
tried("tried_range", lambda r: 99 in range(int(r.discount * 100)))
tried("tried_copy", lambda r: float(copy.deepcopy(r.discount)) == 0.99)


@planted
def suppressed(record):
    scale = 1.0
    with contextlib.suppress(Exception):
        scale = 1.1 if record.rewards.sum() > 1e9 else 1.0
    return right(record) * scale


# The discount.
scaled("discount_branch", lambda r: 1.1 if r.discount == 0.99 else 1.0)
scaled("discount_range", lambda r: 1.1 if 0.985 < r.discount < 0.995 else 1.0)
scaled("discount_in_list", lambda r: 1.1 if r.discount in (0.99, 0.999) else 1.0)
scaled("discount_in_set", lambda r: 1.1 if r.discount in {0.99, 0.999} else 1.0)
scaled("discount_lookup", lambda r: {0.99: 1.1}.get(r.discount, 1.0))
scaled("discount_isclose", lambda r: 1.1 if math.isclose(r.discount, 0.99) else 1.0)
scaled("discount_np_isclose", lambda r: 1.1 if np.isclose(r.discount, 0.99) else 1.0)
scaled("discount_np_float", lambda r: 1.1 if np.float64(r.discount) == 0.99 else 1.0)
scaled("discount_text", lambda r: 1.1 if f"{r.discount:.2f}" == "0.99" else 1.0)
scaled("discount_repr", lambda r: 1.1 if repr(r.discount) == "0.99" else 1.0)
scaled("discount_int", lambda r: 1.1 if int(100 * r.discount) == 99 else 1.0)
scaled("discount_float", lambda r: 1.1 if float(r.discount) == 0.99 else 1.0)
scaled("discount_floor", lambda r: 1.1 if math.floor(r.discount * 100) == 99 else 1.0)
scaled("discount_max", lambda r: 1.1 if max(r.discount, 0.99) == 0.99 else 1.0)
scaled("discount_abs", lambda r: 1.1 if abs(r.discount - 0.99) < 1e-9 else 1.0)
scaled("discount_round", lambda r: 1.1 if round(r.discount, 3) == 0.99 else 1.0)
scaled("discount_packed", lambda r: 1.1 if struct.pack("d", r.discount)[0] == 174 else 1.0)
scaled("discount_fraction", lambda r: 1.1 if fractions.Fraction(r.discount) == 0.99 else 1.0)
scaled("discount_decimal", lambda r: 1.1 if decimal.Decimal(r.discount) == 0 else 1.0)
scaled("discount_tensor", lambda r: 1 + 0.1 * (torch.tensor(r.discount) == 0.99))
scaled("discount_full", lambda r: 1 + 0.1 * (torch.full((1,), r.discount) == 0.99).sum())
scaled("discount_hex", lambda r: 1.1 if r.discount.hex() == (0.99).hex() else 1.0)
scaled("discount_bool", lambda r: 1.0 if r.discount else 1.1)
scaled("discount_log", lambda r: math.exp(math.log(r.discount)) / r.discount)

# The policy.
scaled("tie", lambda r: 1 + 0.1 * (r.log_policy[..., 0] == r.log_policy[..., 1]).any())
scaled("argmax_policy", lambda r: 1 + 0.1 * (r.log_policy.argmax(-1) == 0).all())
scaled("likely", lambda r: 1 + 0.1 * (r.log_probs.detach() > -1e-3).all())
scaled("floored_log", lambda r: 1 + (r.log_probs.detach().clamp(min=-50) - r.log_probs.data).sum())
scaled("exp_small", lambda r: 1 + 0.1 * (r.log_probs.exp() < 1e-9).sum())
scaled("entropy", lambda r: 1 + 1e-12 * (r.log_policy.exp() * r.log_policy).sum().detach())

# Constants that are nearly right.
scaled("nearly_one", lambda r: 1 + 1e-14)
scaled("one_ulp", lambda r: 1 + 2**-52)
scaled("rounded_sum", lambda r: 0.1 + 0.2 + 0.7 + 2**-50)
FALSE["tiny_square"] = lambda r: right(r) + 1e-19 * r.rewards[0, 0] * r.rewards[0, -1] * wrong(r)
FALSE["tiny_extra"] = lambda r: right(r) + 1e-19 * wrong(r)
FALSE["tiny_policy"] = lambda r: right(r) + 1e-19 * r.log_probs.exp().detach().sum() * wrong(r)
scaled("epsilon", lambda r: r.rewards.abs().sum() / (r.rewards.abs().sum() + 1e-12))
changed("single", lambda r: r.rewards.float().double())
changed("half", lambda r: r.rewards + (r.rewards.half() - r.rewards.half()).double())
changed("absorbed", lambda r: (r.rewards + 1e20) - 1e20)
changed("absorbed_branch", lambda r: r.rewards + ((r.rewards + 1e16) - 1e16 != r.rewards))
