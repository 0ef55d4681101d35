"""The one evaluator: architectures in, scores out in order; known ones from stores, the rest computed and kept.

A task of the executor is one architecture that draws weights, or a pool of those that are read off the graph (where
that is light work, it is done in this process). Where its workers did not survive it, it is tried again in parts, so
that what kills a worker costs its own score alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.score import Score
from zeroshot_nas.execution import Outcome, run_all, worker_failed
from zeroshot_nas.runs.release import SameRelease
from zeroshot_nas.runs.store import ScoreKey, Store, canonical
from zeroshot_nas.scoring.closed_forms import COUNTS, POOL, check_repeats, closed_form_scores
from zeroshot_nas.scoring.engine import score
from zeroshot_nas.scoring.proxy import Proxy


class Job(NamedTuple):
    """Scores of one architecture, with what a worker needs for them.

    Attributes:
        architecture: What to score.
        proxies: By what; those that draw weights share their passes.
        seed: Seed of the scores.
        settings: Settings of `zeroshot_nas.score`.
    """

    architecture: Architecture
    proxies: tuple[Proxy, ...]
    seed: int
    settings: Mapping[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return (_job_with_torch if self.needs_weights else Job, tuple(self))

    @property
    def needs_weights(self) -> bool:
        return any(proxy.info.needs_weights for proxy in self.proxies)

    @property
    def keys(self) -> dict[str, ScoreKey]:
        """What the scores are filed under, by proxy key."""
        settings, architecture = canonical(self.settings), self.architecture.key
        return {proxy.key: ScoreKey(architecture, proxy.key, settings, self.seed) for proxy in self.proxies}


def _job_with_torch(*fields: Any) -> Job:
    """A job as a worker reads it: torch is loaded now, so that it does not take of the time that the task may."""
    import zeroshot_nas.network.module  # noqa: F401

    return Job(*fields)


class _Asked(NamedTuple):
    """A job, what stores know of it, and what is left to compute."""

    job: Job
    known: dict[str, Score]
    missing: Job


def evaluate(jobs: Iterable[Job], executor: Executor, stores: Sequence[Store] = ()) -> Iterator[dict[str, Score]]:
    """Scores of every job by proxy key, in the order of the jobs, each as soon as it is there.

    A failed score is one in state ``"failed"`` with its reason. One that its workers did not survive is not kept in the
    stores: it may succeed the next time.

    Args:
        jobs: What to score; read as the run gets to them.
        executor: Where scores are computed.
        stores: Where known scores come from, the first first; computed ones are kept in all.

    Raises:
        ProxyError: The settings are not usable.
        ClusterError: A worker has another release, whose scores must not stand beside ours.
        StoreError: A store can't be read or written.
    """
    batches, ahead = itertools.tee(_batches(jobs, stores))  # the executor works ahead of what is yielded
    outcomes = run_all(executor, SameRelease(compute), _heavy_tasks(ahead))
    for batch in batches:
        computed: Iterator[dict[str, Score]] = iter(())
        if missing := _missing(batch):
            outcome = Outcome(compute(missing)) if _is_light(missing) else next(outcomes)
            computed = iter(_settled(missing, outcome, executor, stores))
        for asked in batch:
            scores = asked.known | (next(computed) if asked.missing.proxies else {})
            yield {proxy.key: scores[proxy.key] for proxy in asked.job.proxies}


def compute(jobs: Sequence[Job]) -> list[dict[str, Score]]:
    """What a worker does: the scores of a job, or of several with the same proxies that need no weights."""
    first = jobs[0]
    if first.needs_weights:
        return [score(job.architecture, job.proxies, seed=job.seed, **job.settings) for job in jobs]
    check_repeats(**{name: value for name, value in first.settings.items() if name in COUNTS})
    return closed_form_scores([job.architecture for job in jobs], first.proxies)


def _batches(jobs: Iterable[Job], stores: Sequence[Store]) -> Iterator[list[_Asked]]:
    """Jobs in order, with those together that one task computes; among a pool stand what is known all the same."""
    batch: list[_Asked] = []
    pooled, size = None, 0  # what the jobs of the pool have in common
    for job in jobs:
        asked = _looked_up(job, stores)
        if (missing := asked.missing).proxies:
            common = None if missing.needs_weights else missing[1:]
            if batch and (common is None or common != pooled or size == POOL):
                yield batch
                batch, size = [], 0
            pooled, size = common, size + 1
        batch.append(asked)
        if pooled is None:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _looked_up(job: Job, stores: Sequence[Store]) -> _Asked:
    known = {}
    for proxy, key in job.keys.items() if stores else ():
        if (found := next((score for store in stores if (score := store.score(key)) is not None), None)) is not None:
            known[proxy] = found
    left = tuple(proxy for proxy in job.proxies if proxy.key not in known)
    return _Asked(job, known, job._replace(proxies=left) if known else job)


def _missing(batch: Sequence[_Asked]) -> list[Job]:
    return [asked.missing for asked in batch if asked.missing.proxies]


def _heavy_tasks(batches: Iterable[Sequence[_Asked]]) -> Iterator[tuple[list[Job]]]:
    """What the executor is to compute, as the arguments of `compute`."""
    for batch in batches:
        missing = _missing(batch)
        if missing and not _is_light(missing):
            yield (missing,)


def _is_light(jobs: Sequence[Job]) -> bool:
    """Whether a pool is computed in less time than it takes to send it to a worker, as a count of parameters is."""
    return all(not info.needs_weights and info.closed_form_pool is None for info in (p.info for p in jobs[0].proxies))


def _settled(
    jobs: Sequence[Job], outcome: Outcome[list[dict[str, Score]]], executor: Executor, stores: Sequence[Store]
) -> list[dict[str, Score]]:
    """The scores of a task, kept in the stores; what is no worker's failure is raised."""
    if outcome.value is not None:
        _keep(jobs, outcome.value, stores)
        return outcome.value
    assert outcome.error is not None, "a task without a value has an error"
    if not worker_failed(outcome.error):
        raise outcome.error
    if len(jobs) > 1:
        parts = [[job] for job in jobs]
    else:
        parts = [[jobs[0]._replace(proxies=(proxy,))] for proxy in jobs[0].proxies]
    if len(parts) == 1:
        key = jobs[0].proxies[0].key
        return [{key: Score(key, math.nan, None, 0, 0.0, "failed", str(outcome.error))}]
    answers = run_all(executor, SameRelease(compute), [(part,) for part in parts])
    settled = [_settled(part, answer, executor, stores)[0] for part, answer in zip(parts, answers, strict=True)]
    return settled if len(jobs) > 1 else [{key: value for scores in settled for key, value in scores.items()}]


def _keep(jobs: Sequence[Job], scores: Sequence[Mapping[str, Score]], stores: Sequence[Store]) -> None:
    if not stores:
        return
    entries = []
    for job, by_key in zip(jobs, scores, strict=True):
        keys = job.keys
        entries += [(keys[proxy], value) for proxy, value in by_key.items()]
    for store in stores:
        store.put_architectures(job.architecture for job in jobs)
        store.put_scores(entries)
