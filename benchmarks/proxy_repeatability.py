"""How far each proxy agrees with itself: one draw of weights and images against another, on random networks.

    python benchmarks/proxy_repeatability.py             # 100 networks, ten seeds; about six minutes on one core
    python benchmarks/proxy_repeatability.py --quick     # eight networks, two seeds: shows that it runs

A proxy whose ranking changes with the seed can't tell networks apart, whatever it correlates with. Every proxy that
runs the network (those that are a function of the architecture alone always agree with themselves) scores each network
once a seed, with its own batch size and one repeat. Spearman's and Kendall's correlation are means over all pairs of
seeds, among networks that have a score in both. Networks are drawn from the ``resnet`` space at 3x16x16 until they have
at most 200,000 parameters and 14 layers. Torch runs on one thread.

Milliseconds are those of a call of ``score`` with one proxy, the median over the first 20 networks; all proxies in one
call share passes, and cost less. Results go to
``benchmarks/results/proxy_repeatability.json``, a table to the screen.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

from common import Figure, Part, main, seconds_of
from scipy.stats import kendalltau, spearmanr

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.scoring.proxy import PROXIES

BUDGET = zs.Budget(params=200e3, layers=14)
TIMED = 20
"""Networks on which each proxy is timed alone."""


def proxies() -> list[str]:
    """Proxies whose score depends on the draw of weights or images."""
    infos = [PROXIES[name] for name in zs.list_proxies()]
    return [info.name for info in infos if info.function is not None and not info.exact and not info.parts]


def repeatability(quick: bool) -> Part:
    """Rank correlation of every proxy between seeds."""
    count, seeds = (8, 2) if quick else (100, 10)
    networks, names = _networks(count), proxies()
    milliseconds = _milliseconds(networks[: 2 if quick else TIMED], names)
    scores = [[zs.score(each, names, repeats=1, seed=seed) for each in networks] for seed in range(seeds)]
    rows = {
        name: {**_row([[score[name] for score in one_seed] for one_seed in scores]), "milliseconds": milliseconds[name]}
        for name in names
    }
    calls = [1e3 * sum(score.seconds for score in each.values()) for one_seed in scores for each in one_seed]
    figures = [Figure(f"all {len(names)} proxies in one call, mean", [statistics.fmean(calls)], "ms")]
    for name, row in rows.items():
        figures += [
            Figure(f"{name}: Spearman between seeds, mean", [row["spearman"]]),
            Figure(f"{name}: Kendall between seeds, mean", [row["kendall"]]),
            Figure(f"{name}: failed scores of {count * seeds}", [row["failures"]]),
            Figure(f"{name}: one network, alone", [row["milliseconds"]], "ms"),
        ]
    sizes = {name: [getattr(zs.cost(each), name) for each in networks] for name in ("params", "flops", "layers")}
    details = {
        "networks": {
            name: {"least": min(all_), "median": statistics.median(all_), "most": max(all_)}
            for name, all_ in sizes.items()
        },
        "batch sizes": {name: PROXIES[name].batch_size for name in names},
        "proxies": rows,
    }
    return Part(figures, details)


def _networks(count: int) -> list[zs.Architecture]:
    """Random networks within the budget, no two of them equal."""
    space, rng = zs.get_space("resnet", input_size=(3, 16, 16)), python_rng(0)
    networks: dict[str, zs.Architecture] = {}
    while len(networks) < count:
        network = space.sample(rng)
        if not BUDGET.violations(zs.cost(network), network):
            networks[network.to_string()] = network
    return list(networks.values())


def _row(scores: Sequence[Sequence[zs.Score]]) -> dict[str, Any]:
    """Agreement between seeds of one proxy, whose scores are given by seed and network."""
    pairs = [_correlations(a, b) for a, b in combinations(scores, 2)]
    reasons = Counter(score.reason for one_seed in scores for score in one_seed if not score.ok)
    return {
        "spearman": statistics.fmean(spearman for spearman, _ in pairs),
        "spearman, least": min(spearman for spearman, _ in pairs),
        "kendall": statistics.fmean(kendall for _, kendall in pairs),
        "failures": reasons.total(),
        "reasons, most common": dict(reasons.most_common(3)),
    }


def _correlations(a: Sequence[zs.Score], b: Sequence[zs.Score]) -> tuple[float, float]:
    """Spearman's and Kendall's, among networks scored by both; 0 where fewer than two are, or all are equal."""
    both = [(x.value, y.value) for x, y in zip(a, b, strict=True) if x.ok and y.ok]
    firsts, seconds = {x for x, _ in both}, {y for _, y in both}
    if len(firsts) < 2 or len(seconds) < 2:
        return 0.0, 0.0
    x, y = zip(*both, strict=True)
    return float(spearmanr(x, y).statistic), float(kendalltau(x, y).statistic)


def _milliseconds(networks: Sequence[zs.Architecture], names: Sequence[str]) -> Mapping[str, float]:
    """Of a call with one proxy, the median over networks."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        zs.score(networks[0], name, repeats=1)  # the first call in a process is slow
    for network in networks:
        for name in names:
            times[name].append(1e3 * seconds_of(partial(zs.score, network, name, repeats=1)))
    return {name: statistics.median(each) for name, each in times.items()}


if __name__ == "__main__":
    assert __doc__ is not None
    main("proxy_repeatability", {"repeatability": repeatability}, __doc__)
