"""Structure entropy: how much a chain of convolutions can express, from its widths and kernels alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec, block_steps, sub_layer_steps
from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, GlobalPool, Graph, Linear, Pool, Resolution, Zero
from zeroshot_nas.closed_form.block_sum import BlockSum, End, PlacedBlock
from zeroshot_nas.errors import ArchitectureError, ProxyError

_FREE = (BatchNorm, Activation, Pool, GlobalPool, Zero)
"""Operations that add no entropy."""


class LogWidths(NamedTuple):
    """Sums over the convolutions of one block's main chain; together they are the sum of log fan-in.

    Attributes:
        channels: Sum of log(in_channels / groups).
        kernels: Sum of log(kernel_size^2).
    """

    channels: float
    kernels: float


class ResolutionStage(NamedTuple):
    """A run of blocks at one resolution.

    Attributes:
        channels: Channels of its output.
        positions: Height times width of its output.
        entropy: Sum of 1/2 log fan-in over all convolutions from the image to its end.
    """

    channels: int
    positions: int
    entropy: float


def entropy_maedet(architecture: Architecture, *, stage_weights: Sequence[float] = (0, 0, 1, 1, 6)) -> float:
    r"""Multi-scale structure entropy (Sun et al., "MAE-DET", ICML 2022, arXiv:2111.13336); higher is better.

    .. math:: \sum_s w_s (\log C_s + H_s), \qquad H_s = \sum_{l \le s} \tfrac12 \log \frac{C_{in}}{g} k^2

    H_s sums over every convolution of the main chain from the image to the end of stage s; shortcuts and gates are left
    out. A stage ends just before each later block whose stride is above 1, and at the end.

    Args:
        architecture: Any architecture.
        stage_weights: Weight of each stage, first to last. They are aligned at the end: an architecture with fewer
            stages takes the last weights; where it has more, its first stages all take the first weight.

    Raises:
        ProxyError: ``stage_weights`` is empty, or holds something else than finite numbers.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperConvK3BNRELU(16,32,2,1)", (3, 8, 8))
        >>> round(entropy_maedet(net), 3)  # (log 16 + log(27) / 2) + 6 (log 32 + log(27) / 2 + log(144) / 2)
        50.012
    """
    return _over_stages(_stages(architecture, 1.0, 1.0), stage_weights)


def _over_stages(stages: Sequence[ResolutionStage], stage_weights: Sequence[float]) -> float:
    """MAE-DET's weighted sum."""
    weights = _aligned(stage_weights, len(stages))
    return sum(
        weight * (math.log(stage.channels) + stage.entropy) for weight, stage in zip(weights, stages, strict=True)
    )


def _maedet_term(placed: PlacedBlock, *, stage_weights: Sequence[float] = (0, 0, 1, 1, 6)) -> float:
    """Its convolutions count in its stage and in all later ones; where it ends a stage, so do that stage's channels."""
    weights = _aligned(stage_weights, placed.stages)
    widths = block_log_widths(placed.block, placed.in_channels, placed.resolution)
    entropy = sum(weights[placed.stage :]) * 0.5 * (widths.channels + widths.kernels)
    if placed.is_first or placed.block.stride == 1:
        return entropy
    return entropy + weights[placed.stage - 1] * math.log(placed.in_channels)


def _maedet_end(end: End, *, stage_weights: Sequence[float] = (0, 0, 1, 1, 6)) -> float:
    return stage_weights[-1] * math.log(end.channels)


MAEDET = BlockSum(_maedet_term, _maedet_end)
"""`entropy_maedet` as a sum over blocks; `entropy_deepmad` multiplies entropies by widths of later blocks."""


def entropy_qe(
    architecture: Architecture,
    *,
    stage_weights: Sequence[float] = (0, 0, 1, 1, 6),
    weight_std: float = 4.0,
    activation_std: float = 5.0,
) -> float:
    r"""QE-Score, structure entropy of rounded weights (Sun et al., NeurIPS 2022); higher is better.

    .. math:: \sum_s w_s \left(\log C_s + \sum_{l \le s} \tfrac12 \log \frac{C_{in}}{g} k^2
        + \log \frac{\sigma(b_l, \sigma_w)\, \sigma(8, \sigma_a)}{\sigma_a}\right)

    As `entropy_maedet`, with the standard deviation :math:`\sigma(b, \sigma)` of Gaussian values of that deviation,
    rounded to whole numbers and cut off at :math:`\pm 2^{b - 1}`, for the weights of each layer (b from
    `Architecture.weight_bits`, 8 where it says nothing) and for activations. Deviations and weights of stages are those
    of the authors' configurations in TinyNAS, where activations have bits of their own; here they have 8.

    Args:
        architecture: Any architecture.
        stage_weights: As in `entropy_maedet`.
        weight_std: :math:`\sigma_w`, in steps of the weights' grid.
        activation_std: :math:`\sigma_a`.

    Raises:
        ProxyError: ``stage_weights`` is empty or holds something else than finite numbers, or a deviation is not above
            0.

    Example:
        >>> from dataclasses import replace
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperConvK3BNRELU(16,32,2,1)", (3, 8, 8))
        >>> [round(entropy_qe(replace(net, weight_bits=(bits,) * 3)), 2) for bits in (2, 4, 8)]
        [57.23, 67.56, 68.09]
    """
    for name, value in (("weight_std", weight_std), ("activation_std", activation_std)):
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ProxyError(f"{name} must be a number above 0, got {value!r}")
    of_activations = math.log(_rounded_std(8, activation_std) / activation_std)
    rounded = [
        sum(of_activations + math.log(_rounded_std(bits, weight_std)) for bits in own)
        for own in _bits_of_main_chains(architecture)
    ]
    return _over_stages(_stages(architecture, 1.0, 1.0, rounded), stage_weights)


def entropy_deepmad(
    architecture: Architecture,
    *,
    stage_weights: Sequence[float] = (1, 1, 1, 1, 8),
    alpha1: float = 1.0,
    alpha2: float = 1.0,
) -> float:
    r"""Structure entropy of DeepMAD (Shen et al., CVPR 2023, arXiv:2303.02165); higher is better.

    .. math:: \sum_s w_s \log(C_s H_s W_s) \sum_{l \le s} \tfrac12 \log\left((C_{in}/g)^{\alpha_1} k^{2\alpha_2}\right)

    Stages, chain and alignment of the weights are as in `entropy_maedet`: early convolutions count again in every later
    stage. It grows with depth without limit, so DeepMAD bounds depth over width beside it
    (`zeroshot_nas.costs.structure.StructureBounds`).

    Args:
        architecture: Any architecture.
        stage_weights: Weight of each stage, first to last, aligned at the end.
        alpha1: Exponent of the channels.
        alpha2: Exponent of the kernel's area.

    Raises:
        ProxyError: ``stage_weights`` is empty, or it or an exponent is no finite number.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperConvK3BNRELU(16,32,2,1)", (3, 8, 8))
        >>> round(entropy_deepmad(net), 3)  # log(16 64) log(27) / 2 + 8 log(32 16) (log(27) / 2 + log(144) / 2)
        217.678
    """
    _expect_finite("alpha1 and alpha2", (alpha1, alpha2))
    stages = _stages(architecture, alpha1, alpha2)
    weights = _aligned(stage_weights, len(stages))
    return sum(
        weight * math.log(stage.channels * stage.positions) * stage.entropy
        for weight, stage in zip(weights, stages, strict=True)
    )


@lru_cache(maxsize=65_536)
def block_log_widths(block: BlockSpec, in_channels: int, resolution: Resolution) -> LogWidths:
    """The sums of one block, memoised: in a search most blocks are those of the parent.

    Example:
        >>> from zeroshot_nas.blocks.conv import SuperConv
        >>> [round(value, 3) for value in block_log_widths(SuperConv(out_channels=8), 16, (4, 4))]  # log 16, log 9
        [2.773, 2.197]
    """
    channels = kernels = 0.0
    for op, _, _, times, in_main_chain in block_steps(block, in_channels, resolution).steps:
        if in_main_chain and isinstance(op, Graph):
            raise ArchitectureError(f"the structure entropies are defined for chains, and {block.type_name} is a graph")
        if in_main_chain and isinstance(op, Conv):
            channels += times * math.log(op.in_channels // op.groups)
            kernels += times * 2 * math.log(op.kernel_size)
        elif in_main_chain and not isinstance(op, _FREE):
            raise ArchitectureError(f"the structure entropies have no rule for {type(op).__name__}")
    return LogWidths(channels, kernels)


@lru_cache(maxsize=64)
def _rounded_std(bits: int, std: float) -> float:
    """Standard deviation of Gaussian values rounded to whole numbers within 2^(bits - 1) of 0."""
    normal, most = NormalDist(sigma=std), 2 ** (bits - 1)
    beyond = (2 * (1 - normal.cdf(k - 0.5)) for k in range(1, most + 1))  # chances that a value is k or more away
    return math.sqrt(sum((2 * k - 1) * chance for k, chance in enumerate(beyond, start=1)))


def _bits_of_main_chains(architecture: Architecture) -> Iterator[list[int]]:
    """Of every block, the bits of the weights of each convolution of its main chain; 8 where nothing is said."""
    said = architecture.bits_by_block()
    for index, (block, in_channels, resolution) in enumerate(architecture.inputs()):
        first = sub_layer_steps(block, in_channels, resolution)
        steps = [*first.steps]
        if block.sub_layers > 1:
            steps += (block.sub_layers - 1) * sub_layer_steps(block, None, first.resolution).steps
        convs = [step for step in steps if isinstance(step.op, Conv | Linear)]
        bits = [8] * len(convs) if said is None else said[index]
        yield [each for each, step in zip(bits, convs, strict=True) if step.in_main_chain]


def _stages(
    architecture: Architecture, alpha1: float, alpha2: float, further: Sequence[float] | None = None
) -> list[ResolutionStage]:
    """The stages; ``further`` is what each block adds to the entropy besides."""
    stages = []
    entropy = 0.0
    channels, height, width = architecture.input_size
    for index, block in enumerate(architecture.blocks):
        if index > 0 and block.stride > 1:
            stages.append(ResolutionStage(channels, height * width, entropy))
        widths = block_log_widths(block, channels, (height, width))
        entropy += 0.5 * (alpha1 * widths.channels + alpha2 * widths.kernels) + (further[index] if further else 0.0)
        height, width = block_steps(block, channels, (height, width)).resolution
        channels = block.out_channels
    stages.append(ResolutionStage(channels, height * width, entropy))
    return stages


def _aligned(stage_weights: Sequence[float], stages: int) -> tuple[float, ...]:
    """The weights of so many stages: the last ones, or the first one repeated in front."""
    _expect_finite("stage_weights", stage_weights)
    missing = stages - len(stage_weights)
    if missing <= 0:
        return tuple(stage_weights[-stages:])
    return (*[stage_weights[0]] * missing, *stage_weights)


def _expect_finite(what: str, values: Sequence[float]) -> None:
    if (
        not isinstance(values, list | tuple)
        or not values
        or not all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    ):
        raise ProxyError(f"{what} must be finite numbers, as in (0, 0, 1, 1, 6) or 1.0; got {values!r}")
