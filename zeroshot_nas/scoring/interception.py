"""Torch's functions intercepted, whether a module calls them or the code itself."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")


class Handler(Protocol):
    """``(function, args, kwargs) -> result``: what runs in place of a torch function."""

    def __call__(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], /) -> Any: ...


def intercepted(handler: Handler) -> AbstractContextManager[object]:
    """While open, a handler runs in place of every torch function; what it calls itself is not intercepted again.

    Args:
        handler: What runs.

    Example:
        >>> def doubled(func, args, kwargs):
        ...     return 2 * func(*args, **kwargs)
        >>> ones = torch.ones(3)
        >>> with intercepted(doubled):
        ...     total = ones.sum()
        >>> total
        tensor(6.)
    """
    return _mode_class()(handler)


@cache
def _mode_class() -> Callable[[Handler], AbstractContextManager[object]]:
    from torch.overrides import TorchFunctionMode  # here: who derives from a class must load it

    class Mode(TorchFunctionMode):
        def __init__(self, handler: Handler) -> None:
            super().__init__()
            self._handler = handler

        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Sequence[type],
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            return self._handler(func, args, kwargs or {})

    return Mode


def _is_in_place(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call changes its first argument: ``relu_``, ``x += y``, ``x[0] = y``, ``elu(x, inplace=True)``."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or name in _augmented_assignments()
    if name.endswith("_"):
        return name not in ("requires_grad_", "share_memory_")
    place = _flag_in_place(func)
    return place is not None and bool(kwargs.get("inplace", args[place] if place < len(args) else False))


@cache
def _augmented_assignments() -> frozenset[str]:
    return frozenset(
        name for name in dir(torch.Tensor) if name.startswith("__i") and f"__{name[3:]}" in dir(torch.Tensor)
    )


@cache
def _flag_in_place(func: Callable[..., Any]) -> int | None:
    """The position of ``inplace`` among the arguments of a function of ``torch.nn.functional``; None without it."""
    if getattr(func, "__module__", "") != "torch.nn.functional":
        return None
    names = list(inspect.signature(func).parameters)
    return names.index("inplace") if "inplace" in names else None


@dataclass(slots=True)
class _Tensor:
    """What is known of a tensor: its version when it was kept, and what stands in its place."""

    reference: weakref.ref[Tensor]
    version: int | None = None
    replacement: Tensor | None = None


class KeptTensors:
    """Tensors that stay as they are: a function that would change one of them in place runs out of place.

    The code that runs still holds the tensor that it meant to change. Wherever it hands that over, the new tensor takes
    its place, as if it had been changed. References are weak, so that nothing lives longer for it.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, _Tensor] = {}  # a tensor that is gone takes its entry along, so that ids are of one each

    def keep(self, tensor: Tensor) -> Tensor:
        """Keeps a tensor from now on."""
        entry = self._entry(tensor)
        if entry.version is None:
            entry.version = tensor._version
        return tensor

    def replace(self, tensor: Tensor, replacement: Tensor) -> None:
        """From now on a tensor stands for another."""
        self._entry(tensor).replacement = replacement

    def current(self, value: Any) -> Any:
        """The tensor that a value stands for; lists and tuples member by member, all else as it is."""
        if type(value) in (list, tuple):
            return type(value)(map(self.current, value))
        while (entry := self._by_id.get(id(value))) is not None and entry.replacement is not None:
            value = entry.replacement
        return value

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Runs a torch function on current tensors.

        One that would change a kept tensor, its first argument, runs out of place: by the function that returns a new
        tensor where there is one of the same arguments, else on a copy.
        """
        if not (args and self._is_kept(args[0]) and args[0]._base is None and _is_in_place(func, args, kwargs)):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        out_of_place = getattr(torch.Tensor, name[:-1], None) if name.endswith("_") else None
        if callable(out_of_place):
            result = out_of_place(*args, **kwargs)
        else:
            result = args[0].clone()
            func(result, *args[1:], **kwargs)
        self.replace(args[0], result)
        return result

    def check(self, *tensors: Tensor) -> None:
        """Refuses kept tensors that were changed in a way that has no other form, such as a part by its index.

        Raises:
            ProxyError: One has changed.
        """
        if not self.are_unchanged(*tensors):
            raise ProxyError(
                "the module changes part of a feature map in place, so that its value is lost to this proxy. Use the "
                "form that returns a new tensor"
            )

    def are_unchanged(self, *tensors: Tensor) -> bool:
        """Whether kept tensors have the values with which they were kept."""
        return all(self._by_id[id(tensor)].version == tensor._version for tensor in tensors)

    def _is_kept(self, value: object) -> bool:
        entry = self._by_id.get(id(value))
        return entry is not None and entry.version is not None

    def _entry(self, tensor: Tensor) -> _Tensor:
        number, entries = id(tensor), self._by_id
        if number not in entries:
            entries[number] = _Tensor(weakref.ref(tensor, lambda _: entries.pop(number, None)))
        return entries[number]
