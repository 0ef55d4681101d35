"""The page of a search, and of a study, which is a search that its caller drives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zeroshot_nas.core.files import read_as
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.plots.search_points import Point, SearchPoints, axis_of, first_cost, search_points
from zeroshot_nas.reporting.base import (
    Bar,
    Chart,
    Code,
    Facts,
    Note,
    Page,
    Part,
    Section,
    Table,
    Tile,
    register_page,
    state_of,
    way_on,
)
from zeroshot_nas.reporting.charts import ZOOM, Row, Spec, bars, chart, groups, number, rule, thinned, tooltip
from zeroshot_nas.reporting.network import device_table_of, network_section
from zeroshot_nas.reporting.provenance import run_section
from zeroshot_nas.reporting.search_so_far import search_so_far
from zeroshot_nas.reporting.words import count, duration, percent, short
from zeroshot_nas.runs.store import FILE_NAME, Entry, Store
from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.searchers.trial import Trials
from zeroshot_nas.searchers.words import certificate_rows, latency_rows
from zeroshot_nas.searching.rounds import RESULT_FILE

_MOST_SEEN = 600
"""Networks that a picture shows at most of those that were seen and did not lead."""

_MOST_IN_TABLE = 20
_STAR = "M0,-1L.23,-.32L.95,-.31L.37,.12L.59,.81L0,.4L-.59,.81L-.37,.12L-.95,-.31L-.23,-.32Z"
_SHAPES = f"datum.group == 'winner' ? '{_STAR}' : 'circle'"
_SIZES = "{seen: 16, finalist: 26, front: 46, winner: 210}[datum.group]"
_NAME = 120


@register_page("search")
def search_page(folder: Path) -> Page:
    """A search's page."""
    return _page(folder, "search")


@register_page("study")
def study_page(folder: Path) -> Page:
    """A study's page."""
    return _page(folder, "study")


def _page(folder: Path, kind: str) -> Page:
    with Store(folder / FILE_NAME, read_only=True) as store:
        settings, call = store.fact("settings") or {}, store.fact("call")
        journal = list(store.journal())
        last = journal[-1].kind if journal else ""
        state = state_of(folder, last)
        at_end = last in ("done", "interrupted") and (folder / RESULT_FILE).is_file()
        result = None if at_end else search_so_far(store, settings, journal)
    if at_end:
        result = read_as(folder / RESULT_FILE, SearchResult.from_json)
    why = next((str(each.body.get("error", "")) for each in reversed(journal) if each.kind == "failed"), "")
    proposals = settings.get("proposals")
    done = _proposed(journal, result)
    about = [f"{settings.get('searcher', '')}", f"seed {settings.get('seed')}"]
    sections = [] if result is None else _sections(result, folder, call)
    return Page(
        title=f"{settings.get('space', 'a space')} by {_ranked_by(settings)}",
        kind=kind,
        state=state,
        tiles=_waiting(done, proposals) if result is None else _tiles(result),
        sections=[*sections, *_progress(journal, result), run_section(settings, journal)],
        subtitle=" · ".join([*about, *_budget(settings)]),
        remark=way_on(state, folder, why) if state != "running" else _running(result),
        progress=min(1.0, done / proposals) if isinstance(proposals, int) and proposals else None,
        foot=[f"Folder: {folder}"],
    )


def _ranked_by(settings: Mapping[str, Any]) -> str:
    reward = settings.get("reward")
    proxy = settings.get("proxy", "?")
    objectives = [each[0] for each in settings.get("objectives", ())]
    if objectives:
        return ", ".join(objectives)
    return f"{proxy}, rewarded" if reward else str(proxy)


def _budget(settings: Mapping[str, Any]) -> list[str]:
    limits = settings.get("budget") or {}
    texts = [
        f"{_label(name)} ≤ {short(value)} {COSTS[name].unit if name in COSTS else ''}".rstrip()
        for name, value in limits.items()
        if isinstance(value, int | float)
    ]
    return texts or ["no limits"]


def _label(cost: str) -> str:
    """A cost in a word or two."""
    return COSTS[cost].label.split(" (")[0] if cost in COSTS else cost


def _running(result: SearchResult | None) -> str:
    return "" if result is not None else "Nothing is scored yet; the first networks appear here as they are kept."


def _proposed(journal: Sequence[Entry], result: SearchResult | None) -> int:
    noted = [int(each.body["done"]) for each in journal if each.kind == "progress"]
    return max([0 if result is None else result.counts.proposed, *noted])


def _waiting(done: int, proposals: Any) -> list[Tile]:
    of = f"of {proposals:,}" if isinstance(proposals, int) else ""
    return [Tile("networks proposed", count(done), of)]


def _progress(journal: Sequence[Entry], result: SearchResult | None) -> list[Section]:
    """The best score by what was noted on the way, as long as there is nothing better to draw."""
    rows = [{"done": each.body["done"], "best": each.body["best"]} for each in journal if each.kind == "progress"]
    if result is not None or not any(row["best"] is not None for row in rows):
        return []
    line = {"type": "line", "point": True, "interpolate": "step-after", "color": "var(--best)"}
    encoding = {"x": number("done", "networks proposed"), "y": number("best", "best score")}
    tip = tooltip(("done", "proposed", ",d"), ("best", "best score", ".6g"))
    spec = chart(rows, [{"mark": line, "encoding": {**encoding, "tooltip": tip}, "params": [ZOOM]}])
    return [
        Section("Progress", [Chart("Best score so far", spec, "The best score rises as more is proposed.", wide=True)])
    ]


def _tiles(result: SearchResult) -> list[Tile]:
    best, counts = result.best, result.counts
    limits = result.settings.get("budget") or {}
    tiles = []
    for key, score in list(best.scores.items())[:1]:
        error = f"± {score.standard_error:.2g}, {score.repeats} repeats" if score.standard_error else ""
        tiles.append(Tile(f"score by {key}", f"{score.value:.5g}", error or "of the winner"))
    if "reward" in result.settings:
        tiles.append(Tile("reward", f"{best.fitness:.5g}", "of score and cost"))
    if result.trials is not None and (winner := result.trials.winner) is not None and winner.accuracies:
        tiles.append(Tile("accuracy in trials", f"{winner.accuracies[-1]:.1%}", f"on {result.trials.data}"))
    for name, value in best.costs.to_dict().items():
        if value is None:
            continue
        info, limit = COSTS[name], limits.get(name)
        shown = f"{value:.3g} ms" if name == "latency_ms" else short(value)
        if limit is None:
            tiles.append(Tile(_label(name), shown, info.unit))
        else:
            part = value / limit if limit else 0.0
            tiles.append(Tile(_label(name), shown, f"{percent(part)} of {short(limit)} {info.unit}".rstrip(), part))
    if result.latency and result.latency["measured_ms"] is not None:
        measured, limit = result.latency["measured_ms"], result.latency["limit_ms"]
        tiles.append(Tile("latency, measured", f"{measured:.3g} ms", f"of {limit:g} ms", measured / limit))
    tiles.append(Tile("networks proposed", short(counts.proposed), f"{count(counts.ranked)} ranked by the proxy"))
    if "total" in result.seconds:
        tiles.append(Tile("time", duration(result.seconds["total"])))
    return tiles


def _sections(result: SearchResult, folder: Path, call: Mapping[str, Any] | None) -> list[Section]:
    best, settings = result.best, result.settings
    table = device_table_of(call, settings.get("device_table"))
    winner = network_section(
        best.architecture,
        name="Winner",
        string=best.string or str(best.architecture),
        proxy=settings.get("proxy"),
        table=table,
    )
    return [
        replace(winner, parts=[*_certificate(result), *winner.parts]),
        Section("Networks", _networks(result)),
        Section("History", _history(result)),
        Section("Trials", _trials(result.trials, folder)),
        Section("Latency", _latency(result)),
        Section("Counts", _counts(result)),
    ]


def _certificate(result: SearchResult) -> list[Part]:
    found = result.certificate
    if not found:
        return []
    rows = certificate_rows(found)
    proved = bool(found["finished"])
    title = "Certificate: the optimum" if proved else "Certificate: an upper bound"
    text = ". ".join(f"{value[:1].upper()}{value[1:]}" for _, value in rows)
    return [Note(f"{text}. Proved by {found['by']}.", "good" if proved else "", title)]


def _costs_shown(result: SearchResult) -> list[str]:
    """The costs that networks are drawn by, at most four: of objectives and budget, else parameters and FLOPs."""
    limits = [name for name in result.settings.get("budget") or {} if name in COSTS]
    objectives = [each.name for each in result.objectives if each.kind == "cost"]
    names = dict.fromkeys([first_cost(result), *(objectives if "objectives" in result.settings else ()), *limits])
    names |= dict.fromkeys(["flops", "params"] if len(names) < 2 else [])
    known = {name for name, value in result.best.costs.to_dict().items() if value is not None}
    return [name for name in names if name in known][:4]


def _networks(result: SearchResult) -> list[Part]:
    charts: list[Part] = []
    costs = _costs_shown(result)
    for cost in costs:
        shown = search_points(result, cost)
        if shown.seen or shown.finalists:
            charts.append(_scatter(shown, wide=len(costs) == 1))
    return [*charts, _leading(result)]


def _scatter(shown: SearchPoints, *, wide: bool) -> Chart:
    on_front = set(shown.front)
    seen = thinned(shown.seen, _MOST_SEEN)
    kept = [each for each in shown.seen if (each.cost, each.score) in on_front]
    groups_of = [("seen", seen), ("finalist", thinned(shown.finalists, _MOST_SEEN))]
    rows = [_row(each, group) for group, points in groups_of for each in points]
    front = [each for each in (*shown.finalists, *kept) if (each.cost, each.score) in on_front]
    rows += [_row(each, "front") for each in front]
    rows.append(_row(shown.winner, "winner"))  # last, so that it is on top
    colors = {"seen": "faint", "finalist": "accent", "front": "front", "winner": "best"}
    present = {row["group"] for row in rows}
    colors = {group: color for group, color in colors.items() if group in present}
    x, y = number("x", shown.label), number("y", shown.score)
    points: Spec = {
        "transform": [{"calculate": _SIZES, "as": "size"}, {"calculate": _SHAPES, "as": "shape"}],
        "mark": {"type": "point", "filled": True, "opacity": 0.85},
        "encoding": {
            "x": x,
            "y": y,
            "color": groups(colors),
            "size": {"field": "size", "type": "quantitative", "scale": None, "legend": None},
            "shape": {"field": "shape", "type": "nominal", "scale": None, "legend": None},
            "tooltip": _tip(shown),
        },
        "params": [ZOOM],
    }
    line_data = [{"x": cost, "y": score} for cost, score in shown.front]
    line: Spec = {
        "data": {"values": line_data},
        "mark": {"type": "line", "interpolate": "step-after", "color": "var(--front)", "strokeWidth": 1.6},
        "encoding": {"x": x, "y": y},
    }
    limit = rule(shown.limit, "budget") if shown.limit is not None else []
    better = "high" if shown.sign > 0 else "low"
    alt = (
        f"Networks by {shown.label} and {shown.score}: {len(shown.seen):,} seen, {len(shown.front)} on the front. "
        f"The winner stands at {shown.winner.cost:.4g} with {shown.winner.score:.5g}; {better} scores are better."
    )
    return Chart(
        f"Score against {axis_of(shown.cost)[1].split(' (')[0]}", chart(rows, [*limit, line, points]), alt, wide=wide
    )


def _row(point: Point, group: str) -> Row:
    costs = {name: point.costs.get(name) for name in ("params", "flops", "layers", "latency_ms")}
    name = point.name[:_NAME] + "…" * (len(point.name) > _NAME) or "–"
    return {"x": point.cost, "y": point.score, "group": group, "place": point.place, **costs, "name": name}


def _tip(shown: SearchPoints) -> list[Spec]:
    fields: list[Any] = [("group", "what"), ("y", "score", ".6g")]
    fields += [("params", "parameters", ",d"), ("flops", "FLOPs", ",d"), ("layers", "layers", ",d")]
    if "latency_ms" in shown.winner.costs:
        fields.append(("latency_ms", "latency (ms)", ".3g"))
    names = any(each.name for each in (*shown.finalists, *shown.seen))
    return tooltip(*fields, *([("name", "network")] if names else []))


def _leading(result: SearchResult) -> Table:
    """The front where one was asked for, else the best of the history."""
    if "objectives" in result.settings:
        few = sorted(result.front(_MOST_IN_TABLE), key=lambda each: -each.fitness)
        title = f"The front: {len(result.front):,} networks" + (
            f", {_MOST_IN_TABLE} that span most of it" if len(result.front) > _MOST_IN_TABLE else ""
        )
    else:
        alive = [each for each in result.history if math.isfinite(each.fitness)]
        few = sorted(alive, key=lambda each: -each.fitness)[:_MOST_IN_TABLE]
        title = f"The best {len(few)} of {len(alive):,} networks that were ranked"
    costs = [name for name in result.best.costs.to_dict() if result.best.costs[name] is not None]
    keys = list(dict.fromkeys(key for each in few for key in each.scores))[:6]
    sizes = len({each.architecture.input_size for each in result.history}) > 1
    head = ["", *keys, *map(_label, costs), *(["input"] if sizes else []), "network"]
    rows = []
    for place, each in enumerate(few, start=1):
        scores = [
            f"{each.scores[key].value:.6g}" if key in each.scores and each.scores[key].ok else "–" for key in keys
        ]
        values = [each.costs[name] for name in costs]
        cells = ["–" if value is None else count(value) if value == int(value) else f"{value:.3g}" for value in values]
        text = each.string or str(each.architecture)
        cells += ["×".join(map(str, each.architecture.input_size))] if sizes else []
        rows.append([str(place), *scores, *cells, text[:_NAME] + "…" * (len(text) > _NAME)])
    marked = [place for place, each in enumerate(few) if each.architecture == result.best.architecture]
    return Table(head, rows, title, marked)


def _history(result: SearchResult) -> list[Part]:
    shown = search_points(result)
    if not shown.seen:
        return []
    words = "networks proposed" if result.trajectory else "networks scored"
    pairs = list(zip(shown.seen, shown.best, strict=True))
    rows = [
        {"x": point.place, "y": point.score, "group": "seen", **point.costs}
        for point in thinned(shown.seen, _MOST_SEEN)
    ]
    steps = [
        {"x": point.place, "y": best, "group": "best so far", **point.costs}
        for index, (point, best) in enumerate(pairs)
        if index in (0, len(pairs) - 1) or best != pairs[index - 1][1]
    ]
    x, y = number("x", words, scale={"domainMin": 0}), number("y", shown.score)
    color = groups({"seen": "faint", "best so far": "best"})
    tip = tooltip(
        ("group", "what"),
        ("x", words, ",d"),
        ("y", "score", ".6g"),
        ("params", "parameters", ",d"),
        ("flops", "FLOPs", ",d"),
    )
    best = {"filter": "datum.group == 'best so far'"}
    layers: list[Spec] = [
        {
            "transform": [{"filter": "datum.group == 'seen'"}],
            "mark": {"type": "point", "filled": True, "size": 12, "opacity": 0.7},
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tip},
            "params": [ZOOM],
        },
        {
            "transform": [best],
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            "encoding": {"x": x, "y": y, "color": color},
        },
        {
            "transform": [best],
            "mark": {"type": "point", "filled": True, "size": 34},
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tip},
        },
    ]
    alt = f"The best score against {words}: from {shown.best[0]:.5g} at first to {shown.best[-1]:.5g} at the end."
    return [Chart("Best score over the search", chart([*rows, *steps], layers), alt, wide=True)]


def _trials(trials: Trials | None, folder: Path) -> list[Part]:
    if trials is None:
        return []
    names = [trial.name for trial in trials.trials]
    rows = [
        {"epoch": end.until, "accuracy": accuracy, "trial": trial.name, "place": trial.place}
        for trial in trials.trials
        for end, accuracy in zip(trials.rounds, trial.accuracies, strict=False)
    ]
    layer: Spec = {
        "mark": {"type": "line", "point": {"size": 50, "filled": True}},
        "encoding": {
            "x": number(
                "epoch", "epoch of the recipe", axis={"values": [each.until for each in trials.rounds], "format": "d"}
            ),
            "y": number("accuracy", "validation accuracy", axis={"format": ".0%"}),
            "color": {
                "field": "trial",
                "type": "nominal",
                "scale": {"domain": names, "range": [f"var(--k{i % 8})" for i in range(len(names))]},
            },
            "tooltip": tooltip(
                ("trial", "network"),
                ("accuracy", "validation accuracy", ".2%"),
                ("epoch", "at epoch", "d"),
                ("place", "place by score", "d"),
            ),
        },
        "params": [ZOOM],
    }
    winner = trials.winner
    named = f"{winner.name} won" if winner is not None else "It is not decided"
    heads = [
        "trial",
        *(f"epoch {each.until}" for each in trials.rounds),
        "became",
        "score",
        "place",
        "parameters",
        "FLOPs",
    ]
    ordered = sorted(trials.trials, key=lambda t: (-(t.dropped or 10**6), -(t.accuracies[-1] if t.accuracies else 0)))
    cells = []
    for trial in ordered:
        accuracies = [f"{value:.2%}" for value in trial.accuracies]
        became = trial.failure or (
            "winner" if trial is winner else "" if trial.dropped is None else f"out in round {trial.dropped}"
        )
        score = "failed" if trial.score is None else f"{trial.score:.6g}"
        blank = [""] * (len(trials.rounds) - len(accuracies))
        cells.append(
            [
                trial.name,
                *accuracies,
                *blank,
                became,
                score,
                str(trial.place),
                count(trial.costs.params),
                count(trial.costs.flops),
            ]
        )
    parts: list[Part] = [Note(f"{trials.plan()}. {named}.")]
    if rows:
        parts.append(
            Chart(
                "Accuracy in the trials",
                chart(rows, [layer]),
                f"Validation accuracy of each trial by epoch. {named}.",
                wide=True,
            )
        )
    parts.append(Table(heads, cells, "Trials", [index for index, trial in enumerate(ordered) if trial is winner]))
    if winner is not None and winner.accuracies:
        parts.append(
            Code(f"zeroshot-nas resume {folder / 'trials' / winner.name}", "The winner's full training goes on with")
        )
    return parts


def _latency(result: SearchResult) -> list[Part]:
    found = result.latency
    if not found:
        return []
    parts: list[Part] = [Facts(latency_rows(found), "How the latency budget was kept")]
    rows = [
        {
            "x": each["predicted_ms"],
            "y": each["measured_ms"],
            "group": "stable" if each.get("stable", True) else "unstable",
            "spread": each["spread"],
        }
        for each in found["measurements"]
    ]
    if rows:
        ends = [value for row in rows for value in (row["x"], row["y"])]
        line = [{"x": value, "y": value} for value in (min(ends), max(ends))]
        x, y = number("x", "predicted (ms)"), number("y", "measured (ms)")
        layers: list[Spec] = [
            {
                "data": {"values": line},
                "mark": {"type": "line", "color": "var(--faint)", "strokeDash": [4, 4]},
                "encoding": {"x": x, "y": y},
            },
            *rule(found["limit_ms"], "budget", across=True),
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "params": [ZOOM],
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": groups({"stable": "accent", "unstable": "warn"}),
                    "tooltip": tooltip(
                        ("x", "predicted (ms)", ".4g"),
                        ("y", "measured (ms)", ".4g"),
                        ("spread", "spread", ".1%"),
                        ("group", "measurement"),
                    ),
                },
            },
        ]
        alt = f"{len(rows)} finalists by predicted and measured latency; the budget is {found['limit_ms']:g} ms."
        parts.append(Chart("Predicted and measured latency of finalists", chart(rows, layers), alt))
    return parts


def _counts(result: SearchResult) -> list[Part]:
    counts = result.counts
    parts: list[Part] = []
    became = [
        ("over budget", counts.over_budget),
        ("duplicate", counts.duplicate),
        ("screened", counts.screened),
        ("ranked", counts.ranked),
        ("failed", counts.failed),
    ]
    whole = max(1, counts.proposed)
    rows = [("proposed", float(counts.proposed), count(counts.proposed))]
    rows += [(name, float(value), f"{count(value)} ({percent(value / whole)})") for name, value in became if value]
    listed = ", ".join(f"{text} {name}" for name, _, text in rows)
    parts.append(Chart("What became of the proposals", bars(rows, "networks"), f"Of the proposals: {listed}."))
    spent = {name: value for name, value in result.seconds.items() if name != "total" and value > 0}
    if spent:
        words = {
            "propose": "proposing",
            "cost": "counting costs",
            "screen": "screening",
            "rank": "ranking",
            "measure": "measuring",
        }
        rows = [(words.get(name, name), value, duration(value)) for name, value in spent.items()]
        listed = ", ".join(f"{name} {text}" for name, _, text in rows)
        parts.append(
            Chart("Where the time went", bars(rows, "seconds", "front"), f"Seconds by what they went into: {listed}.")
        )
    if result.failures:
        most = max(result.failures.values())
        failed = sorted(result.failures.items(), key=lambda item: -item[1])[:_MOST_IN_TABLE]
        parts.append(
            Table(
                ["times", "reason"],
                [[Bar(value / most, count(value)), reason] for reason, value in failed],
                "Scores that failed",
            )
        )
    return parts
