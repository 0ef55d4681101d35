"""Parameters, FLOPs, layers and activations of an architecture, in closed form from its operations. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture, head
from zeroshot_nas.architecture.blockspec import BlockSpec, single_sub_layer, sub_layer_steps
from zeroshot_nas.architecture.ops import BatchNorm, Conv, Graph, Linear, Op, Resolution, Shape, Step, graph_shape, walk
from zeroshot_nas.errors import ArchitectureError

MAX_PARAMS = 2_000_000_000
"""Parameters beyond which a network is not built: 8 GB of weights in single precision."""

MAX_ACTIVATIONS = 1_000_000_000
"""Activations an image beyond which a network is not built: 4 GB an image in single precision."""


@dataclass(frozen=True, repr=False)
class Costs:
    """What one network costs, for one image.

    Attributes:
        params: Trainable values: weights, biases, two a batch-norm channel.
        flops: FLOPs (multiply-adds) of convolutions and linear layers, as NAS papers and fvcore count them: one
            multiply-add is one FLOP. Normalisation, activation and pooling are not counted.
        layers: Depth as Zen-NAS counts it, the sum of the blocks' sub-layers; None for a module that is not ours.
        activations: Values that convolutions and linear layers put out (Radosavovic et al., arXiv:2003.13678), a better
            predictor of run time than FLOPs.
        latency_ms: Milliseconds of a batch on the device of a `zeroshot_nas.latency.device_table.DeviceTable`, as it
            predicts; None where no table was asked.
    """

    params: int
    flops: int
    layers: int | None
    activations: int
    latency_ms: float | None = None

    def with_latency(self, latency_ms: float) -> Costs:
        """The costs with a latency; in a tenth of the time that ``dataclasses.replace`` takes."""
        return Costs(self.params, self.flops, self.layers, self.activations, latency_ms)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; latency is there where it is known."""
        values = asdict(self)
        return values if self.latency_ms is not None else {k: v for k, v in values.items() if k != "latency_ms"}

    def __repr__(self) -> str:
        return f"Costs({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"


def complexity(architecture: Architecture) -> Costs:
    """Costs of an architecture as the sum over its blocks and its head.

    Example:
        >>> complexity(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", input_size=(3, 4, 4)))
        Costs(params=322, flops=3536, layers=1, activations=138)
    """
    params = flops = activations = layers = 0
    channels, *sides = architecture.input_size
    resolution: Resolution = (sides[0], sides[1])
    for block in architecture.blocks:
        more = _block_totals(block, channels, resolution)
        params += more.params
        flops += more.flops
        activations += more.activations
        layers += block.sub_layers
        channels, resolution = block.out_channels, more.resolution
    more = _head_totals(channels, resolution, architecture.num_classes)
    return Costs(params + more.params, flops + more.flops, layers, activations + more.activations)


def check_buildable(architecture: Architecture) -> None:
    """Refuses an architecture whose weights or feature maps would not fit in memory, before any is touched.

    Raises:
        ArchitectureError: Parameters or activations are over `MAX_PARAMS` or `MAX_ACTIVATIONS`.
    """
    costs = complexity(architecture)
    for name, value, limit in (
        ("params", costs.params, MAX_PARAMS),
        ("activations an image", costs.activations, MAX_ACTIVATIONS),
    ):
        if value > limit:
            raise ArchitectureError(
                f"the network has {value:,} {name}; more than {limit:,} are not built. "
                "Use fewer channels or a smaller input"
            )


class _Totals(NamedTuple):
    """Sums over a chain of operations, and the resolution behind it."""

    params: int
    flops: int
    activations: int
    resolution: Resolution


@lru_cache(maxsize=131_072)
def _block_totals(block: BlockSpec, in_channels: int, resolution: Resolution) -> _Totals:
    first, following = _sub_layers_totals(block, in_channels, resolution)
    if following is None:
        return first
    times = block.sub_layers - 1
    return _Totals(
        first.params + times * following.params,
        first.flops + times * following.flops,
        first.activations + times * following.activations,
        first.resolution,
    )


def _sub_layers_totals(block: BlockSpec, in_channels: int, resolution: Resolution) -> tuple[_Totals, _Totals | None]:
    """Sums over the first sub-layer, and over a following one where there is one."""
    ops = block.first(in_channels)
    if not any(isinstance(op, Graph) for op in ops):
        single = single_sub_layer(block)
        first = _sub_layer_totals(single, in_channels, resolution)
        return first, None if block.sub_layers == 1 else _sub_layer_totals(single, None, first.resolution)
    first = _graph_totals(ops, (in_channels, *resolution))
    if block.sub_layers == 1:
        return first, None
    following = block.following()
    same = following == ops and in_channels == block.out_channels and first.resolution == resolution
    return first, first if same else _graph_totals(following, (block.out_channels, *first.resolution))


def _graph_totals(ops: Iterable[Op], shape: Shape) -> _Totals:
    """Sums over a chain with a graph, edge by edge: thousands of cells have few edges that differ."""
    params = flops = activations = 0

    def add(chain: tuple[Op, ...], shape: Shape) -> Shape:
        nonlocal params, flops, activations
        more, after = _chain_totals(chain, shape)
        params += more.params
        flops += more.flops
        activations += more.activations
        return after

    for op in ops:
        shape = graph_shape(op, shape, add) if isinstance(op, Graph) else add((op,), shape)
    return _Totals(params, flops, activations, shape[1:])


@lru_cache(maxsize=16_384)
def _chain_totals(ops: tuple[Op, ...], shape: Shape) -> tuple[_Totals, Shape]:
    steps, after = walk(ops, shape)
    return _totals(steps, after[1:]), after


@lru_cache(maxsize=262_144)
def _sub_layer_totals(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> _Totals:
    return _totals(*sub_layer_steps(block, in_channels, resolution))


@lru_cache(maxsize=4_096)
def _head_totals(channels: int, resolution: Resolution, num_classes: int) -> _Totals:
    steps, (_, height, width) = walk(head(channels, num_classes), (channels, *resolution))
    return _totals(steps, (height, width))


def _totals(steps: Iterable[Step], resolution: Resolution) -> _Totals:
    params = flops = activations = 0
    for op, _, (channels, height, width), times, _ in steps:
        if isinstance(op, Conv):
            weights = op.out_channels * op.fan_in
            params += times * (weights + op.bias * op.out_channels)
            flops += times * weights * height * width
            activations += times * channels * height * width
        elif isinstance(op, BatchNorm):
            params += times * 2 * op.channels
        elif isinstance(op, Linear):
            params += times * (op.in_features + op.bias) * op.out_features
            flops += times * op.in_features * op.out_features
            activations += times * op.out_features
    return _Totals(params, flops, activations, resolution)
