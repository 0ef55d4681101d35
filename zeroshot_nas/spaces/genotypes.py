"""Spaces whose every network stands for a short genotype, such as the digits of a benchmark's string.

Here are the moves among genotypes and what their texts share; a space says how genotype and network become each other.
"""

from __future__ import annotations

import ast
import itertools
import math
import random
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.blocks.cells import EDGES
from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import ArchitectureError, did_you_mean
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.spaces.notations import Notation

G = TypeVar("G")

Digits = tuple[int, ...]
"""A genotype of one choice a position."""

_NUMBER = re.compile(r"\s*\d{1,9}\s*", re.ASCII)


class GenotypeSpace(SearchSpace, Generic[G]):
    """Sampling, mutation, crossover and membership by way of genotypes."""

    def __post_init__(self) -> None:
        self.initial()  # refuses options that make no network

    @abstractmethod
    def network(self, genotype: G) -> Architecture:
        """The network that a genotype of the space stands for."""

    @abstractmethod
    def genotype_of(self, architecture: Architecture) -> G | None:
        """The genotype that the blocks show, unchecked; None where they show none."""

    @abstractmethod
    def sample_genotype(self, rng: random.Random) -> G:
        """A random genotype."""

    @abstractmethod
    def mutate_genotype(self, genotype: G, rng: random.Random, mutations: int) -> G:
        """A genotype with up to ``mutations`` small changes."""

    @abstractmethod
    def crossover_genotypes(self, a: G, b: G, rng: random.Random) -> G:
        """A genotype whose first part is of ``a`` and whose rest is of ``b``."""

    def genotype(self, architecture: Architecture) -> G:
        """The genotype of a network of the space.

        Raises:
            ArchitectureError: The network is not in the space.
        """
        genotype = self.genotype_of(architecture)
        if genotype is None or self.network(genotype) != architecture:
            self._expect(architecture)
            raise AssertionError("what is in the space has a genotype")
        return genotype

    def sample(self, rng: random.Random) -> Architecture:
        return self.network(self.sample_genotype(rng))

    def mutate(self, architecture: Architecture, rng: random.Random, mutations: int = 1) -> Architecture:
        return self.network(self.mutate_genotype(self._parent(architecture), rng, mutations))

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        return self.network(self.crossover_genotypes(self._parent(a), self._parent(b), rng))

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        genotype = self.genotype_of(architecture)
        return genotype is not None and self.network(genotype) == architecture

    def _parent(self, architecture: Architecture) -> G:
        """The genotype of a parent, which is in the space as a rule: the full check is left out."""
        genotype = self.genotype_of(architecture)
        return self.genotype(architecture) if genotype is None else genotype

    def _fault(self, architecture: Architecture) -> str:
        return "it needs the space's blocks, in its order and widths"


class DigitSpace(GenotypeSpace[Digits]):
    """Genotypes of a fixed length, each position with choices of its own; all networks have the same depth.

    Attributes:
        choices: Number of options at each position.
    """

    choices: ClassVar[Digits]

    def architectures(self) -> Iterator[Architecture]:
        return map(self.network, itertools.product(*map(range, self.choices)))

    def size(self, max_layers: int | None = None) -> float:
        """The number of genotypes."""
        return math.prod(self.choices) if max_layers is None or max_layers >= self.initial().layers else 0

    def sample_genotype(self, rng: random.Random) -> Digits:
        return tuple(int(rng.random() * options) for options in self.choices)

    def mutate_genotype(self, genotype: Digits, rng: random.Random, mutations: int) -> Digits:
        digits = list(genotype)
        for position in sorted({int(rng.random() * len(digits)) for _ in range(mutations)}):
            options = self.choices[position]
            digits[position] = (digits[position] + 1 + int(rng.random() * (options - 1))) % options
        return tuple(digits)

    def crossover_genotypes(self, a: Digits, b: Digits, rng: random.Random) -> Digits:
        cut = rng.randrange(1, len(a))
        return a[:cut] + b[cut:]

    def cheapest(self, price: Callable[[Architecture], int]) -> Digits:
        """The genotype of least price, where the price is a sum over positions."""
        digits = [0] * len(self.choices)
        for position, options in enumerate(self.choices):
            prices = []
            for option in range(options):
                digits[position] = option
                prices.append(price(self.network(tuple(digits))))
            digits[position] = prices.index(min(prices))
        return tuple(digits)


class DigitString(Notation[Digits]):
    """A genotype's digits in a row.

    Attributes:
        length: How many there are.
        options: The digits that are allowed.
        what: What such a text is, for messages.
    """

    length: ClassVar[int]
    options: ClassVar[str]
    what: ClassVar[str]

    def parse(self, text: str, space: Any, /) -> Digits:
        return read_digits(text, self.length, self.options, self.what)

    def format(self, genotype: Digits, space: Any, /) -> str:
        return "".join(map(str, genotype))


class EdgeDict(Notation[Digits]):
    """A cell as a dict of its edges: ``{(0, 1): "nor_conv_3x3", (0, 2): "none", ...}``, Python's or JSON's.

    A key names two nodes, in any form: ``(0, 1)``, ``"0->1"``, ``"1<-0"`` (as xautodl's configuration spaces have it),
    ``"0_1"``, ``"edge_0_1"``; the lower one is the source. Or the first level is by target and the second by source:
    ``{1: {0: "none"}, 2: {0: ..., 1: ...}}``. A value is an operation's name or its number.
    """

    operations: ClassVar[Sequence[str]]

    def parse(self, text: str, space: Any, /) -> Digits:
        if len(text) > _MAX_DICT:
            raise ArchitectureError(f"a dict of edges has at most {_MAX_DICT:,} characters, got {len(text):,}")
        try:
            data = ast.literal_eval(text)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise ArchitectureError(f"malformed dict of edges: {str(error)[:100]}") from None
        if not isinstance(data, dict):
            raise ArchitectureError(f"malformed dict of edges: expected braces, got {text[:60]!r}")
        found: dict[tuple[int, int], int] = {}
        for key, value in _edges(data):
            edge = _edge(key)
            if edge not in EDGES or edge in found:
                fault = "occurs twice" if edge in found else f"is none of {_shown(EDGES)}"
                raise ArchitectureError(f"malformed dict of edges: the edge {quoted(str(key))} {fault}")
            found[edge] = self._operation(value, edge)
        if missing := [edge for edge in EDGES if edge not in found]:
            raise ArchitectureError(f"malformed dict of edges: {_shown(missing)} missing; an edge of nothing is 'none'")
        return tuple(found[edge] for edge in EDGES)

    def _operation(self, value: object, edge: tuple[int, int]) -> int:
        if isinstance(value, dict) and len(value) == 1:  # {"op": name}, as graphs have it
            (value,) = value.values()
        if type(value) is int and 0 <= value < len(self.operations):
            return value
        name = _OTHER_NAMES.get(value, value) if isinstance(value, str) else None
        if name not in self.operations:
            hint = did_you_mean(name, self.operations) if name else ""
            raise ArchitectureError(
                f"unknown operation {quoted(value)} at the edge {_shown([edge])}.{hint} "
                f"Known: {', '.join(self.operations)}"
            )
        return self.operations.index(name)

    def format(self, genotype: Digits, space: Any, /) -> str:
        return str({edge: self.operations[place] for edge, place in zip(EDGES, genotype, strict=True)})

    def recognises(self, text: str) -> bool:
        return text[:1] == "{"


_MAX_DICT = 10_000
_OTHER_NAMES = {
    **dict.fromkeys(("zero", "zeroize"), "none"),
    **dict.fromkeys(("skip", "identity"), "skip_connect"),
    **{f"conv{join}{size}": f"nor_conv_{size}" for size in ("1x1", "3x3") for join in ("", "_")},
    **dict.fromkeys(("avg_pool", "avgpool_3x3", "avgpool3x3"), "avg_pool_3x3"),
}
"""What other codes call NAS-Bench-201's operations."""


def _edges(data: Mapping[Any, Any]) -> Iterator[tuple[object, object]]:
    """Keys that name two nodes, with their values; a dict by target and source is flattened."""
    for key, value in data.items():
        if isinstance(value, dict) and len(_nodes(key)) == 1:
            for source, operation in value.items():
                yield f"{key}<-{source}", operation
        else:
            yield key, value


def _edge(key: object) -> tuple[int, ...]:
    return tuple(sorted(_nodes(key)))


def _nodes(key: object) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,3}", str(key), re.ASCII)]


def _shown(edges: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{source}->{target}" for source, target in edges)


def read_index(text: str, size: int) -> int:
    """A network's place in a benchmark's files.

    Raises:
        ArchitectureError: The text is no number from 0 to ``size`` - 1.

    Example:
        >>> read_index("15624", 15_625)
        15624
    """
    if not text.isascii() or not text.isdigit() or len(text) > len(str(size)) or int(text) >= size:
        raise ArchitectureError(f"an index is a number from 0 to {size - 1}, got {text[:40]!r}")
    return int(text)


def read_digits(text: str, length: int, options: str, what: str) -> Digits:
    """Digits of a string, each as its place among ``options``.

    Args:
        text: The string.
        length: How many digits it must have.
        options: The digits that are allowed.
        what: What the string is, for messages.

    Raises:
        ArchitectureError: The length is wrong, or a character is none of the options.

    Example:
        >>> read_digits("201", 3, "012", "architecture")
        (2, 0, 1)
    """
    if len(text) != length:
        raise ArchitectureError(f"malformed {what} {text[:60]!r}: expected {length} digits, got {len(text)} characters")
    for position, character in enumerate(text):
        if character not in options:
            raise ArchitectureError(
                f"malformed {what} {text[:60]!r}: position {position} holds {character!r}, expected one of {options}"
            )
    return tuple(map(options.index, text))


def read_numbers(text: str, what: str) -> list[tuple[int, int]]:
    """The numbers of a tuple or list written out, each with its position in the text.

    Raises:
        ArchitectureError: The brackets are missing, or something between the commas is no whole number.

    Example:
        >>> read_numbers("(4, 0)", "key")
        [(4, 1), (0, 4)]
    """
    inner = text.strip()
    if len(inner) < 2 or inner[0] + inner[-1] not in ("()", "[]"):
        raise ArchitectureError(f"malformed {what}: expected numbers in brackets, as in (1, 0, 2), got {text[:60]!r}")
    position = text.index(inner[0]) + 1
    numbers = []
    for token in inner[1:-1].removesuffix(",").split(","):
        if not _NUMBER.fullmatch(token):
            raise ArchitectureError(
                f"malformed {what} at position {position}: expected a whole number, got {token.strip()[:30]!r}"
            )
        numbers.append((int(token), position + len(token) - len(token.lstrip())))
        position += len(token) + 1
    return numbers


def read_choices(text: str, length: int, options: Sequence[int], what: str) -> Digits:
    """The numbers of a tuple of fixed length, each one of ``options``.

    Raises:
        ArchitectureError: The text is no tuple of so many numbers, or a number is none of the options.

    Example:
        >>> read_choices("(4, 0, 3)", 3, range(5), "key")
        (4, 0, 3)
    """
    numbers = read_numbers(text, what)
    if len(numbers) != length:
        raise ArchitectureError(f"malformed {what}: expected {length} numbers, got {len(numbers)} in {text[:60]!r}")
    for number, position in numbers:
        if number not in options:
            allowed = f"{options[0]} to {options[-1]}"
            raise ArchitectureError(f"malformed {what} at position {position}: expected {allowed}, got {number}")
    return tuple(number for number, _ in numbers)
