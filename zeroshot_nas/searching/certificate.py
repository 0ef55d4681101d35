"""How far the best network of a search can be from the best that there is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.searching.request import Request

_BOUNDED_BY = ("params", "flops", "layers", "activations")
"""Limits that a score's upper bound reads."""


def certified(asked: Request, result: SearchResult) -> SearchResult:
    """The result with a certificate: the strategy's own, or else one by the upper bound that the score has, if any.

    The bound is on the closed form alone: of a score that draws weights, or with a reward, a strategy's own is kept.
    """
    if result.certificate is not None or asked.proxy.info.needs_weights or asked.settings.reward is not None:
        return result
    bound = asked.proxy.upper_bound(asked.space, asked.budget)
    fitness = max((each.fitness for each in result.history), default=-math.inf)
    if bound is None or math.isinf(fitness):
        return result
    best = asked.proxy.sign * fitness
    structure = asked.budget.structure.limits() if asked.budget.structure else {}
    certificate: dict[str, Any] = {
        "proxy": asked.proxy.key,
        "by": "relaxation",
        "bound": bound,
        "best": best,
        "gap": max(0.0, asked.proxy.sign * (bound - best)),
        "finished": False,
        "enumerated": {},
        "checked_whole": [name for name in (*asked.budget.limits(), *structure) if name not in _BOUNDED_BY],
    }
    return replace(result, certificate=certificate)
