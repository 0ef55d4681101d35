"""What blocks come to where they stand, remembered: in a search most blocks are those of the parent."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroshot_nas.chains.lowering import Blocks

Rows: TypeAlias = NDArray[np.float64]

SLOTS_LOG2 = 16
"""A block is remembered until another one needs its slot, so that memory is bounded."""


class BlockMemo:
    """A function of blocks where they stand, worked out for those that are not remembered.

    Blocks are told apart by `Blocks.digests`, as networks are by theirs.

    Args:
        of_blocks: Some values of each block ``(blocks, values)``, whatever stands beside it.

    Example:
        >>> from zeroshot_nas.architecture.architecture import Architecture
        >>> from zeroshot_nas.chains.coding import Chains
        >>> from zeroshot_nas.chains.lowering import LOWERING
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)")
        >>> sides = BlockMemo(lambda blocks: np.stack([len(blocks) + 0 * blocks.shrunk, blocks.shrunk], axis=1))
        >>> blocks = LOWERING.blocks(Chains.of([net, net]))
        >>> sides.rows(blocks).tolist()
        [[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]
    """

    def __init__(self, of_blocks: Callable[[Blocks], Rows]) -> None:
        self.of_blocks = of_blocks
        self._digests = (np.arange(1 << SLOTS_LOG2, dtype=np.uint64) ^ np.uint64(1)) << _SHIFT  # none of its own slot
        self._rows: Rows | None = None
        self._lock = Lock()  # executors may have threads

    def rows(self, blocks: Blocks) -> Rows:
        """The values of blocks ``(blocks, values)``."""
        digests = blocks.digests
        slots = (digests >> _SHIFT).astype(np.intp)
        with self._lock:
            unknown = np.flatnonzero(self._digests[slots] != digests)
            if self._rows is None or len(unknown):
                return self._worked_out(blocks, slots, unknown)
            return self._rows[slots]

    def _worked_out(self, blocks: Blocks, slots: NDArray[np.intp], unknown: NDArray[np.intp]) -> Rows:
        """The values of blocks, of which these are unknown."""
        digests, first, inverse = np.unique(blocks.digests[unknown], return_index=True, return_inverse=True)
        new = self.of_blocks(blocks.take(unknown[first]))
        if self._rows is None:
            self._rows = np.empty((len(self._digests), new.shape[1]))
        rows = self._rows[slots]
        rows[unknown] = new[inverse]
        taken = slots[unknown[first]]
        self._digests[taken], self._rows[taken] = digests, new  # of two in one slot the last one stays, in both
        return rows


_SHIFT = np.uint64(64 - SLOTS_LOG2)
