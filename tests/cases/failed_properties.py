"""The message of a property that fails, and the problem that it prints."""

import numpy as np
import pytest

from gradbias.analytic.policies.softmax import LinearSoftmax
from gradbias.analytic.problems.mdp import TabularMDP
from gradbias.verification.properties.ledgers import Ledger


def failure(property_):
    """The message of a property that fails."""
    with pytest.raises(AssertionError) as caught:
        property_(Ledger())
    return str(caught.value)


def pasted(text):
    """The variables that the Python code in the message defines, by name."""
    code = text[text.index("mdp = ") : text.index("\n\n", text.index("theta = "))]
    names = {}
    exec(code, {"TabularMDP": TabularMDP, "LinearSoftmax": LinearSoftmax}, names)
    return names | {"theta": np.array(names["theta"])}


def problem_in(text):
    """The MDP and the parameters that a message prints."""
    names = pasted(text)
    return names["mdp"], names["theta"]
