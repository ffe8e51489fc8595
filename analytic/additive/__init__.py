"""Objectives that are functions of a Monte Carlo mean (N-sample objectives), and MAML's step as
one.
"""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
