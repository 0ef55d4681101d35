"""Tables in HTML that notebooks show of results; without colours, so that they are readable on dark pages too."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from zeroshot_nas.core.text import printable

MAX_ROWS = 24
"""Rows of a table: what fits on a screen."""

_LONGEST = 240


def html_table(title: str, rows: Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
    """A table under a title; every text is escaped and shortened, and rows beyond a screen are counted.

    Args:
        title: What the table is of.
        rows: Its cells, as many in each row, the first of each its name; under a head, numbers stand at the right.
        head: Names of the columns.

    Example:
        >>> html_table("<costs>", [("params", "1,000")])[:45]
        '<div><strong>&lt;costs&gt;</strong><table><tb'
    """
    shown = rows[:MAX_ROWS]
    right = [bool(head) and all(map(_is_number, column)) for column in zip(*shown, strict=True)]
    heading = "".join(_cell("th", name, side) for name, side in zip(head, right, strict=False))
    body = "".join(
        "<tr>" + "".join(_cell("td" if place else "th", cell, right[place]) for place, cell in enumerate(row)) + "</tr>"
        for row in shown
    )
    more = f"<p>… and {len(rows) - MAX_ROWS:,} more</p>" if len(rows) > MAX_ROWS else ""
    thead = f"<thead><tr>{heading}</tr></thead>" if head else ""
    return f"<div><strong>{_text(title)}</strong><table>{thead}<tbody>{body}</tbody></table>{more}</div>"


def number(value: float) -> str:
    """A number in a cell: a whole one with all its digits.

    Example:
        >>> number(93_702_496), number(25.90351)
        ('93,702,496', '25.9035')
    """
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _cell(tag: str, content: object, to_the_right: bool) -> str:
    wrapped = ";white-space:normal;overflow-wrap:anywhere" if tag == "td" else ""  # a network's string has no spaces
    style = "text-align:right" if to_the_right else f"text-align:left{wrapped}"
    return f'<{tag} style="{style}">{_text(content)}</{tag}>'


def _is_number(cell: object) -> bool:
    return str(cell).strip(" -")[:1].isdigit() or str(cell).strip(" -") == ""


def _text(content: object) -> str:
    text = printable(str(content))
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")
