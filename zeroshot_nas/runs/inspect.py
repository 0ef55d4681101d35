"""Reading a run's folder: what it is, how far it is, what it has scored. Another process may be writing to it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from zeroshot_nas.errors import StoreError
from zeroshot_nas.runs.store import FILE_NAME, Store

_COLUMNS = (
    "architecture",
    "proxy",
    "seed",
    "value",
    "standard_error",
    "repeats",
    "seconds",
    "state",
    "reason",
    "settings",
    "details",
)


def summary(folder: Path | str) -> dict[str, Any]:
    """What a run is and how far it is.

    Raises:
        StoreError: The folder holds no run.
    """
    with Store(Path(folder) / FILE_NAME, read_only=True) as store:
        journal = list(store.journal())
        last = journal[-1].kind if journal else "empty"
        return {
            "folder": str(folder),
            "kind": store.fact("kind") or "unknown",
            "state": last if last in ("done", "interrupted", "empty") else "unfinished",
            "scores": len(store),
            "settings": store.fact("settings"),
            "begun_with": next((entry.body for entry in journal if entry.kind == "start"), None),
            "journal": [[entry.time, entry.kind] for entry in journal],
        }


def best_so_far(folder: Path | str) -> dict[str, Any]:
    """The best score in a run's store.

    Raises:
        StoreError: The run has no score yet.
    """
    from zeroshot_nas.scoring.proxy import get_proxy

    with Store(Path(folder) / FILE_NAME, read_only=True) as store:
        if store.fact("kind") == "correlation":
            raise StoreError(f"{folder} holds a correlation, which looks for no best network; see its report.md")
        settings = store.fact("settings") or {}
        sign = get_proxy(settings["proxy"]).sign if "proxy" in settings else 1
        alive = [(key, body) for key, body in store.scores() if body["value"] is not None]
        if not alive:
            raise StoreError(f"{folder} has no score yet")
        key, body = max(alive, key=lambda entry: sign * entry[1]["value"])
        architecture = store.architecture(key.architecture)
        return {"architecture": architecture.to_dict() if architecture else key.architecture, "score": body}


def export(folder: Path | str, as_format: str) -> str:
    """All scores of a run as CSV or JSON text."""
    with Store(Path(folder) / FILE_NAME, read_only=True) as store:
        rows = []
        for key, body in store.scores():
            architecture = store.architecture(key.architecture)
            shown = architecture.to_dict() if architecture else key.architecture
            rows.append({**body, "architecture": shown, "seed": key.seed, "settings": json.loads(key.settings)})
    if as_format == "json":
        return json.dumps(rows, indent=1) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts = {name: json.dumps(row[name]) for name in ("architecture", "settings")}
        writer.writerow({**row, **texts, "details": json.dumps(row.get("details", {}))})
    return text.getvalue()
