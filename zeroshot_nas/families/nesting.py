"""Networks that contain one another: which do, and the space of those that one contains. No torch here."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture import ops
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import uniform
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.spaces.chain import LAYER_CHANGES, ChainSpace

if TYPE_CHECKING:
    import numpy as np

    from zeroshot_nas.chains import coding, editing
    from zeroshot_nas.chains.coding import Chains, Codes
    from zeroshot_nas.chains.editing import Draws
    from zeroshot_nas.chains.lowering import Index
else:
    np = LazyModule("numpy")
    coding, editing = LazyModule("zeroshot_nas.chains.coding"), LazyModule("zeroshot_nas.chains.editing")

_WIDTHS = ("out_channels", "bottleneck_channels")
_FIELDS = (*_WIDTHS, "sub_layers")


def contains(large: Architecture, small: Architecture) -> bool:
    """Whether a network contains another one, so that either can inherit the other's weights; see `why_not`.

    Example:
        >>> large = Architecture.from_string("SuperConvK5BNRELU(1,16,1,1)SuperResK3K3(16,24,2,16,3)", (1, 8, 8))
        >>> small = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,24,2,8,1)", (1, 8, 8))
        >>> contains(large, small), contains(small, large), contains(large, large)
        (True, False, True)
    """
    return why_not(large, small) is None


def why_not(large: Architecture, small: Architecture) -> str | None:
    """What keeps a network from containing another one; None where it does.

    It does where both have as many blocks, of the same kinds and strides, with residual links of the same kinds, and
    no width, kernel or depth of the larger one is smaller: then a part of each of its tensors is the other's.

    Example:
        >>> large = Architecture.from_string("SuperConvK3BNRELU(1,16,1,1)", (1, 8, 8))
        >>> why_not(large, Architecture.from_string("SuperConvK5BNRELU(1,8,1,1)", (1, 8, 8)))
        'block 0: a kernel of 5 does not fit into one of 3'
    """
    if (large.input_size, large.num_classes) != (small.input_size, small.num_classes):
        return "their input sizes or classes differ"
    if len(large.blocks) != len(small.blocks):
        return f"one has {len(large.blocks)} blocks, the other {len(small.blocks)}"
    for index, (outer, inner) in enumerate(zip(large.lower(), small.lower(), strict=True)):
        for fault in _faults(outer, inner):
            return f"{f'block {index}' if index < len(large.blocks) else 'the head'}: {fault}"
    return None


def _faults(large: Sequence[ops.Op], small: Sequence[ops.Op]) -> Iterator[str]:
    if len(large) == len(small) + 1 and isinstance(large[-1], ops.Repeat):
        large = large[:-1]
    if [type(op) for op in large] != [type(op) for op in small]:
        yield "its operations are of other kinds, or fewer"
        return
    for outer, inner in zip(large, small, strict=True):
        yield from _op_faults(outer, inner)


def _op_faults(large: Any, small: Any) -> Iterator[str]:
    if isinstance(large, ops.Conv):
        yield from _conv_faults(large, small)
    elif isinstance(large, ops.Residual):
        if bool(large.shortcut) != bool(small.shortcut):
            yield "a residual link is a projection in one, and the identity in the other"
            return
        yield from _faults(large.body, small.body)
        yield from _faults(large.shortcut, small.shortcut)
    elif isinstance(large, ops.Repeat):
        if large.times < small.times:
            yield f"{small.times + 1} sub-layers do not fit into {large.times + 1}"
        yield from _faults(large.body, small.body)
    elif isinstance(large, ops.Gate):
        yield from _faults(large.body, small.body)
    elif not isinstance(large, ops.BatchNorm | ops.Linear) and large != small:
        yield f"{large} is not {small}"


def _conv_faults(large: ops.Conv, small: ops.Conv) -> Iterator[str]:
    if (large.stride, large.dilation, large.bias) != (small.stride, small.dilation, small.bias):
        yield "strides differ"
    margin = large.kernel_size - small.kernel_size
    if margin < 0 or margin % 2:
        yield f"a kernel of {small.kernel_size} does not fit into one of {large.kernel_size}"
    if large.out_channels < small.out_channels or large.in_channels < small.in_channels:
        yield f"{small.out_channels} channels do not fit into {large.out_channels}"
    grouped = [op.groups == op.in_channels and op.groups > 1 for op in (large, small)]
    if (large.groups, small.groups) != (1, 1) and not all(grouped) and large != small:
        yield "groups differ"


@dataclass(frozen=True)
class NestedSpace(SearchSpace):
    """Networks of a space of chains that one network contains; blocks and strides are its own.

    Widths, depths and kernels are free up to its. A mutation changes one of them, in one block.

    Args:
        space: Of what the network is.
        outer: Contains every network of this space.

    Raises:
        ArchitectureError: The space is not of chains, or the network is not of it.

    Example:
        >>> from zeroshot_nas.spaces.base import get_space
        >>> outer = get_space("resnet", input_size=(1, 8, 8)).scaled(2, 3, "SuperResK5K5")
        >>> space = NestedSpace(get_space("resnet", input_size=(1, 8, 8)), outer)
        >>> sampled = space.sample(random.Random(0))
        >>> contains(outer, sampled), sampled in space, space.smallest("params").layers
        (True, True, 4)
    """

    space: ChainSpace
    outer: Architecture

    @staticmethod
    def checked(space: SearchSpace) -> ChainSpace:
        """The space; raises `ArchitectureError` where its networks do not nest."""
        if not isinstance(space, ChainSpace):
            raise ArchitectureError(
                f"only chains of blocks nest, and {space.name!r} is no space of chains; take resnet, mobilenet or "
                "vanilla, or leave out nested"
            )
        return space

    def __post_init__(self) -> None:
        self.checked(self.space)
        self.space.genotype(self.outer)  # says why it is not of the space

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.space.name

    @property
    def input_size(self) -> ops.Shape:  # type: ignore[override]
        return self.outer.input_size

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        return self.space.num_classes

    @property
    def width_step(self) -> int:
        """Every width is a multiple of it."""
        return self.space.width_step

    @property
    def block_options(self) -> Mapping[str, Any]:
        return self.space.block_options

    def initial(self) -> Architecture:
        return self.smallest("params")

    def smallest(self, cost: str) -> Architecture:
        """The narrowest and shallowest one: it has the least of every cost."""
        del cost
        blocks = tuple(_narrowest(place, self.width_step) for place in self._places)
        return Architecture(blocks, self.input_size, self.num_classes)

    def sample(self, rng: random.Random) -> Architecture:
        """A random walk from the smallest network: 1 to 8 mutations a block."""
        steps = 1 + rng.randrange(8 * len(self._places))
        return self.mutate(self.smallest("params"), rng, steps)

    def mutate(self, architecture: Architecture, rng: random.Random, mutations: int = 1) -> Architecture:
        return self.mutate_all([architecture], [rng.getrandbits(64)], [mutations])[0]

    def mutate_all(
        self, networks: Sequence[Architecture], seeds: Sequence[int], mutations: Sequence[int]
    ) -> Sequence[Architecture]:
        chains = networks if isinstance(networks, coding.Chains) else coding.Chains.of(networks)
        return editing.Mutants(chains, np.asarray(mutations, np.intp), seeds, self._changed)

    def _changed(self, parents: Chains, mutations: Index, seeds: Sequence[int]) -> Chains:
        most = int(mutations.max(initial=0))
        draws = uniform(seeds, 0, most * editing.DRAWS).reshape(len(seeds), most, editing.DRAWS)
        return replace(parents, codes=self._mutated(parents.codes.copy(), mutations, draws))

    def _mutated(self, codes: Codes, mutations: Index, draws: Draws) -> Codes:
        codes = codes[:, : len(self._places)]
        for index in range(int(mutations.max(initial=0))):
            rows = np.flatnonzero(mutations > index)
            draw = draws[rows, index]
            places = (draw[:, 0] * len(self._places)).astype(np.intp)
            codes[rows, places] = self._moved(codes[rows, places], places, draw)
        return codes

    def _moved(self, old: Codes, places: Index, draws: Draws) -> Codes:
        """Of each block another type, width, bottleneck width or depth, as far as its place lets it."""
        bounds, new = self._bounds, old.copy()
        kind, out, bottleneck, depth = (draws[:, 1] * 4).astype(np.intp) == np.arange(4)[:, None]
        for chosen, name in ((out, "out_channels"), (bottleneck, "bottleneck_channels")):
            moved = self.space.drawn_widths(coding.field_of(old[chosen], name), draws[chosen, 2])
            new[chosen] = coding.with_field(old[chosen], name, _between(moved, bounds[name][places[chosen]]))
        layers = coding.field_of(old[depth], "sub_layers") + editing.drawn(LAYER_CHANGES, draws[depth, 2])
        new[depth] = coding.with_field(old[depth], "sub_layers", _between(layers, bounds["sub_layers"][places[depth]]))
        for place in range(len(self._places)):
            here = np.flatnonzero(kind & (places == place))
            if len(here):
                types = editing.drawn(self._type_numbers[place], draws[here, 2])
                new[here] = coding.with_field(old[here], "type", types)
        alike = coding.field_of(new, "out_channels") == coding.field_of(new, "bottleneck_channels")
        links = bounds["links"][places]
        refused = (links >= 0) & (links != alike)  # a residual link would become another kind
        new[refused] = old[refused]
        return new

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """One-point crossover between any two blocks."""
        cut = rng.randrange(1, len(self._places)) if len(self._places) > 1 else 0
        return Architecture((*a.blocks[:cut], *b.blocks[cut:]), self.input_size, self.num_classes)

    def __contains__(self, architecture: object) -> bool:
        return (
            isinstance(architecture, Architecture) and architecture in self.space and contains(self.outer, architecture)
        )

    def size(self, max_layers: int | None = None) -> float:
        """How many architectures there are with at most ``max_layers`` layers; links of the wrong kind count too."""
        most = sum(place.most["sub_layers"] for place in self._places) if max_layers is None else max_layers
        ways = [1.0] + [0.0] * most  # by layers
        for place in self._places:
            each = float(len(place.types))
            for name in _WIDTHS:
                each *= (place.most[name] - place.least[name]) // self.width_step + 1
            depths = range(place.least["sub_layers"], place.most["sub_layers"] + 1)
            ways = [
                sum(ways[layers - depth] for depth in depths if depth <= layers) * each for layers in range(most + 1)
            ]
        return sum(ways)

    def _fault(self, architecture: Architecture) -> str:
        return why_not(self.outer, architecture) or super()._fault(architecture)

    @cached_property
    def _places(self) -> tuple[_Place, ...]:
        return tuple(_place(self.space, block) for block in self.outer.blocks)

    @cached_property
    def _bounds(self) -> Mapping[str, Codes]:
        """Of each place the least and most of each field ``(places, 2)``, and whether both widths are alike."""
        bounds = {
            name: np.array([[place.least[name], place.most[name]] for place in self._places], np.int64)
            for name in _FIELDS
        }
        links = [-1 if place.alike is None else int(place.alike) for place in self._places]
        return {**bounds, "links": np.array(links, np.int64)}

    @property
    def _type_numbers(self) -> Sequence[Codes]:
        """Of each place the numbers that codes have for its types; of this process alone."""
        chains = [
            coding.Chains.of([Architecture((_with_type(place.block, name),), self.input_size) for name in place.types])
            for place in self._places
        ]
        return [coding.field_of(each.codes[:, 0], "type") for each in chains]


@dataclass(frozen=True)
class _Place:
    """What a block may be.

    Attributes:
        block: One that it may be.
        types: Names of types, the smallest first.
        least: The least width and depth, by field; 0 of a field that the block lacks.
        most: The most of each.
        alike: Whether its two widths are alike, where that decides of which kind its residual links are; else None.
    """

    block: BlockSpec
    types: tuple[str, ...]
    least: Mapping[str, int]
    most: Mapping[str, int]
    alike: bool | None


def _place(space: ChainSpace, block: BlockSpec) -> _Place:
    least, most = dict.fromkeys(_FIELDS, 0), dict.fromkeys(_FIELDS, 0)
    for name in set(_WIDTHS) & set(block.field_kinds):
        least[name], most[name] = space.width_step, getattr(block, name)
    least["sub_layers"], most["sub_layers"] = 1, block.sub_layers
    if block.type_name == space.last_type and space.last_width is not None:
        least["out_channels"] = space.last_width
    in_body = block.type_name in space.body_types
    names = space.body_types if in_body else [name for name, stride in space.stems if stride == block.stride]
    types = {name for name in (*names, block.type_name) if _is_smaller(name, block)}
    by_size = sorted(types, key=lambda name: tuple(BLOCKS[name].fixed.values()))
    return _Place(block, tuple(by_size), least, most, _alike(block))


def _is_smaller(name: str, block: BlockSpec) -> bool:
    kind = BLOCKS[name]
    return kind.cls is type(block) and all(value <= getattr(block, field) for field, value in kind.fixed.items())


def _alike(block: BlockSpec) -> bool | None:
    if "bottleneck_channels" not in block.field_kinds:
        return None
    widths: list[dict[str, Any]] = [{"out_channels": 64, "bottleneck_channels": width} for width in (64, 32)]
    kinds = [_links(replace(block, **each).lower(8)) for each in widths]
    return None if kinds[0] == kinds[1] else len({getattr(block, name) for name in _WIDTHS}) == 1


def _links(chain: Sequence[ops.Op]) -> list[Any]:
    """Of each residual link whether it is a projection."""
    found: list[Any] = []
    for op in chain:
        if isinstance(op, ops.Residual):
            found.append(bool(op.shortcut))
        if isinstance(op, ops.Residual | ops.Repeat):
            found += _links(op.body)
    return found


def _narrowest(place: _Place, step: int) -> BlockSpec:
    values: dict[str, Any] = {name: place.least[name] for name in _FIELDS if place.least[name]}
    if place.alike is False and values["out_channels"] == values["bottleneck_channels"]:
        name = next(name for name in _WIDTHS if place.most[name] > values[name])
        values[name] += step
    return replace(_with_type(place.block, place.types[0]), **values)


def _with_type(block: BlockSpec, name: str) -> BlockSpec:
    fixed: dict[str, Any] = dict(BLOCKS[name].fixed)
    return replace(block, **fixed)


def _between(values: Codes, bounds: Codes) -> Codes:
    clipped: Codes = np.clip(values, bounds[:, 0], bounds[:, 1])
    return clipped
