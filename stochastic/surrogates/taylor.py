"""Surrogates by off-policy evaluation: the return of pi, estimated from trajectories of mu.

An estimate of the return that is unbiased for every pi has unbiased derivatives of every order.
V-trace is one if its ratios are not clipped. The Taylor expansion of the return in ``pi / mu - 1``
is correct to its own order: on policy, its k-th derivatives are those of the return for k up to the
order, and order 1 is LVC with a bootstrapped advantage.
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
    """The expansion of the return around that of mu: the sum, over all sets of up to ``order``
    steps, of the products of their ``pi / mu - 1``, times the advantage of the last one.

    On policy, derivatives up to ``order`` are unbiased where Loaded-DiCE's are (which is the sum
    over all sets); higher ones miss the products of more steps' scores. Off policy they are biased
    in general.

    Attributes:
        order: the largest number of steps in a product, at least 1.
        gae_lambda: lambda of the GAE advantages, in [0, 1]; they bootstrap at the horizon.

    Raises:
        ValueError: an order below 1, or gae_lambda outside [0, 1].

    Source: Tang et al. 2020 (Taylor expansion policy optimization); for meta-RL: Tang et al. 2021
    (Unifying gradient estimators for meta-RL via off-policy evaluation).
    """

    order: int = 1
    gae_lambda: float = 1.0

    def __post_init__(self) -> None:
        whole_number("order", self.order, at_least=1)
        real_number("gae_lambda", self.gae_lambda, low=0.0, high=1.0)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        gaps = torch.expm1(log_ratios(record))
        # products[k] [N, H]: the sum, over sets of k steps before t, of the products of their gaps.
        products = [torch.ones_like(gaps)]
        for _ in range(1, self.order):
            sums = torch.cumsum(products[-1] * gaps, dim=-1)
            products.append(torch.cat([torch.zeros_like(sums[..., :1]), sums[..., :-1]], dim=-1))
        weights = discounts(record) * generalised_advantages(record, self.gae_lambda)
        return (weights * gaps * torch.stack(products).sum(dim=0)).sum(dim=-1).mean()


@dataclass(frozen=True)
class VTrace:
    """V-trace's estimate of the first state's value, v(s_0) + sum_t gamma^t (prod_{i < t} c_i)
    rho_t delta_t, as a function of the policy.

    rho and c are the clipped ratios pi / mu, delta_t the temporal differences. Without clipping it
    is a doubly robust estimate of the return plus gamma^H v(s_H), whose derivatives of every order
    are unbiased, also off policy, if v_H = 0. A clipped ratio has derivative 0.

    Attributes:
        max_rho: the largest value of rho, which is clipped there; None does not clip.
        max_c: the largest value of c, likewise.

    Raises:
        ValueError: max_rho or max_c that is not positive.

    Source: Espeholt et al. 2018 (IMPALA), eq. 1.
    """

    max_rho: float | None = None
    max_c: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_rho", "max_c"):
            largest = getattr(self, name)
            if largest is not None:
                positive_number(name, largest)

    def __call__(self, record: Record) -> Tensor:
        """The scalar surrogate of one replication."""
        ratios = torch.exp(log_ratios(record))
        traces = torch.cumprod(_clipped(ratios, self.max_c), dim=-1)
        differences = generalised_advantages(record, 0.0)
        terms = before_each(traces) * _clipped(ratios, self.max_rho) * differences
        return (record.values[..., 0] + (discounts(record) * terms).sum(dim=-1)).mean()


def _clipped(ratios: Tensor, largest: float | None) -> Tensor:
    return ratios if largest is None else ratios.clamp(max=largest)


v_trace = VTrace()
