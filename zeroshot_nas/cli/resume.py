"""`resume`: going on with a run of any kind from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zeroshot_nas.cli.base import Cache, Executor, Quiet, Scheduler, Workers, app
from zeroshot_nas.cli.search import print_search
from zeroshot_nas.cli.train import print_training


@app.command("resume")
def resume_command(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    cache: Cache = None,
    executor: Executor = "serial",
    workers: Workers = None,
    scheduler: Scheduler = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds a score may take in a worker process.")] = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a search, a correlation or a training that was stopped; it ends as one that never was."""
    from zeroshot_nas.errors import StoreError
    from zeroshot_nas.execution import get_executor
    from zeroshot_nas.runs.resume import kind_of, resume

    kind = kind_of(folder)
    if kind == "study":
        raise StoreError(f"{folder} holds a study, which its own program drives; go on there: Study(..., resume=True)")
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as pool:
        result: Any = resume(folder, executor=pool, cache=cache, progress=not quiet)
    if kind == "search":
        print_search(result, folder)
    elif kind == "training":
        print_training(result)
    else:
        from zeroshot_nas.nasbench.report import to_markdown

        typer.echo(to_markdown(result))
    if result.state == "interrupted":
        raise typer.Exit(130)
