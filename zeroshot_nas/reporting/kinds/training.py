"""The page of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.files import read_as
from zeroshot_nas.core.text import quoted, read_json
from zeroshot_nas.errors import FileFormatError
from zeroshot_nas.reporting.base import Chart, Page, Part, Section, State, Table, Tile, register_page, state_of, way_on
from zeroshot_nas.reporting.charts import ZOOM, Spec, chart, groups, name, number, rows_chart, rule, tooltip
from zeroshot_nas.reporting.network import network_section
from zeroshot_nas.reporting.provenance import run_section
from zeroshot_nas.reporting.words import count, duration, short
from zeroshot_nas.runs.inspect import TRAINING_FILE, is_training
from zeroshot_nas.training.result import wilson_interval

_ARCHITECTURE = "architecture.json"
_NUMBERED = 12
"""Classes up to which a confusion matrix has its numbers in it."""

_MOST_CLASSES = 60
"""Classes that are shown one by one at most."""


@register_page("training", holds=lambda path: path.is_dir() and is_training(path))
def training_page(folder: Path) -> Page:
    """A training's page.

    Raises:
        FileFormatError: Its file is damaged.
    """
    file = folder / TRAINING_FILE
    try:
        known = read_json(file.read_bytes())
        return _page(folder, known)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{file} is no training's: {type(error).__name__}: {quoted(str(error))}") from None


def _page(folder: Path, known: Mapping[str, Any]) -> Page:
    recipe, epochs = known["recipe"], int(known["epochs"])
    state = _state(folder, str(known["state"]))
    settings = {"data": known["data"], "seed": known["seed"], **recipe}
    settings["precision"] = known.get("precision", settings["precision"])  # of "auto" what it came to
    network = _network(folder)
    return Page(
        title=f"Training on {known['data'].partition(':')[0]}",
        kind="training",
        state=state,
        tiles=_tiles(known),
        sections=[
            Section("Curves", _curves(known)),
            Section("Classes", _classes(known)),
            Section("Confusion", _confusion(known)),
            *network,
            run_section(settings, name="Recipe"),
        ],
        subtitle=f"epoch {epochs} of {recipe['epochs']} · seed {known['seed']}",
        remark=way_on(state, folder),
        progress=min(1.0, epochs / recipe["epochs"]),
        foot=[f"Folder: {folder}"],
    )


def _state(folder: Path, state: str) -> State:
    return "done" if state == "done" else state_of(folder, state)


def _network(folder: Path) -> list[Section]:
    file = folder / _ARCHITECTURE
    if not file.is_file():  # a module of the caller's
        return []
    architecture = read_as(file, Architecture.from_json)
    return [network_section(architecture, string=str(architecture))]


def _tiles(known: Mapping[str, Any]) -> list[Tile]:
    tiles = []
    if known["test_accuracy"] is not None:
        low, high = known["test_interval"]
        tiles.append(Tile("test accuracy", f"{known['test_accuracy']:.2%}", f"95 % interval {low:.1%} to {high:.1%}"))
    else:
        tiles.append(Tile("test accuracy", "–", "looked at once, at the end"))
    if known["validation_accuracy"] is not None:
        tiles.append(Tile("validation accuracy", f"{known['validation_accuracy']:.2%}", "of the best epoch"))
    tiles.append(Tile("best epoch", str(known["best_epoch"]), f"of {known['epochs']}"))
    tiles.append(Tile("params", short(known["params"]), count(known["params"])))
    images = known["images"]
    tiles.append(
        Tile("images", short(images["train"]), f"{images['validation']:,} to validate, {images['test']:,} to test")
    )
    tiles.append(
        Tile("time", duration(known["seconds"]), f"{known['seconds'] / max(1, known['epochs']):.2g} s an epoch")
    )
    return tiles


def _curves(known: Mapping[str, Any]) -> list[Part]:
    history: Sequence[Mapping[str, Any]] = known["history"]
    tip = tooltip(
        ("epoch", "epoch", "d"),
        ("train_loss", "training loss", ".4f"),
        ("validation_accuracy", "validation accuracy", ".2%"),
        ("learning_rate", "learning rate", ".4g"),
        ("seconds", "seconds", ".3g"),
    )
    last = history[-1]
    loss_alt = f"Training loss by epoch, from {history[0]['train_loss']:.3f} to {last['train_loss']:.3f}."
    parts: list[Part] = []
    best = rule(known["best_epoch"], f"best epoch {known['best_epoch']}")
    if last["validation_accuracy"] is not None:
        alt = f"Validation accuracy by epoch, at best {known['validation_accuracy']:.2%} at {known['best_epoch']}."
        spec = _curve(history, "validation_accuracy", "validation accuracy", "accent", tip, best, form=".0%")
        parts.append(Chart("Validation accuracy", spec, alt))
    parts.append(
        Chart("Training loss", _curve(history, "train_loss", "loss on augmented images", "k1", tip, []), loss_alt)
    )
    rate = f"Learning rate by epoch, at most {max(each['learning_rate'] for each in history):.3g}."
    parts.append(
        Chart("Learning rate", _curve(history, "learning_rate", "learning rate", "k2", tip, [], height=200), rate)
    )
    times = [each["seconds"] for each in history]
    spent = f"Seconds an epoch, from {min(times):.2g} to {max(times):.2g}."
    parts.append(
        Chart(
            "Time",
            _curve(history, "seconds", "seconds an epoch", "k5", tip, [], height=200, scale={"domainMin": 0}),
            spent,
        )
    )
    return parts


def _curve(
    history: Sequence[Mapping[str, Any]],
    field: str,
    title: str,
    color: str,
    tip: list[Spec],
    more: list[Spec],
    *,
    height: int = 260,
    form: str = "",
    scale: Spec | None = None,
) -> Spec:
    x = number("epoch", "epoch", axis={"format": "d", "tickMinStep": 1})
    y = number(field, title, axis={"format": form} if form else {}, scale=scale or {})
    nearest = {
        "name": "near",
        "select": {"type": "point", "nearest": True, "on": "pointerover", "clear": "pointerout", "fields": ["epoch"]},
    }
    line: Spec = {
        "mark": {"type": "line", "color": f"var(--{color})", "strokeWidth": 2},
        "encoding": {"x": x, "y": y},
        "params": [ZOOM],
    }
    points: Spec = {
        "mark": {"type": "point", "filled": True, "color": f"var(--{color})", "size": 55},
        "encoding": {
            "x": x,
            "y": y,
            "tooltip": tip,
            "opacity": {
                "condition": {"param": "near", "empty": False, "value": 1},
                "value": 1 if len(history) < 3 else 0,
            },
        },
        "params": [nearest],
    }
    return chart(history, [*more, line, points], height=height)


def _classes(known: Mapping[str, Any]) -> list[Part]:
    confusion, names = known["confusion"], known["class_names"]
    if confusion is None:
        return []
    rows = []
    for index, (each, row) in enumerate(zip(names, confusion, strict=True)):
        if sum(row):
            low, high = wilson_interval(row[index], sum(row))
            wrong = sorted(((n, names[place]) for place, n in enumerate(row) if n and place != index), reverse=True)
            taken = ", ".join(f"{other} ({n})" for n, other in wrong[:3])
            rows.append(
                {
                    "name": str(each),
                    "accuracy": row[index] / sum(row),
                    "low": low,
                    "high": high,
                    "images": sum(row),
                    "taken": taken or "none",
                }
            )
    worst = sorted(rows, key=lambda row: row["accuracy"])
    shown = [row["name"] for row in (worst[:_MOST_CLASSES] if len(rows) > _MOST_CLASSES else worst)]
    table = [row for row in rows if row["name"] in set(shown)]
    y = name("name", order=shown, axis={"title": None})
    x = number(
        "accuracy", "accuracy with its 95 % interval", axis={"format": ".0%"}, scale={"domainMax": 1, "padding": 4}
    )
    tip = tooltip(
        ("name", "class"),
        ("accuracy", "accuracy", ".2%"),
        ("low", "at least", ".2%"),
        ("high", "at most", ".2%"),
        ("images", "test images", ",d"),
        ("taken", "taken for"),
    )
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2, "color": "var(--accent)", "opacity": 0.55},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "tooltip": tip},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "color": "var(--accent)"},
            "encoding": {"x": x, "y": y, "tooltip": tip},
        },
        *rule(float(known["test_accuracy"]), "all classes"),
    ]
    more = f"The {len(shown)} worst of {len(rows)} classes. " if len(rows) > len(shown) else ""
    alt = f"{more}Test accuracy by class, the worst first: " + ", ".join(
        f"{row['name']} {row['accuracy']:.1%}" for row in worst[:10]
    )
    cells = [
        [
            row["name"],
            f"{row['accuracy']:.2%}",
            f"{row['low']:.1%} to {row['high']:.1%}",
            count(row["images"]),
            row["taken"],
        ]
        for row in worst
    ]
    return [
        Chart("Accuracy by class", rows_chart(table, layers, len(table)), alt, more, wide=True),
        Table(
            ["class", "accuracy", "95 % interval", "test images", "most taken for"], cells, "Classes, the worst first"
        ),
    ]


def _confusion(known: Mapping[str, Any]) -> list[Part]:
    confusion, names = known["confusion"], [str(each) for each in known["class_names"]]
    if confusion is None:
        return []
    rows = [
        {
            "actual": names[i],
            "said": names[j],
            "images": number_,
            "share": number_ / max(1, sum(row)),
            "group": "right" if i == j else "wrong",
        }
        for i, row in enumerate(confusion)
        for j, number_ in enumerate(row)
        if number_ or len(names) <= _NUMBERED
    ]
    numbered = len(names) <= _NUMBERED
    size = 26 if len(names) > _NUMBERED else 40
    axis = {"labelOverlap": True, "grid": False, "ticks": False, "domain": False}
    x = name(
        "said",
        "taken for",
        names,
        axis={**axis, "orient": "top", "labelAngle": 0 if sum(map(len, names)) < 60 else -40},
    )
    y = name("actual", "class", names, axis=axis)
    shade = {
        "field": "share",
        "type": "quantitative",
        "scale": {"type": "sqrt", "domain": [0, 1], "range": [0.03, 1]},
        "legend": None,
    }
    tip = tooltip(
        ("actual", "class"), ("said", "taken for"), ("images", "test images", ",d"), ("share", "of the class", ".1%")
    )
    cell: Spec = {
        "mark": {"type": "rect", "stroke": "var(--card)", "strokeWidth": 1 if numbered else 0},
        "encoding": {
            "x": x,
            "y": y,
            "color": groups({"right": "accent", "wrong": "best"}),
            "opacity": shade,
            "tooltip": tip,
        },
    }
    text: Spec = {
        "transform": [{"filter": "datum.images > 0"}],
        "mark": {"type": "text", "fontSize": 11},
        "encoding": {
            "x": x,
            "y": y,
            "text": {"field": "images"},
            "color": {"condition": {"test": "datum.share > 0.35", "value": "var(--card)"}, "value": "var(--ink)"},
        },
    }
    wrong = sorted(
        ((row["images"], row["actual"], row["said"]) for row in rows if row["group"] == "wrong" and row["images"]),
        reverse=True,
    )
    listed = (
        "; ".join(f"{actual} taken for {said} {n} times" for n, actual, said in wrong[:5])
        or "no image is taken for another class"
    )
    height = min(900, max(160, size * len(names) + 60))
    spec = chart(rows, [cell, text] if numbered else [cell], height=height)
    parts: list[Part] = [
        Chart(
            "Confusion matrix",
            spec,
            f"Rows are classes, columns what they were taken for. Most often: {listed}.",
            wide=True,
        )
    ]
    if wrong:
        parts.append(
            Table(["class", "taken for", "test images"], [[a, s, count(n)] for n, a, s in wrong[:20]], "Most confused")
        )
    return parts
