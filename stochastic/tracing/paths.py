"""Trajectories without rewards, on which a surrogate is interpreted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradbias.analytic.utils.validation import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Paths:
    """B trajectories without rewards: ``states [B, H + 1]``, ``actions [B, H]``, and whether each
    state is terminal, ``ended [B, H + 1]``.
    """

    states: IntArray
    actions: IntArray
    ended: BoolArray

    def __getitem__(self, index: IntArray | slice | list[int]) -> Paths:
        """The trajectories that ``index`` selects."""
        return Paths(self.states[index], self.actions[index], self.ended[index])

    def keys(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The states and actions of each trajectory."""
        for states, actions in zip(self.states.tolist(), self.actions.tolist(), strict=True):
            yield tuple(states), tuple(actions)

    def classes(self, sources: set[str]) -> tuple[IntArray, IntArray]:
        """One trajectory of each class, and the class of each trajectory ``[B]``: two are of one
        class if they agree in what ``sources`` names of states, actions and alive.
        """
        columns = [self.ended[:, :-1].astype(np.int64)] if sources else []
        columns += [self.states, self.actions] if sources & {"states", "actions"} else []
        count = len(self.actions)
        table = np.concatenate([np.zeros((count, 1), dtype=np.int64), *columns], axis=1)
        _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
        return first, inverse.ravel()

    @property
    def longest(self) -> int:
        """The number of a trajectory that is alive for longest."""
        return int(np.argmax((~self.ended).sum(axis=1)))
