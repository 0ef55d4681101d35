"""Chains of residual blocks in which strides, stem and last convolution are free too, and the part of inverted ones."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.chain import KINDS, SPLIT_AT, ChainSpace, end_block, pick, stride_steps, type_numbers

if TYPE_CHECKING:
    import numpy as np

    from zeroshot_nas.chains import coding, editing
    from zeroshot_nas.chains.coding import Codes
    from zeroshot_nas.chains.editing import Draws, Mask
    from zeroshot_nas.chains.lowering import Index
else:
    np = LazyModule("numpy")
    coding, editing = LazyModule("zeroshot_nas.chains.coding"), LazyModule("zeroshot_nas.chains.editing")

STEMS = tuple(f"SuperConvK{k}BNRELU" for k in (3, 5, 7))


@register_space("vanilla")
def vanilla(
    *,
    input_size: Shape,
    num_classes: int,
    squeeze_excite: bool = False,
    max_width: int = 2048,
    width_step: int = 1,
    blocks: str = "all",
    stem_strides: Sequence[int] = (1, 2),
    resolutions: Sequence[int] | None = None,
) -> VanillaSpace:
    """Vanilla convolutional networks: what of ``resnet`` and ``mobilenet`` is fixed is free here.

    The stem is a 3x3, 5x5 or 7x7 convolution of stride 1 or 2. Each body block is basic, a bottleneck or an inverted
    residual, and has stride 1 or 2; a network halves its feature map once more than `stride_steps` at most. The last
    1x1 convolution may be absent. Widths are any whole number. Networks of ``resnet`` and ``mobilenet`` are in it.
    ``resolutions`` as for `ChainSpace`.

    ``blocks`` keeps to some kinds, as in ``"basic"`` or ``"basic+inverted"``; they are drawn equally often.
    ``stem_strides`` keeps to one stride of the stem.

    Raises:
        ArchitectureError: An option is not usable.

    Example:
        >>> vanilla(input_size=(3, 16, 16), num_classes=10).initial().to_string()
        'SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,2,8,1)SuperResK3K3(8,16,2,16,1)'
    """
    chosen = list(KINDS) if blocks == "all" else str(blocks).split("+")
    if not set(chosen) <= set(KINDS):
        raise ArchitectureError(f"blocks must be all, or some of {', '.join(KINDS)} joined by +, got {blocks!r}")
    types = [name for kind in dict.fromkeys(chosen) for name in KINDS[kind]]
    return VanillaSpace(
        *("vanilla", tuple(types), input_size, num_classes, squeeze_excite, max_width),
        width_step=width_step,
        stem_strides=stem_strides,
        resolutions=resolutions,
    )


@register_space("inverted")
def inverted(
    *,
    input_size: Shape,
    num_classes: int,
    squeeze_excite: bool = False,
    max_width: int = 2048,
    width_step: int = 1,
    kernels: Sequence[int] = (5, 7),
    stem_strides: Sequence[int] | None = None,
    resolutions: Sequence[int] | None = None,
) -> VanillaSpace:
    """The part of ``vanilla`` whose blocks are inverted residuals of large kernels; expansions are 1, 2, 4 and 6.

    ``kernels`` are those of the depthwise convolutions: by default 5 and 7, with which a few blocks see the whole image
    (``docs/ceres.md`` has what kernels of 3 are worth). ``stem_strides`` are those that the stem may have; None is 1
    for images of fewer than 64 pixels, 1 or 2 from there on. ``resolutions`` as for `ChainSpace`.

    Raises:
        ArchitectureError: An option is not usable.

    Example:
        >>> inverted(input_size=(3, 16, 16), num_classes=10).initial().to_string()
        'SuperConvK3BNRELU(3,8,1,1)SuperResIDWE1K5(8,8,2,8,1)SuperResIDWE1K5(8,16,2,16,1)'
    """
    given: Any = kernels if isinstance(kernels, list | tuple) else (kernels,)
    if not given or not set(given) <= {3, 5, 7}:
        raise ArchitectureError(f"kernels must be some of 3, 5 and 7, e.g. (5, 7); got {kernels!r:.40}")
    if stem_strides is None:
        stem_strides = (1, 2) if stride_steps(input_size) > 3 else (1,)
    types = [name for name in KINDS["inverted"] if int(name[-1]) in given]
    return VanillaSpace(
        *("inverted", tuple(types), input_size, num_classes, squeeze_excite, max_width),
        width_step=width_step,
        stem_strides=stem_strides,
        resolutions=resolutions,
    )


@dataclass(frozen=True)
class VanillaSpace(ChainSpace):
    """A stem, a body of at least one block, and a last 1x1 convolution or none; strides stand anywhere.

    The arguments are those of `ChainSpace`, and ``stem_strides``. A mutation draws a kind of block, then a type of that
    kind.
    """

    stem_strides: Sequence[int] = (1, 2)

    def __post_init__(self) -> None:
        given: Any = self.stem_strides
        strides = given if isinstance(given, list | tuple) else (given,)
        if any(type(each) is not int for each in strides) or sorted(strides) not in ([1], [2], [1, 2]):
            raise ArchitectureError(f"stem_strides must be 1, 2 or both, (1, 2); got {given!r:.40}")
        object.__setattr__(self, "stem_strides", tuple(sorted(strides)))
        super().__post_init__()

    @cached_property
    def kinds(self) -> tuple[tuple[str, ...], ...]:
        """The body's types by kind; types that are of no kind in `KINDS` are one of their own."""
        kinds = [tuple(name for name in self.body_types if name in names) for names in KINDS.values()]
        others = tuple(name for name in self.body_types if not any(name in kind for kind in kinds))
        return tuple(kind for kind in (*kinds, others) if kind)

    @cached_property
    def max_halvings(self) -> int:
        """Strides of 2 that a network has at most, the stem's among them."""
        return stride_steps(self.input_size) + 1

    last_is_optional = True

    @property
    def stems(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, stride) for name in STEMS for stride in self.stem_strides)

    @cached_property
    def stem_stride(self) -> int:
        """The initial network's."""
        usual = 2 if stride_steps(self.input_size) > 3 else 1
        return usual if usual in self.stem_strides else self.stem_strides[0]

    @property
    def _first_movable(self) -> int:
        """The first block that mutations may give another stride."""
        return int(len(self.stem_strides) == 1)

    def next_strides(self, stem_stride: int, strides: Sequence[int]) -> tuple[int, ...]:
        halvings = (stem_stride, *strides).count(2)
        return (1, *((2,) if halvings < self.max_halvings else ()), *((0,) if strides else ()))

    def initial(self) -> Architecture:
        body, strides = [], [stride for stride in self.body_strides if stride == 2] or [1]
        for index, stride in enumerate(strides):
            width = self._round(min(8 * 2**index, 64))
            body.append(self.body_block(self.body_types[0], width, stride, width))
        return self._assemble([self._stem(self._round(8)), *body])

    def smallest(self, cost: str) -> Architecture:
        step = self.width_step
        chains = [
            self._smallest([end_block(STEMS[0], step, stem_stride), self.body_block(name, step, stride, step)])
            for name in self.body_types
            for stem_stride in self.stem_strides
            for stride in (1, 2)
            if stem_stride * stride <= 2**self.max_halvings
        ]
        return min(chains, key=lambda chain: float(getattr(complexity(chain), cost)))

    def _mutated(self, codes: Codes, mutations: Index, draws: Draws) -> Codes:
        for index in range(int(mutations.max(initial=0))):
            rows = np.flatnonzero(mutations > index)
            codes = self._mutated_once(codes, rows, draws[rows, index])
        return codes

    def _mutated_once(self, codes: Codes, rows: Index, draws: Draws) -> Codes:
        """Each of some rows with its stem, its last convolution, a stride, or one of its body's blocks changed."""
        blocks = editing.lengths(codes)
        ends = codes[np.arange(len(codes)), blocks - 1]
        has_last = coding.field_of(ends, "type") == self._last_type
        chain = blocks - has_last
        places = (draws[:, 0] * (chain[rows] + 1)).astype(np.intp)
        last = places == chain[rows]
        move = ~last & (draws[:, 1] < 1 / 6) & (places >= self._first_movable)
        stem = ~last & ~move & (places == 0)
        body = ~last & ~move & ~stem
        copy = body & (draws[:, 2] < 0.2)
        change = body & ~copy
        further = draws[:, 3:]
        if move.any():
            self._move_strides(codes, rows[move], places[move], chain, further[move])
        if stem.any():
            self._mutate_stems(codes, rows[stem], further[stem])
        # each row has one change, so that those which move what is behind them do not meet
        if last.any():
            codes = self._mutate_lasts(codes, rows[last], chain, has_last, further[last])
        if copy.any():
            codes = self._copied_or_removed(codes, rows[copy], places[copy], chain, further[copy])
        return self._mutate_bodies(codes, rows[change], places[change], draws[change, 2:])

    def _mutate_stems(self, codes: Codes, rows: Index, draws: Draws) -> None:
        """Another kernel half of the time, or another width."""
        kernel = draws[:, 0] < 0.5
        chosen, others = rows[kernel], rows[~kernel]
        types = editing.drawn(self._stem_types, draws[kernel, 1])
        codes[chosen, 0] = coding.with_field(codes[chosen, 0], "type", types)
        self._mutate_widths(codes, others, np.zeros(len(others), np.intp), draws[~kernel, 1])

    def _mutate_lasts(self, codes: Codes, rows: Index, chain: Index, has_last: Mask, draws: Draws) -> Codes:
        """None there: one is added; else its width changes, or it is removed."""
        there = has_last[rows]
        gone = there & (draws[:, 0] < 1 / 3)
        kept, added = rows[there & ~gone], rows[~there]
        self._mutate_widths(codes, kept, chain[kept], draws[there & ~gone, 1])
        codes = editing.removed(codes, rows[gone], chain[rows[gone]])
        before = coding.field_of(codes[added, chain[added] - 1], "out_channels")
        widths = self.drawn_widths(before, draws[~there, 1])
        last = coding.encoded(self._last(self.width_step))
        lasts = coding.with_field(np.full(len(added), last), "out_channels", widths)
        return editing.inserted(codes, added, chain[added], lasts)

    def _move_strides(self, codes: Codes, rows: Index, places: Index, chain: Index, draws: Draws) -> None:
        """A block without a stride gets one, new or another block's; one with a stride drops it, or a neighbour has it.

        Either half of the time, where it can be.
        """
        column = np.arange(codes.shape[1])
        movable = column >= self._first_movable
        strided = coding.field_of(codes[rows], "stride") == 2
        half = draws[:, 0] < 0.5
        has = strided[np.arange(len(rows)), places]
        neighbours = (abs(column - places[:, None]) == 1) & (column < chain[rows, None]) & movable & ~strided
        given = has & half & neighbours.any(1)
        others = strided & movable
        full = np.count_nonzero(strided, axis=1) == self.max_halvings
        taken = ~has & others.any(1) & (half | full)
        for chosen, options, stride in ((given, neighbours, 2), (taken, others, 1)):
            self._set_strides(codes, rows[chosen], editing.drawn_place(options[chosen], draws[chosen, 1]), stride)
        self._set_strides(codes, rows, places, np.where(has | (full & ~taken), 1, 2))

    @staticmethod
    def _set_strides(codes: Codes, rows: Index, places: Index, stride: Codes | int) -> None:
        codes[rows, places] = coding.with_field(codes[rows, places], "stride", stride)

    @staticmethod
    def _copied_or_removed(codes: Codes, rows: Index, places: Index, chain: Index, draws: Draws) -> Codes:
        """A body block is removed, if there is another, or one as it follows it; with stride 1 and one sub-layer."""
        gone = (chain[rows] > 2) & (draws[:, 0] < 0.5)
        copies = codes[rows[~gone], places[~gone]]
        copies = coding.with_field(coding.with_field(copies, "stride", 1), "sub_layers", 1)
        codes = editing.removed(codes, rows[gone], places[gone])
        return editing.inserted(codes, rows[~gone], places[~gone] + 1, copies)

    def _drawn_types(self, draws: Draws) -> Codes:
        numbers, sizes = _numbers_of(self.kinds)
        kind = (draws[:, 0] * len(sizes)).astype(np.intp)
        return numbers[kind, (draws[:, 1] * sizes[kind]).astype(np.intp)]

    @property
    def _stem_types(self) -> Codes:
        return type_numbers(STEMS)

    @property
    def _last_type(self) -> int:
        return int(type_numbers((self.last_type,))[0])

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """One-point crossover where both have halved equally often; ``a`` where there is no such point."""
        (chain_a, _), (chain_b, last) = _parts(a), _parts(b)
        places_b = _cuts(chain_b)
        cuts = [
            (i, j)
            for i, halvings in _cuts(chain_a).items()
            for j, others in places_b.items()
            if halvings == others and (i > 1 or j < len(chain_b))
        ]
        if not cuts:
            return a
        i, j = pick(cuts, rng)
        return self._assemble([*chain_a[:i], *chain_b[j:], *last], a.input_size)

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        if architecture.input_size not in self.input_sizes or architecture.num_classes != self.num_classes:
            return False
        return not self._fault(architecture)

    def size(self, max_layers: int | None = None) -> float:
        if max_layers is None:
            return math.inf
        widths = self.max_width // self.width_step
        per_block = len(self.body_types) * widths**2
        depth, most = max(0, max_layers - 1), self.max_halvings  # without the stem
        # bodies[s][d]: bodies of d layers in which s blocks have stride 2; of no layers there is the empty one
        bodies = [[int(s == 0), *[0] * depth] for s in range(most + 1)]
        for d in range(1, depth + 1):
            for s in range(most + 1):
                shorter = range(max(0, d - SPLIT_AT + 1), d)
                bodies[s][d] = per_block * sum(bodies[s][r] + (bodies[s - 1][r] if s else 0) for r in shorter)
        chains = 0
        for stem_stride in self.stem_strides:
            stem_halvings = int(stem_stride == 2)
            for s in range(most + 1 - stem_halvings):
                chains += sum(bodies[s][1:]) + widths * sum(bodies[s][1:depth])  # without a last convolution, and with
        return len(STEMS) * widths * chains * len(self.input_sizes)

    def _fault(self, architecture: Architecture) -> str:
        chain, last = _parts(architecture)
        if not all(self._is_width(block.out_channels) for block in architecture.blocks):
            return f"expected {self._widths}"
        stem, *body = chain or last
        if stem.type_name not in STEMS or stem != end_block(stem.type_name, stem.out_channels, stem.stride):
            return f"its stem is {stem}; expected one of {', '.join(STEMS)} with one sub-layer"
        if stem.stride not in self.stem_strides:
            wanted = " or ".join(map(str, self.stem_strides))
            return f"its stem has stride {stem.stride}; expected {wanted} (stem_strides)"
        if not body:
            return "it has no body block"
        for index, block in enumerate(body, start=1):
            if not self._is_body_block(block):
                return self._fault_of_body_block(index, block)
        if last and last[0] != self._last(last[0].out_channels):
            return f"its last block is {last[0]}; expected {self.last_type} with stride 1 and one sub-layer"
        strides = [block.stride for block in chain]
        if not set(strides) <= {1, 2} or strides.count(2) > self.max_halvings:
            return f"its strides are {strides}; expected 1 and at most {self.max_halvings} times 2"
        return ""


@lru_cache(maxsize=64)
def _numbers_of(kinds: tuple[tuple[str, ...], ...]) -> tuple[Codes, Index]:
    """The numbers of the types of each kind of block ``(kinds, types)``, and how many these are."""
    sizes = np.array([len(kind) for kind in kinds])
    numbers = np.zeros((len(sizes), int(sizes.max())), np.int64)
    for place, kind in enumerate(kinds):
        numbers[place, : len(kind)] = type_numbers(kind)
    return numbers, sizes


def _parts(architecture: Architecture) -> tuple[list[BlockSpec], list[BlockSpec]]:
    """Stem and body, and the last convolution or nothing."""
    blocks = list(architecture.blocks)
    behind = len(blocks) - (blocks[-1].type_name == VanillaSpace.last_type)
    return blocks[:behind], blocks[behind:]


def _cuts(chain: list[BlockSpec]) -> dict[int, int]:
    """Places behind the stem and behind each body block, and how often the map is halved before them."""
    halvings, cuts = 0, {}
    for place, block in enumerate(chain, start=1):
        halvings += block.stride == 2
        cuts[place] = halvings
    return cuts
