"""Reads pickles of plain data, and torch files of them, without running anything that they ask for.

``pickle.load`` calls whatever a file names, and ``torch.load(weights_only=True)`` builds the whole content at once:
tens of gigabytes for NAS-Bench-201. The stack machine here knows containers, numbers, text and numpy's arrays of them.
It imports nothing, calls nothing that a file names, never recurses, takes no length on trust, and hands each finished
architecture to its caller, so that the curves over the epochs can go before the next one comes.

The opcodes are described in CPython's ``Lib/pickletools.py``, torch's two file layouts in ``torch/serialization.py``.
"""

from __future__ import annotations

import itertools
import lzma
import re
import struct
import zipfile
from array import array
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeAlias, cast

import numpy as np

from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.nasbench.formats.reading import DAMAGE, MAX_ROWS, check_ratio, open_stream

CHUNK = 1 << 20
"""Bytes that are read at a time."""

MAX_TEXT = 64 << 20
"""Bytes of the longest text or array taken; an architecture's name has a hundred."""

MAX_LIVE_BYTES = 64 << 20
"""Bytes of a pickle between two finished architectures; NATS-Bench needs 1 MB, a whole HW-NAS-Bench 10 MB."""

MAX_CONTAINERS = 4_000_000
"""Containers made, and numbers of arrays, between two finished architectures."""

MAX_MARKS = 100_000
"""Containers that are open at once."""

MAX_MEMO = 250_000_000
"""Objects that a pickle numbers, at 4 bytes each; NAS-Bench-201 numbers about 100 million."""

MAX_KEPT_BYTES = 512 << 20
"""Different texts that a pickle numbers, at their length and 150 bytes each."""

MAX_KEY = 1_000
"""Letters of all texts in a key that is a tuple, such as a data set and a seed; texts may be referred to many times."""

Summary: TypeAlias = Callable[[dict[Any, Any]], object]
"""Makes something small of an architecture's results."""

_ZIP_DAMAGE: tuple[type[Exception], ...] = (*DAMAGE, zipfile.BadZipFile, lzma.LZMAError, RuntimeError, struct.error)
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_LONGEST = 9  # bytes of the longest opcode of a fixed length, less one
_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})


class Dropped:
    """Stands for what is not kept: a tensor, or a container of an architecture that was summarised before."""


DROPPED = Dropped()


class _Global(NamedTuple):
    """A name that a pickle asks for; it is never looked up."""

    module: str
    name: str


class _Array(list[Any]):
    """A numpy array on its way: a list, filled when its content comes."""


class _DType:
    """A numpy dtype on its way: its byte order comes after it."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def numpy(self) -> np.dtype[Any] | None:
        """The dtype; None where it is of Python objects."""
        return None if self.code.startswith("O") else np.dtype(self.order.replace("|", "=") + self.code)


_CONTAINERS = frozenset(
    {"OrderedDict", "defaultdict", "set", "frozenset", "bytearray", "bytes", "list", "dict", "tuple"}
)
_ALLOWED = frozenset(
    [_Global("collections", name) for name in ("OrderedDict", "defaultdict")]
    + [
        _Global(module, name)
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "bytearray", "bytes", "list", "dict", "tuple", "int", "float", "str", "bool")
    ]
    + [_Global("_codecs", "encode"), _Global("numpy", "dtype"), _Global("numpy", "ndarray")]
    + [
        _Global(f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "scalar"), ("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
    ]
)


class _Source:
    """The bytes of a stream and the place in them; nine bytes after ``safe`` can be read without a look."""

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self.stream, self.file = stream, file
        self.buffer, self.at, self.end, self.safe, self.start = b"", 0, 0, 0, 0

    @property
    def position(self) -> int:
        return self.start + self.at

    def fail(self, what: str) -> NoReturn:
        raise FileFormatError(f"{self.file}: {what}, at byte {min(self.position, self.start + self.end)}")

    def _read(self, size: int) -> bytes:
        try:
            return self.stream.read(size)
        except _ZIP_DAMAGE as error:
            self.at = self.end
            self.fail(f"damaged or cut short: {error}")

    def refill(self) -> None:
        """Reads on until an opcode of any fixed length is there; zeros follow the end of the file."""
        parts, size = [self.buffer[self.at : self.end]], max(0, self.end - self.at)
        while size <= _LONGEST and (chunk := self._read(CHUNK)):
            parts.append(chunk)
            size += len(chunk)
        if not size:
            self.fail("cut short")
        ended = size <= _LONGEST
        self.start += self.at
        self.buffer, self.at, self.end = b"".join([*parts, bytes(_LONGEST + 1)] if ended else parts), 0, size
        self.safe = size if ended else size - _LONGEST

    def take(self, size: int, limit: int = MAX_TEXT) -> bytes:
        """The next ``size`` bytes, however many there really are."""
        if size > limit:
            self.fail(f"claims {size} bytes of text or numbers, and at most {limit} are taken")
        if self.at + size <= self.end:
            self.at += size
            return self.buffer[self.at - size : self.at]
        parts, left = [self.buffer[self.at : self.end]], size - max(0, self.end - self.at)
        self.start, self.buffer, self.at, self.end, self.safe = self.start + self.end, b"", 0, 0, 0
        while left > 0:
            chunk = self._read(min(CHUNK, left))
            if not chunk:
                self.fail("cut short")
            parts.append(chunk)
            self.start += len(chunk)
            left -= len(chunk)
        return b"".join(parts)

    def line(self) -> str:
        """The text up to the next newline, which is skipped."""
        text = bytearray()
        while (byte := self.take(1)) != b"\n":
            text += byte
            if len(text) > 200:
                self.fail("damaged: a name has more than 200 letters")
        return text.decode("ascii", "backslashreplace")

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def sized(self, size: int, limit: int = MAX_TEXT) -> bytes:
        """Bytes whose number comes first, in ``size`` bytes."""
        return self.take(self.number(size), limit)


class _Memo:
    """The objects that a pickle numbers so that it can refer to them: up to 100 million, most of them short-lived.

    A list of that many references takes 800 MB and keeps every object alive. So an entry is a number of four bytes,
    whose lowest bit says in which of two lists its object is to be looked for:

    - even, ``2 p``: a text or a name, at place p of ``kept``. Few differ, and they stay to the end.
    - odd, ``2 n + 1``: any other object, the n-th of the pickle. Those since the last finished architecture are in
      ``others``, of which the first is the ``first_other``-th; an earlier one is gone, and `DROPPED` stands for it.

    The loop of `Unpickler.load` reads ``entries`` and ``kept`` itself: a call an opcode would double its time.

    Args:
        source: Where the pickle comes from; it says what is wrong and where.
    """

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.entries = array("I")
        self.kept: list[Any] = []
        self.entry_of_text: dict[str, int] = {}
        self.kept_bytes = 0
        self.others: list[Any] = []
        self.first_other = 1  # there is no 0-th: 1, its entry, fills gaps

    def add(self, value: Any) -> int:
        """The entry for an object that was not met before."""
        if isinstance(value, str | _Global):
            entry = len(self.kept) << 1
            self.kept.append(value)
            self.kept_bytes += len(value) + 150
            if self.kept_bytes > MAX_KEPT_BYTES:
                self.source.fail("holds more text than a benchmark can have")
            if isinstance(value, str):
                self.entry_of_text[value] = entry
            return entry
        self.others.append(value)
        return (self.first_other + len(self.others) - 1) << 1 | 1

    def put(self, index: int, entry: int) -> None:
        """Files an entry out of turn; the gap before it holds entries of nothing."""
        if index >= min(MAX_MEMO, self.source.position):  # a pickle numbers by counting, and each takes a byte
            self.source.fail(f"damaged: it numbers an object {index}")
        if index >= len(self.entries):
            self.entries.extend([1] * (index + 1 - len(self.entries)))
        self.entries[index] = entry

    def other(self, entry: int) -> Any:
        """The object of an odd entry."""
        place = (entry >> 1) - self.first_other
        return self.others[place] if place >= 0 else DROPPED

    def drop_others(self) -> None:
        """Lets go of all objects but texts and names; their entries stay."""
        self.first_other += len(self.others)
        self.others.clear()


class Unpickler:
    """A pickle as a stream; containers, numbers, text and numpy's numbers come out as plain Python, arrays as lists.

    Args:
        stream: Where the bytes come from.
        file: The file's name for messages.
        tensors: Whether torch's objects may occur; `DROPPED` stands for each.
        marker: The key by which a dict is known to be the results of an architecture.
        summarise: Makes something small of such a dict, which takes its place; everything numbered before is
            forgotten then.

    Raises:
        FileFormatError: The file is damaged, asks for anything else, or makes more than a table can need.

    Example:
        >>> import io, pickle
        >>> Unpickler(io.BytesIO(pickle.dumps({"a": [1, 2.5]})), "demo").load()
        {'a': [1, 2.5]}
    """

    def __init__(
        self,
        stream: BinaryIO,
        file: str,
        *,
        tensors: bool = False,
        marker: str | None = None,
        summarise: Summary | None = None,
    ) -> None:
        self._source = _Source(stream, file)
        self._tensors, self._marker, self._summarise = tensors, marker, summarise
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._stack_handlers, self._read_handlers = self._handlers()
        self._reset()

    def _handlers(self) -> tuple[dict[int, Callable[[], None]], dict[int, Callable[[], None]]]:
        """What does each opcode that is not done in place: those of the stack alone, and those that read further."""
        push = self._stack.append
        on_stack: dict[bytes, Callable[[], None]] = {
            b"N": partial(push, None),
            b"\x88": partial(push, True),
            b"\x89": partial(push, False),
            b")": partial(push, ()),
            b"}": partial(self._make, dict),
            b"]": partial(self._make, list),
            b"\x8f": partial(self._make, set),
            b"\x85": partial(self._tuple, 1),
            b"\x86": partial(self._tuple, 2),
            b"\x87": partial(self._tuple, 3),
            b"t": lambda: self._make(tuple, self._since_mark()),
            b"l": lambda: self._make(list, self._since_mark()),
            b"\x91": lambda: self._make(frozenset, self._hashable(self._since_mark())),
            b"d": self._dict,
            b"(": lambda: self._marks.append(len(self._stack)),
            b"0": lambda: self._ignore(self._pops(1)),
            b"1": lambda: self._ignore(self._since_mark()),
            b"2": lambda: push(self._stack[-1]),
            b"a": lambda: self._extend([self._stack.pop()]),
            b"e": lambda: self._extend(self._since_mark()),
            b"\x90": self._add_items,
            b"s": lambda: self._fill(self._pops(2)),
            b"u": lambda: self._fill(self._since_mark()),
            b"\x93": lambda: self._find(*self._pops(2)),
            b"Q": self._persistent,
            b"\x81": self._reduce,
            b"R": self._reduce,
            b"b": self._build,
        }
        reading: dict[bytes, Callable[[], None]] = {
            b"c": lambda: self._find(self._source.line(), self._source.line()),
            b"i": lambda: self._refuse(self._source.line(), self._source.line()),
            b"X": lambda: push(self._source.sized(4).decode()),
            b"\x8d": lambda: push(self._source.sized(8).decode()),
            b"C": lambda: push(self._source.sized(1)),
            b"B": lambda: push(self._source.sized(4)),
            b"\x8e": lambda: push(self._source.sized(8)),
            b"\x96": lambda: push(self._source.sized(8)),
            b"U": lambda: push(self._source.sized(1).decode("latin1")),  # Python 2's text
            b"T": lambda: push(self._source.sized(4).decode("latin1")),
            b"\x8a": lambda: push(int.from_bytes(self._source.sized(1), "little", signed=True)),
            b"\x8b": lambda: push(int.from_bytes(self._source.sized(4, 255), "little", signed=True)),
            b"\x80": self._protocol,
            b"\x95": lambda: self._ignore(self._source.take(8)),  # a frame's length: nothing here reads ahead
        }
        return {code[0]: do for code, do in on_stack.items()}, {code[0]: do for code, do in reading.items()}

    def _reset(self) -> None:
        self._stack.clear()
        self._marks.clear()
        self._memo = _Memo(self._source)
        self._made = self._summaries = 0
        self._forgot_at = self._source.position

    def load(self) -> Any:
        """The next object of the stream, which may hold several.

        The opcodes that make up nearly all of a benchmark's file are done in place, most frequent first; every other
        one is a call of a handler.
        """
        self._reset()
        source, stack, push = self._source, self._stack, self._stack.append
        memo = self._memo
        entries, kept, known = memo.entries, memo.kept, memo.entry_of_text
        stack_handlers, read_handlers = self._stack_handlers, self._read_handlers
        double, short, signed = struct.Struct(">d").unpack_from, struct.Struct("<H").unpack_from, _INT.unpack_from
        unsigned = struct.Struct("<I").unpack_from
        buffer, at, safe = source.buffer, source.at, source.safe
        # `buffer`, `at` and `safe` mirror the source's own: what reads by a method of the source stores `at` before and
        # takes all three again after.
        try:
            while True:
                if at >= safe:
                    source.at = at
                    source.refill()
                    self._check_size()
                    buffer, at, safe = source.buffer, source.at, source.safe
                code = buffer[at]
                at += 1
                if code == 0x47:  # BINFLOAT
                    push(double(buffer, at)[0])
                    at += 8
                elif code == 0x94 or code == 0x71 or code == 0x72:  # MEMOIZE, BINPUT, LONG_BINPUT
                    if code == 0x94:
                        index = len(entries)
                    elif code == 0x71:
                        index = buffer[at]
                        at += 1
                    else:
                        index = unsigned(buffer, at)[0]
                        at += 4
                    value = stack[-1]
                    entry = known.get(value) if type(value) is str else None
                    if entry is None:
                        entry = memo.add(value)
                    else:
                        stack[-1] = kept[entry >> 1]  # one copy of each text
                    if index == len(entries):
                        entries.append(entry)
                    else:
                        source.at = at
                        memo.put(index, entry)
                elif code == 0x8C:  # SHORT_BINUNICODE
                    end = at + 1 + buffer[at]
                    if end <= source.end:
                        push(buffer[at + 1 : end].decode())
                        at = end
                    else:
                        source.at = at + 1
                        push(source.take(end - at - 1).decode())
                        buffer, at, safe = source.buffer, source.at, source.safe
                elif code == 0x68 or code == 0x6A:  # BINGET, LONG_BINGET
                    if code == 0x68:
                        entry = entries[buffer[at]]
                        at += 1
                    else:
                        entry = entries[unsigned(buffer, at)[0]]
                        at += 4
                    push(memo.other(entry) if entry & 1 else kept[entry >> 1])
                elif code == 0x4B:  # BININT1
                    push(buffer[at])
                    at += 1
                elif code == 0x4D:  # BININT2
                    push(short(buffer, at)[0])
                    at += 2
                elif code == 0x4A:  # BININT
                    push(signed(buffer, at)[0])
                    at += 4
                elif code in stack_handlers:
                    source.at = at
                    stack_handlers[code]()
                elif code == 0x2E:  # STOP
                    source.at = at
                    if at > source.end:
                        source.fail("cut short")
                    value = stack.pop()
                    self._reset()
                    return value
                else:
                    source.at = at
                    if code not in read_handlers:
                        source.at -= 1
                        source.fail("cut short" if at > source.end else f"damaged: no table needs opcode {code:#04x}")
                    read_handlers[code]()
                    buffer, at, safe = source.buffer, source.at, source.safe
        except FileFormatError:
            raise
        except (LookupError, ValueError, TypeError, struct.error, OverflowError) as error:
            source.at = at
            source.fail(f"damaged: {type(error).__name__} {str(error)[:80]}")

    def _check_size(self) -> None:
        live = self._source.position - self._forgot_at
        if live > MAX_LIVE_BYTES or max(self._made, len(self._memo.others) // 2) > MAX_CONTAINERS:
            self._source.fail("holds more at once than a benchmark's architecture can have")
        if len(self._marks) > MAX_MARKS or len(self._memo.entries) > MAX_MEMO:
            self._source.fail("holds more objects than a benchmark can have")

    def _forget(self) -> None:
        self._memo.drop_others()
        self._made, self._forgot_at = 0, self._source.position
        self._summaries += 1
        if self._summaries > MAX_ROWS or self._memo.first_other > MAX_MEMO:
            self._source.fail("holds more architectures than a benchmark can have")

    # What moves things on the stack.

    def _ignore(self, items: object) -> None:
        """Does nothing with what was taken."""

    def _make(self, kind: Callable[..., Any], *content: Any) -> None:
        self._made += 1
        self._stack.append(kind(*content))

    def _account(self, content: object) -> None:
        """Counts what is copied: a few bytes can ask for many copies of something large."""
        self._made += len(content) if isinstance(content, Sized) else 0
        if self._made > MAX_CONTAINERS:
            self._check_size()

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _pops(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError("too few objects")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _tuple(self, count: int) -> None:
        self._make(tuple, self._pops(count))

    def _dict(self) -> None:
        items = self._since_mark()
        self._make(dict)
        self._fill(items)

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif target is not DROPPED:
            raise TypeError(f"it appends to a {type(target).__name__}")

    def _add_items(self) -> None:
        items = self._hashable(self._since_mark())
        target = self._stack[-1]
        if not isinstance(target, set):
            raise TypeError(f"it adds to a {type(target).__name__}")
        target.update(items)

    def _fill(self, items: list[Any]) -> None:
        """Puts keys and values into the dict on the stack; an architecture's results are summarised on the way."""
        target = self._stack[-1]
        if target is DROPPED:
            return
        if type(target) is not dict or len(items) % 2:
            raise TypeError(f"it sets items of a {type(target).__name__}")
        keys, values = self._hashable(items[::2]), items[1::2]
        if self._summarise is not None and dict in set(map(type, values)):
            finished = [type(value) is dict and self._marker in value for value in values]
            if any(finished):
                values = [
                    self._summarise(value) if done else value for value, done in zip(values, finished, strict=True)
                ]
                target.update(zip(keys, values, strict=True))
                self._forget()
                return
        target.update(zip(keys, values, strict=True))

    def _hashable(self, keys: list[Any]) -> list[Any]:
        """Refuses keys that could not be hashed, or not without recursion."""
        if not set(map(type, keys)) <= _ATOMS:
            for key in keys:
                if type(key) not in _ATOMS and not (type(key) is tuple and set(map(type, key)) <= _ATOMS):
                    raise TypeError(f"a key is a {type(key).__name__}")
                if (
                    type(key) is tuple
                    and sum(len(part) if isinstance(part, str | bytes) else 1 for part in key) > MAX_KEY
                ):
                    raise ValueError(f"a key is a tuple of more than {MAX_KEY} letters")
        return keys

    # What stands for calls.

    def _find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is not text")
        wanted = _Global(module, name)
        torch = self._tensors and (module == "torch" or module.startswith("torch."))
        if wanted not in _ALLOWED and not torch:
            self._refuse(module, name)
        self._stack.append(wanted)

    def _refuse(self, module: str, name: str) -> NoReturn:
        shown = f"{module[:80]}.{name[:80]}".encode("ascii", "backslashreplace").decode()
        self._source.fail(
            f"refused: the pickle asks for {shown}, and tables hold nothing but containers, numbers and text"
        )

    def _persistent(self) -> None:
        self._stack.pop()
        if not self._tensors:
            self._source.fail("refused: the pickle asks for an object that is not in it")
        self._stack.append(DROPPED)

    def _reduce(self) -> None:
        arguments = self._stack.pop()
        wanted = self._stack.pop()
        self._made += 1
        if wanted is DROPPED or arguments is DROPPED:
            self._stack.append(DROPPED)
        elif not isinstance(wanted, _Global) or type(arguments) is not tuple:
            raise TypeError(f"it calls a {type(wanted).__name__}")
        elif wanted.module == "torch" or wanted.module.startswith("torch."):
            self._stack.append(DROPPED)
        elif wanted.name in _CONTAINERS:
            self._container(wanted.name, arguments)
        else:
            self._stack.append(self._value(wanted.name, arguments))

    def _container(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("OrderedDict", "defaultdict", "dict"):
            self._stack.append({})
            content = [] if name == "defaultdict" or not arguments else arguments[0]
            self._account(content)
            if not isinstance(content, list):
                raise TypeError("a dict is made of something else than pairs")
            if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in content):
                raise TypeError("a dict is made of something else than pairs")
            self._fill(list(itertools.chain.from_iterable(content)))
            return
        content = arguments[0] if arguments else []
        self._account(content)
        if name in ("bytearray", "bytes"):
            if not isinstance(content, bytes | list):
                raise TypeError("bytes are made of something else than bytes")
            self._stack.append(b"" if isinstance(content, list) else content)
            return
        if not isinstance(content, list | tuple):
            raise TypeError(f"a {name} is made of something else than a list")
        if name in ("set", "frozenset"):
            self._hashable(list(content))
        makers: dict[str, Callable[[Any], Any]] = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple}
        self._stack.append(makers[name](content))

    def _value(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "encode":  # how protocol 2 writes bytes
            text, codec = arguments
            if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
                raise TypeError("text is encoded otherwise than as bytes")
            self._account(text)
            return text.encode("latin1")
        if name == "dtype":
            code = arguments[0]
            if not isinstance(code, str) or not _DTYPE.fullmatch(code):
                self._source.fail(f"refused: a numpy array of {quoted(code)}, and tables hold numbers and text")
            return _DType(code)
        if name == "_reconstruct":
            return _Array()
        if name == "scalar":
            dtype, raw = arguments
            return self._numbers(dtype, raw, ())[0]
        if name == "_frombuffer":
            raw, dtype, shape, order = arguments
            found = _Array()
            found.extend(self._numbers(dtype, raw, shape, order == "F"))
            return found
        raise TypeError(f"it calls {name}")

    def _numbers(self, dtype: Any, raw: Any, shape: Any, column_major: Any = False) -> list[Any]:
        """The content of a numpy array as a list, or of a scalar as a list of one."""
        if not isinstance(dtype, _DType) or type(shape) is not tuple:
            raise TypeError("a numpy array is damaged")
        if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
            raise ValueError("a numpy array has no such shape")
        kind = dtype.numpy()
        if kind is None:
            if not isinstance(raw, list) or len(shape) != 1 or len(raw) != shape[0]:
                raise ValueError("a numpy array of objects is damaged")
            return raw
        if not isinstance(raw, bytes):
            raise TypeError("a numpy array is damaged")
        flat = np.frombuffer(raw, kind)
        if len(shape) > 2 or any(size > len(flat) for size in shape):
            raise ValueError("a numpy array has no such shape")
        self._account(flat)
        content = flat.reshape(shape, order="F" if column_major else "C").tolist()
        return content if isinstance(content, list) else [content]

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, _DType):
            if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
                raise TypeError("a numpy dtype is damaged")
            if state[3] is not None or state[4] is not None:
                self._source.fail("refused: a numpy array of records, and tables hold numbers and text")
            target.order = state[1]
        elif isinstance(target, _Array):
            _, shape, dtype, column_major, raw = state
            target[:] = self._numbers(dtype, raw, shape, column_major)
        elif target is not DROPPED and type(target) is not dict:  # torch hangs an attribute on its OrderedDicts
            raise TypeError(f"it sets the state of a {type(target).__name__}")

    def _protocol(self) -> None:
        if (protocol := self._source.number(1)) > 5:
            self._source.fail(f"damaged: there is no pickle protocol {protocol}")


_INT = struct.Struct("<i")
_DTYPE = re.compile(r"[biuf][1248]|b1|[SU]\d{1,4}|O8?")


def load_pickle(
    path: Path, *, tensors: bool = False, marker: str | None = None, summarise: Summary | None = None
) -> Any:
    """The content of a pickle file, which may be compressed by bz2 or gzip; see `Unpickler`."""
    with open_stream(path) as stream:
        return Unpickler(stream, str(path), tensors=tensors, marker=marker, summarise=summarise).load()


def load_torch(path: Path, *, marker: str | None = None, summarise: Summary | None = None) -> Any:
    """The content of a ``torch.save`` file, zip archive or the older layout, without its tensors; see `Unpickler`."""
    with _torch_stream(path) as stream:
        unpickler = Unpickler(stream, str(path), tensors=True, marker=marker, summarise=summarise)
        content = unpickler.load()
        if content == _TORCH_MAGIC and type(content) is int:  # then come the version, the byte order, the content
            unpickler.load()
            unpickler.load()
            content = unpickler.load()
        return content


@contextmanager
def _torch_stream(path: Path) -> Iterator[BinaryIO]:
    """The pickle in a torch file: an entry of a zip archive, or the file itself in the older layout."""
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:
        with open_stream(path) as stream:
            yield stream
        return
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_DAMAGE as error:
        raise FileFormatError(f"{path}: a zip archive that is damaged or cut short: {error}") from error
    with archive:
        names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise FileFormatError(f"{path}: a zip archive that is not torch's: expected one data.pkl in it")
        check_ratio(archive.getinfo(names[0]).file_size, path)
        try:
            entry = archive.open(names[0])
        except _ZIP_DAMAGE as error:
            raise FileFormatError(f"{path}: a zip archive that is damaged: {error}") from error
        with entry:
            yield cast(BinaryIO, entry)
