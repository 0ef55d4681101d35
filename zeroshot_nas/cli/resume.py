"""`resume`: going on with a run of any kind from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    AsJson,
    Cache,
    Executor,
    Log,
    Quiet,
    Scheduler,
    TimeLimit,
    Workers,
    app,
    callbacks_of,
    print_json,
    print_result,
    shows_progress,
)
from zeroshot_nas.cli.search import print_search, search_data


@app.command("resume")
def resume_command(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    cache: Cache = None,
    executor: Executor = "serial",
    workers: Workers = None,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = None,
    log: Log = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run of any kind that was stopped; it ends as one that never was."""
    from zeroshot_nas.errors import StoreError
    from zeroshot_nas.execution import get_executor
    from zeroshot_nas.runs.resume import kind_of, resume

    kind = kind_of(folder)
    if kind == "study":
        raise StoreError(f"{folder} holds a study, which its own program drives; go on there: Study(..., resume=True)")
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as pool:
        how: dict[str, Any] = {"progress": shows_progress(quiet), "callbacks": callbacks_of(log)}
        result: Any = resume(folder, executor=pool, cache=cache, **how)
    if kind == "search" and as_json:
        print_json(search_data(result, folder))
    elif kind == "search":
        print_search(result, folder)
    elif kind == "correlation":
        from zeroshot_nas.nasbench.report import to_markdown

        typer.echo(result.to_json(indent=1) if as_json else to_markdown(result))
    else:
        print_result(as_json, result.to_dict, result.rows)
    if result.state == "interrupted":
        raise typer.Exit(130)
