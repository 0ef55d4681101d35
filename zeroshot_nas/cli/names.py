"""`list`: the names that the other commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from zeroshot_nas.cli.base import AsJson, app, print_json, print_rows
from zeroshot_nas.errors import UnknownNameError


@app.command("list")
def list_command(
    kind: Annotated[
        str | None, typer.Argument(help="One kind alone, e.g. recipes or proxies, with what they are.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The names that the other commands take."""
    import zeroshot_nas as zs

    kinds: dict[str, Callable[[], list[str]]] = {
        "proxies": zs.list_proxies,
        "spaces": zs.list_spaces,
        "references": zs.list_references,
        "searchers": zs.list_searchers,
        "costs": zs.list_costs,
        "data": zs.list_data,
        "recipes": zs.list_recipes,
        "export formats": zs.list_export_formats,
        "boards": zs.list_boards,
        "backends": zs.list_backends,
        "executors": zs.list_executors,
        "blocks": zs.list_blocks,
    }
    if kind is not None:
        chosen = kind.replace("-", " ")
        if chosen not in kinds:
            raise UnknownNameError("kind of name", kind, kinds)
        if as_json:
            print_json(kinds[chosen]())
        else:
            typer.echo(_table(_DETAILS.get(chosen, lambda: [(name,) for name in kinds[chosen]()])()))
        return
    names = {each: entries() for each, entries in kinds.items()}
    if as_json:
        print_json(names)
    else:
        print_rows([(each, ", ".join(entries)) for each, entries in names.items()])


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
    "boards": _boards,
}


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
