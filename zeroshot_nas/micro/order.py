"""In which order operators run with the least memory, and how much that is. No torch here."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.micro.operators import Operator

ALIGNMENT = 16
"""Bytes that the runtime rounds the size of a tensor up to."""

MAX_VISITS = 30_000
"""States of the exact search of one piece times its operators; beyond, looking one operator ahead has to do."""


class Ordered(NamedTuple):
    """Operators in an order.

    Attributes:
        operators: In the order in which they run, their inputs numbered in it.
        peak: The largest sum of live tensors, in bytes.
        bound: No order has less; below ``peak`` where the search was given up.
    """

    operators: tuple[Operator, ...]
    peak: int
    bound: int


def aligned(size: int) -> int:
    """Bytes as the runtime rounds them up.

    Example:
        >>> aligned(17)
        32
    """
    return -(-size // ALIGNMENT) * ALIGNMENT


def tensor_sizes(operators: Sequence[Operator], shape: Shape, value_bytes: int = 1) -> list[int]:
    """Bytes of every tensor: of what goes in, and of the output of each operator."""
    return [aligned(a * b * c * value_bytes) for a, b, c in (shape, *(operator.shape for operator in operators))]


def scratch_bytes(operator: Operator) -> int:
    """Bytes that an operator needs for itself while it runs: a mean adds up in 32 bits, weights of 4 are unpacked."""
    if operator.code == "MEAN":
        return aligned(4 * operator.shape[0])
    return aligned(operator.weights) if operator.weight_bits < 8 else 0


def last_uses(operators: Sequence[Operator]) -> list[int]:
    """Of every tensor, the index of the last operator that reads it; of what goes out, that of the last operator."""
    last = [max(step, 0) for step in range(-1, len(operators))]
    for step, operator in enumerate(operators):
        for source in operator.inputs:
            last[source] = step
    last[-1] = len(operators) - 1
    return last


def live_sums(operators: Sequence[Operator], shape: Shape, value_bytes: int = 1) -> Iterator[int]:
    """While each operator runs, the bytes of all tensors that are there: what it reads, gives, and others wait for.

    Example:
        >>> from zeroshot_nas.architecture.ops import Conv, Residual
        >>> from zeroshot_nas.micro.operators import operators
        >>> list(live_sums(operators([(Residual((Conv(8, 8, 3), Conv(8, 8, 3))),)], (8, 4, 4)), (8, 4, 4)))
        [256, 384, 384]
    """
    sizes, last = tensor_sizes(operators, shape, value_bytes), last_uses(operators)
    held = sizes[0]
    for step, operator in enumerate(operators):
        held += sizes[step + 1]
        yield held + scratch_bytes(operator)
        for source in {*operator.inputs}:
            if last[source] == step:
                held -= sizes[source]


def best_order(operators: Sequence[Operator], shape: Shape, value_bytes: int = 1) -> Ordered:
    """The order with the smallest peak, by an exact search of each piece between two tensors that stand alone.

    Args:
        operators: In any order that can be run.
        shape: Shape of what goes in.
        value_bytes: Bytes of a value.
    """
    found: list[Operator] = []
    peak = bound = 0
    for start, end in pieces(operators):
        piece = [each._replace(inputs=tuple(source - start for source in each.inputs)) for each in operators[start:end]]
        ordered = _ordered_piece(piece, operators[start - 1].shape if start else shape, value_bytes)
        found += [each._replace(inputs=tuple(source + start for source in each.inputs)) for each in ordered.operators]
        peak, bound = max(peak, ordered.peak), max(bound, ordered.bound)
    return Ordered(tuple(found), peak, bound)


def pieces(operators: Sequence[Operator]) -> Iterator[tuple[int, int]]:
    """Begin and end of every piece: behind it its last operator's output is all that later ones read."""
    last = last_uses(operators)
    start, held_until = 0, -1
    for end in range(1, len(operators) + 1):
        held_until = max(held_until, last[end - 1])
        if held_until < end:
            yield start, end
            start = end


def _ordered_piece(operators: list[Operator], shape: Shape, value_bytes: int) -> Ordered:
    written = max(live_sums(operators, shape, value_bytes))
    if len(operators) < 3:  # no choice
        return Ordered(tuple(operators), written, written)
    search = _Search(operators, shape, value_bytes)
    bound, order = search.run(written)
    peak = bound
    if not order:
        peak, order = search.one_ahead()
    if peak >= written:
        return Ordered(tuple(operators), written, bound)
    return Ordered(tuple(_renumbered(operators, order)), peak, bound)


class _Search:
    """The order of a few operators; what is done is a number whose bits are operators."""

    def __init__(self, operators: Sequence[Operator], shape: Shape, value_bytes: int) -> None:
        self.count = len(operators)
        sizes = tensor_sizes(operators, shape, value_bytes)
        self.first = sizes[0]
        self.grows = sizes[1:]
        self.needs_above = [size + scratch_bytes(each) for size, each in zip(sizes[1:], operators, strict=True)]
        readers = [0] * (self.count + 1)
        for index, operator in enumerate(operators):
            for source in operator.inputs:
                readers[source] |= 1 << index
        readers[-1] |= 1 << self.count  # the last tensor goes out
        self.sources = [[(sizes[each], readers[each]) for each in {*operator.inputs}] for operator in operators]
        self.needs = [sum(1 << (each - 1) for each in {*operator.inputs} if each) for operator in operators]
        self.readers = [
            [place for place in range(self.count) if readers[index + 1] >> place & 1] for index in range(self.count)
        ]

    def change(self, done: int, index: int) -> int:
        """By how much an operator changes the memory that is taken, when it is through."""
        waiting = ~(done | 1 << index)
        return self.grows[index] - sum([size for size, readers in self.sources[index] if not readers & waiting])

    def ready(self, done: int) -> list[int]:
        missing = ~done
        return [index for index, needs in enumerate(self.needs) if missing >> index & 1 and not needs & missing]

    def settle(self, done: int, taken: int, peak: int) -> tuple[int, int, tuple[int, ...], list[int]]:
        """Runs what can be run below the peak without taking more memory: no order betters that.

        Returns:
            What is done and taken then, what ran, and what can be run next.
        """
        ran: list[int] = []
        ready = self.ready(done)
        place = 0
        while place < len(ready):
            index = ready[place]
            change = self.change(done, index)
            if change > 0 or taken + self.needs_above[index] > peak:
                place += 1
                continue
            done, taken = done | 1 << index, taken + change
            ran.append(index)
            del ready[place]
            ready += [each for each in self.readers[index] if not self.needs[each] & ~done]
            place = 0
        return done, taken, tuple(ran), ready

    def run(self, written: int) -> tuple[int, list[int]]:
        """A bound on the peak, and an order that has it; no order where the search was given up.

        States are taken from the smallest peak on, so that the first whole order is the best.

        Args:
            written: Peak of the order as written; states that reach it are left out.
        """
        whole = (1 << self.count) - 1
        came_from: dict[int, tuple[int, tuple[int, ...]]] = {}
        peaks = {0: self.first}
        queue = [(self.first, 0, 0, self.first)]
        seen = 0
        while queue:
            peak, _, state, taken = heapq.heappop(queue)
            if peak > peaks[state]:
                continue
            seen += 1
            if seen * self.count > MAX_VISITS:
                return peak, []
            done, taken, ran, ready = self.settle(state, taken, peak)
            if done == whole:
                return peak, self._path(came_from, state, ran)
            for index in ready:
                then = done | 1 << index
                higher = max(peak, taken + self.needs_above[index])
                if higher < min(peaks.get(then, written), written):
                    peaks[then], came_from[then] = higher, (state, (*ran, index))
                    heapq.heappush(queue, (higher, -then.bit_count(), then, taken + self.change(done, index)))
        return written, list(range(self.count))

    @staticmethod
    def _path(came_from: dict[int, tuple[int, tuple[int, ...]]], state: int, ran: tuple[int, ...]) -> list[int]:
        steps = [ran]
        while state:
            state, before = came_from[state]
            steps.append(before)
        return [index for each in reversed(steps) for index in each]

    def one_ahead(self) -> tuple[int, list[int]]:
        """The operator next that leaves the least memory taken, again and again."""
        done, taken, peak = 0, self.first, self.first
        order: list[int] = []
        while len(order) < self.count:
            index = min(self.ready(done), key=lambda each: (self.change(done, each), self.needs_above[each]))
            peak = max(peak, taken + self.needs_above[index])
            taken += self.change(done, index)
            done |= 1 << index
            order.append(index)
        return peak, order


def _renumbered(operators: Sequence[Operator], order: Sequence[int]) -> Iterator[Operator]:
    names = {0: 0, **{index + 1: place for place, index in enumerate(order, start=1)}}
    for index in order:
        operator = operators[index]
        yield operator._replace(inputs=tuple(names[source] for source in operator.inputs))
