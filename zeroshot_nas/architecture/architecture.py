"""Architectures as data: block specs, the frozen `Architecture`, its strings and its JSON. No torch here."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from zeroshot_nas.architecture.ops import GlobalPool, Linear, Op, Repeat, Resolution, Shape, Step, walk
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import ArchitectureError, did_you_mean

MAX_LAYERS = 1_000
"""Layers beyond which an architecture is refused: the deepest published one here has 30."""

MAX_NUMBER = 1_000_000_000
"""The largest number in an architecture."""

_JSON_FORMAT = "zeroshot_nas.architecture"
_JSON_VERSION = 1
_TOKEN = re.compile(r"\s*(?P<type>\w+)\((?:\w*\|)?(?P<arguments>[^()|]*)\)\s*;?")


@dataclass(frozen=True)
class BlockSpec(ABC):
    """One block as data. A subclass says how it lowers; costs, modules and closed forms follow from that.

    A block is a first sub-layer, which takes the stride and the change of channels, and equal ones behind it.

    A subclass is a frozen dataclass registered with `register_block`. Input channels are not part of a block: they
    follow from the block before it.

    Attributes:
        out_channels: Channels of the block's output.
        stride: Factor by which height and width shrink.
        sub_layers: How often the block's unit is repeated; what Zen-NAS counts as layers.
    """

    out_channels: int
    stride: int = 1
    sub_layers: int = 1

    type_template: ClassVar[str]
    plainnet_fields: ClassVar[tuple[str, ...] | None]
    _hash: ClassVar[int]  # an instance's, kept from its creation

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if isinstance(value, str) and isinstance(getattr(type(self), name, None), str):
                continue  # its meaning is the subclass's to check
            if type(value) is int and 1 <= value <= MAX_NUMBER:
                if not isinstance(getattr(type(self), name, None), bool):
                    continue
                raise ArchitectureError(f"{type(self).__name__}.{name} must be True or False, got {value!r}")
            if isinstance(value, bool) and isinstance(getattr(type(self), name, None), bool):
                continue
            shown = f"{value!r:.60}" if not isinstance(value, int) else "a number outside that range"
            raise ArchitectureError(
                f"{type(self).__name__}.{name} must be a whole number from 1 to {MAX_NUMBER:,}, got {shown}"
            )
        if self.type_name not in BLOCKS:
            raise ArchitectureError(
                f"{self.type_name} is no registered block type.{did_you_mean(self.type_name, BLOCKS)}"
            )
        self._keep_hash()

    def _keep_hash(self) -> None:
        """Once, and from numbers alone, so that it is cheap and the same in every process."""
        values = [_digest(value) if isinstance(value, str) else value for value in self.__dict__.values()]
        self.__dict__["_hash"] = hash((zlib.crc32(self.type_name.encode()), *values))

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

    @property
    def free_fields(self) -> tuple[str, ...]:
        return tuple(each.name for each in fields(self.cls) if each.name not in self.fixed)


BLOCKS: Registry[BlockType] = Registry("block type", package="zeroshot_nas.blocks")

_Block = TypeVar("_Block", bound=type[BlockSpec])


def register_block(
    template: str, *, plainnet_fields: Sequence[str] | None, **choices: Sequence[int]
) -> Callable[[_Block], _Block]:
    """Registers a block class under every name that ``template`` gives.

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
        cls.__hash__ = _kept_hash  # type: ignore[assignment,method-assign]
        cls.plainnet_fields = None if plainnet_fields is None else tuple(plainnet_fields)
        for values in itertools.product(*choices.values()):
            fixed = dict(zip(choices, values, strict=True))
            name = template.format(**fixed)
            BLOCKS.add(name, BlockType(name, cls, fixed))
        return cls

    return register


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
def single_sub_layer(block: BlockSpec) -> BlockSpec:
    """The block with one sub-layer: under what sub-layer sums are memoised, so that depth costs nothing more."""
    if block.sub_layers == 1:
        return block
    single = object.__new__(type(block))  # `replace` would check again what was checked
    single.__dict__.update(block.__dict__, sub_layers=1)
    del single.__dict__["_hash"]
    single._keep_hash()
    return single


def _steps(ops: tuple[Op, ...], shape: Shape) -> Steps:
    steps, (_, height, width) = walk(ops, shape)
    return Steps(tuple(steps), (height, width))


@dataclass(frozen=True)
class Architecture:
    """A network as data: blocks in order, then global average pooling and a linear classifier.

    Args:
        blocks: The blocks, first to last.
        input_size: Channels, height and width of one image.
        num_classes: Outputs of the classifier.

    Attributes:
        layers: Depth as Zen-NAS counts it: the sum of sub-layers.

    Raises:
        ArchitectureError: No blocks, a size below 1, or more than `MAX_LAYERS` layers.

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

    @property
    def squeeze_excite(self) -> bool:
        """Whether any block has squeeze-and-excitation."""
        return any(getattr(block, "squeeze_excite", False) for block in self.blocks)

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
        parts = []
        for block, in_channels, _ in self.inputs():
            if block.plainnet_fields is None:
                raise ArchitectureError(
                    f"{block.type_name} has no PlainNet form; use to_string of its search space, or to_json"
                )
            numbers = [in_channels, *(getattr(block, name) for name in block.plainnet_fields)]
            parts.append(f"{block.type_name}({','.join(map(str, numbers))})")
        return "".join(parts)

    @classmethod
    def from_string(
        cls,
        text: str,
        input_size: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        squeeze_excite: bool = False,
    ) -> Architecture:
        """Reads a PlainNet string: ``Name(in,out,stride[,bottleneck],sub_layers)…``, also ``Name(label|…);``.

        Args:
            text: The string; labels are accepted and dropped.
            input_size: ``(C, H, W)`` of one image.
            num_classes: Outputs of the classifier.
            squeeze_excite: Gives every residual block squeeze-and-excitation, as Zen-NAS's ``--use_se`` does.

        Raises:
            ArchitectureError: The string is malformed (position and token are named), or two neighbours disagree
                about the channels between them (both are named).
        """
        blocks: list[BlockSpec] = []
        channels, before = input_size[0] if input_size else 0, "the input"
        for position, name, numbers in _tokens(text):
            block_type = _block_type(name, position)
            in_channels, block = _read_block(block_type, numbers, squeeze_excite, position)
            here = f"{name} at position {position}"
            if in_channels != channels:
                raise ArchitectureError(
                    f"channels do not match: {before} gives {channels}, but {here} takes {in_channels}"
                )
            blocks.append(block)
            channels, before = block.out_channels, here
        return cls(tuple(blocks), _shape(input_size), num_classes)

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
        }

    @classmethod
    def from_dict(cls, data: Any) -> Architecture:
        """Reads what `to_dict` gives.

        Raises:
            ArchitectureError: A key is missing, unknown, or of the wrong type.
        """
        if not isinstance(data, dict) or data.get("format") != _JSON_FORMAT:
            raise ArchitectureError(f"not an architecture: expected a JSON object with format {_JSON_FORMAT!r}")
        if data.get("version") != _JSON_VERSION:
            raise ArchitectureError(
                f"architecture JSON of version {data.get('version')!r}; this release reads version {_JSON_VERSION}"
            )
        if unknown := set(data) - {"format", "version", "blocks", "input_size", "num_classes"}:
            raise ArchitectureError(f"architecture JSON has unknown keys: {', '.join(sorted(map(str, unknown)))}")
        entries, input_size, num_classes = (data.get(key) for key in ("blocks", "input_size", "num_classes"))
        if not isinstance(entries, list) or not isinstance(input_size, list) or not isinstance(num_classes, int):
            raise ArchitectureError(
                "architecture JSON needs 'blocks' and 'input_size' (lists) and 'num_classes' (a number)"
            )
        return cls(tuple(map(_block_from_dict, entries)), _shape(input_size), num_classes)

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
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
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


def _shape(size: Sequence[int]) -> Shape:
    if len(size) != 3:
        raise ArchitectureError(f"expected input_size (C, H, W), got {tuple(size)!r}")
    return size[0], size[1], size[2]


def _tokens(text: str) -> Iterator[tuple[int, str, list[int]]]:
    """Position, block name and numbers of every block in a PlainNet string."""
    position = 0
    while position < len(text.rstrip()):
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
    block_type: BlockType, numbers: Sequence[int], squeeze_excite: bool, position: int
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
    if "squeeze_excite" in block_type.free_fields:
        values["squeeze_excite"] = squeeze_excite
    in_channels = values.pop("in_channels")
    try:
        return in_channels, block_type(**values)
    except ArchitectureError as error:
        raise ArchitectureError(f"{block_type.name} at position {position}: {error}") from None


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
