"""`list`: the names that the other commands take."""

from __future__ import annotations

from zeroshot_nas.cli.base import AsJson, app, print_json, print_rows


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """The names that the other commands take."""
    from zeroshot_nas import list_costs, list_data, list_export_formats, list_proxies, list_searchers, list_spaces
    from zeroshot_nas.architecture.blockspec import BLOCKS
    from zeroshot_nas.latency.base import list_backends
    from zeroshot_nas.training.recipe import RECIPES

    names = {
        "proxies": list_proxies(),
        "spaces": list_spaces(),
        "searchers": list_searchers(),
        "costs": list_costs(),
        "data": list_data(),
        "recipes": list(RECIPES),
        "export formats": list_export_formats(),
        "backends": list_backends(),
        "blocks": list(BLOCKS),
    }
    if as_json:
        print_json(names)
    else:
        print_rows([(kind, ", ".join(entries)) for kind, entries in names.items()])
