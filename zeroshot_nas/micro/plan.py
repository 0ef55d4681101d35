"""Where tensors lie in the arena: as the runtime's own planner puts them, and as the exported file does. No torch here.

The runtime takes the largest tensor first and puts each at the lowest place that is free while it lives. That is not
always the least: a file may carry a plan of its own, which the runtime then follows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.micro.operators import Operator
from zeroshot_nas.micro.order import last_uses, scratch_bytes, tensor_sizes

_TRIES = 300


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
    return _placed(buffers, sorted(range(len(buffers)), key=lambda each: (-buffers[each].size, -each)))


def best_plan(buffers: Sequence[Buffer], enough: int) -> Plan:
    """The smallest plan found, the runtime's to begin with.

    Args:
        buffers: What is to be placed.
        enough: Where to stop: the largest sum of what lives at one time, which none betters.
    """
    order = sorted(range(len(buffers)), key=lambda each: (-buffers[each].size, -each))
    by_time = sorted(order, key=lambda each: (buffers[each].first, -buffers[each].last))
    best = min((_placed(buffers, each) for each in (order, by_time, by_time[::-1])), key=lambda plan: plan.size)
    rng = random.Random(0)
    for _ in range(_TRIES):
        if best.size <= enough:
            break
        plan = _placed(buffers, order)
        tops = [each for each in order if plan.offsets[each] + buffers[each].size > enough]
        for each in tops:  # what lies too high is placed earlier
            order.remove(each)
            order.insert(rng.randrange(max(len(order) // 2, 1)), each)
        best = min(best, _placed(buffers, order), key=lambda plan: plan.size)
    return best


def _placed(buffers: Sequence[Buffer], order: Sequence[int]) -> Plan:
    """Every buffer in turn at the lowest place that is free while it lives."""
    offsets = [0] * len(buffers)
    placed: list[int] = []
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
        placed.append(each)
        placed.sort(key=offsets.__getitem__)
    return Plan(tuple(offsets), max((offset + each.size for offset, each in zip(offsets, buffers, strict=True))))
