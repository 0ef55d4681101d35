"""Islands: one population, several that do not speak, and several that exchange elites, at the same proposals.

    python benchmarks/islands.py            # some fifteen minutes of one core; `time` wants two that are idle
    python benchmarks/islands.py --quick    # small sizes: shows that it runs

Best closed forms of searches by `zeroshot_nas.search`, ten seeds each; of ``time`` the wall time with two worker
processes, which both have begun, against one process, in turns.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import Executor

from common import Figure, Part, main

import zeroshot_nas as zs
from zeroshot_nas.execution import get_executor

SETTINGS = (
    ("resnet", "zen:variant=zennas", zs.Budget(params=1e6, layers=18)),
    ("resnet", "ceres", zs.Budget(params=1e5, flops=4e6, layers=20)),
    ("mobilenet", "cet", zs.Budget(params=1e6, flops=160e6, layers=18)),
)

ISLANDS = {"one": (1, 0), "four that do not speak": (4, 0), "four that exchange elites": (4, None)}
"""Islands, and how often they exchange; None is the default."""

TIMES = 5


def best(space: str, proxy: str, budget: zs.Budget, islands: str, seed: int, proposals: int) -> float:
    """The fitness that a search ends with."""
    count, exchanges = ISLANDS[islands]
    return search(space, proxy, budget, count, exchanges, seed, proposals, "serial").best.fitness


def search(
    space: str,
    proxy: str,
    budget: zs.Budget,
    islands: int,
    exchanges: int | None,
    seed: int,
    proposals: int,
    executor: str | Executor,
) -> zs.SearchResult:
    how = {"seed": seed, "proposals": proposals, "finalists": 5, "executor": executor, "progress": False}
    return zs.search(space, proxy, budget, islands=islands, exchanges=exchanges, **how)


def quality(quick: bool) -> Part:
    """Best scores by islands, and how many seeds of ten are better than those of one population."""
    seeds, proposals = (2, 4_000) if quick else (10, 100_000)
    figures, rows = [], []
    for space, proxy, budget in SETTINGS:
        found = {
            islands: [best(space, proxy, budget, islands, seed, proposals) for seed in range(seeds)]
            for islands in ISLANDS
        }
        one = statistics.median(found["one"])
        for islands, scores in found.items():
            shares = [100 * score / one for score in scores]
            target = 100.0 if islands == "four that exchange elites" else None
            figures.append(Figure(f"{space}, {proxy}: {islands}", shares, "% of one's median", at_least=target))
            rows.append({"space": space, "proxy": proxy, "islands": islands, "best": scores})
    return Part(figures, {"proposals": proposals, "rows": rows})


def two_cores(quick: bool) -> Part:
    """How many times faster two processes are than one."""
    space, proxy, budget = SETTINGS[-1]
    proposals = 4_000 if quick else 100_000
    ratios = []
    with get_executor("process", workers=2) as both:
        search(space, proxy, budget, 4, None, 0, 1_000, both)  # the workers import what they need
        for seed in range(1 if quick else TIMES):
            seconds = []
            for executor in ("serial", both):
                start = time.perf_counter()
                search(space, proxy, budget, 4, None, seed, proposals, executor)
                seconds.append(time.perf_counter() - start)
            ratios.append(seconds[0] / seconds[1])
    return Part([Figure("four islands: two processes against one", ratios, "times", at_least=1.5)])


if __name__ == "__main__":
    main("islands", {"quality": quality, "time": two_cores}, __doc__ or "")
