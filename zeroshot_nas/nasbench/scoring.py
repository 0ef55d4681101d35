"""A correlation's scores: every network once, in any number of workers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.progress import progress_bar
from zeroshot_nas.core.score import Score
from zeroshot_nas.core.state import RunState
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.nasbench.correlation import REPORT_FILE, SCORES_FILE, Correlation
from zeroshot_nas.nasbench.report import MARKDOWN_FILE, PLOTS, write_report
from zeroshot_nas.runs.evaluate import Job, evaluate
from zeroshot_nas.runs.session import RunSession
from zeroshot_nas.runs.store import Store
from zeroshot_nas.scoring.pool import aggregate_scores
from zeroshot_nas.scoring.proxy import Proxy, get_proxy
from zeroshot_nas.spaces.base import SearchSpace

BASELINES = ("params", "flops", "layers")
"""What stands beside every proxy: one that orders no better than these has found out nothing else."""

SMALLEST_SAMPLE = 3
"""Architectures below which nothing can be said: two either agree or disagree."""

TIMED = 8
"""Networks whose drawn proxies are scored one by one, each with its own time; on the others they share passes."""


FILES = (REPORT_FILE, SCORES_FILE, MARKDOWN_FILE, *(f"{plot}.{kind}" for plot in PLOTS for kind in ("png", "svg")))
"""What a correlation leaves, beside its store; the first says that it is finished."""


def write_files(correlation: Correlation, session: RunSession) -> None:
    """Writes the report's files to the run's folder."""
    taus = {entry.proxy: entry.kendall for entry in correlation.proxies}
    session.hooks.will_end({**taus, "architectures": correlation.architectures}, {"state": correlation.state})
    if session.folder is None:
        return
    write_text(session.folder / SCORES_FILE, correlation.scores_csv())
    write_text(session.folder / REPORT_FILE, correlation.to_json(indent=1))
    write_report(correlation, session.folder)
    session.log(correlation.state, {"architectures": correlation.architectures})


class SampleScores:
    """The scores of a benchmark's architectures, as they come.

    Args:
        space: Tells which architectures are the same network.
        architectures: The sample.
        asked: The proxies asked for, aggregates among them.
        seed: Seed of the scores.
        settings: Settings of the scores.

    Attributes:
        space: The space.
        architectures: The sample.
        reported: The proxies asked for, then the baselines that were not.
        baselines: Keys of the latter.
        members: Architectures by class of networks that are the same; the one to be scored stands first.
    """

    def __init__(
        self,
        space: SearchSpace,
        architectures: Sequence[Architecture],
        asked: Sequence[Proxy],
        seed: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.space = space
        self.architectures = architectures
        own = {proxy.key for proxy in asked}
        baselines = [get_proxy(name) for name in BASELINES if name not in own]
        self.reported = [*asked, *baselines]
        self.baselines = {proxy.key for proxy in baselines}
        groups = [[proxy] for proxy in self.reported if not proxy.info.parts]  # what is timed together
        singles = {proxy.key: proxy for (proxy,) in groups}
        for aggregate in asked:
            parts = [get_proxy(part) for part in aggregate.info.parts if part not in singles]
            singles |= {part.key: part for part in parts}
            groups.append(parts)
        self.read = tuple(proxy for proxy in singles.values() if not proxy.info.needs_weights)
        self.drawn = tuple(proxy for proxy in singles.values() if proxy.info.needs_weights)
        with paused_garbage_collection():
            self.members = _members(space, architectures)
        last = max(1, min(TIMED, len(self.members)) - 1)
        self.timed = {round(place * (len(self.members) - 1) / last) for place in range(last + 1)}
        drawn_alone = [tuple(proxy for proxy in group if proxy.info.needs_weights) for group in groups]
        self._alone = [group for group in drawn_alone if group]
        self._job = partial(Job, seed=seed, settings=settings)
        self._of_architecture: list[dict[str, Score]] = [{} for _ in architectures]  # what is read off each
        self._of_class: list[dict[str, Score]] = [{} for _ in self.members]  # what is drawn
        self._failed = 0

    def evaluate(self, executor: Executor, session: RunSession, progress: bool) -> RunState:
        """Every architecture is scored by every proxy; callbacks are told of each network when it has all scores.

        Raises:
            KeyboardInterrupt: It was stopped before there was anything to report.
        """
        try:
            known = session.known(self._job(self.architectures[places[0]], self.read) for places in self.members)
            self._read_all(executor, session.stores, progress)
            if self.drawn:
                self._draw_all(executor, session, progress)
            else:
                for number, was_known in enumerate(known):
                    self._tell(session, number, was_known)
        except KeyboardInterrupt:
            if len(self.complete()) < SMALLEST_SAMPLE:
                raise
            return "interrupted"
        return "done"

    def complete(self) -> list[int]:
        """Places of the architectures that have every score, in the order of the sample."""
        drawn = [place for number, places in enumerate(self.members) if self._is_drawn(number) for place in places]
        return sorted(place for place in drawn if len(self._of_architecture[place]) == len(self.read))

    def scores(self) -> list[dict[str, Score]]:
        """For each complete architecture its scores by proxy key, aggregates joined over all of these."""
        classes = {place: number for number, places in enumerate(self.members) for place in places}
        pool = [{**self._of_architecture[place], **self._of_class[classes[place]]} for place in self.complete()]
        for proxy in self.reported:
            if proxy.info.parts:
                for scores, joined in zip(pool, aggregate_scores(proxy, pool), strict=True):
                    scores[proxy.key] = joined
        return pool

    def milliseconds(self, proxy: Proxy) -> float | None:
        """The median time of a network, where the proxy was computed alone."""
        complete = set(self.complete())
        times = []
        for number in sorted(self.timed):
            if places := [place for place in self.members[number] if place in complete]:
                scores = {**self._of_architecture[places[0]], **self._of_class[number]}
                parts = [scores[part] for part in proxy.info.parts or (proxy.key,)]
                if any(part.ok for part in parts):
                    times.append(1000 * sum(part.seconds for part in parts))
        return statistics.median(times) if times else None

    def _read_all(self, executor: Executor, stores: Sequence[Store], progress: bool) -> None:
        """What is read off an architecture, of each: those that are the same network differ in it."""
        jobs = (self._job(architecture, self.read) for architecture in self.architectures)
        with self._bar(self.read, len(self.architectures), progress and len(self.read) > len(BASELINES)) as bar:
            for place, scores in enumerate(evaluate(jobs, executor, stores)):
                self._of_architecture[place] = scores
                bar.update()

    def _draw_all(self, executor: Executor, session: RunSession, progress: bool) -> None:
        """What draws weights, once for each class."""
        calls = [
            (number, call)
            for number in range(len(self.members))
            for call in (self._alone if number in self.timed else [self.drawn])
        ]
        jobs = [self._job(self.architectures[self.members[number][0]], call) for number, call in calls]
        known = session.known(jobs)
        with self._bar(self.drawn, len(self.members), progress) as bar:
            found = evaluate(jobs, executor, session.stores)
            for (number, _), scores, was_known in zip(calls, found, known, strict=True):
                self._of_class[number] |= scores
                self._failed += sum(not score.ok for score in scores.values())
                if self._is_drawn(number):
                    if self._failed:
                        bar.set_postfix_str(f"failed scores {self._failed}", refresh=False)
                    bar.update()
                    self._tell(session, number, was_known)

    def _tell(self, session: RunSession, number: int, known: bool) -> None:
        """Tells callbacks of a class of networks that has all its scores, by the one that is scored."""
        if not session.hooks:
            return
        place = self.members[number][0]
        scores = {**self._of_architecture[place], **self._of_class[number]}
        values = {key: score.value for key, score in scores.items() if score.ok}
        about = {"architecture": self.space.text(self.architectures[place])}
        session.hooks.tell("score", number + 1, values, about, known=known)

    def _is_drawn(self, number: int) -> bool:
        return len(self._of_class[number]) == len(self.drawn)

    def _bar(self, proxies: Sequence[Proxy], total: int, progress: bool) -> Any:
        what = proxies[0].key if len(proxies) == 1 else f"{len(proxies)} proxies"
        return progress_bar(what=f"scoring by {what}", unit="net", shown=progress, total=total)


def _members(space: SearchSpace, architectures: Sequence[Architecture]) -> list[list[int]]:
    """Places of architectures that are the same network to the space, by first place; the one to score stands first."""
    classes: dict[str, list[int]] = {}
    for place, architecture in enumerate(architectures):
        classes.setdefault(space.canonical(architecture), []).append(place)

    def size(place: int) -> tuple[int, int, int]:
        costs = complexity(architectures[place])
        return costs.params, costs.flops, place

    return [sorted(places, key=size) if len(places) > 1 else places for places in classes.values()]
