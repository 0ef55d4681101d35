"""Torch's functions intercepted, whether a module calls them or the code itself."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
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


def is_in_place(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
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


_OF_SHAPE = frozenset({"squeeze_", "swapaxes_", "swapdims_", "t_", "transpose_", "unsqueeze_"})
"""Functions that change no value in place, but how a tensor lies."""


@dataclass(slots=True)
class _Tensor:
    """What is known of a tensor: its version when it was kept, what stands in its place, and which views are kept."""

    reference: weakref.ref[Tensor]
    version: int | None = None
    replacement: Tensor | None = None
    kept_views: list[weakref.ref[Tensor]] = field(default_factory=list)


class KeptTensors:
    """Tensors that stay as they are: a function that would change one of them in place runs out of place.

    The code that runs still holds the tensor that it meant to change, and others of the same memory: what that is a
    view of, and its other views. Wherever it hands one of those over, a new tensor takes its place, as if it had been
    changed. References are weak, so that nothing lives longer for it.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, _Tensor] = {}  # a tensor that is gone takes its entry along, so that ids are of one each
        self.has_replaced = False

    def keep(self, tensor: Tensor) -> Tensor:
        """Keeps a tensor from now on."""
        entry = self._entry(tensor)
        if entry.version is None:
            with torch._C.DisableTorchFunction():
                entry.version = tensor._version
                if tensor._base is not None:
                    self._entry(tensor._base).kept_views.append(entry.reference)
        return tensor

    def replace(self, tensor: Tensor, replacement: Tensor) -> None:
        """From now on a tensor stands for another, and what shares its memory for what holds that."""
        self.has_replaced = True
        with torch._C.DisableTorchFunction():
            if tensor._base is None:
                self._entry(tensor).replacement = replacement
            else:
                self._entry(tensor._base).replacement = _written(tensor._base, tensor, replacement)

    def before_change(self, tensor: Tensor) -> Tensor:
        """What to compute a replacement from: gradients for kept views of its memory pass through them."""
        with torch._C.DisableTorchFunction():
            base = tensor if tensor._base is None else tensor._base
            views = [view for reference in self._entry(base).kept_views if (view := reference()) is not None]
        for view in views:
            self.replace(self.current(view), view)
        return self.current(tensor)  # type: ignore[no-any-return]

    def current(self, value: Any) -> Any:
        """The tensor that a value stands for; lists and tuples member by member, all else as it is."""
        if not self.has_replaced:
            return value
        if type(value) in (list, tuple):
            return type(value)(map(self.current, value))
        if not isinstance(value, torch.Tensor):
            return value
        with torch._C.DisableTorchFunction():
            return self._followed(value) if value._base is None else self._current_view(value, value._base)

    def _followed(self, whole: Tensor) -> Tensor:
        while (entry := self._by_id.get(id(whole))) is not None and entry.replacement is not None:
            whole = entry.replacement
        return whole

    def _current_view(self, view: Tensor, base: Tensor) -> Tensor:
        """The same part of what its base stands for: one tensor, until that changes again."""
        whole = self._followed(base)
        if whole is base:
            return view
        if whole.stride() != base.stride():
            laid_out = _in_strides_of(base, whole)
            self._entry(whole).replacement = whole = laid_out
        entry = self._entry(view)
        if entry.replacement is None or entry.replacement._base is not whole:
            entry.replacement = _as_in(whole, view, base)
        return entry.replacement

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Runs a torch function on current tensors.

        One that would change a kept tensor through its first argument runs out of place: by the function that returns a
        new tensor where there is one of the same arguments, else on a copy.
        """
        name = getattr(func, "__name__", "")
        if not (args and is_in_place(func, args, kwargs) and self._holds_kept(args[0], name)):
            return func(*args, **kwargs)
        given = self.before_change(args[0])
        out_of_place = getattr(torch.Tensor, name[:-1], None) if name.endswith("_") else None
        if callable(out_of_place):
            result = out_of_place(given, *args[1:], **kwargs)
        else:
            result = given.clone()
            func(result, *args[1:], **kwargs)
        self.replace(given, result)
        return self.current(args[0])

    def check(self, *tensors: Tensor) -> None:
        """Refuses kept tensors that were changed in a way that could not be seen, such as through NumPy.

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

    def _holds_kept(self, value: object, name: str) -> bool:
        """Whether a function of this name that changes a tensor changes a kept one."""
        if not isinstance(value, torch.Tensor):
            return False
        if value._base is not None and name in _OF_SHAPE:
            return False
        entry = self._by_id.get(id(value if value._base is None else value._base))
        return entry is not None and (entry.version is not None or any(view() is not None for view in entry.kept_views))

    def _entry(self, tensor: Tensor) -> _Tensor:
        number, entries = id(tensor), self._by_id
        if number not in entries:
            entries[number] = _Tensor(weakref.ref(tensor, lambda _: entries.pop(number, None)))
        return entries[number]


def _written(whole: Tensor, view: Tensor, values: Tensor) -> Tensor:
    """A copy of a tensor, with values where its view lies."""
    copy = _in_strides_of(whole, whole)
    _as_in(copy, view, whole).copy_(values)
    return copy


def _as_in(other: Tensor, view: Tensor, whole: Tensor) -> Tensor:
    """Of another tensor the part that a view is of its whole."""
    offset = view.storage_offset() - whole.storage_offset() + other.storage_offset()
    return other.as_strided(view.size(), view.stride(), offset)


def _in_strides_of(other: Tensor, values: Tensor) -> Tensor:
    """A copy of values that lie in memory as another tensor does."""
    return torch.empty_strided(other.size(), other.stride(), dtype=values.dtype, device=values.device).copy_(values)
