"""With what a run was made, for its page: settings, versions, machine, journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from zeroshot_nas.reporting.base import Code, Facts, Part, Section, Table
from zeroshot_nas.reporting.words import setting, settings_rows
from zeroshot_nas.runs.store import Entry

_WORDS = {"start": "begun", "island": "leg of an island", "progress": "progress noted"}


def run_section(settings: Mapping[str, Any], journal: Sequence[Entry] = (), name: str = "Settings") -> Section:
    """A run's settings, what it was made with, and its journal."""
    parts: list[Part] = [Facts(settings_rows(settings), "Settings")]
    begun = next((each.body for each in journal if each.kind == "start"), None)
    if isinstance(begun, Mapping):
        parts.append(Facts(made_with(begun), "Made with"))
        if command := begun.get("command"):
            parts.append(Code(" ".join(map(str, command)), "Command"))
    if journal:
        parts.append(Table(["from", "until", "what", "times"], _events(journal), "Journal"))
    return Section(name, parts)


def made_with(begun: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Versions and machine, as `zeroshot_nas.core.provenance.provenance` found them."""
    versions, machine = begun.get("versions") or {}, begun.get("machine") or {}
    rows = [*versions.items(), *machine.items(), ("commit", begun.get("commit"))]
    return [(str(name), setting(value)) for name, value in rows if value is not None]


def _events(journal: Sequence[Entry]) -> list[list[str]]:
    """The journal's entries, those of one kind that follow each other as one."""
    rows = []
    for kind, entries in groupby(journal, key=lambda entry: entry.kind):
        times = [entry.time for entry in entries]
        rows.append([_at(times[0]), _at(times[-1]) if len(times) > 1 else "", _WORDS.get(kind, kind), str(len(times))])
    return rows


def _at(time: str) -> str:
    return time.replace("T", " ").replace("+00:00", " UTC")
