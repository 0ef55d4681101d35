"""The PlainNet grammar of Zen-NAS: ``Name(in,out,stride[,bottleneck],sub_layers)…``, a file format of chains."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec, BlockType
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.errors import ArchitectureError, did_you_mean

MAX_TEXT = 1 << 20
"""Characters of the longest architecture string taken; a network of a thousand layers has a tenth of it."""

_SIDES = re.compile(r"@\s*(\d{1,6})(?:x(\d{1,6}))?\s*\Z")

_TOKEN = re.compile(r"\s*(?P<type>\w+)\((?:\w*\|)?(?P<arguments>[^()|]*)\)\s*;?")


def read_plainnet(text: str, in_channels: int, options: Mapping[str, Any]) -> tuple[BlockSpec, ...]:
    """The blocks of a PlainNet string; labels, as in ``Name(label|…);``, are accepted and dropped.

    Args:
        text: The string.
        in_channels: Channels of the network's input.
        options: Fields that the grammar has no place for, such as ``squeeze_excite``; given to every block that has
            them.

    Raises:
        ArchitectureError: The string is malformed (position and token are named), two neighbours disagree about the
            channels between them (both are named), or no block has such an option.

    Example:
        >>> stem, block = read_plainnet("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)", 3, {})
        >>> block.out_channels, block.stride
        (16, 2)
    """
    _check_options(options)
    blocks: list[BlockSpec] = []
    channels, before = in_channels, "the input"
    for position, name, numbers in _tokens(text):
        taken, block = _read_block(_block_type(name, position), numbers, options, position)
        here = f"{name} at position {position}"
        if taken != channels:
            raise ArchitectureError(f"channels do not match: {before} gives {channels}, but {here} takes {taken}")
        blocks.append(block)
        channels, before = block.out_channels, here
    return tuple(blocks)


def read_sides(text: str, input_size: Shape) -> tuple[str, Shape]:
    """A text without the resolution behind it, ``...@24`` or ``...@24x48``, and the input size that this makes.

    Zen-NAS's grammar has none: it is what tells networks of several resolutions apart.

    Example:
        >>> read_sides("SuperConvK3BNRELU(3,8,1,1)@24", (3, 32, 32))
        ('SuperConvK3BNRELU(3,8,1,1)', (3, 24, 24))
    """
    found = _SIDES.search(text)
    if found is None:
        return text, input_size
    height, width = found.groups()
    return text[: found.start()].rstrip(), (input_size[0], int(height), int(width or height))


def write_sides(input_size: Shape) -> str:
    """What `read_sides` reads back.

    Example:
        >>> write_sides((3, 24, 24)), write_sides((3, 24, 48))
        ('@24', '@24x48')
    """
    _, height, width = input_size
    return f"@{height}" if height == width else f"@{height}x{width}"


def write_plainnet(blocks: Sequence[BlockSpec], in_channels: int) -> str:
    """The string that `read_plainnet` reads back, but for options.

    Raises:
        ArchitectureError: A block has no form in that grammar.
    """
    parts = []
    for block in blocks:
        if block.plainnet_fields is None:
            raise ArchitectureError(
                f"{block.type_name} has no PlainNet form; use to_string of its search space, or to_json"
            )
        numbers = [in_channels, *(getattr(block, name) for name in block.plainnet_fields)]
        parts.append(f"{block.type_name}({','.join(map(str, numbers))})")
        in_channels = block.out_channels
    return "".join(parts)


def _check_options(options: Mapping[str, Any]) -> None:
    if not options:
        return
    known = {
        name
        for block_type in map(BLOCKS.__getitem__, BLOCKS)
        for name in set(block_type.free_fields) - set(block_type.cls.plainnet_fields or block_type.free_fields)
    }
    for name in options:
        if name not in known:
            raise ArchitectureError(
                f"no block has the option {name!r}.{did_you_mean(name, known)} Options: {', '.join(sorted(known))}"
            )


def _tokens(text: str) -> Iterator[tuple[int, str, list[int]]]:
    """Position, block name and numbers of every block in a PlainNet string."""
    text, position = text.rstrip(), 0
    if len(text) > MAX_TEXT:
        raise ArchitectureError(f"an architecture string has at most {MAX_TEXT:,} characters, got {len(text):,}")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ArchitectureError(
                f"malformed architecture string at position {position}: expected Name(numbers), "
                f"got {text[position : position + 30]!r}"
            )
        start = match.start("arguments")
        yield match.start("type"), match["type"], [_number(part, start) for part in match["arguments"].split(",")]
        position = match.end()


def _number(token: str, position: int) -> int:
    if not re.fullmatch(r"\s*\d{1,12}\s*", token, re.ASCII):
        raise ArchitectureError(
            f"malformed architecture string at position {position}: expected whole numbers, got {token[:30]!r}"
        )
    return int(token)


def _block_type(name: str, position: int) -> BlockType:
    if name not in BLOCKS:
        raise ArchitectureError(f"unknown block type {name[:60]!r} at position {position}.{did_you_mean(name, BLOCKS)}")
    return BLOCKS[name]


def _read_block(
    block_type: BlockType, numbers: Sequence[int], options: Mapping[str, Any], position: int
) -> tuple[int, BlockSpec]:
    if block_type.cls.plainnet_fields is None:
        raise ArchitectureError(f"{block_type.name} at position {position} has no PlainNet form; use its search space")
    names = ("in_channels", *block_type.cls.plainnet_fields)
    if len(numbers) != len(names):
        raise ArchitectureError(
            f"{block_type.name} at position {position} takes {len(names)} numbers ({', '.join(names)}), "
            f"got {len(numbers)}"
        )
    values: dict[str, Any] = dict(zip(names, numbers, strict=True))
    values |= {name: value for name, value in options.items() if name in block_type.free_fields}
    in_channels = values.pop("in_channels")
    try:
        return in_channels, block_type(**values)
    except ArchitectureError as error:
        raise ArchitectureError(f"{block_type.name} at position {position}: {error}") from None
