"""The constants that the theorems assume: norms, Lipschitz constants, standard deviations."""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
