"""The pages of a family and of its training: scores and accuracies over what the members cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroshot_nas.core.files import read_as
from zeroshot_nas.families import family, trained
from zeroshot_nas.families.family import Family, Member
from zeroshot_nas.families.plot import axis_of_costs
from zeroshot_nas.families.trained import TrainedFamily, TrainedMember
from zeroshot_nas.reporting.base import (
    Bar,
    Cell,
    Chart,
    Page,
    Part,
    Section,
    Table,
    Tile,
    register_page,
    state_of,
    way_on,
)
from zeroshot_nas.reporting.charts import ZOOM, Row, Spec, chart, groups, is_wide, number, tooltip
from zeroshot_nas.reporting.network import network_section
from zeroshot_nas.reporting.provenance import run_section
from zeroshot_nas.reporting.words import count, counted, duration, short
from zeroshot_nas.runs.store import FILE_NAME, Entry, Store
from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.searching.rounds import RESULT_FILE as SEARCH_FILE
from zeroshot_nas.training.recipe import Recipe

_COLORS = {"family": "best", "without nesting": "accent"}


@register_page("family")
def family_page(folder: Path) -> Page:
    """A family's page.

    Raises:
        FileFormatError: A file of it is damaged.
    """
    settings, call, journal, last = _read(folder)
    file, names = folder / family.RESULT_FILE, list(settings["members"])
    at_end = last in ("done", "interrupted") and file.is_file()
    found = read_as(file, Family.from_json) if at_end else _so_far(folder, settings)
    state = state_of(folder, last)
    members = found.members
    return Page(
        title=f"A network for each of {counted(len(names), 'budget')}",
        kind="family",
        state=state,
        tiles=_tiles(found, len(names)),
        sections=[
            Section("Members", _members(found)),
            *(network_section(each.architecture, string=each.candidate.string) for each in members[:1]),
            run_section({"nested": call["nested"], "proxy": settings["proxy"], "members": ", ".join(names)}, journal),
        ],
        subtitle=f"by {found.proxy}" + (" · each contains the next one" if found.nested else ""),
        remark=way_on(state, folder, _why(journal)),
        progress=len(members) / max(1, len(names)),
        foot=[f"Folder: {folder}"],
    )


@register_page("family training")
def family_training_page(folder: Path) -> Page:
    """The page of a family that is trained.

    Raises:
        FileFormatError: A file of it is damaged.
    """
    settings, call, journal, last = _read(folder)
    whole_family = Family.from_json(call["family"])
    file = folder / trained.RESULT_FILE
    at_end = last in ("done", "interrupted") and file.is_file()
    found = read_as(file, TrainedFamily.from_json) if at_end else _trained_so_far(whole_family, settings, journal)
    state, whole = state_of(folder, last), len(whole_family.members)
    own = {name: value for name, value in settings.items() if name not in ("members", "recipe")}
    first = whole_family.members[0]
    return Page(
        title=f"A family of {counted(whole, 'network')}, trained on {found.data}",
        kind="family training",
        state=state,
        tiles=_trained_tiles(found, whole),
        sections=[
            Section("Accuracy", _accuracy(found)),
            network_section(first.architecture, string=first.candidate.string),
            run_section({**own, **settings["recipe"]}, journal),
        ],
        subtitle=f"way: {found.way} · {counted(found.recipe.epochs, 'epoch')} of the one that begins",
        remark=way_on(state, folder, _why(journal)),
        progress=len(found.members) / max(1, whole),
        foot=[f"Folder: {folder}"],
    )


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[Entry], str]:
    """A run's settings, the call that it was, its journal, and that one's last word."""
    with Store(folder / FILE_NAME, read_only=True) as store:
        journal = list(store.journal())
        return store.fact("settings") or {}, store.fact("call") or {}, journal, journal[-1].kind if journal else ""


def _why(journal: Sequence[Entry]) -> str:
    return next((str(each.body.get("error", "")) for each in reversed(journal) if each.kind == "failed"), "")


def _so_far(folder: Path, settings: Mapping[str, Any]) -> Family:
    """The members whose searches are done, of a family that is not at its end."""
    nested, members = bool(settings["nested"]), []
    names = list(settings["members"])
    for place, name in enumerate(names):
        free = folder / family.FREE / name / SEARCH_FILE
        own = folder / family.NESTED / name / SEARCH_FILE if nested and place else free
        if own.is_file():
            result, alone = (read_as(file, SearchResult.from_json) for file in (own, free))
            score = next(iter(alone.best.scores.values())).value if nested else None
            measured = None if result.latency is None else result.latency["measured_ms"]
            members.append(Member(name, {}, "", result.best, measured, score))
    return Family(tuple(members), settings["proxy"], nested, 0, 0.0, dict(settings), "interrupted")


def _tiles(found: Family, whole: int) -> list[Tile]:
    members = found.members
    tiles = [Tile("members", count(len(members)), f"of {whole:,}", len(members) / max(1, whole))]
    if members:
        flops = [each.candidate.costs.flops for each in members]
        tiles.append(Tile("FLOPs", f"{short(min(flops))} to {short(max(flops))}", "multiply-adds"))
    if found.nested and members:
        prices = found.nesting_costs()
        worst = max(prices, key=lambda name: prices[name])
        mean = sum(prices.values()) / len(prices)
        tiles.append(Tile("nesting costs", f"{mean:+.2%}", f"of the score; {prices[worst]:+.2%} at worst ({worst})"))
    if found.proposals:
        tiles.append(Tile("proposals", short(found.proposals), duration(found.seconds)))
    return tiles


def _members(found: Family) -> list[Part]:
    members = found.members
    if not members:
        return []
    costs = [each.candidate.costs.flops for each in members]
    xs, title = axis_of_costs([(each.latency_ms, each.device) for each in members], costs)
    rows: list[Row] = [
        {"name": each.name, "group": group, "x": x, "score": score, **_sizes(each)}
        for x, each in zip(xs, members, strict=True)
        for group, score in (("family", each.score), ("without nesting", each.free_score))
        if score is not None
    ]
    tip = tooltip(
        *(("name", "member"), ("group", ""), ("score", found.proxy, ".6g")),
        *(("flops", "FLOPs", ",d"), ("params", "params", ",d")),
    )
    listed = "; ".join(f"{each.name} {each.score:.6g} at {x:.3g}" for x, each in zip(xs, members, strict=True))
    spec = chart(rows, _points(xs, title, number("score", found.proxy), tip, rows))
    return [Chart(f"Score over {title}", spec, f"Score over {title}: {listed}.", wide=True), _table(found)]


def _sizes(member: Member) -> dict[str, Any]:
    return {"flops": member.candidate.costs.flops, "params": member.candidate.costs.params}


def _points(xs: Sequence[float], title: str, y: Spec, tip: list[Spec], rows: Sequence[Row]) -> list[Spec]:
    """A point for each row and the name of each member, over what they cost."""
    scale = {"type": "log"} if is_wide(xs) else {}
    x = number("x", title, axis={"format": "~g", "tickCount": 5}, scale={"padding": 70, **scale})
    y = {**y, "scale": {**y["scale"], "padding": 26}}  # room for names
    several = any(row["group"] != "family" for row in rows)
    colors = groups(_COLORS) if several else {"value": f"var(--{_COLORS['family']})"}
    named = [row for row in rows if row["group"] == "family"]
    return [
        {
            "mark": {"type": "point", "filled": True, "size": 80},
            "encoding": {"x": x, "y": y, "color": colors, "tooltip": tip},
            "params": [ZOOM],
        },
        {
            "data": {"values": [dict(row) for row in named]},
            "mark": {"type": "text", "dy": -12, "fontSize": 11},
            "encoding": {"x": x, "y": y, "text": {"field": "name"}, "color": {"value": "var(--ink)"}},
        },
    ]


def _table(found: Family) -> Table:
    heads = ["member", "params", "FLOPs", "layers", "ms", found.proxy, *(["without nesting"] if found.nested else [])]
    rows: list[list[Cell]] = []
    for each in found.members:
        costs, free = each.candidate.costs, each.free_score
        cells = [each.name, count(costs.params), count(costs.flops), str(costs.layers), _ms(each.latency_ms)]
        nested = ["–" if free is None else f"{free:.6g}"] if found.nested else []
        rows.append([*cells, f"{each.score:.6g}", *nested])
    return Table(heads, rows, "Members")


def _ms(latency_ms: float | None) -> str:
    return "–" if latency_ms is None else f"{latency_ms:.3g}"


def _trained_so_far(family: Family, settings: Mapping[str, Any], journal: Sequence[Entry]) -> TrainedFamily:
    """What is trained of a family whose training is not at its end."""
    bodies = {each.body["name"]: each.body for each in journal if each.kind == "training"}
    members = tuple(TrainedMember.of(each, bodies[each.name]) for each in family.members if each.name in bodies)
    how = {name: settings[name] for name in ("data", "way", "share", "distill", "seed")}
    return TrainedFamily(members, recipe=Recipe(**settings["recipe"]), **how, state="interrupted")


def _trained_tiles(found: TrainedFamily, whole: int) -> list[Tile]:
    members = found.members
    tiles = []
    for each in dict.fromkeys((*members[:1], *members[-1:])):
        mean, low, high = each.accuracy
        tiles.append(Tile(each.name, f"{mean:.2%}", f"95 % interval {low:.1%} to {high:.1%}"))
    tiles.append(Tile("trained", count(len(members)), f"of {whole:,}", len(members) / max(1, whole)))
    epochs, alone = sum(each.epochs for each in members), found.recipe.epochs * len(members)
    tiles.append(Tile("epochs", count(epochs), f"{alone:,} if each were trained for itself"))
    tiles.append(Tile("time", duration(sum(each.seconds for each in members)), "training"))
    return tiles


def _accuracy(found: TrainedFamily) -> list[Part]:
    members = found.members
    if not members:
        return []
    flops = [each.flops for each in members]
    xs, title = axis_of_costs([(each.latency_ms, each.device) for each in members], flops)
    rows: list[Row] = [
        {
            "name": each.name,
            "group": "family",
            "x": x,
            **each.accuracy._asdict(),
            "flops": each.flops,
            "begun": each.begun,
        }
        for x, each in zip(xs, members, strict=True)
    ]
    y = number("value", "test accuracy", axis={"format": ".0%"})
    tip = tooltip(
        ("name", "member"), ("value", "accuracy", ".2%"), ("low", "at least", ".2%"), ("high", "at most", ".2%")
    )
    tip += tooltip(("flops", "FLOPs", ",d"), ("begun", "begun"))
    points = _points(xs, title, y, tip, rows)
    spans = {
        "x": points[0]["encoding"]["x"],
        "y": {**points[0]["encoding"]["y"], "field": "low"},
        "y2": {"field": "high"},
    }
    layers: list[Spec] = [{"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.5}, "encoding": spans}, *points]
    listed = "; ".join(f"{each.name} {each.accuracy.value:.1%} at {x:.3g}" for x, each in zip(xs, members, strict=True))
    table = Table(
        ["member", "test accuracy (95 % interval)", "epochs", "params", "FLOPs", "ms", "begun"],
        [
            [
                *(each.name, Bar(each.accuracy.value, str(each.accuracy)), str(each.epochs), count(each.params)),
                *(count(each.flops), _ms(each.latency_ms), each.begun),
            ]
            for each in members
        ],
        "Members",
    )
    return [Chart(f"Accuracy over {title}", chart(rows, layers), f"Accuracy over {title}: {listed}.", wide=True), table]
