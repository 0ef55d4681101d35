"""`runs`: looking into the folders of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroshot_nas.cli.base import AsJson, app, cost_rows, is_given, print_json, print_result, print_rows
from zeroshot_nas.cli.help import Application
from zeroshot_nas.cli.search import front_rows, trial_rows
from zeroshot_nas.core.files import read_as, write_text
from zeroshot_nas.errors import StoreError
from zeroshot_nas.reporting.words import counted
from zeroshot_nas.searchers.words import bits_rows

if TYPE_CHECKING:
    from zeroshot_nas.nasbench.correlation import ProxyCorrelation

runs_app = Application(help="Look into the folders of runs.")
app.add_typer(runs_app, name="runs")
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.")]


@runs_app.command("list")
def runs_list_command(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where runs are.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Every run in a folder, with its state."""
    from zeroshot_nas.runs.inspect import summaries

    if is_given(ctx, "folder") and not folder.is_dir():
        raise StoreError(f"{folder} is no folder; runs are where --out says, by default in runs")
    found = summaries(folder)
    if as_json:
        print_json(found)
    elif not found:
        typer.echo(f"no runs in {folder}")
    else:
        print_rows([(each["folder"], _about(each)) for each in found])


def _about(run: dict[str, Any]) -> str:
    """A run on one line."""
    if "error" in run:
        return f"{run['state']}: {run['error']}"
    if run["kind"] == "training":
        accuracy, epochs = run["result"]["test_accuracy"], run["result"]["epochs"]
        tested = "" if accuracy is None else f", test accuracy {accuracy:.2%}"
        return f"training, {run['state']}, {counted(epochs, 'epoch')}{tested}"
    if run["kind"] == "comparison":
        return f"comparison, {run['state']}, {counted(len(run['settings']['networks']), 'network')}"
    if run["kind"] in ("family", "family training"):
        return f"{run['kind']}, {run['state']}, {counted(len(run['settings']['members']), 'member')}"
    return f"{run['kind']}, {run['state']}, {counted(run['scores'], 'score')}"


@runs_app.command("show")
def runs_show_command(folder: RunFolder, as_json: AsJson = False) -> None:
    """A run's settings, versions, machine and journal."""
    from zeroshot_nas.runs.inspect import summary

    about = summary(folder)
    if as_json:
        print_json(about)
        return
    rows = []
    for name, value in about.items():
        if name == "journal":
            rows += _events(value)
        elif isinstance(value, dict):
            rows += [row for inner, entry in value.items() for row in _flat(str(inner), entry)]
        else:
            rows.append((name, _compact(value)))
    print_rows([*rows, *_outcome(folder)])


def _events(journal: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """A journal's entries, those of one kind that follow each other as one."""
    rows = []
    for kind, entries in groupby(journal, key=itemgetter(1)):
        times = [time for time, _ in entries]
        rows.append((times[0], kind if len(times) == 1 else f"{kind}, {len(times)} times until {times[-1]}"))
    return rows


def _outcome(folder: Path) -> list[tuple[str, str]]:
    """What is the point of a finished run: the winner and its costs, the table of a comparison, the taus of proxies."""
    from zeroshot_nas import Comparison, Correlation, SearchResult

    if (folder / "report.json").is_file():
        found = read_as(folder / "report.json", Correlation.from_json)
        return [("report", str(folder / "report.md")), *map(_tau, found.proxies)]
    if (folder / "comparison.json").is_file():
        return read_as(folder / "comparison.json", Comparison.from_json).rows()
    if not (folder / "result.json").is_file():
        return []
    result = read_as(folder / "result.json", SearchResult.from_json)
    best = result.best
    scores = [(key, f"{score.value:.6g}") for key, score in best.scores.items()]
    tried = [] if result.trials is None else trial_rows(result.trials, folder)
    winner = ("winner", best.string or str(best.architecture))
    return [winner, *bits_rows(best.architecture), *cost_rows(best.costs), *scores, *front_rows(result), *tried]


def _tau(entry: ProxyCorrelation) -> tuple[str, str]:
    """A proxy's rank correlation with accuracy, and its interval."""
    if entry.kendall is None:
        return entry.proxy, "tau undefined"
    between = entry.kendall_interval
    interval = "" if between is None else f" ({between[0]:+.3f} to {between[1]:+.3f})"
    return entry.proxy, f"tau {entry.kendall:+.3f}{interval}"


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """A setting in a row, or one of several parts in a row each; what is not set is left out."""
    if isinstance(value, dict) and value:
        return [row for inner, entry in value.items() for row in _flat(f"{name} {inner}", entry)]
    return [] if value is None or value == {} else [(name, _compact(value))]


def _compact(value: Any) -> str:
    """A value on one line: texts as they are, the rest as JSON without what is not set."""
    if isinstance(value, dict):
        value = {name: entry for name, entry in value.items() if entry is not None}
    return value if isinstance(value, str) else json.dumps(value)


@runs_app.command("best")
def runs_best_command(folder: RunFolder, as_json: AsJson = False) -> None:
    """The best network of a run: of a finished one the winner, else the best score so far."""
    from zeroshot_nas import Architecture, Score, SearchResult, cost
    from zeroshot_nas.runs.inspect import best_so_far

    if (folder / "result.json").exists():
        winner = read_as(folder / "result.json", SearchResult.from_json).best
        scores = [("score", str(score)) for score in winner.scores.values()]
        named = ("winner", winner.string or str(winner.architecture))
        rows = [named, *bits_rows(winner.architecture), *cost_rows(winner.costs), *scores]
        print_result(as_json, winner.to_dict, lambda: rows)
        return
    best = best_so_far(folder)
    so_far = [("best so far", best["string"])]
    if isinstance(best["architecture"], dict):
        so_far += cost_rows(cost(Architecture.from_dict(best["architecture"])))
    so_far += [("score", str(Score.from_dict(best["score"]))), ("go on", f"zeroshot-nas resume {folder}")]
    print_result(as_json, lambda: best, lambda: so_far)


@runs_app.command("plot")
def runs_plot_command(
    folder: RunFolder,
    out: Annotated[Path | None, typer.Option(help="A .png or .svg file; default: search.png in the folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a finished search: networks by cost and score with the budget, and the best score over its proposals."""
    from zeroshot_nas.plots.search import write_search_plot

    file = write_search_plot(folder, out)
    print_result(as_json, lambda: {"written_to": file}, lambda: [("written to", str(file))])


@runs_app.command("export")
def runs_export_command(
    folder: RunFolder,
    as_format: Annotated[str, typer.Option("--format", help="csv or json.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="File to write; default: print.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """All scores of a run."""
    from zeroshot_nas.runs.inspect import export

    if as_format not in ("csv", "json"):
        raise typer.BadParameter(f"--format must be csv or json, got {as_format!r}")
    text = export(folder, "json" if as_json else as_format)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_text(out, text)
    print_result(as_json, lambda: {"written_to": out}, lambda: [("written to", str(out))])


@runs_app.command("recover")
def runs_recover_command(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(help="Folder for what can be saved; it must hold no run.")],
    as_json: AsJson = False,
) -> None:
    """Copy what can be read of a damaged run to a new folder."""
    from zeroshot_nas.runs.store import FILE_NAME, recover

    if not (folder / FILE_NAME).is_file():
        raise StoreError(f"{folder} holds no run: {FILE_NAME} is not there")
    out.mkdir(parents=True, exist_ok=True)
    saved = recover(folder / FILE_NAME, out / FILE_NAME)
    print_result(as_json, lambda: saved, lambda: [(name, f"{count:,} rows saved") for name, count in saved.items()])
