"""`report`: a page of a run, for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroshot_nas.cli.base import AsJson, app, print_result

if TYPE_CHECKING:
    from zeroshot_nas.reporting.base import Page


@app.command("report")
def report_command(
    run: Annotated[Path, typer.Argument(help="A run's folder, or the table's file of a latency calibration.")],
    out: Annotated[
        Path | None, typer.Option(help="The page's file; default: report.html in the folder, or beside the table.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a page that is there.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow a run that goes on, until it ends or Ctrl-C; the page loads anew.")
    ] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks of --watch.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Write a page of a run: one HTML file to open in a browser, without a network."""
    if not watch:
        from zeroshot_nas import report

        file = report(run, out, force=force)
        print_result(as_json, lambda: {"written_to": file}, lambda: [("written to", str(file))])
        return
    from zeroshot_nas.reporting.watch import watch as follow
    from zeroshot_nas.reporting.writing import page_file

    typer.echo(f"open {page_file(run, out)}; Ctrl-C ends the watch, not the run", err=True)
    try:
        state = follow(run, out, force=force, interval=interval, seen=_say)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    file = page_file(run, out)
    rows = [("the run is", state), ("written to", str(file))]
    print_result(as_json, lambda: {"state": state, "written_to": file}, lambda: rows)


def _say(page: Page) -> None:
    done = "" if page.progress is None else f", {page.progress:.0%}"
    figures = ", ".join(f"{tile.label} {tile.value}" for tile in page.tiles[:3])
    typer.echo(f"{page.state}{done}: {figures}", err=True)
