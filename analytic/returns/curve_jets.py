"""Gradients along curves in the parameters, to any order.

Elsewhere the directions of a jet are straight lines in theta. Parameters that come out of an inner
loop are curves: their jet has parts of second and higher order, too. By Faa di Bruno's formula the
logits' part ``mask`` is the sum over partitions of ``mask`` into blocks b_1, ..., b_k of
``z^(k)(theta)[theta_{b_1}, ..., theta_{b_k}]``, where z are the logits and theta_b is part b of the
jet of the parameters (None if it is zero).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gradbias.analytic.policies.at_parameters import PolicyAt
from gradbias.analytic.policies.jets import Part, Parts, add, softmax_jet, submasks
from gradbias.analytic.policies.softmax import LinearSoftmax, TabularSoftmax
from gradbias.analytic.problems.tables import Tables
from gradbias.analytic.returns.evaluation import Evaluation
from gradbias.analytic.returns.value_jets import Expansion
from gradbias.analytic.utils.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Curve:
    """The return along a curve of parameters."""

    tables: Tables
    at: PolicyAt  # the policy at the point where the curve starts
    theta: Parts  # the jet of the parameters; its part 0 is that point

    @cached_property
    def expansion(self) -> Expansion:
        """The jets of values and occupancies."""
        return Expansion(Evaluation(self.tables, self.at.probabilities), softmax_jet(self._logits))

    @property
    def _logits(self) -> list[Part]:
        logits: list[Part] = [self.at.logits]
        for mask in range(1, len(self.theta)):
            total: Part = None
            for blocks in self._blocks(mask):
                total = add(total, self.at.logit_jet(blocks)[-1])
            logits.append(total)
        return logits

    def _blocks(self, mask: int) -> Iterator[list[FloatArray]]:
        """For every partition of ``mask``, the theta parts of its blocks, unless one is zero."""
        for blocks in partitions(mask):
            parts = [self.theta[block] for block in blocks]
            nonzero = [part for part in parts if part is not None]
            if len(nonzero) == len(parts):
                yield nonzero

    @cached_property
    def gradient(self) -> list[Part]:
        """The jet of dJ/dtheta, each part ``[..., *shape]``."""
        fields = self.expansion.gradient
        jet: list[Part] = []
        for mask in range(len(fields)):
            total: Part = None
            for part in submasks(mask):
                total = add(total, self._vjp(fields[mask ^ part], part))
            jet.append(total)
        return jet

    def _vjp(self, field: Part, mask: int) -> Part:
        """Part ``mask`` of the logits' Jacobian, transposed, times a field ``[..., S, A]``."""
        if field is None or mask == 0:
            return None if field is None else self.at.vjp(field)
        if isinstance(self.at.policy, TabularSoftmax | LinearSoftmax):
            return None
        total: Part = None
        for blocks in self._blocks(mask):
            constant: list[Part] = [None] * ((1 << len(blocks)) - 1)
            total = add(total, self.at.vjp_jet([field, *constant], blocks))
        return total

    @cached_property
    def visits(self) -> list[Part]:
        """The jet of ``dJ/dreward`` (discounted visits summed over time), ``[..., S, A]``."""
        return [None if part is None else part.sum(axis=-3) for part in self.expansion.visits]


def partitions(mask: int) -> Iterator[list[int]]:
    """All partitions of the directions in ``mask`` into non-empty blocks."""
    if mask == 0:
        yield []
        return
    lowest = mask & -mask
    for rest in submasks(mask ^ lowest):
        for others in partitions(mask ^ lowest ^ rest):
            yield [lowest | rest, *others]
