"""Zen-score in closed form: the expectation over Gaussian weights and images, written down instead of sampled."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec, single_sub_layer, sub_layer_steps
from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, Resolution
from zeroshot_nas.closed_form.block_sum import BlockSum, End, PlacedBlock
from zeroshot_nas.errors import ArchitectureError

Variant: TypeAlias = Literal["paper", "l1", "zennas"]

VARIANTS = ("paper", "l1", "zennas")

RELU = Activation()

RECTIFIED_MEAN = 1 / math.sqrt(2 * math.pi)
"""Mean of max(z, 0) for z from N(0, 1); its second moment is 1/2."""


class BlockTerm(NamedTuple):
    """One block's part of the score.

    Attributes:
        log_deviations: Sum of the logarithms of its batch norms' input deviations.
        running_log_deviations: The same with the authors' running variance 0.81 + 0.19 v in place of v.
        rectifiers: Number of ReLUs in its main chain.
        resolution: Height and width behind it.
    """

    log_deviations: float
    running_log_deviations: float
    rectifiers: int
    resolution: Resolution


def zen_closed_form(architecture: Architecture, *, variant: Variant = "paper", alpha: float = 0.01) -> float:
    r"""The expected Zen-score of an architecture without residual links: no weights, no images, no noise.

    For a chain of convolution, batch norm and ReLU with weights and images from N(0, 1),

    .. math:: \tfrac12 \log(C H W) + \tfrac12 \log E(\Delta_L^2) + \sum_l \tfrac12 \log v_l

    with the batch variance :math:`v_l = \frac{C_{in}}{g} \sum_t (f_t m_2 - (f_t \mu)^2)` over the kernel's taps t, f_t
    the share of output positions at which the tap is inside the image, (m_2, mu) the second moment and mean of the
    layer's input: (1, 0) for the image, (1/2, 1/sqrt(2 pi)) behind a ReLU. Delta_L is the distance of the two
    normalised outputs; every ReLU multiplies their decorrelation by about pi / (pi - 1).

    It ranks as the forward pass does at a ten-thousandth of the cost, and costs a mutation only the blocks that it
    changes: the score is a sum of block terms and a function of depth. Squeeze-and-excitation counts as the identity.
    In deep networks the forward pass lies a little above it (features grow heavier tails).

    Args:
        architecture: Any architecture whose blocks end in a ReLU.
        variant: As in `zeroshot_nas.proxies.zen.zen`: ``"paper"``, ``"l1"`` or ``"zennas"``.
        alpha: Size of the perturbation.

    Raises:
        ArchitectureError: The variant is unknown, or the chain has no ReLU.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,1)", (3, 16, 16))
        >>> round(zen_closed_form(net), 3)
        5.037
    """
    if variant not in VARIANTS:
        raise ArchitectureError(f"zen_closed_form has the variants 'paper', 'l1' and 'zennas', got {variant!r}")
    deviations, rectifiers = 0.0, 0
    channels, *sides = architecture.input_size
    resolution: Resolution = (sides[0], sides[1])
    behind_relu = False
    for block in architecture.blocks:
        term = block_term(block, channels, resolution, behind_relu)
        deviations += term.running_log_deviations if variant == "zennas" else term.log_deviations
        rectifiers += term.rectifiers
        channels, resolution, behind_relu = block.out_channels, term.resolution, True
    if rectifiers == 0:
        raise ArchitectureError("zen_closed_form needs a chain with ReLUs, and this architecture has none")
    positions = channels * resolution[0] * resolution[1]
    return deviations + log_distance(rectifiers, positions, alpha, variant == "paper")


def _placed_term(placed: PlacedBlock, *, variant: Variant = "paper", alpha: float = 0.01) -> float:
    del alpha  # the end's
    term = _term_of(placed)
    return term.running_log_deviations if variant == "zennas" else term.log_deviations


def _term_of(placed: PlacedBlock) -> BlockTerm:
    return block_term(placed.block, placed.in_channels, placed.resolution, not placed.is_first)


def _rectifiers(placed: PlacedBlock) -> int:
    return _term_of(placed).rectifiers


def _end(end: End, *, variant: Variant = "paper", alpha: float = 0.01) -> float:
    positions = end.channels * end.resolution[0] * end.resolution[1]
    return log_distance(end.counted, positions, alpha, variant == "paper")


ZEN = BlockSum(_placed_term, _end, _rectifiers)
"""`zen_closed_form` as a sum over blocks."""


@lru_cache(maxsize=131_072)
def block_term(block: BlockSpec, in_channels: int, resolution: Resolution, behind_relu: bool) -> BlockTerm:
    """The term of one block, memoised: in a search most blocks are those of the parent."""
    single = single_sub_layer(block)
    first = _sub_layer_term(single, in_channels, resolution, behind_relu)
    if block.sub_layers == 1:
        return first
    following, times = _sub_layer_term(single, None, first.resolution, True), block.sub_layers - 1
    return BlockTerm(
        first.log_deviations + times * following.log_deviations,
        first.running_log_deviations + times * following.running_log_deviations,
        first.rectifiers + times * following.rectifiers,
        first.resolution,
    )


@lru_cache(maxsize=262_144)
def _sub_layer_term(block: BlockSpec, in_channels: int | None, resolution: Resolution, behind_relu: bool) -> BlockTerm:
    steps, after = sub_layer_steps(block, in_channels, resolution)
    second_moment, mean = (0.5, RECTIFIED_MEAN) if behind_relu else (1.0, 0.0)
    exact = running = 0.0
    rectifiers = 0
    for op, (_, height, width), _, times, in_main_chain in steps:
        if not in_main_chain:
            continue
        if isinstance(op, Conv):
            second_moment, mean = _conv_variance(op, height, width, second_moment, mean), 0.0
        elif isinstance(op, BatchNorm):
            exact += times * 0.5 * math.log(second_moment)
            running += times * 0.5 * math.log(0.81 + 0.19 * second_moment)
            second_moment = 1.0
        elif op == RELU:
            rectifiers += times
            second_moment, mean = second_moment / 2, math.sqrt(second_moment) * RECTIFIED_MEAN
        else:
            raise ArchitectureError(f"zen_closed_form has no rule for {type(op).__name__}")
    return BlockTerm(exact, running, rectifiers, after)


def _conv_variance(conv: Conv, height: int, width: int, second_moment: float, mean: float) -> float:
    """Variance of a convolution's output over images and positions, averaged over channels and weights from N(0, 1)."""
    kernel_size, stride, padding = conv.kernel_size, conv.stride, conv.padding
    rows, rows_squared = _tap_sums(height, kernel_size, stride, padding)
    columns, columns_squared = _tap_sums(width, kernel_size, stride, padding)
    per_channel = rows * columns * second_moment - rows_squared * columns_squared * mean**2
    return conv.in_channels / conv.groups * per_channel


@lru_cache(maxsize=4_096)
def _tap_sums(side: int, kernel_size: int, stride: int, padding: int) -> tuple[float, float]:
    """Sum and sum of squares over one axis's taps of the share of outputs at which the tap is inside the image."""
    outputs = (side + 2 * padding - kernel_size) // stride + 1
    total = squares = 0.0
    for tap in range(-padding, kernel_size - padding):
        # outputs o with 0 <= o * stride + tap < side
        first, last = max(0, -(tap // stride)), min(outputs - 1, (side - 1 - tap) // stride)
        share = max(0, last - first + 1) / outputs
        total += share
        squares += share**2
    return total, squares


@lru_cache(maxsize=262_144)
def log_distance(rectifiers: int, positions: int, alpha: float, frobenius: bool) -> float:
    """Log of the distance of the two feature maps: Frobenius norm, or sum of absolute differences."""
    decorrelation = _decorrelation(rectifiers - 1, alpha)
    if frobenius:
        return 0.5 * math.log(positions * 2 * _kernel_gap(decorrelation))
    return math.log(positions) + 0.5 * math.log(decorrelation / math.pi)


@lru_cache(maxsize=4_096)
def _decorrelation(rectifiers: int, alpha: float) -> float:
    """1 - rho between the pre-activations of an image and its perturbation, behind so many ReLUs."""
    # 1 - 1/sqrt(1 + alpha^2), without cancellation
    root = math.sqrt(1 + alpha**2)
    decorrelation = alpha**2 / (root * (1 + root))
    for _ in range(rectifiers):
        decorrelation = _kernel_gap(decorrelation) / (0.5 - RECTIFIED_MEAN**2)
    return decorrelation


def _kernel_gap(decorrelation: float) -> float:
    """1/2 - E[relu(z) relu(z')] at correlation 1 - decorrelation (the arc-cosine kernel of order 1)."""
    angle = 2 * math.asin(math.sqrt(decorrelation / 2))
    return (decorrelation * math.pi + angle * math.cos(angle) - math.sin(angle)) / (2 * math.pi)
