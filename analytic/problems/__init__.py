"""The problems (MDPs, games, reward chains) and the targets of estimation.

Estimators may import this room: it holds no value, gradient or other answer.
"""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
