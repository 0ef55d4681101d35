"""Changes of many chains at once: a block more, a block less, another width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.chains.coding import Codes
from zeroshot_nas.chains.lowering import Index

Mask: TypeAlias = NDArray[np.bool_]


def lengths(codes: Codes) -> Index:
    """Blocks of each network."""
    return np.count_nonzero(codes, axis=1)


def inserted(codes: Codes, rows: Index, places: Index, blocks: Codes) -> Codes:
    """Codes with a block more in some rows, each at its place.

    Example:
        >>> inserted(np.array([[1, 2], [3, 0]]), np.array([0]), np.array([1]), np.array([9])).tolist()
        [[1, 9, 2], [3, 0, 0]]
    """
    if not len(rows):
        return codes
    if codes[rows, -1].any():
        codes = np.pad(codes, ((0, 0), (0, 1)))
    place = np.arange(codes.shape[1])
    moved = codes[rows[:, None], place - (place > places[:, None])]
    moved[np.arange(len(rows)), places] = blocks
    codes[rows] = moved
    return codes


def removed(codes: Codes, rows: Index, places: Index) -> Codes:
    """Codes with a block less in some rows.

    Example:
        >>> removed(np.array([[1, 2, 3], [4, 5, 0]]), np.array([1, 0]), np.array([0, 1])).tolist()
        [[1, 3, 0], [5, 0, 0]]
    """
    if not len(rows):
        return codes
    padded = np.pad(codes[rows], ((0, 0), (0, 1)))
    place = np.arange(codes.shape[1])
    codes[rows] = padded[np.arange(len(rows))[:, None], place + (place >= places[:, None])]
    return codes


def stacked(first: Codes, second: Codes) -> Codes:
    """Rows of codes and others behind them, padded to one width."""
    width = max(first.shape[1], second.shape[1])
    return np.concatenate([np.pad(codes, ((0, 0), (0, width - codes.shape[1]))) for codes in (first, second)])


def drawn(options: Sequence[Any] | NDArray[Any], size: int, rng: np.random.Generator) -> NDArray[Any]:
    """One of the options for each of so many, evenly."""
    return np.asarray(options)[(rng.random(size) * len(options)).astype(np.intp)]


def drawn_place(mask: Mask, rng: np.random.Generator) -> Index:
    """In each row a place where the mask is true, evenly; 0 in a row where it never is."""
    chosen = (rng.random(len(mask)) * np.count_nonzero(mask, axis=1)).astype(np.intp)
    return np.argmax(np.cumsum(mask, axis=1) > chosen[:, None], axis=1)
