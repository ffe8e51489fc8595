"""Gradients along curves in the parameters, to any order: jets whose parameters are jets.

Elsewhere the directions of a jet are straight lines in theta. Parameters that an inner loop has
moved bend, so their jet has parts of second and higher order too, and the chain rule sums over all
ways to share a set of directions out (Faa di Bruno): the logits' part ``mask`` is the sum over
partitions of ``mask`` into blocks of ``z^(k)(theta)[theta_block 1, ..., theta_block k]``.

Part 0 of a jet of parameters is where the policy stands; a part that is None does not move.
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
    """The return of ``tables`` along the parameters ``theta`` (a jet around those of ``at``)."""

    tables: Tables
    at: PolicyAt
    theta: Parts

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
        """The directions of every way to share ``mask`` out; none in which something stays."""
        for blocks in partitions(mask):
            parts = [self.theta[block] for block in blocks]
            moving = [part for part in parts if part is not None]
            if len(moving) == len(parts):
                yield moving

    @cached_property
    def gradient(self) -> list[Part]:
        """The jet of dJ/dtheta, shaped ``[..., *shape]``."""
        fields = self.expansion.gradient
        found: list[Part] = []
        for mask in range(len(fields)):
            total: Part = None
            for own in submasks(mask):
                total = add(total, self._pulled(fields[mask ^ own], own))
            found.append(total)
        return found

    def _pulled(self, field: Part, mask: int) -> Part:
        """The part ``mask`` of the logits' Jacobian, transposed, times a field ``[..., S, A]``."""
        if field is None or mask == 0:
            return None if field is None else self.at.vjp(field)
        if isinstance(self.at.policy, TabularSoftmax | LinearSoftmax):
            return None
        total: Part = None
        for blocks in self._blocks(mask):
            still: list[Part] = [None] * ((1 << len(blocks)) - 1)
            total = add(total, self.at.vjp_jet([field, *still], blocks))
        return total

    @cached_property
    def visits(self) -> list[Part]:
        """The jet of discounted visits summed over time, ``[..., S, A]``: of dJ/dreward."""
        return [None if part is None else part.sum(axis=-3) for part in self.expansion.visits]


def partitions(mask: int) -> Iterator[list[int]]:
    """All ways to share the directions of ``mask`` out over blocks that are not empty."""
    if mask == 0:
        yield []
        return
    lowest = mask & -mask
    for rest in submasks(mask ^ lowest):
        for others in partitions(mask ^ lowest ^ rest):
            yield [lowest | rest, *others]
