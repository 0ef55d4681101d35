"""Zen-NAS's space: chains of super-blocks whose types, widths and depths are free."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from zeroshot_nas.architecture.architecture import MAX_LAYERS, Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, MAX_NUMBER, BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.base import round_width
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import uniform
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import SearchSpace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zeroshot_nas.chains import coding, editing
    from zeroshot_nas.chains.coding import Chains, Codes
    from zeroshot_nas.chains.editing import Draws
    from zeroshot_nas.chains.lowering import Index
else:
    np = LazyModule("numpy")
    coding, editing = LazyModule("zeroshot_nas.chains.coding"), LazyModule("zeroshot_nas.chains.editing")

_Option = TypeVar("_Option")

WIDTH_RATIOS = (2.5, 2, 1.5, 1.25, 1, 1 / 1.25, 1 / 1.5, 1 / 2, 1 / 2.5)
"""Factors that a mutation applies to a width, rounded to the space's step (Zen-NAS)."""

LAYER_CHANGES = (-2, -1, 0, 1, 2)
"""What a mutation adds to a block's sub-layers (Zen-NAS)."""

MAX_WIDTH = 65_535
"""The largest ``max_width``."""

RESIZES = 1 / 8
"""Share of mutations that change the resolution, where it is free."""

SPLIT_AT = 6
"""Sub-layers from which a block is split in two, so that its parts can differ (Zen-NAS)."""


_OF_RESOLUTION = 1 << 40
"""Where in a stream the draws of the resolution begin, so that those of the blocks are the same with and without."""

KINDS = {
    "basic": [f"SuperResK{k}K{k}" for k in (3, 5, 7)],
    "bottleneck": [f"SuperResK1K{k}K1" for k in (3, 5, 7)],
    "inverted": [f"SuperResIDWE{expansion}K{k}" for k in (3, 5, 7) for expansion in (1, 2, 4, 6)],
}
"""Block types by kind."""


def stride_steps(input_size: Shape) -> int:
    """How often a network halves its feature map: down to 4 to 7 positions on the shorter side.

    Zen-NAS's three steps at 32 pixels and five at 224 follow the same rule.

    Example:
        >>> [stride_steps((3, side, side)) for side in (8, 16, 28, 32, 64, 96, 224)]
        [1, 2, 2, 3, 4, 4, 5]
    """
    side, steps = min(input_size[1:]), 0
    while side >= 8:
        side, steps = side // 2, steps + 1
    return steps


@dataclass(frozen=True)
class ChainSpace(SearchSpace):
    """Chains of super-blocks: a 3x3 stem, a body of blocks of given types, a last 1x1 convolution (Zen-NAS).

    Strides are set by the input's resolution (`stride_steps`) and never change: one body block a step, and from four
    steps on the stem takes the first. A space has no bound on depth; a budget sets one.

    Args:
        name: The space's name.
        body_types: Registered block types of the body, drawn evenly.
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        squeeze_excite: Whether body blocks have squeeze-and-excitation.
        max_width: Upper limit of every width.
        last_width: Fixes the last convolution's width (Zen-NAS fixes 2048 for ImageNet); None leaves it free.
        width_step: Every width is a multiple of it (Zen-NAS: 8). A smaller one lets networks of fewer than about 100k
            parameters use their budget; 16 or 32 suit hardware that computes in tiles of that size.
        resolutions: Sides of images in pixels of which each network has one, the shorter side where ``input_size`` is
            no square, whose proportions are kept. None: all have those of ``input_size``. Strides stay those that
            ``input_size`` sets, whatever a network's resolution.
    """

    name: str
    body_types: tuple[str, ...]
    input_size: Shape = (3, 32, 32)
    num_classes: int = 10
    squeeze_excite: bool = False
    max_width: int = 2048
    last_width: int | None = None
    width_step: int = 8
    resolutions: Sequence[int] | None = None

    stem_type = "SuperConvK3BNRELU"
    last_type = "SuperConvK1BNRELU"

    def __post_init__(self) -> None:
        for name in self.body_types:
            BLOCKS[name]  # an unknown type is said here, with the nearest known one
        check_counts(1, ArchitectureError, width_step=self.width_step)
        check_counts(self.width_step, ArchitectureError, max_width=self.max_width)
        if self.max_width > MAX_WIDTH:
            raise ArchitectureError(f"max_width must be at most {MAX_WIDTH:,}, got {self.max_width!r}")
        if self.last_width is not None and not self._is_width(self.last_width):
            raise ArchitectureError(
                f"last_width must be a multiple of {self.width_step} up to {self.max_width}, got {self.last_width!r}"
            )
        if self.resolutions is not None:
            object.__setattr__(self, "resolutions", _checked(self.resolutions, 2**self.max_halvings))
        self.initial()  # refuses an unusable input size

    @cached_property
    def input_sizes(self) -> tuple[Shape, ...]:
        channels, height, width = self.input_size
        if self.resolutions is None:
            return (self.input_size,)
        ratios = [each / min(height, width) for each in self.resolutions]
        return tuple((channels, round(height * ratio), round(width * ratio)) for ratio in ratios)

    @cached_property
    def initial_size(self) -> Shape:
        """The one of `input_sizes` that is nearest to ``input_size``, of two the larger."""
        return min(self.input_sizes, key=lambda size: (abs(size[1] - self.input_size[1]), -size[1]))

    def by_resolution(self) -> Sequence[ChainSpace]:
        """The space at each of its resolutions alone; itself where it has one."""
        if self.resolutions is None or len(self.resolutions) == 1:
            return [self]
        return [replace(self, resolutions=(each,)) for each in self.resolutions]

    @cached_property
    def max_halvings(self) -> int:
        """Strides of 2 that a network has at most, the stem's among them."""
        return stride_steps(self.input_size)

    @property
    def block_options(self) -> Mapping[str, Any]:
        return {"squeeze_excite": self.squeeze_excite}

    @cached_property
    def stem_stride(self) -> int:
        return 2 if stride_steps(self.input_size) > 3 else 1

    @cached_property
    def body_strides(self) -> tuple[int, ...]:
        """Strides of the body's first blocks; blocks of stride 1 may follow each."""
        steps = stride_steps(self.input_size)
        return (2,) * (steps - 1) if self.stem_stride == 2 else (1, *(2,) * steps)

    def initial(self) -> Architecture:
        widths = [min(16 * 2**index, 64) for index in range(len(self.body_strides))]
        body = [
            self.body_block(self.body_types[0], self._round(width), stride, self._round(width // 2))
            for width, stride in zip(widths, self.body_strides, strict=True)
        ]
        return self._assemble([self._stem(self._round(8)), *body, self._last(self._round(128))])

    @property
    def stems(self) -> tuple[tuple[str, int], ...]:
        """Types and strides that a stem may have."""
        return ((self.stem_type, self.stem_stride),)

    last_is_optional: ClassVar[bool] = False
    """Whether a network may do without its last convolution."""

    def next_strides(self, stem_stride: int, strides: Sequence[int]) -> tuple[int, ...]:
        """Strides that the next body block may have behind others; 0 stands for no further block.

        Example:
            >>> from zeroshot_nas.spaces.base import get_space
            >>> space = get_space("resnet")  # its body has strides 1, 2, 2, 2, and any of 1 after each
            >>> space.next_strides(1, ()), space.next_strides(1, (1, 2)), space.next_strides(1, (1, 2, 2, 1, 2))
            ((1,), (1, 2), (1, 0))
        """
        if not strides:
            return self.body_strides[:1]
        started = 1 + sum(stride != 1 for stride in strides[1:])
        return (1, 2) if started < len(self.body_strides) else (1, 0)

    def scaled(self, width: float, depth: int, body_type: str, input_size: Shape | None = None) -> Architecture:
        """The initial network at another size.

        Args:
            width: What every width is multiplied with, rounded to the space's step.
            depth: What every body block's sub-layers are multiplied with; a block of too many is split.
            body_type: Of all body blocks.
            input_size: One of `input_sizes`; default: `initial_size`.

        Raises:
            ArchitectureError: It has more than `zeroshot_nas.architecture.architecture.MAX_LAYERS` layers.

        Example:
            >>> from zeroshot_nas.spaces.base import get_space
            >>> get_space("resnet", input_size=(1, 8, 8)).scaled(0.5, 7, "SuperResK5K5").to_string()[:85]
            'SuperConvK3BNRELU(1,8,1,1)SuperResK5K5(8,8,1,8,5)SuperResK5K5(8,8,1,8,2)SuperResK5K5('
        """
        blocks: list[BlockSpec] = []
        for block in self.initial().blocks:
            if block.type_name in self.body_types:
                blocks += self._scaled_block(block, width, depth, body_type)
            elif block.type_name == self.last_type:
                blocks.append(self._last(self._round(width * block.out_channels)))
            else:
                blocks.append(replace(block, out_channels=self._round(width * block.out_channels)))
        return self._assemble(blocks, input_size)

    def _scaled_block(self, block: Any, width: float, depth: int, body_type: str) -> Iterator[BlockSpec]:
        sub_layers, stride = depth * block.sub_layers, block.stride
        if sub_layers > MAX_LAYERS:  # before a million blocks are made
            raise ArchitectureError(
                f"a block of {sub_layers:,} sub-layers is too deep; the limit is {MAX_LAYERS:,} layers"
            )
        widths = self._round(width * block.out_channels), self._round(width * block.bottleneck_channels)
        while sub_layers > 0:
            part = min(sub_layers, SPLIT_AT - 1)
            yield self.body_block(body_type, widths[0], stride, widths[1], part)
            sub_layers, stride = sub_layers - part, 1

    def smallest(self, cost: str) -> Architecture:
        body: list[BlockSpec] = []
        for stride in self.body_strides:
            options = [self.body_block(name, self.width_step, stride, self.width_step) for name in self.body_types]
            chains = [self._smallest([self._stem(self.width_step), *body, option]) for option in options]
            prices = [getattr(complexity(chain), cost) for chain in chains]
            body.append(options[prices.index(min(prices))])
        return self._smallest([self._stem(self.width_step), *body, self._last(self.width_step)])

    def sample(self, rng: random.Random) -> Architecture:
        """A random walk from the initial network: 1 to 8 mutations a block; of resolutions any, evenly."""
        return self.sample_all(rng, 1)[0]

    def sample_all(self, rng: random.Random, count: int) -> Sequence[Architecture]:
        seeds = [rng.getrandbits(64) for _ in range(count)]
        walked = coding.Chains.of([self.initial()])
        own = np.array(seeds, np.uint64)
        left = 1 + (uniform(seeds, 0, 1)[:, 0] * 8 * walked.codes.shape[1]).astype(np.intp)
        order = np.argsort(-left, kind="stable")  # the longest walk first, so that those still on their way are a slice
        codes = np.repeat(walked.codes, len(seeds), axis=0)
        for step in range(int(left.max(initial=0))):
            walking = int(np.searchsorted(-left[order], -step, "left"))
            draws = uniform(own[order[:walking]].tolist(), 1 + step * editing.DRAWS, editing.DRAWS)
            moved = self._mutated(codes[:walking].copy(), np.ones(walking, np.intp), draws[:, None])
            codes = coding.stacked(moved, codes[walking:])
        places = np.empty(len(seeds), np.intp)
        places[order] = np.arange(len(seeds))
        sides = None
        if len(self.input_sizes) > 1:
            sides = editing.drawn(self._sizes, uniform(seeds, _OF_RESOLUTION, 1)[:, 0])
        return replace(walked, codes=codes[places], sides=sides)

    def mutate(self, architecture: Architecture, rng: random.Random, mutations: int = 1) -> Architecture:
        return self.mutate_all([architecture], [rng.getrandbits(64)], [mutations])[0]

    def mutate_all(
        self, networks: Sequence[Architecture], seeds: Sequence[int], mutations: Sequence[int]
    ) -> Sequence[Architecture]:
        chains = networks if isinstance(networks, coding.Chains) else coding.Chains.of(networks)
        return editing.Mutants(chains, np.asarray(mutations, np.intp), seeds, self._moved)

    def _moved(self, parents: Chains, mutations: Index, seeds: Sequence[int]) -> Chains:
        """Neighbours of chains: each mutation is one of a block, or now and then of the resolution."""
        most = int(mutations.max(initial=0))
        draws = uniform(seeds, 0, most * editing.DRAWS).reshape(len(seeds), most, editing.DRAWS)
        codes, sides = parents.codes.copy(), parents.sides
        if len(self.input_sizes) > 1:
            own = uniform(seeds, _OF_RESOLUTION, 2 + most)
            resizes = ((own[:, 2:] < RESIZES) & (np.arange(most) < mutations[:, None])).sum(1)
            rows = np.flatnonzero(resizes)
            sides, mutations = parents.sides_of_each.copy(), mutations - resizes
            codes[rows], sides[rows] = self._resized(codes[rows], sides[rows], own[rows, :2])
        return replace(parents, codes=self._mutated(codes, mutations, draws), sides=sides)

    def _resized(self, codes: Codes, sides: Codes, draws: Draws) -> tuple[Codes, Codes]:
        """Chains at another resolution each; half of them with widths that leave FLOPs about what they were."""
        sizes = self._sizes
        now = (sides[:, None] == sizes).all(2).argmax(1)
        moved = sizes[(now + 1 + (draws[:, 0] * (len(sizes) - 1)).astype(np.intp)) % len(sizes)]
        rows = np.flatnonzero(draws[:, 1] < 0.5)
        ratio = (sides[rows, :1] / moved[rows, :1]) * np.ones(codes.shape[1])
        own = codes[rows]
        for name in ("out_channels", "bottleneck_channels"):
            widths = coding.field_of(own, name)
            own = coding.with_field(own, name, np.where(widths > 0, self._stepped(widths * ratio), widths))
        if self.last_width is not None:
            ends = np.arange(len(rows)), editing.lengths(own) - 1
            own[ends] = coding.with_field(own[ends], "out_channels", self.last_width)
        codes[rows] = own
        return codes, moved

    @property
    def _sizes(self) -> Codes:
        """Heights and widths of images ``(resolutions, 2)``."""
        return np.array(self.input_sizes)[:, 1:]

    def _mutated(self, codes: Codes, mutations: Index, draws: Draws) -> Codes:
        """Chains with so many of their blocks changed, one where the same is drawn twice; may write into ``codes``."""
        blocks = editing.lengths(codes)
        places = (draws[:, :, 0] * blocks[:, None]).astype(np.intp)
        places[np.arange(places.shape[1]) >= mutations[:, None]] = -1
        order = np.argsort(-places, axis=1, kind="stable")  # from the back, since a split moves what is behind it
        for index, column in enumerate(order.T):
            own = np.arange(len(codes)), column
            chosen = places[own] >= 0
            if index:
                chosen &= places[own] != places[own[0], order[:, index - 1]]
            rows = np.flatnonzero(chosen)
            place, draw = places[rows, column[rows]], draws[rows, column[rows]]
            is_stem, is_last = place == 0, place == blocks[rows] - 1
            self._mutate_widths(codes, rows[is_stem], place[is_stem], draw[is_stem, 1])
            if self.last_width is None:
                self._mutate_widths(codes, rows[is_last], place[is_last], draw[is_last, 1])
            is_body = ~(is_stem | is_last)
            codes = self._mutate_bodies(codes, rows[is_body], place[is_body], draw[is_body])
        return codes

    def _mutate_widths(self, codes: Codes, rows: Index, places: Index, draws: Draws) -> None:
        if len(rows):
            codes[rows, places] = self._widened(codes[rows, places], "out_channels", draws)

    def _mutate_bodies(self, codes: Codes, rows: Index, places: Index, draws: Draws) -> Codes:
        """Of each block one of type, width, bottleneck width and depth changed; one that becomes too deep is split.

        Zen-NAS draws all four anew; near a budget hardly any such move is accepted.
        """
        if not len(rows):
            return codes
        own = codes[rows, places]
        kind, out, bottleneck, depth = (draws[:, 1] * 4).astype(np.intp) == np.arange(4)[:, None]
        if kind.any():
            own[kind] = coding.with_field(own[kind], "type", self._drawn_types(draws[kind, 2:]))
        for chosen, name in ((out, "out_channels"), (bottleneck, "bottleneck_channels")):
            if chosen.any():
                own[chosen] = self._widened(own[chosen], name, draws[chosen, 2])
        codes[rows, places] = own
        if depth.any():
            codes = self._mutate_depths(codes, rows[depth], places[depth], draws[depth, 2])
        return codes

    @staticmethod
    def _mutate_depths(codes: Codes, rows: Index, places: Index, draws: Draws) -> Codes:
        own = codes[rows, places]
        layers = coding.field_of(own, "sub_layers") + editing.drawn(LAYER_CHANGES, draws)
        split = np.flatnonzero(layers >= SPLIT_AT)
        rest = coding.with_field(own[split], "sub_layers", layers[split] - SPLIT_AT // 2)
        layers[split] = SPLIT_AT // 2
        codes[rows, places] = coding.with_field(own, "sub_layers", np.maximum(1, layers))
        return editing.inserted(codes, rows[split], places[split] + 1, coding.with_field(rest, "stride", 1))

    def _widened(self, blocks: Codes, name: str, draws: Draws) -> Codes:
        """Blocks with another width."""
        return coding.with_field(blocks, name, self.drawn_widths(coding.field_of(blocks, name), draws))

    def drawn_widths(self, widths: Codes, draws: Draws) -> Codes:
        """Other widths for some."""
        return self._stepped(widths * editing.drawn(WIDTH_RATIOS, draws))

    def _stepped(self, widths: NDArray[np.float64]) -> Codes:
        """Widths in the space's steps, within its bounds."""
        step = self.width_step
        moved = (widths + step / 2).astype(np.int64) // step * step
        bounded: Codes = np.minimum(np.maximum(moved, step), self.max_width // step * step)
        return bounded

    def _drawn_types(self, draws: Draws) -> Codes:
        """Types of body blocks, as the numbers that codes have for them, by two draws each."""
        return editing.drawn(self._type_numbers, draws[:, 0])

    @property
    def _type_numbers(self) -> Codes:
        """Of each body type the number that codes have for it."""
        return type_numbers(self.body_types)

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """One-point crossover where both have completed the same strides; at the resolution of ``a``."""
        cuts_a, cuts_b = _cuts(a), _cuts(b)
        index = rng.randrange(len(cuts_a))
        return self._assemble([*a.blocks[: cuts_a[index]], *b.blocks[cuts_b[index] :]], a.input_size)

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        if architecture.input_size not in self.input_sizes or architecture.num_classes != self.num_classes:
            return False
        if len(architecture.blocks) < 3:
            return False
        stem, *body, last = architecture.blocks
        strides = [block.stride for block in body]
        return (
            stem == self._stem(stem.out_channels)
            and self._is_width(stem.out_channels)
            and last == self._last(last.out_channels)
            and self._is_width(last.out_channels)
            and all(map(self._is_body_block, body))
            and strides[0] == self.body_strides[0]
            and [stride for stride in strides[1:] if stride != 1] == list(self.body_strides[1:])
        )

    def size(self, max_layers: int | None = None) -> float:
        if max_layers is None:
            return math.inf
        widths = self.max_width // self.width_step
        per_block = len(self.body_types) * widths**2
        ends = widths * (1 if self.last_width else widths)
        depth = max_layers - 2  # the stem and the last convolution
        steps = sum(stride == 2 for stride in self.body_strides)
        # bodies[s][d]: chains of d layers in all of which s blocks have stride 2
        bodies = [[0] * (depth + 1) for _ in range(steps + 1)]
        first = int(self.body_strides[0] == 2)
        for d in range(1, depth + 1):
            for s in range(steps + 1):
                shorter = [d - n for n in range(1, SPLIT_AT) if n < d]
                chains = sum(bodies[s][rest] + (bodies[s - 1][rest] if s else 0) for rest in shorter)
                bodies[s][d] = per_block * (chains + (s == first and d < SPLIT_AT))
        return ends * sum(bodies[steps]) * len(self.input_sizes)

    def _fault(self, architecture: Architecture) -> str:
        blocks = architecture.blocks
        if len(blocks) < 3:
            return f"it has no body, only {len(blocks)} blocks"
        for what, block, wanted in (("stem", blocks[0], self._stem), ("last block", blocks[-1], self._last)):
            if not self._is_width(block.out_channels) or block != wanted(block.out_channels):
                return f"its {what} is {block}; expected one as {wanted(self.width_step)}, {self._widths}"
        for index, block in enumerate(blocks[1:-1], start=1):
            if not self._is_body_block(block):
                return self._fault_of_body_block(index, block)
        strides = tuple(block.stride for block in blocks[1:-1])
        return f"its body has strides {strides}; expected {self.body_strides}, with any of 1 after each"

    def _fault_of_body_block(self, index: int, block: BlockSpec) -> str:
        return (
            f"its block {index} is {block}; expected one of {', '.join(self.body_types)} with "
            f"{self._widths}, fewer than {SPLIT_AT} sub-layers and squeeze_excite={self.squeeze_excite}"
        )

    @property
    def _widths(self) -> str:
        return f"widths in steps of {self.width_step} up to {self.max_width}"

    def _stem(self, width: int) -> BlockSpec:
        return end_block(self.stem_type, width, self.stem_stride)

    def _last(self, width: int) -> BlockSpec:
        return end_block(self.last_type, self.last_width or width, 1)

    def body_block(
        self, type_name: str, width: int, stride: int, bottleneck_channels: int, sub_layers: int = 1
    ) -> BlockSpec:
        """A block of the body, the same object for the same values."""
        return _body_block(type_name, width, stride, bottleneck_channels, sub_layers, self.squeeze_excite)

    def _assemble(self, blocks: Sequence[BlockSpec], input_size: Shape | None = None) -> Architecture:
        return Architecture(tuple(blocks), input_size or self.initial_size, self.num_classes)

    def _smallest(self, blocks: Sequence[BlockSpec]) -> Architecture:
        """At the lowest resolution."""
        return self._assemble(blocks, self.input_sizes[0])

    def _round(self, width: float) -> int:
        return _rounded(width, self.width_step, self.max_width)

    def _is_width(self, width: object) -> bool:
        return isinstance(width, int) and 0 < width <= self.max_width and width % self.width_step == 0

    def _is_body_block(self, block: Any) -> bool:
        return (
            block.type_name in self.body_types
            and self._is_width(block.out_channels)
            and self._is_width(block.bottleneck_channels)
            and block.sub_layers < SPLIT_AT
            and block.squeeze_excite == self.squeeze_excite
        )


def _checked(resolutions: Any, least: int) -> tuple[int, ...]:
    """Resolutions, ascending.

    Raises:
        ArchitectureError: There are none, one is no whole number, below ``least``, or comes twice.
    """
    if not isinstance(resolutions, list | tuple) or not resolutions:
        raise ArchitectureError(
            f"resolutions must be one or more sides in pixels, e.g. (24, 28, 32); got {resolutions!r}"
        )
    for each in resolutions:
        if type(each) is not int or not least <= each <= MAX_NUMBER:
            raise ArchitectureError(
                f"resolutions must be whole numbers of {least} or more, what the space's strides divide a side by; "
                f"got {each!r:.40}"
            )
    if len(set(resolutions)) < len(resolutions):
        raise ArchitectureError(f"resolutions must differ, got {', '.join(map(str, resolutions))}")
    return tuple(sorted(resolutions))


def _rounded(width: float, step: int, max_width: int) -> int:
    return min(round_width(width, step), max_width // step * step)


@lru_cache(maxsize=4_096)
def end_block(type_name: str, width: int, stride: int) -> BlockSpec:
    """A stem or a last convolution, the same object for the same values."""
    return BLOCKS[type_name](out_channels=width, stride=stride)


@lru_cache(maxsize=65_536)
def _body_block(
    type_name: str, width: int, stride: int, bottleneck_channels: int, sub_layers: int, squeeze_excite: bool
) -> BlockSpec:
    """A block, the same object for the same values: a search makes few different ones very often."""
    return BLOCKS[type_name](
        out_channels=width,
        stride=stride,
        bottleneck_channels=bottleneck_channels,
        sub_layers=sub_layers,
        squeeze_excite=squeeze_excite,
    )


@lru_cache(maxsize=256)
def type_numbers(types: tuple[str, ...]) -> Codes:
    """The numbers that codes have for block types in this process; a space that travels takes none along."""
    widths = ("out_channels", "bottleneck_channels")
    blocks = [BLOCKS[name](**{each: 1 for each in BLOCKS[name].free_fields if each in widths}) for name in types]
    return coding.field_of(coding.Chains.of([Architecture(tuple(blocks))]).codes[0], "type")


def pick(options: Sequence[_Option], rng: random.Random) -> _Option:
    """One of the options, evenly; a quarter of the time that ``rng.choice`` takes."""
    return options[int(rng.random() * len(options))]


def _cuts(architecture: Architecture) -> list[int]:
    """Where a chain may be cut: before the body, before each block of stride 2, before the last convolution."""
    body = range(1, len(architecture.blocks) - 1)
    strided = [index for index in body if architecture.blocks[index].stride == 2]
    return [1, *strided, len(architecture.blocks) - 1]
