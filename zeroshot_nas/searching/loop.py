"""The one search loop, for every space, proxy, strategy and budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import DepthWarning, InfeasibleBudgetError, LatencyWarning, ZeroShotNASError
from zeroshot_nas.execution import get_executor
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.scoring.proxy import Proxy, ProxyFunction, get_proxy
from zeroshot_nas.searchers.base import SEARCHERS, Searcher, SearchResult
from zeroshot_nas.searching.latency_budget import caveats, latency_budget_of
from zeroshot_nas.searching.rounds import RESULT_FILE, Plan, Precision, Search, SearchSession
from zeroshot_nas.searching.start import restart, starting_point
from zeroshot_nas.spaces.base import SearchSpace, get_space, options_of

DEFAULT_PROPOSALS = 2_000
"""Networks that a search proposes where each is scored by a forward pass."""

DEFAULT_SCREENED_PROPOSALS = 100_000
"""Networks that a search proposes where a closed form screens them."""

ISLAND_PROPOSALS = 160_000
"""Proposals of one island unless their number is given."""

DEFAULT_FINALISTS = 200
"""Networks that pass the screen."""

DEFAULT_REPEATS = 2
"""Draws a network gets at first; the leaders get more until they are told apart."""


def search(
    space: str | SearchSpace,
    proxy: str | Proxy | ProxyFunction = "cet",
    budget: Budget | None = None,
    *,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    searcher: str | type[Searcher] = "regularized_evolution",
    proposals: int | None = None,
    screen: Literal["closed_form"] | None = "closed_form",
    finalists: int = DEFAULT_FINALISTS,
    islands: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    standard_error: float = 0.15,
    max_repeats: int = 64,
    device: str | None = None,
    backend: str = "onnxruntime",
    device_table: LatencyTable | str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    cache: str | Path | None = None,
    executor: str | Executor = "serial",
    workers: int | None = None,
    time_limit: float | None = None,
    progress: bool = True,
    **searcher_options: Any,
) -> SearchResult:
    """Searches a space for the network with the best score within a budget; trains nothing.

    A proxy with a closed form is searched in two tiers: the closed form guides the search and keeps the ``finalists``
    best networks, then the forward pass ranks these, and only that decides. A proxy without one, or without one for
    this space, is computed for every network, and one that is nothing but a closed form needs no second tier. An
    aggregate such as ``"az_nas"`` ranks a network among all that were scored before it, and in the end among all.

    The result is a function of these arguments alone: it does not depend on the executor, on the number of workers, or
    on how often a run was killed and resumed (wall times do, and failures of workers).

    A budget with ``latency_ms`` is kept by a device table's prediction while networks are proposed; then finalists are
    measured whole on this machine, best first, and the first within the budget wins. If none of
    `zeroshot_nas.searching.latency_budget.MEASURED_A_ROUND` is, the prediction's limit is divided by the ratio of
    measured to predicted, and the search goes on; no network over its budget is ever returned. Measurements differ from
    run to run: such a search is a function of its arguments, the table, and what was measured, which the run's store
    keeps.

    Args:
        space: A registered space's name, or a `SearchSpace`.
        proxy: What to rank by: a name, a name with options (``"zen:variant=zennas"``) or a function. The default
            needs no limit on depth, and its winners train at least as well as those of ``"zen"`` and run faster
            (``benchmarks/found_vs_hand.py``).
        budget: Upper limits on costs and shape; None sets none.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        searcher: A registered strategy's name, or a `Searcher` class.
        proposals: Networks to propose; duplicates and networks over budget count, so a search always ends. Default:
            `DEFAULT_SCREENED_PROPOSALS` where a closed form screens, else `DEFAULT_PROPOSALS`.
        screen: ``"closed_form"``, or None to score every network by the forward pass.
        finalists: Networks that pass the screen.
        islands: Searches by closed form that share the proposals, each for itself; several workers run several at
            once. Default: one for each `ISLAND_PROPOSALS`.
        seed: Seed of the search and of every score in it: ``score`` with this seed and a history entry's repeats gives
            its value.
        batch_size: Gaussian images a repeat, as in `score`.
        repeats: Draws of weights and images a score has at first.
        standard_error: Standard error to which the leaders' scores are repeated before the best of them wins; leaders
            are those within two standard errors of the best, `LEADERS` at most.
        max_repeats: Where that stops at the latest.
        device: Where to score.
        backend: Engine whose table of this machine predicts latency, where the budget limits it.
        device_table: Another table, or its file: of more threads, say, or of a device that is not here, where latency
            can only be predicted.
        out: Folder for the run: its store, ``result.json`` and ``best.json``. What is in the store is never lost.
        resume: Go on with the run in ``out``; its settings must be these.
        cache: A store of scores that several runs share.
        executor: ``"serial"``, ``"process"``, ``"dask"``, or any ``concurrent.futures.Executor``.
        workers: How many, for an executor given by name; default: all cores.
        time_limit: Seconds that a worker process may take for one score (or one island) before it is killed.
        progress: Whether to show a bar with the best score, the rate and the rejections.
        searcher_options: Options of the strategy, e.g. ``population_size``.

    Returns:
        The best candidate, the history, and what became of every proposal. Stopped by Ctrl-C it returns what it has, in
        state ``"interrupted"``.

    Raises:
        InfeasibleBudgetError: No network of the space fits the budget.
        UnknownNameError: A name that is not registered.
        ProxyError: The proxy is not usable, or failed for every network.
        LatencyError: There is no device table for this machine, or it is another machine's.
        OutputExistsError: ``out`` holds a run, and ``resume`` is not set.
        SettingsChangedError: The run to resume has other settings.
        StoreError: The store can't be read or written; what was in it is intact.

    Warns:
        DepthWarning: The proxy grows with depth, and the budget limits neither layers nor shape.
        LatencyWarning: The device table is of another device, space or input size, or its networks were all faster.

    Example:
        >>> result = search("resnet", budget=Budget(params=1e5), input_size=(1, 8, 8), proposals=300, finalists=5,
        ...                 progress=False)
        >>> result.counts.proposed, result.counts.ranked, result.best.costs.params <= 1e5
        (300, 5, True)
    """
    ranked_by = get_proxy(proxy)
    budget = budget or Budget()
    space = _space(space, input_size, num_classes)
    latency = latency_budget_of(budget, space, device_table, backend)
    start = starting_point(space, budget, latency)
    closed_form_only = not ranked_by.info.parts and not ranked_by.info.needs_weights
    screened = closed_form_only or (screen is not None and _has_closed_form(ranked_by, start))
    proposals = proposals if proposals is not None else DEFAULT_SCREENED_PROPOSALS if screened else DEFAULT_PROPOSALS
    islands = islands if islands is not None else max(1, round(proposals / ISLAND_PROPOSALS)) if screened else 1
    check_counts(proposals=proposals, finalists=finalists, islands=islands)
    if islands > proposals:
        raise ValueError(f"islands must be at most the proposals, {proposals:,}, got {islands:,}")
    if resume and out is None:
        raise ValueError("resume needs out, the folder of the run to go on with")
    strategy = SEARCHERS[searcher] if isinstance(searcher, str) else searcher
    strategy(space, python_rng(seed, 0), start, **searcher_options)  # refuses bad options before anything is written
    precision = Precision(batch_size, repeats, standard_error, max_repeats)
    settings = {
        "space": space.name,
        "space_options": options_of(space),
        "input_size": list(space.input_size),
        "num_classes": space.num_classes,
        "proxy": ranked_by.key,
        "budget": {**budget.limits(), **({"shape": budget.shape.limits()} if budget.shape else {})},
        "searcher": searcher if isinstance(searcher, str) else searcher.__name__,
        "searcher_options": searcher_options,
        "proposals": proposals,
        "screen": "closed_form" if screened else None,
        "finalists": finalists if screened else None,
        "islands": islands if screened else None,
        "seed": seed,
        **vars(precision),
        **({"device_table": latency.table.digest} if latency else {}),
    }
    _warn_of_depth(ranked_by, budget, space)
    for caveat in caveats(latency, space) if latency else ():
        warnings.warn(caveat, LatencyWarning, stacklevel=2)
    with ExitStack() as stack:
        session = SearchSession(stack, out, cache, "search", settings, resume, RESULT_FILE)
        executor = stack.enter_context(get_executor(executor, workers=workers, time_limit=time_limit))
        run = Search(ranked_by, precision, seed, device, executor, session, progress)
        if latency is not None:
            latency.follow(session)
        plan = Plan(space, strategy, searcher_options, start, budget, latency, proposals)
        while True:
            state = run.screen(plan, islands, finalists) if screened else run.score_all(plan)
            run.refuse_if_empty(budget)
            if latency is None:
                break
            winner, state = run.measured(latency, state)
            if winner is not None:
                break
            if state == "interrupted":
                raise InfeasibleBudgetError(f"stopped before any network was measured within {latency.limit_ms:g} ms")
            latency.tighten()
            plan = replace(plan, start=restart(space, budget, latency))
        result = run.result(settings, state)
        if latency is not None:
            assert winner is not None, "the loop ends with one"
            result = replace(result, best=winner, latency=latency.outcome(winner))
        result = result.written_by(space)
        session.finish(result)
    return result


def _has_closed_form(proxy: Proxy, start: Architecture) -> bool:
    """Whether the proxy has a closed form for this space's kind of network."""
    if proxy.info.closed_form is None:
        return False
    try:
        proxy.closed_form(start)
    except ZeroShotNASError:
        return False  # a graph, say: the forward pass scores it
    return True


def _warn_of_depth(proxy: Proxy, budget: Budget, space: SearchSpace) -> None:
    limited = budget.layers is not None or (budget.shape is not None and budget.shape.limits())
    if proxy.info.grows_with_depth and not limited and math.isinf(space.size()):
        warnings.warn(
            f"{proxy.key} grows without limit in depth, and the budget bounds neither layers nor shape: "
            "the winner will be as deep and thin as the other limits allow",
            DepthWarning,
            stacklevel=3,
        )


def _space(space: str | SearchSpace, input_size: Sequence[int] | None, num_classes: int | None) -> SearchSpace:
    if isinstance(space, str):
        return get_space(space, input_size=input_size or (3, 32, 32), num_classes=num_classes or 10)
    for name, given, has in (
        ("input_size", input_size and tuple(input_size), space.input_size),
        ("num_classes", num_classes, space.num_classes),
    ):
        if given is not None and given != has:
            raise ValueError(f"the space has {name} {has}, got {given}; make the space with the one you want")
    return space
