"""Events of a run, what is called with them, and the registry of writers that are named. No torch here."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from zeroshot_nas.core.options import checked_option, keyword_types, option_types, parsed_option
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import CallbackError, CallbackWarning, did_you_mean

LOG_FOLDER = "log"
"""Folder of a run in which writers that are named keep what they write."""

Kind: TypeAlias = Literal[
    "begin", "screen", "score", "leader", "trial", "epoch", "latency", "plan", "training", "member", "end"
]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, and is on disk where the run has a folder.

    The first event of a run is its ``"begin"`` and the last its ``"end"``, however it ends. What lies between is in the
    order of the run's result, which does not depend on executors. A run that goes on tells all from its beginning
    again, what earlier processes did as ``known``, so that a log is whole however often the run was stopped.

    Attributes:
        run: What kind of run: ``"search"``, ``"study"``, ``"correlation"``, ``"training"`` or ``"comparison"``.
        kind: What happened; docs/callbacks.md has the table.
        step: Number of it: the epoch, the network that was scored, the proposals so far.
        values: Numbers by name, all of them finite.
        about: What else is known, JSON-ready: settings, an architecture's string, the state at the end.
        folder: The run's folder.
        known: Whether an earlier process of this run had done it.
    """

    run: str
    kind: Kind
    step: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    known: bool = False


class Callback(Protocol):
    """Called with every event of a run, in the process that began it."""

    def __call__(self, event: Event, /) -> object: ...


class CallbackFactory(Protocol):
    """``(folder, **options) -> callback``; the folder is for what it writes, None where the run has none."""

    def __call__(self, folder: Path | None, /) -> Callback: ...


CALLBACKS: Registry[CallbackFactory] = Registry("callback", package="zeroshot_nas.callbacks")

_Factory = TypeVar("_Factory", bound=Callable[..., Callback])


def register_callback(name: str) -> Callable[[_Factory], _Factory]:
    """Registers a class or function that makes a callback, also from another file or distribution.

    It is called with the run's ``log`` folder, or None, and with the options that follow the name.

    Example:
        >>> @register_callback("shout")  # doctest: +SKIP
        ... def shout(folder, /, *, mark: str = "!"):
        ...     return lambda event: print(event.run, event.kind, mark)
    """

    def register(factory: _Factory) -> _Factory:
        CALLBACKS.add(name, factory)
        return factory

    return register


def list_callbacks() -> list[str]:
    """Names of the registered callbacks.

    Example:
        >>> {"csv", "tensorboard"} <= set(list_callbacks())
        True
    """
    return list(CALLBACKS)


def made(callback: str | Callback, folder: Path | None) -> Callback:
    """A callback, made where it is named: ``"csv"``, with options ``"csv:folder=logs"``.

    Args:
        callback: A name, or what is called.
        folder: The run's folder.

    Raises:
        UnknownNameError: No callback has that name.
        CallbackError: It is neither a name nor can be called, has no such option, or lacks a folder to write to.
        MissingExtraError: Its package is not installed.
    """
    if not isinstance(callback, str):
        if not callable(callback):
            raise CallbackError(f"a callback is called with every event, or a name; got {type(callback).__name__}")
        return callback
    name, *settings = re.split(r":(?=\w+=)", callback.strip())
    factory: Callable[..., Callback] = CALLBACKS[name]
    known = keyword_types(factory) if isinstance(factory, type) else option_types(factory)
    options: dict[str, Any] = {}
    for setting in settings:
        option, _, value = setting.partition("=")
        if option not in known:
            raise CallbackError(
                f"the callback {name!r} has no option {option!r}.{did_you_mean(option, known)} Options: "
                f"{', '.join(known) or 'none'}"
            )
        try:
            options[option] = checked_option(
                f"{option} of {name!r}", parsed_option(value, known[option]), known[option]
            )
        except ValueError as error:
            raise CallbackError(str(error)) from None
    where = options.pop("folder", None) or (folder and folder / LOG_FOLDER)
    return factory(None if where is None else Path(where), **options)


class Hooks:
    """A run's callbacks; a context that tells the end, whatever it is.

    A callback that raises does not take its run along: a `CallbackWarning` says what it raised, and it is told no more.
    A `KeyboardInterrupt` that it raises stops the run as Ctrl-C does, so that the run can go on.

    Args:
        run: What kind of run.
        callbacks: What is called, or names.
        folder: The run's folder.

    Raises:
        CallbackError: See `made`.
    """

    def __init__(self, run: str, callbacks: Sequence[str | Callback], folder: Path | None) -> None:
        self.run, self.folder = run, folder
        self._callbacks = [(_named(each), made(each, folder)) for each in callbacks]
        self._ending: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def tell(
        self,
        kind: Kind,
        step: int = 0,
        values: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
        *,
        known: bool = False,
    ) -> None:
        """Calls the callbacks with an event; numbers that are not known or not finite are left out."""
        if not self._callbacks:
            return
        given = {name: value for name, value in (values or {}).items() if value is not None}
        numbers = {name: value if type(value) is int else float(value) for name, value in given.items()}
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        event = Event(self.run, kind, step, finite, dict(about or {}), self.folder, known)
        stopped: KeyboardInterrupt | None = None
        for entry in list(self._callbacks):
            name, callback = entry
            try:
                callback(event)
            except KeyboardInterrupt as error:
                stopped = error  # the others are told all the same
            except Exception as error:  # a stranger's code may raise anything
                self._callbacks = [each for each in self._callbacks if each is not entry]
                place = f" (event {kind}, step {step})"
                warnings.warn(
                    f"the callback {name} failed and is told no more{place}: {type(error).__name__}: {error}; the run "
                    "goes on",
                    CallbackWarning,
                    stacklevel=2,
                )
        if stopped is not None:
            raise stopped

    def will_end(self, values: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """What the end is to tell, once the result is on disk."""
        self._ending = values, about

    def __enter__(self) -> Hooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        values, about = self._ending
        if error is not None:
            stopped = isinstance(error, KeyboardInterrupt)
            about = {"state": "interrupted" if stopped else "failed", "error": f"{type(error).__name__}: {error}"}
        try:
            self.tell("end", 0, values, {"state": "done", **about})
        except KeyboardInterrupt:  # there is nothing left to stop
            return


def _named(callback: object) -> str:
    if isinstance(callback, str):
        return repr(callback.partition(":")[0])
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__
