"""The page of a correlation: how well proxies order a benchmark's networks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.nasbench.budget_report import MOST_CURVES, RANDOM, by_tau_at, described, name_of
from zeroshot_nas.nasbench.correlation import REPORT_FILE, Correlation, ProxyCorrelation
from zeroshot_nas.nasbench.report import by_tau, failures, is_count
from zeroshot_nas.reporting.base import (
    Bar,
    Cell,
    Chart,
    Facts,
    Page,
    Part,
    Section,
    Table,
    Tile,
    register_page,
    state_of,
    way_on,
)
from zeroshot_nas.reporting.charts import ZOOM, Spec, chart, groups, name, number, rows_chart, rule, thinned, tooltip
from zeroshot_nas.reporting.provenance import run_section
from zeroshot_nas.reporting.words import count
from zeroshot_nas.runs.store import FILE_NAME, Store
from zeroshot_nas.scoring.proxy import get_proxy

_MOST_POINTS = 600
"""Networks of one scatter."""

_MOST_SCATTERS = 12
"""Proxies that can be chosen in the scatter."""


@register_page("correlation")
def correlation_page(folder: Path) -> Page:
    """A correlation's page."""
    with Store(folder / FILE_NAME, read_only=True) as store:
        settings, journal = store.fact("settings") or {}, list(store.journal())
        last = journal[-1].kind if journal else ""
        state = state_of(folder, last)
        at_end = last in ("done", "interrupted") and (folder / REPORT_FILE).is_file()
        scored = {} if at_end else dict(Counter(key.proxy for key, _ in store.scores()))
    why = next((str(each.body.get("error", "")) for each in reversed(journal) if each.kind == "failed"), "")
    table, dataset = settings.get("table", "a table"), settings.get("dataset")
    common: dict[str, Any] = {
        "title": f"Proxies against accuracy: {table}" + (f", {dataset}" if dataset else ""),
        "kind": "correlation",
        "state": state,
        "subtitle": f"space {settings.get('space')} · {settings.get('sample')} networks · seed {settings.get('seed')}",
        "remark": way_on(state, folder, why),
        "foot": [f"Folder: {folder}"],
    }
    shown = run_section({name: value for name, value in settings.items() if name != "table_digest"}, journal)
    if not at_end:
        return _unfinished(common, settings, scored, shown)
    found = Correlation.read(folder)
    return Page(tiles=_tiles(found), sections=[*_sections(found), shown], **common)


def _unfinished(
    common: Mapping[str, Any], settings: Mapping[str, Any], scored: Mapping[str, int], shown: Section
) -> Page:
    """How many networks each proxy has scored so far; figures need all proxies' scores of the same networks."""
    sample = max(1, int(settings.get("sample", 1)))
    rows: list[list[Cell]] = [
        [proxy, Bar(min(1.0, number_ / sample), f"{number_:,} of {sample:,}")]
        for proxy, number_ in sorted(scored.items(), key=lambda item: (-item[1], item[0]))
    ]
    note = "Networks that are the same are scored once, so a proxy may be done with fewer. Figures follow at the end."
    tiles = [
        Tile("networks", count(sample), "to be scored"),
        Tile("scores", count(sum(scored.values())), f"by {len(scored)} proxies"),
    ]
    parts: list[Part] = [Table(["proxy", "networks scored"], rows, "So far", note=note)] if rows else []
    expected = {*scored, *filter(_is_single, settings.get("proxies") or ())}
    progress = sum(scored.values()) / (sample * max(1, len(expected)))
    return Page(tiles=tiles, sections=[Section("Progress", parts), shown], progress=progress, **common)


def _is_single(proxy: str) -> bool:
    """Whether a proxy is scored itself, and not joined of others."""
    try:
        return not get_proxy(proxy).info.parts
    except ZeroShotNASError:  # a function of the caller's
        return True


def _tiles(found: Correlation) -> list[Tile]:
    asked = [entry for entry in by_tau(found.proxies) if not is_count(entry) and entry.kendall is not None]
    counts = [entry for entry in by_tau(found.proxies) if is_count(entry) and entry.kendall is not None]
    tiles = [
        Tile(f"best {what}", entries[0].proxy, f"tau {_tau(entries[0])}")
        for what, entries in (("proxy", asked), ("count", counts))
        if entries
    ]
    networks = f"of {found.population:,}" + (
        f", {found.sample:,} asked for" if found.sample != found.architectures else ""
    )
    tiles.append(Tile("architectures", count(found.architectures), networks))
    tiles.append(Tile("different networks", count(found.networks)))
    tiles.append(Tile("best accuracy", f"{found.best_accuracy:.2f} %", "of these architectures"))
    if found.ceiling is not None:
        tiles.append(Tile("ceiling", f"{found.ceiling:.3f}", "tau of two trainings"))
    tiles.append(Tile("repeats", str(found.repeats), f"on {found.device or 'cpu'}"))
    return tiles


def _tau(entry: ProxyCorrelation) -> str:
    text = f"{entry.kendall:.3f}"
    return text if entry.kendall_interval is None else "{} ({:.3f} to {:.3f})".format(text, *entry.kendall_interval)


def _sections(found: Correlation) -> list[Section]:
    return [
        Section("Agreement", [*_dots(found), *_against_time(found), _figures(found)]),
        Section("Equal budget", _equal_budget(found)),
        Section("Scatter", _scatter(found)),
        Section("Failures", _failed(found)),
    ]


def _dots(found: Correlation) -> list[Part]:
    """Tau of each proxy with its interval, the best first."""
    entries = [entry for entry in by_tau(found.proxies) if entry.kendall is not None]
    if not entries:
        return []
    rows = [
        {
            "name": entry.proxy,
            "tau": entry.kendall,
            **_interval(entry.kendall_interval, entry.kendall),
            "group": _group(entry),
            "rho": entry.spearman,
        }
        for entry in entries
    ]
    level = f"{100 * found.level:g} %"
    more = rule(found.ceiling, "two trainings") if found.ceiling is not None else []
    spec = _intervals(rows, f"Kendall's tau with accuracy, {level} interval", [("rho", "Spearman's rho", ".3f")], more)
    best = ", ".join(f"{row['name']} {row['tau']:.2f}" for row in rows[:5])
    return [
        Chart(
            "Agreement with accuracy", spec, f"Kendall's tau of {len(rows)} proxies, the best first: {best}.", wide=True
        )
    ]


def _intervals(
    rows: Sequence[Mapping[str, Any]], title: str, fields: list[tuple[str, str, str]], more: list[Spec]
) -> Spec:
    order = [row["name"] for row in rows]
    y = name("name", order=order, axis={"title": None})
    x = number("tau", title)
    colors = {"proxy": "accent", "count": "k1", RANDOM: "muted"}
    color = groups({group: shade for group, shade in colors.items() if any(row["group"] == group for row in rows)})
    tip = tooltip(
        ("name", "proxy"), ("tau", "tau", ".3f"), ("low", "at least", ".3f"), ("high", "at most", ".3f"), *fields
    )
    layers: list[Spec] = [
        *rule(0.0, ""),
        *more,
        {
            "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": color, "tooltip": tip},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 64},
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tip},
        },
    ]
    return rows_chart(rows, layers, len(rows) + 1)


def _group(entry: ProxyCorrelation) -> str:
    return "count" if is_count(entry) else "proxy"


def _interval(interval: tuple[float, float] | None, value: float | None) -> dict[str, float | None]:
    low, high = interval or (value, value)
    return {"low": low, "high": high}


def _against_time(found: Correlation) -> list[Part]:
    """Tau against the time that a proxy takes."""
    rows = [
        {
            "name": entry.proxy,
            "tau": entry.kendall,
            "ms": entry.milliseconds,
            "group": _group(entry),
            "cost": entry.cost,
            **_interval(entry.kendall_interval, entry.kendall),
        }
        for entry in found.proxies
        if entry.kendall is not None and entry.milliseconds
    ]
    if len(rows) < 2:
        return []
    most = max(entry.milliseconds or 0.0 for entry in found.proxies)
    x = number(
        "ms",
        "time a network (ms)",
        scale={"type": "log", "domainMax": 2.5 * most},
        axis={"format": "~g", "tickCount": 5},
    )
    y, colors = number("tau", "Kendall's tau"), {"proxy": "accent", "count": "k1"}
    color = groups({group: shade for group, shade in colors.items() if any(row["group"] == group for row in rows)})
    tip = tooltip(
        ("name", "proxy"),
        ("tau", "tau", ".3f"),
        ("low", "at least", ".3f"),
        ("high", "at most", ".3f"),
        ("ms", "ms a network", ".3g"),
        ("cost", "costs"),
    )
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "opacity": 0.45},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": color},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 64},
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tip},
            "params": [ZOOM],
        },
    ]
    if len(rows) <= 16:
        layers.append(
            {
                "mark": {"type": "text", "align": "left", "dx": 7, "dy": -6, "fontSize": 11},
                "encoding": {"x": x, "y": y, "text": {"field": "name"}},
            }
        )
    alt = f"Kendall's tau of {len(rows)} proxies against the time they take a network."
    return [Chart("Agreement against time", chart(rows, layers), alt, wide=True)]


def _figures(found: Correlation) -> Table:
    level = f"{100 * found.level:g} % interval"
    head = [
        "proxy",
        "tau",
        level,
        "rho",
        "rho, best tenth",
        "nDCG",
        "top 1 (%)",
        "top 10 (%)",
        "regret",
        "tau given FLOPs",
        "tau given params",
        "ms a network",
        "failed",
    ]
    rows = []
    for entry in by_tau(found.proxies):
        interval = "–" if entry.kendall_interval is None else "{:+.3f} to {:+.3f}".format(*entry.kendall_interval)
        figures = [
            (entry.spearman, "+.3f"),
            (entry.spearman_at_top, "+.3f"),
            (entry.ndcg, ".3f"),
            (entry.top1_accuracy, ".2f"),
            (entry.top10_accuracy, ".2f"),
        ]
        figures += [
            (entry.regret, ".2f"),
            (entry.kendall_given_flops, "+.3f"),
            (entry.kendall_given_params, "+.3f"),
            (entry.milliseconds, ".3g"),
        ]
        rows.append(
            [
                entry.proxy,
                _shown(entry.kendall, "+.3f"),
                interval,
                *(_shown(value, spec) for value, spec in figures),
                count(entry.failed),
            ]
        )
    note = (
        "Regret is what the architecture of best score lacks to the best, in points. Partial taus are what is left "
        "beyond FLOPs or parameters."
    )
    return Table(head, rows, "All figures", note=note)


def _shown(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def _equal_budget(found: Correlation) -> list[Part]:
    parts: list[Part] = []
    for kind, sweep in found.sweeps.items():
        several = by_tau_at(found, kind)
        rows = [
            {
                "name": each,
                "tau": figures.kendall,
                **_interval(figures.kendall_interval, figures.kendall),
                "group": _kind_of(found, each),
                "regret": figures.regret,
            }
            for each, figures in several
            if figures.kendall is not None
        ]
        where = f"equal {name_of(kind)}"
        if rows:
            spec = _intervals(rows, "Kendall's tau within bins of equal cost", [("regret", "mean regret", ".3f")], [])
            best = ", ".join(f"{row['name']} {row['tau']:.2f}" for row in rows[:3])
            parts.append(
                Chart(
                    f"At {where}",
                    spec,
                    f"Kendall's tau between networks of {where}, the best first: {best}.",
                    described(sweep),
                )
            )
        curves = [each for each, figures in several if figures.regrets and _kind_of(found, each) == "proxy"][
            :MOST_CURVES
        ]
        drawn = [
            (each, figures)
            for each, figures in several
            if figures.regrets and (each in curves or _kind_of(found, each) != "proxy")
        ]
        points = [
            {"budget": budget, "regret": regret, "name": each, "kind": _kind_of(found, each)}
            for each, figures in drawn
            for budget, regret in zip(sweep.budgets, figures.regrets, strict=False)
        ]
        if points:
            parts.append(_regrets(points, [each for each, _ in drawn], kind))
    return parts


def _regrets(points: Sequence[Mapping[str, Any]], names: Sequence[str], kind: str) -> Chart:
    budgets = [row["budget"] for row in points]
    log = {"type": "log"} if min(budgets) > 0 and max(budgets) > 20 * min(budgets) else {}
    x = number("budget", f"budget of {name_of(kind)}", scale=log, axis={"format": "~s", "tickCount": 5})
    y = number("regret", "regret of the first choice (points)", scale={"domainMin": 0})
    colors = ["var(--muted)" if each == RANDOM else f"var(--k{place % 8})" for place, each in enumerate(names)]
    color = {"field": "name", "type": "nominal", "title": None, "scale": {"domain": list(names), "range": colors}}
    dash = {
        "field": "kind",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": ["proxy", "count", RANDOM], "range": [[1, 0], [5, 3], [2, 3]]},
    }
    tip = tooltip(("name", "chosen by"), ("budget", name_of(kind), ",.4s"), ("regret", "regret (points)", ".3f"))
    layers: list[Spec] = [
        {
            "mark": {"type": "line", "strokeWidth": 1.8},
            "encoding": {"x": x, "y": y, "color": color, "strokeDash": dash},
            "params": [ZOOM],
        },
        {
            "mark": {"type": "point", "filled": True, "size": 28},
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tip},
        },
    ]
    alt = f"What the first choice of each proxy within a budget of {name_of(kind)} lacks to the best within it."
    return Chart(f"Regret by budget of {name_of(kind)}", chart(points, layers), alt)


def _kind_of(found: Correlation, proxy: str) -> str:
    return RANDOM if proxy == RANDOM else "count" if is_count(found[proxy]) else "proxy"


def _scatter(found: Correlation) -> list[Part]:
    """Accuracy against the score of one proxy, which the reader chooses."""
    known = [entry for entry in by_tau(found.proxies) if entry.kendall is not None and entry.proxy in found.scores]
    known = sorted(known, key=is_count)[:_MOST_SCATTERS]
    if not known:
        return []
    places = thinned(range(len(found.accuracy)), _MOST_POINTS)
    names = found.strings or found.rows
    rows = [
        {
            "proxy": f"{place}",
            "score": found.scores[entry.proxy][index],
            "rank": None,
            "accuracy": found.accuracy[index],
            "network": index,
        }
        for place, entry in enumerate(known)
        for index in places
        if math.isfinite(found.scores[entry.proxy][index])
    ]
    lookup = [{"network": index, "name": names[index][:100] if index < len(names) else ""} for index in places]
    labels = [f"{entry.proxy}  (tau {_tau(entry)})" for entry in known]
    choose = {
        "name": "proxy",
        "value": "0",
        "bind": {
            "input": "select",
            "options": [str(place) for place in range(len(known))],
            "labels": labels,
            "name": "Proxy",
        },
    }
    x, y = number("score", "score"), number("accuracy", "accuracy (%)")
    tip = tooltip(("name", "network"), ("accuracy", "accuracy (%)", ".2f"), ("score", "score", ".6g"))
    layer: Spec = {
        "transform": [
            {"filter": "datum.proxy == proxy"},
            {"lookup": "network", "from": {"data": {"values": lookup}, "key": "network", "fields": ["name"]}},
        ],
        "mark": {"type": "point", "filled": True, "size": 26, "opacity": 0.65, "color": "var(--accent)"},
        "encoding": {"x": x, "y": y, "tooltip": tip},
        "params": [ZOOM],
    }
    alt = f"Accuracy against score of {len(places):,} networks, by one of {len(known)} proxies."
    note = (
        ""
        if len(places) == len(found.accuracy)
        else f"{len(places):,} of {len(found.accuracy):,} architectures are drawn."
    )
    return [Chart("Accuracy against score", chart(rows, [layer], height=420, params=[choose]), alt, note, wide=True)]


def _failed(found: Correlation) -> list[Part]:
    parts: list[Part] = []
    items = failures(found)
    if items:
        parts.append(Table(["proxy", "reason"], [list(item) for item in items], "Scores that failed"))
    if found.left_out:
        parts.append(Facts(list(found.left_out.items()), "Proxies that were left out"))
    return parts
