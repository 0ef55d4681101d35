"""Charts as Vega-Lite describes them: plain containers, with the page's own colours by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]
Spec: TypeAlias = dict[str, Any]

HEIGHT = 320

ZOOM: Spec = {
    "name": "view",
    "select": {"type": "interval", "zoom": "wheel![event.ctrlKey || event.metaKey]"},
    "bind": "scales",
}
"""Drag to move, the wheel with Ctrl (and a pinch) to zoom, a double click to go back."""


def chart(rows: Sequence[Row], layers: Sequence[Spec], *, height: int | None = HEIGHT, **more: Any) -> Spec:
    """Layers over one table, as wide as the page has room for; the last one can be zoomed."""
    return {
        "width": "container",
        **({} if height is None else {"height": height}),
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": [{name: _plain(value) for name, value in row.items()} for row in rows]},
        "layer": list(layers),
        **more,
    }


def rows_chart(rows: Sequence[Row], layers: Sequence[Spec], count: int, **more: Any) -> Spec:
    """Layers over one table that has a line for each of so many names."""
    return chart(rows, layers, height=max(70, 24 * count + 46), **more)


def number(field: str, title: str, **more: Any) -> Spec:
    """A channel of numbers."""
    asked = more.pop("scale", {})
    scale = {"padding": 10, **({} if asked.get("type") == "log" else {"zero": False, "nice": False}), **asked}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, **more}


def name(field: str, title: str | None = None, order: Sequence[str] | None = None, **more: Any) -> Spec:
    """A channel of names, in the order that they are given in."""
    return {"field": field, "type": "nominal", "title": title, "sort": None if order is None else list(order), **more}


def tooltip(*fields: tuple[str, str] | tuple[str, str, str]) -> list[Spec]:
    """What stands beside the pointer: field, title, and how a number is written."""
    found: list[Spec] = []
    for field, title, *form in fields:
        as_number = {"type": "quantitative", "format": form[0]} if form else {"type": "nominal"}
        found.append({"field": field, "title": title, **as_number})
    return found


def groups(colors: Mapping[str, str], title: str | None = None, **more: Any) -> Spec:
    """Colours of groups, each with its name in the legend."""
    scale = {"domain": list(colors), "range": [f"var(--{color})" for color in colors.values()]}
    return {"field": "group", "type": "nominal", "title": title, "scale": scale, **more}


def rule(value: float, text: str, *, across: bool = False) -> list[Spec]:
    """A line at one value, with its name.

    Args:
        value: Where.
        text: Its name.
        across: Whether it runs from left to right.
    """
    data = {"values": [{"at": value, "text": text}]}
    axis = "y" if across else "x"
    at = {axis: {"field": "at", "type": "quantitative"}}
    place: Spec = {"align": "center", "dy": -8} if not across else {"align": "left", "dx": 4, "dy": -6}
    edge = {"y": {"value": 0}} if not across else {"x": {"value": 0}}
    return [
        {"data": data, "mark": {"type": "rule", "strokeDash": [5, 4], "color": "var(--muted)"}, "encoding": at},
        {
            "data": data,
            "mark": {"type": "text", "fontSize": 11, "color": "var(--muted)", "clip": False, **place},
            "encoding": {**at, **edge, "text": {"field": "text"}},
        },
    ]


def bars(rows: Sequence[tuple[str, float, str]], title: str, color: str = "accent", top: float | None = None) -> Spec:
    """Bars to the right, each with its text; ``top`` is the end of the axis."""
    table = [{"name": label, "value": value, "text": text} for label, value, text in rows]
    y = name("name", axis={"title": None})
    scale: Spec = {"domainMin": 0} if top is None else {"domain": [0, top]}
    x = {
        **number("value", title),
        "scale": {"zero": True, "nice": True, "padding": 0, **scale},
        "axis": {"tickCount": 4},
    }
    tip = tooltip(("name", "what"), ("text", title))
    bar = {"mark": {"type": "bar", "color": f"var(--{color})"}, "encoding": {"x": x, "y": y, "tooltip": tip}}
    text_mark = {"type": "text", "align": "left", "dx": 5, "fontSize": 11, "color": "var(--ink)"}
    text = {"mark": text_mark, "encoding": {"x": x, "y": y, "text": {"field": "text"}}}
    return rows_chart(table, [bar, text], len(rows))


def thinned(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the rows, at even distances, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    step = (len(rows) - 1) / (most - 1)
    return [rows[round(place * step)] for place in range(most)]


def is_wide(values: Sequence[float]) -> bool:
    """Whether numbers span so much that a logarithmic axis shows them better."""
    positive = [value for value in values if value > 0]
    return len(positive) == len(values) > 0 and max(positive) > 30 * min(positive)


def _plain(value: Any) -> Any:
    """A value as JSON has it: no NaN, and no more digits than a picture shows."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
