"""A correlation's scores: every network once, in any number of workers, kept as they come."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from tqdm import tqdm

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.score import Score
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.execution import Outcome, run_all, worker_failed
from zeroshot_nas.nasbench.correlation import REPORT_FILE, SCORES_FILE, Correlation, State
from zeroshot_nas.nasbench.report import write_report
from zeroshot_nas.runs.session import Book
from zeroshot_nas.runs.store import ScoreKey, canonical
from zeroshot_nas.scoring.engine import score
from zeroshot_nas.scoring.pool import aggregate_scores
from zeroshot_nas.scoring.proxy import Proxy, get_proxy
from zeroshot_nas.spaces.base import SearchSpace

BASELINES = ("params", "flops", "layers")
"""What stands beside every proxy: one that orders no better than these has found out nothing else."""

SMALLEST_SAMPLE = 3
"""Architectures below which nothing can be said: two either agree or disagree."""

TIMED = 8
"""Networks whose proxies are scored one by one, so that a proxy's time is its own; on the others they share passes."""


class Task(NamedTuple):
    """Scores of one network to be computed together, with what a worker needs for them."""

    architecture: Architecture
    proxies: tuple[Proxy, ...]
    seed: int
    settings: Mapping[str, Any]


def compute(task: Task) -> dict[str, Score]:
    """A task's scores by proxy key; a failure is a state with a reason."""
    return score(task.architecture, task.proxies, seed=task.seed, **task.settings)


class CorrelationBook(Book):
    """A correlation's stores."""

    def finish(self, correlation: Correlation) -> None:
        """Writes the report's files."""
        if self.run is None or self.folder is None:
            return
        write_text(self.folder / SCORES_FILE, correlation.scores_csv())
        write_text(self.folder / REPORT_FILE, correlation.to_json(indent=1))
        write_report(correlation, self.folder)
        self.run.log(correlation.state, {"architectures": correlation.architectures})


class Run:
    """The scores of a sample as they come.

    Args:
        space: Tells which networks are the same.
        networks: The sample.
        asked: The proxies asked for, aggregates among them.
        seed: Seed of the scores.
        how: Settings of the scores.
        executor: Where they are computed.
        book: Where they are kept.
    """

    def __init__(
        self,
        space: SearchSpace,
        networks: Sequence[Architecture],
        asked: Sequence[Proxy],
        seed: int,
        how: Mapping[str, Any],
        executor: Executor,
        book: CorrelationBook,
    ) -> None:
        self.networks = networks
        self.seed = seed
        self.how = how
        self.executor = executor
        self.book = book
        own = {proxy.key for proxy in asked}
        baselines = [get_proxy(name) for name in BASELINES if name not in own]
        self.reported = [*asked, *baselines]
        self.baselines = {proxy.key for proxy in baselines}
        singles = {proxy.key: proxy for proxy in self.reported if not proxy.info.parts}
        groups = [[proxy] for proxy in singles.values() if not reads_graph(proxy)]
        for aggregate in asked:
            parts = [get_proxy(part) for part in aggregate.info.parts if part not in singles]
            singles |= {part.key: part for part in parts}
            groups.append([part for part in parts if not reads_graph(part)])
        self.read = [proxy for proxy in singles.values() if reads_graph(proxy)]
        self.drawn = [proxy for proxy in singles.values() if not reads_graph(proxy)]
        self.alone = [tuple(group) for group in groups if group]  # what is timed together
        self.together = [tuple(self.drawn)] if self.drawn else []
        self.members = _members(space, networks)
        last = max(1, min(TIMED, len(self.members)) - 1)
        self.timed = {round(place * (len(self.members) - 1) / last) for place in range(last + 1)}
        self.of_network: list[dict[str, Score]] = [{} for _ in networks]  # by network, what is read off it
        self.of_class: list[dict[str, Score]] = [{} for _ in self.members]  # by class, what is drawn
        self.failed = 0

    def score_all(self, progress: bool) -> State:
        """Every network is scored by every proxy.

        Raises:
            KeyboardInterrupt: It was stopped before there was anything to report.
        """
        try:
            self._read_all()
            tasks = self._tasks()
            done = sum(self._is_complete(number) for number in range(len(self.members)))
            with self._bar(done, progress) as bar:
                outcomes = run_all(self.executor, compute, ((task,) for _, task in tasks))
                for (number, task), outcome in zip(tasks, outcomes, strict=True):
                    found, lost = self._settled(task, outcome)
                    if self.book.stores:
                        self.book.keep([task.architecture], [(self._key(task, key), found[key]) for key in found])
                    self.of_class[number] |= found | lost
                    self.failed += sum(not each.ok for each in (found | lost).values())
                    if self._is_complete(number):
                        if self.failed:
                            bar.set_postfix_str(f"failed scores {self.failed}", refresh=False)
                        bar.update()
        except KeyboardInterrupt:
            if len(self.complete()) < SMALLEST_SAMPLE:
                raise
            return "interrupted"
        return "done"

    def complete(self) -> list[int]:
        """Networks that have every score, in the order of the sample."""
        drawn = [
            network
            for number, members in enumerate(self.members)
            if self._is_complete(number)
            for network in members
            if len(self.of_network[network]) == len(self.read)
        ]
        return sorted(drawn)

    def scores(self) -> list[dict[str, Score]]:
        """For each complete network its scores by proxy key, aggregates joined over all of these."""
        classes = {network: number for number, members in enumerate(self.members) for network in members}
        pool = [{**self.of_network[network], **self.of_class[classes[network]]} for network in self.complete()]
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
            if members := [network for network in self.members[number] if network in complete]:
                scores = {**self.of_network[members[0]], **self.of_class[number]}
                parts = [scores[part] for part in proxy.info.parts or (proxy.key,)]
                if any(part.ok for part in parts):
                    times.append(1000 * sum(part.seconds for part in parts))
        return statistics.median(times) if times else None

    def _read_all(self) -> None:
        """What is read off the architectures, of each of them; it takes no time to speak of."""
        entries = []
        for network, architecture in enumerate(self.networks):
            task = Task(architecture, tuple(self.read), self.seed, self.how)
            complexity(architecture)  # kept: else the first to ask would be timed with it
            self.of_network[network] = compute(task)
            if self.book.stores:
                entries += [(self._key(task, key), found) for key, found in self.of_network[network].items()]
        self.book.keep(self.networks, entries)

    def _tasks(self) -> list[tuple[int, Task]]:
        """What is left to compute, by class; what is known is taken from the stores."""
        tasks = []
        for number, members in enumerate(self.members):
            everything = Task(self.networks[members[0]], tuple(self.drawn), self.seed, self.how)
            for proxy in self.drawn if self.book.stores else ():
                if (found := self.book.score(self._key(everything, proxy.key))) is not None:
                    self.of_class[number][proxy.key] = found
                    self.failed += not found.ok
            calls = self.alone if number in self.timed else self.together
            left = [tuple(proxy for proxy in call if proxy.key not in self.of_class[number]) for call in calls]
            tasks += [(number, everything._replace(proxies=missing)) for missing in left if missing]
        return tasks

    def _settled(self, task: Task, outcome: Outcome[dict[str, Score]]) -> tuple[dict[str, Score], dict[str, Score]]:
        """The scores of a task, and those that its workers did not survive; what is no worker's failure is raised."""
        if outcome.value is not None:
            return outcome.value, {}
        assert outcome.error is not None, "a task without a value has an error"
        if not worker_failed(outcome.error):
            raise outcome.error
        if len(task.proxies) == 1:
            return {}, {proxy.key: _failed(proxy, str(outcome.error)) for proxy in task.proxies}
        found: dict[str, Score] = {}
        lost: dict[str, Score] = {}
        parts = [task._replace(proxies=(proxy,)) for proxy in task.proxies]  # one of them, maybe, and not the others
        for part, answer in zip(parts, run_all(self.executor, compute, [(part,) for part in parts]), strict=True):
            more_found, more_lost = self._settled(part, answer)
            found |= more_found
            lost |= more_lost
        return found, lost

    def _is_complete(self, number: int) -> bool:
        return len(self.of_class[number]) == len(self.drawn)

    def _key(self, task: Task, proxy: str) -> ScoreKey:
        return ScoreKey(task.architecture.key, proxy, canonical(self.how), self.seed)

    def _bar(self, done: int, progress: bool) -> Any:
        what = self.drawn[0].key if len(self.drawn) == 1 else f"{len(self.drawn)} proxies"
        return tqdm(total=len(self.members), initial=done, desc=f"scoring by {what}", unit="net", disable=not progress)


def _members(space: SearchSpace, networks: Sequence[Architecture]) -> list[list[int]]:
    """Networks that the space knows to be the same, in order of their first; the one to be scored stands first."""
    classes: dict[str, list[int]] = {}
    for network, architecture in enumerate(networks):
        classes.setdefault(space.canonical(architecture), []).append(network)

    def size(network: int) -> tuple[int, int, int]:
        costs = complexity(networks[network])
        return costs.params, costs.flops, network

    return [sorted(members, key=size) if len(members) > 1 else members for members in classes.values()]


def reads_graph(proxy: Proxy) -> bool:
    """Whether the score of one of our architectures is read off it, without weights."""
    return proxy.info.function is None or proxy.info.exact


def _failed(proxy: Proxy, reason: str) -> Score:
    return Score(proxy.key, math.nan, None, 0, 0.0, "failed", reason)
