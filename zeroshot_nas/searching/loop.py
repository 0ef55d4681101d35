"""The one search loop, for every space, proxy, strategy and budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import DepthWarning, InfeasibleBudgetError, LatencyWarning, ZeroShotNASError
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.scoring.proxy import DEFAULT_PROXY, Proxy, ProxyFunction, get_proxy
from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.searching.call import call_of
from zeroshot_nas.searching.latency_budget import caveats, latency_budget_of
from zeroshot_nas.searching.rounds import FILES, Plan, Search, SearchSession
from zeroshot_nas.searching.settings import SearchSettings
from zeroshot_nas.searching.start import restart, starting_point
from zeroshot_nas.spaces.base import SearchSpace, get_space, options_of


def search(
    space: str | SearchSpace,
    proxy: str | Proxy | ProxyFunction = DEFAULT_PROXY,
    budget: Budget | None = None,
    settings: SearchSettings | None = None,
    run: RunOptions | None = None,
    *,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    backend: str = "onnxruntime",
    device_table: LatencyTable | str | Path | None = None,
    **options: Any,
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
        budget: Upper limits on costs and structure; None sets none.
        settings: How to search: strategy, proposals, seed, repeats and so on; see `SearchSettings`.
        run: Where the run is written and by what it is computed; see `RunOptions`.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        backend: Engine whose table of this machine predicts latency, where the budget limits it.
        device_table: Another table, or its file: of more threads, say, or of a device that is not here, where latency
            can only be predicted.
        options: Settings and run options one by one, which win over ``settings`` and ``run``, and options of the
            strategy: ``seed=3, out="runs/a", population_size=64``. A run in ``out`` holds its store, ``result.json``
            and ``best.json``.

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
        DepthWarning: The proxy grows with depth, and the budget limits neither layers nor structure.
        LatencyWarning: The device table is of another device, space or input size, or its networks were all faster.

    Example:
        >>> result = search("resnet", budget=Budget(params=1e5), input_size=(1, 8, 8), proposals=300, finalists=5,
        ...                 progress=False)
        >>> result.counts.proposed, result.counts.ranked, result.best.costs.params <= 1e5
        (300, 5, True)
    """
    ranked_by = get_proxy(proxy)
    budget = budget or Budget()
    run, rest = (run or RunOptions()).updated(options)
    settings = (settings or SearchSettings()).updated(rest)
    space = _space(space, input_size, num_classes)
    latency = latency_budget_of(budget, space, device_table, backend)
    start = starting_point(space, budget, latency)
    closed_form_only = not ranked_by.info.parts and not ranked_by.info.needs_weights
    screened = closed_form_only or (bool(settings.screen) and _has_closed_form(ranked_by, start))
    settings = settings.counted(screened)
    # refuses bad options before anything is written
    settings.strategy(space, python_rng(settings.seed, 0), start, **settings.searcher_options)
    asked = {
        "space": space.name,
        "space_options": options_of(space),
        "input_size": list(space.input_size),
        "num_classes": space.num_classes,
        "proxy": ranked_by.key,
        "budget": {**budget.limits(), **({"structure": budget.structure.limits()} if budget.structure else {})},
        **settings.to_dict(screened),
        **({"device_table": latency.table.digest} if latency else {}),
    }
    _warn_of_depth(ranked_by, budget, space)
    for caveat in caveats(latency, space) if latency else ():
        warnings.warn(caveat, LatencyWarning, stacklevel=2)
    with ExitStack() as stack:
        call = call_of(space, ranked_by, budget, settings, backend, device_table)
        session = SearchSession(stack, run, "search", asked, FILES, {"call": call})
        executor = stack.enter_context(run.open_executor())
        search = Search(ranked_by, settings, executor, session, run.progress)
        if latency is not None:
            latency.follow(session)
        plan = Plan(space, settings, start, budget, latency)
        while True:
            state = search.screen(plan) if screened else search.score_all(plan)
            search.refuse_if_empty(budget)
            if latency is None:
                break
            winner, state = search.measured(latency, state)
            if winner is not None:
                break
            if state == "interrupted":
                raise InfeasibleBudgetError(f"stopped before any network was measured within {latency.limit_ms:g} ms")
            latency.tighten()
            plan = replace(plan, start=restart(space, budget, latency))
        result = search.result(asked, state)
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
    limited = budget.layers is not None or (budget.structure is not None and budget.structure.limits())
    if proxy.info.grows_with_depth and not limited and math.isinf(space.size()):
        warnings.warn(
            f"{proxy.key} grows without limit in depth, and the budget bounds neither layers nor structure: "
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
