"""Notations: the ways in which benchmarks write a space's genotypes, each registered under a name for its space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import UnknownNameError

G = TypeVar("G")

OWN = "arch"
"""What tables call the notation that needs no name: the space's own, or another that shows in its texts."""

_EARLIER_NAMES = {"naslib_tuple": "naslib"}


class Notation(ABC, Generic[G]):
    """One way to write genotypes; a subclass without arguments, registered with `register_notation`."""

    @abstractmethod
    def parse(self, text: str, space: Any, /) -> G:
        """The genotype that a text stands for.

        Args:
            text: The text, from anywhere.
            space: The space that the genotype is to be of.

        Raises:
            ArchitectureError: The text is malformed or not of the space; the place is named.
        """

    @abstractmethod
    def format(self, genotype: G, space: Any, /) -> str:
        """The text of a genotype of the space; `parse` reads it back."""

    def recognises(self, text: str) -> bool:
        """Whether a text that came without a notation's name is in this one."""
        return False


NOTATIONS: Registry[Notation[Any]] = Registry("notation", package="zeroshot_nas.spaces")
"""By the space's name and the notation's, as in ``"nasbench201 op_code"``."""

_Notation = TypeVar("_Notation", bound=type[Notation[Any]])


def register_notation(space: str, name: str) -> Callable[[_Notation], _Notation]:
    """Registers a notation of the space of that name, also from another file or distribution."""

    def register(cls: _Notation) -> _Notation:
        NOTATIONS.add(f"{space} {name}", cls())
        notations_of.cache_clear()
        return cls

    return register


@lru_cache(maxsize=256)
def notations_of(space: type, name: str) -> Mapping[str, Notation[Any]]:
    """The notations registered for a class's space, by name; its own hide those of the classes that it is made of.

    Args:
        space: The class.
        name: What its space is called.
    """
    names = dict.fromkeys([name, *(vars(cls).get("name") for cls in space.__mro__)])
    keys = [key for base in reversed(names) for key in NOTATIONS if key.startswith(f"{base} ")]
    return {key.split(" ", 1)[1]: NOTATIONS[key] for key in keys}


def is_notation(name: str) -> bool:
    """Whether a notation of some space is called that.

    Example:
        >>> is_notation("op_code"), is_notation("opcode")
        (True, False)
    """
    return any(key.split(" ", 1)[1] == name for key in NOTATIONS)


def choose(
    notations: Mapping[str, Notation[Any]], name: str | None, own: str, text: str | None = None
) -> Notation[Any]:
    """The notation of a name.

    Args:
        notations: What there is to choose from.
        name: A key of these, or an earlier name of one; None and `OWN` choose by the text.
        own: What is chosen where no notation recognises the text.
        text: The text to be read; None where one is to be written.

    Raises:
        UnknownNameError: No notation has that name.
    """
    if name is None or name == OWN:
        fitting = [] if text is None else [each for each in notations.values() if each.recognises(text)]
        return fitting[0] if fitting else notations[own]
    name = _EARLIER_NAMES.get(name, name)
    if name not in notations:
        raise UnknownNameError("notation", name, notations)
    return notations[name]
