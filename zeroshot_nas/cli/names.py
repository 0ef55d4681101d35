"""`list`: the names that the other commands take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import typer

import zeroshot_nas
from zeroshot_nas.cli.base import AsJson, app, print_json, print_rows
from zeroshot_nas.cli.help import completes
from zeroshot_nas.errors import UnknownNameError

KINDS = {
    "proxies": "list_proxies",
    "spaces": "list_spaces",
    "references": "list_references",
    "searchers": "list_searchers",
    "costs": "list_costs",
    "data": "list_data",
    "recipes": "list_recipes",
    "tables": "list_tables",
    "export formats": "list_export_formats",
    "boards": "list_boards",
    "backends": "list_backends",
    "executors": "list_executors",
    "callbacks": "list_callbacks",
    "blocks": "list_blocks",
}
"""Kinds of names, and the public function that lists each."""


_LONG = ("tables", "blocks")
"""Kinds that are shown only when asked for: the readers of tables load numpy, and blocks are many."""


@app.command("list")
def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="One kind alone, e.g. recipes or proxies, with what they are.",
            autocompletion=completes(lambda: (each.replace(" ", "-") for each in KINDS)),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The names that the other commands take."""
    if kind is not None:
        chosen = kind.replace("-", " ")
        if chosen not in KINDS:
            raise UnknownNameError("kind of name", kind, KINDS)
        if as_json:
            print_json(_names(chosen))
        else:
            typer.echo(_table(_DETAILS.get(chosen, lambda: [(name,) for name in _names(chosen)])()))
        return
    if as_json:
        print_json({each: _names(each) for each in KINDS})
        return
    rows = [(each, ", ".join(_names(each))) for each in KINDS if each not in _LONG]
    print_rows([*rows, ("and", ", ".join(f"list {each}" for each in _LONG))])


def _names(kind: str) -> list[str]:
    names: list[str] = getattr(zeroshot_nas, KINDS[kind])()
    return names


def _proxies() -> list[tuple[str, ...]]:
    """Every proxy with what it costs, which values are better, and its source."""
    from zeroshot_nas.scoring.proxy import get_proxy, list_proxies

    infos = [get_proxy(name).info for name in list_proxies()]
    return [("proxy", "cost", "better", "source"), *((i.name, i.cost, i.direction, i.source) for i in infos)]


def _recipes() -> list[tuple[str, ...]]:
    from zeroshot_nas.training.recipe import recipe_table

    return recipe_table()


def _references() -> list[tuple[str, ...]]:
    from zeroshot_nas.references.base import reference_table

    return reference_table()


def _described(names: Iterable[str], about: Callable[[str], str | None]) -> list[tuple[str, ...]]:
    """Names with the first sentence of what is said of each."""
    rows = [(name, " ".join((about(name) or "").split("\n\n")[0].split())) for name in names]
    return [("name", "what it is"), *rows]


def _spaces() -> list[tuple[str, ...]]:
    from zeroshot_nas.spaces.base import SPACES

    return _described(SPACES, lambda name: SPACES[name].__doc__)


def _searchers() -> list[tuple[str, ...]]:
    from zeroshot_nas.searchers.base import SEARCHERS

    return _described(SEARCHERS, lambda name: SEARCHERS[name].__doc__)


def _costs() -> list[tuple[str, ...]]:
    from zeroshot_nas.costs.base import COSTS, list_costs

    return _described(list_costs(), lambda name: f"{COSTS[name].label}; {COSTS[name].option}: {COSTS[name].help}")


def _callbacks() -> list[tuple[str, ...]]:
    from zeroshot_nas.callbacks.base import CALLBACKS

    return _described(CALLBACKS, lambda name: CALLBACKS[name].__doc__)


def _boards() -> list[tuple[str, ...]]:
    """Every board with its memory and where the numbers are from."""
    from zeroshot_nas.micro.boards import KIB, get_board, list_boards

    boards = map(get_board, list_boards())
    rows = [(b.name, f"{b.ram // KIB} KiB", f"{b.flash // KIB} KiB", b.core, b.source) for b in boards]
    return [("board", "RAM", "flash", "core", "source"), *rows]


_DETAILS: dict[str, Callable[[], list[tuple[str, ...]]]] = {
    "proxies": _proxies,
    "recipes": _recipes,
    "references": _references,
    "spaces": _spaces,
    "searchers": _searchers,
    "costs": _costs,
    "callbacks": _callbacks,
    "boards": _boards,
}


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
