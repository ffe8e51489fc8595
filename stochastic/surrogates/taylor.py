"""Surrogates by off-policy evaluation: the return of pi, estimated from trajectories of mu.

An evaluation that is right for every pi has the right derivatives of every order. V-trace is one
where its ratios are not cut off. The Taylor expansion of the return in ``pi / mu - 1`` is right to
its own order: on policy, its k-th derivatives are those of the return for k up to the order, and
the first order is LVC with a bootstrapped advantage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradbias.analytic.utils.validation import positive_number, real_number, whole_number
from gradbias.stochastic.rollouts.records import Record
from gradbias.stochastic.surrogates.off_policy import log_ratios
from gradbias.stochastic.surrogates.returns import before_each, discounts, generalised_advantages


@dataclass(frozen=True)
class Taylor:
    """Sum over up to ``order`` steps of the products of their ``pi / mu - 1``, times the advantage
    of the last one: the expansion of the return around that of mu.

    Advantages are GAE(lambda) with the record's values, bootstrapped at the horizon. Derivatives on
    policy are unbiased up to ``order`` where Loaded-DiCE's are (which is the whole sum); above, the
    products of more steps' scores are missing. Off policy none is, in general.
    Source: Tang et al. 2020 (Taylor expansion policy optimization); for meta-RL: Tang et al. 2021
    (Unifying gradient estimators for meta-RL via off-policy evaluation).

    Raises:
        ValueError: an order below 1, or gae_lambda outside [0, 1].
    """

    order: int = 1
    gae_lambda: float = 1.0

    def __post_init__(self) -> None:
        whole_number("order", self.order, at_least=1)
        real_number("gae_lambda", self.gae_lambda, low=0.0, high=1.0)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        gaps = torch.expm1(log_ratios(record))
        # products[k]: sum over sets of k steps before t of the products of their gaps, [N, H].
        products = [torch.ones_like(gaps)]
        for _ in range(1, self.order):
            sums = torch.cumsum(products[-1] * gaps, dim=-1)
            products.append(torch.cat([torch.zeros_like(sums[..., :1]), sums[..., :-1]], dim=-1))
        weights = discounts(record) * generalised_advantages(record, self.gae_lambda)
        return (weights * gaps * torch.stack(products).sum(dim=0)).sum(dim=-1).mean()


@dataclass(frozen=True)
class VTrace:
    """V-trace's estimate of the value of the first state, as a function of the policy:
    v(s_0) + sum_t gamma^t (prod_{i < t} c_i) rho_t delta_t.

    rho and c are the ratios pi / mu, cut off at ``largest_rho`` and ``largest_c`` (None: not). Not
    cut off, it is a doubly robust estimate of the return plus gamma^H v(s_H): derivatives of every
    order are unbiased, off policy too, where v_H = 0. Where a ratio is cut off its derivative is 0.
    Source: Espeholt et al. 2018 (IMPALA), eq. 1.

    Raises:
        ValueError: a largest ratio that is not positive.
    """

    largest_rho: float | None = None
    largest_c: float | None = None

    def __post_init__(self) -> None:
        for name in ("largest_rho", "largest_c"):
            largest = getattr(self, name)
            if largest is not None:
                positive_number(name, largest)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        ratios = torch.exp(log_ratios(record))
        traces = torch.cumprod(_cut_off(ratios, self.largest_c), dim=-1)
        differences = generalised_advantages(record, 0.0)
        terms = before_each(traces) * _cut_off(ratios, self.largest_rho) * differences
        return (record.values[..., 0] + (discounts(record) * terms).sum(dim=-1)).mean()


def _cut_off(ratios: Tensor, largest: float | None) -> Tensor:
    return ratios if largest is None else ratios.clamp(max=largest)


v_trace = VTrace()
