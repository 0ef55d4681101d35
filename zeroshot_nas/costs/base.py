"""What a cost is, and the registry of them: a new cost is one file of `zeroshot_nas.costs.resources`. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

from zeroshot_nas.architecture.architecture import head
from zeroshot_nas.architecture.blockspec import BlockSpec, single_sub_layer, sub_layer_steps
from zeroshot_nas.architecture.ops import OPS, Graph, Op, Resolution, Shape, Step, graph_shape, walk
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import ArchitectureError

STANDARD = ("params", "flops", "layers", "activations", "latency_ms")
"""Costs that have an attribute of their own in `Costs` and `Budget`, in the order in which they are shown."""

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


def parse_number(text: str) -> float:
    """A number with an optional k, M or G (B).

    Raises:
        ValueError: It is none; the message says what is expected.

    Example:
        >>> parse_number("1.5M")
        1500000.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)([kmgb]?)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("a number with an optional k, M or G, e.g. 1.5M")
    return float(match[1]) * _SUFFIXES[match[2].lower()]


@dataclass(frozen=True)
class CostInfo:
    """Facts about a cost.

    Args:
        name: What `Costs` and `Budget` call it: ``"peak_memory"``.
        label: What is printed: ``"peak memory"``.
        per: What the function takes. ``"op"``: an operation of `zeroshot_nas.architecture.ops` and its output shape;
            the network's cost is the sum over its operations, memoised by block. ``"architecture"``: the whole
            `Architecture`; worked out only where somebody asks for it. ``"device"``: nothing, a device table predicts
            it.
        ops: For a sum over operations, those that have this cost; others cost nothing. Empty: all are asked.
        elementwise: Whether the function of an operation is arithmetic, so that it takes operations and shapes with
            arrays in place of numbers; a search costs a thousand networks at a time where all costs are so.
        unit: Printed behind values: ``"bytes"``.
        option: The option of ``search`` that limits it; default ``"--max-NAME"``.
        help: What that option's help says; default ``"Upper limit on LABEL."``
        parse: Reads the option's text; its ValueError says what is expected.
        count: The function; `register_cost` fills it in. None where the number is known without one.
    """

    name: str
    label: str = ""
    per: Literal["op", "architecture", "device"] = "op"
    ops: tuple[type, ...] = field(default=(), kw_only=True)
    elementwise: bool = field(default=False, kw_only=True)
    unit: str = field(default="", kw_only=True)
    option: str = field(default="", kw_only=True)
    help: str = field(default="", kw_only=True)
    parse: Callable[[str], float] = field(default=parse_number, kw_only=True)
    count: Callable[..., float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        label = self.label or self.name.replace("_", " ")
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "option", self.option or f"--max-{self.name.replace('_', '-')}")
        object.__setattr__(self, "help", self.help or f"Upper limit on {label}.")


COSTS: Registry[CostInfo] = Registry("cost", package="zeroshot_nas.costs.resources")

_Count = TypeVar("_Count", bound=Callable[..., float])


def register_cost(info: CostInfo) -> Callable[[_Count], _Count]:
    """Registers a cost; ``cost``, `Budget`, ``search`` and its options know it from then on.

    Example:
        >>> from zeroshot_nas.architecture.ops import Conv
        >>> @register_cost(CostInfo("convolutions", ops=(Conv,)))  # doctest: +SKIP
        ... def convolutions(op: Conv, output_shape: Shape) -> int:
        ...     return 1
    """

    def register(count: _Count) -> _Count:
        COSTS.add(info.name, replace(info, count=count))
        summed_costs.cache_clear()
        return count

    return register


def list_costs() -> list[str]:
    """Names of the registered costs, in the order in which they are shown.

    Example:
        >>> list_costs()
        ['params', 'flops', 'layers', 'activations', 'latency_ms', 'peak_memory', 'weights']
    """
    return sorted(COSTS, key=lambda name: (STANDARD.index(name) if name in STANDARD else len(STANDARD), name))


class Sums(NamedTuple):
    """Summed costs of a block, and the resolution behind it."""

    row: tuple[float, ...]
    resolution: Resolution


class SummedCosts:
    """The costs that are sums over operations, memoised by block: in a search most blocks are those of the parent.

    Attributes:
        names: Their names, the standard ones first.
        block_sums: ``(block, in_channels, resolution)`` to the sums of a block.
        head_row: ``(channels, resolution, num_classes)`` to the sums of the head.
    """

    def __init__(self) -> None:
        infos = [info for info in map(COSTS.__getitem__, list_costs()) if info.per == "op"]
        self.names = tuple(info.name for info in infos)
        self.block_sums = lru_cache(maxsize=131_072)(self._block_sums)
        self.head_row = lru_cache(maxsize=4_096)(self._head_row)
        self._chain_sums = lru_cache(maxsize=16_384)(self._sums_of_chain)
        self._sub_layer_sums = lru_cache(maxsize=262_144)(self._sums_of_sub_layer)
        self._counts: dict[type, tuple[tuple[int, Callable[..., float]], ...]] = {
            op: tuple((place, info.count) for place, info in enumerate(infos) if info.count and op in (info.ops or OPS))
            for op in OPS
        }

    def _block_sums(self, block: BlockSpec, in_channels: int, resolution: Resolution) -> Sums:
        first, following = self._sums_of_sub_layers(block, in_channels, resolution)
        if following is None:
            return first
        times = block.sub_layers - 1
        row = tuple([one + times * more for one, more in zip(first.row, following.row, strict=True)])
        return Sums(row, first.resolution)

    def _sums_of_sub_layers(
        self, block: BlockSpec, in_channels: int, resolution: Resolution
    ) -> tuple[Sums, Sums | None]:
        """Sums over the first sub-layer, and over a following one where there is one."""
        ops = block.first(in_channels)
        if not any(isinstance(op, Graph) for op in ops):
            single = single_sub_layer(block)
            first = self._sub_layer_sums(single, in_channels, resolution)
            return first, None if block.sub_layers == 1 else self._sub_layer_sums(single, None, first.resolution)
        first = self._graph_sums(ops, (in_channels, *resolution))
        if block.sub_layers == 1:
            return first, None
        following = block.following()
        same = following == ops and in_channels == block.out_channels and first.resolution == resolution
        return first, first if same else self._graph_sums(following, (block.out_channels, *first.resolution))

    def _graph_sums(self, ops: Iterable[Op], shape: Shape) -> Sums:
        """Sums over a chain with a graph, edge by edge: thousands of cells have few edges that differ."""
        rows: list[tuple[float, ...]] = []

        def add(chain: tuple[Op, ...], shape: Shape) -> Shape:
            row, after = self._chain_sums(chain, shape)
            rows.append(row)
            return after

        for op in ops:
            shape = graph_shape(op, shape, add) if isinstance(op, Graph) else add((op,), shape)
        return Sums(tuple(map(sum, zip(*rows, strict=True))), shape[1:])

    def _sums_of_chain(self, ops: tuple[Op, ...], shape: Shape) -> tuple[tuple[float, ...], Shape]:
        steps, after = walk(ops, shape)
        return self._row(steps), after

    def _sums_of_sub_layer(self, block: BlockSpec, in_channels: int | None, resolution: Resolution) -> Sums:
        steps, after = sub_layer_steps(block, in_channels, resolution)
        return Sums(self._row(steps), after)

    def _head_row(self, channels: int, resolution: Resolution, num_classes: int) -> tuple[float, ...]:
        return self._row(walk(head(channels, num_classes), (channels, *resolution))[0])

    def _row(self, steps: Iterable[Step]) -> tuple[float, ...]:
        """The sum of each cost over the steps, repeats included.

        Raises:
            ArchitectureError: An operation is none of `zeroshot_nas.architecture.ops.OPS`.
        """
        sums: list[float] = [0] * len(self.names)
        counts = self._counts
        for op, _, output_shape, times, _ in steps:
            try:
                costs_of_op = counts[type(op)]
            except KeyError:
                raise ArchitectureError(f"no costs are known for the operation {type(op).__name__}") from None
            for place, count in costs_of_op:
                sums[place] += times * count(op, output_shape)
        return tuple(sums)


@lru_cache(maxsize=1)
def summed_costs() -> SummedCosts:
    """The registered costs that are sums over operations."""
    return SummedCosts()
