"""Reads the pickles of published image data without running anything that they ask for.

``pickle.load`` calls whatever a file names, and numpy's own functions trust what they are called with: a file can have
them read any address. Here names are never looked up; stand-ins take the place of numpy's objects, and an array comes
out only where its bytes, type and shape fit together. ``pickletools`` parses the opcodes and checks their lengths.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

MAX_ENCODED = 400_000_000
"""Bytes of all texts that are made bytes; a file could ask for the same long one again and again."""

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_NAMES = {
    "_codecs encode": "encode",  # how Python 3 writes bytes for Python 2
    "numpy dtype": "dtype",
    "numpy ndarray": "ndarray",
    **{f"{module} _reconstruct": "_reconstruct" for module in _MULTIARRAY},
    **{f"{module} _frombuffer": "_frombuffer" for module in _NUMERIC},
}


class _Mark:
    """Where an open container begins."""


class _Name:
    """A name that a pickle asks for; it is never looked up."""

    def __init__(self, name: str) -> None:
        self.name = name


class _UInt8:
    """numpy's dtype of bytes, the only one that images have."""


class _Array:
    """A numpy array on its way: its content comes after it."""

    content: np.ndarray[Any, Any] | None = None


def load(content: bytes) -> Any:
    """The one object of a pickle: plain containers, numbers and text, and arrays of bytes.

    Args:
        content: The pickle; texts of Python 2 come out as bytes.

    Raises:
        ValueError: It is damaged, or asks for anything else.

    Example:
        >>> import pickle
        >>> load(pickle.dumps({b"labels": [1, 2]}, protocol=2))
        {b'labels': [1, 2]}
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        (value,) = machine.stack
    except (LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"its parts do not fit together ({type(error).__name__})") from error
    return _finished(value)


class _Machine:
    """The stack and the memo of a pickle that is read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0
        self.steps: dict[str, Callable[[], None]] = {
            "MARK": lambda: self.stack.append(_Mark()),
            "NONE": lambda: self.stack.append(None),
            "NEWTRUE": lambda: self.stack.append(True),
            "NEWFALSE": lambda: self.stack.append(False),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "EMPTY_TUPLE": lambda: self.stack.append(()),
            "TUPLE1": lambda: self.stack.append(tuple(self._pop(1))),
            "TUPLE2": lambda: self.stack.append(tuple(self._pop(2))),
            "TUPLE3": lambda: self.stack.append(tuple(self._pop(3))),
            "TUPLE": lambda: self.stack.append(tuple(self._since_mark())),
            "LIST": lambda: self.stack.append(self._since_mark()),
            "DICT": lambda: self.stack.append(_pairs(self._since_mark())),
            "APPEND": lambda: self._extend(self._pop(1)),
            "APPENDS": lambda: self._extend(self._since_mark()),
            "SETITEM": lambda: self._update(self._pop(2)),
            "SETITEMS": lambda: self._update(self._since_mark()),
            "STACK_GLOBAL": lambda: self._name(" ".join(self._pop(2))),
            "REDUCE": lambda: self.stack.append(self._call(*self._pop(2))),
            "BUILD": self._build,
            "PROTO": lambda: None,
            "FRAME": lambda: None,
        }

    def step(self, name: str, argument: Any) -> None:
        """Does one opcode."""
        if name in self.steps:
            self.steps[name]()
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self._name(argument)
        elif name in ("STRING", "BINSTRING", "SHORT_BINSTRING"):
            self.stack.append(argument.encode("latin1"))
        elif isinstance(argument, str | bytes | bytearray | int | float):
            self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        else:
            raise ValueError(f"image data need no {name}")

    def _pop(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError(count)
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        items = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise TypeError
        self.stack[-1].update(_pairs(items))

    def _name(self, name: str) -> None:
        if name not in _NAMES:
            raise ValueError(f"it asks for {name.replace(' ', '.')[:80]!r}, which is refused")
        self.stack.append(_Name(_NAMES[name]))

    def _call(self, wanted: Any, arguments: Any) -> Any:
        if not isinstance(wanted, _Name) or type(arguments) is not tuple:
            raise TypeError
        if wanted.name == "encode":
            text, _ = arguments
            self.encoded += len(text)
            if self.encoded > MAX_ENCODED:
                raise ValueError(f"its texts have more than {MAX_ENCODED:,} letters")
            return text.encode("latin1")
        if wanted.name == "dtype":
            if arguments[0] not in ("u1", b"u1", "uint8", b"uint8"):
                raise ValueError("it has an array of other numbers than bytes")
            return _UInt8()
        array = _Array()
        if wanted.name == "_frombuffer":
            raw, dtype, shape, order = arguments
            array.content = _bytes_as(raw, dtype, shape, order == "F")
        elif wanted.name != "_reconstruct":
            raise TypeError
        return array

    def _build(self) -> None:
        (state,) = self._pop(1)
        target = self.stack[-1]
        if isinstance(target, _Array):
            _, shape, dtype, column_major, raw = state
            target.content = _bytes_as(raw, dtype, shape, bool(column_major))
        elif not isinstance(target, _UInt8):  # its state is the byte order, which bytes have none of
            raise TypeError


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Keys and values by turns as a dict; a key that is no text could take forever to hash."""
    keys, values = items[::2], items[1::2]
    if not all(isinstance(key, str | bytes) for key in keys):
        raise TypeError
    return dict(zip(keys, values, strict=True))


def _bytes_as(raw: Any, dtype: Any, shape: Any, column_major: bool) -> np.ndarray[Any, Any]:
    """Bytes as an array of a shape that has as many."""
    if not isinstance(raw, bytes) or not isinstance(dtype, _UInt8) or type(shape) is not tuple:
        raise TypeError
    if not all(type(side) is int and 0 <= side <= len(raw) for side in shape):
        raise ValueError("an array's shape does not fit its content")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if column_major else "C")


def _finished(value: Any) -> Any:
    """An object without stand-ins at its top and one level below, where image data have their arrays."""
    if type(value) is dict:
        return {key: item.content if isinstance(item, _Array) else item for key, item in value.items()}
    return value.content if isinstance(value, _Array) else value
