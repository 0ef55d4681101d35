"""`correlate` and `convert`: tables of trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import zeroshot_nas
from zeroshot_nas.cli.base import (
    AccuracyColumn,
    ArchColumn,
    AsJson,
    BatchSize,
    Cache,
    Dataset,
    Device,
    Executor,
    Force,
    Log,
    Quiet,
    Repeats,
    Resolutions,
    Scheduler,
    Seed,
    SpaceOption,
    Split,
    TableOption,
    TimeLimit,
    Workers,
    app,
    callbacks_of,
    is_given,
    load_table,
    parse_options,
    parse_shape,
    print_result,
    shows_progress,
    space_options,
    stored_call,
)
from zeroshot_nas.cli.help import completes, completes_public
from zeroshot_nas.errors import OutputExistsError


@app.command("correlate")
def correlate_command(
    ctx: typer.Context,
    proxies: Annotated[
        str,
        typer.Option(
            "--proxies",
            "--proxy",
            help="Proxies, separated by commas, or all.",
            autocompletion=completes(lambda: ["all", *zeroshot_nas.list_proxies()]),
        ),
    ] = "zen,naswot,synflow,az_nas",
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="A table that a package holds: vcn or nasbench201.", autocompletion=completes_public("list_tables")
        ),
    ] = None,
    table: Annotated[str | None, typer.Option(help="A file or folder of a benchmark, or a CSV file.")] = None,
    dataset: Dataset = None,
    split: Split = None,
    table_option: TableOption = None,
    space: Annotated[
        str | None,
        typer.Option(help="Space of a CSV file's architectures.", autocompletion=completes_public("list_spaces")),
    ] = None,
    arch_column: ArchColumn = None,
    accuracy_column: AccuracyColumn = None,
    image: Annotated[
        str | None, typer.Option("--input", help="Shape of one image, CxHxW; default: the data's.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs of the classifier; default: the data set's.")] = None,
    space_option: SpaceOption = None,
    resolutions: Resolutions = None,
    sample: Annotated[int | None, typer.Option(help="Architectures to score; default: all.")] = None,
    repeats: Repeats = 1,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run: run.db, report, scores and plots.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; without a table as the run has it.")
    ] = False,
    cache: Cache = None,
    executor: Executor = "process",
    workers: Workers = None,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = None,
    log: Log = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """How well proxies order the architectures of a benchmark by their trained accuracy."""
    from zeroshot_nas.execution import get_executor
    from zeroshot_nas.nasbench.correlate import correlate
    from zeroshot_nas.runs.resume import resume as go_on

    if resume and out is not None and benchmark is None and table is None and stored_call(out, "correlation"):
        with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as workforce:
            names = ("sample", "repeats", "batch_size", "seed", "device")  # refused where they are not the run's
            how: dict[str, Any] = {name: ctx.params[name] for name in names if is_given(ctx, name)}
            how |= {"proxies": proxies.split(",")} if is_given(ctx, "proxies") else {}
            how |= {"progress": shows_progress(quiet), "callbacks": callbacks_of(log)}
            _print(go_on(out, executor=workforce, cache=cache, **how), as_json)
        return
    if (benchmark is None) == (table is None):
        raise typer.BadParameter("give either --benchmark (a table in a package) or --table (a file)")
    columns = {"arch_column": arch_column, "accuracy_column": accuracy_column, "space": space}
    named = {name: column for name, column in columns.items() if column is not None}
    rows = load_table(benchmark or table or "", dataset, split, {**named, **parse_options(table_option)})
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as workforce:
        found = correlate(
            "all" if proxies == "all" else proxies.split(","),
            rows,
            sample=sample,
            seed=seed,
            batch_size=batch_size,
            repeats=repeats,
            out=out,
            resume=resume,
            force=force,
            cache=cache,
            executor=workforce,
            device=device,
            progress=shows_progress(quiet),
            callbacks=callbacks_of(log),
            space_options=space_options({"space_option": space_option, "resolutions": resolutions}),
            input_size=None if image is None else parse_shape(image),
            num_classes=classes,
        )
    _print(found, as_json)


def _print(found: Any, as_json: bool) -> None:
    """A correlation's report."""
    from zeroshot_nas.nasbench.report import to_markdown

    typer.echo(found.to_json(indent=1) if as_json else to_markdown(found))
    if found.state == "interrupted":
        raise typer.Exit(130)


@app.command("convert")
def convert_command(
    table: Annotated[str, typer.Argument(help="A file or folder of a benchmark.")],
    out: Annotated[Path, typer.Option(help="Compact copy to write, .npz or .csv.")],
    dataset: Dataset = None,
    split: Split = None,
    table_option: TableOption = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a benchmark's accuracies once as a compact table, which later runs read in a moment."""
    from zeroshot_nas.nasbench.convert import convert

    if out.exists() and not force:
        raise OutputExistsError(f"{out} exists; choose another --out, or overwrite it with --force")
    rows = load_table(table, dataset, split, parse_options(table_option))
    file = convert(rows, out)
    print_result(
        as_json,
        lambda: {"written_to": file, "architectures": len(rows), "source": rows.source},
        lambda: [("written to", str(file)), ("architectures", f"{len(rows):,}"), ("source", rows.source)],
    )
