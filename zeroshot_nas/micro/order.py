"""In which order operators run with the least memory, and how much that is. No torch here."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.micro.operators import Operator

ALIGNMENT = 16
"""Bytes that the runtime rounds the size of a tensor up to."""

MAX_STATES = 2_000
"""States of the exact search; a graph that needs more keeps the best order found by looking one operator ahead."""


class Ordered(NamedTuple):
    """Operators in an order.

    Attributes:
        operators: In the order in which they run, their inputs numbered in it.
        peak: The largest sum of live tensors, in bytes.
        exact: Whether no order has less.
    """

    operators: list[Operator]
    peak: int
    exact: bool


def tensor_bytes(shape: Shape, value_bytes: int = 1) -> int:
    """Bytes of a tensor, as the runtime rounds them up.

    Example:
        >>> tensor_bytes((3, 3, 3))
        32
    """
    return -(-shape[0] * shape[1] * shape[2] * value_bytes // ALIGNMENT) * ALIGNMENT


def live_sums(operators: Sequence[Operator], shape: Shape, value_bytes: int = 1) -> Iterator[int]:
    """While each operator runs, the bytes of all tensors that are there: what it reads, gives, and others wait for."""
    sizes = [tensor_bytes(each, value_bytes) for each in (shape, *(operator.shape for operator in operators))]
    last = last_uses(operators)
    held = sizes[0]
    for step, operator in enumerate(operators):
        held += sizes[step + 1]
        yield held
        held -= sum(sizes[source] for source in {*operator.inputs} if last[source] == step)


def last_uses(operators: Sequence[Operator]) -> list[int]:
    """Of every tensor, the index of the last operator that reads it; of the last, one behind the end."""
    last = [*range(-1, len(operators))]
    for step, operator in enumerate(operators):
        for source in operator.inputs:
            last[source] = step
    last[-1] = len(operators)
    return last


def best_order(operators: Sequence[Operator], shape: Shape, value_bytes: int = 1) -> Ordered:
    """The order with the smallest peak.

    Only where branches leave a choice is there anything to search: sets of operators that are done, those of the
    smallest peak first. An operator that fits below that peak and leaves no more memory taken than before is run at
    once, which no order can better.

    Args:
        operators: In any order that can be run.
        shape: Shape of what goes in.
        value_bytes: Bytes of a value.
    """
    written = max(live_sums(operators, shape, value_bytes), default=tensor_bytes(shape, value_bytes))
    if all(operator.inputs == (index,) for index, operator in enumerate(operators)):
        return Ordered(list(operators), written, exact=True)
    search = _Search(operators, shape, value_bytes)
    found = search.run()
    exact = found is not None
    peak, order = found or search.one_ahead()
    if peak >= written:
        return Ordered(list(operators), written, exact)
    return Ordered(_renumbered(operators, order), peak, exact)


class _Search:
    """Sets of operators that are done, as bits of a number."""

    def __init__(self, operators: Sequence[Operator], shape: Shape, value_bytes: int) -> None:
        self.count = len(operators)
        self.sizes = [tensor_bytes(each, value_bytes) for each in (shape, *(each.shape for each in operators))]
        self.sources = [tuple({*operator.inputs}) for operator in operators]
        self.needs = [sum(1 << (source - 1) for source in sources if source) for sources in self.sources]
        self.readers = [0] * (self.count + 1)
        for index, sources in enumerate(self.sources):
            for source in sources:
                self.readers[source] |= 1 << index
        self.readers[-1] |= 1 << self.count  # the last tensor goes out

    def after(self, done: int, index: int) -> int:
        """By how much an operator changes the memory that is taken when it is through."""
        now = done | 1 << index
        freed = sum(self.sizes[source] for source in self.sources[index] if not self.readers[source] & ~now)
        return self.sizes[index + 1] - freed

    def ready(self, done: int) -> list[int]:
        return [
            index for index, needs in enumerate(self.needs) if not done >> index & 1 and not needs & ~done
        ]

    def settle(self, done: int, taken: int, peak: int) -> tuple[int, int, tuple[int, ...]]:
        """Runs what can be run below the peak without taking more memory."""
        ran: list[int] = []
        going = True
        while going:
            going = False
            for index in self.ready(done):
                change = self.after(done, index)
                if change <= 0 and taken + self.sizes[index + 1] <= peak:
                    done, taken, going = done | 1 << index, taken + change, True
                    ran.append(index)
                    break
        return done, taken, tuple(ran)

    def run(self) -> tuple[int, list[int]] | None:
        """The smallest peak and an order that has it; None where there are too many states."""
        whole = (1 << self.count) - 1
        paths: dict[int, tuple[int, tuple[int, ...]]] = {0: (-1, ())}
        queue = [(self.sizes[0], 0, 0, self.sizes[0])]
        settled: set[int] = set()
        while queue:
            peak, _, state, taken = heapq.heappop(queue)
            if state in settled:
                continue
            settled.add(state)
            if len(settled) > MAX_STATES:
                return None
            done, taken, ran = self.settle(state, taken, peak)
            if done == whole:
                return peak, self._path(paths, state, ran)
            for index in self.ready(done):
                then = done | 1 << index
                higher = max(peak, taken + self.sizes[index + 1])
                if then not in settled and (then not in paths or higher < self._peaks[then]):
                    paths[then], self._peaks[then] = (state, (*ran, index)), higher
                    heapq.heappush(queue, (higher, -then.bit_count(), then, taken + self.after(done, index)))
        raise AssertionError("some operator can always be run")

    @property
    def _peaks(self) -> dict[int, int]:
        return self.__dict__.setdefault("_known_peaks", {})

    @staticmethod
    def _path(paths: dict[int, tuple[int, tuple[int, ...]]], state: int, ran: tuple[int, ...]) -> list[int]:
        steps = [ran]
        while state:
            state, before = paths[state]
            steps.append(before)
        return [index for each in reversed(steps) for index in each]

    def one_ahead(self) -> tuple[int, list[int]]:
        """The operator next that takes the least memory, again and again."""
        done, taken, peak = 0, self.sizes[0], self.sizes[0]
        order: list[int] = []
        while len(order) < self.count:
            index = min(self.ready(done), key=lambda each: (self.after(done, each), self.sizes[each + 1]))
            peak = max(peak, taken + self.sizes[index + 1])
            taken += self.after(done, index)
            done |= 1 << index
            order.append(index)
        return peak, order


def _renumbered(operators: Sequence[Operator], order: Sequence[int]) -> list[Operator]:
    names = {0: 0, **{index + 1: place for place, index in enumerate(order, start=1)}}
    return [
        (each := operators[index])._replace(inputs=tuple(names[source] for source in each.inputs)) for index in order
    ]
