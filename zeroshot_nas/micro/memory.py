"""RAM and flash that an architecture needs as an int8 network on a microcontroller. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from zeroshot_nas.architecture.architecture import Architecture, head
from zeroshot_nas.architecture.blockspec import BlockSpec, single_sub_layer, weighted_layers
from zeroshot_nas.architecture.ops import Resolution, Shape
from zeroshot_nas.micro.operators import (
    Operator,
    network_operators,
    operators,
    packed_bytes,
    sub_layer_operators,
)
from zeroshot_nas.micro.order import aligned, best_order, scratch_bytes
from zeroshot_nas.micro.plan import buffers_of, runtime_plan

_BOOKKEEPING = {
    "ADD": 160,
    "AVERAGE_POOL_2D": 160,
    "CONCATENATION": 180,
    "CONV_2D": 244,
    "DEPTHWISE_CONV_2D": 244,
    "FULLY_CONNECTED": 150,
    "LOGISTIC": 120,
    "MAX_POOL_2D": 160,
    "MEAN": 152,
    "MUL": 160,
    "PAD": 175,
    "RELU": 120,
}
"""Bytes of RAM that TensorFlow Lite Micro keeps for an operator and its tensors on a 64-bit machine, as it reports."""

_BOOKKEEPING_BASE = 880
"""Bytes that it keeps besides."""

_MULTIPLIER_BYTES = 8
"""RAM that it keeps for a channel of a convolution: a multiplier and a shift."""

_UNPACKING = 8
"""RAM that it keeps for an operator whose weights it unpacks."""

_PLANNING = 40
"""Bytes of RAM for a tensor, constants among them, while the runtime plans the arena, before any tensor is there."""

_PLANNER = 44
"""Bytes for a buffer of the plan then."""

_PLANNING_BASE = 160

_BIAS_BYTES = 4
_SCALE_BYTES = 2 * (4 + 8)
"""A scale and a zero point, of a channel's weights and of its bias."""


class Need(NamedTuple):
    """What some operators need.

    Attributes:
        tensors: The largest sum of live tensors, in bytes of RAM.
        bookkeeping: Bytes of RAM that the runtime keeps for them.
        planning: Bytes of RAM that it takes for them while it plans, in the place of tensors.
        weights: Bytes of flash: weights, biases and their scales.
        resolution: Height and width behind them.
    """

    tensors: int
    bookkeeping: int
    planning: int
    weights: int
    resolution: Resolution

    @property
    def arena(self) -> int:
        """Bytes of RAM in all."""
        return max(self.tensors, self.planning) + self.bookkeeping

    def __add__(self, other: object) -> Need:
        """What both need, one behind the other."""
        if not isinstance(other, Need):
            return NotImplemented
        return Need(
            max(self.tensors, other.tensors),
            self.bookkeeping + other.bookkeeping,
            self.planning + other.planning,
            self.weights + other.weights,
            other.resolution,
        )


@dataclass(frozen=True)
class Memory:
    """What an int8 network needs on a microcontroller, in bytes.

    Attributes:
        peak_memory: RAM: the arena of TensorFlow Lite Micro that the exported file needs: bookkeeping and tensors, or
            what the runtime takes for its planning, which is more for small tensors alone.
        tensors: Of that the largest sum of live tensors, over the order of operators that needs least.
        tensors_bound: No order of operators needs less; equal to ``tensors`` but for large cells.
        bookkeeping: Of that what the runtime keeps for operators on a 64-bit machine; a 32-bit one keeps less.
        unplanned: What tensors take where the runtime's own planner places them, as it does in files of others.
        weights: Flash: weights, biases and their scales.
    """

    peak_memory: int
    tensors: int
    tensors_bound: int
    bookkeeping: int
    unplanned: int
    weights: int


def memory(architecture: Architecture) -> Memory:
    """What an architecture needs as an int8 network on a microcontroller, with what the runtime's own planner takes.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,1)")
        >>> memory(net).tensors == 3 * 16 * 32 * 32  # the block's input, its inner tensor and its output
        True
    """
    need = _need_of_network(architecture)
    shape = architecture.input_size
    ordered = best_order(network_operators(architecture), shape)
    buffers = buffers_of(ordered.operators, shape)
    return Memory(
        need.arena,
        need.tensors,
        ordered.bound,
        need.bookkeeping,
        runtime_plan(buffers).size,
        need.weights,
    )


def peak_memory(architecture: Architecture) -> int:
    """Bytes of RAM that an architecture needs as an int8 network on a microcontroller, in microseconds.

    The arena of TensorFlow Lite Micro for the exported file: the largest sum of live tensors over the order of
    operators that needs least (batch norms and ReLUs are part of the operator before them, a residual link holds its
    tensor), and what the runtime keeps for every operator. Where tensors are so small that the runtime's planning takes
    more, that counts in their place.

    Example:
        >>> peak_memory(Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)"))
        21280
    """
    return _need_of_network(architecture).arena


def weight_bytes(architecture: Architecture) -> int:
    """Bytes of flash that an architecture's int8 weights, 32-bit biases and their scales take in a .tflite file.

    Example:
        >>> weight_bytes(Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)"))
        1191
    """
    if architecture.weight_bits is None:
        return _need_of_network(architecture).weights
    plain = replace(architecture, weight_bits=None)
    of_layers = zip(layer_weights(plain), architecture.weight_bits, strict=True)
    return _need_of_network(plain).weights - sum(weights - packed_bytes(weights, bits) for weights, bits in of_layers)


def layer_weights(architecture: Architecture) -> list[int]:
    """How many weights each convolution and linear layer has in a .tflite file; 0 where nothing reads its output."""
    channels, *sides = architecture.input_size
    resolution: Resolution = (sides[0], sides[1])
    found: list[int] = []
    for block in architecture.blocks:
        single = single_sub_layer(block)
        first = _of_layers(single, channels, resolution)
        found += first
        channels, resolution = block.out_channels, _need_of_sub_layer(single, channels, resolution).resolution
        found += (block.sub_layers - 1) * (_of_layers(single, None, resolution) if block.sub_layers > 1 else ())
    return [*found, channels * architecture.num_classes]


@lru_cache(maxsize=262_144)
def _of_layers(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> tuple[int, ...]:
    """Weights of the layers of a first sub-layer, or for ``in_channels`` None of a following one."""
    weights = [0] * weighted_layers(block, in_channels, resolution)
    for operator in sub_layer_operators(block, in_channels, resolution):
        if operator.layer is not None:
            weights[operator.layer] = operator.weights
    return tuple(weights)


@lru_cache(maxsize=4_096)
def _need_of_network(architecture: Architecture) -> Need:
    if architecture.weight_bits is not None:
        return _with_base(_need(network_operators(architecture), architecture.input_size))
    channels, *sides = architecture.input_size
    resolution: Resolution = (sides[0], sides[1])
    tensors, bookkeeping, planning, weights, _ = _need_of_normalisation(architecture.input_size)
    for block in architecture.blocks:
        need = _need_of_block(block, channels, resolution)
        tensors = max(tensors, need.tensors)
        bookkeeping += need.bookkeeping
        planning += need.planning
        weights += need.weights
        channels, resolution = block.out_channels, need.resolution
    last = _need_of_head(channels, resolution, architecture.num_classes)
    before = Need(tensors, bookkeeping, planning, weights, resolution)
    return _with_base(before + last)


def _with_base(need: Need) -> Need:
    """A network's need, with what the runtime takes whatever the network."""
    return need._replace(
        bookkeeping=aligned(need.bookkeeping + _BOOKKEEPING_BASE),
        planning=aligned(need.planning + _PLANNING + _PLANNER + _PLANNING_BASE),
    )


@lru_cache(maxsize=131_072)
def _need_of_block(block: BlockSpec, in_channels: int, resolution: Resolution) -> Need:
    single = single_sub_layer(block)
    need = _need_of_sub_layer(single, in_channels, resolution)
    if block.sub_layers == 1:
        return need
    further = _need_of_sub_layer(single, None, need.resolution)
    times = block.sub_layers - 1
    return need + Need(
        further.tensors,
        times * further.bookkeeping,
        times * further.planning,
        times * further.weights,
        further.resolution,
    )


@lru_cache(maxsize=262_144)
def _need_of_sub_layer(block: BlockSpec, in_channels: int | None, resolution: Resolution) -> Need:
    """Of the first sub-layer, or for ``in_channels`` None of a following one."""
    channels = block.out_channels if in_channels is None else in_channels
    return _need(sub_layer_operators(block, in_channels, resolution), (channels, *resolution))


@lru_cache(maxsize=4_096)
def _need_of_head(channels: int, resolution: Resolution, num_classes: int) -> Need:
    shape = (channels, *resolution)
    return _need(operators((head(channels, num_classes),), shape), shape)


@lru_cache(maxsize=64)
def _need_of_normalisation(shape: Shape) -> Need:
    return _need(operators((), shape, normalize=True), shape)


def _need(found: Sequence[Operator], shape: Shape) -> Need:
    ordered = best_order(found, shape)
    bookkeeping = planning = weights = 0
    for operator in found:
        constants = 2 if operator.channels else operator.code in ("MEAN", "PAD")
        unpacks = operator.weight_bits < 8
        planning += _PLANNING * (1 + constants) + _PLANNER * (1 + unpacks + (scratch_bytes(operator) > 0))
        bookkeeping += _BOOKKEEPING[operator.code]
        if operator.channels:
            weights += operator.weight_bytes + _BIAS_BYTES * operator.channels
            scales = 1 if operator.code == "FULLY_CONNECTED" else operator.channels
            weights += _SCALE_BYTES * scales
            bookkeeping += _MULTIPLIER_BYTES * operator.channels * (operator.code != "FULLY_CONNECTED")
            bookkeeping += _UNPACKING * unpacks
    behind = found[-1].shape if found else shape
    return Need(ordered.peak, bookkeeping, planning, weights, behind[1:])
