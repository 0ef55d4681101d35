"""`search`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    Backend,
    BatchSize,
    Cache,
    Classes,
    Device,
    Executor,
    Force,
    Input,
    Quiet,
    Repeats,
    Scheduler,
    Seed,
    SpaceOption,
    SqueezeExcite,
    Workers,
    app,
    cost_rows,
    limit_parameters,
    load_table,
    parse_quantity,
    print_rows,
    space_of,
    with_cost_limits,
)
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.errors import FileFormatError, OutputExistsError, SettingsChangedError
from zeroshot_nas.execution import get_executor
from zeroshot_nas.runs.store import FILE_NAME, Store, open_run, settings_difference

if TYPE_CHECKING:
    from zeroshot_nas.nasbench.hardware import DeviceCosts
    from zeroshot_nas.searchers.base import SearchResult
    from zeroshot_nas.spaces.base import SearchSpace


@app.command("search")
@with_cost_limits(after="classes")
def search_command(
    ctx: typer.Context,
    space: Annotated[str, typer.Option(help="Search space; see `list`.")] = "resnet",
    proxy: Annotated[str, typer.Option(help="What to rank by, e.g. cet, zen or zen:variant=zennas.")] = "cet",
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
    max_depth_to_width: Annotated[float | None, typer.Option(help="Upper bound on DeepMAD's depth over width.")] = None,
    monotone_widths: Annotated[bool, typer.Option("--monotone-widths", help="Widths never shrink.")] = False,
    max_bottleneck_ratio: Annotated[float | None, typer.Option(help="Upper bound on width over bottleneck.")] = None,
    squeeze_excite: SqueezeExcite = False,
    space_option: SpaceOption = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Table of trained accuracies to look the winner up in, e.g. nasbench201.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set of that table; sets --input and --classes.")] = None,
    arch_column: Annotated[str | None, typer.Option(help="That table's column of architectures, if a CSV.")] = None,
    accuracy_column: Annotated[str | None, typer.Option(help="That table's column of accuracies, if a CSV.")] = None,
    searcher: Annotated[str, typer.Option(help="Search strategy; see `list`.")] = "regularized_evolution",
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
    out: Annotated[Path | None, typer.Option(help="Folder for the run: run.db, result.json and best.json.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    cache: Cache = None,
    executor: Executor = "serial",
    workers: Workers = None,
    scheduler: Scheduler = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds a score may take in a worker process.")] = None,
    force: Force = False,
    quiet: Quiet = False,
    **_limits: str | None,
) -> None:
    """Search a space for the best network within a budget; trains nothing."""
    from zeroshot_nas import search

    options = {name: value for name, value in ctx.params.items() if name not in _RUN_OPTIONS}
    folder = resume or out
    if resume is not None:
        given = {name: str(v) if isinstance(v, Path) else v for name, v in options.items() if _is_given(ctx, name)}
        options = _stored_options(resume, given)
    arguments = _arguments(options)  # refuses what no search can begin with before a folder is touched
    if resume is None and out is not None:
        _refuse_to_overwrite(out, force)
        with open_run(out) as run:
            run.store.set_fact("options", {name: str(v) if isinstance(v, Path) else v for name, v in options.items()})
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as workforce:
        result = search(
            **arguments, out=folder, resume=resume is not None, cache=cache, executor=workforce, progress=not quiet
        )
    where = arguments["space"]
    _print_search(result, where, folder)
    if options["benchmark"] is not None:
        from zeroshot_nas.nasbench.lookup import look_up

        columns = {"arch_column": options["arch_column"], "accuracy_column": options["accuracy_column"]}
        named = {name: column for name, column in columns.items() if column is not None}
        rows = load_table(options["benchmark"], options["dataset"], None, named)
        print_rows(look_up(result.best.architecture, where, rows).rows())
    if result.state == "interrupted":
        raise typer.Exit(130)


_RUN_OPTIONS = {"out", "resume", "cache", "executor", "workers", "scheduler", "time_limit", "force", "quiet"}
"""Options that say how a search is run, not what it finds."""


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `search` is asked for by the options of the command line.

    Raises:
        ZeroShotNASError: The space, the proxy or the budget is not usable.
    """
    from zeroshot_nas import Budget, ShapeBounds, get_proxy
    from zeroshot_nas.searching.start import starting_point

    numbers: dict[str, Any] = {
        name: parse_quantity(options[parameter], COSTS[name].option, COSTS[name].parse)
        for name, parameter in limit_parameters().items()
        if options.get(parameter) is not None
    }
    latency: dict[str, Any] = {}
    if options.get("device_table") is not None or "latency_ms" in numbers:
        table = _device_table(options["device_table"], options["dataset"])
        latency = {"backend": options["backend"], "device_table": table}
    shape = ShapeBounds(options["max_depth_to_width"], options["monotone_widths"], options["max_bottleneck_ratio"])
    same = ("searcher", "proposals", "finalists", "islands", "seed", "batch_size", "repeats", "device")
    space, budget = space_of(options), Budget(**numbers, shape=shape if shape.limits() else None)
    if not latency:
        starting_point(space, budget, None)
    return {
        "space": space,
        "proxy": get_proxy(options["proxy"]),
        "budget": budget,
        "screen": None if options["no_screen"] else "closed_form",
        **{name: options[name] for name in same},
        **latency,
    }


def _device_table(text: str | None, dataset: str | None) -> str | DeviceCosts | None:
    """What predicts latency: a device table's file, or ``table:device`` of HW-NAS-Bench."""
    from zeroshot_nas.nasbench.hardware import device_costs

    file, colon, device = (text or "").rpartition(":")
    if not colon or not re.fullmatch(r"\w+", device) or Path(text or "").exists():
        return text
    return device_costs(file, device, dataset=dataset or "cifar10")


def _stored_options(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run to be resumed.

    Raises:
        FileFormatError: The folder holds no run of the command line.
        SettingsChangedError: An option was given that differs.
    """
    with Store(folder / FILE_NAME, read_only=True) as store:
        options = store.fact("options")
    if not isinstance(options, dict):
        raise FileFormatError(f"{folder} holds no search that the command line began; resume it from Python")
    if difference := settings_difference({name: options.get(name) for name in given}, given):
        changes = "; ".join(difference)
        raise SettingsChangedError(f"{folder} was begun with other options, so it is not resumed. {changes}")
    return options


def _refuse_to_overwrite(folder: Path, force: bool) -> None:
    files = [folder / name for name in (FILE_NAME, "result.json", "best.json")]
    if any(file.exists() for file in files) and not force:
        raise OutputExistsError(
            f"{folder} already holds a run; go on with it by --resume, choose another --out, or overwrite it with "
            "--force"
        )
    with open_run(folder):  # not while another process works in it
        pass
    for file in [*files, *(folder / f"{FILE_NAME}{suffix}" for suffix in ("-wal", "-shm"))]:
        file.unlink(missing_ok=True)


def _print_search(result: SearchResult, space: SearchSpace, out: Path | None) -> None:
    counts, seconds = result.counts, result.seconds
    rows = [
        ("architecture", space.to_string(result.best.architecture)),
        *cost_rows(result.best.costs),
        *(_latency_rows(result.latency) if result.latency else ()),
        *(("score", str(score)) for score in result.best.scores.values()),
        (
            "proposals",
            f"{counts.proposed:,}: {counts.over_budget:,} over budget, {counts.duplicate:,} duplicate, "
            f"{counts.screened:,} screened, {counts.ranked:,} ranked, {counts.failed:,} failed",
        ),
        (
            "time",
            f"{seconds['total']:.1f} s: {seconds['propose']:.1f} proposing, {seconds['cost']:.1f} counting costs, "
            f"{seconds['screen']:.1f} screening, {seconds['rank']:.1f} ranking"
            + (f", {seconds['measure']:.1f} measuring" if "measure" in seconds else ""),
        ),
        *((f"failed {count} times", reason) for reason, count in result.failures.items()),
    ]
    if result.state == "interrupted":
        rows.append(("state", "interrupted; this is the best so far"))
    print_rows([*rows, ("written to", str(out))] if out else rows)


def _latency_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a latency budget was kept, in words."""
    predicted = f"{found['predicted_ms']:.3g} ms predicted"
    if found["measured_ms"] is None:
        text = f"{predicted} for {found['device']} with {found['backend']}, which is not here to be measured"
    else:
        text = f"{found['measured_ms']:.3g} ms measured on {found['backend']}, {predicted}"
    rows = [("latency", f"{text}; the budget is {found['limit_ms']:g} ms")]
    if found["measured_ms"] is not None:
        limits = [f"{limit:.3g}" for limit in found["prediction_limits_ms"]]
        count = len(found["measurements"])
        tightened = f"; predictions tightened to {', '.join(limits[1:])} ms" if len(limits) > 1 else ""
        rows.append(("finalists measured", f"{count}, {count - 1} of them over the budget{tightened}"))
    return rows
