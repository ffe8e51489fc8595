"""Sample estimators and how to draw for them (numpy and torch).

Nothing here sees an exact value or derivative: critics and baselines are arguments. Names are
imported on first use.
"""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
