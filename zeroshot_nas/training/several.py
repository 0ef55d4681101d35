"""Trainings of several networks in one run: their images, what became of each, and how all are stopped. No torch here.

The run's journal keeps what came of each training, so that a run that goes on trains nothing twice; a training that was
cut short goes on from its own folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from zeroshot_nas.core.files import write_text
from zeroshot_nas.execution import Outcome, run_all, worker_failed
from zeroshot_nas.runs.release import SameRelease
from zeroshot_nas.runs.session import RunSession
from zeroshot_nas.training.base import ImageData, Split, read_split

STOP = "stop"
"""File in the folder that ends trainings in other processes at their next epoch."""

_SPLIT = "split.json"
"""File in it with the images of either part, where that was drawn."""


class Task(NamedTuple):
    """A training to be done.

    Attributes:
        key: What tells it from the others, JSON-ready.
        arguments: What a worker is given for it; read when no earlier process has done it.
    """

    key: Mapping[str, Any]
    arguments: Callable[[], tuple[Any, ...]]


class Trainings:
    """Trainings in folders below one.

    Args:
        folder: The folder; each training has one below it.
        session: The run's, whose journal keeps what came of them.
        kind: Under what.
        load: Reads the images, in an earlier process's split or, where that is None, in one of their own.
    """

    def __init__(self, folder: Path, session: RunSession, kind: str, load: Callable[[Split | None], ImageData]) -> None:
        self.folder, self._session, self._kind, self._load = folder, session, kind, load
        self._kept = session.journal(kind)

    @cached_property
    def images(self) -> ImageData:
        """The data, those of the run's own split; read when the first training needs them."""
        images = self._load(read_split(self.folder / _SPLIT))
        if images.split is not None:
            write_text(self.folder / _SPLIT, json.dumps({part: list(names) for part, names in images.split.items()}))
        return images

    def begin(self, names: Iterable[str], note: Mapping[str, Any]) -> bool:
        """Makes the folder ready; what an earlier run left there is not gone on with.

        Returns:
            Whether an earlier process of this run had done so.
        """
        self.folder.mkdir(exist_ok=True)
        (self.folder / STOP).unlink(missing_ok=True)
        begun = f"{self._kind}s"
        if self._session.journal(begun):
            return True
        (self.folder / _SPLIT).unlink(missing_ok=True)
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._session.log(begun, note)
        return False

    def stop(self) -> None:
        """Ends those that are under way at their next epoch, wherever they are."""
        (self.folder / STOP).touch()

    def known(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """What came of a training in an earlier process of the run."""
        for body in self._kept:
            if all(body.get(name) == value for name, value in key.items()):
                return dict(body)
        return None

    def run(
        self, executor: Executor, train: Callable[..., tuple[Any, str]], tasks: Sequence[Task]
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        """What came of every task, in order, and whether an earlier process did it.

        Args:
            executor: Where they run.
            train: What a worker does: JSON-ready values by name, or None, and why the network can't be trained on.
            tasks: The trainings.
        """
        known = [self.known(task.key) for task in tasks]
        missing = (task.arguments() for task, body in zip(tasks, known, strict=True) if body is None)
        outcomes = run_all(executor, SameRelease(train), missing)
        for task, body in zip(tasks, known, strict=True):
            yield (body, True) if body is not None else (self._done(task.key, next(outcomes)), False)

    def _done(self, key: Mapping[str, Any], outcome: Outcome[tuple[Any, str]]) -> dict[str, Any]:
        """What came of a training, kept unless its worker died: it may succeed the next time."""
        if outcome.value is None:
            assert outcome.error is not None, "a task without a value has an error"
            if not worker_failed(outcome.error):
                raise outcome.error
            return {**key, "failure": str(outcome.error)}
        values, failure = outcome.value
        body = {**key, **values, "failure": failure}
        self._session.log(self._kind, body)
        return body
