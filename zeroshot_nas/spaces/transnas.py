"""TransNAS-Bench-101's two spaces: cells of four operations, and skeletons of residual blocks."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.cells import (
    OPERATIONS,
    NASBench201Cell,
    PreactivationResidual,
    cell_expression,
    cell_text,
    read_cell,
)
from zeroshot_nas.blocks.layers import Layers
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.genotypes import (
    Digits,
    DigitSpace,
    EdgeDict,
    GenotypeSpace,
    read_choices,
    read_digits,
    read_numbers,
)
from zeroshot_nas.spaces.notations import Notation, register_notation

MICRO_SKELETON = (4, 1, 4, 1, 4)
"""The module types that all networks of the cell space have."""

_SKELETON_TEXT = "".join(map(str, MICRO_SKELETON))

MACRO_LENGTHS = range(4, 7)
"""Modules that a network of the macro space may have."""

MAX_STRIDED, MAX_DOUBLED = 4, 3
"""Modules of the macro space that may halve the resolution, and that may double the channels; each at least one."""

_MODULES = 2  # blocks or cells of a module
_NAME = re.compile(r"(?P<channels>\d{1,9})-(?P<macro>[^-]*)-(?P<micro>[^-]*)", re.ASCII)


@register_space("transnas_micro")
@dataclass(frozen=True)
class TransNASMicro(DigitSpace):
    """Cells of NAS-Bench-201's kind without pooling, in a fixed skeleton (Duan et al., CVPR 2021, arXiv:2105.11871).

    Two 3x3 convolutions of stride 2 to ``channels``, five modules of two cells each, pooling, classifier; there is no
    batch norm or ReLU behind the last cell. The first, third and fifth module halve the resolution and double the
    channels: their first cell's edges from the input take both. A genotype is six digits, 0 none, 1 skip, 2 1x1 and 3
    3x3 convolution, for the edges 01, 02, 12, 03, 13, 23.

    There are 4^6 = 4,096 strings, of which `canonical` leaves 1,236. The authors' classifiers have 75 classes (objects)
    or 47 (scenes) on 3x256x256. The notations are ``transnas`` and ``naslib``.

    First convolutions, skeleton, operations and head are those of the authors' code, and parameters are those that
    NASLib counts; of the heads there is that of the classification tasks. Departure: the skip of stride 2, see
    `zeroshot_nas.blocks.cells.NASBench201Cell`.

    Args:
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        channels: Channels behind the second convolution.

    Example:
        >>> space = TransNASMicro()
        >>> space.size(), space.format(space.parse("64-41414-1_02_333"), "naslib")
        (4096, '(1, 0, 2, 3, 3, 3)')
    """

    input_size: Shape = (3, 32, 32)
    num_classes: int = 10
    channels: int = 64

    choices = (4,) * 6
    own_notation = "transnas"

    def network(self, genotype: Digits) -> Architecture:
        blocks, width, cell = _stem(self.channels), self.channels, cell_text(genotype)
        for module in MICRO_SKELETON:
            stride, factor = _stride_and_factor(module)
            width *= factor
            blocks.append(NASBench201Cell(width, stride, _MODULES, cell))
        return Architecture(tuple(blocks), self.input_size, self.num_classes)

    def genotype_of(self, architecture: Architecture) -> Digits | None:
        last = architecture.blocks[-1]
        digits = read_cell(last.cell) if isinstance(last, NASBench201Cell) else (4,)
        return None if 4 in digits else digits

    def initial(self) -> Architecture:
        """Two 3x3 convolutions and a skip connection."""
        return self.network((3, 0, 3, 1, 0, 1))

    def smallest(self, cost: str) -> Architecture:
        """Costs are sums over the edges, so the cheapest operation of each edge makes the cheapest cell."""
        return self.network(self.cheapest(lambda each: getattr(complexity(each), cost)))

    def canonical(self, architecture: Architecture) -> str:
        """What the cell computes: `zeroshot_nas.blocks.cells.cell_expression`."""
        return cell_expression(self.genotype(architecture))


@register_space("transnas_macro")
@dataclass(frozen=True)
class TransNASMacro(GenotypeSpace[Digits]):
    """Skeletons of four to six modules of two residual blocks each (Duan et al., CVPR 2021, arXiv:2105.11871).

    Two 3x3 convolutions of stride 2 to ``channels``, the modules, pooling, classifier; there is no batch norm or ReLU
    behind the last block. A module is of type 1 (plain), 2 (doubles the channels), 3 (halves the resolution) or 4
    (both). One to four modules halve the resolution, and one to three double the channels: that rule leaves the 3,256
    strings that the benchmark has. The notations are ``transnas`` and ``naslib``.

    First convolutions, blocks and head are those of the authors' code, and parameters are those that NASLib counts; of
    the heads there is that of the classification tasks. The rule for the types is derived: it is the one that leaves as
    many strings as the benchmark says it has. No departures.

    Args:
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        channels: Channels behind the second convolution.

    Example:
        >>> space = TransNASMacro()
        >>> space.size(), space.format(space.parse("64-1234-basic"), "naslib")
        (3256, '(1, 2, 3, 4, 0, 0)')
    """

    input_size: Shape = (3, 32, 32)
    num_classes: int = 10
    channels: int = 64

    own_notation = "transnas"

    def network(self, genotype: Digits) -> Architecture:
        blocks, width = _stem(self.channels), self.channels
        for module in genotype:
            stride, factor = _stride_and_factor(module)
            width *= factor
            blocks.append(PreactivationResidual(width, stride, _MODULES))
        return Architecture(tuple(blocks), self.input_size, self.num_classes)

    def genotype_of(self, architecture: Architecture) -> Digits | None:
        width, modules = self.channels, []
        for block in architecture.blocks[2:]:
            modules.append(1 + (block.out_channels > width) + 2 * (block.stride > 1))
            width = block.out_channels
        return tuple(modules) if _fault(modules) is None else None

    def initial(self) -> Architecture:
        """The benchmark's example."""
        return self.network((1, 2, 3, 4))

    def smallest(self, cost: str) -> Architecture:
        """The cheapest of all, by enumeration."""
        return _cheapest_macro(self, cost)

    def architectures(self) -> Iterator[Architecture]:
        return map(self.network, _macros())

    def size(self, max_layers: int | None = None) -> float:
        """The number of strings, in all 3,256; a block is a layer, and so is each of the two first convolutions."""
        return sum(max_layers is None or 2 + _MODULES * len(modules) <= max_layers for modules in _macros())

    def sample_genotype(self, rng: random.Random) -> Digits:
        return _macros()[int(rng.random() * len(_macros()))]

    def mutate_genotype(self, genotype: Digits, rng: random.Random, mutations: int) -> Digits:
        """Each mutation changes, adds or removes one module."""
        for _ in range(mutations):
            near = _neighbours(genotype)
            genotype = near[int(rng.random() * len(near))]
        return genotype

    def crossover_genotypes(self, a: Digits, b: Digits, rng: random.Random) -> Digits:
        children = [a[:i] + b[j:] for i in range(1, len(a)) for j in range(1, len(b))]
        allowed = [child for child in children if _fault(child) is None] or [a]
        return allowed[int(rng.random() * len(allowed))]


@register_notation("transnas_micro", "transnas")
class CellName(Notation[Digits]):
    """``64-41414-1_02_333``: channels, skeleton, the edges into each node."""

    def parse(self, text: str, space: TransNASMicro, /) -> Digits:
        macro, micro, position = _read_name(text, space.channels)
        if macro != _SKELETON_TEXT:
            raise ArchitectureError(f"the skeleton of a cell's network is {_SKELETON_TEXT}, got {macro[:30]!r}")
        if [len(group) for group in micro.split("_")] != [1, 2, 3]:
            raise ArchitectureError(
                f"malformed cell {micro[:30]!r} at position {position}: expected one, two and three digits joined by "
                "'_', as in 1_02_333"
            )
        return read_digits(micro.replace("_", ""), 6, "0123", "cell")

    def format(self, genotype: Digits, space: TransNASMicro, /) -> str:
        digits = "".join(map(str, genotype))
        return f"{space.channels}-{_SKELETON_TEXT}-{digits[0]}_{digits[1:3]}_{digits[3:]}"


@register_notation("transnas_micro", "naslib")
class CellTuple(Notation[Digits]):
    """``(1, 0, 2, 3, 3, 3)``: the digits as NAS-Bench-Suite-Zero's keys have them."""

    def parse(self, text: str, space: TransNASMicro, /) -> Digits:
        return read_choices(text, 6, range(4), "NASLib tuple")

    def format(self, genotype: Digits, space: TransNASMicro, /) -> str:
        return str(genotype)

    def recognises(self, text: str) -> bool:
        return text.lstrip().startswith("(")


@register_notation("transnas_micro", "edges")
class CellEdges(EdgeDict):
    """A dict of edges."""

    operations = OPERATIONS[:4]


@register_notation("transnas_macro", "transnas")
class SkeletonName(Notation[Digits]):
    """``64-1234-basic``: channels, the modules' types."""

    def parse(self, text: str, space: TransNASMacro, /) -> Digits:
        macro, micro, position = _read_name(text, space.channels)
        if micro != "basic":
            raise ArchitectureError(f"expected 'basic' at position {position}, got {micro[:30]!r}")
        return _checked(tuple(place + 1 for place in read_digits(macro, len(macro), "1234", "skeleton")))

    def format(self, genotype: Digits, space: TransNASMacro, /) -> str:
        return f"{space.channels}-{''.join(map(str, genotype))}-basic"


@register_notation("transnas_macro", "naslib")
class SkeletonTuple(Notation[Digits]):
    """``(1, 2, 3, 4, 0, 0)``: the types filled up to six with zeros, as NAS-Bench-Suite-Zero's keys have them."""

    def parse(self, text: str, space: TransNASMacro, /) -> Digits:
        numbers = [number for number, _ in read_numbers(text, "NASLib tuple")]
        while numbers and numbers[-1] == 0:
            numbers.pop()
        return _checked(tuple(numbers))

    def format(self, genotype: Digits, space: TransNASMacro, /) -> str:
        return str(genotype + (0,) * (MACRO_LENGTHS[-1] - len(genotype)))

    def recognises(self, text: str) -> bool:
        return text.lstrip().startswith("(")


def _stem(channels: int) -> list[BlockSpec]:
    return [
        Layers(max(1, channels // 2), 2, layers="conv3-bn-relu"),
        Layers(channels, 2, layers="conv3-bn"),
    ]


def _stride_and_factor(module: int) -> tuple[int, int]:
    """The stride of a module's first block, and the factor of its channels."""
    return 2 if module > 2 else 1, 2 if module % 2 == 0 else 1


def _fault(modules: Digits | list[int]) -> str | None:
    """Why module types make no network of the macro space; None where they do."""
    if len(modules) not in MACRO_LENGTHS:
        return f"it has {len(modules):,} modules, not 4 to 6"
    if not set(modules) <= {1, 2, 3, 4}:
        return "module types are 1 to 4"
    strided, doubled = sum(module > 2 for module in modules), sum(module % 2 == 0 for module in modules)
    if not 1 <= strided <= MAX_STRIDED:
        return f"{strided} modules halve the resolution (types 3 and 4), not 1 to {MAX_STRIDED}"
    if not 1 <= doubled <= MAX_DOUBLED:
        return f"{doubled} modules double the channels (types 2 and 4), not 1 to {MAX_DOUBLED}"
    return None


@lru_cache(maxsize=1)
def _macros() -> tuple[Digits, ...]:
    """Every genotype of the macro space."""
    lists = (itertools.product((1, 2, 3, 4), repeat=length) for length in MACRO_LENGTHS)
    return tuple(modules for modules in itertools.chain.from_iterable(lists) if _fault(modules) is None)


@lru_cache(maxsize=64)
def _cheapest_macro(space: TransNASMacro, cost: str) -> Architecture:
    return min(space.architectures(), key=lambda architecture: float(getattr(complexity(architecture), cost)))


@lru_cache(maxsize=4_096)
def _neighbours(modules: Digits) -> tuple[Digits, ...]:
    """The genotypes that differ in one module, or have one more or one less."""
    places = range(len(modules))
    changed = {(*modules[:i], new, *modules[i + 1 :]) for i in places for new in (1, 2, 3, 4)} - {modules}
    longer = {(*modules[:i], new, *modules[i:]) for i in (*places, len(modules)) for new in (1, 2, 3, 4)}
    shorter = {modules[:i] + modules[i + 1 :] for i in places}
    return tuple(sorted(each for each in changed | longer | shorter if _fault(each) is None))


def _checked(modules: Digits) -> Digits:
    """Module types that make a network of the macro space."""
    if (fault := _fault(modules)) is not None:
        raise ArchitectureError(f"the skeleton {''.join(map(str, modules))[:30]!r} is not in the space: {fault}")
    return modules


def _read_name(text: str, channels: int) -> tuple[str, str, int]:
    """The skeleton and the cell of ``64-41414-1_02_333``, and where the cell begins."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise ArchitectureError(
            f"malformed name {text[:60]!r}: expected channels, skeleton and cell, as in 64-41414-1_02_333 or "
            "64-1234-basic"
        )
    if int(match["channels"]) != channels:
        raise ArchitectureError(f"the space has {channels} channels, the name {match['channels']} at position 0")
    return match["macro"], match["micro"], match.start("micro")
