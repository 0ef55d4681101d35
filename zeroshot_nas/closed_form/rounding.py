r"""Weights of few bits: what rounding costs a network in closed form, and which layers can do with fewer.

Rounding adds noise to a layer's weights, which behind the layer is noise of the same relative power, and so on to the
logits. In the mean field, where weights are independent and each convolution's output has power 1, what reaches the
logits is a sum over the layers,

.. math:: r = \sum_l s_l \varepsilon_l, \qquad \varepsilon_l = \frac{E[(w - Q_b(w))^2]}{E[w^2]},

with :math:`s_l` the share of the logits' power that went through layer l: 1 in a plain chain, a half in a branch beside
a link that carries as much. Of Gaussian weights with a scale that the largest of n sets :math:`\varepsilon` has a
closed form. Then 1 / (1 + r) is the signal's share of the logits, and -log(1 + r) what scores in logarithms of power,
`ceres` and `cet`, lose.

A ReLU is taken to halve signal and noise alike. In a random network with batch norms small differences between images
grow faster, by :math:`\pi / (\pi - 1)` a layer (Yang et al., arXiv:1902.08129). Trained networks are calmer: where
weights had 4 and 8 bits their logits had a fifth to two fifths of the noise that is predicted here
(``benchmarks/mixed_precision.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple, TypeVar

from zeroshot_nas.architecture.architecture import Architecture, head
from zeroshot_nas.architecture.blockspec import BlockSpec, single_sub_layer, weighted_layers
from zeroshot_nas.architecture.ops import Resolution, Shape
from zeroshot_nas.chains.coding import Chains
from zeroshot_nas.core.score import ScoreValue
from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.micro.operators import Operator, operators, packed_bytes, sub_layer_operators

_NORMAL = NormalDist()

_SIGMOID = 0.25
"""Second moment of a sigmoid near 0; that its slope squared is 1/16 makes noise a quarter of its share."""

_QUANTILES = 8


class Layer(NamedTuple):
    """A convolution or a linear layer.

    Attributes:
        weights: How many weights it has; 0 for one that nothing reads.
        fan_in: How many share a scale.
        share: Share of the logits' noise that its own is, s_l.
    """

    weights: int
    fan_in: int
    share: float

    def bytes(self, bits: int) -> int:
        """Bytes of its weights, packed."""
        return packed_bytes(self.weights, bits)

    def noise(self, bits: int) -> float:
        """What it adds to the logits' relative noise."""
        return self.share * relative_noise(self.fan_in, bits) if self.weights else 0.0


@lru_cache(maxsize=4_096)
def relative_noise(fan_in: int, bits: int) -> float:
    r"""Mean squared error of rounded Gaussian weights over their variance.

    The largest absolute value m of ``fan_in`` sets the scale; it is met exactly, and the others are Gaussian up to it.
    With K = 2^(bits - 1) - 1 steps of :math:`\Delta = m / K` on either side and :math:`t_k = (k - \tfrac12) \Delta` the
    error of one of them is, over :math:`P(|w| < m)`,

    .. math:: E[w^2] + \sum_{k=1}^K \left(\Delta^2 (2k - 1) P(|w| > t_k) - 4 \Delta (\varphi(t_k) - \varphi(m))\right)

    with all moments up to m, and the mean over m is taken at `_QUANTILES` of its distribution.

    Example:
        >>> [round(relative_noise(144, bits), 5) for bits in (2, 4, 8)]
        [0.59872, 0.01401, 4e-05]
    """
    levels = ((2 * place + 1) / (2 * _QUANTILES) for place in range(_QUANTILES))
    largest = (_NORMAL.inv_cdf(0.5 + 0.5 * level ** (1 / fan_in)) for level in levels)
    errors = (_error_up_to(each, 2 ** (bits - 1) - 1) for each in largest)
    return sum(errors) / _QUANTILES * (1 - 1 / fan_in)


def _error_up_to(largest: float, steps: int) -> float:
    """Mean squared error of a Gaussian value below the largest, with so many steps on either side."""
    step, beyond, end = largest / steps, math.erfc(largest / math.sqrt(2)), _NORMAL.pdf(largest)
    error = 1 - beyond - 2 * largest * end
    for k in range(1, steps + 1):
        edge = (k - 0.5) * step
        error += step**2 * (2 * k - 1) * (math.erfc(edge / math.sqrt(2)) - beyond)
        error -= 4 * step * (_NORMAL.pdf(edge) - end)
    return error / (1 - beyond)


def rounding_loss(architecture: Architecture) -> float:
    """log(1 + r), what rounding its weights to ``weight_bits`` takes from a network's signal; 0 where it has none.

    Example:
        >>> from dataclasses import replace
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> [round(rounding_loss(replace(net, weight_bits=(bits,) * 5)), 4) for bits in (2, 4, 8)]
        [1.0469, 0.042, 0.0001]
    """
    bits = architecture.weight_bits
    if bits is None:
        return 0.0
    return math.log1p(sum(layer.noise(each) for layer, each in zip(layers_of(architecture), bits, strict=True)))


_Error = TypeVar("_Error", bound=ZeroShotNASError)


def less_rounding(values: list[ScoreValue | _Error], networks: Sequence[Architecture]) -> list[ScoreValue | _Error]:
    """Scores in logarithms of power, each less what the rounding of its network's weights takes, a detail of it."""
    if isinstance(networks, Chains):  # which say nothing of bits
        return values
    return [
        value if network.weight_bits is None or isinstance(value, ZeroShotNASError) else _less(value, network)
        for value, network in zip(values, networks, strict=True)
    ]


def _less(value: ScoreValue, network: Architecture) -> ScoreValue:
    loss = rounding_loss(network)
    return ScoreValue(value - loss, lambda: {**value.details, "rounding": loss})


def layers_of(architecture: Architecture) -> tuple[Layer, ...]:
    """Every convolution and linear layer, in the order of ``weight_bits``, with its share of the logits' noise.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> tuple((layer.weights, layer.share) for layer in layers_of(net))  # the third and the link carry half each
        ((432, 1.0), (2304, 0.5), (4608, 0.5), (512, 0.5), (320, 1.0))
    """
    return _layers(architecture.blocks, architecture.input_size, architecture.num_classes)


@lru_cache(maxsize=4_096)  # a search asks once to allocate bits, and once to score them
def _layers(blocks: tuple[BlockSpec, ...], input_size: Shape, num_classes: int) -> tuple[Layer, ...]:
    channels, *sides = input_size
    resolution: Resolution = (sides[0], sides[1])
    power = 1.0
    passed: list[_Noise] = []
    for block in blocks:
        single = single_sub_layer(block)
        for index in range(block.sub_layers):
            noise = _of_sub_layer(single, channels if index == 0 else None, resolution, power)
            passed.append(noise)
            power, resolution = noise.power, noise.resolution
        channels = block.out_channels
    passed.append(_of_head(channels, resolution, num_classes, power))
    found: list[tuple[Layer, ...]] = []
    gain = 1 / passed[-1].power
    for noise in reversed(passed):
        found.append(tuple(layer._replace(share=layer.share * gain) for layer in noise.layers))
        gain *= noise.gain
    return tuple(layer for layers in reversed(found) for layer in layers)


class _Noise(NamedTuple):
    """What becomes of noise in a piece of a network.

    Attributes:
        power: Second moment of what comes out.
        gain: Power of the noise that comes out, of noise of power 1 that goes in.
        layers: Its layers; shares are powers of what comes out.
        resolution: Behind it.
    """

    power: float
    gain: float
    layers: tuple[Layer, ...]
    resolution: Resolution


@lru_cache(maxsize=262_144)
def _of_sub_layer(block: BlockSpec, in_channels: int | None, resolution: Resolution, power: float) -> _Noise:
    """Of the first sub-layer, or for ``in_channels`` None of a following one; ``power`` is that of what goes in."""
    channels = block.out_channels if in_channels is None else in_channels
    program = sub_layer_operators(block, in_channels, resolution)
    layers = weighted_layers(block, in_channels, resolution)
    return _of_chain(program, layers, (channels, *resolution), power)


@lru_cache(maxsize=4_096)
def _of_head(channels: int, resolution: Resolution, num_classes: int, power: float) -> _Noise:
    shape = (channels, *resolution)
    return _of_chain(operators((head(channels, num_classes),), shape), 1, shape, power)


def _of_chain(program: Sequence[Operator], layers: int, shape: Shape, power: float) -> _Noise:
    powers = [power]
    gains: list[list[float]] = []
    for operator in program:
        behind, gain = _through(operator, [powers[source] for source in operator.inputs])
        passes = 0.5 if operator.relu or operator.code == "RELU" else 1.0
        powers.append(passes * behind)
        gains.append([passes * each for each in gain])
    of_noise = [0.0] * len(program) + [1.0]  # power that comes out, of noise of power 1 in each tensor
    for place in range(len(program) - 1, -1, -1):
        for source, gain_of_source in zip(program[place].inputs, gains[place], strict=True):
            of_noise[source] += gain_of_source * of_noise[place + 1]
    found = [Layer(0, 1, 0.0)] * layers
    for place, operator in enumerate(program, start=1):
        if operator.layer is not None:
            found[operator.layer] = Layer(operator.weights, _fan_in(operator), of_noise[place] * powers[place])
    return _Noise(powers[-1], of_noise[0], tuple(found), (program[-1].shape if program else shape)[1:])


def _through(operator: Operator, powers: list[float]) -> tuple[float, list[float]]:
    """Second moment behind an operator, before its ReLU, and by what it multiplies the noise of each that it reads."""
    if operator.channels:  # a batch norm follows, or what comes out has that scale anyway
        return 1.0, [1 / powers[0]]
    if operator.code == "ADD":
        return sum(powers), [1.0] * len(powers)
    if operator.code == "MUL":
        product = math.prod(powers)
        return product, [product / each for each in powers]
    if operator.code == "LOGISTIC":
        return _SIGMOID, [_SIGMOID**2]
    if operator.code == "CONCATENATION":
        return sum(powers) / len(powers), [1 / len(powers)] * len(powers)
    return powers[0], [1.0]


def _fan_in(operator: Operator) -> int:
    """Weights that share a scale."""
    return operator.weights if operator.code == "FULLY_CONNECTED" else operator.weights // operator.channels
