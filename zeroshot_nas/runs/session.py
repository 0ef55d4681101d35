"""The stores of a run while it works: begun or resumed here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zeroshot_nas.core.provenance import provenance
from zeroshot_nas.errors import OutputExistsError, SettingsChangedError
from zeroshot_nas.runs.store import Store, open_run, settings_difference


class RunSession:
    """The stores of a run: its own, and a cache that it shares with others; either may be missing.

    Args:
        stack: Closes them.
        out: The run's folder.
        cache: A store of scores that several runs share.
        kind: What kind of run it is.
        settings: What the run's result depends on.
        resume: Whether to go on with a run that is there.
        result_file: Name of the file that a finished run leaves.

    Attributes:
        folder: The run's folder.
        store: The run's own store.
        stores: What keeps scores.

    Raises:
        OutputExistsError: The folder holds a run that is not to be resumed.
        SettingsChangedError: The run to resume has other settings.
    """

    def __init__(
        self,
        stack: ExitStack,
        out: str | Path | None,
        cache: str | Path | None,
        kind: str,
        settings: Mapping[str, Any],
        resume: bool,
        result_file: str,
    ) -> None:
        self.folder = None if out is None else Path(out)
        self.store: Store | None = None
        self.stores: list[Store] = []
        if self.folder is not None:
            self.store = stack.enter_context(open_run(self.folder)).store
            self.stores.append(self.store)
            _begin(self.store, self.folder, kind, json.loads(json.dumps(settings)), resume, result_file)
        if cache is not None:
            self.stores.append(stack.enter_context(Store(cache)))

    def log(self, kind: str, body: Any) -> None:
        """Adds an entry to the run's journal."""
        if self.store is not None:
            self.store.log(kind, body)

    def journal(self, kind: str) -> list[Any]:
        """What was logged under a kind, by this process or by those before it."""
        return [] if self.store is None else [entry.body for entry in self.store.journal(kind)]


def _begin(store: Store, folder: Path, kind: str, settings: dict[str, Any], resume: bool, result_file: str) -> None:
    known = store.fact("settings")
    if known is None:
        if (folder / result_file).exists() and not resume:
            raise OutputExistsError(f"{folder} already holds a result; choose another folder")
        store.set_fact("settings", settings)
        store.set_fact("kind", kind)
        store.log("start", provenance())
        return
    if not resume:
        raise OutputExistsError(f"{folder} already holds a run; resume it, or choose another folder")
    if difference := settings_difference(known, settings):
        raise SettingsChangedError(
            f"{folder} holds a run with other settings, so it is not resumed. {'; '.join(difference)}"
        )
    store.log("resume", provenance())
