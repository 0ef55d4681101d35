"""Scores that need no weights, of many architectures side by side. No torch."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.score import Score, ScoreValue
from zeroshot_nas.core.seeding import one_torch_thread, preserved_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ProxyError, ZeroShotNASError

if TYPE_CHECKING:
    from zeroshot_nas.scoring.proxy import Proxy

DEFAULT_REPEATS = 4
"""Independent draws of weights and images that a score is the mean of."""

POOL = 2_048
"""Architectures whose closed forms are computed side by side at most: what a killed run has to compute again.

CET of a benchmark's cells takes two thirds of the time that it takes in pools of 512, since more of them share more.
"""

COUNTS = ("repeats", "batch_size", "standard_error", "max_repeats")
"""Settings of `zeroshot_nas.score` that a closed form has no use for; they must be usable all the same."""


def closed_form_scores(architectures: Sequence[Architecture], proxies: Sequence[Proxy]) -> list[dict[str, Score]]:
    """Scores of many architectures by proxies that need no weights, side by side; by `Proxy.key`, in order.

    They are those of `zeroshot_nas.score` for a list of proxies, but for ``seconds``: shares of a pool's time, without
    the walk over an architecture's operations where several proxies share it.
    """
    scores: list[dict[str, Score]] = [{} for _ in architectures]
    one_thread = one_torch_thread() if "torch" in sys.modules else nullcontext()
    with preserved_rng(), one_thread, paused_garbage_collection():
        for architecture in architectures if len(proxies) > 1 else ():
            with suppress(ZeroShotNASError):  # whoever needs it will say so
                complexity(architecture)
        for proxy in proxies:
            for first in range(0, len(architectures), POOL):
                start = time.perf_counter()
                values = proxy.closed_forms(architectures[first : first + POOL])
                seconds = (time.perf_counter() - start) / len(values)
                for place, value in enumerate(values, first):
                    scores[place][proxy.key] = _exact_score(proxy.key, value, seconds)
    return scores


def _exact_score(key: str, value: float | ZeroShotNASError, seconds: float) -> Score:
    """The score that a closed form's value is."""
    if isinstance(value, ZeroShotNASError):
        return Score(key, math.nan, None, 0, seconds, "failed", str(value))
    if not math.isfinite(value):
        return Score(key, math.nan, None, 0, seconds, "failed", f"{key} is not finite ({value})")
    details = value.details if isinstance(value, ScoreValue) else {}
    return Score(key, float(value), 0.0, 1, seconds, details={name: float(part) for name, part in details.items()})


def check_repeats(
    *,
    repeats: int = DEFAULT_REPEATS,
    batch_size: int | None = None,
    standard_error: float | None = None,
    max_repeats: int = 64,
) -> None:
    """Refuses what is no number of repeats or images; the arguments and defaults are `score`'s.

    Raises:
        ProxyError: A count is no whole number of 1 or more, or the standard error not above 0.
    """
    counts = {"repeats": repeats, "batch_size": 1 if batch_size is None else batch_size, "max_repeats": max_repeats}
    check_counts(1, ProxyError, **counts)
    if standard_error is not None and not standard_error > 0:
        raise ProxyError(f"standard_error must be above 0, got {standard_error!r}")
