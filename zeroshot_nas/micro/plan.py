"""Where tensors lie in the arena: as the runtime's own planner puts them, and as the exported file does. No torch here.

The runtime takes the largest tensor first and puts each at the lowest place that is free while it lives. That is not
always the least: a file may carry a plan of its own, which the runtime then follows.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.micro.operators import Operator
from zeroshot_nas.micro.order import last_uses, live_sums, pieces, scratch_bytes, tensor_sizes

_TRIES = 300
"""Orders in which the tensors of a piece are placed before it is given up."""

_PLACES = 6
"""Places of a tensor between two pieces that are gone on from."""


class Buffer(NamedTuple):
    """Bytes that are needed for a time.

    Attributes:
        size: Bytes.
        first: Index of the first operator that needs them.
        last: Index of the last.
    """

    size: int
    first: int
    last: int


class Plan(NamedTuple):
    """Places in the arena.

    Attributes:
        offsets: Where each buffer begins.
        size: Bytes of the whole.
    """

    offsets: tuple[int, ...]
    size: int


def buffers_of(operators: Sequence[Operator], shape: Shape) -> list[Buffer]:
    """What int8 operators need: a buffer for every tensor, then those that operators use for themselves."""
    sizes, last = tensor_sizes(operators, shape), last_uses(operators)
    tensors = [Buffer(size, max(tensor - 1, 0), last[tensor]) for tensor, size in enumerate(sizes)]
    return tensors + [
        Buffer(size, step, step) for step, operator in enumerate(operators) if (size := scratch_bytes(operator))
    ]


def runtime_plan(buffers: Sequence[Buffer]) -> Plan:
    """The plan of TensorFlow Lite Micro's ``GreedyMemoryPlanner``.

    Example:
        >>> runtime_plan([Buffer(32, 0, 1), Buffer(48, 1, 2), Buffer(32, 2, 3)])
        Plan(offsets=(48, 0, 48), size=80)
    """
    order = sorted(range(len(buffers)), key=lambda each: (-buffers[each].size, -each))
    offsets = _placed(buffers, order, {})
    return Plan(tuple(offsets), max(offset + each.size for offset, each in zip(offsets, buffers, strict=True)))


def best_plan(operators: Sequence[Operator], shape: Shape) -> Plan:
    """A plan of no more than the largest sum of live tensors, where one is found; else the smallest that is.

    Pieces between two tensors that stand alone are placed one behind the other. From a few places of the tensor that a
    piece reads follow a few of the one that it gives, which the next piece begins with.
    """
    buffers, enough = buffers_of(operators, shape), max(live_sums(operators, shape))
    reached: list[dict[int, tuple[int, dict[int, int]]]] = [{0: (0, {0: 0})}]
    for start, end in pieces(operators):
        members = [start, end] + [
            each
            for each, buffer in enumerate(buffers)
            if start <= buffer.first and buffer.last < end and each not in (start, end)
        ]
        found: dict[int, tuple[int, dict[int, int]]] = {}
        for source in reached[-1]:
            for offsets in _placed_piece([buffers[each] for each in members], source, enough):
                found.setdefault(offsets[1], (source, dict(zip(members, offsets, strict=True))))
            if len(found) >= _PLACES:
                break
        if not found:
            return _whole_plan(buffers, enough)
        reached.append(found)
    offsets = [0] * len(buffers)
    place = min(reached[-1])
    for found in reversed(reached):
        place, members_at = found[place]
        for each, offset in members_at.items():
            offsets[each] = offset
    return Plan(tuple(offsets), enough)


def _whole_plan(buffers: Sequence[Buffer], enough: int) -> Plan:
    """The smallest of some plans of all buffers at once, the runtime's to begin with."""
    order = sorted(range(len(buffers)), key=lambda each: (-buffers[each].size, -each))
    rng = random.Random(0)
    best = runtime_plan(buffers)
    for _ in range(_tries(buffers)):
        if best.size <= enough:
            break
        offsets = _placed(buffers, order, {})
        tops = [offset + buffer.size for offset, buffer in zip(offsets, buffers, strict=True)]
        if max(tops) < best.size:
            best = Plan(tuple(offsets), max(tops))
        for each in [each for each in order if tops[each] > enough]:
            order.remove(each)
            order.insert(rng.randrange(max(len(order) // 2, 1)), each)
    return best


def _tries(buffers: Sequence[Buffer]) -> int:
    return min(_TRIES, 20_000 // len(buffers) + 1)


def _placed_piece(buffers: Sequence[Buffer], source: int, enough: int) -> list[list[int]]:
    """Some plans of a piece whose first buffer is placed; they differ in where the second, which goes out, lies."""
    order = sorted(range(1, len(buffers)), key=lambda each: (-buffers[each].size, -each))
    by_time = sorted(order, key=lambda each: (buffers[each].first, -buffers[each].last))
    starts = (order, by_time, by_time[::-1])
    rng = random.Random(0)
    found: dict[int, list[int]] = {}
    tries = _tries(buffers)
    for attempt in range(tries):
        tried = starts[attempt] if attempt < len(starts) else order
        offsets = _placed(buffers, tried, {0: source})
        high = [each for each in tried if offsets[each] + buffers[each].size > enough]
        if not high:
            found.setdefault(offsets[1], offsets)
            above = enough - buffers[1].size  # the other end, where it is free
            lifted = _placed(buffers, [each for each in tried if each != 1], {0: source, 1: above})
            if source + buffers[0].size <= above and all(
                offset + each.size <= enough for offset, each in zip(lifted, buffers, strict=True)
            ):
                found.setdefault(above, lifted)
        if len(found) > 1 or (found and attempt >= tries // 10):
            break
        for each in high or rng.sample(order, 1):  # what lies too high is placed earlier
            order.remove(each)
            order.insert(rng.randrange(len(order) + 1), each)
    return list(found.values())


def _placed(buffers: Sequence[Buffer], order: Sequence[int], fixed: Mapping[int, int]) -> list[int]:
    """Where buffers begin: each in turn at the lowest place that is free while it lives, but those that are fixed."""
    offsets = [fixed.get(each, 0) for each in range(len(buffers))]
    placed = sorted(fixed, key=offsets.__getitem__)
    for each in order:
        size, first, last = buffers[each]
        offset = 0
        for other in placed:
            if buffers[other].first > last or buffers[other].last < first:
                continue
            if offsets[other] - offset >= size:
                break
            offset = max(offset, offsets[other] + buffers[other].size)
        offsets[each] = offset
        bisect.insort(placed, each, key=offsets.__getitem__)
    return offsets
