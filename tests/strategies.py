"""Hypothesis strategies for blocks and architectures of every registered type, small enough to build and trace."""

from dataclasses import fields

from hypothesis import strategies as st

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec, BlockType

SMALL = {"stride": 3, "sub_layers": 2}
"""Largest value of a field; `MAX_WIDTH` for all others."""

MAX_WIDTH = 12


CHAIN_TYPES = sorted(name for name in BLOCKS if BLOCKS[name].cls.plainnet_fields is not None)
"""Names of the blocks that any numbers fit; cells are made by their spaces."""


@st.composite
def blocks(draw: st.DrawFn, names: st.SearchStrategy[str] | None = None) -> BlockSpec:
    """One block of any registered chain type, its switches on or off."""
    block_type: BlockType = BLOCKS[draw(st.sampled_from(CHAIN_TYPES) if names is None else names)]
    types = {field.name: field.type for field in fields(block_type.cls)}
    values = {
        name: draw(st.booleans() if types[name] in (bool, "bool") else st.integers(1, SMALL.get(name, MAX_WIDTH)))
        for name in block_type.free_fields
    }
    return block_type(**values)


def input_sizes(max_side: int = 11) -> st.SearchStrategy[tuple[int, int, int]]:
    """One to four channels, even and odd, square and oblong resolutions, among them 1x8x8."""
    sides = st.integers(1, max_side)
    return st.just((1, 8, 8)) | st.tuples(st.integers(1, 4), sides, sides)


@st.composite
def architectures(draw: st.DrawFn, max_blocks: int = 4) -> Architecture:
    """An architecture of any blocks on any small input."""
    chain = draw(st.lists(blocks(), min_size=1, max_size=max_blocks))
    return Architecture(tuple(chain), draw(input_sizes()), draw(st.integers(1, 12)))
