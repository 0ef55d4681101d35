"""The mean field of chains without pooling, in a few numbers a layer: the same values as the general propagation.

Without pooling all forward maps are white: independent from position to position. Of a tensor there is left its energy,
its excess and the energy of what is linear in the image. A gradient, which starts constant at the global pooling, is
white noise plus *combs*: parts that are equal at all positions that are p apart,

    K(d) = b [d = 0] + sum of a_p over the p that divide d,    p = 1, 2, 4, ...

ReLU takes (b, a) to (b/2 + sum(a)/4, a/4), a stride of 2 spreads a_p to a_2p. Energies and combs depend on the kinds of
layers alone; excess, where the widths are, passes through a block as an affine map. So a block is worked out once for
what reaches it, and a network costs an affine step a block and a few sums over its layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import numpy as np

from zeroshot_nas.architecture import Architecture, BlockSpec, single_sub_layer
from zeroshot_nas.meanfield.pieces import GRADIENT_GAIN, LINEAR_LOSS, CetPieces, Layers, Runs, score_u
from zeroshot_nas.meanfield.propagation import CENTRED, LINEAR_SHARE
from zeroshot_nas.meanfield.spectra import Array, divided_window, torus_side
from zeroshot_nas.meanfield.tracing import reached_kernel
from zeroshot_nas.ops import Activation, BatchNorm, Conv, Gate, Op, Residual, Resolution, Shape

Combs: TypeAlias = tuple[float, ...]
"""a_1, a_2, a_4, ... as parts of the energy; the rest of it is white."""

RELU_EXCESS = LINEAR_SHARE**2
"""What a ReLU leaves of excess."""


class Signal(NamedTuple):
    """A tensor on its way forward.

    Attributes:
        energy: Its energy.
        excess: Its excess is ``excess + slope * x`` for the excess x of what enters the block.
        slope: See there.
        linear: Energy of what is linear in the image, over that of what enters.
    """

    energy: float
    excess: float
    slope: float
    linear: float


class Gradient(NamedTuple):
    """A tensor on its way back.

    Attributes:
        energy: Its energy, over that of what enters.
        combs: Its combs.
        excess: As a signal's.
        slope: As a signal's.
    """

    energy: float
    combs: Combs
    excess: float
    slope: float


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """A convolution as combs see it: without its widths. One object each, so that it is its own key.

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


class Layer(NamedTuple):
    """A convolution with batch norm, where it stands.

    Attributes:
        seen: What combs see of it.
        out_channels: Output channels.
        is_depthwise: Whether it is depthwise.
        rank: Patch rank of an input without excess.
        gain: Excess of the output over that of the input, or over 1 more where it is dense.
        gain_back: The same of gradients, of white ones.
        positions: Output positions.
        reads_entering: Whether it reads what enters its sub-layer.
    """

    seen: Seen
    out_channels: int
    is_depthwise: bool
    rank: float
    gain: float
    gain_back: float
    positions: int
    reads_entering: bool


class Fork(NamedTuple):
    """A residual unit: the sum of two chains."""

    body: Steps
    shortcut: Steps


Steps: TypeAlias = "tuple[Layer | Fork | None, ...]"
"""What a signal passes, in order; None is a ReLU."""


class SubLayer(NamedTuple):
    """A sub-layer, whatever reaches it.

    Attributes:
        steps: What it consists of.
        shape: Shape of its output.
        constants: ``(4, L)``: of each of its L convolutions the patch rank of an input without excess, output channels,
            output positions, and whether it reads what enters.
    """

    steps: Steps
    shape: Shape
    constants: Array


@dataclass(frozen=True, eq=False)
class ForwardBlock:
    """A block that a signal passed.

    Attributes:
        out: The signal behind it.
        shape: Its shape.
        passed: Its sub-layers.
        energies: What each convolution read: its energy.
        constants: ``(4, L)``, as a sub-layer's.
        columns: ``(4, L)``: of each convolution 1 over its patch rank and 1 over the effective dimension of its output
            for an excess of 0, and what each unit of the excess that enters adds to both.
        runs: Runs of convolutions of one resolution.
    """

    out: Signal
    shape: Shape
    passed: Sequence[SubLayer]
    energies: Sequence[float]
    constants: Array
    columns: Array
    runs: Runs


class BackwardBlock(NamedTuple):
    """A block that a gradient passed.

    Attributes:
        out: The gradient before it.
        columns: ``(3, L)``: of each convolution 1 over the effective dimension of the gradient that reaches it, what
            each unit of the excess that enters adds to it, and all positions over that gradient's effective ones.
    """

    out: Gradient
    columns: Array


class _NoChainError(Exception):
    """A block has operations that are not of a chain as this module knows them."""


class Chain(NamedTuple):
    """A chain's convolutions; see `zeroshot_nas.meanfield.pieces.Layers`.

    Attributes:
        blocks: Its blocks.
        patch_rank: Patch ranks.
        outputs: Effective dimensions of the outputs.
        gradients: Effective dimensions of the gradients that reach them.
        dilution: All positions over the gradient's effective ones.
        depth_forward: D_f.
        depth_backward: D_b.
    """

    blocks: Sequence[ForwardBlock]
    patch_rank: Array
    outputs: Array
    gradients: Array
    dilution: Array
    depth_forward: float
    depth_backward: float

    def score(self) -> float:
        """The variant "u" of CET, without its pieces."""
        uses = self.gradients * np.minimum(self.patch_rank * self.dilution, self.outputs)
        transmission = np.log1p(np.minimum(self.outputs, self.gradients))
        runs = Runs.joined([block.runs for block in self.blocks])
        both = *runs.sum_and_entropy(uses), *runs.sum_and_entropy(transmission)
        return score_u(*both, self.depth_forward, self.depth_backward)

    def pieces(self) -> CetPieces:
        """What CET weighs."""
        _, channels, positions, is_stem = np.concatenate([block.constants for block in self.blocks], axis=1)
        is_stem[self.blocks[0].passed[0].constants.shape[1] :] = 0.0  # what others read is not the image
        layers = Layers(
            out_channels=channels,
            positions=positions,
            patch_rank=self.patch_rank,
            novelty=np.ones(len(channels)),
            output_rank=self.outputs / positions,
            output_positions=positions,
            gradient_rank=self.gradients * self.dilution / positions,
            gradient_positions=positions / self.dilution,
            is_stem=is_stem,
        )
        return CetPieces.of(layers, self.depth_forward, self.depth_backward)


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
    gradient, gradient_slope, dilution = np.concatenate([block.columns for block in back], axis=1)
    if not len(gradient):
        return None
    forward = np.concatenate([block.columns for block in blocks], axis=1)
    x, y = np.repeat(np.array((entering, arriving)), [block.columns.shape[1] for block in blocks], axis=1)
    patch_rank, outputs = 1 / (forward[:2] + forward[2:] * x)
    height, width = architecture.input_size[1:]
    growth *= height * width / (shape[1] * shape[2] * energy)
    last = blocks[-1].passed[-1].steps
    rectified = float(bool(last) and last[-1] is None)  # behind it only the head is left: no layer
    return Chain(
        *(blocks, patch_rank, outputs, 1 / (gradient + gradient_slope * y), dilution),
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
    """The combs of what is the same at all positions."""
    levels = torus_side(min(shape[1:])).bit_length() - 1
    return (1.0, *[0.0] * (levels - 1)) if levels else ()


@lru_cache(maxsize=32_768)
def forward_block(block: BlockSpec, shape: Shape, energy: float) -> ForwardBlock | None:
    """Runs a signal through a block; None where it is not of a chain."""
    single = single_sub_layer(block)
    try:
        passed = [sub_layer(single, shape, True)]
        if block.sub_layers > 1:
            passed += [sub_layer(single, passed[0].shape, False)] * (block.sub_layers - 1)
    except _NoChainError:
        return None
    signal, energies, columns = Signal(energy, 0.0, 1.0, 1.0), list[float](), list[float]()
    for each in passed:
        signal = _run(each.steps, signal, energies, columns)
    constants = np.concatenate([each.constants for each in passed], axis=1)
    ranks, channels, positions, _ = constants
    found = np.array(columns).reshape(-1, 4).T
    found = found / np.array([ranks, channels * positions] * 2)
    return ForwardBlock(signal, passed[-1].shape, passed, energies, constants, found, Runs.of(positions))


def _run(steps: Steps, signal: Signal, energies: list[float], columns: list[float]) -> Signal:
    """The way forward; notes the energy that each convolution reads, and 1 + excess of its input and output."""
    energy, excess, slope, linear = signal
    for step in steps:
        if step is None:
            energy, excess, slope, linear = energy * CENTRED, excess * RELU_EXCESS, slope * RELU_EXCESS, linear / 4
        elif isinstance(step, Fork):
            reaches = Signal(energy, excess, slope, linear)
            body = _run(step.body, reaches, energies, columns)
            side = _run(step.shortcut, reaches, energies, columns)
            energy, linear = body.energy + side.energy, body.linear + side.linear
            one, two = (body.energy / energy) ** 2, (side.energy / energy) ** 2
            excess, slope = one * body.excess + two * side.excess, one * body.slope + two * side.slope
        else:
            energies.append(energy)
            linear /= energy
            if step.is_depthwise:
                energy, excess, slope = 1.0, step.gain * excess, step.gain * slope
                columns += 1.0, 1.0 + excess, 0.0, slope
            else:
                read, read_slope = 1.0 + excess, slope
                energy, excess, slope = 1.0, step.gain * read, step.gain * slope
                columns += read, 1.0 + excess, read_slope, slope
    return Signal(energy, excess, slope, linear)


@lru_cache(maxsize=32_768)
def sub_layer(block: BlockSpec, shape: Shape, is_first: bool) -> SubLayer:
    """A block's first sub-layer, or a following one."""
    layers: list[Layer] = []
    steps, after = _steps(block.first(shape[0]) if is_first else block.following(), shape, True, layers)
    constants = [(each.rank, each.out_channels, each.positions, each.reads_entering) for each in layers]
    return SubLayer(steps, after, np.array(constants, float).reshape(-1, 4).T)


def _steps(ops: tuple[Op, ...], shape: Shape, entering: bool, layers: list[Layer]) -> tuple[Steps, Shape]:
    """Operations from a shape on, which may be what ``entering`` the sub-layer has; notes convolutions in order."""
    steps: list[Layer | Fork | None] = []
    normalises = False
    for op in ops:
        if isinstance(op, BatchNorm) != normalises:
            raise _NoChainError
        normalises = isinstance(op, Conv)
        if isinstance(op, Conv):
            layer, shape = _layer(op, shape, entering and not steps)
            layers.append(layer)
            steps.append(layer)
        elif isinstance(op, Activation) and op.kind == "relu":
            steps.append(None)
        elif isinstance(op, Residual):
            fork, shape = _fork(op, shape, entering and not steps, layers)
            steps.append(fork)
        elif not isinstance(op, BatchNorm | Gate):
            raise _NoChainError
    if normalises:
        raise _NoChainError
    return tuple(steps), shape


def _fork(op: Residual, shape: Shape, entering: bool, layers: list[Layer]) -> tuple[Fork, Shape]:
    """A residual unit with at most one convolution in the shortcut, and more in the body: none repeats another."""
    before = len(layers)
    body, after = _steps(op.body, shape, entering, layers)
    between = len(layers)
    side, _ = _steps(op.shortcut, shape, entering, layers)
    in_body, in_shortcut = between - before, len(layers) - between
    is_nested = any(isinstance(each, Fork) for each in body + side)
    if is_nested or in_shortcut > 1 or in_body <= in_shortcut:
        raise _NoChainError
    return Fork(body, side), after


def _layer(conv: Conv, shape: Shape, reads_entering: bool) -> tuple[Layer, Shape]:
    resolution = shape[1:]
    rank, seen, after = _seen(conv.kernel_size, conv.stride, conv.dilation, resolution)
    gain, gain_back = 1 / rank, 1.0
    is_depthwise = conv.groups > 1
    if not is_depthwise:
        rank *= conv.in_channels
        gain, gain_back = conv.out_channels / rank, conv.in_channels / conv.out_channels
    elif conv.groups != conv.in_channels:
        raise _NoChainError
    positions, shape = after[0] * after[1], (conv.out_channels, *after)
    return Layer(seen, conv.out_channels, is_depthwise, rank, gain, gain_back, positions, reads_entering), shape


@lru_cache(maxsize=16_384)
def _seen(kernel_size: int, stride: int, dilation: int, resolution: Resolution) -> tuple[float, Seen, Resolution]:
    """Independent taps of a convolution's patches of white maps, what combs see of it, and its output's resolution."""
    if stride > 2:
        raise _NoChainError
    conv = Conv(1, 1, kernel_size, stride, dilation=dilation)
    after = conv.output_shape((1, *resolution))[1:]
    torus, kernel = torus_side(min(resolution)), reached_kernel(conv, min(resolution))
    rank = kernel**2 / divided_window(kernel, dilation, torus)[-1]
    return rank, Seen(max(1, round(kernel / stride)), stride, dilation, (torus, torus_side(min(after)))), after


@lru_cache(maxsize=32_768)
def backward_block(block: ForwardBlock, combs: Combs) -> BackwardBlock:
    """Runs a gradient of energy 1 back through a block."""
    columns: list[float] = []
    energies = list(block.energies)
    gradient = Gradient(1.0, combs, 0.0, 1.0)
    for each in reversed(block.passed):
        gradient = _back(each.steps, gradient, energies, columns)
    _, channels, positions, _ = block.constants
    found = np.array(columns).reshape(-1, 3)[::-1].T.copy()
    found[:2] *= found[2] / (channels * positions)
    return BackwardBlock(gradient, found)


def _back(steps: Steps, gradient: Gradient, energies: list[float], columns: list[float]) -> Gradient:
    """The way back; takes the convolutions' energies from the end, and notes the last convolution first."""
    energy, combs, excess, slope = gradient
    for step in reversed(steps):
        if step is None:
            # a quarter of the energy passes coherently; the mask's fluctuations make as much white noise of no excess
            energy, combs, excess, slope = energy / 2, _halved(combs), excess / 4, slope / 4
        elif isinstance(step, Fork):
            came = Gradient(energy, combs, excess, slope)
            side = _back(step.shortcut, came, energies, columns)
            energy, combs, excess, slope = _sum(_back(step.body, came, energies, columns), side)
        else:
            dilution, taps, combs = _convolved(step.seen, combs)
            columns += 1.0 + excess, slope, dilution
            taps *= step.gain_back
            if not step.is_depthwise:
                excess += 1.0
            energy, excess, slope = energy / (energies.pop() * step.seen.stride**2), taps * excess, taps * slope
    return Gradient(energy, combs, excess, slope)


@lru_cache(maxsize=32_768)
def _halved(combs: Combs) -> Combs:
    return tuple([each / 2 for each in combs])


@lru_cache(maxsize=32_768)
def _convolved(conv: Seen, combs: Combs) -> tuple[float, float, Combs]:
    """What a convolution makes of combs, whatever its widths.

    Returns:
        All positions over the effective ones of what reaches it; the mean of squared correlations over pairs of taps;
        the combs that it passes on.
    """
    mass = divided_window(conv.kernel, conv.dilation, conv.tori[1])
    taps = mass[-1] + sum(each * rho**2 for each, rho in zip(mass, accumulate(combs), strict=False))
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
    height, before, entropy = 1.0 - sum(combs), torus**2, 0.0
    steps = []
    for level in range(len(combs) - 1, -1, -1):
        period = 1 << level
        steps.append((before - period**2, height))
        before, height = period**2, height + combs[level] * (torus / period) ** 2
    steps.append((before, height))
    for count, value in steps:
        share = value / torus**2
        if share > 0:
            entropy -= count * share * math.log(share)
    return math.exp(entropy) / torus**2
