"""How a run is run, which its result does not depend on: where it is written, by what it is computed, what it shows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from zeroshot_nas.callbacks.base import Callback, Hooks
from zeroshot_nas.errors import RunOptionsError, did_you_mean
from zeroshot_nas.execution import get_executor


@dataclass(frozen=True)
class RunOptions:
    """How a search, a correlation, a training or a calibration is run.

    Each takes them one by one as keywords too: ``search(..., out="runs/a", resume=True)``. One that has no use for an
    option refuses it.

    Args:
        out: Folder for the run; what is in it is never lost. None writes nothing.
        resume: Goes on with the run in ``out``, whose settings must be those asked for; begins it where none is there.
        force: Replaces the run in ``out``.
        cache: A file of scores that several runs share.
        executor: ``"serial"``, ``"process"``, ``"dask"``, or any ``concurrent.futures.Executor``.
        workers: How many, for an executor given by name; default: all cores.
        time_limit: Seconds that a worker process may take for one task before it is killed.
        progress: Whether to show a bar.
        callbacks: What is called with every `zeroshot_nas.callbacks.base.Event` of the run, or names of such, as
            ``"csv"``. One that fails is warned of and told no more; the run goes on.

    Raises:
        RunOptionsError: ``resume`` or ``force`` without ``out``, or both, or ``callbacks`` is no list.

    Example:
        >>> RunOptions(out="runs/a").updated({"resume": True, "seed": 3})
        (RunOptions(out='runs/a', resume=True), {'seed': 3})
    """

    out: str | os.PathLike[str] | None = None
    resume: bool = False
    force: bool = False
    cache: str | os.PathLike[str] | None = None
    executor: str | Executor = "serial"
    workers: int | None = None
    time_limit: float | None = None
    progress: bool = True
    callbacks: Sequence[str | Callback] = ()

    def __post_init__(self) -> None:
        if isinstance(self.callbacks, str) or not isinstance(self.callbacks, Sequence):
            raise RunOptionsError(
                f"callbacks is a list, such as ['csv', my_function], got {type(self.callbacks).__name__}"
            )
        object.__setattr__(self, "callbacks", tuple(self.callbacks))
        for name in ("resume", "force"):
            if getattr(self, name) and self.out is None:
                raise RunOptionsError(f"{name}=True needs out, the folder of the run to {_DOES[name]}")
        if self.resume and self.force:
            raise RunOptionsError("resume goes on with the run in out, force replaces it; give one of them")

    @property
    def cache_file(self) -> Path | None:
        """The shared cache."""
        return None if self.cache is None else Path(self.cache)

    @property
    def folder(self) -> Path | None:
        """The run's folder."""
        return None if self.out is None else Path(self.out)

    def updated(self, options: Mapping[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
        """These with those of ``options`` that are run options, and the rest of ``options``."""
        own = {name: value for name, value in options.items() if name in _NAMES}
        rest = {name: value for name, value in options.items() if name not in own}
        return (replace(self, **own) if own else self), rest

    def hooks(self, kind: str) -> Hooks:
        """The callbacks of a run of some kind.

        Raises:
            CallbackError: One of them can't be called, or lacks a folder.
        """
        return Hooks(kind, self.callbacks, self.folder)

    def open_executor(self) -> AbstractContextManager[Executor]:
        """The executor, for a ``with`` statement."""
        return get_executor(self.executor, workers=self.workers, time_limit=self.time_limit)

    def __repr__(self) -> str:
        default = RunOptions()
        given = (name for name in _NAMES if getattr(self, name) != getattr(default, name))
        return f"RunOptions({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"


_DOES = {"resume": "go on with", "force": "replace"}
_NAMES = tuple(each.name for each in fields(RunOptions))


def run_options(
    run: RunOptions | None, options: Mapping[str, Any], what: str, *, takes: tuple[str, ...] = _NAMES
) -> RunOptions:
    """Run options given as an object, one by one, or both, where the latter win.

    Args:
        run: The object.
        options: The rest of a call's keywords.
        what: The call, for messages.
        takes: The options that it has a use for.

    Raises:
        TypeError: An option is none of them.
    """
    run, rest = (run or RunOptions()).updated(options)
    default = RunOptions()
    unused = [name for name in _NAMES if name not in takes and getattr(run, name) != getattr(default, name)]
    for name in (*rest, *unused):
        raise TypeError(
            f"{what} takes no option {name!r}.{did_you_mean(name, takes)} Options of the run: {', '.join(takes)}"
        )
    return run
