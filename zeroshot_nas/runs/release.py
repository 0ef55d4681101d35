"""Work that only the same release may do: what different releases compute must not be ranked together."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, TypeVar

from zeroshot_nas.errors import ClusterError
from zeroshot_nas.runs import store

T = TypeVar("T")


class SameRelease(Generic[T]):
    """A function that a worker of another release refuses to run, whatever executor brings it there.

    Args:
        function: What a worker can import.

    Example:
        >>> SameRelease(divmod)(7, 2)
        (3, 1)
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> T:
        return self.function(*arguments)

    def __reduce__(self) -> tuple[Callable[..., SameRelease[T]], tuple[Any, ...]]:
        return _received, (self.function, release())


def release() -> dict[str, str]:
    """What scores depend on beside the network and the settings.

    Example:
        >>> sorted(release())
        ['scoring version', 'torch', 'zeroshot-nas']
    """
    return {**_versions(), "scoring version": str(store.SCORING_VERSION)}


@cache
def _versions() -> dict[str, str]:
    return {name: _version(name) for name in ("zeroshot-nas", "torch")}


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]  # builds for other devices compute the same
    except PackageNotFoundError:
        return "unknown"


def _received(function: Callable[..., T], sender: Mapping[str, str]) -> SameRelease[T]:
    """A function as a worker reads it.

    Raises:
        ClusterError: The sender has another release than this process.
    """
    here = release()
    differences = [
        f"{name} {here.get(name)} against {sender[name]}" for name in sender if here.get(name) != sender[name]
    ]
    if differences:
        raise ClusterError(
            f"a worker on {platform.node()} has another release than this process: {', '.join(differences)}. Their "
            "scores differ; give all workers the same"
        )
    return SameRelease(function)
