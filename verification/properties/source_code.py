"""Problems written as the Python that makes them, to be pasted into a test."""

from __future__ import annotations

from gradbias.analytic.policies.softmax import LinearSoftmax, Policy, TabularSoftmax
from gradbias.analytic.problems.games import StochasticGame
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.analytic.utils.validation import FloatArray

_WIDTH = 88


def as_constructor(problem: TabularMDP | StochasticGame) -> str:
    """The call that makes this very problem, an argument a line.

    >>> print(as_constructor(TabularMDP([[[1.0], [1.0]]], [[1.0, 0.0]], 0.9, [1.0], 1)))
    TabularMDP(
        transition=[[[1], [1]]],
        reward=[[1, 0]],
        discount=0.9,
        start=[1],
        horizon=1,
    )
    """
    if isinstance(problem, TabularMDP):
        policies: tuple[Policy, ...] = ()
        name, reward = "reward", problem.reward
    else:
        policies = problem.policies
        name, reward = "rewards", problem.rewards
    arguments = {
        "transition": as_lists(problem.transition, indent=8),
        name: as_lists(reward, indent=8),
        "discount": _number(problem.discount),
        "start": as_lists(problem.start, indent=8),
        "horizon": str(problem.horizon),
    }
    if not all(isinstance(policy, TabularSoftmax) for policy in policies):
        arguments["policies"] = f"({', '.join(as_policy(policy) for policy in policies)})"
    lines = [f"    {argument}={text}," for argument, text in arguments.items()]
    return "\n".join([f"{type(problem).__name__}(", *lines, ")"])


def as_policy(policy: Policy) -> str:
    """The call that makes this policy, or the repr of a policy of another kind.

    >>> as_policy(LinearSoftmax([[[1.0], [0.0]]]))
    'LinearSoftmax([[[1], [0]]])'
    """
    if isinstance(policy, LinearSoftmax):
        return f"LinearSoftmax({as_line(policy.features)})"
    return repr(policy)


def as_lists(array: FloatArray, *, indent: int = 4) -> str:
    """An array as nested lists with every digit, integers without a decimal point, on one line or,
    where that is too long, with one row a line.
    """
    flat = as_line(array)
    if array.ndim < 2 or len(flat) + indent <= _WIDTH:
        return flat
    margin = " " * indent
    rows = [f"{margin}{as_lists(row, indent=indent + 4)}," for row in array]
    return "\n".join(["[", *rows, f"{margin[4:]}]"])


def as_line(array: FloatArray) -> str:
    """An array as nested lists, on one line."""
    if array.ndim == 0:
        return _number(float(array))
    return "[" + ", ".join(as_line(row) for row in array) + "]"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
