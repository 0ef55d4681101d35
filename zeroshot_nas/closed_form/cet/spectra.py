"""Power spectra and autocovariances of random feature maps, on a torus of displacements.

A map that is stationary and, on average, the same along both axes has an autocovariance K(dx, dy) that is even in each
axis and symmetric in the two. On a torus of side 16 that leaves 45 values, those of 0 <= dx <= dy <= 8, and as many of
its power spectrum S. Arrays hold them in their last axis. K(0) is the mean of S over all 256 frequencies: the energy.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIDE = 16
"""Side of the torus."""

_REACH = SIDE // 2
_POINTS = [(dx, dy) for dx in range(_REACH + 1) for dy in range(dx, _REACH + 1)]
_PLACE = {point: place for place, point in enumerate(_POINTS)}

SIZE = len(_POINTS)
"""Values that a spectrum or an autocovariance has."""


def _images(point: tuple[int, int]) -> set[tuple[int, int]]:
    """The points of the torus that symmetry makes equal to one."""
    dx, dy = point
    return {(sx * a % SIDE, sy * b % SIDE) for a, b in ((dx, dy), (dy, dx)) for sx in (1, -1) for sy in (1, -1)}


_STEP = 2 * math.pi / SIDE
_TO_SPECTRUM = np.array(
    [
        [sum(math.cos(_STEP * wx * dx) * math.cos(_STEP * wy * dy) for dx, dy in _images(point)) for wx, wy in _POINTS]
        for point in _POINTS
    ]
)
_TO_COVARIANCE = _TO_SPECTRUM / SIDE**2

MULTIPLICITY = np.array([float(len(_images(point))) for point in _POINTS])
"""Frequencies, or displacements, that each value stands for."""

MEAN = MULTIPLICITY / SIDE**2
"""``S @ MEAN`` is the energy of a spectrum S."""

UNIT = np.ones(SIZE)
"""The transfer function of the identity."""

_TINY = 1e-300


def dots(first: Array, second: Array) -> Array:
    """Inner products of vectors along the last axes, ``(..., n)`` and ``(..., n)`` to ``(...)``.

    Each is a BLAS call of its own. So its bits depend on the two vectors alone and not on how many stand beside them,
    as they do in a product of whole arrays, which goes through blocks of rows. (OpenBLAS's kernels for processors of
    before 2008 look at the vectors' alignment as well.)

    Example:
        >>> dots(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 10.0])).tolist()
        [21.0, 43.0]
    """
    products: Array = (first[..., None, :] @ second[..., :, None])[..., 0, 0]
    return products


def times(rows: Array, matrix: Array) -> Array:
    """Row vectors ``(..., n)`` times a matrix ``(n, m)``, each in a BLAS call of its own as in `dots`."""
    products: Array = (rows[..., None, :] @ matrix)[..., 0, :]
    return products


def energies(spectra: Array) -> Array:
    """Energies ``(...)`` of power spectra ``(..., 45)``, the autocovariance at displacement 0."""
    return dots(spectra, MEAN)


def covariance(spectra: Array) -> Array:
    """Autocovariances ``(..., 45)`` of power spectra.

    Example:
        >>> covariance(UNIT)[:3].round(12).tolist()
        [1.0, 0.0, 0.0]
    """
    return times(spectra, _TO_COVARIANCE)


def spectrum(covariances: Array) -> Array:
    """Power spectra ``(..., 45)`` of autocovariances.

    Example:
        >>> bool(np.allclose(spectrum(covariance(_POOLED := transfer(3))), _POOLED))
        True
    """
    return times(covariances, _TO_SPECTRUM)


@lru_cache(maxsize=256)
def transfer(kernel_size: int) -> Array:
    """The transfer function of the mean over a square window.

    Example:
        >>> round(float(transfer(3) ** 2 @ MEAN), 4)  # the mean of nine has a ninth of the energy
        0.1111
    """
    taps = np.arange(kernel_size) - (kernel_size - 1) / 2
    axis = np.cos(_STEP * np.outer(np.arange(_REACH + 1), taps)).mean(1)
    return np.array([axis[wx] * axis[wy] for wx, wy in _POINTS])


@lru_cache(maxsize=1_024)
def window(kernel_size: int, dilation: int = 1) -> Array:
    """How often each displacement lies between two taps of a kernel, over the number of taps.

    ``rho**2 @ window(k)`` is the mean over pairs of taps of rho^2, times k^2: 1 for a white map, k^2 for a constant.

    Example:
        >>> float(window(3).sum()), float(window(3)[0])
        (9.0, 1.0)
    """
    counts = np.zeros(SIZE)
    for dx in range(1 - kernel_size, kernel_size):
        for dy in range(1 - kernel_size, kernel_size):
            counts[_folded(dx * dilation, dy * dilation)] += (kernel_size - abs(dx)) * (kernel_size - abs(dy))
    return counts / kernel_size**2


class TapLags(NamedTuple):
    """Displacements between two different taps of a kernel.

    Attributes:
        to_covariance: Takes a power spectrum to the autocovariance at each of them ``(45, n)``.
        counts: How often each lies between two taps, over the number of taps ``(n,)``.
        same: The same of displacement 0, where the correlation is 1.
    """

    to_covariance: Array
    counts: Array
    same: float


@lru_cache(maxsize=1_024)
def tap_lags(kernel_size: int, dilation: int = 1) -> TapLags:
    """The displacements of `window`, with what reads a spectrum at them alone.

    Example:
        >>> [len(tap_lags(kernel).counts) for kernel in (1, 3)]  # of a 3x3 kernel 01, 02, 11, 12 and 22
        [0, 5]
    """
    counts = window(kernel_size, dilation)
    lags = 1 + np.flatnonzero(counts[1:])
    return TapLags(np.ascontiguousarray(_TO_COVARIANCE[:, lags]), counts[lags], float(counts[0]))


@lru_cache(maxsize=1_024)
def divided_window(kernel_size: int, dilation: int, torus: int) -> tuple[float, ...]:
    """`window`, summed over displacements by the largest of 1, 2, 4, ..., ``torus`` that divides both of their sides.

    Example:
        >>> [round(9 * each) for each in divided_window(3, 1, 4)]  # of 81 pairs of taps 9 are one tap, 16 are 2 apart
        [56, 16, 9]
    """
    mass = dict.fromkeys((1 << level for level in range(torus.bit_length())), 0.0)
    for (dx, dy), weight in zip(_POINTS, window(kernel_size, dilation).tolist(), strict=True):
        mass[math.gcd(dx, dy, torus)] += weight
    return tuple(mass.values())


@lru_cache(maxsize=256)
def _strided(stride: int, tori: tuple[int, int]) -> tuple[NDArray[np.intp], Array]:
    before, after = tori
    reach = before if after * stride == before else before // 2
    places, kept = np.zeros(SIZE, np.intp), np.ones(SIZE)
    for place, (dx, dy) in enumerate(_POINTS):
        far = [stride * _around(d, after) for d in (dx, dy)]
        places[place], kept[place] = (_folded(*far), 1.0) if max(far) <= reach else (0, 0.0)
    return places, kept


def strided(covariances: Array, stride: int, tori: tuple[int, int]) -> Array:
    """Autocovariances of every ``stride``-th position.

    Args:
        covariances: ``(..., 45)``.
        stride: The step.
        tori: Sides of the torus before and behind it. Where it shrinks with the map all is known; else what lies
            further than it reaches counts as 0.
    """
    places, kept = _strided(stride, tori)
    taken: Array = covariances[..., places] * kept
    return taken


@lru_cache(maxsize=256)
def _stuffed(stride: int, torus: int) -> tuple[NDArray[np.intp], Array]:
    near = [(_around(dx, torus), _around(dy, torus)) for dx, dy in _POINTS]
    on_grid = [dx % stride == 0 and dy % stride == 0 for dx, dy in near]
    places = [_folded(dx // stride, dy // stride) if on else 0 for (dx, dy), on in zip(near, on_grid, strict=True)]
    return np.array(places, np.intp), np.array(on_grid) / stride**2


def stuffed(covariances: Array, stride: int, torus: int) -> Array:
    """Autocovariances of a map with ``stride`` - 1 zeros behind every position, per position of the larger map.

    Args:
        covariances: ``(..., 45)``.
        stride: The step.
        torus: Side of the larger map's torus.
    """
    places, kept = _stuffed(stride, torus)
    taken: Array = covariances[..., places] * kept
    return taken


@lru_cache(maxsize=1_024)
def torus_side(side: int) -> int:
    """Side of the torus that stands for a map: half the map's, a power of two, 16 at most.

    Arrays of a smaller torus are periodic.

    Example:
        >>> [torus_side(side) for side in (224, 32, 28, 8, 1)]
        [16, 16, 8, 4, 1]
    """
    return min(SIDE, 1 << max(0, side.bit_length() - 2))


@lru_cache(maxsize=8)
def white(torus: int) -> Array:
    """The spectrum of energy 1 of a map without correlation between positions, on a torus of that side.

    Example:
        >>> abs(covariance(white(8))[[0, 1, 8, -1]].round(9)).tolist()  # displacements (0, 0), (0, 1), (0, 8), (8, 8)
        [1.0, 0.0, 1.0, 1.0]
    """
    return spectrum(np.array([float(dx % torus == 0 and dy % torus == 0) for dx, dy in _POINTS]))


def effective_modes(spectra: Array) -> Array:
    """How many frequencies a spectrum spreads over: exp of its entropy, 1 to 256.

    Example:
        >>> effective_modes(np.stack([white(16), white(8)])).round(9).tolist()
        [256.0, 64.0]
    """
    positive = np.maximum(spectra, _TINY)
    shares = positive / dots(positive, MULTIPLICITY)[..., None]
    modes: Array = np.exp(-dots(shares * np.log(shares), MULTIPLICITY))
    return modes


def _around(d: int, torus: int) -> int:
    """A displacement the shorter way around a torus."""
    return min(d % torus, -d % torus)


def _folded(dx: int, dy: int) -> int:
    near = sorted(_around(d, SIDE) for d in (dx, dy))
    return _PLACE[near[0], near[1]]
