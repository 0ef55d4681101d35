"""Modules that are imported when they are first used, so that what only lists names, or counts, loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """Stands for a module, which is imported when one of its attributes is first asked for.

    A file that needs the module in its functions alone gives the type checker the module itself::

        if TYPE_CHECKING:
            import torch
        else:
            torch = LazyModule("torch")

    Args:
        name: Dotted name of the module.

    Example:
        >>> LazyModule("colorsys").rgb_to_hsv(0, 0, 0)
        (0.0, 0.0, 0)
    """

    @cached_property
    def _module(self) -> ModuleType:
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def no_grad() -> Iterator[None]:
    """``torch.no_grad()``, also as a decorator, which loads torch when it is entered."""
    import torch

    with torch.no_grad():
        yield
