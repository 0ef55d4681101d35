"""The stores of a run while it works: begun or resumed here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from zeroshot_nas.core.provenance import provenance
from zeroshot_nas.errors import OutputExistsError, SettingsChangedError, StoreError, ZeroShotNASError
from zeroshot_nas.runs.evaluate import Job
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.runs.store import Store, open_run, settings_difference

NOTE_EVERY, NOTE_PART = 2.0, 0.02
"""Seconds between two notes of a run's progress, and their part of the run's time where that is more."""


class RunSession:
    """The stores of a run: its own, and a cache that it shares with others; either may be missing.

    Args:
        stack: Closes them.
        run: The run's folder, a shared cache of scores, and whether to go on with a run that is there or to replace it.
        kind: What kind of run it is.
        settings: What the run's result depends on.
        files: Names of the files that a finished run leaves; the first says that it is finished.
        notes: What else is kept about the run, by name, from when it was begun.

    Attributes:
        folder: The run's folder.
        store: The run's own store.
        stores: What keeps scores.
        hooks: The run's callbacks; they are told the end when the stack closes.

    Raises:
        OutputExistsError: The folder holds a run that is not to be resumed.
        SettingsChangedError: The run to resume has other settings.
    """

    def __init__(
        self,
        stack: ExitStack,
        run: RunOptions,
        kind: str,
        settings: Mapping[str, Any],
        files: Sequence[str],
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        hooks = run.hooks(kind)  # refuses what can't be called before anything is written
        self.folder = run.folder
        self._begun, self._done = perf_counter(), 0
        self._next_note = self._begun + NOTE_EVERY
        self.store: Store | None = None
        self.stores: list[Store] = []
        if self.folder is not None:
            self.store = stack.enter_context(open_run(self.folder, replaces=files if run.force else None)).store
            self.stores.append(self.store)
            plain = json.loads(json.dumps(settings))
            _begin(self.store, self.folder, kind, plain, notes or {}, run.resume, files[0])
            stack.push(self._note_failure)
        if run.cache_file is not None:
            self.stores.append(stack.enter_context(Store(run.cache_file)))
        self.hooks = stack.enter_context(hooks)
        self.hooks.tell("begin", about={"settings": settings})

    def log(self, kind: str, body: Any) -> None:
        """Adds an entry to the run's journal."""
        if self.store is not None:
            self.store.log(kind, body)

    def known(self, jobs: Iterable[Job]) -> list[bool]:
        """Of each job whether the run itself has its scores; looked up only where callbacks are to be told."""
        store = self.store if self.hooks else None
        return [store is not None and all(store.score(key) is not None for key in job.keys.values()) for job in jobs]

    def note_progress(self, done: int, best: float) -> None:
        """Keeps how far the run is, now and then: seldom enough that it takes no time, even of a long run.

        Args:
            done: What was done since the last call, such as networks that were proposed.
            best: The best score so far.
        """
        self._done += done
        now = perf_counter()
        if self.store is not None and now >= self._next_note:
            self.store.log("progress", {"done": self._done, "best": best if math.isfinite(best) else None})
            self._next_note = now + max(NOTE_EVERY, NOTE_PART * (now - self._begun))

    def _note_failure(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Keeps why a run failed, for those who look into its folder."""
        if isinstance(error, ZeroShotNASError) and self.store is not None:
            with suppress(StoreError):  # a store that can't be written to may be why
                self.store.log("failed", {"error": str(error)})

    def journal(self, kind: str) -> list[Any]:
        """What was logged under a kind, by this process or by those before it."""
        return [] if self.store is None else [entry.body for entry in self.store.journal(kind)]


_HINT = "go on with it (resume=True, --resume), replace it (force=True, --force), or choose another folder"


def _begin(
    store: Store,
    folder: Path,
    kind: str,
    settings: dict[str, Any],
    notes: Mapping[str, Any],
    resume: bool,
    result_file: str,
) -> None:
    """Begins a run where no settings are kept yet, all at once, so that a kill leaves a run or none."""
    known = store.fact("settings")
    if known is None:
        if (folder / result_file).exists() and not resume:
            raise OutputExistsError(f"{folder} already holds a result; {_HINT}")
        store.begin({**notes, "kind": kind, "settings": settings}, "start", provenance())
        return
    if not resume:
        raise OutputExistsError(f"{folder} already holds a run; {_HINT}")
    if difference := settings_difference(_by_present_names(known), settings):
        raise SettingsChangedError(
            f"{folder} holds a run with other settings, so it is not resumed. {'; '.join(difference)}"
        )
    for name, body in notes.items():
        if store.fact(name) is None:  # begun by a release that did not keep it
            store.set_fact(name, body)
    store.log("resume", provenance())


def _by_present_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run that an earlier release began, which called a budget's structure its shape."""
    budget = settings.get("budget")
    if not isinstance(budget, Mapping) or "shape" not in budget:
        return dict(settings)
    limits = {name: limit for name, limit in budget.items() if name != "shape"}
    return {**settings, "budget": {**limits, "structure": budget["shape"]}}
