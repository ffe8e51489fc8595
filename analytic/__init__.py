"""The exact side: problems, policies, targets, and every derivative in closed form (no torch).

Names are imported on first use, so that ``import gradbias.analytic`` costs next to nothing.
"""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
