"""`search`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import zeroshot_nas
from zeroshot_nas.cli.base import (
    AccuracyColumn,
    ArchColumn,
    AsJson,
    Backend,
    BatchSize,
    Cache,
    Changes,
    Classes,
    Device,
    Epochs,
    Executor,
    Force,
    Input,
    Log,
    Precision,
    Quiet,
    Repeats,
    Resolutions,
    Resume,
    Scheduler,
    Seed,
    SpaceOption,
    SqueezeExcite,
    TimeLimit,
    Workers,
    app,
    callbacks_of,
    cost_limits,
    cost_rows,
    is_given,
    load_table,
    plan_sayers,
    print_json,
    print_rows,
    read_architecture,
    recipe_changes,
    shows_progress,
    space_of,
    stored_call,
    with_cost_limits,
)
from zeroshot_nas.cli.help import completes, completes_public
from zeroshot_nas.core.options import parsed_option
from zeroshot_nas.costs.reward import as_reward
from zeroshot_nas.searchers.words import bits_rows, certificate_rows, latency_rows

if TYPE_CHECKING:
    from zeroshot_nas.nasbench.hardware import DeviceCosts
    from zeroshot_nas.searchers.base import SearchResult
    from zeroshot_nas.searchers.trial import Trials
    from zeroshot_nas.searching.settings import SearchSettings
    from zeroshot_nas.spaces.base import SearchSpace


@app.command("search")
@with_cost_limits(after="classes")
def search_command(
    ctx: typer.Context,
    space: Annotated[
        str | None,
        typer.Option(
            help="Search space; see `list`. Default: inverted for images below 64 pixels, else vanilla.",
            autocompletion=completes_public("list_spaces"),
        ),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(
            help="What to rank by, e.g. cet or zen:variant=zennas; default: the proxy of --objectives, else ceres "
            "for a short training.",
            autocompletion=completes_public("list_proxies"),
        ),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            help="Search for a front: a proxy and costs, e.g. cet,flops,latency_ms; see `list costs`.",
            autocompletion=completes(lambda: [*zeroshot_nas.list_proxies(), *zeroshot_nas.list_costs()]),
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="Soft target of a cost in place of a limit: flops:target=100M:exponent=-0.07 multiplies the score by "
            "(FLOPs / 100M)^-0.07; form=sum for scores that may be negative, such as cet's, form=log for log(cost)."
        ),
    ] = None,
    image: Input = "3x32x32",
    classes: Classes = 10,
    backend: Backend = "onnxruntime",
    device_table: Annotated[
        str | None,
        typer.Option(
            help="Table that predicts latency, or a table of HW-NAS-Bench and its device, "
            "nb201_hardware.csv.gz:raspi4; default: this machine's for --backend."
        ),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(help="Microcontroller whose RAM and flash limit peak memory and weights; see `list boards`."),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            help="Bits that a layer's weights may have, e.g. 4,8: chosen with the network under --max-weights or "
            "--board."
        ),
    ] = None,
    max_depth_to_width: Annotated[float | None, typer.Option(help="Upper bound on DeepMAD's depth over width.")] = None,
    monotone_widths: Annotated[bool, typer.Option("--monotone-widths", help="Widths never shrink.")] = False,
    max_bottleneck_ratio: Annotated[float | None, typer.Option(help="Upper bound on width over bottleneck.")] = None,
    squeeze_excite: SqueezeExcite = False,
    space_option: SpaceOption = None,
    resolutions: Resolutions = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Table of trained accuracies to look the winner up in, e.g. nasbench201.",
            autocompletion=completes_public("list_tables"),
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set of that table; sets --input and --classes.")] = None,
    arch_column: ArchColumn = None,
    accuracy_column: AccuracyColumn = None,
    searcher: Annotated[
        str | None,
        typer.Option(
            help="Search strategy; see `list`; default: regularized_evolution, nsga2 with --objectives.",
            autocompletion=completes_public("list_searchers"),
        ),
    ] = None,
    searcher_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the strategy, e.g. widths=0.5,1,2 for grid."),
    ] = None,
    first: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Network that is proposed before the strategy's own, e.g. an earlier run's folder or a hand-made one; "
            "can be given again.",
        ),
    ] = None,
    proposals: Annotated[
        int | None, typer.Option(help="Networks to propose; 100,000 with a screen, 2,000 without.")
    ] = None,
    finalists: Annotated[int, typer.Option(help="Networks that pass the closed form's screen.")] = 200,
    no_screen: Annotated[bool, typer.Option("--no-screen", help="Score every network by the forward pass.")] = False,
    repeats: Repeats = 2,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    islands: Annotated[int | None, typer.Option(help="Searches by closed form that share the proposals.")] = None,
    exchanges: Annotated[int | None, typer.Option(help="How often islands pass their elites on; 0: never.")] = None,
    trials: Annotated[
        int,
        typer.Option(
            help="Finalists and hand-made networks to train for a short while on --data; the most accurate wins. All "
            "together take the epochs of one training at most."
        ),
    ] = 0,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set of --trials; see `list`; of data on disk NAME:PATH.",
            autocompletion=completes_public("list_data"),
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Of the training that trials begin; default: standard.",
            autocompletion=completes_public("list_recipes"),
        ),
    ] = None,
    epochs: Epochs = None,
    precision: Precision = None,
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run: run.db, result.json and best.json.")] = None,
    resume: Resume = False,
    cache: Cache = None,
    executor: Executor = "serial",
    workers: Workers = None,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = None,
    log: Log = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    folder: Annotated[Path | None, typer.Argument(hidden=True, metavar="[SPACE]")] = None,
    **_limit_options: str | None,
) -> None:
    """Search a space for the best network within a budget; trains nothing.

    With --trials the best are trained for a short while on --data, and the most accurate wins.
    """
    from zeroshot_nas import search
    from zeroshot_nas.execution import get_executor
    from zeroshot_nas.runs.options import RunOptions
    from zeroshot_nas.spaces.base import SPACES

    options = dict(ctx.params)
    if folder is not None and not resume and str(folder) in SPACES and not is_given(ctx, "space"):
        options["space"] = str(folder)  # `search resnet`
    elif folder is not None:  # `search --resume FOLDER`, as earlier releases had it
        if not resume or out not in (None, folder):
            raise typer.BadParameter(
                f"search takes a space as its one argument; got {str(folder)!r}. A run's folder is --out"
            )
        out = folder
    known = stored_call(out, "search") if resume and out is not None else None
    # refuses what no search can begin with before a folder is touched
    arguments = _arguments(options) if known is None else _arguments_again(ctx, options, known, out or Path())
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as pool:
        run = RunOptions(
            out=out,
            resume=resume,
            force=force,
            cache=cache,
            executor=pool,
            progress=shows_progress(quiet),
            callbacks=[*callbacks_of(log), *plan_sayers(quiet)],
        )
        result = search(**arguments, run=run)
    looked_up = None
    if options["benchmark"] is not None:
        from zeroshot_nas.nasbench.lookup import look_up

        columns = {"arch_column": options["arch_column"], "accuracy_column": options["accuracy_column"]}
        named = {name: column for name, column in columns.items() if column is not None}
        rows = load_table(options["benchmark"], options["dataset"], None, named)
        looked_up = look_up(result.best.architecture, arguments["space"], rows)
    if as_json:
        print_json({**search_data(result, out), "benchmark": None if looked_up is None else looked_up._asdict()})
    else:
        print_search(result, out)
        print_rows([] if looked_up is None else looked_up.rows())
    if result.state == "interrupted":
        raise typer.Exit(130)


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `search` is asked for by the options of the command line.

    Raises:
        ZeroShotNASError: The space, the proxy or the budget is not usable.
    """
    from zeroshot_nas import Budget, SearchSettings
    from zeroshot_nas.searching.objectives import check_reward, ranking, reads_latency
    from zeroshot_nas.searching.start import starting_point

    space, budget, settings = space_of(options), Budget(**_limits(options)), SearchSettings(**settings_of(options))
    proxy, objectives = ranking(options["proxy"], settings.objectives)
    check_reward(settings.reward, proxy, objectives)
    latency: dict[str, Any] = {}
    predicts = budget.latency_ms is not None or reads_latency(objectives, settings.reward)
    if options["device_table"] is not None or predicts:
        table = _device_table(options["device_table"], options["dataset"])
        latency = {"backend": options["backend"], "device_table": table}
    elif options["bits"] is None:
        starting_point(space, budget, None)
    asked = {"space": space, "proxy": proxy, "budget": budget, "settings": settings}
    return {**asked, **latency, **_trials(options, {}), **_bits(options), **_first(options, space)}


def _first(options: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """``first`` as `search` takes it, where it is given."""
    asked = (options["image"], options["classes"], options["squeeze_excite"], space)
    return {"first": [read_architecture(model, *asked) for model in options["first"]]} if options.get("first") else {}


def _bits(options: Mapping[str, Any]) -> dict[str, Any]:
    """``bits`` as `search` takes it, where it is given."""
    text = options.get("bits")
    if text is None:
        return {}
    numbers = text.replace(" ", "").split(",")
    if not all(number.isdecimal() for number in numbers):
        raise typer.BadParameter(f"--bits are some of 2, 4 and 8, e.g. 4,8; got {text!r}")
    return {"bits": tuple(map(int, numbers))}


def _arguments_again(
    ctx: typer.Context, options: Mapping[str, Any], call: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """What a run's search was asked for, with the options that are given now; `search` refuses where they differ."""
    from zeroshot_nas import get_proxy
    from zeroshot_nas.runs.resume import search_arguments

    given = {name: value for name, value in options.items() if is_given(ctx, name)}
    arguments = search_arguments(call, {}, folder)
    if "proxy" in given:
        arguments["proxy"] = get_proxy(given["proxy"])
    if limits := _limits({**dict.fromkeys(options), **given}):
        arguments["budget"] = replace(arguments["budget"], **limits)
    if settings := settings_of(given, arguments["settings"]):
        arguments["settings"] = replace(arguments["settings"], **settings)
    if given.keys() & _OF_SPACE:
        made, asked = arguments["space"].made_by, space_of(options).made_by
        assert made is not None, "a space that a file names was made by name"
        assert asked is not None, "and so is one that the command line names"
        changes: dict[str, Any] = {"options": {**made.options, **asked.options}}
        changes |= {name: getattr(asked, name) for option, name in _OF_SPACE.items() if option in given and name}
        arguments["space"] = replace(made, **changes).make()
    arguments |= {**_trials(given, arguments), **_bits(given)}
    if "first" in given:
        arguments |= _first(options, arguments["space"])
    if "device_table" in given:
        arguments["device_table"] = _device_table(given["device_table"], options["dataset"])
    return arguments


_OF_SPACE = {
    "space": "name",
    "image": "input_size",
    "classes": "num_classes",
    "space_option": "",
    "squeeze_excite": "",
    "resolutions": "",
}
"""Options of the space, and what they are of a `SpaceCall`."""


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that options set, as `Budget` takes them."""
    from zeroshot_nas import StructureBounds, get_board

    limits = cost_limits(options)
    if options.get("board") is not None:
        limits = {**get_board(options["board"]).limits(), **limits}
    bounds = (options["max_depth_to_width"], bool(options["monotone_widths"]), options["max_bottleneck_ratio"])
    structure = StructureBounds(*bounds)
    return {**limits, "structure": structure} if structure.limits() else limits


def settings_of(options: Mapping[str, Any], known: SearchSettings | None = None) -> dict[str, Any]:
    """The settings that options set, as `SearchSettings` takes them; ``known`` are a run's."""
    scores = ("seed", "batch_size", "repeats", "device")
    names = ("searcher", "proposals", "finalists", "islands", "exchanges", *scores, "objectives", "reward")
    settings = {name: options[name] for name in names if name in options}
    if texts := options.get("searcher_option"):
        own = _searcher_options(texts, known or _as_settings(settings))
        settings["searcher_options"] = {**(known.searcher_options if known else {}), **own}
    return {**settings, "screen": not options["no_screen"]} if "no_screen" in options else settings


def _as_settings(options: Mapping[str, Any]) -> SearchSettings:
    from zeroshot_nas import SearchSettings

    return SearchSettings(**options)


def _searcher_options(texts: Sequence[str], settings: SearchSettings) -> dict[str, Any]:
    """The options of a strategy, each in the type that it is annotated with."""
    types = settings.option_types
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--searcher-option is name=value, e.g. population_size=64; got {text!r}")
        options[name] = parsed_option(value, types.get(name, Any))
    try:
        replace(settings, searcher_options=options).refuse_unknown_options()
    except TypeError as error:
        raise typer.BadParameter(str(error)) from None
    return options


def _trials(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """What options say of trials, as `search` takes it; of a run that goes on they change what is known."""
    from zeroshot_nas.searching.trials import DEFAULT_RECIPE
    from zeroshot_nas.training.recipe import get_recipe

    trials = {name: options[name] for name in ("trials", "data", "recipe") if name in options}
    changes = recipe_changes(options.get("epochs"), None, options.get("changes"), options.get("precision"))
    if not changes:
        return trials
    asked = {**known, **trials}
    if not asked.get("trials"):
        given = next((f"--{name}" for name in ("epochs", "precision") if name in changes), "--set")
        raise typer.BadParameter(f"{given} is what trials train by, and there are none; give --trials, such as 8")
    return {**trials, "recipe": get_recipe(asked.get("recipe") or DEFAULT_RECIPE, **changes)}


def _device_table(text: str | None, dataset: str | None) -> str | DeviceCosts | None:
    """What predicts latency: a device table's file, or ``table:device`` of HW-NAS-Bench."""
    from zeroshot_nas.nasbench.hardware import device_costs

    file, colon, device = (text or "").rpartition(":")
    if not colon or not re.fullmatch(r"\w+", device) or Path(text or "").exists():
        return text
    return device_costs(file, device, dataset=dataset or "cifar10")


def search_data(result: SearchResult, out: Path | None) -> dict[str, Any]:
    """What a search came to, for ``--json``: all but the networks that lost, which are in the run's result.json."""
    whole = {
        name: value for name, value in json.loads(result.to_json()).items() if name not in ("history", "trajectory")
    }
    front = [each.to_dict() for each in result.front] if "objectives" in result.settings else None
    return {**whole, "front": front, "out": out}


def print_search(result: SearchResult, out: Path | None) -> None:
    """What a search came to."""
    counts, seconds = result.counts, result.seconds
    rows = [
        ("architecture", result.best.string or result.best.architecture.to_json()),
        *input_rows(result),
        *bits_rows(result.best.architecture),
        *cost_rows(result.best.costs),
        *(latency_rows(result.latency) if result.latency else ()),
        *(("score", str(score)) for score in result.best.scores.values()),
        *_reward_rows(result),
        (
            "proposals",
            f"{counts.proposed:,}: {counts.over_budget:,} over budget, {counts.duplicate:,} duplicate, "
            f"{counts.screened:,} screened, {counts.ranked:,} ranked, {counts.failed:,} failed",
        ),
        (
            "time",
            f"{seconds['total']:.1f} s: {seconds['propose']:.1f} proposing, {seconds['cost']:.1f} counting costs, "
            f"{seconds['screen']:.1f} screening, {seconds['rank']:.1f} ranking"
            + (f", {seconds['measure']:.1f} measuring" if "measure" in seconds else "")
            + (f", {seconds['trials']:.1f} in trials" if "trials" in seconds else ""),
        ),
        *(certificate_rows(result.certificate) if result.certificate else ()),
        *((f"failed {count} times", reason) for reason, count in result.failures.items()),
    ]
    rows += front_rows(result)
    if result.trials is not None:
        rows += trial_rows(result.trials, out)
    if result.state == "interrupted":
        rows.append(("state", "interrupted; this is the best so far"))
    print_rows([*rows, ("written to", str(out))] if out else rows)


def input_rows(result: SearchResult) -> list[tuple[str, str]]:
    """The winner's input size, where the networks of the search differ in it."""
    sizes = {each.architecture.input_size for each in (result.best, *result.history)}
    return [("input", "x".join(map(str, result.best.architecture.input_size)))] if len(sizes) > 1 else []


def _reward_rows(result: SearchResult) -> list[tuple[str, str]]:
    """What the search made of score and cost, where it was asked to."""
    reward = as_reward(result.settings.get("reward"))
    return [] if reward is None else [("reward", f"{result.best.fitness:.6g}, by {reward}")]


SHOWN = 8
"""Networks of a front that are printed."""

MEASURED = 5
"""Objectives up to which a front's hypervolume is printed; beyond it takes long."""


def front_rows(result: SearchResult) -> list[tuple[str, str]]:
    """The front of a search that was asked for one: its size, hypervolume, and some networks, the best score first."""
    if "objectives" not in result.settings:
        return []
    front = result.front
    size = f"{len(front)} networks" if len(front) > 1 else "1 network: it is as good as any other in every objective"
    few = sorted(front(SHOWN), key=lambda candidate: -candidate.fitness)
    quick = len(front.objectives) <= MEASURED
    volume = str(front.hypervolume()) if quick else "takes minutes of so many objectives; result.hypervolume() has it"
    rows = [("front", size), ("hypervolume", volume)]
    for candidate in few:
        values = (f"{each.name} {_short(each.value(candidate))}" for each in front.objectives)
        rows.append(("", ", ".join(values)))
    return rows


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def trial_rows(trials: Trials, out: Path | None) -> list[tuple[str, str]]:
    """What became of the trials, and how their winner goes on."""
    winner = trials.winner
    if out is None or winner is None or not winner.accuracies:
        return trials.rows()
    return [*trials.rows(), ("full training", f"zeroshot-nas resume {out / 'trials' / winner.name}")]
