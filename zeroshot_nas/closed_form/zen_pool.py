"""Zen-score in closed form, of many chains side by side: a block is worked out once where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.chains.coding import Chains, decoded
from zeroshot_nas.chains.lowering import LOWERING, NONE, Blocks
from zeroshot_nas.chains.memo import BlockMemo, Rows
from zeroshot_nas.closed_form.zen import VARIANTS, Variant, block_term, log_distance, zen_closed_form
from zeroshot_nas.core.score import value_or_error
from zeroshot_nas.errors import ZeroShotNASError


def zen_closed_form_pool(
    architectures: Sequence[Architecture], *, variant: Variant = "paper", alpha: float = 0.01
) -> list[float | ZeroShotNASError]:
    """`zen_closed_form` of many architectures, to the last bit; side by side where they are the rows of `Chains`.

    Returns:
        For each architecture, in order, its score, or the error that `zen_closed_form` raises.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,1)", (3, 16, 16))
        >>> zen_closed_form_pool(Chains.of([net, net])) == 2 * [zen_closed_form(net)]
        True
    """
    alone = partial(zen_closed_form, variant=variant, alpha=alpha)
    if not isinstance(architectures, Chains) or variant not in VARIANTS:
        return [value_or_error(alone, each) for each in architectures]
    blocks, count = LOWERING.blocks(architectures), len(architectures)
    rows = _TERMS.rows(blocks)
    deviations = np.bincount(blocks.net, rows[:, int(variant == "zennas")], count).tolist()
    rectifiers = np.bincount(blocks.net, rows[:, 2], count).tolist()
    ends = np.flatnonzero(np.diff(blocks.net, append=count))  # each network's last block
    height, width = (-(-side // blocks.stride[ends]) for side in (each[ends] for each in blocks.sides))
    positions = (blocks.channels[ends, 1] * height * width).tolist()

    def score(place: int) -> float:
        if not rectifiers[place] > 0:  # none, or not known
            return alone(architectures[place])
        distance = log_distance(int(rectifiers[place]), positions[place], alpha, variant == "paper")
        return float(deviations[place] + distance)

    return [value_or_error(score, place) for place in range(count)]


def _terms_of(blocks: Blocks) -> Rows:
    """Both sums of log deviations, and ReLUs; not a number where a block has no kind and may have no rule."""
    rows = np.full((len(blocks), 3), np.nan)
    known = np.flatnonzero((blocks.first != NONE) & (blocks.following != NONE))
    columns = (blocks.code, blocks.channels[:, 0], *blocks.sides, blocks.is_first)
    for place, code, in_channels, height, width, is_first in zip(
        known, *(column[known].tolist() for column in columns), strict=True
    ):
        rows[place] = block_term(decoded(code), in_channels, (height, width), not is_first)[:3]
    return rows


_TERMS = BlockMemo(_terms_of)
