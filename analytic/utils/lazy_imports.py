"""Public names that are imported on first use: importing a package costs next to nothing.

A package's public names stand in the stub beside its ``__init__.py``, as imports. Type checkers
read them there, and so does `public_names`.
"""

from collections.abc import Callable
from typing import Any

import lazy_loader

OPTIONAL = {"hypothesis": "testing"}
"""Packages that are not always installed, and the extra that brings them."""


def public_names(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package, from its stub.

    Args:
        package: the package's ``__name__``.
        file: its ``__file__``; the stub is the ``.pyi`` file beside it.

    Returns:
        The three, for the package to bind under these names.

    Raises:
        ImportError: the package was found as a folder of a checkout and not inside ``gradbias``:
            its classes would then exist twice.
    """
    if not package.startswith("gradbias."):
        raise ImportError(f"{package}: this is gradbias.{package}; import it under that name")
    get, listed, names = lazy_loader.attach_stub(package, file)

    def get_public(name: str) -> Any:
        try:
            return get(name)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            raise ImportError(
                f"{package}.{name} needs {error.name}: pip install "
                f"'gradbias[{OPTIONAL[error.name]}]'"
            ) from None

    return get_public, listed, names
