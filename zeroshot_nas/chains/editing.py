"""Changes of many chains at once: a block more, a block less, another width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.chains.coding import Chains, Codes, stacked
from zeroshot_nas.chains.lowering import Index

Mask: TypeAlias = NDArray[np.bool_]
Draws: TypeAlias = NDArray[np.float64]

DRAWS = 6
"""Numbers from 0 to 1 that decide a mutation."""


def lengths(codes: Codes) -> Index:
    """Blocks of each network."""
    counts: Index = np.count_nonzero(codes, axis=1)
    return counts


def inserted(codes: Codes, rows: Index, places: Index, blocks: Codes) -> Codes:
    """Codes with a block more in some rows, each at its place.

    Example:
        >>> inserted(np.array([[1, 2], [3, 0]]), np.array([0]), np.array([1]), np.array([9])).tolist()
        [[1, 9, 2], [3, 0, 0]]
    """
    if not len(rows):
        return codes
    if codes[rows, -1].any():
        codes = stacked(codes, np.zeros((0, codes.shape[1] + 1), np.int64))
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
    padded = stacked(codes[rows], np.zeros((0, codes.shape[1] + 1), np.int64))
    place = np.arange(codes.shape[1])
    codes[rows] = padded[np.arange(len(rows))[:, None], place + (place >= places[:, None])]
    return codes


def drawn(options: Sequence[Any] | NDArray[Any], draws: Draws) -> NDArray[Any]:
    """One of the options for each draw, evenly.

    Example:
        >>> drawn((5, 6, 7), np.array([0.1, 0.9])).tolist()
        [5, 7]
    """
    return np.asarray(options)[(draws * len(options)).astype(np.intp)]


def drawn_place(mask: Mask, draws: Draws) -> Index:
    """In each row a place where the mask is true, evenly; 0 in a row where it never is."""
    chosen = (draws * np.count_nonzero(mask, axis=1)).astype(np.intp)
    places: Index = np.argmax(np.cumsum(mask, axis=1) > chosen[:, None], axis=1)
    return places


@dataclass(frozen=True, eq=False)
class Mutants(Sequence[Architecture]):
    """Networks that are mutants of others, made when the first is asked for: those of several callers in one go.

    Attributes:
        parents: The others.
        mutations: How many times each one is changed.
        seeds: What each one's draws follow from.
        move: Makes them, each by its seed alone.
    """

    parents: Chains
    mutations: Index
    seeds: Sequence[int]
    move: Callable[[Chains, Index, Sequence[int]], Chains]

    def __len__(self) -> int:
        return len(self.parents)

    @overload
    def __getitem__(self, place: int) -> Architecture: ...
    @overload
    def __getitem__(self, place: slice) -> Chains: ...
    def __getitem__(self, place: int | slice) -> Architecture | Chains:
        return self.made[place]

    @cached_property
    def made(self) -> Chains:
        """The networks."""
        return self.move(self.parents, self.mutations, self.seeds)

    def joined(self, others: Mutants) -> Mutants:
        """These and others behind them."""
        mutations = np.concatenate([self.mutations, others.mutations])
        return Mutants(self.parents.joined(others.parents), mutations, [*self.seeds, *others.seeds], self.move)
