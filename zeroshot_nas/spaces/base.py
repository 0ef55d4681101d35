"""The contract of a search space, the registry of spaces, and how their networks are written. No torch here."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from inspect import signature
from typing import Any, ClassVar, Protocol, TypeVar

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.architecture.plainnet import MAX_TEXT, write_sides
from zeroshot_nas.core.checks import as_shape
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.core.text import quoted
from zeroshot_nas.errors import ArchitectureError, did_you_mean
from zeroshot_nas.spaces.notations import Notation, choose, notations_of


@dataclass(frozen=True)
class SpaceCall:
    """How a space was asked for by name, so that it can be asked for again.

    Attributes:
        name: Registered name.
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        options: The space's own options.
    """

    name: str
    input_size: Shape
    num_classes: int
    options: Mapping[str, Any]

    def make(self) -> SearchSpace:
        """The space; see `get_space`."""
        return get_space(self.name, input_size=self.input_size, num_classes=self.num_classes, **self.options)


class SearchSpace(ABC):
    """A set of architectures and the moves within it; every product of a move is in the space.

    Attributes:
        name: Registered name, or the class's.
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        own_notation: Name of the notation that is written unless another is asked for.
        made_by: How `get_space` made it; None where its class was called.
    """

    name: str
    input_size: Shape
    num_classes: int
    own_notation: ClassVar[str] = "plainnet"
    made_by: SpaceCall | None = None

    @property
    def input_sizes(self) -> tuple[Shape, ...]:
        """The input sizes that its networks have, ascending: one, unless the space lets the resolution be searched."""
        return (self.input_size,)

    @property
    def initial_size(self) -> Shape:
        """The input size of the initial network, and of a text that names none."""
        return self.input_size

    @property
    def block_options(self) -> Mapping[str, Any]:
        """Fields of the space's blocks that a PlainNet string has no place for; see `Architecture.from_string`."""
        return {}

    @abstractmethod
    def initial(self) -> Architecture:
        """The network that a search starts from."""

    @abstractmethod
    def smallest(self, cost: str) -> Architecture:
        """The network of least ``cost``: ``"params"``, ``"flops"``, ``"layers"`` or ``"activations"``."""

    @abstractmethod
    def sample(self, rng: random.Random) -> Architecture:
        """A random network of the space."""

    @abstractmethod
    def mutate(self, architecture: Architecture, rng: random.Random, mutations: int = 1) -> Architecture:
        """A neighbour: up to ``mutations`` blocks of ``architecture`` changed."""

    def sample_all(self, rng: random.Random, count: int) -> Sequence[Architecture]:
        """What so many calls of `sample` give; of chains they are made in one go."""
        return [self.sample(rng) for _ in range(count)]

    def mutate_all(
        self, networks: Sequence[Architecture], seeds: Sequence[int], mutations: Sequence[int]
    ) -> Sequence[Architecture]:
        """A neighbour of each network, by its seed of 64 bits alone; of chains they are made in one go."""
        return [
            self.mutate(network, random.Random(seed), count)
            for network, seed, count in zip(networks, seeds, mutations, strict=True)
        ]

    def __init_subclass__(cls, **options: Any) -> None:
        """A class that has a move of its own for one network has it for many."""
        super().__init_subclass__(**options)
        for one, many in (("sample", "sample_all"), ("mutate", "mutate_all")):
            if one in vars(cls) and many not in vars(cls):
                setattr(cls, many, getattr(SearchSpace, many))

    @abstractmethod
    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """A network whose first part is of ``a`` and whose rest is of ``b``."""

    @abstractmethod
    def __contains__(self, architecture: object) -> bool: ...

    @abstractmethod
    def size(self, max_layers: int | None = None) -> float:
        """How many architectures there are with at most ``max_layers`` layers; infinity where depth has no bound."""

    def architectures(self) -> Iterator[Architecture]:
        """All networks of a finite space, each once, in an order of its own; none where a space does not list them."""
        return iter(())

    def parse(self, text: str | Mapping[Any, Any], notation: str | None = None) -> Any:
        """The genotype that a text stands for.

        Args:
            text: The text; space around it is left out. A cell may be a dict of its edges, too.
            notation: Name of one of `notations`; None takes the space's own, and others whose texts tell themselves
                apart.

        Raises:
            ArchitectureError: The text is malformed, or not of the space; the place is named.
            UnknownNameError: No notation has that name.

        Example:
            >>> get_space("nasbench201").parse("(4, 3, 3, 0, 0, 0)")  # NASLib's numbers
            (4, 2, 1, 2, 1, 1)
        """
        if isinstance(text, Mapping):
            text = str(dict(text))  # as it is written in a file
        if not isinstance(text, str):
            raise ArchitectureError(
                f"an architecture of {self.name} is text in one of the notations {', '.join(self.notations)}, "
                f"got {quoted(text)}; give its text"
            )
        if len(text) > MAX_TEXT:
            raise ArchitectureError(f"an architecture's text has at most {MAX_TEXT:,} characters, got {len(text):,}")
        text = text.strip()
        return choose(self.notations, notation, self.own_notation, text).parse(text, self)

    def format(self, genotype: Any, notation: str | None = None) -> str:
        """The text of a genotype; None writes the space's own notation.

        Raises:
            UnknownNameError: No notation has that name.

        Example:
            >>> get_space("nasbench201").format((4, 2, 1, 2, 1, 1), "op_code")
            '421211'
        """
        return choose(self.notations, notation, self.own_notation).format(genotype, self)

    def network(self, genotype: Any) -> Architecture:
        """The architecture of a genotype; here it is its own."""
        architecture: Architecture = genotype
        return architecture

    def genotype(self, architecture: Architecture) -> Any:
        """The genotype of an architecture of the space; here it is its own.

        Raises:
            ArchitectureError: The architecture is not in the space.
        """
        self._expect(architecture)
        return architecture

    def from_string(self, text: str | Mapping[Any, Any], notation: str | None = None) -> Architecture:
        """The architecture that a text stands for: a benchmark's string, or here a PlainNet string.

        The arguments and errors are those of `parse`.

        Example:
            >>> space = get_space("resnet")
            >>> space.from_string(space.to_string(space.initial())) == space.initial()
            True
        """
        return self.network(self.parse(text, notation))

    def to_string(self, architecture: Architecture, notation: str | None = None) -> str:
        """The text that `from_string` reads back.

        Raises:
            ArchitectureError: The architecture is not in the space.
            UnknownNameError: No notation has that name.
        """
        return self.format(self.genotype(architecture), notation)

    def text(self, architecture: Architecture) -> str:
        """The text of an architecture of the space; its JSON where the space has no notation for it."""
        try:
            return self.to_string(architecture)
        except ArchitectureError:
            return architecture.to_json()

    def canonical(self, architecture: Architecture) -> str:
        """A key that networks share where the space knows them to be the same; here each has its own, its string.

        Raises:
            ArchitectureError: The architecture is not in the space.
        """
        return self.to_string(architecture)

    @property
    def notations(self) -> Mapping[str, Notation[Any]]:
        """The notations that texts can be in, by name; `register_notation` adds one.

        Example:
            >>> list(get_space("nasbench201").notations)
            ['arch', 'edges', 'index', 'naslib', 'naslib_code', 'op_code']
        """
        registered = notations_of(type(self), self.name)
        return registered if self.own_notation in registered else {**_PLAINNET, **registered}

    def _expect(self, architecture: Architecture) -> None:
        """Refuses a network outside of the space, and says why."""
        if architecture in self:
            return
        size, classes = architecture.input_size, architecture.num_classes
        fault = self._fault(architecture)
        if size not in self.input_sizes or classes != self.num_classes:
            sizes = " or ".join(map(str, self.input_sizes))
            fault = f"it takes {size} and has {classes} classes, the space's networks {sizes} and {self.num_classes}"
        raise ArchitectureError(f"the network is not in the space {self.name!r}: {fault}")

    def _fault(self, architecture: Architecture) -> str:
        """What is wrong with the blocks of a network outside of the space."""
        return "its blocks are not the space's"


class _PlainNet(Notation[Architecture]):
    """Zen-NAS's grammar; what a space writes that has no notation of its own.

    The resolution stands behind it where it is not that of the space's ``input_size`` alone.
    """

    def parse(self, text: str, space: SearchSpace, /) -> Architecture:
        architecture = Architecture.from_string(text, space.initial_size, space.num_classes, **space.block_options)
        space.genotype(architecture)  # refuses one outside of the space
        return architecture

    def format(self, genotype: Architecture, space: SearchSpace, /) -> str:
        text = genotype.to_string()
        return text if space.input_sizes == (space.input_size,) else text + write_sides(genotype.input_size)


_PLAINNET = {SearchSpace.own_notation: _PlainNet()}


class SpaceFactory(Protocol):
    """``(input_size=, num_classes=, **options) -> SearchSpace``; a class is one."""

    def __call__(self, *, input_size: Shape, num_classes: int) -> SearchSpace: ...


SPACES: Registry[SpaceFactory] = Registry("search space", package="zeroshot_nas.spaces")

_Factory = TypeVar("_Factory", bound=SpaceFactory)


def register_space(name: str) -> Callable[[_Factory], _Factory]:
    """Registers a `SearchSpace` class, whose name it becomes, or a function that makes one.

    ``examples/add_a_space.py`` is a space of digits, ``examples/add_a_block.py`` has chains of a block of one's own.
    """

    def register(factory: _Factory) -> _Factory:
        SPACES.add(name, factory)
        if isinstance(factory, type):
            factory.name = name
        return factory

    return register


def default_space(input_size: Sequence[int] = (3, 32, 32)) -> str:
    """Name of the space that a search looks in unless it is told: the one whose winners train best on such images.

    Measured at 8 to 32 pixels and at 64 to 128 (``docs/measured.md``); the line between is that of `stride_steps`, from
    which on a network's stem may halve its map.

    Args:
        input_size: Shape ``(C, H, W)`` of one image.

    Raises:
        ArchitectureError: It is no shape.

    Example:
        >>> default_space(), default_space((3, 64, 96))
        ('inverted', 'vanilla')
    """
    _, *sides = as_shape(input_size, ArchitectureError)
    return "inverted" if min(sides) < 64 else "vanilla"


def get_space(
    name: str, *, input_size: Sequence[int] = (3, 32, 32), num_classes: int = 10, **options: Any
) -> SearchSpace:
    """A search space by name.

    Args:
        name: See `list_spaces`.
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        options: The space's own options; see `list_options`.

    Raises:
        UnknownNameError: No space has that name.
        ArchitectureError: The input size, the number of classes or an option is not usable.

    Example:
        >>> space = get_space("resnet", input_size=(1, 16, 16), num_classes=10)
        >>> space.initial() in space
        True
    """
    shape = as_shape(input_size, ArchitectureError)
    factory: Callable[..., SearchSpace] = SPACES[name]
    known = list_options(name)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature(factory).parameters.values())
    for option in () if takes_any else options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise ArchitectureError(
                f"the space {name!r} has no option {option!r}.{hint} Options: {', '.join(known) or 'none'}"
            )
    space = factory(input_size=shape, num_classes=num_classes, **options)
    object.__setattr__(space, "made_by", SpaceCall(name, shape, num_classes, options))  # spaces may be frozen
    return space


def list_options(name: str) -> dict[str, Any]:
    """A registered space's own options with their defaults, for `get_space`.

    Example:
        >>> list_options("nasbench201")
        {'num_cells': 5, 'channels': 16}
    """
    common = ("input_size", "num_classes", *(["name"] if isinstance(SPACES[name], type) else []))
    parameters = signature(SPACES[name]).parameters.values()
    named = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
    return {each.name: each.default for each in named if each.name not in common}


def options_of(space: SearchSpace) -> dict[str, Any]:
    """What sets a space apart from others of its name, where it is a dataclass; as JSON has it.

    Example:
        >>> options_of(get_space("nasbench201", num_cells=1))
        {'num_cells': 1, 'channels': 16}
    """
    if not is_dataclass(space):
        return {}
    common = ("name", "input_size", "num_classes")
    named = {each.name: getattr(space, each.name) for each in fields(space) if each.name not in common}
    # where there are none it is the space of releases that had no such option, whose runs can be gone on with
    options = {name: value for name, value in named.items() if (name, value) != ("resolutions", None)}
    plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return plain


def list_spaces() -> list[str]:
    """Names of the registered search spaces.

    Example:
        >>> "resnet" in list_spaces()
        True
    """
    return list(SPACES)
