"""The mean field of chains without pooling, in a few numbers a layer: the same values as the general propagation.

Without pooling all forward maps are white: independent from position to position. Of a tensor there is left its energy,
its excess and the energy of what is linear in the image. A gradient, which starts constant at the global pooling, is
white noise plus *combs*: parts that are equal at all positions that are p apart,

    K(d) = b [d = 0] + sum of a_p over the p that divide d,    p = 1, 2, 4, ...

ReLU takes (b, a) to (b/2 + sum(a)/4, a/4), a stride of 2 spreads a_p to a_2p. Energies and combs depend on the kinds of
layers alone; excess, where the widths are, passes through a block as an affine map. So a block is worked out once for
what reaches it, and a network costs an affine step a block and a few sums over its layers. With so few numbers plain
arithmetic is faster than arrays.

The rules are those of `zeroshot_nas.closed_form.cet.propagation`, restated for speed alone: whoever changes one there
changes it in `_run`, `_back` and `_convolved` as well (`tests/closed_form/cet/test_chain.py` holds the two together).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec, single_sub_layer
from zeroshot_nas.architecture.ops import Activation, BatchNorm, Conv, Gate, Op, Residual, Resolution, Shape
from zeroshot_nas.closed_form.cet.propagation import CENTRED, LINEAR_SHARE
from zeroshot_nas.closed_form.cet.spectra import divided_window, torus_side
from zeroshot_nas.closed_form.cet.terms import (
    GRADIENT_GAIN,
    LINEAR_LOSS,
    CetTerms,
    ConvColumns,
    score_u,
    sum_and_entropy,
)
from zeroshot_nas.closed_form.cet.tracing import reached_kernel
from zeroshot_nas.closed_form.cet.variant import Variant
from zeroshot_nas.core.score import ScoreValue

Combs: TypeAlias = tuple[float, ...]
"""a_1, a_2, a_4, ... as parts of the energy; the rest of it is white."""

RELU_EXCESS = LINEAR_SHARE**2
"""Part of the excess that a ReLU leaves."""


class Signal(NamedTuple):
    """A tensor on its way forward.

    Attributes:
        energy: Its energy.
        excess: Its excess is ``excess + slope * x`` for the excess x of the tensor that enters the block.
        slope: See there.
        linear: Energy of its part that is linear in the image, over that of the tensor that enters.
    """

    energy: float
    excess: float
    slope: float
    linear: float


class Gradient(NamedTuple):
    """A tensor on its way back.

    Attributes:
        energy: Its energy, over that of the gradient that enters the block from behind.
        combs: Its combs.
        excess: As a signal's, of the excess of that gradient.
        slope: See there.
    """

    energy: float
    combs: Combs
    excess: float
    slope: float


@dataclass(frozen=True, eq=False, slots=True)
class ConvGeometry:
    """A convolution without its widths, which combs do not see. Equal ones are one object, which is its own key.

    Attributes:
        kernel: Taps along an axis that one input position meets.
        stride: Its stride.
        dilation: Its dilation.
        tori: Sides of the torus before and behind it.
    """

    kernel: int
    stride: int
    dilation: int
    tori: tuple[int, int]


class ChainConv(NamedTuple):
    """A convolution with batch norm, where it stands.

    Attributes:
        geometry: The convolution without its widths.
        out_channels: Output channels.
        in_channels: Input channels.
        fan_in: Weights of one output channel.
        is_depthwise: True where it is depthwise.
        rank: Patch rank of an input without excess.
        gain: Excess of the output over that of the input, or over 1 more where it is dense.
        gain_back: The same of gradients, of white ones.
        positions: Output positions.
        size: Values of its output.
        reads_entering: True where it reads the tensor that enters its sub-layer.
    """

    geometry: ConvGeometry
    out_channels: int
    in_channels: int
    fan_in: int
    is_depthwise: bool
    rank: float
    gain: float
    gain_back: float
    positions: int
    size: int
    reads_entering: bool


class Fork(NamedTuple):
    """A residual unit: the sum of two chains."""

    body: Steps
    shortcut: Steps


Steps: TypeAlias = "tuple[ChainConv | Fork | None, ...]"
"""Operations that a signal passes, in order; None is a ReLU."""


class SubLayer(NamedTuple):
    """A sub-layer, whatever reaches it.

    Attributes:
        steps: Its operations, in order.
        shape: Shape of its output.
        convolutions: Its convolutions, in order.
    """

    steps: Steps
    shape: Shape
    convolutions: Sequence[ChainConv]


Affine: TypeAlias = tuple[float, float]
"""A number for an excess of 0 where the block begins, and the gain of each unit of that excess."""

Passed: TypeAlias = tuple[float, Affine, Affine]
"""A convolution on the way forward: its input's energy, 1 over its patch rank, 1 over its output's effective
dimension."""

Row: TypeAlias = tuple[Affine, Affine, Affine, float, ChainConv]
"""A convolution passed both ways: the last two of `Passed`, 1 over its gradient's effective dimension, all positions
over that gradient's effective ones, and the convolution."""


@dataclass(frozen=True, eq=False)
class ForwardBlock:
    """A block that a signal passed.

    Attributes:
        out: The signal behind it.
        shape: Shape of that signal.
        sub_layers: The block's sub-layers.
        passed: Numbers of each of its convolutions, in order.
    """

    out: Signal
    shape: Shape
    sub_layers: Sequence[SubLayer]
    passed: Sequence[Passed]

    @property
    def convolutions(self) -> list[ChainConv]:
        """The block's convolutions, in order."""
        return [conv for each in self.sub_layers for conv in each.convolutions]


class BackwardBlock(NamedTuple):
    """A block that a gradient passed.

    Attributes:
        out: The gradient before it.
        runs: Positions and rows of convolutions that follow each other at one resolution.
    """

    out: Gradient
    runs: Sequence[tuple[int, Sequence[Row]]]


class _NoChainError(Exception):
    """A block has operations that are not of a chain as this module knows them."""


class Chain(NamedTuple):
    """A chain's blocks as a signal and a gradient passed them.

    Attributes:
        blocks: The blocks on the way forward.
        back: The same on the way back, in the chain's order.
        entering: Excess of the signal that enters each block.
        arriving: Excess of the gradient that arrives at each block.
        depth_forward: D_f.
        depth_backward: D_b.
    """

    blocks: Sequence[ForwardBlock]
    back: Sequence[BackwardBlock]
    entering: Sequence[float]
    arriving: Sequence[float]
    depth_forward: float
    depth_backward: float

    def score(self) -> float:
        """The variant "u" of CET, without its terms."""
        uses, transmissions = dict[int, float](), dict[int, float]()  # by resolution
        for block, x, y in zip(self.back, self.entering, self.arriving, strict=True):
            for positions, rows in block.runs:
                used = transmitted = 0.0
                for (rank, rank_slope), (out, out_slope), (grad, grad_slope), dilution, _ in rows:
                    inputs, output = dilution / (rank + rank_slope * x), 1 / (out + out_slope * x)
                    gradient = 1 / (grad + grad_slope * y)
                    used += gradient * (inputs if inputs < output else output)
                    transmitted += math.log1p(output if output < gradient else gradient)
                uses[positions] = uses.get(positions, 0.0) + used
                transmissions[positions] = transmissions.get(positions, 0.0) + transmitted
        (u, h_u), (s, h_s) = sum_and_entropy(uses.values()), sum_and_entropy(transmissions.values())
        return score_u(u, h_u, s, h_s, self.depth_forward, self.depth_backward)

    def effective_sums(self) -> tuple[float, float, float, float, float]:
        """A, R, resolutions, Z and the narrowness of `CetTerms`."""
        by_resolution, directions, layers = dict[int, float](), 0.0, 0.0
        narrow, inner = 0.0, 0
        for block, x, y in zip(self.back, self.entering, self.arriving, strict=True):
            for positions, rows in block.runs:
                total = 0.0
                for (rank, rank_slope), (out, out_slope), (grad, grad_slope), dilution, conv in rows:
                    output, gradient = 1 / (out + out_slope * x), dilution / (grad + grad_slope * y)
                    used = output / (rank + rank_slope * x)
                    through = min(output, gradient, conv.in_channels * positions)
                    directions += used / positions
                    total += math.sqrt(used)
                    layers += math.sqrt(through * used / (conv.out_channels * conv.fan_in * positions))
                    narrow += 1 / conv.in_channels
                    inner += 1
                by_resolution[positions] = by_resolution.get(positions, 0.0) + total
        logs = [math.log(total) for total in by_resolution.values()]
        stem = [conv for conv in self.blocks[0].sub_layers[0].convolutions if conv.reads_entering]
        narrow, inner = narrow - sum(1 / conv.in_channels for conv in stem), inner - len(stem)
        return directions, 2 * sum(logs), len(logs), layers, narrow / max(inner, 1)

    def value(self, variant: Variant = "u") -> ScoreValue:
        """The score, with the terms as its details.

        Raises:
            ProxyError: No variant has that name.
        """
        return ScoreValue(self.score(), lambda: self.terms().details) if variant == "u" else self.terms().value(variant)

    def terms(self) -> CetTerms:
        """The terms, with sums over all convolutions."""
        convolutions = [conv for block in self.blocks for conv in block.convolutions]
        numbers = [
            (1 / (rank + rank_slope * x), 1 / (out + out_slope * x), 1 / (grad + grad_slope * y), dilution)
            for block, x, y in zip(self.back, self.entering, self.arriving, strict=True)
            for _, rows in block.runs
            for (rank, rank_slope), (out, out_slope), (grad, grad_slope), dilution, _ in rows
        ]
        patch_rank, outputs, gradients, dilution = np.array(numbers).T
        positions = np.array([conv.positions for conv in convolutions], float)
        first = self.blocks[0].sub_layers[0].convolutions  # no image enters later ones
        is_stem = [conv.reads_entering for conv in first] + [False] * (len(convolutions) - len(first))
        columns = ConvColumns(
            out_channels=np.array([conv.out_channels for conv in convolutions], float),
            in_channels=np.array([conv.in_channels for conv in convolutions], float),
            fan_in=np.array([conv.fan_in for conv in convolutions], float),
            positions=positions,
            patch_rank=patch_rank,
            novelty=np.ones(len(convolutions)),
            output_rank=outputs / positions,
            output_positions=positions,
            gradient_rank=gradients * dilution / positions,
            gradient_positions=positions / dilution,
            is_stem=np.array(is_stem, float),
        )
        return CetTerms.of(columns, self.depth_forward, self.depth_backward)


def propagate_chain(architecture: Architecture) -> Chain | None:
    """The convolutions of a chain, with the numbers that the general propagation gives them.

    Returns:
        None where the architecture has no convolution or something else than convolutions with batch norms, ReLUs,
        gates and residual units of these, strides of 1 and 2, or has parallel convolutions that may repeat each other.
    """
    walked = _walk_forward(architecture)
    if walked is None:
        return None
    blocks, entering, energy, linear = walked
    shape = blocks[-1].shape
    back, arriving, growth = _walk_back(blocks, shape[0] / architecture.num_classes)
    if not any(block.runs for block in back):
        return None
    height, width = architecture.input_size[1:]
    growth *= height * width / (shape[1] * shape[2] * energy)
    last = blocks[-1].sub_layers[-1].steps
    rectified = float(bool(last) and last[-1] is None)  # behind it only the head is left: no layer
    return Chain(
        *(blocks, back, entering, arriving),
        -math.log(linear / energy) / LINEAR_LOSS - rectified,
        math.log(growth) / GRADIENT_GAIN - rectified,
    )


def _walk_forward(architecture: Architecture) -> tuple[list[ForwardBlock], list[float], float, float] | None:
    """An image's way: the blocks, the excess that enters each, the energy behind them and what is linear of it."""
    energy, excess, linear = 1.0, 0.0, 1.0
    blocks: list[ForwardBlock] = []
    entering: list[float] = []
    shape = architecture.input_size
    for spec in architecture.blocks:
        block = forward_block(spec, shape, energy)
        if block is None:
            return None
        blocks.append(block)
        entering.append(excess)
        shape = block.shape
        energy, constant, slope, share = block.out
        excess, linear = constant + slope * excess, linear * share
    return blocks, entering, energy, linear


def _walk_back(blocks: Sequence[ForwardBlock], excess: float) -> tuple[list[BackwardBlock], list[float], float]:
    """The way back from a gradient of that excess: the blocks, the excess that arrives at each, the energy's growth."""
    growth, combs = 1.0, constant_combs(blocks[-1].shape)
    back: list[BackwardBlock] = []
    arriving: list[float] = []
    for block in reversed(blocks):
        came = backward_block(block, combs)
        back.append(came)
        arriving.append(excess)
        gain, combs, constant, slope = came.out
        growth, excess = growth * gain, constant + slope * excess
    return back[::-1], arriving[::-1], growth


def constant_combs(shape: Shape) -> Combs:
    """The combs of a map that is the same at all positions."""
    levels = torus_side(min(shape[1:])).bit_length() - 1
    return (1.0, *[0.0] * (levels - 1)) if levels else ()


@lru_cache(maxsize=32_768)
def forward_block(block: BlockSpec, shape: Shape, energy: float) -> ForwardBlock | None:
    """Runs a signal through a block; None where it is not of a chain."""
    if block.outline() is not None:
        return None  # a graph, as all that shares its plan with other widths; asked first, for it saves lowering it
    single = single_sub_layer(block)
    try:
        passed = [sub_layer(single, shape, True)]
        if block.sub_layers > 1:
            passed += [sub_layer(single, passed[0].shape, False)] * (block.sub_layers - 1)
    except _NoChainError:
        return None
    signal, through = Signal(energy, 0.0, 1.0, 1.0), list[Passed]()
    for each in passed:
        signal = _run(each.steps, signal, through)
    return ForwardBlock(signal, passed[-1].shape, passed, through)


def _run(steps: Steps, signal: Signal, through: list[Passed]) -> Signal:
    """The way forward; notes what each convolution sees."""
    energy, excess, slope, linear = signal
    for step in steps:
        if step is None:
            # the spectrum of a white map stays white: of the general rule its energy is left
            energy, excess, slope, linear = energy * CENTRED, excess * RELU_EXCESS, slope * RELU_EXCESS, linear / 4
        elif isinstance(step, Fork):
            reaches = Signal(energy, excess, slope, linear)
            body = _run(step.body, reaches, through)
            side = _run(step.shortcut, reaches, through) if step.shortcut else reaches
            energy, linear = body.energy + side.energy, body.linear + side.linear
            one, two = (body.energy / energy) ** 2, (side.energy / energy) ** 2
            excess, slope = one * body.excess + two * side.excess, one * body.slope + two * side.slope
        else:
            # a dense convolution reads all channels at once, a depthwise one each alone, without excess
            read, read_slope = (1.0, 0.0) if step.is_depthwise else (1.0 + excess, slope)
            excess, slope = step.gain * (excess if step.is_depthwise else read), step.gain * slope
            size, rank = step.size, step.rank
            through.append((energy, (read / rank, read_slope / rank), ((1.0 + excess) / size, slope / size)))
            energy, linear = 1.0, linear / energy
    return Signal(energy, excess, slope, linear)


@lru_cache(maxsize=32_768)
def sub_layer(block: BlockSpec, shape: Shape, is_first: bool) -> SubLayer:
    """A block's first sub-layer, or a following one."""
    convolutions: list[ChainConv] = []
    steps, after = _steps(block.first(shape[0]) if is_first else block.following(), shape, True, convolutions)
    return SubLayer(steps, after, convolutions)


def _steps(ops: tuple[Op, ...], shape: Shape, entering: bool, convolutions: list[ChainConv]) -> tuple[Steps, Shape]:
    """Operations on a tensor of that shape, which may be the one ``entering`` the sub-layer; notes convolutions."""
    steps: list[ChainConv | Fork | None] = []
    normalises = False
    for op in ops:
        if isinstance(op, BatchNorm) != normalises:
            raise _NoChainError
        normalises = isinstance(op, Conv)
        if isinstance(op, Conv):
            conv, shape = _convolution(op, shape, entering and not steps)
            convolutions.append(conv)
            steps.append(conv)
        elif isinstance(op, Activation) and op.kind == "relu":
            steps.append(None)
        elif isinstance(op, Residual):
            fork, shape = _fork(op, shape, entering and not steps, convolutions)
            steps.append(fork)
        elif not isinstance(op, BatchNorm | Gate):
            raise _NoChainError
    if normalises:
        raise _NoChainError
    return tuple(steps), shape


def _fork(op: Residual, shape: Shape, entering: bool, convolutions: list[ChainConv]) -> tuple[Fork, Shape]:
    """A residual unit with at most one convolution in the shortcut, and more in the body: none repeats another."""
    before = len(convolutions)
    body, after = _steps(op.body, shape, entering, convolutions)
    between = len(convolutions)
    side, _ = _steps(op.shortcut, shape, entering, convolutions)
    in_body, in_shortcut = between - before, len(convolutions) - between
    is_nested = any(isinstance(each, Fork) for each in body + side)
    if is_nested or in_shortcut > 1 or in_body <= in_shortcut:
        raise _NoChainError
    return Fork(body, side), after


def _convolution(conv: Conv, shape: Shape, reads_entering: bool) -> tuple[ChainConv, Shape]:
    resolution = shape[1:]
    rank, geometry, after = _geometry(conv.kernel_size, conv.stride, conv.dilation, resolution)
    gain, gain_back = 1 / rank, 1.0
    is_depthwise = conv.groups > 1
    if not is_depthwise:
        rank *= conv.in_channels
        gain, gain_back = conv.out_channels / rank, conv.in_channels / conv.out_channels
    elif conv.groups != conv.in_channels:
        raise _NoChainError
    positions, shape = after[0] * after[1], (conv.out_channels, *after)
    size = conv.out_channels * positions
    numbers = (rank, gain, gain_back, positions, size)
    return ChainConv(
        geometry, conv.out_channels, conv.in_channels, conv.fan_in, is_depthwise, *numbers, reads_entering
    ), shape


@lru_cache(maxsize=16_384)
def _geometry(
    kernel_size: int, stride: int, dilation: int, resolution: Resolution
) -> tuple[float, ConvGeometry, Resolution]:
    """Independent taps of a convolution's patches of white maps, its geometry, and its output's resolution."""
    if stride > 2:
        raise _NoChainError
    conv = Conv(1, 1, kernel_size, stride, dilation=dilation)
    after = conv.output_shape((1, *resolution))[1:]
    torus, kernel = torus_side(min(resolution)), reached_kernel(conv, min(resolution))
    rank = kernel**2 / divided_window(kernel, dilation, torus)[-1]
    return rank, ConvGeometry(max(1, round(kernel / stride)), stride, dilation, (torus, torus_side(min(after)))), after


@lru_cache(maxsize=32_768)
def backward_block(block: ForwardBlock, combs: Combs) -> BackwardBlock:
    """Runs a gradient of energy 1 back through a block."""
    gradient, through, rows = Gradient(1.0, combs, 0.0, 1.0), list(block.passed), list[Row]()
    for each in reversed(block.sub_layers):
        gradient = _back(each.steps, gradient, through, rows)
    numbered = zip(block.convolutions, reversed(rows), strict=True)
    runs = [
        (positions, [row for _, row in run]) for positions, run in groupby(numbered, lambda each: each[0].positions)
    ]
    return BackwardBlock(gradient, runs)


def _back(steps: Steps, gradient: Gradient, through: list[Passed], rows: list[Row]) -> Gradient:
    """The way back; takes the numbers of convolutions from the end of ``through``, and notes the last one first."""
    energy, combs, excess, slope = gradient
    for step in reversed(steps):
        if step is None:
            # a quarter of the energy passes coherently; the mask's fluctuations make as much white noise of no excess
            energy, combs, excess, slope = energy / 2, _halved(combs), excess / 4, slope / 4
        elif isinstance(step, Fork):
            came = Gradient(energy, combs, excess, slope)
            side = _back(step.shortcut, came, through, rows) if step.shortcut else came
            energy, combs, excess, slope = _sum(_back(step.body, came, through, rows), side)
        else:
            dilution, taps, combs = _convolved(step.geometry, combs)
            entered, rank, out = through.pop()
            each = dilution / step.size
            rows.append((rank, out, ((1.0 + excess) * each, slope * each), dilution, step))
            taps *= step.gain_back
            if not step.is_depthwise:
                excess += 1.0
            energy, excess, slope = energy / (entered * step.geometry.stride**2), taps * excess, taps * slope
    return Gradient(energy, combs, excess, slope)


@lru_cache(maxsize=32_768)
def _halved(combs: Combs) -> Combs:
    return tuple([each / 2 for each in combs])


@lru_cache(maxsize=32_768)
def _convolved(conv: ConvGeometry, combs: Combs) -> tuple[float, float, Combs]:
    """Combs that pass back through a convolution, whatever its widths.

    Returns:
        All positions over the effective ones of the gradient that reaches it; the mean of squared correlations over
        pairs of taps; the combs that it passes on.
    """
    mass = divided_window(conv.kernel, conv.dilation, conv.tori[1])
    taps, rho = mass[-1], 0.0
    for weight, comb in zip(mass, combs, strict=False):
        rho += comb
        taps += weight * rho**2
    levels = conv.tori[0].bit_length() - 1  # a comb too wide for the torus is white
    spread = (0.0, *combs)[:levels] if conv.stride > 1 else combs
    return 1 / _effective_share(combs), taps / conv.kernel**2, spread


def _sum(one: Gradient, two: Gradient) -> Gradient:
    energy = one.energy + two.energy
    first, second = one.energy / energy, two.energy / energy
    combs = tuple([first * a + second * b for a, b in zip(one.combs, two.combs, strict=True)])
    first, second = first**2, second**2
    return Gradient(energy, combs, first * one.excess + second * two.excess, first * one.slope + second * two.slope)


def _effective_share(combs: Combs) -> float:
    """Effective positions of a map with these combs, over all its positions: exp of its spectrum's entropy.

    On a torus of side t the spectrum has at the multiples of t/p, p^2 frequencies, what the combs of p and more bring:
    b + sum over q >= p of a_q (t/q)^2.
    """
    torus = 1 << len(combs)
    share, count, entropy = (1.0 - sum(combs)) / torus**2, torus**2, 0.0
    for level in range(len(combs) - 1, -1, -1):
        if comb := combs[level]:
            inner = 1 << 2 * level  # frequencies that this comb has
            entropy -= (count - inner) * _times_log(share)
            share, count = share + comb / inner, inner
    return math.exp(entropy - count * _times_log(share)) / torus**2


def _times_log(share: float) -> float:
    return share * math.log(share) if share > 0 else 0.0
