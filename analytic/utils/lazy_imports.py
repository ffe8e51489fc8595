"""Public names that are imported on first use: importing a package costs next to nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module

OPTIONAL = {"hypothesis": "testing"}
"""Packages that are not always installed, and the extra that brings them."""


def lazy_exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names live in the submodules
    ``homes[name]``.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            extra = OPTIONAL[error.name]
            raise ImportError(
                f"{package}.{name} needs {error.name}: pip install 'gradbias[{extra}]'"
            ) from None

    names = sorted(homes)
    return get, lambda: names, names
