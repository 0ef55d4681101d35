"""What a search that is not at its end has found so far, as a result; another process may be at it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.score import Score
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.reward import as_reward
from zeroshot_nas.errors import UndefinedScoreError, UnknownNameError
from zeroshot_nas.runs.inspect import ranking_scores, scores_by
from zeroshot_nas.runs.store import Entry, Store
from zeroshot_nas.scoring.proxy import Proxy, ProxyInfo
from zeroshot_nas.searchers.base import Candidate, Counts, SearchResult
from zeroshot_nas.searching.screening import Island, join_trajectories

_KEPT = 200


def search_so_far(store: Store, settings: Mapping[str, Any], journal: Sequence[Entry]) -> SearchResult | None:
    """The result so far: what is scored, and the legs of islands that are finished; None where nothing is.

    Args:
        store: The run's store.
        settings: What the search was asked for.
        journal: The store's journal.
    """
    try:
        proxy, scores = ranking_scores(settings, store)
    except UnknownNameError:  # a function of the caller's, or of a plug-in that is not loaded here
        sign = store.fact("sign")
        if sign is None:  # begun by a release that did not keep it
            return None
        proxy = Proxy(ProxyInfo(settings["proxy"], direction="higher" if sign > 0 else "lower"))
        scores = scores_by(settings["proxy"], store)
    scored = [
        _candidate(architecture, proxy, scores[key], settings)
        for key in store.architecture_keys()
        if key in scores and (architecture := store.architecture(key)) is not None
    ]
    islands = [Island.from_dict(entry.body["island"]) for entry in journal if entry.kind == "island"]
    screened = _kept(islands, proxy)
    if not any(math.isfinite(each.fitness) for each in (*scored, *screened)):
        return None
    history = scored or screened
    failures = Counter(score.reason for score in scores.values() if not score.ok)
    counts: Counter[str] = Counter()
    for island in islands:
        counts.update({name: number for name, number in island.counts.items() if name != "failed"})
        failures.update(island.failures)
    if not islands:
        counts["proposed"] = len(scored)
    return SearchResult(
        best=max(history, key=lambda candidate: candidate.fitness),
        history=tuple(history),
        counts=Counts(**counts, ranked=len(scored), failed=failures.total()),
        failures=dict(failures),
        seconds={},
        settings=settings,
        state="interrupted",
        trajectory=tuple(join_trajectories(islands)),
    )


def _candidate(architecture: Architecture, proxy: Proxy, score: Score, settings: Mapping[str, Any]) -> Candidate:
    costs, fitness = complexity(architecture), proxy.sign * score.value if score.ok else -math.inf
    reward = as_reward(settings.get("reward"))
    if reward is not None and reward.cost != "latency_ms" and score.ok:  # only the search itself predicts latency
        try:
            fitness = reward.of_costs(fitness, costs)
        except UndefinedScoreError:
            fitness = -math.inf
    return Candidate(architecture, costs, {proxy.key: score}, fitness)


def _kept(islands: Sequence[Island], proxy: Proxy) -> list[Candidate]:
    """The best distinct networks of the islands by their closed form."""
    found = {network: fitness for island in islands for fitness, network in island.kept}
    best = sorted(found, key=lambda network: -found[network])[:_KEPT]
    key = f"{proxy.key} in closed form" if proxy.info.needs_weights else proxy.key
    return [
        Candidate(network, complexity(network), {key: Score(key, proxy.sign * found[network], 0.0, 1, 0.0)}, fitness)
        for network in best
        for fitness in [found[network]]
    ]
