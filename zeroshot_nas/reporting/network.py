"""A network by its blocks: where each stands, and which share of costs, latency and score is its."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec, block_steps
from zeroshot_nas.architecture.ops import Resolution, Shape
from zeroshot_nas.closed_form.block_sum import End, placed_blocks
from zeroshot_nas.costs.base import summed_costs
from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.latency.device_table import DeviceTable
from zeroshot_nas.reporting.base import Bar, Cell, Code, Drawing, Note, Part, Section, Table
from zeroshot_nas.reporting.diagram import Column, draw
from zeroshot_nas.reporting.words import count, percent, short
from zeroshot_nas.scoring.proxy import Proxy, get_proxy

_SHOWN = ("params", "flops")
_PLAIN = ("out_channels", "stride", "sub_layers")


class Shares(NamedTuple):
    """One quantity over the blocks, the head last.

    Attributes:
        title: What it is.
        values: One number a block.
        spec: How a number is written.
    """

    title: str
    values: Sequence[float]
    write: Callable[[float], str]

    def parts(self) -> list[float]:
        """Each block's part of the sum of what is above 0."""
        whole = sum(max(0.0, value) for value in self.values)
        return [max(0.0, value) / whole if whole else 0.0 for value in self.values]


@dataclass(frozen=True)
class Placed:
    """A block, or the head, in its place.

    Attributes:
        name: The block's kind.
        shape: What it puts out.
        in_channels: Channels that enter it.
        stride: Its stride.
        sub_layers: How often its unit is repeated.
        more: What else distinguishes it, in words.
    """

    name: str
    shape: Shape
    in_channels: int
    stride: int
    sub_layers: int
    more: str = ""


def network_section(
    architecture: Architecture,
    *,
    name: str = "Network",
    string: str = "",
    proxy: str | None = None,
    table: DeviceTable | None = None,
) -> Section:
    """A network drawn, and as a table of its blocks.

    Args:
        architecture: The network.
        name: The tab's name.
        string: The network as its space writes it.
        proxy: What it was ranked by, whose closed form may tell of each block.
        table: What predicts latency.
    """
    places = placed(architecture)
    shares, remarks = [*_costs(architecture), *_latency(architecture, table)], []
    scored = _score(architecture, proxy)
    if isinstance(scored, Shares):
        shares.append(scored)
    elif scored:
        remarks.append(Note(scored))
    kinds = list(dict.fromkeys(each.name for each in places[:-1]))
    columns = [
        Column(each.name, each.shape, each.sub_layers, kinds.index(each.name) % 8 if each.name in kinds else None, text)
        for each, text in zip(places, _texts(places, shares), strict=True)
    ]
    svg = draw(columns, architecture.input_size, {each.title: each.parts() for each in shares})
    legend = [(kind, f"kind{index % 8}") for index, kind in enumerate(kinds)]
    drawing = Drawing(
        "The network, block by block",
        svg,
        legend,
        "Height is the number of channels (logarithmic), numbers above are channels, ×n is the depth of a block. "
        "Below: the share of each block.",
    )
    parts: list[Part] = [drawing, *remarks, _table(places, shares)]
    if string:
        parts.append(Code(string, "As text"))
    return Section(name, parts)


def placed(architecture: Architecture) -> list[Placed]:
    """Every block where it stands, and the head."""
    found = []
    bits = [_bits(each) for each in architecture.bits_by_block() or [()] * (len(architecture.blocks) + 1)]
    for (block, channels, resolution), own in zip(architecture.inputs(), bits, strict=False):
        shape = (block.out_channels, *block_steps(block, channels, resolution).resolution)
        more = ", ".join(filter(None, (_more(block), own)))
        found.append(Placed(block.type_name, shape, channels, block.stride, block.sub_layers, more))
    channels, classes = architecture.blocks[-1].out_channels, architecture.num_classes
    return [*found, Placed("classifier", (classes, 1, 1), channels, 1, 1, bits[-1])]


def _bits(of_layers: Sequence[int]) -> str:
    """The bits of a block's weights, layer by layer."""
    return f"bits {' '.join(map(str, of_layers))}" if of_layers else ""


def _more(block: BlockSpec) -> str:
    """Fields of a block that a table has no column for."""
    values = {each: getattr(block, each) for each in BLOCKS[block.type_name].free_fields if each not in _PLAIN}
    texts = [f"{each.replace('_', ' ')} {value}" for each, value in values.items() if not isinstance(value, bool)]
    return ", ".join([*texts, *(each.replace("_", " ") for each, value in values.items() if value is True)])


def _costs(architecture: Architecture) -> list[Shares]:
    summed = summed_costs()
    rows = [summed.block_sums(*each).row for each in architecture.inputs()]
    channels, *sides = architecture.feature_shape
    resolution: Resolution = (sides[0], sides[1])
    rows.append(summed.head_row(channels, resolution, architecture.num_classes))
    titles = {"params": "parameters", "flops": "FLOPs"}
    return [Shares(titles[each], [row[summed.names.index(each)] for row in rows], short) for each in _SHOWN]


def _latency(architecture: Architecture, table: DeviceTable | None) -> list[Shares]:
    if table is None:
        return []
    try:
        values = table.latency_by_block(architecture)
    except ZeroShotNASError:  # a table of another space
        return []
    return [Shares("latency", values, lambda value: f"{value:.3g} ms")]


def _score(architecture: Architecture, proxy: str | None) -> Shares | str:
    """What each block adds to a score; in words, where nothing can be said of single blocks."""
    if proxy is None:
        return ""
    try:
        found = get_proxy(proxy)
        if found.info.name in ("cet", "ceres"):
            return _explained(architecture, found)
        return _summed(architecture, found)
    except ZeroShotNASError:
        return f"{proxy} is a property of the whole network: there is no share of a single block."


def _summed(architecture: Architecture, proxy: Proxy) -> Shares:
    block_sum = proxy.bound_block_sum()
    places = list(placed_blocks(architecture))
    values = [block_sum.of_block(each) for each in places]
    channels, height, width = architecture.feature_shape
    end = End(channels, (height, width), architecture.num_classes, sum(map(block_sum.count_of, places)))
    return Shares(f"score ({proxy.key})", [*values, block_sum.of_end(end)], lambda value: f"{value:.4g}")


def _explained(architecture: Architecture, proxy: Proxy) -> Shares:
    """What blocks add to the effective uses of weights, of which CET is made, or to effective weights, as of CERES."""
    from zeroshot_nas.closed_form.cet.explain import cet_explain

    uses = proxy.info.name == "cet"
    values = [0.0] * (len(architecture.blocks) + 1)
    for row in cet_explain(architecture):
        values[row.block - 1] += row.effective_uses if uses else row.effective_weights
    return Shares(f"{proxy.info.name}: effective {'uses' if uses else 'weights'}", values, short)


def _texts(places: Sequence[Placed], shares: Sequence[Shares]) -> list[str]:
    """What is said of each block where it is pointed at."""
    parts = [each.parts() for each in shares]
    texts = []
    for index, each in enumerate(places):
        lines = [each.name + (f" ×{each.sub_layers}" if each.sub_layers > 1 else "")]
        lines.append(f"{count(each.in_channels)} → {count(each.shape[0])} channels at {_side(each.shape)}")
        lines += [each.more] if each.more else []
        lines += [
            f"{share.title} {share.write(share.values[index])} ({percent(part[index])})"
            for share, part in zip(shares, parts, strict=True)
        ]
        texts.append("\n".join(lines))
    return texts


def _table(places: Sequence[Placed], shares: Sequence[Shares]) -> Table:
    parts = [each.parts() for each in shares]
    largest = [max(part) or 1.0 for part in parts]
    rows: list[list[Cell]] = []
    for index, each in enumerate(places):
        own: list[Cell] = [str(index + 1) if index < len(places) - 1 else "", each.name, each.more]
        own += [f"{count(each.in_channels)} → {count(each.shape[0])}", f"{each.sub_layers}", _side(each.shape)]
        for share, part, most in zip(shares, parts, largest, strict=True):
            text = f"{share.write(share.values[index])} · {percent(part[index])}"
            own.append(Bar(part[index] / most, text))
        rows.append(own)
    head = ["", "block", "", "channels", "depth", "output", *(each.title for each in shares)]
    if not any(each.more for each in places):
        rows = [[*row[:2], *row[3:]] for row in rows]
        head = [*head[:2], *head[3:]]
    return Table(head, rows, "Blocks")


def _side(shape: Shape) -> str:
    return f"{shape[1]}×{shape[2]}"


def device_table_of(call: Mapping[str, Any] | None, digest: str | None) -> DeviceTable | None:
    """The device table that a search predicted with; None where it used none, or its file says something else now.

    Args:
        call: How the search was asked for.
        digest: Of the table that it used.
    """
    if not call or digest is None or not isinstance(call["device_table"], str | None):
        return None
    try:
        table = _read_table(call)
    except ZeroShotNASError:
        return None
    return table if table is not None and table.digest == digest else None


def _read_table(call: Mapping[str, Any]) -> DeviceTable | None:
    from zeroshot_nas.latency.calibrate import find_table
    from zeroshot_nas.spaces.base import SpaceCall

    if call["device_table"] is not None:
        return DeviceTable.load(call["device_table"])
    return None if call["space"] is None else find_table(SpaceCall(**call["space"]).make(), call["backend"])
