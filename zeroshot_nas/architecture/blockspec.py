"""Blocks as data: `BlockSpec`, the registry of block types, and their operations with shapes. No torch here."""

from __future__ import annotations

import hashlib
import itertools
import reprlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple, TypeVar, get_type_hints

from zeroshot_nas.architecture.ops import Conv, Linear, Op, Repeat, Resolution, Shape, Step, walk
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import ArchitectureError, did_you_mean

MAX_NUMBER = 1_000_000_000
"""The largest number in an architecture."""


@dataclass(frozen=True)
class BlockSpec(ABC):
    """One block as data. A subclass says how it lowers; costs, modules and closed forms follow from that.

    A block is a first sub-layer, which takes the stride and the change of channels, and equal ones behind it.

    A subclass is a frozen dataclass registered with `register_block`, whose fields are annotated as ``int`` (1 to
    `MAX_NUMBER`), ``bool`` or ``str``. Input channels are not part of a block: they follow from the block before it.

    Attributes:
        out_channels: Channels of the block's output.
        stride: Factor by which height and width shrink.
        sub_layers: How often the block's unit is repeated; what Zen-NAS counts as layers.
        depth_field: The field that makes the block deeper; None for a part that stands once in any network.
    """

    out_channels: int
    stride: int = 1
    sub_layers: int = 1

    depth_field: ClassVar[str | None] = "sub_layers"
    type_template: ClassVar[str]
    plainnet_fields: ClassVar[tuple[str, ...] | None]
    field_kinds: ClassVar[Mapping[str, type]]
    _hash: ClassVar[int]  # an instance's, kept from its creation

    def __post_init__(self) -> None:
        values: list[int] = []
        for name, kind in self.field_kinds.items():
            value: Any = getattr(self, name)
            of_kind = type(value) is kind
            if not of_kind or (kind is int and not 0 < value <= MAX_NUMBER):
                raise ArchitectureError(f"{type(self).__name__}.{name} must be {_EXPECTED[kind]}, got {_shown(value)}")
            values.append(_digest(value) if kind is str else value)
        # once, and from numbers alone, so that it is cheap and the same in every process
        object.__setattr__(self, "_hash", hash((_type_number(self.type_name), *values)))

    @property
    def type_name(self) -> str:
        """The registered name: ``"SuperResK1K7K1"``."""
        return self.type_template.format(**vars(self))

    @abstractmethod
    def first(self, in_channels: int) -> tuple[Op, ...]:
        """The operations of the first sub-layer."""

    def following(self) -> tuple[Op, ...]:
        """The operations of each further sub-layer, which keeps channels and resolution."""
        return (self if self.stride == 1 else replace(self, stride=1)).first(self.out_channels)

    def outline(self) -> BlockSpec | None:
        """A block one channel wide that stands for this one where neither resolution nor channels change.

        A further sub-layer of this block is one of the outline with ``out_channels`` times as many channels in all
        places, but for dead branches. None where there is no such block.
        """
        return None

    def lower(self, in_channels: int) -> tuple[Op, ...]:
        """All the block's operations."""
        first = self.first(in_channels)
        return first if self.sub_layers == 1 else (*first, Repeat(self.following(), self.sub_layers - 1))


@dataclass(frozen=True)
class BlockType:
    """A registered block name: a class with the fields that the name fixes."""

    name: str
    cls: type[BlockSpec]
    fixed: Mapping[str, int]

    def __call__(self, **values: Any) -> BlockSpec:
        return self.cls(**values, **self.fixed)

    @cached_property
    def free_fields(self) -> tuple[str, ...]:
        return tuple(each.name for each in fields(self.cls) if each.name not in self.fixed)


BLOCKS: Registry[BlockType] = Registry("block type", package="zeroshot_nas.blocks")


def list_blocks() -> list[str]:
    """Names of the registered block types.

    Example:
        >>> "SuperResK3K3" in list_blocks()
        True
    """
    return list(BLOCKS)


_Block = TypeVar("_Block", bound=type[BlockSpec])


def register_block(
    template: str, *, plainnet_fields: Sequence[str] | None, **choices: Sequence[int]
) -> Callable[[_Block], _Block]:
    """Registers a block class under every name that ``template`` gives; ``examples/add_a_block.py`` is one.

    Args:
        template: Name with a replacement field for each choice: ``"SuperResK{kernel_size}K{kernel_size}"``.
        plainnet_fields: Fields after ``in_channels`` in the PlainNet grammar, in order; None where it has no form.
        choices: Values of the fields that the name fixes.

    Example:
        >>> BLOCKS["SuperResK5K5"](out_channels=16, bottleneck_channels=8).type_name
        'SuperResK5K5'
    """

    def register(cls: _Block) -> _Block:
        cls.type_template = template
        cls.field_kinds = _field_kinds(cls)
        cls.__hash__ = _kept_hash  # type: ignore[assignment,method-assign]  # else the dataclass's own, slow one
        cls.plainnet_fields = None if plainnet_fields is None else tuple(plainnet_fields)
        for values in itertools.product(*choices.values()):
            fixed = dict(zip(choices, values, strict=True))
            name = template.format(**fixed)
            BLOCKS.add(name, BlockType(name, cls, fixed))
        return cls

    return register


def _field_kinds(cls: type[BlockSpec]) -> dict[str, type]:
    """The type of each field, by its annotation."""
    hints = get_type_hints(cls)
    kinds = {each.name: hints[each.name] for each in fields(cls)}
    for name, kind in kinds.items():
        if kind not in _EXPECTED:
            raise TypeError(f"{cls.__name__}.{name} must be annotated as int, bool or str, got {kind!r}")
    return kinds


_EXPECTED = {int: f"a whole number from 1 to {MAX_NUMBER:,}", bool: "True or False", str: "a text"}


def _shown(value: object) -> str:
    """A value for a message, whatever it is: neither its size nor its depth can be too much."""
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        return "a number outside that range"
    return reprlib.repr(value)


@lru_cache(maxsize=1_024)
def _type_number(name: str) -> int:
    """A number for a registered name, the same in every process.

    Raises:
        ArchitectureError: No block type has that name.
    """
    if name not in BLOCKS:
        raise ArchitectureError(f"{name} is no registered block type.{did_you_mean(name, BLOCKS)}")
    return zlib.crc32(name.encode())


@lru_cache(maxsize=65_536)
def _digest(text: str) -> int:
    """A number for a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())


def _kept_hash(block: BlockSpec) -> int:
    return block._hash


class Steps(NamedTuple):
    """Primitive operations in their places, and height and width behind them."""

    steps: tuple[Step, ...]
    resolution: Resolution


@lru_cache(maxsize=4_096)
def block_steps(block: BlockSpec, in_channels: int, resolution: Resolution) -> Steps:
    """The steps of a block, memoised: what reads one candidate reads it several times."""
    return _steps(block.lower(in_channels), (in_channels, *resolution))


@lru_cache(maxsize=4_096)
def sub_layer_steps(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> Steps:
    """The steps of one sub-layer of a block: the first, or for ``in_channels`` None a following one."""
    if in_channels is None:
        return _steps(block.following(), (block.out_channels, *resolution))
    return _steps(block.first(in_channels), (in_channels, *resolution))


@lru_cache(maxsize=65_536)
def weighted_layers(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> int:
    """Convolutions and linear layers of one sub-layer: the first, or for ``in_channels`` None a following one."""
    steps = sub_layer_steps(block, in_channels, resolution).steps
    return sum(step.times for step in steps if isinstance(step.op, Conv | Linear))


@lru_cache(maxsize=65_536)
def single_sub_layer(block: BlockSpec) -> BlockSpec:
    """The block with one sub-layer: under what sub-layer sums are memoised, so that depth costs nothing more."""
    return block if block.sub_layers == 1 else replace(block, sub_layers=1)


def _steps(ops: tuple[Op, ...], shape: Shape) -> Steps:
    steps, (_, height, width) = walk(ops, shape)
    return Steps(tuple(steps), (height, width))
