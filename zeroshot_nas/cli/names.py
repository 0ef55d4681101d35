"""`list`: the names that the other commands take."""

from __future__ import annotations

from zeroshot_nas.cli.base import AsJson, app, print_json, print_rows


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """The names that the other commands take."""
    import zeroshot_nas as zs

    names = {
        "proxies": zs.list_proxies(),
        "spaces": zs.list_spaces(),
        "searchers": zs.list_searchers(),
        "costs": zs.list_costs(),
        "data": zs.list_data(),
        "recipes": zs.list_recipes(),
        "export formats": zs.list_export_formats(),
        "backends": zs.list_backends(),
        "executors": zs.list_executors(),
        "blocks": zs.list_blocks(),
    }
    if as_json:
        print_json(names)
    else:
        print_rows([(kind, ", ".join(entries)) for kind, entries in names.items()])
