"""What is being solved and estimated: MDPs, games, reward chains, targets.

Open to estimators: nothing here is an answer.
"""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
