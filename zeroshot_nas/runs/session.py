"""What a search and a correlation share about their stores: begin or resume, look scores up, keep them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.provenance import provenance
from zeroshot_nas.core.score import Score
from zeroshot_nas.errors import OutputExistsError, SettingsChangedError
from zeroshot_nas.runs.store import ScoreKey, Store, open_run, settings_difference


class Book:
    """The stores of a run: its own, and a cache that it shares with others; either may be missing.

    Args:
        stack: Closes them.
        out: The run's folder.
        cache: A store of scores that several runs share.
        kind: What kind of run it is.
        settings: What the run's result depends on.
        resume: Whether to go on with a run that is there.
        result_file: Name of the file that a finished run leaves.

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
        self.run: Store | None = None
        self.stores: list[Store] = []
        if self.folder is not None:
            self.run = stack.enter_context(open_run(self.folder)).store
            self.stores.append(self.run)
            _begin(self.run, self.folder, kind, json.loads(json.dumps(settings)), resume, result_file)
        if cache is not None:
            self.stores.append(stack.enter_context(Store(cache)))

    def score(self, key: ScoreKey) -> Score | None:
        """A score that is known."""
        return next((found for store in self.stores if (found := store.score(key)) is not None), None)

    def keep(self, architectures: Iterable[Architecture], scores: Sequence[tuple[ScoreKey, Score]]) -> None:
        """Keeps scores in every store."""
        architectures = list(architectures)
        for store in self.stores:
            store.put_architectures(architectures)
            store.put_scores(scores)


def _begin(run: Store, folder: Path, kind: str, settings: dict[str, Any], resume: bool, result_file: str) -> None:
    known = run.fact("settings")
    if known is None:
        if (folder / result_file).exists() and not resume:
            raise OutputExistsError(f"{folder} already holds a result; choose another folder")
        run.set_fact("settings", settings)
        run.set_fact("kind", kind)
        run.log("start", provenance())
        return
    if not resume:
        raise OutputExistsError(f"{folder} already holds a run; resume it, or choose another folder")
    if difference := settings_difference(known, settings):
        raise SettingsChangedError(
            f"{folder} holds a run with other settings, so it is not resumed. {'; '.join(difference)}"
        )
    run.log("resume", provenance())
