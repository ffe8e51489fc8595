"""A critic's values in the form that all code reads: a row for each step, 0 at terminal states."""

from __future__ import annotations

import numpy as np

from gradbias.analytic.utils.validation import BoolArray, FloatArray


def critic_rows(critic: FloatArray | None, steps: int | None, n_states: int) -> FloatArray:
    """A critic ``[S]`` or ``[H + 1, S]`` (None: zeros) as rows ``[H + 1, S]``. For the infinite
    horizon (``steps=None``) a critic ``[S]`` becomes ``[1, S]``. Raises ValueError on other shapes.
    """
    rows = 1 if steps is None else steps + 1
    if critic is None:
        return np.zeros((rows, n_states))
    shapes = [(n_states,)] if steps is None else [(n_states,), (rows, n_states)]
    if critic.shape not in shapes:
        either = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"critic: expected shape {either}, got {critic.shape}")
    return np.broadcast_to(critic, (rows, n_states))


def check_ends(rows: FloatArray, terminal: BoolArray) -> None:
    """Raises ValueError unless ``rows [H + 1, S]`` are 0 at ``terminal [..., S]`` states."""
    wrong = np.argwhere((rows != 0.0) & terminal[..., None, :])
    if wrong.size:
        step, state = wrong[0][-2:]
        raise ValueError(
            f"critic: expected 0 at terminal states, got {rows[step, state]:g} at state {state}"
        )
