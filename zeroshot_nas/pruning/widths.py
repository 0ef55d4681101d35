"""The widths of an architecture that can be narrowed, and what is left of it when they are. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import BatchNorm, Conv, Gate, Graph, Op, Repeat, Residual
from zeroshot_nas.errors import ArchitectureError

OUT, _IN = "out_channels", "in"
"""Names of what a block writes, which is its field, and of what it reads, which is none."""

_IMAGE = (-1, OUT)
"""What the first block reads."""


class Outline(NamedTuple):
    """What a network computes apart from its widths, and these.

    Attributes:
        skeleton: Its operations without channels: equal where only widths differ.
        widths: Output channels of every convolution, in the order of the module's.
    """

    skeleton: tuple[Any, ...]
    widths: tuple[int, ...]


class Width(NamedTuple):
    """A width that can be narrowed, in all the places that must have the same.

    Attributes:
        places: Index of a block and name of its field.
        value: What it is.
    """

    places: tuple[tuple[int, str], ...]
    value: int


def separated(architecture: Architecture) -> Architecture:
    """The same operations in blocks of one sub-layer, wherever that is the same, so that each has widths of its own.

    Blocks whose first sub-layer alone has a projection stay whole: taken apart, they would have more of these.

    Example:
        >>> separated(Architecture.from_string("SuperConvK3BNRELU(3,8,2,2)SuperResK3K3(8,8,1,8,2)")).to_string()
        'SuperConvK3BNRELU(3,8,2,1)SuperConvK3BNRELU(8,8,1,1)SuperResK3K3(8,8,1,8,2)'
    """
    blocks: list[BlockSpec] = []
    for block, in_channels, _ in architecture.inputs():
        first, following = replace(block, sub_layers=1), replace(block, sub_layers=1, stride=1)
        apart = [first, *[following] * (block.sub_layers - 1)]
        ops: tuple[Op, ...] = ()
        channels = in_channels
        for part in apart:
            ops, channels = ops + part.lower(channels), part.out_channels
        blocks += apart if ops == _unrolled(block.lower(in_channels)) else [block]
    return replace(architecture, blocks=tuple(blocks))


def outline(architecture: Architecture) -> Outline:
    """The outline of a network.

    Raises:
        ArchitectureError: A block can't have its widths.
    """
    channels = architecture.input_size[0]
    skeleton: list[Any] = []
    widths: list[int] = []
    for block in architecture.blocks:
        own = _block_outline(block, channels)
        skeleton.append(own.skeleton)
        widths += own.widths
        channels = block.out_channels
    return Outline(tuple(skeleton), tuple(widths))


def outline_within(architecture: Callable[[], Architecture], skeleton: tuple[Any, ...]) -> Outline | None:
    """The outline of what a function makes, where it has a skeleton; None where it has another, or can't be made."""
    try:
        found = outline(architecture())
    except ArchitectureError:
        return None
    return found if found.skeleton == skeleton else None


def narrowed(architecture: Architecture, widths: Sequence[tuple[Width, int]]) -> Architecture:
    """The architecture with other values of some of its widths.

    Example:
        >>> network = Architecture.from_string("SuperConvK3BNRELU(3,8,2,1)SuperConvK1BNRELU(8,16,1,1)")
        >>> narrowed(network, [(free_widths(network)[0], 5)]).to_string()
        'SuperConvK3BNRELU(3,5,2,1)SuperConvK1BNRELU(5,16,1,1)'
    """
    changes: dict[int, dict[str, Any]] = {}
    for width, value in widths:
        for place, name in width.places:
            changes.setdefault(place, {})[name] = value
    blocks = list(architecture.blocks)
    for place, fields in changes.items():
        blocks[place] = replace(blocks[place], **fields)
    return replace(architecture, blocks=tuple(blocks))


def free_widths(architecture: Architecture) -> list[Width]:
    """The widths that can be narrowed so that nothing but widths changes.

    What is linked as long as widths are equal has one width: inside of a block, and from a block to the next.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,16,1,4,2)", (3, 8, 8))
        >>> [(width.places, width.value) for width in free_widths(net)]
        [(((0, 'out_channels'),), 8), (((1, 'out_channels'),), 16), (((1, 'bottleneck_channels'),), 4)]
    """
    skeleton = outline(architecture).skeleton
    found = []
    for places in _tied(architecture):
        place, name = places[0]
        width = Width(tuple(places), int(getattr(architecture.blocks[place], name)))
        if any(_keeps(architecture, width, value, skeleton) for value in _tries(width.value)):
            found.append(width)
    return found


def narrower(value: int, step: int) -> list[int]:
    """The values below one, down to the narrowest, in multiples of a step.

    Example:
        >>> narrower(3, 1), narrower(20, 8), narrower(8, 8)
        ([2, 1], [16, 8], [])
    """
    return list(range((value - 1) // step * step, 0, -step))


def _keeps(architecture: Architecture, width: Width, value: int, skeleton: tuple[Any, ...]) -> bool:
    return outline_within(lambda: narrowed(architecture, [(width, value)]), skeleton) is not None


def _tries(value: int) -> list[int]:
    return sorted({each for each in (1, value // 2, value - 1) if 0 < each < value})


def _tied(architecture: Architecture) -> list[list[tuple[int, str]]]:
    """All widths, those together that must be equal, but for those that must be as the image."""
    parents: dict[tuple[int, str], tuple[int, str]] = {_IMAGE: _IMAGE}

    def root(place: tuple[int, str]) -> tuple[int, str]:
        while parents[place] != place:
            place = parents[place]
        return place

    read, channels = _IMAGE, architecture.input_size[0]
    for index, block in enumerate(architecture.blocks):
        names = [name for name in block.field_kinds if name.endswith("_channels")]
        places = {_IN: read, **{name: (index, name) for name in names}}
        values = {_IN: channels, **{name: int(getattr(block, name)) for name in names}}
        parents |= {(index, name): (index, name) for name in names}
        held = [name for name in places if not _is_free(block, channels, name)]
        for one, other in itertools.combinations(held, 2):
            if values[one] == values[other]:
                parents[root(places[other])] = root(places[one])
        read, channels = (index, OUT), block.out_channels
    groups: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for place in parents:
        groups.setdefault(root(place), []).append(place)
    return [group for group in groups.values() if _IMAGE not in group]


def _is_free(block: BlockSpec, in_channels: int, name: str) -> bool:
    """Whether a block stays what it is where one of its widths alone gets narrower."""
    skeleton = _block_outline(block, in_channels).skeleton
    for value in _tries(in_channels if name == _IN else getattr(block, name)):
        changes: dict[str, Any] = {} if name == _IN else {name: value}
        try:
            other = _block_outline(replace(block, **changes), value if name == _IN else in_channels)
        except ArchitectureError:
            continue
        if other.skeleton == skeleton:
            return True
    return False


@lru_cache(maxsize=65_536)
def _block_outline(block: BlockSpec, in_channels: int) -> Outline:
    widths: list[int] = []
    return Outline(_skeleton(block.lower(in_channels), widths), tuple(widths))


def _skeleton(ops: tuple[Op, ...], widths: list[int]) -> tuple[Any, ...]:
    """The skeleton of a chain; the widths of its convolutions are added to a list."""
    return tuple(_bone(op, widths) for op in ops)


def _bone(op: Op, widths: list[int]) -> Any:
    if isinstance(op, Conv):
        widths.append(op.out_channels)
        return "conv", op.kernel_size, op.stride, op.dilation, op.bias
    if isinstance(op, BatchNorm):
        return "norm"
    if isinstance(op, Residual):
        return "residual", _skeleton(op.body, widths), _skeleton(op.shortcut, widths)
    if isinstance(op, Gate):
        return "gate", _skeleton(op.body, widths)
    if isinstance(op, Repeat):
        return "repeat", tuple(_skeleton(op.body, widths) for _ in range(op.times))
    if isinstance(op, Graph):
        return "graph", tuple(
            (node.join, tuple((edge.source, _skeleton(edge.ops, widths)) for edge in node.edges)) for node in op.nodes
        )
    return op


def _unrolled(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """A chain with its repeats written out."""
    flat: list[Op] = []
    for op in ops:
        flat += op.body * op.times if isinstance(op, Repeat) else (op,)
    return tuple(flat)
