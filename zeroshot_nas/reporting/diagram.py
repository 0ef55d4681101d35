"""A network as a drawing: a box a block, stages by resolution, and the share of each block below it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.reporting.words import percent

_STEP, _BOX, _LEFT, _MIDDLE = 58, 40, 114, 104
_LEAST, _MOST = 26, 132
"""Heights of boxes, of one channel and of the widest block."""

_ROW, _TOP_OF_ROWS = 44, 218


class Column(NamedTuple):
    """A block in the drawing.

    Attributes:
        name: Its kind.
        shape: What it puts out.
        sub_layers: Its depth.
        kind: Number of its colour; None for the classifier.
        text: What is said of it where it is pointed at.
    """

    name: str
    shape: Shape
    sub_layers: int
    kind: int | None
    text: str


def draw(columns: Sequence[Column], input_size: Shape, shares: Mapping[str, Sequence[float]]) -> str:
    """The drawing as an SVG element.

    Args:
        columns: The blocks in order, the classifier last.
        input_size: Shape of one image.
        shares: Each block's part of several quantities, by name.
    """
    width = _LEFT + _STEP * len(columns) + 12
    height = _TOP_OF_ROWS + _ROW * len(shares) + 6
    stages = " then ".join(
        f"{len(list(members))} at {side[0]}×{side[1]}" for side, members in groupby(columns[:-1], lambda c: c.shape[1:])
    )
    svg = Element("svg", viewBox=f"0 0 {width} {height}", role="img", style=f"--w: {width}px")
    svg.set("class", "diagram")
    SubElement(svg, "title").text = f"A network of {len(columns) - 1} blocks: {stages}, then a classifier"
    _bands(svg, columns, height)
    _image(svg, input_size)
    widest = max(column.shape[0] for column in columns[:-1])
    for place, column in enumerate(columns):
        _box(svg, _LEFT + _STEP * place, column, widest)
    for row, (name, parts) in enumerate(shares.items()):
        _share_row(svg, _TOP_OF_ROWS + _ROW * row, name, parts, columns)
    return tostring(svg, encoding="unicode")


def _bands(svg: Element, columns: Sequence[Column], height: int) -> None:
    """A ground for each stage, with its resolution."""
    place = 0
    stages = [(side, len(list(members))) for side, members in groupby(columns[:-1], lambda column: column.shape[1:])]
    for number, (side, members) in enumerate(stages):
        x, wide = _LEFT + _STEP * place - 3, _STEP * members
        band = SubElement(svg, "rect", x=str(x), y="4", width=str(wide), height=str(height - 8), rx="6")
        band.set("class", "band" if number % 2 == 0 else "band odd")
        _text(svg, x + wide / 2, 202, f"{side[0]}×{side[1]}", "res")
        place += members


def _image(svg: Element, input_size: Shape) -> None:
    _text(svg, 30, _MIDDLE - 34, "image", "label")
    SubElement(svg, "rect", x="12", y=str(_MIDDLE - 18), width="36", height="36", rx="3").set("class", "image")
    _text(svg, 30, _MIDDLE + 34, f"{input_size[0]}×{input_size[1]}×{input_size[2]}", "label")
    _line(svg, 48, _LEFT + 6)


def _box(svg: Element, x: float, column: Column, widest: int) -> None:
    """A block: its height says channels; of several sub-layers cards lie behind it."""
    group = SubElement(svg, "g")
    group.set("class", "block")
    SubElement(group, "title").text = column.text
    left, cards = x + 6, min(2, column.sub_layers - 1)
    if column.kind is None:
        tall, kind = 40.0, "head"
    else:
        tall = _LEAST + (_MOST - _LEAST) * math.log(column.shape[0] + 1) / math.log(widest + 1)
        kind = f"kind{column.kind}"
    top = _MIDDLE - tall / 2
    _line(svg, x + 6 + _BOX, x + _STEP + 6) if column.kind is not None else None
    for card in range(cards, -1, -1):
        size = {"x": f"{left + 3 * card:g}", "y": f"{top - 3 * card:.1f}", "width": str(_BOX), "height": f"{tall:.1f}"}
        SubElement(group, "rect", size, rx="4").set("class", f"box {kind}")
    _text(group, left + _BOX / 2 + 1.5 * cards, top - 3 * cards - 6, str(column.shape[0]), "channels")
    if column.kind is None:
        _text(group, left + _BOX / 2, _MIDDLE + 3, "linear", "inside small")
    elif column.sub_layers > 1:
        _text(group, left + _BOX / 2, _MIDDLE + 4, f"×{column.sub_layers}", "inside")


def _share_row(svg: Element, top: int, name: str, parts: Sequence[float], columns: Sequence[Column]) -> None:
    """Bars of one quantity, each below its block, the longest as tall as there is room."""
    words = name.split(": ") if ": " in name else name.split(" (")
    for line, word in enumerate(words):
        _text(svg, 6, top + 22 + 12 * line - 6 * (len(words) - 1), word.rstrip(")"), "row")
    most = max(parts) or 1.0
    room = _ROW - 20
    for place, (part, column) in enumerate(zip(parts, columns, strict=True)):
        group = SubElement(svg, "g")
        SubElement(group, "title").text = f"{column.name}\n{name} {percent(part)}"
        tall = max(1.0, room * part / most)
        x = _LEFT + _STEP * place + 6
        size = {"x": str(x), "y": f"{top + 14 + room - tall:.1f}", "width": str(_BOX), "height": f"{tall:.1f}"}
        SubElement(group, "rect", size, rx="2").set("class", "share")
        _text(group, x + _BOX / 2, top + 11 + room - tall, percent(part), "pct")


def _line(svg: Element, start: float, end: float) -> None:
    place = {"x1": f"{start:g}", "x2": f"{end:g}", "y1": str(_MIDDLE), "y2": str(_MIDDLE)}
    line = Element("line", place)
    line.set("class", "wire")
    svg.append(line)


def _text(parent: Element, x: float, y: float, text: str, kind: str) -> None:
    element = SubElement(parent, "text", x=f"{x:.1f}", y=f"{y:.1f}")
    element.set("class", kind)
    element.text = text
