"""One run of one strategy by a closed form, measured; `strategies.py` starts it. It loads no torch.

python benchmarks/one_strategy.py '{"space": "resnet", "proxy": "cet", "budget": {"params": 1e6, "layers": 18},
    "searcher": "gradient", "seed": 0, "proposals": 20000}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from time import process_time
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.scoring.proxy import get_proxy
from zeroshot_nas.searchers.base import SEARCHERS, Problem
from zeroshot_nas.searching.proposer import Proposer
from zeroshot_nas.searching.start import starting_point
from zeroshot_nas.spaces.base import get_space


class Counting:
    """A closed form that counts how often it is computed; a network that was computed before is not counted again."""

    def __init__(self, proxy: str) -> None:
        self.proxy = get_proxy(proxy)
        self.values: dict[Architecture, float | ZeroShotNASError] = {}

    def __call__(self, architecture: Architecture) -> float:
        (value,) = self.pool([architecture])
        if isinstance(value, ZeroShotNASError):
            raise value
        return value

    def pool(self, architectures: Sequence[Architecture]) -> list[float | ZeroShotNASError]:
        new = [each for each in dict.fromkeys(architectures) if each not in self.values]
        self.values.update(zip(new, self.proxy.closed_forms(new) if new else [], strict=True))
        return [self.values[each] for each in architectures]


def run(
    space: str,
    proxy: str,
    budget: dict[str, float],
    searcher: str,
    seed: int,
    proposals: int,
    options: dict[str, Any] | None = None,
    space_options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The best score, what it took, and the way there: evaluations and best score at every improvement."""
    where, limits, scored_by = get_space(space, **(space_options or {})), Budget(**budget), get_proxy(proxy)
    counting = Counting(proxy)
    start = process_time()
    strategy = SEARCHERS[searcher](where, python_rng(seed, 0), starting_point(where, limits, None), **(options or {}))
    block_sum = scored_by.block_sum_or_error()
    how: dict[str, Any] = {"proposals": proposals, "block_sum": block_sum, "closed_form_pool": counting.pool}
    problem = Problem(limits, scored_by.key, counting, scored_by.sign, **how)
    proposer = Proposer(strategy, problem)
    way: list[tuple[int, float, float]] = []
    best = None
    with paused_garbage_collection():
        for candidates in proposer.batches(proposals, strategy.generation):
            before, told = len(counting.values), []
            values = counting.pool([candidate.architecture for candidate in candidates])
            for place, (candidate, value) in enumerate(zip(candidates, values, strict=True), start=1):
                if isinstance(value, ZeroShotNASError):
                    continue
                told.append(candidate.with_fitness(scored_by.sign * value))
                if not way or told[-1].fitness > way[-1][1]:
                    seen = min(before + place, len(counting.values))
                    way.append((seen, told[-1].fitness, round(process_time() - start, 3)))
                    best = candidate.architecture
            proposer.tell(told)
    assert best is not None, "a strategy proposes something that fits"
    return {
        "best": way[-1][1],
        "architecture": where.to_string(best),
        "evaluations": len(counting.values),
        **proposer.counts,
        "cpu_seconds": round(process_time() - start, 2),
        "certificate": strategy.certificate,
        "way": way,
    }


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
