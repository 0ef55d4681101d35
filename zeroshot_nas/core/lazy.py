"""What keeps torch unloaded until it is used: stand-ins for modules, a question to ask of a value, a context."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import TypeIs


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


def is_torch_module(value: object) -> TypeIs[nn.Module]:
    """Whether a value is a ``torch.nn.Module``; where torch was never imported, nothing is one.

    Example:
        >>> is_torch_module("a network")
        False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


@contextmanager
def no_grad() -> Iterator[None]:
    """``torch.no_grad()``, also as a decorator, which loads torch when it is entered."""
    import torch

    with torch.no_grad():
        yield
