"""What a page consists of, and the registry of the kinds of runs that have one. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from zeroshot_nas.core.registry import Registry
from zeroshot_nas.runs.inspect import stored_kind
from zeroshot_nas.runs.store import is_in_use

State: TypeAlias = Literal["done", "running", "interrupted", "failed", "stopped"]
"""``"stopped"``: not at its end, and nobody works at it; ``"failed"``: the same, and the run's journal says why."""

Tone: TypeAlias = Literal["", "good", "warn", "bad"]


@dataclass(frozen=True)
class Tile:
    """One figure that stands out.

    Attributes:
        label: What it is.
        value: The figure, as it is read.
        note: What else belongs to it, in small.
        share: How much of a limit it takes, from 0 to 1; drawn as a bar.
    """

    label: str
    value: str
    note: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Bar:
    """A cell of a table that is a bar with its text.

    Attributes:
        share: Length, from 0 to 1.
        text: What stands beside it.
    """

    share: float
    text: str


Cell: TypeAlias = str | Bar


@dataclass(frozen=True)
class Facts:
    """Names and values in two columns."""

    rows: Sequence[tuple[str, str]]
    title: str = ""
    macro: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Table:
    """A table; cells of numbers are aligned to the right.

    Attributes:
        head: Names of the columns.
        rows: Its rows.
        title: What it is of.
        marked: Places of rows that stand out.
        note: What a reader must know.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    marked: Sequence[int] = ()
    note: str = ""
    macro: ClassVar[str] = "table"

    @property
    def numbers(self) -> list[bool]:
        """Whether each column is of numbers alone; the first is of names, whatever they are."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.head)
        return [
            place > 0 and any(column) and all(_is_number(cell) for cell in column)
            for place, column in enumerate(columns)
        ]


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, str) and re.fullmatch(r"[-+–]?[\d.,]*(e[-+]?\d+)?[%kMG]?( ms)?( pp)?", cell) is not None


@dataclass(frozen=True)
class Chart:
    """A chart to hover and zoom.

    Attributes:
        title: What it shows.
        spec: Vega-Lite's description; colours are those of the page, as ``"var(--accent)"``.
        alt: What it says, for those who can't see it.
        note: What a reader must know.
        wide: Whether it takes the whole width.
    """

    title: str
    spec: Mapping[str, Any]
    alt: str
    note: str = ""
    wide: bool = False
    macro: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Drawing:
    """A drawing.

    Attributes:
        title: What it shows.
        svg: The SVG element, already escaped.
        legend: Names of what is drawn in which class of colour.
        note: What a reader must know.
    """

    title: str
    svg: str
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    macro: ClassVar[str] = "drawing"


@dataclass(frozen=True)
class Code:
    """Text to copy, such as a command."""

    text: str
    title: str = ""
    macro: ClassVar[str] = "code"


@dataclass(frozen=True)
class Note:
    """A sentence of the page's own."""

    text: str
    tone: Tone = ""
    title: str = ""
    macro: ClassVar[str] = "note"


Part: TypeAlias = Facts | Table | Chart | Drawing | Code | Note


@dataclass(frozen=True)
class Section:
    """A tab of the page; one without parts is left out."""

    name: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """The page of one run.

    Attributes:
        title: What was run, in a few words.
        kind: The kind of run, as a reader calls it.
        state: How far it is.
        tiles: Figures that stand above all.
        sections: Its tabs.
        subtitle: What else belongs to the title.
        remark: What to say of a run that is not done: why, and how it goes on.
        progress: How much of it is done, from 0 to 1; None where that is not known.
        foot: Lines at its end.
    """

    title: str
    kind: str
    state: State
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    subtitle: str = ""
    remark: str = ""
    progress: float | None = None
    foot: Sequence[str] = field(default=())


PageOf: TypeAlias = Callable[[Path], Page]


@dataclass(frozen=True)
class PageKind:
    """A kind of run.

    Attributes:
        name: Its name.
        holds: Whether a path is a run of this kind.
        page: Its page.
    """

    name: str
    holds: Callable[[Path], bool]
    page: PageOf


PAGES: Registry[PageKind] = Registry("kind of run", package="zeroshot_nas.reporting.kinds")

_Function = TypeVar("_Function", bound=PageOf)


def register_page(name: str, *, holds: Callable[[Path], bool] | None = None) -> Callable[[_Function], _Function]:
    """Registers the function below as what makes the page of a kind of run.

    Args:
        name: The kind, as the run's store has it.
        holds: Whether a path is such a run; default: whether its store says so.

    Raises:
        ValueError: The name is taken.

    Example:
        >>> @register_page("survey")  # doctest: +SKIP
        ... def survey_page(folder: Path) -> Page:
        ...     return Page("a survey", "survey", "done", [Tile("answers", "5")], [])
    """

    def register(page: _Function) -> _Function:
        PAGES.add(name, PageKind(name, holds or (lambda path: stored_kind(path) == name), page))
        return page

    return register


def state_of(folder: Path, last: str) -> State:
    """A run's state by the last word of its journal, and by whether a process works at it.

    Args:
        folder: Its folder.
        last: ``"done"``, ``"interrupted"``, ``"failed"``, or anything else.
    """
    if is_in_use(folder):
        return "running"
    words: dict[str, State] = {"done": "done", "interrupted": "interrupted", "failed": "failed"}
    return words.get(last, "stopped")


def way_on(state: State, folder: Path, why: str = "") -> str:
    """What a page says of a run that is not done.

    Args:
        state: Its state.
        folder: Its folder.
        why: How it failed.
    """
    again = f"Go on with: zeroshot-nas resume {folder}"
    if state == "interrupted":
        return f"Interrupted before its end; this is what it had by then. {again}"
    if state == "failed":
        return f"It failed: {why or 'its journal does not say why'}. {again}"
    if state == "stopped":
        return f"It ended before its end: it was killed, or failed. This is what it had kept by then. {again}"
    return ""
