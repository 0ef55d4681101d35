"""The one search loop, for every space, proxy, strategy and budget."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture
from zeroshot_nas.core.state import RunState
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import InfeasibleBudgetError
from zeroshot_nas.latency.device_table import LatencyTable
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.scoring.proxy import Proxy, ProxyFunction
from zeroshot_nas.searchers.base import Candidate, SearchResult
from zeroshot_nas.searching.certificate import certified
from zeroshot_nas.searching.request import Request, request
from zeroshot_nas.searching.rounds import FILES, Search, SearchSession
from zeroshot_nas.searching.settings import SearchSettings
from zeroshot_nas.searching.start import restart
from zeroshot_nas.searching.trial_runs import check_data, remove_replaced_trials, with_trials
from zeroshot_nas.searching.trials import trial_settings
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.training.base import ImageData
from zeroshot_nas.training.recipe import Recipe


def search(
    space: str | SearchSpace | None = None,
    proxy: str | Proxy | ProxyFunction | None = None,
    budget: Budget | None = None,
    settings: SearchSettings | None = None,
    run: RunOptions | None = None,
    *,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    backend: str = "onnxruntime",
    device_table: LatencyTable | str | Path | None = None,
    trials: int = 0,
    data: str | ImageData | None = None,
    recipe: Recipe | str | None = None,
    first: Sequence[Architecture | HasArchitecture] = (),
    bits: Sequence[int] | None = None,
    **options: Any,
) -> SearchResult:
    """Searches a space for the network with the best score within a budget; trains nothing unless trials are asked for.

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

    With ``objectives``, the proxy and costs, a front is searched for (by ``"nsga2"`` unless another strategy is named):
    networks of which none is beaten by another in every objective. The screen then keeps such networks, spread along
    the front where they are more than ``finalists``; `SearchResult.front` is the front of those that the proxy itself
    scored, and the best its fittest. A latency among the objectives is the device table's prediction.

    With ``reward`` every strategy maximises a score and a cost as one number, a soft target in place of a limit; see
    `zeroshot_nas.Reward`.

    With ``trials`` the best finalists and hand-made networks within the budget, no two of them alike, are trained for a
    short while, by successive halving, and the most accurate on validation images is the best
    (`zeroshot_nas.searching.trials`). All trials together have at most the epochs of one full training, which the
    winner can go on to, by `resume` of its folder, ``trials/NAME`` in ``out``. A trial runs on one thread, several at
    once where the executor has several workers.

    Args:
        space: A registered space's name, or a `SearchSpace`; default:
            `zeroshot_nas.spaces.base.default_space`, by the size of images.
        proxy: What to rank by: a name, a name with options (``"zen:variant=zennas"``) or a function. Default: the one
            that the objectives name, or else ``"ceres:images=10000:steps=1250"``, which is made for networks of one
            budget and needs no limit on depth. What it finds for so short a training is also what trains best for
            three times as long, and after 25 times as long its winner is still ahead of the best ResNet.
        budget: Upper limits on costs and structure; None sets none.
        settings: How to search: strategy, proposals, seed, repeats and so on; see `SearchSettings`.
        run: Where the run is written and by what it is computed; see `RunOptions`.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        backend: Engine whose table of this machine predicts latency, where the budget limits it.
        device_table: Another table, or its file: of more threads, say, or of a device that is not here, where latency
            can only be predicted.
        trials: Networks to try at most, half of them hand-made; 0 trains none.
        data: What trials are trained on: a name, with a path where it has one (`load_data`), or images of your own.
        recipe: Of the full training, or its name; trials are its first epochs. Default: ``"standard"``.
        first: Networks of the space that are proposed before the strategy's own, and told to it: what is known to be
            good, as winners of neighbouring budgets (`zeroshot_nas.family`). They count as proposals.
        bits: What the weights of a layer may have, as ``(4, 8)``, under a limit on ``weights``: every network is costed
            and scored with those bits that lose least within the limit (`zeroshot_nas.allocate_bits`), and the result
            has them (`Architecture.weight_bits`). Needs a score that knows bits, ``ceres`` or ``cet``. Default: 8.
        options: Settings and run options one by one, which win over ``settings`` and ``run``, and options of the
            strategy: ``seed=3, out="runs/a", population_size=64``. A run in ``out`` holds its store, ``result.json``
            and ``best.json``, and trials below ``trials``.

    Returns:
        The best candidate, the history, and what became of every proposal. Stopped by Ctrl-C it returns what it has, in
        state ``"interrupted"``.

    Raises:
        InfeasibleBudgetError: No network of the space fits the budget.
        ArchitectureError: A network that is to be proposed first is not of the space.
        UnknownNameError: A name that is not registered.
        ProxyError: The proxy is not usable, or failed for every network.
        ObjectiveError: Objectives name two proxies, or a reward does not suit the proxy.
        ValueError: Trials lack data, or there are data without trials, or trials and bits.
        BudgetError: Bits are not of 2, 4 and 8, or ``weights`` has no limit.
        DataError: The data of trials are not there, or have another number of classes.
        RecipeError: The recipe holds no validation images out, or has fewer epochs than there are trials.
        TrainingError: No trial could be trained.
        LatencyError: There is no device table for this machine, or it is another machine's.
        OutputExistsError: ``out`` holds a run, and ``resume`` is not set.
        SettingsChangedError: The run to resume has other settings.
        StoreError: The store can't be read or written; what was in it is intact.

    Warns:
        DepthWarning: The proxy grows with depth, and the budget limits neither layers nor structure.
        ProposalsWarning: A grid has more networks than there are proposals, or one of ``first`` is over the budget.
        LatencyWarning: The device table is of another device, space or input size, or its networks were all faster.

    Example:
        >>> result = search("resnet", budget=Budget(params=1e5), input_size=(1, 8, 8), proposals=300, finalists=5,
        ...                 progress=False)
        >>> result.counts.proposed, result.counts.ranked, result.best.costs.params <= 1e5
        (300, 5, True)
        >>> result = search("resnet", budget=Budget(params=1e5), input_size=(1, 8, 8), proposals=300,
        ...                 objectives=("cet", "flops"), progress=False)
        >>> [each.name for each in result.objectives], result.best in result.front, result.hypervolume() > 0
        (['cet', 'flops'], True, True)
    """
    asked = request(
        space,
        proxy,
        budget,
        settings,
        run,
        input_size=input_size,
        num_classes=num_classes,
        backend=backend,
        device_table=device_table,
        options=options,
        trials=trial_settings(trials, data, recipe),
        first=first,
        bits=bits,
    )
    check_data(asked)
    with ExitStack() as stack:
        session = SearchSession(
            stack, asked.run, "search", asked.filed_under, FILES, {"call": asked.call, "sign": asked.proxy.sign}
        )
        remove_replaced_trials(asked.run)
        executor = stack.enter_context(asked.run.open_executor())
        found = Search(asked.space, asked.proxy, asked.settings, executor, session, asked.run.progress)
        winner, state = _within_latency(asked, found) if asked.latency else (None, _ranked(asked, found, asked.start))
        result = found.result(asked.filed_under, state)
        if asked.latency and winner:
            result = replace(result, best=winner, latency=asked.latency.outcome(winner))
        result = certified(asked, result)
        if asked.trials and result.state == "done":
            result = with_trials(asked, found, result)
        result = result.written_by(asked.space)
        session.finish(result)
    return result


def _ranked(asked: Request, found: Search, start: Architecture) -> RunState:
    """One round of proposals, scored and ranked.

    Raises:
        ProxyError: Every score failed.
        InfeasibleBudgetError: Nothing fitted the budget.
    """
    plan = asked.plan(start)
    state = found.screen(plan) if asked.screened else found.score_all(plan)
    found.refuse_if_empty(asked.budget)
    return state


def _within_latency(asked: Request, found: Search) -> tuple[Candidate, RunState]:
    """Rounds with an ever tighter prediction, until a network keeps to the limit when it is measured."""
    latency, start = asked.latency, asked.start
    assert latency is not None, "asked for"
    latency.follow(found.session)
    while True:
        winner, state = found.measured(latency, _ranked(asked, found, start))
        if winner is not None:
            return winner, state
        if state == "interrupted":
            raise InfeasibleBudgetError(f"stopped before any network was measured within {latency.limit_ms:g} ms")
        latency.tighten()
        start = restart(asked.space, asked.budget, latency, asked.stored)
