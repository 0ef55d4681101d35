"""NN-Mass and NN-Degree: how densely a network's layers are linked by shortcuts, from its widths alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import (
    Activation,
    BatchNorm,
    Conv,
    Gate,
    GlobalPool,
    Graph,
    Op,
    Pool,
    Repeat,
    Residual,
    Resolution,
    Shape,
    Zero,
    walk,
)
from zeroshot_nas.closed_form.block_sum import BlockSum, PlacedBlock
from zeroshot_nas.errors import UndefinedScoreError

_OUTSIDE = (Conv, BatchNorm, Activation, Pool, GlobalPool, Zero, Gate)
"""Operations that are no unit; those in a unit's main chain count where they are convolutions."""


class Topology(NamedTuple):
    """Sums over the residual units of one block.

    Attributes:
        units: Their number.
        mass: Sum of their masses.
        degree: Sum of their degrees.
    """

    units: int
    mass: float
    degree: float


def nn_mass(architecture: Architecture) -> float:
    r"""NN-Mass (Bhardwaj, Li and Marculescu, CVPR 2021, arXiv:1910.00780); higher is better.

    .. math:: \sum_c \rho_c \, w_c d_c = \sum_c \frac{n_0}{\sum_{j=2}^{d} \sum_{i=0}^{j-2} n_i} \sum_{i=0}^{d-1} n_i

    over the residual units c with d convolutions in their main chain: n_0 channels enter the unit and n_i leave its
    i-th convolution. w_c d_c is the sum of the convolutions' input channels, and the density rho_c the share of
    shortcuts that exist: the one from n_0 to the sum, out of all that skip at least one convolution, each counted as
    the channels that it carries. For a unit of two convolutions it is n_0 + n_1.

    The paper defines it for cells whose shortcuts concatenate a choice of channels. For additions this is what the
    authors' code computes for ResNets and MobileNets: a cell is one residual unit, and depthwise convolutions count
    like others. As there, a projection in place of the identity makes no difference. A unit of one convolution has no
    layer to skip and counts 0. What lies outside of units (plain convolutions, gates) does not count.

    Args:
        architecture: One with residual links.

    Raises:
        UndefinedScoreError: It has none, or has cells that are graphs, for which it is not defined.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,8,2)", (3, 8, 8))
        >>> nn_mass(net)  # 16 + 8, then 32 + 8
        64.0
    """
    return sum(block.mass for block in _blocks(architecture, "nn_mass"))


def nn_degree(architecture: Architecture) -> float:
    r"""NN-Degree (Li et al., "FLASH", 2021, arXiv:2108.00568); higher is better.

    .. math:: \sum_c \left( w_c + \frac{s_c}{w_c d_c} \right) = \sum_c \left( \frac1d \sum_{i=0}^{d-1} n_i +
        \frac{n_0}{\sum_{i=0}^{d-1} n_i} \right)

    the mean width of each cell plus its shortcuts a channel, s_c of them: how many links a channel has on average.
    Cells are residual units and n_i as in `nn_mass`; the one shortcut counts as the n_0 channels that it carries. The
    paper's cells are groups of several units with shortcuts that concatenate or add; how it counts the links of an
    addition is read here as NN-Mass's authors' code counts them.

    Args:
        architecture: One with residual links.

    Raises:
        UndefinedScoreError: It has none, or has cells that are graphs, for which it is not defined.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 8, 8))
        >>> nn_degree(net)  # (16 + 16) / 2 + 16 / 32
        16.5
    """
    return sum(block.degree for block in _blocks(architecture, "nn_degree"))


def _mass(placed: PlacedBlock) -> float:
    return block_topology(placed.block, placed.in_channels, placed.resolution).mass


def _degree(placed: PlacedBlock) -> float:
    return block_topology(placed.block, placed.in_channels, placed.resolution).degree


NN_MASS, NN_DEGREE = BlockSum(_mass), BlockSum(_degree)
"""`nn_mass` and `nn_degree` as sums over blocks."""


@lru_cache(maxsize=65_536)
def block_topology(block: BlockSpec, in_channels: int, resolution: Resolution) -> Topology:
    """The sums of one block, memoised: in a search most blocks are those of the parent.

    Raises:
        UndefinedScoreError: The block is a graph.

    Example:
        >>> from zeroshot_nas.blocks.residual import SuperResKXKX
        >>> block_topology(SuperResKXKX(out_channels=8, bottleneck_channels=4, sub_layers=3), 8, (4, 4))
        Topology(units=3, mass=36.0, degree=20.0)
    """
    units = 0
    mass = degree = 0.0
    for widths, times in _units(block.lower(in_channels), (in_channels, *resolution), 1, block.type_name):
        total = sum(widths[:-1])
        skips = sum(sum(widths[: end - 1]) for end in range(2, len(widths)))
        units += times
        mass += times * (total * widths[0] / skips if skips else 0)
        degree += times * (total / (len(widths) - 1) + widths[0] / total)
    return Topology(units, mass, degree)


def _blocks(architecture: Architecture, name: str) -> list[Topology]:
    blocks = [block_topology(*block) for block in architecture.inputs()]
    if not any(block.units for block in blocks):
        raise UndefinedScoreError(f"{name} is defined for architectures with residual links, and this one has none")
    return blocks


def _units(ops: tuple[Op, ...], shape: Shape, times: int, name: str) -> Iterator[tuple[tuple[int, ...], int]]:
    """Widths of every residual unit, the channels that enter it first, and how often it stands there."""
    for op in ops:
        if isinstance(op, Graph):
            raise UndefinedScoreError(f"NN-Mass and NN-Degree are not defined for cells that are graphs, as {name} is")
        if isinstance(op, Residual):
            steps, _ = walk(op.body, shape)
            for step in steps:
                if not isinstance(step.op, _OUTSIDE):
                    raise UndefinedScoreError(f"NN-Mass and NN-Degree have no rule for {type(step.op).__name__}")
            chain = [step for step in steps if step.in_main_chain and isinstance(step.op, Conv)]
            widths = [width for step in chain for width in [step.output_shape[0]] * step.times]
            if widths:
                yield (shape[0], *widths), times
        elif isinstance(op, Repeat):
            yield from _units(op.body, shape, times * op.times, name)
        elif not isinstance(op, _OUTSIDE):
            raise UndefinedScoreError(f"NN-Mass and NN-Degree have no rule for {type(op).__name__}")
        shape = op.output_shape(shape)
