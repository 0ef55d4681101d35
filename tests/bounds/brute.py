"""All networks of a small chain space, one by one."""

import itertools
from collections.abc import Iterator

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.spaces.chain import SPLIT_AT, ChainSpace


def chains(space: ChainSpace, max_layers: int) -> Iterator[Architecture]:
    """Every network of the space with at most so many layers."""
    widths = range(space.width_step, space.max_width + 1, space.width_step)
    lasts = [space.last_width or widths[0]] if space.last_width else widths

    def bodies(layers: int, strides: tuple[int, ...], is_first: bool) -> Iterator[list]:
        if not strides:
            yield []
        if layers < 1:
            return
        options = [(strides[0], strides[1:])] if strides else []
        options += [] if is_first else [(1, strides)]
        for (stride, rest), name, width, inner, times in itertools.product(
            options, space.body_types, widths, widths, range(1, min(SPLIT_AT - 1, layers) + 1)
        ):
            block = space.body_block(name, width, stride, inner, times)
            for behind in bodies(layers - times, rest, False):
                yield [block, *behind]

    for body in bodies(max_layers - 2, space.body_strides, True):
        for stem, last in itertools.product(widths, lasts):
            yield space._assemble([space._stem(stem), *body, space._last(last)])
