"""Names for plug-ins: a decorator, discovery by folder scan and entry points, did-you-mean."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any, Generic, TypeVar

from zeroshot_nas.errors import PluginWarning, UnknownNameError

T = TypeVar("T")

_DISCOVERY = threading.RLock()
"""Held while plug-ins are looked for: other threads wait, and this one may look names up in any registry."""


class Registry(Generic[T]):
    """Maps names to entries of one kind; looks for them when it is first asked.

    The first look-up imports every module of ``package`` (so that a new entry is one new file) and then the entry
    points of the group of the same name (so that another distribution can add entries). A plug-in that fails to import
    is reported by its distribution's name and skipped; a name taken twice is an error.

    Args:
        kind: What an entry is, for messages: ``"proxy"``.
        package: Dotted name of the package to scan, also the entry point group.

    Example:
        >>> colours: Registry[int] = Registry("colour", package="zeroshot_nas.blocks")
        >>> colours.add("red", 1)
        >>> colours["red"]
        1
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._discovered = False
        self._is_looking = False

    def add(self, name: str, entry: T) -> None:
        """Adds an entry.

        Raises:
            ValueError: The name is taken.
        """
        if name in self._entries:
            raise ValueError(f"the {self.kind} {name!r} is already registered, as {self._entries[name]!r}")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        self._discover()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._entries))

    def _discover(self) -> None:
        if self._discovered:
            return
        with _DISCOVERY:
            if self._discovered or self._is_looking:
                return
            self._is_looking = True  # a module that looks a name up while it loads must not recurse
            try:
                self._look()
                self._discovered = True  # where it fails the next look-up says so again, not that a name is unknown
            finally:
                self._is_looking = False

    def _look(self) -> None:
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__, prefix=f"{self.package}."):
            importlib.import_module(module.name)
        for entry_point in _entry_points(tuple(sys.path)).select(group=self.package):
            try:
                entry_point.load()
            except (
                Exception,
                SystemExit,
            ) as error:  # a stranger's code: whatever it raises must not take the package down
                owner = entry_point.dist.name if entry_point.dist else "an unknown distribution"
                warnings.warn(
                    f"the {self.kind} plug-in {entry_point.name!r} of {owner} failed to load and is skipped: "
                    f"{type(error).__name__}: {error}",
                    PluginWarning,
                    stacklevel=4,
                )


@cache
def _entry_points(_path: tuple[str, ...]) -> Any:
    """The entry points of all distributions on ``sys.path``, read once for all registries, since it takes 5 ms."""
    from importlib.metadata import entry_points  # here: it imports a reader of mail headers, in 15 ms

    return entry_points()
