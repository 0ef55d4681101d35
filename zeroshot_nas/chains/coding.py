"""Chains of blocks as whole numbers, a row a network: what a search moves, costs and scores by the thousand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from threading import Lock
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.architecture.ops import Graph, Shape

Codes: TypeAlias = NDArray[np.int64]

_BITS = {"bottleneck_channels": 16, "out_channels": 16, "sub_layers": 10, "stride": 4, "squeeze_excite": 1, "type": 10}
"""Bits of a code's fields, the lowest first."""

_SHIFTS = dict(zip(_BITS, np.cumsum([0, *_BITS.values()]).tolist(), strict=False))
_FIELDS = frozenset(_BITS) - {"type"}


class _Type(NamedTuple):
    """What of a block is no number of its code.

    Attributes:
        name: Its registered name.
        cls: Its class; a name may be registered anew.
        others: Its further fields, as pairs of name and value.
    """

    name: str
    cls: type[BlockSpec]
    others: tuple[tuple[str, Any], ...]


_types: list[_Type | None] = [None]  # those that were met so far, each by its number; 0 is no block
_numbers: dict[_Type, int] = {}


_numbering = Lock()  # executors may have threads


def _number_of(own: _Type, block: BlockSpec) -> int | None:
    """The number of a type, a new one where it has none; None where its blocks have no code."""
    if own not in _numbers:
        has_graph = own.others and any(isinstance(op, Graph) for op in block.first(block.out_channels))
        if has_graph or len(_types) == 1 << _BITS["type"]:
            return None
        _numbers[own] = len(_types)
        _types.append(own)
    return _numbers[own]


@lru_cache(maxsize=65_536)
def encoded(block: BlockSpec) -> int | None:
    """A block as a number; None where it has a graph, or a value that a code has no room for."""
    fields = BLOCKS[block.type_name].free_fields
    own = _Type(
        block.type_name, type(block), tuple((name, getattr(block, name)) for name in fields if name not in _FIELDS)
    )
    with _numbering:
        number = _number_of(own, block)
    if number is None:
        return None
    code: int = number << _SHIFTS["type"]
    for name in _FIELDS.intersection(fields):
        value = int(getattr(block, name))
        if value >> _BITS[name]:
            return None
        code |= value << _SHIFTS[name]
    return code


@lru_cache(maxsize=65_536)
def decoded(code: int) -> BlockSpec:
    """The block of a code; the same object for the same code."""
    own = _types[code >> _SHIFTS["type"]]
    assert own is not None, "0 is no code"
    block_type = BLOCKS[own.name]
    values: dict[str, Any] = dict(own.others)
    for name in _FIELDS.intersection(block_type.free_fields):
        value = code >> _SHIFTS[name] & (1 << _BITS[name]) - 1
        values[name] = bool(value) if name == "squeeze_excite" else value
    return block_type(**values)


def kind_of(codes: Codes) -> Codes:
    """Type, stride and gate of coded blocks as one number below `KINDS`."""
    kinds: Codes = codes >> _SHIFTS["stride"]
    return kinds


KINDS = 1 << sum(_BITS[name] for name in ("stride", "squeeze_excite", "type"))
"""Numbers that `kind_of` gives at most."""


def type_of_kind(kind: int) -> int:
    """The type's number in what `kind_of` gives."""
    return int(kind >> _SHIFTS["type"] - _SHIFTS["stride"])


def block_of_kind(kind: int, out_channels: int, bottleneck_channels: int) -> BlockSpec:
    """A block of one sub-layer."""
    widths = out_channels << _SHIFTS["out_channels"] | bottleneck_channels
    return decoded(kind << _SHIFTS["stride"] | 1 << _SHIFTS["sub_layers"] | widths)


def field_of(codes: Codes, name: str) -> Codes:
    """A field of coded blocks: ``"out_channels"``, ``"type"`` and so on.

    Example:
        >>> block = BLOCKS["SuperResK3K3"](out_channels=16, bottleneck_channels=8, stride=2)
        >>> codes = np.array([encoded(block)])
        >>> [field_of(codes, name).tolist() for name in ("out_channels", "bottleneck_channels", "stride")]
        [[16], [8], [2]]
    """
    values: Codes = codes >> _SHIFTS[name] & (1 << _BITS[name]) - 1
    return values


def with_field(codes: Codes, name: str, values: Codes | int) -> Codes:
    """Coded blocks with another value of a field."""
    mask = (1 << _BITS[name]) - 1 << _SHIFTS[name]
    changed: Codes = codes & ~mask | np.asarray(values, np.int64) << _SHIFTS[name]
    return changed


@dataclass(frozen=True, eq=False)
class Chains(Sequence[Architecture]):
    """Networks of chains, a row of codes each; as a sequence, their architectures, made when they are asked for.

    Attributes:
        codes: ``(networks, blocks)``: 0 behind a network's last block.
        input_size: Shape ``(C, H, W)`` of one image; of networks with ``sides`` of their own its channels alone count.
        num_classes: Outputs of the classifier.
        sides: Height and width of each network's images ``(networks, 2)``; None where all have those of ``input_size``.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,16,2,8,3)", (1, 8, 8))
        >>> chains = Chains.of([net, net])
        >>> chains.codes.shape, chains[1] == net, chains.layers.tolist()
        ((2, 2), True, [4, 4])
    """

    codes: Codes
    input_size: Shape
    num_classes: int
    sides: Codes | None = None

    @classmethod
    def of(cls, architectures: Sequence[Architecture]) -> Chains:
        """Architectures of as many channels and classes that have a code; see `has_code`."""
        if isinstance(architectures, Chains):
            return architectures
        first = architectures[0]
        rows = [[encoded(block) or 0 for block in each.blocks] for each in architectures]
        codes = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for place, row in enumerate(rows):
            codes[place, : len(row)] = row
        sizes = [each.input_size for each in architectures]
        sides = None if sizes.count(first.input_size) == len(sizes) else np.array(sizes)[:, 1:]
        return cls(codes, first.input_size, first.num_classes, sides)

    def __reduce__(self) -> tuple[Any, ...]:
        return Chains.of, (list(self),)  # numbers of types are this process's own

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, place: int) -> Architecture: ...
    @overload
    def __getitem__(self, place: slice) -> Chains: ...
    def __getitem__(self, place: int | slice) -> Architecture | Chains:
        if isinstance(place, slice):
            return self.take(place)
        row, size = self.codes[place], self.input_size
        if self.sides is not None:
            size = (size[0], *self.sides[place].tolist())
        return Architecture(tuple(map(decoded, row[row > 0].tolist())), size, self.num_classes)

    def take(self, places: Any) -> Chains:
        """The networks in these places, of an array or a slice."""
        sides = None if self.sides is None else self.sides[places]
        return Chains(self.codes[places], self.input_size, self.num_classes, sides)

    def joined(self, others: Chains) -> Chains:
        """These networks and others behind them."""
        codes, sides = stacked(self.codes, others.codes), None
        if self.sides is not None or others.sides is not None or self.input_size != others.input_size:
            sides = np.concatenate([self.sides_of_each, others.sides_of_each])
        return Chains(codes, self.input_size, self.num_classes, sides)

    @property
    def sides_of_each(self) -> Codes:
        """Height and width of each network's images ``(networks, 2)``."""
        return np.tile(self.input_size[1:], (len(self), 1)) if self.sides is None else self.sides

    @property
    def resolution(self) -> tuple[Any, Any]:
        """Height and width of images: two numbers, or a column each where they differ."""
        _, height, width = self.input_size
        return (height, width) if self.sides is None else (self.sides[:, 0], self.sides[:, 1])

    @cached_property
    def layers(self) -> Codes:
        """Depth of each network, as Zen-NAS counts it."""
        layers: Codes = field_of(self.codes, "sub_layers").sum(1)
        return layers

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """A number of 64 bits for each network, of its blocks and the size of its images alone."""
        height, width = self.resolution
        digest = np.full(len(self.codes), height << 32 | width, np.uint64)
        for column in self.codes.T.astype(np.uint64):
            digest = np.where(column > 0, mixed(digest ^ column), digest)  # so that padding changes nothing
        return digest


def has_code(architecture: Architecture) -> bool:
    """Whether all blocks of a network can be written as numbers."""
    return all(encoded(block) is not None for block in architecture.blocks)


_ODD = np.uint64(0x9E3779B97F4A7C15)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers of 64 bits, each as another one in which all of its bits count; no two become the same."""
    found = values * _ODD
    found ^= found >> np.uint64(29)
    return found


def stacked(first: Codes, second: Codes) -> Codes:
    """Rows of codes and others behind them, padded to one width."""
    rows, width = len(first), max(first.shape[1], second.shape[1])
    codes = np.zeros((rows + len(second), width), np.int64)
    codes[:rows, : first.shape[1]], codes[rows:, : second.shape[1]] = first, second
    return codes
