"""Bilevel problems, exact meta-gradients, and the bias that sampled inner steps add."""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
