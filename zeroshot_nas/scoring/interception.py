"""Contexts that see every call of a torch function, defined without loading torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode


class Interception:
    """While open, `__torch_function__` is called in place of each torch function; calls that it makes are not seen.

    Torch's own ``TorchFunctionMode`` does the work. It is a base class that must be loaded to derive from it, which a
    module that only defines proxies does not want.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._mode: TorchFunctionMode = _mode_class()(self)
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        mode = self._mode
        del self._mode  # it refers to this object: together they would wait for the garbage collector
        mode.__exit__(*error)  # type: ignore[no-untyped-call]


@cache
def _mode_class() -> Callable[[Interception], TorchFunctionMode]:
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __init__(self, interception: Interception) -> None:
            super().__init__()
            self.handle = interception.__torch_function__

        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Sequence[type],
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            return self.handle(func, types, args, kwargs)

    return Mode
