"""What passes through a unit of a chain without its widths: energies, and combs of gradients. Plain numbers, memoised.

Without pooling all forward maps are white: independent from position to position. A gradient, which starts constant at
the global pooling, is white noise plus *combs*: parts that are equal at all positions that are p apart,

    K(d) = b [d = 0] + sum of a_p over the p that divide d,    p = 1, 2, 4, ...

ReLU takes (b, a) to (b/2 + sum(a)/4, a/4), a stride of 2 spreads a_p to a_2p. These are the rules of
`zeroshot_nas.closed_form.cet.propagation` for such maps (`tests/closed_form/cet/test_chain.py` holds the two together).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from zeroshot_nas.architecture.ops import Conv, Resolution, Shape
from zeroshot_nas.chains.lowering import UnitKind
from zeroshot_nas.closed_form.cet.propagation import CENTRED
from zeroshot_nas.closed_form.cet.spectra import divided_window, torus_side
from zeroshot_nas.closed_form.cet.tracing import reached_kernel

Combs: TypeAlias = tuple[float, ...]
"""a_1, a_2, a_4, ... as parts of the energy; the rest of it is white."""


class Place(NamedTuple):
    """A convolution where it stands, without its widths.

    Attributes:
        kernel: Taps along an axis that one input position meets.
        stride: Its stride.
        dilation: Its dilation.
        tori: Sides of the torus before and behind it.
        rank: Independent taps of its patches of white maps.
        positions: Output positions.
    """

    kernel: int
    stride: int
    dilation: int
    tori: tuple[int, int]
    rank: float
    positions: int


class Forward(NamedTuple):
    """A signal that passed a unit.

    Attributes:
        energy: Its energy behind it.
        linear: Energy of its part that is linear in the image, over that of the tensor that enters.
        shares: Squared shares of body and shortcut in the sum's energy.
        entered: Energy that enters each convolution of the body, and the shortcut's.
    """

    energy: float
    linear: float
    shares: tuple[float, float]
    entered: tuple[float, ...]


class Backward(NamedTuple):
    """A gradient that passed a unit.

    Attributes:
        energy: Its energy before it, over that behind it.
        combs: Its combs before it.
        shares: Squared shares of body and shortcut in the sum's energy.
        dilutions: All positions over the effective ones of the gradient that reaches each convolution.
        taps: Mean of squared correlations over pairs of each one's taps.
    """

    energy: float
    combs: Combs
    shares: tuple[float, float]
    dilutions: tuple[float, ...]
    taps: tuple[float, ...]


def constant_combs(shape: Shape) -> Combs:
    """The combs of a map that is the same at all positions."""
    levels = torus_side(min(shape[1:])).bit_length() - 1
    return (1.0, *[0.0] * (levels - 1)) if levels else ()


@lru_cache(maxsize=4_096)
def places(unit: UnitKind, resolution: Resolution) -> tuple[Place, ...]:
    """The convolutions of a unit's body where they stand, and the shortcut's, if there is one, last."""
    found, before = list[Place](), resolution
    for kernel_size, stride, dilation, *_ in unit.body:
        place, before = _place(kernel_size, stride, dilation, before)
        found.append(place)
    if unit.shortcut is not None:
        found.append(_place(*unit.shortcut[:3], resolution)[0])
    return tuple(found)


@lru_cache(maxsize=4_096)
def _place(kernel_size: int, stride: int, dilation: int, resolution: Resolution) -> tuple[Place, Resolution]:
    conv = Conv(1, 1, kernel_size, stride, dilation=dilation)
    after = conv.output_shape((1, *resolution))[1:]
    torus, kernel = torus_side(min(resolution)), reached_kernel(conv, min(resolution))
    rank = kernel**2 / divided_window(kernel, dilation, torus)[-1]
    back = max(1, round(kernel / stride))
    return Place(back, stride, dilation, (torus, torus_side(min(after))), rank, after[0] * after[1]), after


def pass_forward(unit: UnitKind, energy: float) -> Forward:
    """A signal of that energy passes a unit."""
    body, linear = energy, 1.0
    entered = list[float]()
    for *_, rectified in unit.body:
        # the spectrum of a white map stays white: of the general rule for ReLUs its energy is left
        body, linear = (body * CENTRED, linear / 4) if rectified else (body, linear)
        entered.append(body)
        body, linear = 1.0, linear / body
    shares = (1.0, 0.0)
    if unit.is_fork:
        projects = unit.shortcut is not None
        entered += [energy] if projects else []
        side = 1.0 if projects else energy
        linear += 1 / energy if projects else 1.0
        total = body + side
        shares, body = ((body / total) ** 2, (side / total) ** 2), total
    if unit.rectified:
        body, linear = body * CENTRED, linear / 4
    return Forward(body, linear, shares, tuple(entered))


def pass_back(unit: UnitKind, convs: Sequence[Place], entered: Sequence[float], combs: Combs) -> Backward:
    """A gradient with these combs passes a unit, whose forward pass is given by the energies that entered."""
    came = (1.0, combs)
    if unit.rectified:  # a quarter passes coherently; the mask's fluctuations make as much white noise
        came = (0.5, _halved(combs))
    energy, combs = came
    seen = list[tuple[float, float]]()
    for index in reversed(range(len(unit.body))):
        place = convs[index]
        dilution, taps, combs = _convolved(place.kernel, place.stride, place.dilation, place.tori, combs)
        seen.append((dilution, taps))
        energy /= entered[index] * place.stride**2
        if unit.body[index][-1]:
            energy, combs = energy / 2, _halved(combs)
    seen.reverse()
    shares = (1.0, 0.0)
    if unit.is_fork:
        side, side_combs = came
        if unit.shortcut is not None:
            place = convs[-1]
            dilution, taps, side_combs = _convolved(place.kernel, place.stride, place.dilation, place.tori, side_combs)
            seen.append((dilution, taps))
            side /= entered[-1] * place.stride**2
        total = energy + side
        first, second = energy / total, side / total
        combs = tuple([first * a + second * b for a, b in zip(combs, side_combs, strict=True)])
        energy, shares = total, (first**2, second**2)
    dilutions, taps_of = zip(*seen, strict=True)
    return Backward(energy, combs, shares, dilutions, taps_of)


@lru_cache(maxsize=32_768)
def _halved(combs: Combs) -> Combs:
    return tuple([each / 2 for each in combs])


@lru_cache(maxsize=32_768)
def _convolved(
    kernel: int, stride: int, dilation: int, tori: tuple[int, int], combs: Combs
) -> tuple[float, float, Combs]:
    """Combs that pass back through a convolution, whatever its widths.

    Returns:
        All positions over the effective ones of the gradient that reaches it; the mean of squared correlations over
        pairs of taps; the combs that it passes on.
    """
    mass = divided_window(kernel, dilation, tori[1])
    taps, rho = mass[-1], 0.0
    for weight, comb in zip(mass, combs, strict=False):
        rho += comb
        taps += weight * rho**2
    levels = tori[0].bit_length() - 1  # a comb too wide for the torus is white
    spread = (0.0, *combs)[:levels] if stride > 1 else combs
    return 1 / _effective_share(combs), taps / kernel**2, spread


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
