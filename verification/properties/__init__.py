"""Properties for all small problems, strategies that draw these, the pytest plugin, its ledger."""

from gradbias.analytic.utils.lazy_imports import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
