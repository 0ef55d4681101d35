"""Which score orders networks of one budget? The field's proxies and ours on VCN-Bench, whose networks are trained.

    python benchmarks/vcn_proxies.py            # some twenty minutes of one core, less where it ran before
    python benchmarks/vcn_proxies.py --quick    # 16 networks, few proxies: shows that it runs

Populations are VCN-Bench's networks of a budget that were trained by its short protocol. On 48 of budget A the form of
``ceres`` was chosen (`ceres.DEVELOPMENT`), so it is judged by the others: ``A held out``, and of these the random
networks and the best third. All others' scores were chosen elsewhere. Each proxy scores four draws of weights and
images (seed 0), higher is better whatever its own direction. Nobody says that fewer layers are better, but at these
budgets they are, so that is a baseline too. Intervals, of 95 %, are of a bootstrap over networks; so is that of a
difference.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from ceres import DEVELOPMENT
from common import RESULTS, Figure, Part, main, read_runs
from numpy.typing import NDArray

import zeroshot_nas as zs
from zeroshot_nas.nasbench.agreement import kendall
from zeroshot_nas.nasbench.equal_budget import regret_under
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY, get_proxy

OURS = ("ceres", DEFAULT_SEARCH_PROXY, "cet")
FIELD = ("zen", "az_nas", "naswot", "synflow", "snip", "grasp", "zico", "swap", "vkdnw", "meco", "te_nas", "jacob_cov")
BASELINES = ("params", "flops", "layers")
FEWEST = "fewest layers"
LENGTH = "images=20000:steps=3750"
"""Of the training that VCN-Bench's networks had."""

CACHE = Path(".cache/vcn_proxies.db")
"""Scores of networks that were there the last time."""

QUICK, RESAMPLES, LEVEL = 16, 1_000, 0.95


@dataclass(frozen=True)
class Population:
    """Trained networks with what scores make of them.

    Attributes:
        names: As VCN-Bench has them.
        accuracy: Test accuracies in percent, means over trainings.
        scores: By proxy, the higher the better; NaN where there is none.
    """

    names: Sequence[str]
    accuracy: NDArray[np.float64]
    scores: dict[str, NDArray[np.float64]]

    def take(self, places: Sequence[int]) -> Population:
        """Some of the networks."""
        chosen = list(places)
        scores = {proxy: values[chosen] for proxy, values in self.scores.items()}
        return Population([self.names[place] for place in chosen], self.accuracy[chosen], scores)


@cache
def population(budget: str, quick: bool) -> Population:
    """All networks of a budget that were trained, scored."""
    runs: dict[str, list[float]] = defaultdict(list)
    texts: dict[str, str] = {}
    for line in read_runs(RESULTS / "vcn_bench.jsonl"):
        if (line["budget"], line["protocol"]) == (budget, "short"):
            runs[line["name"]].append(100 * line["test_accuracy"])
            texts[line["name"]] = line["architecture"]
    names = sorted(runs)[:: max(1, len(runs) // QUICK)] if quick else sorted(runs)
    accuracy = {texts[name]: statistics.mean(runs[name]) for name in names}
    table = zs.BenchmarkTable(
        name="VCN-Bench", space="vanilla", dataset="cifar10", rows=list(accuracy), accuracy=list(accuracy.values())
    )
    proxies = [f"ceres:{LENGTH}", *OURS, *(FIELD[:2] if quick else FIELD), *BASELINES]
    found = zs.correlate(proxies, table, repeats=1 if quick else 4, progress=False, cache=None if quick else CACHE)
    assert list(found.rows) == [texts[name] for name in names], "a table keeps its order"
    scores = {key: ranked(key, values) for key, values in found.scores.items()}
    return Population(names, np.array(found.accuracy), scores | {FEWEST: -scores["layers"]})


def ranked(key: str, values: Sequence[float | None]) -> NDArray[np.float64]:
    """Scores of which the higher is the better; that of a network that has none is no number, the worst of all."""
    sign = get_proxy(key).sign
    return np.array([np.nan if value is None else sign * value for value in values])


def held_out(all_: Population) -> Population:
    """Those that ``ceres`` was not chosen on."""
    return all_.take([place for place, name in enumerate(all_.names) if name not in DEVELOPMENT])


def random_ones(all_: Population) -> Population:
    """Those that were drawn, neither made by hand nor found."""
    return all_.take([place for place, name in enumerate(all_.names) if "-random-" in name])


def best_third(all_: Population) -> Population:
    """Those that train best."""
    order = np.argsort(-all_.accuracy, kind="stable")
    return all_.take([int(place) for place in order[: max(3, len(order) // 3)]])


def part(budget: str, choose: Callable[[Population], Population], quick: bool) -> Part:
    """How each score orders a population, and how far the score of searches is ahead of it."""
    chosen = choose(population(budget, quick))
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(chosen.names), size=len(chosen.names)) for _ in range(40 if quick else RESAMPLES)]
    taus = {key: tau(values, chosen.accuracy) for key, values in chosen.scores.items()}
    resampled = {
        key: np.array([tau(values[draw], chosen.accuracy[draw]) for draw in draws])
        for key, values in chosen.scores.items()
    }
    ours = f"ceres:{LENGTH}"
    rows: dict[str, dict[str, Any]] = {
        key: {
            "tau": taus[key],
            "interval": interval(resampled[key]),
            "behind ceres": taus[ours] - taus[key],
            "interval of that": interval(resampled[ours] - resampled[key]),
            "regret": regret(chosen.scores[key], chosen.accuracy, 1),
            "regret of five": regret(chosen.scores[key], chosen.accuracy, 5),
            "failed": int(np.isnan(chosen.scores[key]).sum()),
        }
        for key in sorted(taus, key=lambda key: -taus[key])
    }
    best = max((key for key in taus if key in (*FIELD, *BASELINES)), key=taus.__getitem__)
    figures = [
        Figure(f"{ours}: tau", [taus[ours]], at_least=0.45),
        Figure(f"{ours} over {best}, the best of the field's and of sizes", [taus[ours] - taus[best]], at_least=0.15),
        Figure(f"{ours} over {FEWEST}", [taus[ours] - taus[FEWEST]]),
        Figure(f"{ours}: regret of the first choice", [rows[ours]["regret"]], "points"),
        *(Figure(f"{key}: tau", [value]) for key, value in taus.items() if key != ours),
    ]
    return Part(figures, {"networks": len(chosen.names), "scores": rows})


def tau(scores: NDArray[np.float64], accuracy: NDArray[np.float64]) -> float:
    """Kendall's tau-b; that of scores which are all the same is 0."""
    found = kendall(scores, accuracy)
    return 0.0 if np.isnan(found) else found


def regret(scores: NDArray[np.float64], accuracy: NDArray[np.float64], k: int) -> float:
    """Points that the best of a score's first k choices lacks to the best network; ties are broken in every way."""
    return float(regret_under(scores, accuracy, np.ones(len(scores)), [1], k)[0])


def interval(values: NDArray[np.float64]) -> list[float]:
    """The middle of resampled values, `LEVEL` of them."""
    edges: Any = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(edge) for edge in edges]


PARTS: dict[str, Callable[[bool], Part]] = {
    "A held out": partial(part, "A", held_out),
    "A held out, random": partial(part, "A", lambda all_: random_ones(held_out(all_))),
    "A held out, best third": partial(part, "A", lambda all_: best_third(held_out(all_))),
    "A": partial(part, "A", lambda all_: all_),
    "B": partial(part, "B", lambda all_: all_),
}


if __name__ == "__main__":
    assert __doc__ is not None
    main("vcn_proxies", PARTS, __doc__)
