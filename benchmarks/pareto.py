"""Fronts: our NSGA-II against pymoo's at the same evaluations, and how many evaluations it makes a minute.

    python benchmarks/pareto.py            # some four minutes of one core
    python benchmarks/pareto.py --quick    # small sizes: shows that it runs

Needs the extra ``pareto`` (pymoo); without it random search alone stands beside. All strategies search the space
``resnet`` at 3x32x32 for a high CET, few FLOPs and few params under 1M params, 160M FLOPs and 18 layers; an evaluation
is a network within that budget whose score is computed. pymoo's NSGA-II has its own defaults (population 100, crossover
of 90 % of the pairs, no duplicates) and our space's moves; what it proposes over the budget is drawn again and not
counted, and its first population is of random networks within the budget, or of mutants of the network that ours starts
from, whichever does better. Hypervolumes are shares of the box from CET 0 to 30 and between no cost and the budget.
Compared are the fronts of 100 networks that either hands over (of pymoo its last population, of ours 100 finalists),
and of all networks that it evaluated.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from common import Figure, Part, main

import zeroshot_nas as zs
from zeroshot_nas.core.pareto import Archive, hypervolume
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity

BUDGET = zs.Budget(params=1e6, flops=160e6, layers=18)
OBJECTIVES = ("cet", "flops", "params")
IDEAL, REFERENCE = np.array((-30.0, 0.0, 0.0)), np.array((0.0, 160e6, 1e6))
NETWORKS = 100
SEEDS = range(3)
TRIES = 100

Point = tuple[float, float, float]


def share(points: Sequence[Point]) -> float:
    """Hypervolume as a part of the box."""
    return hypervolume(points, REFERENCE) / float((REFERENCE - IDEAL).prod())


class Evaluations:
    """Counts the networks whose objectives are asked for, and keeps the front of all."""

    def __init__(self) -> None:
        self.archive: Archive[None] = Archive()
        self.count = 0
        self._score = zs.get_proxy("cet").bound_closed_form()

    def __call__(self, architecture: zs.Architecture) -> Point:
        costs = complexity(architecture)
        point = (-self._score(architecture), float(costs.flops), float(costs.params))
        self.archive.add(point, None)
        self.count += 1
        return point


def ours(searcher: str, proposals: int, seed: int, **options: Any) -> dict[str, float]:
    """A search through the one loop: its finalists, and with room for all the front of what it saw."""
    how = {"searcher": searcher, "proposals": proposals, "seed": seed, "progress": False, **options}
    start = time.process_time()
    few = zs.search("resnet", None, BUDGET, objectives=OBJECTIVES, finalists=NETWORKS, **how)
    seconds = time.process_time() - start
    everything = zs.search("resnet", None, BUDGET, objectives=OBJECTIVES, finalists=proposals, **how)
    return {
        "evaluations": few.counts.screened,
        "seconds": seconds,
        "front": share(few.front.points),
        "all": share(everything.front.points),
    }


def theirs(evaluations: int, seed: int, start: str) -> dict[str, float]:
    """pymoo's NSGA-II with the moves of our space."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.crossover import Crossover
    from pymoo.core.duplicate import ElementwiseDuplicateElimination
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.core.sampling import Sampling
    from pymoo.optimize import minimize

    space, rng, evaluate = zs.get_space("resnet"), python_rng(seed), Evaluations()

    def within(draw: Callable[[], zs.Architecture], otherwise: zs.Architecture) -> zs.Architecture:
        for _ in range(TRIES):
            network = draw()
            if not BUDGET.violations(complexity(network), network):
                return network
        return otherwise

    class Networks(ElementwiseProblem):
        def __init__(self) -> None:
            super().__init__(n_var=1, n_obj=len(OBJECTIVES))

        def _evaluate(self, x: Any, out: Any, *_: Any, **__: Any) -> None:
            out["F"] = evaluate(x[0])

    class Start(Sampling):
        def _do(self, problem: Any, n_samples: int, **_: Any) -> np.ndarray:
            rows = np.empty((n_samples, 1), dtype=object)
            grown = [space.initial()]
            for row in range(n_samples):
                if start == "random":
                    rows[row, 0] = within(lambda: space.sample(rng), space.initial())
                else:
                    rows[row, 0] = grown[-1]
                    parent = grown[int(rng.random() * len(grown))]
                    grown.append(within(lambda parent=parent: space.mutate(parent, rng, 2), parent))
            return rows

    class Cross(Crossover):
        def __init__(self) -> None:
            super().__init__(2, 2, prob=0.9)

        def _do(self, problem: Any, x: np.ndarray, **_: Any) -> np.ndarray:
            children = np.empty_like(x)
            for pair in range(x.shape[1]):
                a, b = x[0, pair, 0], x[1, pair, 0]
                children[0, pair, 0] = within(lambda a=a, b=b: space.crossover(a, b, rng), a)
                children[1, pair, 0] = within(lambda a=a, b=b: space.crossover(b, a, rng), b)
            return children

    class Mutate(Mutation):
        def _do(self, problem: Any, x: np.ndarray, **_: Any) -> np.ndarray:
            for row in x:
                row[0] = within(lambda net=row[0]: space.mutate(net, rng, 1 + (rng.random() < 0.5)), row[0])
            return x

    class Same(ElementwiseDuplicateElimination):
        def is_equal(self, a: Any, b: Any) -> bool:
            return bool(a.X[0] == b.X[0])

    algorithm = NSGA2(NETWORKS, sampling=Start(), crossover=Cross(), mutation=Mutate(), eliminate_duplicates=Same())
    begin = time.process_time()
    result = minimize(Networks(), algorithm, ("n_eval", evaluations), seed=seed)
    seconds = time.process_time() - begin
    return {
        "evaluations": evaluate.count,
        "seconds": seconds,
        "front": share(result.F),
        "all": share(evaluate.archive.points),
    }


def compare(quick: bool) -> Part:
    """Ours, pymoo's and two baselines, seed by seed; pymoo's has at least as many evaluations as ours."""
    proposals = 400 if quick else 10_000
    runs: dict[str, list[dict[str, float]]] = {}
    starts = ("random", "grown") if find_spec("pymoo") else ()
    for seed in SEEDS[:1] if quick else SEEDS:
        own = ours("nsga2", proposals, seed)
        rows = {"nsga2": own}
        rows |= {f"pymoo, {start} start": theirs(int(own["evaluations"]), seed, start) for start in starts}
        rows |= {name: ours(name, proposals, seed) for name in ("random", "regularized_evolution")}
        for name, row in rows.items():
            runs.setdefault(name, []).append(row)
    rivals = [name for name in runs if name.startswith("pymoo")]
    if not rivals:
        print("pymoo is not installed: compared with random search alone", file=sys.stderr)
        rivals = ["random"]
    rival = max(rivals, key=lambda name: statistics.median(row["front"] for row in runs[name]))
    figures = []
    for what, words in (("front", "100 networks"), ("all", "all evaluated")):
        ratios = [own[what] / other[what] for own, other in zip(runs["nsga2"], runs[rival], strict=True)]
        figures.append(Figure(f"nsga2: hypervolume of {words}, over that of {rival}", ratios, "", at_least=1))
        figures += [
            Figure(f"{name}: hypervolume of {words}", [row[what] for row in rows]) for name, rows in runs.items()
        ]
    figures += [Figure(f"{name}: evaluations", [row["evaluations"] for row in rows]) for name, rows in runs.items()]
    figures += [Figure(f"{name}: CPU seconds", [row["seconds"] for row in rows], "s") for name, rows in runs.items()]
    return Part(figures, {"runs": runs, "rival": rival, "proposals": proposals})


def speed(quick: bool) -> Part:
    """Evaluations a minute of one core's time, everything counted; regularized evolution beside it."""
    proposals = 2_000 if quick else 60_000
    runs: dict[str, list[float]] = {}
    for name in ("nsga2", "regularized_evolution"):
        for seed in SEEDS[:1] if quick else SEEDS[:2]:
            start = time.process_time()
            how = {"proposals": proposals, "islands": 1, "finalists": NETWORKS, "seed": seed, "progress": False}
            result = zs.search("resnet", None, BUDGET, searcher=name, objectives=OBJECTIVES, **how)
            runs.setdefault(name, []).append(60 * result.counts.screened / (time.process_time() - start))
    return Part(
        [
            Figure("nsga2: evaluations a minute of CPU time", runs["nsga2"], "", at_least=None if quick else 100_000),
            Figure("regularized evolution, the same objectives", runs["regularized_evolution"]),
        ],
        {"proposals": proposals},
    )


if __name__ == "__main__":
    assert __doc__ is not None
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main("pareto", {"compare": compare, "speed": speed}, __doc__)
