"""Gradient ascent through the closed form: widths, depths and kinds of block relaxed, without a supernet."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.blocks.base import round_width
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.errors import SearcherError, ZeroShotNASError
from zeroshot_nas.searchers.base import Candidate, Problem, Searcher, register_searcher
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.spaces.chain import SPLIT_AT, ChainSpace, end_block

NEAR = 0.03
"""Slack of a limit, as a logarithm, within which a step may no longer go towards it."""

TOLERANCE = 0.01
"""How far, in the logarithm of a cost, an exchange may seem to go over a limit and still be looked at."""

EXCHANGES = 40
"""Exchanges that are looked at where no step is better."""

FIRST_STEP, LAST_STEP = 0.5, 0.05
"""Length of a step, in logarithms of widths and in layers, of the variable that changes most."""

FIRST_TEMPERATURE, LAST_TEMPERATURE = 1.0, 0.2
"""Of the softmax over kinds of block, in units of the scores' own differences."""

BLOCKS_A_STAGE = 2
"""Blocks between two strides, of which all but the first may vanish."""


@dataclass(frozen=True)
class Slot:
    """A block whose numbers are continuous.

    Attributes:
        block: The block that it began as: its stride, and its kind where that is no choice.
        width: Logarithm of its output channels.
        bottleneck: Logarithm of its bottleneck's channels; None where it has none.
        layers: Sub-layers; None where there is one, always.
        logits: Of the kinds of block that it may be; empty where there is no choice.
        fewest: Sub-layers at least; with 0 the block vanishes.
    """

    block: BlockSpec
    width: float
    bottleneck: float | None = None
    layers: float | None = None
    logits: tuple[float, ...] = ()
    fewest: int = 1


Chain: TypeAlias = tuple[Slot, ...]


@dataclass(frozen=True)
class Variable:
    """One coordinate of a relaxed chain.

    Attributes:
        place: Of the slot.
        name: Of the slot's field.
        kind: Place of the logit among a slot's, else 0.
    """

    place: int
    name: str
    kind: int = 0


class Difference(NamedTuple):
    """A whole step of one number, or another kind of block.

    Attributes:
        place: Of the slot.
        name: Of the slot's field.
        number: What it becomes.
        values: Fitness and the logarithm of each limited cost afterwards, less those before.
    """

    place: int
    name: str
    number: Any
    values: list[float]


@dataclass(frozen=True)
class Surroundings:
    """What a chain's neighbours say.

    Attributes:
        variables: Its coordinates.
        fitness: Derivatives of the fitness by each.
        limits: Those of the logarithm of each cost that is near its limit.
        differences: To every neighbour that has a score.
        slack: Logarithm of limit over cost, of each limited cost.
    """

    variables: tuple[Variable, ...]
    fitness: list[float]
    limits: list[list[float]]
    differences: list[Difference]
    slack: list[float]

    def along_limits(self) -> list[float]:
        """The ascent direction without its parts that would go over a limit (Rosen's gradient projection)."""
        direction = self.fitness
        for _ in range(4):  # a few rounds over limits that are not at right angles
            for normal in self.limits:
                outwards = sum(map(_product, direction, normal)) / (sum(map(_product, normal, normal)) or 1.0)
                if outwards > 0:
                    direction = [each - outwards * part for each, part in zip(direction, normal, strict=True)]
        return direction

    def exchanges(self) -> list[tuple[Difference, ...]]:
        """Single differences and pairs that should be better and fit, were all linear, the most promising first."""
        pairs = [
            (one, other)
            for one, other in itertools.combinations(self.differences, 2)
            if (one.place, one.name) != (other.place, other.name)
        ]
        promising = []
        for group in [*((each,) for each in self.differences), *pairs]:
            gain, *costs = map(sum, zip(*(each.values for each in group), strict=True))
            if gain > 0 and all(cost <= room + TOLERANCE for cost, room in zip(costs, self.slack, strict=True)):
                promising.append((gain, group))
        promising.sort(key=lambda entry: -entry[0])
        return [group for _, group in promising[:EXCHANGES]]


@register_searcher("gradient")
class GradientAscent(Searcher):
    """Ascent of the closed form in a relaxed space, then exact projection onto the budget; needs no training.

    A network is the most likely point of a product of distributions: continuous widths, bottlenecks and depths between
    two whole numbers each, a softmax over kinds of block. The derivative of the expected score by such a coordinate is
    a difference of scores of two networks that differ in it alone (the derivative of a multilinear extension), so the
    closed form is its own gradient, for every score that has one; costs and predicted latency likewise. The direction
    is projected along limits that are reached, and after every step widths and depths shrink until the rounded network
    fits: no proposal is ever over the budget. Differentiable NAS holds all choices of all layers in one supernet
    (DARTS, arXiv:1806.09055), ProxylessNAS two paths at a time (arXiv:1812.00332); here nothing is held but numbers:
    one network's description, O(1) in the number of choices, and the scores of the networks that one ascent has met.

    It ends by itself after ``starts`` ascents of ``steps`` steps at most, each of which leads to a better network;
    where no step along the slopes does, one or two whole differences are exchanged; where none helps, it is over. Where
    the space lets the resolution be searched, an ascent has that of its beginning, and changes it in place of ending.

    Args:
        space: A chain of blocks with widths, as ``resnet``, ``mobilenet`` and ``vanilla`` are.
        rng: Its only source of randomness: where ascents begin.
        start: A network within the budget, to which the first ascent goes back where nothing else fits.
        starts: Ascents.
        steps: Steps of each.

    Raises:
        SearcherError: The space is no such chain.
        ValueError: A number is no whole number of 1 or more.
    """

    def __init__(
        self, space: SearchSpace, rng: random.Random, start: Architecture, starts: int = 16, steps: int = 100
    ) -> None:
        super().__init__(space, rng, start)
        check_counts(starts=starts, steps=steps)
        if not isinstance(space, ChainSpace):
            raise SearcherError(
                f"gradient needs a chain of blocks with widths, and {space.name!r} is none; take regularized_evolution"
            )
        self.chain_space = space
        self.starts, self.steps = starts, steps
        self._proposals: Iterator[Architecture] = iter(())

    def begin(self, problem: Problem) -> None:
        if problem.closed_form is None:
            raise SearcherError(
                f"gradient climbs a closed form, and {problem.proxy} has none for {self.space.name!r}; take "
                "regularized_evolution"
            )
        self._proposals = self._ascents(_Landscape(self.chain_space, problem))

    generation = 1  # it scores them for itself

    def ask(self, n: int) -> list[Architecture]:
        return [network for network, _ in zip(self._proposals, range(n), strict=False)]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        del candidates

    def _ascents(self, landscape: _Landscape) -> Iterator[Architecture]:
        yield self.start
        best = self.start
        for number in range(self.starts):
            landscape.forget()
            landscape.input_size, origin = self._origin(number, best)
            for network in self._ascent(landscape, origin):
                if landscape.fitness_of(network) > landscape.fitness_of(best):
                    best = network
                yield network

    def _origin(self, number: int, best: Architecture) -> tuple[Shape, Chain]:
        """Where an ascent begins, and at which resolution; of several each in turn.

        First, and then every other time, the space's initial network with all blocks of one kind, while there are
        kinds, since no single difference leads from one kind everywhere to another; between them the best so far,
        mutated, and samples in turn.
        """
        turn, odd = divmod(number, 2)
        sizes = self.space.input_sizes
        if not odd and turn < len(self.chain_space.body_types):
            initial = relaxed(self.chain_space, self.space.initial())
            size = sizes[(sizes.index(self.space.initial_size) + turn) % len(sizes)]
            return size, tuple(replace(slot, logits=only(slot.logits, turn)) for slot in initial)
        if turn % 2:
            network = self.space.sample(self.rng)
        else:
            network = self.space.mutate(self.space.mutate(best, self.rng, 4), self.rng, 4)
        return network.input_size, relaxed(self.chain_space, network)

    def _ascent(self, landscape: _Landscape, origin: Chain) -> Iterator[Architecture]:
        chain = landscape.projected(origin)
        length = FIRST_STEP
        for step in range(self.steps):
            if chain is None:
                return  # nothing fits, or nothing is better
            yield landscape.network(chain)
            cooled = step / self.steps
            around = landscape.around(chain, FIRST_TEMPERATURE + cooled * (LAST_TEMPERATURE - FIRST_TEMPERATURE))
            chain, length = self._step(landscape, chain, around, length)

    def _step(
        self, landscape: _Landscape, chain: Chain, around: Surroundings, length: float
    ) -> tuple[Chain | None, float]:
        """A better chain, by a step along the slopes, or where none is better by whole differences; None at the end."""
        fitness, direction = landscape.fitness(chain), around.along_limits()
        while length >= LAST_STEP:
            reached = landscape.projected(moved(chain, around.variables, direction, length))
            if reached is not None and landscape.fitness(reached) > fitness:
                return reached, min(FIRST_STEP, 1.5 * length)
            length /= 2
        return landscape.exchanged(chain, around) or landscape.resized(chain), 4 * LAST_STEP


class _Landscape:
    """Scores and costs of relaxed chains at one resolution, which may be set."""

    def __init__(self, space: ChainSpace, problem: Problem) -> None:
        self.space, self.problem = space, problem
        self.input_size = space.initial_size
        self.limits = problem.budget.limits()
        self._widest = space.max_width // space.width_step * space.width_step
        self._known: dict[Architecture, list[float] | None] = {}

    def forget(self) -> None:
        """Drops what is known of networks, so that memory stays that of one ascent."""
        self._known.clear()

    def network(self, chain: Chain) -> Architecture:
        """The most likely network: numbers rounded, the likeliest kind of block."""
        return self._assembled([self._block(slot) for slot in chain])

    def _assembled(self, blocks: Sequence[BlockSpec | None]) -> Architecture:
        there = tuple([block for block in blocks if block is not None])
        return Architecture(there, self.input_size, self.space.num_classes)

    def projected(self, chain: Chain) -> Chain | None:
        """The chain itself, or shrunk until its network fits; None where nothing does.

        First depths, since widths don't change them, then all widths by one factor, the largest that fits.
        """
        if self._fits(chain):
            return chain
        if not self._keeps_layers(chain):
            shallow = [_shrunk(chain, layers=step / 32) for step in range(31, -1, -1)]
            chain = next((each for each in shallow if self._keeps_layers(each)), shallow[-1])
        return _largest(lambda shrinkage: _shrunk(chain, width=shrinkage), self._fits)

    def fitness(self, chain: Chain) -> float:
        """What is maximised, of a chain's network."""
        return self.fitness_of(self.network(chain))

    def fitness_of(self, network: Architecture) -> float:
        """What is maximised; minus infinity without a score."""
        values = self._values(network)
        return -math.inf if values is None else values[0]

    def around(self, chain: Chain, temperature: float) -> Surroundings:
        """Differences to all neighbours, and the derivatives that they make."""
        blocks = [self._block(slot) for slot in chain]
        here = self._values(self._assembled(blocks))
        assert here is not None, "an iterate has a score"
        self._foresee(list(self._neighbours(chain, blocks)))
        variables: list[Variable] = []
        slopes: list[list[float]] = []
        differences: list[Difference] = []

        def difference(place: int, slot: Slot, name: str, number: Any) -> list[float] | None:
            changed = self._block(_with(slot, name, number))
            values = self._values(self._assembled([*blocks[:place], changed, *blocks[place + 1 :]]))
            if values is None:
                return None
            change = [after - before for after, before in zip(values, here, strict=True)]
            differences.append(Difference(place, name, number, change))
            return change

        for place, slot in enumerate(chain):
            for name in ("width", "bottleneck", "layers"):
                ends = [(number, difference(place, slot, name, number)) for number in self._next(slot, name)]
                if slope := self._slope(self._rounded(slot, name), ends):
                    variables.append(Variable(place, name))
                    slopes.append(slope)
            if self._is_there(slot):
                kinds = [only(slot.logits, kind) for kind in range(len(slot.logits))]
                changes = [difference(place, slot, "logits", kind) for kind in kinds]
                slopes += _softmax_slopes(slot.logits, changes, temperature)
                variables += [Variable(place, "logits", kind) for kind in range(len(kinds))]
        slack = [math.log(limit) - cost for cost, limit in zip(here[1:], self.limits.values(), strict=True)]
        near = [1 + index for index, room in enumerate(slack) if room <= NEAR]
        columns = [[row[index] for row in slopes] for index in (0, *near)]
        return Surroundings(tuple(variables), columns[0], columns[1:], differences, slack)

    def _neighbours(self, chain: Chain, blocks: Sequence[BlockSpec | None]) -> Iterator[Architecture]:
        """The networks that differ in one choice."""
        for place, slot in enumerate(chain):
            numbers = ("width", "bottleneck", "layers")
            changes: list[tuple[str, Any]] = [(name, number) for name in numbers for number in self._next(slot, name)]
            if self._is_there(slot):
                changes += [("logits", only(slot.logits, kind)) for kind in range(len(slot.logits))]
            for name, number in changes:
                changed = self._block(_with(slot, name, number))
                yield self._assembled([*blocks[:place], changed, *blocks[place + 1 :]])

    def exchanged(self, chain: Chain, around: Surroundings) -> Chain | None:
        """The best of the promising exchanges, if it is better and fits."""
        best, best_fitness = None, self.fitness(chain)
        for group in around.exchanges():
            slots = list(chain)
            for each in group:
                slots[each.place] = _with(slots[each.place], each.name, each.number)
            other = tuple(slots)
            if self.fitness(other) > best_fitness and self._fits(other):
                best, best_fitness = other, self.fitness(other)
        return best

    def resized(self, chain: Chain) -> Chain | None:
        """The chain at the best other resolution, shrunk until it fits, if it is better; the resolution is set."""
        at, best, best_fitness = self.input_size, None, self.fitness(chain)
        for size in self.space.input_sizes:
            self.input_size = size
            other = None if size == at else self.projected(chain)
            if other is not None and self.fitness(other) > best_fitness:
                at, best, best_fitness = size, other, self.fitness(other)
        self.input_size = at
        return best

    def _slope(self, at: float, ends: Sequence[tuple[float, list[float] | None]]) -> list[float] | None:
        """The derivative between the next whole steps, as far as either has a score."""
        points = [(number, change) for number, change in ends if change is not None]
        if not points:
            return None
        if len(points) == 1:
            points.append((at, [0.0] * (1 + len(self.limits))))
        (low, before), (high, after) = sorted(points, key=lambda point: point[0])
        return [(end - begin) / (high - low) for begin, end in zip(before, after, strict=True)]

    def _next(self, slot: Slot, name: str) -> list[float]:
        """The nearest numbers that give another network."""
        at = getattr(slot, name)
        if at is None:
            return []
        if name == "layers":
            return [count for count in (round(at) - 1, round(at) + 1) if slot.fewest <= count < SPLIT_AT]
        if not self._is_there(slot):
            return []
        width, apart = self._width(at), max(self.space.width_step, self._stepped(self._width(at) / 8))
        return [math.log(each) for each in (width - apart, width + apart) if 0 < each <= self._widest]

    def _is_there(self, slot: Slot) -> bool:
        return slot.layers is None or round(slot.layers) > 0

    def _rounded(self, slot: Slot, name: str) -> float:
        at = getattr(slot, name)
        if at is None:
            return 0.0
        return float(round(at)) if name == "layers" else math.log(self._width(at))

    def _values(self, network: Architecture) -> list[float] | None:
        """Fitness, and the logarithm of each limited cost; None without a score."""
        assert self.problem.closed_form is not None, "refused before"
        if network not in self._known:
            self._foresee([network])
        return self._known[network]

    def _foresee(self, networks: Sequence[Architecture]) -> None:
        """Works out the values of networks side by side."""
        new = [network for network in dict.fromkeys(networks) if network not in self._known]
        for network, fitness in zip(new, self.problem.values(new), strict=True):
            values: list[float] | None = None
            if not isinstance(fitness, ZeroShotNASError):  # as the search itself counts it: a network without a score
                costs = self.problem.costs(network)
                limited = (math.log(max(getattr(costs, name), 1e-9)) for name in self.limits)
                values = [self.problem.sign * float(fitness), *limited]
            self._known[network] = values

    def _fits(self, chain: Chain) -> bool:
        network = self.network(chain)
        return self.problem.fits(network) and self._values(network) is not None

    def _keeps_layers(self, chain: Chain) -> bool:
        layers = self.problem.budget.layers
        return layers is None or self.network(chain).layers <= layers

    def _width(self, logarithm: float) -> int:
        return min(self._stepped(math.exp(min(logarithm, math.log(self._widest)))), self._widest)

    def _stepped(self, width: float) -> int:
        return round_width(width, self.space.width_step)

    def _block(self, slot: Slot) -> BlockSpec | None:
        if slot.layers is None:
            return end_block(slot.block.type_name, self._width(slot.width), slot.block.stride)
        layers = max(slot.fewest, min(round(slot.layers), SPLIT_AT - 1))
        if not layers:
            return None
        assert slot.bottleneck is not None, "a body block has one"
        kind = self.space.body_types[max(range(len(slot.logits)), key=slot.logits.__getitem__)]
        return self.space.body_block(
            kind, self._width(slot.width), slot.block.stride, self._width(slot.bottleneck), layers
        )


def relaxed(space: ChainSpace, network: Architecture) -> Chain:
    """A network with continuous numbers; `BLOCKS_A_STAGE` blocks a stage, those that are added begin with one layer."""
    slots: list[Slot] = []
    for block in network.blocks:
        if block.type_name not in space.body_types:
            slots.append(Slot(block, math.log(block.out_channels)))
            continue
        logits = tuple(float(name == block.type_name) for name in space.body_types)
        numbers: Any = block
        slot = Slot(
            block, math.log(block.out_channels), math.log(numbers.bottleneck_channels), numbers.sub_layers, logits
        )
        added = replace(slot, block=_without_stride(block), layers=1.0, fewest=0)
        slots += [slot, *[added] * (BLOCKS_A_STAGE - 1)]
    return tuple(slots)


def moved(chain: Chain, variables: Sequence[Variable], direction: Sequence[float], length: float) -> Chain:
    """The chain after a step along a direction, whose largest change is of a length; of logits in their own measure."""
    steepest = {False: 1e-12, True: 1e-12}
    for variable, slope in zip(variables, direction, strict=True):
        is_logit = variable.name == "logits"
        steepest[is_logit] = max(steepest[is_logit], abs(slope))
    slots = list(chain)
    for variable, slope in zip(variables, direction, strict=True):
        size = steepest[variable.name == "logits"]
        slot, change = slots[variable.place], length * slope / size
        if variable.name == "logits":
            logits = list(slot.logits)
            logits[variable.kind] += change
            slots[variable.place] = replace(slot, logits=tuple(logits))
        else:
            number = getattr(slot, variable.name) + change
            if variable.name == "layers":
                number = max(float(slot.fewest), min(number, SPLIT_AT - 1.0))
            slots[variable.place] = replace(slot, **{variable.name: number})
    return tuple(slots)


def _softmax_slopes(
    logits: Sequence[float], changes: Sequence[list[float] | None], temperature: float
) -> list[list[float]]:
    """Derivatives of the expected values by the logits of a choice; a kind without a score is as the likeliest."""
    size = next((len(change) for change in changes if change is not None), 0)
    known = [[0.0] * size if change is None else change for change in changes]
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    shares = [weight / sum(weights) for weight in weights]
    means = [sum(map(_product, shares, column)) for column in zip(*known, strict=True)]
    return [
        [share / temperature * (each - mean) for each, mean in zip(change, means, strict=True)]
        for share, change in zip(shares, known, strict=True)
    ]


def _shrunk(chain: Chain, width: float = 1.0, layers: float = 1.0) -> Chain:
    """All widths times a factor; of the layers beyond the fewest a share."""
    shift = math.log(width) if width != 1.0 else 0.0
    return tuple(
        replace(
            slot,
            width=slot.width + shift,
            bottleneck=None if slot.bottleneck is None else slot.bottleneck + shift,
            layers=None if slot.layers is None else slot.fewest + layers * (slot.layers - slot.fewest),
        )
        for slot in chain
    )


def _largest(make: Callable[[float], Chain], fits: Callable[[Chain], bool]) -> Chain | None:
    """By bisection a factor that fits, where a larger one by a hundredth does not; None where 0.001 does not."""
    low, high = 0.001, 1.0
    if not fits(make(low)):
        return None
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(make(middle)) else (low, middle)
    return make(low)


def _with(slot: Slot, name: str, number: Any) -> Slot:
    change: dict[str, Any] = {name: number}
    return replace(slot, **change)


def only(logits: Sequence[float], kind: int) -> tuple[float, ...]:
    """Logits of which one is surely the largest."""
    return tuple(float(place == kind) for place in range(len(logits)))


def _without_stride(block: Any) -> BlockSpec:
    return replace(block, stride=1)  # type: ignore[no-any-return]


def _product(one: float, other: float) -> float:
    return one * other
