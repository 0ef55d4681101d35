"""Grid search: a space's axes at a few values each, or every network of a finite space."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.errors import SearcherError
from zeroshot_nas.searchers.base import Candidate, Searcher, register_searcher
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.spaces.chain import KINDS, ChainSpace

WIDTHS, DEPTHS, KERNELS = (0.5, 1.0, 1.5), (1, 2, 3), (3, 5)
"""Values of the axes unless others are given."""

_Value = TypeVar("_Value")


@register_searcher("grid")
class Grid(Searcher):
    """Plain enumeration of a declared grid, the coarsest points first; it neither draws nor learns.

    Of a `ChainSpace` the grid is ``widths x depths x kernels x kinds``: each point is the space's initial network with
    all widths and all depths multiplied, and with one type in all body blocks (`ChainSpace.scaled`); the space's
    ``resolutions``, where it has some, are a further axis. Points that the width's step rounds to one network count as
    duplicates.

    An axis is ordered, from its ends (level 0) to the middle of these (level 1) and of what is left between (level 2,
    ...); a point is as fine as the finest of its coordinates, kinds apart. Points come by level, and within one with
    the kind changing fastest and the width slowest but for the resolution. So any first part of the proposals spans the
    whole grid.

    Of a finite space, such as ``nasbench201``, the grid is the list of its networks, in the space's order; it has no
    axes to set.

    Args:
        space: Where to search.
        rng: Not used.
        start: Not used.
        widths: Factors of all widths; default: `WIDTHS`.
        depths: Factors of all depths; default: `DEPTHS`.
        kernels: Kernel sizes; default: `KERNELS`, or the two smallest of a space that has not these.
        kinds: Kinds of block: ``"basic"``, ``"bottleneck"``, ``"inverted"`` (with each of its expansions), or one
            block type for all kernels, ``"SuperResIDWE6Kk"``; default: all of the space.

    Attributes:
        grid_size: Points of the grid.

    Raises:
        SearcherError: The space is neither, has no such axis, kernel or kind, or an axis has no usable values.

    Example:
        >>> from zeroshot_nas.spaces.base import get_space
        >>> space = get_space("resnet")
        >>> grid = Grid(space, random.Random(0), space.initial(), widths=(1, 2), depths=1, kernels=3)
        >>> grid.grid_size, [net.blocks[1].type_name for net in grid.ask(9)]
        (4, ['SuperResK3K3', 'SuperResK1K3K1', 'SuperResK3K3', 'SuperResK1K3K1'])
    """

    restarts = False

    def __init__(
        self,
        space: SearchSpace,
        rng: random.Random,
        start: Architecture,
        widths: Sequence[float] | None = None,
        depths: Sequence[int] | None = None,
        kernels: Sequence[int] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> None:
        super().__init__(space, rng, start)
        axes = {"widths": widths, "depths": depths, "kernels": kernels, "kinds": kinds}
        if isinstance(space, ChainSpace):
            scales = _axis("widths", widths, WIDTHS, _is_factor), _axis("depths", depths, DEPTHS, _is_count)
            types = _body_types(space, _axis("kernels", kernels, _usual_kernels(space), _is_count), kinds)
            space.scaled(scales[0][0], scales[1][-1], types[0][1])  # refuses what is too deep
            self.grid_size = math.prod(map(len, (space.input_sizes, *scales, types)))
            self._networks = _scaled(space, _levels(scales[0]), _levels(scales[1]), types)
        else:
            _refuse_unlisted(space, [name for name, values in axes.items() if values is not None])
            self.grid_size = int(space.size())
            self._networks = space.architectures()

    generation = 64

    def ask(self, n: int) -> list[Architecture]:
        return list(itertools.islice(self._networks, n))

    def tell(self, candidates: Sequence[Candidate]) -> None:
        del candidates


def _scaled(
    space: ChainSpace,
    widths: Sequence[tuple[int, float]],
    depths: Sequence[tuple[int, int]],
    types: Sequence[tuple[int, str]],
) -> Iterator[Architecture]:
    """The networks of all points, by level; each value comes with its own."""
    axes = _levels(space.input_sizes), widths, depths, types
    finest = max(level for axis in axes for level, _ in axis)
    for wanted in range(finest + 1):
        for point in itertools.product(*axes):
            if max(level for level, _ in point) == wanted:
                (_, size), (_, width), (_, depth), (_, body_type) = point
                yield space.scaled(width, depth, body_type, size)


def _levels(values: Sequence[_Value]) -> list[tuple[int, _Value]]:
    """Each value of an axis with its level: 0 for the ends, and one more for the middle of each gap that is left.

    Example:
        >>> _levels("abcde")
        [(0, 'a'), (2, 'b'), (1, 'c'), (2, 'd'), (0, 'e')]
    """
    levels = [0] * len(values)
    level, gaps = 1, [(0, len(values) - 1)]
    while gaps := [gap for gap in gaps if gap[1] - gap[0] > 1]:
        middles = [(low, (low + high) // 2, high) for low, high in gaps]
        for _, middle, _ in middles:
            levels[middle] = level
        gaps = [half for low, middle, high in middles for half in ((low, middle), (middle, high))]
        level += 1
    return list(zip(levels, values, strict=True))


def _axis(name: str, values: Any, default: Sequence[Any], is_usable: Callable[[object], bool]) -> list[Any]:
    """An axis's values in order.

    Raises:
        SearcherError: There are none, one is not usable, or one comes twice.
    """
    axis = list(default if values is None else values if isinstance(values, list | tuple) else (values,))
    what = "numbers above 0" if is_usable is _is_factor else "whole numbers of 1 or more"
    for value in axis:
        if not is_usable(value):
            raise SearcherError(f"{name} must be {what}, such as {_listed(default)}; got {value!r:.40}")
    if not axis or len(set(axis)) < len(axis):
        raise SearcherError(f"{name} must be one or more different {what}; got {_listed(axis) or 'none'}")
    return sorted(axis)


def _is_factor(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_count(value: object) -> bool:
    return _is_factor(value) and value % 1 == 0  # type: ignore[operator]


def _kernel_of(space: ChainSpace) -> dict[str, int | None]:
    """The kernel that a body type's name fixes, or None."""
    return {name: BLOCKS[name].fixed.get("kernel_size") for name in space.body_types}


def _kernel_sizes(space: ChainSpace) -> list[int]:
    return sorted({kernel for kernel in _kernel_of(space).values() if kernel})


def _usual_kernels(space: ChainSpace) -> Sequence[int]:
    """`KERNELS`, or as many of the smallest of a space that has others."""
    sizes = _kernel_sizes(space)
    return sizes[: len(KERNELS)] if sizes and not {*KERNELS} <= {*sizes} else KERNELS


def _body_types(space: ChainSpace, kernels: Sequence[int], kinds: Any) -> list[tuple[int, str]]:
    """The block types of the chosen kernels and kinds by kernel, each with the kernel's level.

    A type whose name fixes no kernel stands beside those of the coarsest.

    Raises:
        SearcherError: The space has no such kernel or kind.
    """
    kernel_of, sizes = _kernel_of(space), _kernel_sizes(space)
    for kernel in kernels if sizes else ():
        if kernel not in sizes:
            raise SearcherError(f"kernels must be of those of {space.name!r}, {_listed(sizes)}; got {kernel}")
    names = {name: _kind_names(name) for name in space.body_types}
    known = list(dict.fromkeys(kind for own in names.values() for kind in own))
    chosen = [kinds] if isinstance(kinds, str) else known if kinds is None else list(kinds)
    for kind in chosen or ["none"]:
        if kind not in known:
            raise SearcherError(f"kinds must be of those of {space.name!r}, {_listed(known)}; got {kind!r:.40}")
    types = [
        (level, name)
        for level, kernel in _levels(kernels)
        for name in space.body_types
        if kernel_of[name] in (kernel, None if kernel == kernels[0] else kernel) and {*names[name]} & {*chosen}
    ]
    if not types:
        raise SearcherError(f"the kinds {_listed(chosen)} of {space.name!r} have no kernel of {_listed(kernels)}")
    return types


def _kind_names(body_type: str) -> list[str]:
    """What the kind of a block type is called: by a word where there is one, and by its type with ``k`` for the kernel.

    Example:
        >>> _kind_names("SuperResIDWE6K3")
        ['inverted', 'SuperResIDWE6Kk']
    """
    block_type = BLOCKS[body_type]
    words = [word for word, types in KINDS.items() if body_type in types]
    return [*words, block_type.cls.type_template.format(**{**block_type.fixed, "kernel_size": "k"})]


def _refuse_unlisted(space: SearchSpace, axes: Sequence[str]) -> None:
    """Raises `SearcherError` where a space that is no chain lists no networks, or is given axes."""
    if next(space.architectures(), None) is None:
        raise SearcherError(
            f"grid needs a space of chains, such as resnet, or one that lists its networks, such as nasbench201; "
            f"{space.name!r} is neither, so take random or regularized_evolution"
        )
    if axes:
        raise SearcherError(
            f"the grid of {space.name!r} is the list of its {int(space.size()):,} networks and has no {axes[0]}; "
            f"leave {', '.join(axes)} out"
        )


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
