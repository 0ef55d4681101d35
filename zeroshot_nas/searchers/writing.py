"""Networks written token by token, each token one of those that leave room for the rest.

So a budget is kept by what can be chosen at all. A token is judged by a whole network: what is written so far and the
token, finished as a guide, which is a small network of the space that keeps to the budget itself. The guide's own token
fits always, and with the last token the judged network is the written one. Other networks are left out nowhere but at
the rim of the budget, where the rest could have been cheaper than every guide's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Resolution, Shape
from zeroshot_nas.costs.base import STANDARD, summed_costs
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import SearcherError
from zeroshot_nas.searchers.base import Problem
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.spaces.chain import SPLIT_AT, ChainSpace, end_block
from zeroshot_nas.spaces.genotypes import Digits, DigitSpace

WIDTH_RATIO = 1.12
"""Neighbouring widths to choose from differ by this factor, where the space's step lets them."""

PLACES = 3
"""Blocks of one resolution whose tokens have names of their own; those behind share the last one's."""

_MEMORY = 200_000
"""Verdicts on beginnings of genotypes that are remembered."""


class Choose(Protocol):
    """Picks the option of a token.

    Args:
        name: Which token.
        logits: What its options begin with, before anything is learned.
        fits: Whether an option leaves room for the rest.
        ordered: Whether neighbouring options are alike.
        monotone: Whether behind an option that doesn't fit none does.

    Raises:
        NothingFitsError: No option does.
    """

    def __call__(
        self,
        name: Hashable,
        logits: Callable[[], Sequence[float]],
        fits: Callable[[int], bool],
        *,
        ordered: bool = False,
        monotone: bool = False,
    ) -> int: ...


class Writer(Protocol):
    """Writes networks of a space within a budget."""

    def write(self, choose: Choose) -> Architecture:
        """A network, each of whose tokens is chosen.

        Raises:
            NothingFitsError: What was chosen so far leaves no room as far as the guides can tell.
        """
        ...


def writer_of(space: SearchSpace, problem: Problem, start: Architecture) -> Writer:
    """What writes networks of a space.

    Args:
        space: The space.
        problem: Says what keeps to the budget.
        start: A network of the space that does.

    Raises:
        SearcherError: The space's networks are written in no tokens.
    """
    if isinstance(space, ChainSpace):
        return ChainWriter(space, problem, start)
    if isinstance(space, DigitSpace):
        return DigitWriter(space, problem, start)
    raise SearcherError(
        f"reinforce needs a space of chains, such as resnet, or of genotypes with a choice a position, such as "
        f"nasbench201; {space.name!r} is neither, so take regularized_evolution"
    )


class DigitWriter:
    """Writes genotypes of a `DigitSpace`, a token a position; see `writer_of` for the arguments."""

    def __init__(self, space: DigitSpace, problem: Problem, start: Architecture) -> None:
        self.space = space
        self.problem = problem
        names = [name for name in problem.budget.limits() if name in STANDARD and name != "latency_ms"]
        self._guides = list(dict.fromkeys(map(space.genotype, (*map(space.smallest, names), start))))
        self._has_limits = bool(problem.budget.limits()) or problem.budget.structure is not None
        self._verdicts: dict[Digits, bool] = {}

    def write(self, choose: Choose) -> Architecture:
        digits: Digits = ()
        for position in range(len(self.space.choices)):
            digits = (*digits, self._digit(digits, position, choose))
        return self.space.network(digits)

    def _digit(self, digits: Digits, position: int, choose: Choose) -> int:
        options = self.space.choices[position]
        return choose(position, lambda: [0.0] * options, lambda option: self._fits((*digits, option)))

    def _fits(self, digits: Digits) -> bool:
        """Whether a beginning, finished as a guide, keeps to the budget."""
        if not self._has_limits:
            return True
        if digits not in self._verdicts:
            if len(self._verdicts) >= _MEMORY:
                self._verdicts.clear()
            finished = (digits + guide[len(digits) :] for guide in self._guides)
            self._verdicts[digits] = any(self.problem.fits(self.space.network(genotype)) for genotype in finished)
        return self._verdicts[digits]


class _Prefix(NamedTuple):
    """The blocks that are written so far, what they cost, and what the next one meets."""

    input_size: Shape
    blocks: tuple[BlockSpec, ...]
    sums: tuple[float, ...]
    layers: int
    channels: int
    resolution: Resolution
    stem_stride: int
    strides: tuple[int, ...]


class _Tail(NamedTuple):
    """What follows a prefix: blocks and head, with what they cost."""

    blocks: tuple[BlockSpec, ...]
    sums: tuple[float, ...]
    layers: int


class ChainWriter:
    """Writes networks of a `ChainSpace`; see `writer_of` for the arguments.

    The tokens are the resolution where it is free, those of the stem, then block by block the stride, or the end of the
    body, and the block's type, sub-layers, bottleneck width and width, and those of the last convolution. A token's
    name has the stage and the place in it, so that what is learned of a place does not depend on how many blocks stand
    before its stage. Widths to choose from are `WIDTH_RATIO` apart.

    Costs that are sums are taken from memoised sums over blocks; of a budget with other limits (latency, structure) the
    whole network is judged, which takes some ten times as long.
    """

    def __init__(self, space: ChainSpace, problem: Problem, start: Architecture) -> None:
        self.space = space
        self.problem = problem
        self._start = start
        self._start_stages = _stages(start, space)
        self._widths = _width_options(space, start)
        self._summed = summed_costs()
        limits = problem.budget.limits()
        self._is_sum = problem.budget.structure is None and set(limits) <= {*self._summed.names, "layers"}
        self._limits = [(place, limits[name]) for place, name in enumerate(self._summed.names) if name in limits]
        self._max_layers = limits.get("layers", math.inf)
        # guides: the cheapest rest by each summed cost that is limited, and the start's (None) where those may not do
        self._guides: list[int | None] = [place for place, _ in self._limits] or [0]
        if not self._is_sum or len(self._limits) > 1:
            self._guides.append(None)
        self._defaults: dict[Hashable, Any] = {}
        self._tails: dict[Hashable, list[_Tail]] = {}
        self._middle = self._half_way()
        self._middle_stages = _stages(self._middle, space)

    def _half_way(self) -> Architecture:
        """The initial network, its widths doubled or halved until it just keeps to the limits on summed costs."""
        space, limits = self.space, [(self._summed.names[place], limit) for place, limit in self._limits]
        factors = [2.0**power for power in range(-12, 13)] if limits else [1.0]
        kind = space.body_types[0]
        scaled = [space.scaled(factors[0], 1, kind)]
        for factor in factors:
            architecture = space.scaled(factor, 1, kind)
            costs = complexity(architecture)
            if any((costs[name] or 0) > limit for name, limit in limits):
                break
            scaled.append(architecture)
        return scaled[-1]

    def write(self, choose: Choose) -> Architecture:
        prefix = self._with_stem(choose)
        while stride := self._stride(prefix, choose):
            prefix = self._with_body_block(prefix, stride, choose)
        return self._whole(prefix, self._last(prefix, choose))

    def _with_stem(self, choose: Choose) -> _Prefix:
        stems, widths = self.space.stems, self._widths
        sizes = self.space.input_sizes

        def fits(option: int, width: int | None, empty: _Prefix) -> bool:
            name, stride = stems[option]
            for guide in self._guides:
                default = self._start.blocks[0].out_channels if guide is None else self.space.width_step
                if self._leaves_room(empty, end_block(name, width or default, stride), stride, (), guide):
                    return True
            return False

        def begun(size: int) -> _Prefix:
            channels, *sides = sizes[size]
            return _Prefix(sizes[size], (), (0,) * len(self._summed.names), 0, channels, (sides[0], sides[1]), 1, ())

        def takes(size: int) -> bool:
            return any(fits(option, None, begun(size)) for option in range(len(stems)))

        size = 0
        if len(sizes) > 1:
            size = choose("resolution", lambda: [0.0] * len(sizes), takes, ordered=True, monotone=self._is_sum)
        empty, option = begun(size), 0
        if len(stems) > 1:
            option = choose("stem", lambda: [0.0] * len(stems), lambda option: fits(option, None, empty))
        place = choose(
            "stem width",
            lambda: self._around(self._middle.blocks[0].out_channels),
            lambda place: fits(option, widths[place], empty),
            ordered=True,
            monotone=self._is_sum,
        )
        return self._after(empty, end_block(stems[option][0], widths[place], stems[option][1]), stems[option][1], ())

    def _stride(self, prefix: _Prefix, choose: Choose) -> int:
        """The next block's stride; 0 ends the body."""
        options = self.space.next_strides(prefix.stem_stride, prefix.strides)
        if len(options) == 1:
            return options[0]

        def fits(option: int) -> bool:
            if options[option]:
                return self._body_fits(prefix, options[option])
            where = prefix.stem_stride, prefix.strides, prefix.channels, prefix.resolution
            return any(
                self._is_within(prefix, tail) for guide in self._guides for tail in self._tails_of(guide, *where)
            )

        # a further block of the same stage is rarer at first, so that the first networks are about as deep as any
        logits = [-1.0 if stride == 1 else 0.0 for stride in options]
        return options[choose(("stride", options, *_place(prefix.strides)), lambda: logits, fits)]

    def _with_body_block(self, prefix: _Prefix, stride: int, choose: Choose) -> _Prefix:
        types, depths, widths = self.space.body_types, range(1, SPLIT_AT), self._widths
        strides = (*prefix.strides, stride)
        where = (stride, *_place(strides))
        middle = self._middle_stages[min(_stage(strides), len(self._middle_stages) - 1)][0]
        ordered: Any = {"ordered": True, "monotone": self._is_sum}
        kind = types[
            choose(
                ("type", *where),
                lambda: [0.0] * len(types),
                lambda place: self._body_fits(prefix, stride, types[place]),
            )
        ]
        depth = depths[
            choose(
                ("sub_layers", *where),
                lambda: [0.0] * len(depths),
                lambda place: self._body_fits(prefix, stride, kind, depths[place]),
                **ordered,
            )
        ]
        bottleneck = widths[
            choose(
                ("bottleneck", *where),
                lambda: self._around(middle.bottleneck_channels),
                lambda place: self._bottleneck_fits(prefix, stride, kind, depth, widths[place]),
                **ordered,
            )
        ]
        width = widths[
            choose(
                ("width", *where),
                lambda: self._around(middle.out_channels),
                lambda place: self._body_fits(prefix, stride, kind, depth, bottleneck, widths[place]),
                **ordered,
            )
        ]
        block = self.space.body_block(kind, width, stride, bottleneck, depth)
        return self._after(prefix, block, prefix.stem_stride, strides)

    def _last(self, prefix: _Prefix, choose: Choose) -> tuple[BlockSpec, ...]:
        """The last convolution, or nothing."""
        space, widths = self.space, self._widths if self.space.last_width is None else [self.space.last_width]

        def fits(*width: int) -> bool:
            last = tuple(end_block(space.last_type, one, 1) for one in width)
            return self._is_within(prefix, self._closed(last, prefix.channels, prefix.resolution))

        if space.last_is_optional:
            options = ((), widths[:1])
            if not choose("last", lambda: [0.0, 0.0], lambda option: fits(*options[option])):
                return ()
        place = choose(
            "last width",
            lambda: self._around(self._middle.blocks[-1].out_channels)[-len(widths) :],
            lambda place: fits(widths[place]),
            ordered=True,
            monotone=self._is_sum,
        )
        return (end_block(space.last_type, widths[place], 1),)

    def _around(self, width: int) -> list[float]:
        """Logits of a bell around a width, an octave to either side."""
        return [-0.5 * math.log2(option / width) ** 2 for option in self._widths]

    def _body_fits(
        self,
        prefix: _Prefix,
        stride: int,
        kind: str | None = None,
        depth: int | None = None,
        bottleneck: int | None = None,
        width: int | None = None,
    ) -> bool:
        """Whether a body block leaves room for the rest; what is open of it is the guide's."""
        strides = (*prefix.strides, stride)
        for guide in self._guides:
            default = self._default(guide, prefix.channels, prefix.resolution, strides)
            block = self.space.body_block(
                kind or default.type_name,
                width or default.out_channels,
                stride,
                bottleneck or default.bottleneck_channels,
                depth or default.sub_layers,
            )
            if self._leaves_room(prefix, block, prefix.stem_stride, strides, guide):
                return True
        return False

    def _bottleneck_fits(self, prefix: _Prefix, stride: int, kind: str, depth: int, bottleneck: int) -> bool:
        """The same for a bottleneck's width; where a much wider one fits, as it mostly does, its costs are known."""
        wider = self.space.width_step
        while wider < bottleneck:
            wider *= 4
        fits = self._is_sum and self._body_fits(prefix, stride, kind, depth, wider)
        return fits or self._body_fits(prefix, stride, kind, depth, bottleneck)

    def _leaves_room(
        self, prefix: _Prefix, block: BlockSpec, stem_stride: int, strides: tuple[int, ...], guide: int | None
    ) -> bool:
        """Whether a prefix and a block, finished as a guide, keep to the budget."""
        row, resolution = self._summed.block_sums(block, prefix.channels, prefix.resolution)
        for tail in self._tails_of(guide, stem_stride, strides, block.out_channels, resolution):
            if prefix.layers + block.sub_layers + tail.layers > self._max_layers:
                continue
            if any(prefix.sums[place] + row[place] + tail.sums[place] > limit for place, limit in self._limits):
                continue
            if self._is_sum or self.problem.fits(self._whole(prefix, (block, *tail.blocks))):
                return True
        return False

    def _is_within(self, prefix: _Prefix, tail: _Tail) -> bool:
        """Whether a prefix keeps to the budget with what follows."""
        if prefix.layers + tail.layers > self._max_layers:
            return False
        if any(prefix.sums[place] + tail.sums[place] > limit for place, limit in self._limits):
            return False
        return self._is_sum or self.problem.fits(self._whole(prefix, tail.blocks))

    def _whole(self, prefix: _Prefix, blocks: tuple[BlockSpec, ...]) -> Architecture:
        return Architecture(prefix.blocks + blocks, prefix.input_size, self.space.num_classes)

    def _after(self, prefix: _Prefix, block: BlockSpec, stem_stride: int, strides: tuple[int, ...]) -> _Prefix:
        """A prefix with one block more."""
        row, resolution = self._summed.block_sums(block, prefix.channels, prefix.resolution)
        sums = tuple([before + more for before, more in zip(prefix.sums, row, strict=True)])
        layers = prefix.layers + block.sub_layers
        blocks = *prefix.blocks, block
        return _Prefix(prefix.input_size, blocks, sums, layers, block.out_channels, resolution, stem_stride, strides)

    def _tails_of(
        self, guide: int | None, stem_stride: int, strides: tuple[int, ...], channels: int, resolution: Resolution
    ) -> list[_Tail]:
        """The rests of a network as a guide has them, the cheapest first; none where the start's rest can't follow."""
        begun = _begun(strides) if guide is None else bool(strides)
        key = guide, stem_stride, strides.count(2), begun, channels, resolution
        if key not in self._tails:
            if guide is None:
                rest = self._rest_of_start(stem_stride, strides)
                rests = [] if rest is None else [rest]
            else:
                rests = self._cheapest_rests(guide, stem_stride, strides, channels, resolution)
            tails = [self._closed(tuple(blocks), channels, resolution) for blocks in rests]
            self._tails[key] = sorted(tails, key=lambda tail: tail.sums[guide or 0])
        return self._tails[key]

    def _rest_of_start(self, stem_stride: int, strides: tuple[int, ...]) -> list[BlockSpec] | None:
        """The start's blocks behind as many as there are of the last stage."""
        rest = [block for stage in self._start_stages[_stage(strides) :] for block in stage][_begun(strides) :]
        for block in rest:
            if block.stride not in self.space.next_strides(stem_stride, strides):
                return None
            strides = (*strides, block.stride)
        if 0 not in self.space.next_strides(stem_stride, strides):
            return None
        return rest + [block for block in self._start.blocks[-1:] if block.type_name == self.space.last_type]

    def _cheapest_rests(
        self, place: int, stem_stride: int, strides: tuple[int, ...], channels: int, resolution: Resolution
    ) -> list[list[BlockSpec]]:
        """One block a stage that is left, as cheap as can be, and the narrowest last convolution, or without it."""
        space, blocks = self.space, list[BlockSpec]()
        inside, sides = channels, resolution
        while 0 not in (options := space.next_strides(stem_stride, strides)):
            strides = (*strides, max(options))
            block = self._default(place, inside, sides, strides)
            blocks.append(block)
            inside, (_, sides) = block.out_channels, self._summed.block_sums(block, inside, sides)
        # a narrow last convolution may spare more of the classifier than it costs, but is a layer more
        closed = [*blocks, end_block(space.last_type, space.last_width or space.width_step, 1)]
        return [closed, blocks] if space.last_is_optional else [closed]

    def _default(self, guide: int | None, channels: int, resolution: Resolution, strides: tuple[int, ...]) -> Any:
        """A guide's block for the last of some strides: the start's in that place, or the cheapest there is."""
        if guide is None:
            stage = self._start_stages[min(_stage(strides), len(self._start_stages) - 1)]
            return stage[min(_begun(strides), len(stage)) - 1]
        stride, step = strides[-1], self.space.width_step
        key = guide, channels, resolution, stride
        if key not in self._defaults:
            options = [self.space.body_block(kind, step, stride, step) for kind in self.space.body_types]
            rows = [self._summed.block_sums(block, channels, resolution).row for block in options]
            self._defaults[key] = options[min(range(len(rows)), key=lambda place: rows[place][guide])]
        return self._defaults[key]

    def _closed(self, blocks: tuple[BlockSpec, ...], channels: int, resolution: Resolution) -> _Tail:
        """Blocks and the head behind them."""
        rows = []
        for block in blocks:
            row, resolution = self._summed.block_sums(block, channels, resolution)
            rows.append(row)
            channels = block.out_channels
        rows.append(self._summed.head_row(channels, resolution, self.space.num_classes))
        return _Tail(blocks, tuple(map(sum, zip(*rows, strict=True))), sum(block.sub_layers for block in blocks))


def _place(strides: tuple[int, ...]) -> tuple[int, int]:
    """Stage of the last of some body blocks, and its place there from 1; the places from `PLACES` on are one.

    Example:
        >>> _place((1, 2, 2, 1, 1, 1)), _place(())
        ((2, 3), (0, 0))
    """
    return _stage(strides), min(_begun(strides), PLACES)


def _stage(strides: tuple[int, ...]) -> int:
    """Stages begin with the body and with each stride of 2 behind its first block."""
    return strides[1:].count(2)


def _begun(strides: tuple[int, ...]) -> int:
    """Blocks of the last stage."""
    blocks = 0
    for stride in reversed(strides):
        blocks += 1
        if stride == 2:
            break
    return blocks


def _stages(architecture: Architecture, space: ChainSpace) -> list[list[Any]]:
    """The body blocks by stage."""
    stages: list[list[Any]] = []
    for block in architecture.blocks:
        if block.type_name in space.body_types:
            if not stages or block.stride == 2:
                stages.append([])
            stages[-1].append(block)
    return stages


def _width_options(space: ChainSpace, start: Architecture) -> list[int]:
    """Widths at even ratios, and those of the start."""
    widths, multiple = {block.out_channels for block in start.blocks}, 1.0
    widths |= {block.bottleneck_channels for stage in _stages(start, space) for block in stage}
    while multiple <= space.max_width // space.width_step:
        widths.add(int(multiple) * space.width_step)
        multiple = max(multiple + 1, multiple * WIDTH_RATIO)
    return sorted(widths)
