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
        rows: Its cells, the first of each row its name; numbers stand at the right.
        head: Names of the columns.

    Example:
        >>> html_table("<costs>", [("params", "1,000")])[:45]
        '<div><strong>&lt;costs&gt;</strong><table><tb'
    """
    heading = "".join(_cell("th", name, index > 0) for index, name in enumerate(head))
    body = "".join(f"<tr>{_row(row)}</tr>" for row in rows[:MAX_ROWS])
    more = f"<p>… and {len(rows) - MAX_ROWS:,} more</p>" if len(rows) > MAX_ROWS else ""
    thead = f"<thead><tr>{heading}</tr></thead>" if head else ""
    return f"<div><strong>{_text(title)}</strong><table>{thead}<tbody>{body}</tbody></table>{more}</div>"


def _row(cells: Sequence[object]) -> str:
    first, *others = cells
    return _cell("th", first) + "".join(_cell("td", cell, _is_number(cell)) for cell in others)


def _cell(tag: str, content: object, to_the_right: bool = False) -> str:
    return f'<{tag} style="text-align:{"right" if to_the_right else "left"}">{_text(content)}</{tag}>'


def _is_number(cell: object) -> bool:
    return str(cell).lstrip("-±")[:1].isdigit() and len(str(cell)) < 24


def _text(content: object) -> str:
    text = printable(str(content))
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")
