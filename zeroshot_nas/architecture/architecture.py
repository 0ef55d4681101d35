"""The frozen `Architecture`: blocks in order, and its JSON. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

from zeroshot_nas.architecture.blockspec import (
    BLOCKS,
    MAX_NUMBER,
    BlockSpec,
    block_steps,
    single_sub_layer,
    weighted_layers,
)
from zeroshot_nas.architecture.ops import GlobalPool, Linear, Op, Resolution, Shape
from zeroshot_nas.architecture.plainnet import read_plainnet, read_sides, write_plainnet
from zeroshot_nas.architecture.structure_list import is_structure_list, read_structure_list
from zeroshot_nas.core.checks import as_shape, check_format
from zeroshot_nas.core.html import html_table
from zeroshot_nas.core.text import quoted, read_json
from zeroshot_nas.errors import ArchitectureError, did_you_mean

MAX_LAYERS = 1_000
"""Layers beyond which an architecture is refused: the deepest published one here has 30."""

_SCREEN, _ENDS = 1_400, 3
"""Characters of the blocks that ``repr`` shows whole, and how many it shows at either end of more."""

_IN_TABLE = ("out_channels", "stride", "sub_layers")
"""Fields that have a column of their own."""

WEIGHT_BITS = (2, 4, 8)
"""Bits that a layer's weights may have."""

_JSON_FORMAT = "zeroshot_nas.architecture"
_JSON_VERSION = 1


@dataclass(frozen=True)
class Architecture:
    """A network as data: blocks in order, then global average pooling and a linear classifier.

    Args:
        blocks: The blocks, first to last.
        input_size: Channels, height and width of one image.
        num_classes: Outputs of the classifier.
        weight_bits: Bits of the weights of every convolution and linear layer, in the order of `lower`, on a
            microcontroller; None stands for 8 in all. Training in floating point does not read them, `quantize_aware`
            and the export to ``tflite`` do. A PlainNet string has no place for them.

    Attributes:
        layers: Depth as Zen-NAS counts it: the sum of sub-layers.

    Raises:
        ArchitectureError: No blocks, a size below 1, more than `MAX_LAYERS` layers, or ``weight_bits`` are not one of
            `WEIGHT_BITS` for each convolution and linear layer.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,16,2,8,1)", (1, 8, 8))
        >>> net.to_string()
        'SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,16,2,8,1)'
        >>> net.layers, net.feature_shape
        (2, (16, 4, 4))
    """

    blocks: tuple[BlockSpec, ...]
    input_size: Shape = (3, 32, 32)
    num_classes: int = 10
    weight_bits: tuple[int, ...] | None = None
    layers: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if type(self.blocks) is not tuple or type(self.input_size) is not tuple:  # lists are welcome, but don't hash
            object.__setattr__(self, "blocks", tuple(self.blocks))
            object.__setattr__(self, "input_size", tuple(self.input_size))
        if not self.blocks:
            raise ArchitectureError("an architecture needs at least one block, got none")
        _check_sizes(self.input_size, self.num_classes)
        layers = sum([block.sub_layers for block in self.blocks])
        if layers > MAX_LAYERS:
            raise ArchitectureError(f"the architecture has {layers:,} layers; the limit is {MAX_LAYERS:,}")
        object.__setattr__(self, "layers", layers)
        if self.weight_bits is not None:
            object.__setattr__(self, "weight_bits", _checked_bits(self.weight_bits, self.weighted_layers))

    def inputs(self) -> Iterator[tuple[BlockSpec, int, Resolution]]:
        """Every block with its input channels and resolution."""
        channels, *sides = self.input_size
        resolution = (sides[0], sides[1])
        for block in self.blocks:
            yield block, channels, resolution
            resolution = block_steps(block, channels, resolution).resolution
            channels = block.out_channels

    def lower(self) -> tuple[tuple[Op, ...], ...]:
        """The operations of every block, and of the head last."""
        bodies = tuple(block.lower(in_channels) for block, in_channels, _ in self.inputs())
        return (*bodies, head(self.blocks[-1].out_channels, self.num_classes))

    @property
    def weighted_layers(self) -> int:
        """Convolutions and linear layers, as ``weight_bits`` has them; `layers` counts as Zen-NAS does."""
        return 1 + sum(_weighted_layers(*each) for each in self.inputs())

    def bits_by_block(self) -> tuple[tuple[int, ...], ...] | None:
        """``weight_bits`` of every block, and of the classifier last; None where it says nothing of bits."""
        if self.weight_bits is None:
            return None
        bits = iter(self.weight_bits)
        counts = [*(_weighted_layers(*each) for each in self.inputs()), 1]
        return tuple(tuple(islice(bits, count)) for count in counts)

    @property
    def feature_shape(self) -> Shape:
        """Shape ``(C, H, W)`` of the feature map before pooling."""
        *_, last = self.inputs()
        return (self.blocks[-1].out_channels, *block_steps(*last).resolution)

    @cached_property
    def key(self) -> str:
        """A digest of the canonical JSON: equal exactly where architectures are equal."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def to_string(self) -> str:
        """The PlainNet string of Zen-NAS (input size, classes and squeeze-and-excitation are not part of it).

        Raises:
            ArchitectureError: A block has no form in that grammar; its space has a ``to_string``.
        """
        return write_plainnet(self.blocks, self.input_size[0])

    @classmethod
    def from_string(
        cls, text: str, input_size: Sequence[int] = (3, 32, 32), num_classes: int = 10, **block_options: Any
    ) -> Architecture:
        """Reads a PlainNet string: ``Name(in,out,stride[,bottleneck],sub_layers)…``, also ``Name(label|…);``.

        A structure list of TinyNAS, as DeepMAD's networks are published, is read too:
        ``[{'class': 'SuperResK1KXK1', 'in': 32, 'out': 96, ...}, ...]``.

        Args:
            text: The string; labels are accepted and dropped. A resolution behind it, ``@24`` or ``@24x48``, as spaces
                write it whose networks differ in it, stands in place of that of ``input_size``.
            input_size: ``(C, H, W)`` of one image.
            num_classes: Outputs of the classifier.
            block_options: Fields of blocks that the grammar has no place for, given to every block that has them:
                ``squeeze_excite=True`` is what Zen-NAS's ``--use_se`` does.

        Raises:
            ArchitectureError: The string is malformed (position and token are named), two neighbours disagree about
                the channels between them (both are named), or no block has such an option.
        """
        if not isinstance(text, str):
            raise ArchitectureError(
                f"from_string takes text such as 'SuperConvK3BNRELU(3,8,1,1)', got {quoted(text)}; "
                "get_space(name).from_string reads a cell's text"
            )
        text, size = read_sides(text, as_shape(input_size, ArchitectureError))
        if is_structure_list(text) and not block_options:
            blocks = read_structure_list(text, size)
        else:
            blocks = read_plainnet(text, size[0], block_options)
        return cls(blocks, size, num_classes)

    def __repr__(self) -> str:
        """One screen: of a deep network the first and the last blocks."""
        blocks = [repr(block) for block in self.blocks]
        if sum(map(len, blocks)) > _SCREEN:
            left = len(blocks) - 2 * _ENDS
            blocks = [*blocks[:_ENDS], f"... {left} more ...", *blocks[-_ENDS:]] if left > 0 else blocks
        tail = "," if len(blocks) == 1 else ""
        ends = f"input_size={self.input_size}, num_classes={self.num_classes}"
        ends += "" if self.weight_bits is None else f", weight_bits={self.weight_bits}"
        return f"Architecture(blocks=({', '.join(blocks)}{tail}), {ends})"

    def _repr_html_(self) -> str:
        """A table of its blocks, for notebooks."""
        size = "x".join(map(str, self.input_size))
        title = f"Architecture: {size} to {self.num_classes:,} classes, {self.layers:,} layers"
        rows = []
        for place, (block, width, resolution) in enumerate(self.inputs()):
            after = block_steps(block, width, resolution).resolution
            free = BLOCKS[block.type_name].free_fields
            values = {name: getattr(block, name) for name in free if name not in _IN_TABLE}
            more = ", ".join(f"{name} {value}" for name, value in values.items() if value is not False)
            sizes = (f"{width} → {block.out_channels}", block.stride, f"{after[0]}x{after[1]}", block.sub_layers)
            rows.append((place, block.type_name, *sizes, more))
        head = ("block", "kind", "channels", "stride", "map", "sub-layers", "further")
        return html_table(title, rows, head)

    def __str__(self) -> str:
        """The PlainNet string where there is one, which commands take; else what ``repr`` gives."""
        try:
            return self.to_string()
        except ArchitectureError:
            return repr(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers and numbers, as `to_json` writes them."""
        return {
            "format": _JSON_FORMAT,
            "version": _JSON_VERSION,
            "input_size": list(self.input_size),
            "num_classes": self.num_classes,
            "blocks": [
                {
                    "type": block.type_name,
                    **{name: getattr(block, name) for name in BLOCKS[block.type_name].free_fields},
                }
                for block in self.blocks
            ],
            **({} if self.weight_bits is None else {"weight_bits": list(self.weight_bits)}),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Architecture:
        """Reads what `to_dict` gives.

        Raises:
            ArchitectureError: A key is missing, unknown, or of the wrong type.
        """
        check_format(data, _JSON_FORMAT, _JSON_VERSION, "an architecture", error=ArchitectureError)
        if unknown := set(data) - {"format", "version", "blocks", "input_size", "num_classes", "weight_bits"}:
            raise ArchitectureError(f"architecture JSON has unknown keys: {', '.join(sorted(map(str, unknown)))}")
        entries, input_size, num_classes = (data.get(key) for key in ("blocks", "input_size", "num_classes"))
        if not isinstance(entries, list) or not isinstance(input_size, list) or not isinstance(num_classes, int):
            raise ArchitectureError(
                "architecture JSON needs 'blocks' and 'input_size' (lists) and 'num_classes' (a number)"
            )
        blocks, size = tuple(map(_block_from_dict, entries)), as_shape(input_size, ArchitectureError)
        return cls(blocks, size, num_classes, data.get("weight_bits"))

    def to_json(self, indent: int | None = None) -> str:
        """The architecture as JSON text; `from_json` reads it back.

        Example:
            >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)")
            >>> Architecture.from_json(net.to_json()) == net
            True
        """
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Reads `to_json`'s text.

        Raises:
            ArchitectureError: The text is not JSON, or not an architecture.
        """
        try:
            data = read_json(text)
        except ValueError as error:
            raise ArchitectureError(f"not JSON: {error}") from None
        return cls.from_dict(data)


class HasArchitecture(Protocol):
    """Anything with an architecture, such as a search's `Candidate`."""

    @property
    def architecture(self) -> Architecture: ...


def architecture_of(model: object) -> Architecture | None:
    """The architecture that a model is or has; None for a foreign module.

    Example:
        >>> architecture_of(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)")).layers
        1
    """
    found = model if isinstance(model, Architecture) else getattr(model, "architecture", None)
    return found if isinstance(found, Architecture) else None


def head(channels: int, num_classes: int) -> tuple[Op, ...]:
    """The operations behind the blocks: pooling and classifier."""
    return GlobalPool(), Linear(channels, num_classes)


def _check_sizes(input_size: Shape, num_classes: int) -> None:
    sizes = (*input_size, num_classes)
    for size in sizes:
        if type(size) is not int or not 1 <= size <= MAX_NUMBER or len(sizes) != 4:
            raise ArchitectureError(
                f"expected input_size (C, H, W) and num_classes as whole numbers of 1 or more, "
                f"got {input_size!r:.80} and {num_classes!r:.40}"
            )


def _weighted_layers(block: BlockSpec, in_channels: int, resolution: Resolution) -> int:
    single = single_sub_layer(block)
    found = weighted_layers(single, in_channels, resolution)
    if block.sub_layers > 1:
        found += (block.sub_layers - 1) * weighted_layers(single, None, resolution)
    return found


def _checked_bits(bits: Any, layers: int) -> tuple[int, ...]:
    """Bits of so many layers' weights as a tuple.

    Raises:
        ArchitectureError: They are not one of `WEIGHT_BITS` for each layer.
    """
    valid = isinstance(bits, list | tuple) and len(bits) == layers
    if not valid or any(type(each) is not int or each not in WEIGHT_BITS for each in bits):
        raise ArchitectureError(
            f"weight_bits are 2, 4 or 8 for each of the network's {layers} convolutions and linear layers, "
            f"got {bits!r:.80}"
        )
    return tuple(bits)


def _block_from_dict(entry: Any) -> BlockSpec:
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise ArchitectureError(f"a block is a JSON object with a 'type', got {str(entry)[:60]!r}")
    values = dict(entry)
    name = values.pop("type")
    if name not in BLOCKS:
        raise ArchitectureError(f"unknown block type {name[:60]!r}.{did_you_mean(name, BLOCKS)}")
    block_type = BLOCKS[name]
    if set(values) != set(block_type.free_fields):
        raise ArchitectureError(
            f"{name} takes the fields {', '.join(block_type.free_fields)}; got {', '.join(sorted(map(str, values)))}"
        )
    return block_type(**values)
