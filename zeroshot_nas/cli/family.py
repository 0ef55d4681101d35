"""`family` and `train-family`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    AsJson,
    Backend,
    BatchSize,
    Cache,
    Changes,
    Classes,
    Epochs,
    Executor,
    Force,
    ImagesPerStep,
    Input,
    Log,
    Precision,
    Quiet,
    RecipeName,
    Repeats,
    Scheduler,
    Seed,
    SpaceOption,
    SqueezeExcite,
    TimeLimit,
    TrainingData,
    Workers,
    app,
    callbacks_of,
    is_given,
    limit_parameters,
    parse_quantity,
    print_result,
    recipe_of,
    shows_progress,
    space_of,
    stored_call,
    with_cost_limits,
)
from zeroshot_nas.cli.help import completes, completes_public
from zeroshot_nas.cli.search import settings_of
from zeroshot_nas.costs.base import COSTS

if TYPE_CHECKING:
    from zeroshot_nas.families.targets import Target

HERE = "here"
"""What ``--device`` calls this machine, whose own table predicts then."""

WAYS = ("slice", "grow", "scratch")

_OF_RUN = (
    *("out", "resume", "force", "cache", "executor", "workers", "scheduler", "time_limit", "log", "quiet"),
    "as_json",
)


@app.command("family")
@with_cost_limits(after="targets")
def family_command(
    ctx: typer.Context,
    space: Annotated[
        str, typer.Option(help="Search space; see `list`.", autocompletion=completes_public("list_spaces"))
    ] = "resnet",
    proxy: Annotated[
        str | None,
        typer.Option(
            help="What to rank by; default: ceres for a short training.",
            autocompletion=completes_public("list_proxies"),
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="FILE:LIMIT",
            help="A member for a device: its table and a limit, phone.json:4ms; here:4ms is this machine.",
        ),
    ] = None,
    nested: Annotated[
        bool, typer.Option("--nested", help="Each member contains the next one, so that weights can be inherited.")
    ] = False,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    space_option: SpaceOption = None,
    backend: Backend = "onnxruntime",
    searcher: Annotated[
        str | None,
        typer.Option(
            help="Search strategy; see `list`; default: regularized_evolution.",
            autocompletion=completes_public("list_searchers"),
        ),
    ] = None,
    searcher_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the strategy, e.g. widths=0.5,1,2 for grid."),
    ] = None,
    proposals: Annotated[
        int | None,
        typer.Option(help="Networks to propose; 100,000 with a screen, 2,000 without."),
    ] = None,
    finalists: Annotated[int, typer.Option(help="Networks that pass the closed form's screen.")] = 200,
    no_screen: Annotated[bool, typer.Option("--no-screen", help="Score every network by the forward pass.")] = False,
    repeats: Repeats = 2,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run: family.json, and an architecture file a member.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, as it was asked for.")] = False,
    cache: Cache = None,
    executor: Executor = "serial",
    workers: Workers = None,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = None,
    log: Log = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **_limit_options: str | None,
) -> None:
    """Search a space for one network a budget: a limit with several values, or several devices.

    --max-params 1M,500k,200k are three members, each --device is one more. A limit with one value holds for all. All
    members share --proposals and --finalists, and take about the time of one search.
    """
    import zeroshot_nas as zs
    from zeroshot_nas.execution import get_executor
    from zeroshot_nas.runs.options import RunOptions

    options = dict(ctx.params)
    call = stored_call(out, "family") if resume and out is not None else None
    given = [name for name in options if name not in _OF_RUN and is_given(ctx, name)]
    if call is None or given:
        arguments = _arguments(options)
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as pool:
        how: dict[str, Any] = {"progress": shows_progress(quiet), "callbacks": callbacks_of(log), "cache": cache}
        run = RunOptions(out=out, resume=resume, force=force, executor=pool, **how)
        # a run that goes on and is told nothing knows what it was asked for
        found: Any = zs.resume(out or Path(), run) if call and not given else zs.family(**arguments, run=run)
    written = [("written to", str(out))] if out is not None else []
    print_result(as_json, lambda: {**found.to_dict(), "out": out}, lambda: [*found.rows(), *written])
    if found.state == "interrupted":
        raise typer.Exit(130)


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `family` is asked for by the options of the command line."""
    from zeroshot_nas import SearchSettings

    budgets = _budgets(options)
    space = space_of({**options, "dataset": None})
    asked = {"space": space, "proxy": options["proxy"], "settings": SearchSettings(**settings_of(options))}
    return {**asked, "budgets": budgets, "nested": options["nested"], "backend": options["backend"]}


def _budgets(options: Mapping[str, Any]) -> list[Target]:
    """A member for each device, and for each value of the limits that have several."""
    from zeroshot_nas import Budget, Target

    values: dict[str, list[Any]] = {}
    for name, parameter in limit_parameters().items():
        if options.get(parameter) is not None:
            info = COSTS[name]
            texts = [text for text in str(options[parameter]).split(",") if text.strip()]
            values[name] = [parse_quantity(text.strip(), info.option, info.parse) for text in texts]
            if not texts:
                raise typer.BadParameter(f"{info.option} needs a value, or several separated by commas")
    members = max((len(each) for each in values.values()), default=0)
    for name, each in values.items():
        if len(each) not in (1, members):
            raise typer.BadParameter(
                f"limits with several values must have equally many: {COSTS[name].option} has {len(each)}, another "
                f"has {members}"
            )
    common = {name: each[0] for name, each in values.items() if len(each) == 1}
    several = {name: each for name, each in values.items() if len(each) > 1}
    devices = options.get("targets") or ()
    budgets = [_device(text, common) for text in devices]
    budgets += [
        Target(Budget(**common, **{name: each[place] for name, each in several.items()}))
        for place in range(members if several else 0)
    ]
    if not budgets and common:
        budgets = [Target(Budget(**common))]
    if not budgets:
        raise typer.BadParameter(
            "a family needs a budget for each member, such as --max-params 1M,500k,200k or --device phone.json:4ms"
        )
    return budgets


def _device(text: str, common: Mapping[str, Any]) -> Target:
    from zeroshot_nas import Budget, Target

    file, colon, limit = text.rpartition(":")
    if not colon or not file:
        raise typer.BadParameter(f"--device is a table's file and a limit, such as phone.json:4ms; got {text!r}")
    if "latency_ms" in common:
        raise typer.BadParameter("--device has its own limit on latency; leave out --max-latency")
    latency = parse_quantity(limit, "--device's limit", COSTS["latency_ms"].parse)
    return Target(Budget(**common, latency_ms=latency), None if file == HERE else file)


@app.command("train-family")
def train_family_command(
    family: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a family, or its family.json.")],
    data: TrainingData = "digits",
    recipe: RecipeName = "standard",
    epochs: Epochs = None,
    batch_size: ImagesPerStep = None,
    precision: Precision = None,
    changes: Changes = None,
    way: Annotated[
        str,
        typer.Option(
            help="slice: large to small; grow: small to large; scratch: each for itself.",
            autocompletion=completes(lambda: WAYS),
        ),
    ] = "slice",
    share: Annotated[float, typer.Option(help="Of the epochs, for members that inherit weights.")] = 0.25,
    distill: Annotated[bool, typer.Option("--distill", help="Let the others learn from the largest, too.")] = False,
    seed: Seed = 0,
    device: Annotated[str | None, typer.Option(help="Torch device, e.g. cuda.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: trained-WAY in the family's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    log: Log = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train the members of a nested family; all but one begin with a neighbour's weights, and take fewer epochs.

    Each training has its own folder below members, for `export`, `predict` and so on.
    """
    from zeroshot_nas import train_family

    chosen = recipe_of(recipe, epochs, batch_size, precision, changes)
    taught = "-distilled" if distill else ""
    out = out or (family if family.is_dir() else family.parent) / f"trained-{way}{taught}"
    how: dict[str, Any] = {"share": share, "distill": distill, "seed": seed, "device": device, "way": way}
    how |= {"out": out, "resume": resume, "force": force, "progress": shows_progress(quiet)}
    trained = train_family(family, data, chosen, callbacks=callbacks_of(log), **how)
    print_result(
        as_json, lambda: {**trained.to_dict(), "out": out}, lambda: [*trained.rows(), ("written to", str(out))]
    )
    if trained.state == "interrupted":
        raise typer.Exit(130)
