"""Costs of many chains, by the functions that cost one operation: these are arithmetic, and take arrays as well."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture.architecture import head
from zeroshot_nas.architecture.ops import BatchNorm, Conv, Linear
from zeroshot_nas.chains.coding import Chains
from zeroshot_nas.chains.lowering import LOWERING, NONE, Blocks
from zeroshot_nas.chains.memo import BlockMemo
from zeroshot_nas.costs.base import COSTS, CostInfo, summed_costs

Column = NDArray[np.float64]


@dataclass(frozen=True)
class _Convs(Conv):
    """Convolutions with arrays in place of numbers."""

    inputs: Any = None

    @property
    def fan_in(self) -> Any:
        return self.inputs  # not divided again for each cost


def costs_of_chains(chains: Chains) -> dict[str, Column] | None:
    """The summed costs of chains and their layers, by name, a value a network.

    Returns:
        None where a block has other operations than convolutions, batch norms, ReLUs, gates and residual links, or a
        cost reads others or is not elementwise.
    """
    infos = tuple(COSTS[name] for name in summed_costs().names)
    if not all(info.elementwise and set(info.ops) <= {Conv, BatchNorm, Linear} for info in infos):
        return None
    blocks = LOWERING.blocks(chains)
    rows = _memo(infos).rows(blocks)
    if np.isnan(rows).any():
        return None
    ends = np.flatnonzero(np.diff(blocks.net, append=len(chains)))  # each network's last block
    out = blocks.channels[ends, 1]
    sums: dict[str, Column] = {"layers": chains.layers.astype(float)}
    for info, column in zip(infos, rows.T, strict=True):
        sums[info.name] = np.bincount(blocks.net, column, len(chains)) + _of_head(info, out, chains.num_classes)
    return sums


@lru_cache(maxsize=4)
def _memo(infos: tuple[CostInfo, ...]) -> BlockMemo:
    return BlockMemo(partial(_of_blocks, infos))


def _of_blocks(infos: tuple[CostInfo, ...], blocks: Blocks) -> NDArray[np.float64]:
    """The costs of blocks, a column a cost; not a number where a block has no kind."""
    known = np.flatnonzero((blocks.first != NONE) & (blocks.following != NONE))
    sizes = known[blocks.sub_layers[known] > 1]
    block = np.concatenate([known, sizes])
    kind = np.concatenate([blocks.first[known], blocks.following[sizes]])
    times = np.concatenate([np.ones(len(known), np.int64), blocks.sub_layers[sizes] - 1])
    rows = np.full((len(blocks), len(infos)), np.nan)
    if not len(known):
        return rows
    convs = LOWERING.convolutions(blocks, block, kind)
    shape = (convs.out_channels, convs.height, convs.width)
    columns = LOWERING.columns
    groups = np.where(convs.depthwise, convs.in_channels, 1)
    kernel_size, stride = columns["kernel_size"][convs.slot], columns["stride"][convs.slot]
    out_channels: Any = convs.out_channels  # here and below arrays stand in place of numbers
    columns_of: Any = (convs.in_channels, out_channels, kernel_size, stride, groups, False, 1, convs.fan_in)
    conv, norm = _Convs(*columns_of), BatchNorm(out_channels)
    own, repeats = block[convs.sub_layer], times[convs.sub_layer]
    for place, info in enumerate(infos):
        assert info.count is not None, "it is a sum over operations"
        each = sum(info.count(op, shape) for op in (conv, norm) if isinstance(op, info.ops))
        rows[known, place] = np.bincount(own, repeats * each, len(blocks))[known]
    return rows


def _of_head(info: CostInfo, channels: Any, num_classes: int) -> Any:
    *_, linear = head(8, num_classes)
    assert isinstance(linear, Linear)
    assert info.count is not None
    ops: Any = Linear(channels, num_classes, linear.bias)
    return info.count(ops, (num_classes, 1, 1)) if Linear in info.ops else 0.0
