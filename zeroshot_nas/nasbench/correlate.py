"""How well proxies order a benchmark's architectures: scores of a sample, and their agreement with trained accuracy."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.garbage import paused_garbage_collection
from zeroshot_nas.core.score import Score
from zeroshot_nas.core.seeding import derive_seed
from zeroshot_nas.errors import ArchitectureError, DataError, ProxyError, ZeroShotNASError
from zeroshot_nas.nasbench.agreement import (
    kendall,
    kendall_interval,
    ndcg,
    partial_kendall,
    regret,
    spearman,
    spearman_at_top,
    top_k_accuracy,
)
from zeroshot_nas.nasbench.base import load_table
from zeroshot_nas.nasbench.correlation import Correlation, ProxyCorrelation
from zeroshot_nas.nasbench.equal_budget import equal_budgets
from zeroshot_nas.nasbench.scoring import FILES, SMALLEST_SAMPLE, SampleScores, write_files
from zeroshot_nas.nasbench.table import COLUMN_PREFIXES, DATASET_IMAGES, BenchmarkTable, Floats
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.runs.session import RunSession
from zeroshot_nas.scoring.proxy import PROXIES, Proxy, ProxyFunction, get_proxy
from zeroshot_nas.spaces.base import SearchSpace, get_space, options_of

LEVEL = 0.95
"""The share of the bootstrap's values inside of an interval."""

RESAMPLES, FEW_RESAMPLES, MANY_ARCHITECTURES = 1_000, 200, 2_000
"""Resamples of the bootstrap; fewer from so many architectures on, where each takes long and the interval is narrow."""

MAX_REPEATS = 64
"""Part of a score's key; the default of `zeroshot_nas.search`, so that both find each other's scores in a cache."""


def correlate(
    proxies: str | Proxy | ProxyFunction | Sequence[str | Proxy | ProxyFunction],
    table: BenchmarkTable | str | Path,
    run: RunOptions | None = None,
    *,
    space: str | SearchSpace | None = None,
    sample: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    repeats: int = 1,
    device: str | None = None,
    space_options: Mapping[str, Any] | None = None,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> Correlation:
    """Scores architectures of a benchmark and says how well each proxy orders them by their trained accuracy.

    What a search asks of a proxy comes first: how it orders networks of equal FLOPs and of equal parameters, and what
    its choice lacks to the best network under a budget of either; see `zeroshot_nas.nasbench.equal_budget`. Where the
    table has columns of latencies, such as ``latency_s`` or, joined from `zeroshot_nas.nasbench.base.load_figures`,
    ``raspi4_latency``, so at equal latency.

    Parameters, FLOPs and layers are always beside the proxies. Networks that the space knows to be the same
    (`zeroshot_nas.spaces.base.SearchSpace.canonical`) are scored once: of several, the one with the fewest parameters,
    then FLOPs, since some hold operations whose output goes nowhere. What is read off an architecture without weights,
    such as parameters or CET, is read off each, hundreds side by side.

    All other proxies of a network are computed in one call of `zeroshot_nas.score` and share their passes, but for
    `TIMED` networks, where each is computed alone to be timed; its value is the same either way.

    The result is a function of these arguments alone: it does not depend on the executor, on the number of workers, or
    on how often a run was killed and resumed (wall times do, and failures of workers).

    Args:
        proxies: Names, names with options, functions; aggregates such as ``"az_nas"``, whose parts are scored and then
            joined over the sample; or ``"all"``: every registered proxy that can be computed in this space.
        table: Architectures and accuracies, or what `zeroshot_nas.nasbench.base.load_table` takes without options.
        run: Where the run is written and by what it is computed; see `RunOptions`. ``out`` holds its store ``run.db``,
            ``report.json``, ``report.md``, ``scores.csv``, and where matplotlib is installed the plots
            ``equal_budget``, ``scatter`` and ``tau_against_cost`` as ``.png`` and ``.svg``. ``time_limit`` is for the
            scores of one network; they are then tried one by one, with as much time each.
        space: What reads the table's architectures: a registered name or a `SearchSpace`; default: the table's.
        sample: How many architectures to score, drawn with the seed; default: all.
        seed: Seed of the sample, of all scores and of the bootstrap.
        batch_size: Gaussian images a repeat, as in `zeroshot_nas.score`.
        repeats: Draws of weights and images a score is the mean of.
        device: Where to score.
        space_options: Options of a space given by name, such as ``{"num_cells": 1, "channels": 4}`` for smaller
            networks of the same cells.
        input_size: Shape ``(C, H, W)`` of one image; default: the data set's.
        num_classes: Outputs of the classifier; default: the data set's.
        options: Run options one by one, which win over ``run``.

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
    run = run_options(run, options, "correlate")
    whole = table if isinstance(table, BenchmarkTable) else load_table(table)
    chosen = _sampled(whole, sample, seed)
    space = _space(space, whole, input_size, num_classes, space_options or {})
    with paused_garbage_collection():
        architectures = _architectures(space, whole, chosen)
    asked, left_out = _asked(proxies, architectures[0])
    check_counts(repeats=repeats, batch_size=1 if batch_size is None else batch_size)
    settings = _plain(
        {
            "space": space.name,
            "space_options": options_of(space),
            "input_size": list(space.input_size),
            "num_classes": space.num_classes,
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
        executor = stack.enter_context(run.open_executor())
        call = _call(whole, space, asked, settings)
        session = RunSession(stack, run, "correlation", settings, FILES, {"call": call})
        score_settings = {
            "batch_size": batch_size,
            "repeats": repeats,
            "standard_error": None,
            "max_repeats": MAX_REPEATS,
            "device": device,
        }
        sample_scores = SampleScores(space, architectures, asked, seed, score_settings)
        state = sample_scores.evaluate(executor, session, run.progress)
        figures = _figures(sample_scores, chosen, seed, batch_size)
        correlation = Correlation(
            space=space.name,
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
            input_size=space.input_size,
            num_classes=space.num_classes,
            left_out=left_out,
            state=state,
            **figures,
        )
        write_files(correlation, session)
    return correlation


def _call(
    table: BenchmarkTable, space: SearchSpace, asked: Sequence[Proxy], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments as JSON, to ask for the same again; None stands for an object that only the caller can give."""
    registered = all(each.info.name in PROXIES and PROXIES[each.info.name] is each.info for each in asked)
    names = ("sample", "seed", "batch_size", "repeats", "device")
    return {
        "table": None if table.loaded_by is None else dict(table.loaded_by),
        "space": None if space.made_by is None else asdict(space.made_by),
        "proxies": [each.key for each in asked] if registered else None,
        **{name: settings[name] for name in names},
        "sample": None if settings["sample"] == len(table) else settings["sample"],
    }


def _figures(sample: SampleScores, chosen: BenchmarkTable, seed: int, batch_size: int | None) -> dict[str, Any]:
    """What of a `Correlation` follows from the scores."""
    places, pool = sample.complete(), sample.scores()
    scored = set(places)
    part = chosen.take(places)
    accuracy = part.accuracy
    resamples = RESAMPLES if len(places) <= MANY_ARCHITECTURES else FEW_RESAMPLES
    signed = {proxy.key: [proxy.sign * scores[proxy.key].value for scores in pool] for proxy in sample.reported}
    sweeps, equal = equal_budgets(
        signed,
        accuracy,
        {"flops": signed["flops"], "params": signed["params"], **_latencies(part)},
        level=LEVEL,
        resamples=resamples,
        seed=seed,
    )
    entries = []
    for proxy in sample.reported:
        values = signed[proxy.key]
        tau = _known(kendall(values, accuracy))
        interval = None
        if tau is not None:
            interval = kendall_interval(values, accuracy, level=LEVEL, resamples=resamples, seed=seed)
        parts = [get_proxy(name) for name in proxy.info.parts] or [proxy]
        weighted = [each for each in parts if each.info.needs_weights]
        inits = {each.info.init for each in weighted}
        sizes = {batch_size or each.info.batch_size for each in weighted}
        alive = any(not math.isnan(value) for value in values)
        entries.append(
            ProxyCorrelation(
                proxy=proxy.key,
                baseline=proxy.key in sample.baselines,
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
                milliseconds=sample.milliseconds(proxy),
                failed=sum(not scores[proxy.key].ok for scores in pool),
                failures=_failures(proxy, pool),
                equal_budget=equal[proxy.key],
            )
        )
    twice = [runs[:2] for runs in part.runs or () if len(runs) > 1]
    return {
        "architectures": len(places),
        "networks": sum(not scored.isdisjoint(members) for members in sample.members),
        "best_accuracy": float(accuracy.max()),
        "ceiling": _known(kendall(*zip(*twice, strict=True))) if twice else None,
        "ceiling_architectures": len(twice),
        "level": LEVEL,
        "resamples": resamples,
        "proxies": tuple(entries),
        "sweeps": sweeps,
        "rows": tuple(part.rows),
        "accuracy": tuple(map(float, accuracy)),
        "scores": {proxy.key: tuple(scores[proxy.key].value for scores in pool) for proxy in sample.reported},
        "strings": tuple(_string(sample, place, part.rows[index]) for index, place in enumerate(places)),
        "reasons": tuple(_reasons(sample.reported, scores) for scores in pool),
    }


def _latencies(table: BenchmarkTable) -> dict[str, Floats]:
    """The columns of latencies; of a table that has them of several data sets, those of its own."""
    others = tuple(prefix for dataset, prefix in COLUMN_PREFIXES.items() if dataset != table.dataset)
    return {
        name: values
        for name, values in table.columns.items()
        if "latency" in name.lower().split("_") and not name.startswith(others)
    }


def _string(sample: SampleScores, place: int, row: str) -> str:
    """An architecture as its space writes it; as the table has it where the space writes nothing."""
    try:
        return sample.space.to_string(sample.architectures[place])
    except ArchitectureError:
        return row


def _reasons(proxies: Sequence[Proxy], scores: Mapping[str, Score]) -> str:
    """Why scores of an architecture failed, on one line."""
    failed = [scores[proxy.key] for proxy in proxies if not scores[proxy.key].ok]
    return "; ".join(f"{score.proxy}: {' '.join(score.reason.split())}" for score in failed)


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
    if table.dataset not in DATASET_IMAGES and (input_size is None or num_classes is None):
        raise DataError(
            f"{table.name} is of the data set {table.dataset!r}, whose images are not known here (those of "
            f"{', '.join(DATASET_IMAGES)} are); give input_size= and num_classes="
        )
    shape, classes = DATASET_IMAGES.get(table.dataset, ((0, 0, 0), 0))
    return get_space(
        space or table.space,
        input_size=shape if input_size is None else input_size,
        num_classes=classes if num_classes is None else num_classes,
        **options,
    )


def _architectures(space: SearchSpace, table: BenchmarkTable, chosen: BenchmarkTable) -> list[Architecture]:
    """The architectures of the chosen rows.

    Raises:
        UnknownNameError: The space has no such notation as the table's.
        DataError: The space can't read a row.
    """
    architectures = []
    for row in chosen.rows:
        try:
            architectures.append(space.from_string(row, table.code))
        except ArchitectureError as error:
            raise DataError(
                f"row {table.index(row) + 1} of {table.name}, {row[:200]!r} in the code {table.code!r}, can't be read "
                f"by the space {space.name!r}: {error}"
            ) from error
    return architectures


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


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def _digest(table: BenchmarkTable) -> str:
    """Changes where a row or an accuracy does, so that a run is not resumed with another table."""
    digest = hashlib.sha256(json.dumps([table.space, table.code, *table.rows]).encode())
    digest.update(table.accuracy.tobytes())
    return digest.hexdigest()[:16]
