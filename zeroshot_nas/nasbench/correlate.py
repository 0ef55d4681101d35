"""How well proxies order a benchmark's architectures: scores of a sample, and their agreement with trained accuracy."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.book import Book
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import (
    ArchitectureError,
    DataError,
    ProxyError,
    ZeroShotNASError,
)
from zeroshot_nas.execution import Outcome, get_executor, run_all, worker_failed
from zeroshot_nas.files import write_text
from zeroshot_nas.nasbench.base import DATASETS, NOTATIONS, BenchmarkTable, load_table
from zeroshot_nas.nasbench.correlation import REPORT_FILE, SCORES_FILE, Correlation, ProxyCorrelation, State
from zeroshot_nas.proxies.base import PROXIES, Proxy, ProxyFunction, Score, get_proxy
from zeroshot_nas.proxies.pool import aggregate_scores
from zeroshot_nas.proxies.scoring import score
from zeroshot_nas.report.correlation import write_report
from zeroshot_nas.seeding import derive_seed
from zeroshot_nas.spaces.base import SearchSpace, get_space
from zeroshot_nas.statistics import (
    bootstrap_interval,
    kendall,
    ndcg,
    partial_kendall,
    regret,
    spearman,
    spearman_at_top,
    top_k_accuracy,
)
from zeroshot_nas.store import ScoreKey, canonical

BASELINES = ("params", "flops", "layers")
"""What stands beside every proxy: one that orders no better than these has found out nothing else."""

SMALLEST_SAMPLE = 3
"""Architectures below which nothing can be said: two either agree or disagree."""

TIMED = 8
"""Networks whose proxies are scored one by one, so that a proxy's time is its own; on the others they share passes."""

LEVEL = 0.95
"""The share of the bootstrap's values inside of an interval."""

RESAMPLES, FEW_RESAMPLES, MANY_ARCHITECTURES = 1_000, 200, 2_000
"""Resamples of the bootstrap; fewer from so many architectures on, where each takes long and the interval is narrow."""

MAX_REPEATS = 64
"""Part of a score's key; the default of `zeroshot_nas.search`, so that both find each other's scores in a cache."""


def correlate(
    proxies: str | Proxy | ProxyFunction | Sequence[str | Proxy | ProxyFunction],
    table: BenchmarkTable | str | Path,
    *,
    space: str | SearchSpace | None = None,
    sample: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    repeats: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    cache: str | Path | None = None,
    executor: str | Executor = "serial",
    workers: int | None = None,
    time_limit: float | None = None,
    device: str | None = None,
    progress: bool = True,
    space_options: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> Correlation:
    """Scores architectures of a benchmark and says how well each proxy orders them by their trained accuracy.

    Parameters, FLOPs and layers are always beside the proxies. Networks that the space knows to be the same
    (`zeroshot_nas.spaces.base.SearchSpace.canonical`) are scored once: of several, the one with the fewest parameters,
    then FLOPs, since some hold operations whose output goes nowhere. What is read off an architecture without weights,
    such as parameters, is read off each.

    All proxies of a network are computed in one call of `zeroshot_nas.score` and share their passes, but for `TIMED`
    networks, where each is computed alone to be timed; its value is the same either way.

    The result is a function of these arguments alone: it does not depend on the executor, on the number of workers, or
    on how often a run was killed and resumed (wall times do, and failures of workers).

    Args:
        proxies: Names, names with options, functions; aggregates such as ``"az_nas"``, whose parts are scored and then
            joined over the sample; or ``"all"``: every registered proxy that can be computed in this space.
        table: Architectures and accuracies, or what `zeroshot_nas.nasbench.base.load_table` takes without options.
        space: What reads the table's architectures: a registered name or a `SearchSpace`; default: the table's.
        sample: How many architectures to score, drawn with the seed; default: all.
        seed: Seed of the sample, of all scores and of the bootstrap.
        batch_size: Gaussian images a repeat, as in `zeroshot_nas.score`.
        repeats: Draws of weights and images a score is the mean of.
        out: Folder for the run: its store ``run.db``, ``report.json``, ``report.md``, ``scores.csv``, and where
            matplotlib is installed the plots ``scatter`` and ``tau_against_cost`` as ``.png`` and ``.svg``. What is in
            the store is never lost.
        resume: Go on with the run in ``out``; its settings must be these.
        cache: A store of scores that several runs share.
        executor: ``"serial"``, ``"process"``, ``"dask"``, or any ``concurrent.futures.Executor``.
        workers: How many, for an executor given by name; default: all cores.
        time_limit: Seconds that a worker process may take for the scores of one network before it is killed; they are
            then tried one by one, with as much time each.
        device: Where to score.
        progress: Whether to show a bar with the rate and the remaining time.
        space_options: Options of a space given by name, such as ``{"num_cells": 1, "channels": 4}`` for smaller
            networks of the same cells.
        input_size: Shape ``(C, H, W)`` of one image; default: the data set's.
        num_classes: Outputs of the classifier; default: the data set's.

    Returns:
        The figures and the scores. Stopped by Ctrl-C it returns, and writes, those of the architectures that it has
        scored, in state ``"interrupted"``; ``resume`` goes on.

    Raises:
        UnknownNameError: A name that is not registered.
        ProxyError: A proxy has no such option, or is asked for twice.
        DataError: A row of the table can't be read by the space, the sample does not fit the table or has fewer than
            three architectures, or the table's space or data set is not known.
        OutputExistsError: ``out`` holds a run, and ``resume`` is not set.
        SettingsChangedError: The run to resume has other settings.
        StoreError: The store can't be read or written; what was in it is intact.

    Example:
        >>> cells = ["421211", "333333", "303101", "111111"]
        >>> table = BenchmarkTable(name="demo", space="nasbench201", dataset="cifar10", code="op_code", rows=cells,
        ...                        accuracy=[85.9, 93.8, 91.2, 60.0])
        >>> found = correlate("naswot", table, space_options={"num_cells": 1, "channels": 4}, input_size=(3, 8, 8),
        ...                   progress=False)
        >>> [entry.proxy for entry in found.proxies], found["flops"].top1_accuracy, found["layers"].kendall
        (['naswot', 'params', 'flops', 'layers'], 93.8, None)
    """
    whole = table if isinstance(table, BenchmarkTable) else load_table(table)
    chosen = _sampled(whole, sample, seed)
    where = _space(space, whole, input_size, num_classes, space_options or {})
    networks = _networks(where, whole, chosen)
    asked, left_out = _asked(proxies, networks[0])
    for name, value in (("repeats", repeats), ("batch_size", 1 if batch_size is None else batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    if resume and out is None:
        raise ValueError("resume needs out, the folder of the run to go on with")
    settings = _plain(
        {
            "space": where.name,
            "space_options": _options(where),
            "input_size": list(where.input_size),
            "num_classes": where.num_classes,
            "table": whole.name,
            "dataset": whole.dataset,
            "source": whole.source,
            "table_digest": _digest(whole),
            "proxies": [proxy.key for proxy in asked],
            "sample": len(chosen),
            "seed": seed,
            "batch_size": batch_size,
            "repeats": repeats,
            "device": device,
        }
    )
    with ExitStack() as stack:
        workforce = stack.enter_context(get_executor(executor, workers=workers, time_limit=time_limit))
        book = _Book(stack, out, cache, "correlation", settings, resume, REPORT_FILE)
        how = {
            "batch_size": batch_size,
            "repeats": repeats,
            "standard_error": None,
            "max_repeats": MAX_REPEATS,
            "device": device,
        }
        run = _Run(where, networks, asked, seed, how, workforce, book)
        state = run.score_all(progress)
        figures = _figures(run, chosen, seed, batch_size)
        correlation = Correlation(
            space=where.name,
            space_options=settings["space_options"],
            dataset=whole.dataset,
            table=whole.name,
            source=whole.source,
            population=len(whole),
            sample=len(chosen),
            seed=seed,
            repeats=repeats,
            batch_size=batch_size,
            device=device,
            input_size=where.input_size,
            num_classes=where.num_classes,
            left_out=left_out,
            state=state,
            **figures,
        )
        book.finish(correlation)
    return correlation


class Task(NamedTuple):
    """Scores of one network to be computed together, with what a worker needs for them."""

    architecture: Architecture
    proxies: tuple[Proxy, ...]
    seed: int
    settings: Mapping[str, Any]


def compute(task: Task) -> dict[str, Score]:
    """A task's scores by proxy key; a failure is a state with a reason."""
    return score(task.architecture, task.proxies, seed=task.seed, **task.settings)


class _Book(Book):
    """A correlation's stores."""

    def finish(self, correlation: Correlation) -> None:
        """Writes the report's files."""
        if self.run is None or self.folder is None:
            return
        write_text(self.folder / SCORES_FILE, correlation.scores_csv())
        write_text(self.folder / REPORT_FILE, correlation.to_json(indent=1))
        write_report(correlation, self.folder)
        self.run.log(correlation.state, {"architectures": correlation.architectures})


class _Run:
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
        book: _Book,
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
        groups = [[proxy] for proxy in singles.values() if not _reads_graph(proxy)]
        for aggregate in asked:
            parts = [get_proxy(part) for part in aggregate.info.parts if part not in singles]
            singles |= {part.key: part for part in parts}
            groups.append([part for part in parts if not _reads_graph(part)])
        self.read = [proxy for proxy in singles.values() if _reads_graph(proxy)]
        self.drawn = [proxy for proxy in singles.values() if not _reads_graph(proxy)]
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


def _figures(run: _Run, chosen: BenchmarkTable, seed: int, batch_size: int | None) -> dict[str, Any]:
    """What of a `Correlation` follows from the scores."""
    places, pool = run.complete(), run.scores()
    scored = set(places)
    part = chosen.take(places)
    accuracy = part.accuracy
    resamples = RESAMPLES if len(places) <= MANY_ARCHITECTURES else FEW_RESAMPLES
    signed = {proxy.key: [proxy.sign * scores[proxy.key].value for scores in pool] for proxy in run.reported}
    entries = []
    for proxy in run.reported:
        values = signed[proxy.key]
        tau = _known(kendall(values, accuracy))
        interval = None
        if tau is not None:
            interval = bootstrap_interval(kendall, values, accuracy, level=LEVEL, resamples=resamples, seed=seed)
        parts = [get_proxy(name) for name in proxy.info.parts] or [proxy]
        weighted = [each for each in parts if not _reads_graph(each)]
        inits = {each.info.init for each in weighted}
        sizes = {batch_size or each.info.batch_size for each in weighted}
        alive = any(not math.isnan(value) for value in values)
        entries.append(
            ProxyCorrelation(
                proxy=proxy.key,
                baseline=proxy.key in run.baselines,
                direction=proxy.info.direction,
                cost=proxy.info.cost,
                init=inits.pop() if len(inits) == 1 else None,
                batch_size=sizes.pop() if len(sizes) == 1 else None,
                kendall=tau,
                kendall_interval=interval,
                spearman=_known(spearman(values, accuracy)),
                spearman_at_top=_known(spearman_at_top(values, accuracy)),
                ndcg=_known(ndcg(values, accuracy)) if alive else None,
                top1_accuracy=_known(top_k_accuracy(values, accuracy, 1)) if alive else None,
                top10_accuracy=_known(top_k_accuracy(values, accuracy, 10)) if alive else None,
                regret=_known(regret(values, accuracy)) if alive else None,
                kendall_given_flops=_known(partial_kendall(values, accuracy, signed["flops"])),
                kendall_given_params=_known(partial_kendall(values, accuracy, signed["params"])),
                milliseconds=run.milliseconds(proxy),
                failed=sum(not scores[proxy.key].ok for scores in pool),
                failures=_failures(proxy, pool),
            )
        )
    twice = [runs[:2] for runs in part.runs or () if len(runs) > 1]
    return {
        "architectures": len(places),
        "networks": sum(not scored.isdisjoint(members) for members in run.members),
        "best_accuracy": float(accuracy.max()),
        "ceiling": _known(kendall(*zip(*twice, strict=True))) if twice else None,
        "ceiling_architectures": len(twice),
        "level": LEVEL,
        "resamples": resamples,
        "proxies": tuple(entries),
        "rows": tuple(part.rows),
        "accuracy": tuple(map(float, accuracy)),
        "scores": {proxy.key: tuple(scores[proxy.key].value for scores in pool) for proxy in run.reported},
    }


def _failures(proxy: Proxy, pool: Sequence[Mapping[str, Score]]) -> dict[str, int]:
    """Reasons of failed scores, the most frequent first."""
    reasons = Counter(scores[proxy.key].reason for scores in pool if not scores[proxy.key].ok)
    if proxy.info.parts:
        failed = [scores[part] for scores in pool for part in proxy.info.parts if not scores[part].ok]
        reasons = Counter(f"{each.proxy}: {each.reason}" for each in failed)
    return dict(reasons.most_common())


def _sampled(table: BenchmarkTable, sample: int | None, seed: int) -> BenchmarkTable:
    derive_seed(seed)  # refuses what is no seed
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int)):
        raise DataError(f"sample must be a whole number of architectures, got {sample!r}")
    size = len(table) if sample is None else sample
    if size < SMALLEST_SAMPLE:
        raise DataError(
            f"a correlation needs {SMALLEST_SAMPLE} architectures or more, got "
            + (f"sample={sample}" if sample is not None else f"a table of {size}")
        )
    return table if sample is None else table.sample(sample, seed)


def _space(
    space: str | SearchSpace | None,
    table: BenchmarkTable,
    input_size: Sequence[int] | None,
    num_classes: int | None,
    options: Mapping[str, Any],
) -> SearchSpace:
    """The space that reads the table's architectures, for the images of its data set.

    Raises:
        DataError: The table does not say its space, or is of a data set that is not known here.
    """
    if isinstance(space, SearchSpace):
        given = {"input_size": input_size and tuple(input_size), "num_classes": num_classes, **options}
        for name, value in given.items():
            if value is not None and value != (has := getattr(space, name, None)):
                raise ValueError(f"the space has {name} {has}, got {value}; make the space with the one you want")
        return space
    if not (space or table.space):
        raise DataError(f"{table.name} does not say what space its architectures are of; give space=")
    if table.dataset not in DATASETS and (input_size is None or num_classes is None):
        raise DataError(
            f"{table.name} is of the data set {table.dataset!r}, whose images are not known here (those of "
            f"{', '.join(DATASETS)} are); give input_size= and num_classes="
        )
    shape, classes = DATASETS.get(table.dataset, ((0, 0, 0), 0))
    return get_space(
        space or table.space,
        input_size=shape if input_size is None else input_size,
        num_classes=classes if num_classes is None else num_classes,
        **options,
    )


def _networks(space: SearchSpace, table: BenchmarkTable, chosen: BenchmarkTable) -> list[Architecture]:
    """The networks of the chosen rows.

    Raises:
        DataError: The space can't read a row, or not the table's notation.
    """
    notation = NOTATIONS.get(table.code, table.code)
    read: Callable[..., Architecture] = space.from_string
    if notation is not None:
        if "code" not in inspect.signature(read).parameters:
            raise DataError(
                f"{table.name} writes architectures in the code {table.code!r}, and the space {space.name!r} reads its "
                "own strings only; give the table with those, and code='arch'"
            )
        read = partial(read, code=notation)
    networks = []
    for row in chosen.rows:
        try:
            networks.append(read(row))
        except ArchitectureError as error:
            raise DataError(
                f"row {table.index(row) + 1} of {table.name}, {row[:200]!r} in the code {table.code!r}, can't be read "
                f"by the space {space.name!r}: {error}"
            ) from error
    return networks


def _asked(
    proxies: str | Proxy | ProxyFunction | Sequence[str | Proxy | ProxyFunction], example: Architecture
) -> tuple[list[Proxy], dict[str, str]]:
    """The proxies asked for, and those that ``"all"`` leaves out, with the reason.

    Raises:
        UnknownNameError: No proxy has that name.
        ProxyError: A proxy is asked for twice, or has no such option.
    """
    if proxies == "all":
        found = [get_proxy(name) for name in PROXIES]
        left_out = {proxy.key: reason for proxy in found if (reason := _unscoreable(proxy, example))}
        for proxy in found:
            if lacking := [part for part in proxy.info.parts if part in left_out]:
                left_out[proxy.key] = f"its part {lacking[0]} is left out"
        return [proxy for proxy in found if proxy.key not in left_out], left_out
    several = [proxies] if isinstance(proxies, str | Proxy) or not isinstance(proxies, Sequence) else proxies
    found = [get_proxy(proxy) for proxy in several]
    twice = [key for key, count in Counter(proxy.key for proxy in found).items() if count > 1]
    if twice:
        raise ProxyError(f"the proxies must differ, got {', '.join(twice)} more than once")
    return found, {}


def _unscoreable(proxy: Proxy, example: Architecture) -> str:
    """Why a proxy that is nothing but a closed form has none for this kind of network; empty where it has one."""
    if proxy.info.function is not None or proxy.info.parts:
        return ""
    try:
        proxy.closed_form(example)
    except ZeroShotNASError as error:
        return str(error)
    return ""


def _members(space: SearchSpace, networks: Sequence[Architecture]) -> list[list[int]]:
    """Networks that the space knows to be the same, in order of their first; the one to be scored stands first."""
    classes: dict[str, list[int]] = {}
    for network, architecture in enumerate(networks):
        classes.setdefault(space.canonical(architecture), []).append(network)

    def size(network: int) -> tuple[int, int, int]:
        costs = complexity(networks[network])
        return costs.params, costs.flops, network

    return [sorted(members, key=size) if len(members) > 1 else members for members in classes.values()]


def _reads_graph(proxy: Proxy) -> bool:
    """Whether the score of one of our architectures is read off it, without weights."""
    return proxy.info.function is None or proxy.info.exact


def _failed(proxy: Proxy, reason: str) -> Score:
    return Score(proxy.key, math.nan, None, 0, 0.0, "failed", reason)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _options(space: SearchSpace) -> dict[str, Any]:
    """A space's own options, where it is a dataclass."""
    if not is_dataclass(space):
        return {}
    common = ("name", "input_size", "num_classes")
    return {each.name: getattr(space, each.name) for each in fields(space) if each.name not in common}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def _digest(table: BenchmarkTable) -> str:
    """Changes where a row or an accuracy does, so that a run is not resumed with another table."""
    digest = hashlib.sha256(json.dumps([table.space, table.code, *table.rows]).encode())
    digest.update(table.accuracy.tobytes())
    return digest.hexdigest()[:16]
