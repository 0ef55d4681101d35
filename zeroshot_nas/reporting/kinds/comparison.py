"""The page of a comparison: accuracies with their intervals beside what networks cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.comparing.compare import RESULT_FILE
from zeroshot_nas.comparing.comparison import Compared, Comparison, with_latency, with_training
from zeroshot_nas.core.files import read_as
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.reporting.base import (
    Bar,
    Cell,
    Chart,
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
from zeroshot_nas.reporting.charts import (
    ZOOM,
    Row,
    Spec,
    chart,
    groups,
    is_wide,
    name,
    number,
    rows_chart,
    tooltip,
)
from zeroshot_nas.reporting.network import network_section
from zeroshot_nas.reporting.provenance import run_section
from zeroshot_nas.reporting.words import count, counted, duration, short
from zeroshot_nas.runs.store import FILE_NAME, Entry, Store
from zeroshot_nas.training.recipe import Recipe

_COLORS = {"in question": "best", "given": "accent", "by hand": "k1"}
"""Colours of networks: the first, others that were given, hand-made ones."""


@register_page("comparison")
def comparison_page(folder: Path) -> Page:
    """A comparison's page.

    Raises:
        FileFormatError: A file of it is damaged.
    """
    with Store(folder / FILE_NAME, read_only=True) as store:
        settings, call, journal = store.fact("settings") or {}, store.fact("call"), list(store.journal())
    last = journal[-1].kind if journal else ""
    file = folder / RESULT_FILE
    at_end = last in ("done", "interrupted") and file.is_file()
    found = read_as(file, Comparison.from_json) if at_end else _so_far(call, settings, journal)
    whole = len(found.networks) * len(found.seeds)
    done = sum(len(each.trainings) for each in found.networks)
    state = state_of(folder, last)
    why = next((str(each.body.get("error", "")) for each in reversed(journal) if each.kind == "failed"), "")
    compared = ", ".join(each.name for each in found.networks)
    return Page(
        title=f"{found.networks[0].name} beside others, on {found.data}",
        kind="comparison",
        state=state,
        tiles=_tiles(found, done, whole),
        sections=[
            Section("Accuracy", _accuracy(found)),
            Section("Trainings", _trainings(found)),
            network_section(found.networks[0].architecture, string=found.networks[0].string),
            run_section(_settings(settings), journal),
        ],
        subtitle=f"{compared} · {counted(found.recipe.epochs, 'epoch')} · {counted(len(found.seeds), 'seed')}",
        remark=way_on(state, folder, why),
        progress=done / max(1, whole),
        foot=[f"Folder: {folder}"],
    )


def _so_far(call: Mapping[str, Any], settings: Mapping[str, Any], journal: Sequence[Entry]) -> Comparison:
    """What a comparison that is not at its end has found."""
    networks: dict[str, Compared] = {}
    for by_hand, given in ((False, call["models"]), (True, call["by_hand"])):
        for each, architecture in given.items():
            network = Architecture.from_dict(architecture)
            networks[each] = Compared(each, network, str(network), by_hand, complexity(network), 0)
    latency = "not measured yet"
    for kind, body in ((entry.kind, entry.body) for entry in journal):
        if kind == "training":
            networks[body["name"]] = with_training(networks[body["name"]], body)
        elif kind == "latency" and body["latency_ms"] is not None:
            networks[body["name"]], latency = with_latency(networks[body["name"]], body)
    recipe, seeds = Recipe(**settings["recipe"]), tuple(settings["seeds"])
    return Comparison(tuple(networks.values()), settings["data"], recipe, seeds, latency, "interrupted")


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for; networks stand in tabs of their own, and the recipe's parts each on a line."""
    own = {each: value for each, value in settings.items() if each not in ("networks", "recipe")}
    return {**own, **settings.get("recipe", {})}


def _tiles(found: Comparison, done: int, whole: int) -> list[Tile]:
    first = found.networks[0]
    tiles = []
    if first.accuracy is not None:
        mean, low, high = first.accuracy
        tiles.append(Tile(first.name, f"{mean:.2%}", f"95 % interval {low:.1%} to {high:.1%}"))
    others = [each for each in found.by_accuracy() if each is not first and each.accuracy is not None]
    if others and others[0].accuracy is not None:
        mean, low, high = others[0].accuracy
        tiles.append(Tile(f"best other: {others[0].name}", f"{mean:.2%}", f"95 % interval {low:.1%} to {high:.1%}"))
        if (ahead := first.ahead_of(others[0])) is not None:
            noise = ", within the noise" if ahead.low <= 0 <= ahead.high else ""
            note = f"{100 * ahead.low:+.1f} to {100 * ahead.high:+.1f} points{noise}"
            tiles.append(
                Tile("ahead by" if ahead.value >= 0 else "behind by", f"{100 * abs(ahead.value):.1f} pp", note)
            )
    tiles.append(Tile("networks", str(len(found.networks)), f"{sum(each.by_hand for each in found.networks)} by hand"))
    tiles.append(Tile("trainings", count(done), f"of {whole:,}", done / max(1, whole)))
    tiles.append(Tile("time", duration(sum(t.seconds for each in found.networks for t in each.trainings)), "training"))
    return tiles


def _accuracy(found: Comparison) -> list[Part]:
    parts: list[Part] = []
    rows = [_row(each, place == 0) for place, each in enumerate(found.networks) if each.accuracy is not None]
    rows.sort(key=lambda row: -row["accuracy"])
    if rows:
        listed = ", ".join(f"{row['name']} {row['accuracy']:.1%}" for row in rows)
        alt = f"Test accuracy with its 95 % interval, the best first: {listed}."
        parts.append(Chart("Test accuracy", _intervals(rows), alt, wide=True))
        if len(rows) > 1:
            parts += _over_costs(rows)
    verdicts = found.verdicts()
    parts += [Note(". ".join(verdicts) + ".", title="Verdict")] if verdicts else []
    parts.append(_table(found))
    return parts


def _row(network: Compared, first: bool) -> dict[str, Any]:
    assert network.accuracy is not None, "asked for where there is one"
    mean, low, high = network.accuracy
    group = "in question" if first else "by hand" if network.by_hand else "given"
    costs = {"params": network.costs.params, "flops": network.costs.flops, "ms": network.costs.latency_ms}
    about = {"name": network.name, "group": group, "trainings": len(network.accuracies)}
    return {**about, "accuracy": mean, "low": low, "high": high, **costs}


def _colors(rows: Sequence[Row]) -> Spec:
    return groups({group: color for group, color in _COLORS.items() if any(row["group"] == group for row in rows)})


def _tip() -> list[Spec]:
    return tooltip(
        ("name", "network"),
        ("accuracy", "mean accuracy", ".2%"),
        ("low", "at least", ".2%"),
        ("high", "at most", ".2%"),
        ("trainings", "trainings", "d"),
        ("params", "params", ",d"),
        ("flops", "FLOPs", ",d"),
        ("ms", "latency (ms)", ".3g"),
    )


def _intervals(rows: Sequence[Row]) -> Spec:
    x = number("accuracy", "mean test accuracy with its 95 % interval", axis={"format": ".0%"})
    y = name("name", order=[row["name"] for row in rows], axis={"title": None})
    both = {"y": y, "color": _colors(rows), "tooltip": _tip()}
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, **both},
        },
        {"mark": {"type": "point", "filled": True, "size": 70}, "encoding": {"x": x, **both}},
    ]
    return rows_chart(rows, layers, len(rows) + 1)


def _over_costs(rows: Sequence[Row]) -> list[Part]:
    """Accuracy over each cost that all of them have."""
    titles = {"ms": "latency (ms, measured)", "flops": "FLOPs (multiply-adds)", "params": "parameters"}
    parts: list[Part] = []
    for field, title in titles.items():
        values = [row[field] for row in rows]
        if any(value is None for value in values):
            continue
        scale = {"type": "log"} if is_wide(values) else {}
        x = number(
            field,
            title,
            axis={"format": "~s" if field != "ms" else "~g", "tickCount": 5},
            scale={"padding": 36, **scale},
        )
        y = number("accuracy", "mean test accuracy", axis={"format": ".0%"})
        both = {"x": x, "color": _colors(rows), "tooltip": _tip()}
        layers: list[Spec] = [
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.5},
                "encoding": {**both, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 80},
                "encoding": {**both, "y": y},
                "params": [ZOOM],
            },
            {
                "mark": {"type": "text", "dy": -12, "fontSize": 11},
                "encoding": {"x": x, "y": y, "text": {"field": "name"}, "color": {"value": "var(--ink)"}},
            },
        ]
        listed = "; ".join(f"{row['name']} {row['accuracy']:.1%} at {row[field]:,}" for row in rows)
        parts.append(Chart(f"Accuracy over {title}", chart(rows, layers), f"Accuracy over {title}: {listed}."))
    return parts


def _table(found: Comparison) -> Table:
    ordered = found.by_accuracy()
    rows: list[list[Cell]] = []
    for each in ordered:
        accuracy: Cell = "–" if each.accuracy is None else Bar(each.accuracy.value, str(each.accuracy))
        costs = each.costs
        latency = "–" if costs.latency_ms is None else f"{costs.latency_ms:.3g}"
        how = "by hand" if each.by_hand else "given"
        size = ["×".join(map(str, each.architecture.input_size))] if found.differ_in_input else []
        rows.append([each.name, how, accuracy, count(costs.params), short(costs.flops), latency, *size])
    head = ["network", "", "test accuracy (95 % interval)", "params", "FLOPs", "ms"]
    head += ["input"] if found.differ_in_input else []
    return Table(head, rows, "Networks", [ordered.index(found.networks[0])], f"Latency: {found.latency}.")


def _trainings(found: Comparison) -> list[Part]:
    rows = [
        [
            each.name,
            str(training.seed),
            "–" if training.right is None else f"{training.right / each.test_images:.2%}",
            "–" if training.right is None else f"{training.right:,} of {each.test_images:,}",
            duration(training.seconds),
            training.failure,
        ]
        for each in found.networks
        for training in each.trainings
    ]
    if not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    head = ["network", "seed", "test accuracy", "images right", "time", "failure"]
    return [Table(head[: len(rows[0])], rows, "Trainings")] if rows else []
