"""Which known error a mean shows; what an update field is the gradient of."""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
