"""Transfer functions of skips and poolings in a row, as polynomials: hashable, and equal where they do the same."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from zeroshot_nas.closed_form.cet.spectra import SIZE, Array, transfer

Filter: TypeAlias = tuple[tuple[tuple[int, ...], float], ...]
"""A sum of terms: the windows of poolings in a row, sorted, and a factor."""

UNIT: Filter = (((), 1.0),)
"""The identity."""


def pooling(kernel_size: int) -> Filter:
    """The mean over a square window."""
    return (((kernel_size,), 1.0),)


@lru_cache(maxsize=16_384)
def added(first: Filter, second: Filter) -> Filter:
    """Both side by side.

    Example:
        >>> added(UNIT, added(pooling(3), UNIT))
        (((), 2.0), ((3,), 1.0))
    """
    terms = dict(first)
    for windows, factor in second:
        terms[windows] = terms.get(windows, 0.0) + factor
    return tuple(sorted(terms.items()))


@lru_cache(maxsize=16_384)
def multiplied(first: Filter, second: Filter) -> Filter:
    """One behind the other.

    Example:
        >>> multiplied(scaled(UNIT, 0.5), added(UNIT, pooling(3)))
        (((), 0.5), ((3,), 0.5))
    """
    terms: dict[tuple[int, ...], float] = {}
    for windows, factor in first:
        for others, other in second:
            both = tuple(sorted((*windows, *others)))
            terms[both] = terms.get(both, 0.0) + factor * other
    return tuple(sorted(terms.items()))


def scaled(filter_: Filter, factor: float) -> Filter:
    """A multiple of a filter."""
    return tuple((windows, factor * own) for windows, own in filter_)


@lru_cache(maxsize=4_096)
def constant(filter_: Filter) -> float | None:
    """The factor of a filter that treats all frequencies alike; None for another."""
    ((windows, factor), *more) = filter_
    return None if windows or more else factor


@lru_cache(maxsize=4_096)
def gains(filter_: Filter) -> Array:
    """The transfer function, ``(45,)``."""
    total = np.zeros(SIZE)
    for windows, factor in filter_:
        total += math.prod((transfer(window) for window in windows), start=np.full(SIZE, factor))
    return total
