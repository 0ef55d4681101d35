"""The share of each convolution in a network's CET."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.cet.plan import PlacedPlan, TracedConv
from zeroshot_nas.closed_form.cet.score import conv_columns, propagate
from zeroshot_nas.closed_form.cet.tracing import Traced, trace_sub_layer

State: TypeAlias = Literal["ok", "redundant", "dead", "stem", "not counted"]

REDUNDANT = 0.5
"""Novelty below which a convolution is called redundant: more than half of it stands in a larger one beside it."""


@dataclass(frozen=True)
class LayerShare:
    """One convolution and its share in CET.

    Attributes:
        block: Number of its block, from 1.
        block_type: The block's registered name.
        sub_layer: Number of its sub-layer in the block, from 1.
        kernel_size: Side of the kernel.
        stride: Its stride.
        in_channels: Input channels.
        out_channels: Output channels.
        groups: Groups of channels; as many as channels where it is depthwise.
        resolution: Height and width of its output.
        weights: Number of its weights.
        state: ``"dead"``: no path leads to it from the image, or none to the output. ``"not counted"``: a shortcut
            without batch norm. ``"stem"``: it reads the image itself. ``"redundant"``: its novelty is below
            `REDUNDANT`. Else ``"ok"``.
        patch_rank: Independent inputs of one output value; None where it does not count, as the other ranks.
        novelty: Share of it that no larger convolution on a parallel path repeats, 0 to 1.
        output_rank: Effective output channels.
        gradient_rank: Effective channels of the gradient that comes back.
        effective_weights: Its part of W; 0 where it does not count, and for a stem, which W leaves out.
        effective_uses: Its part of U; 0 where it does not count.
        share: Effective uses over U.
        log_term: Its part of the expressivity S; 0 where it does not count.
    """

    block: int
    block_type: str
    sub_layer: int
    kernel_size: int
    stride: int
    in_channels: int
    out_channels: int
    groups: int
    resolution: tuple[int, int]
    weights: int
    state: State
    patch_rank: float | None = None
    novelty: float | None = None
    output_rank: float | None = None
    gradient_rank: float | None = None
    effective_weights: float = 0.0
    effective_uses: float = 0.0
    share: float = 0.0
    log_term: float = 0.0

    @property
    def convolution(self) -> str:
        """The convolution in short, ``"3x3 16->32 /2"``: kernel, channels, stride; ``dw`` where it is depthwise."""
        depthwise = " dw" if self.groups > 1 else ""
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return f"{self.kernel_size}x{self.kernel_size} {self.in_channels}->{self.out_channels}{depthwise}{stride}"


def cet_explain(architecture: Architecture) -> list[LayerShare]:
    """The share of each convolution in the network's CET, dead ones among them, in order.

    The effective weights add up to the term W of `zeroshot_nas.closed_form.cet.score.cet`, the effective uses to its U
    and the log terms to its S. The two convolutions of a squeeze-and-excitation gate, which is the identity in the
    mean, are not listed.

    Raises:
        UndefinedScoreError: As `zeroshot_nas.closed_form.cet.score.cet`.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> for row in cet_explain(net):
        ...     print(row.block, row.convolution, row.state, f"{row.share:.0%}")
        1 3x3 3->16 stem 28%
        2 3x3 16->16 /2 ok 28%
        2 3x3 16->32 ok 41%
        2 1x1 16->32 /2 ok 4%
    """
    places = list(_sub_layers(architecture))
    sequence = [(PlacedPlan(traced.plan), 1) for _, _, _, traced in places]
    passes = propagate([sequence], architecture.input_size, [architecture.num_classes])
    _, columns = conv_columns(passes)
    uses = columns.uses
    weights = np.where(columns.is_stem, 0.0, columns.weights)
    rows_of_numbers = np.transpose([*columns, weights, uses, uses / uses.sum(), columns.transmission]).tolist()
    names = (*columns._fields, "effective_weights", "effective_uses", "share", "log_term")
    numbers: dict[tuple[int, int], dict[str, float]] = {}
    counted = ((index, conv.place) for index, step in enumerate(passes.steps) for conv in step.placed.layout.counted)
    for key, values in zip(counted, rows_of_numbers, strict=True):
        numbers[key] = dict(zip(names, values, strict=True))
    rows = []
    for index, (block, block_type, sub_layer, traced) in enumerate(places):
        for traced_conv in traced.convolutions:
            own = None if traced_conv.stage is None else numbers.get((index, traced_conv.stage))
            rows.append(_row((block, block_type, sub_layer), traced_conv, own))
    return rows


def _sub_layers(architecture: Architecture) -> Iterator[tuple[int, str, int, Traced]]:
    """Block number, block type, sub-layer number and trace of every sub-layer."""
    for number, (block, channels, resolution) in enumerate(architecture.inputs(), start=1):
        traced = trace_sub_layer(block, channels, resolution)
        yield number, block.type_name, 1, traced
        for sub_layer in range(2, block.sub_layers + 1):
            yield number, block.type_name, sub_layer, trace_sub_layer(block, None, traced.plan.shape[1:])


def _row(place: tuple[int, str, int], traced_conv: TracedConv, numbers: dict[str, float] | None) -> LayerShare:
    conv = traced_conv.conv
    state: State = "ok"
    if numbers is None:
        state = "dead" if traced_conv.stage is None else "not counted"
    elif numbers["is_stem"]:
        state = "stem"
    elif numbers["novelty"] < REDUNDANT:
        state = "redundant"
    numbers = numbers or {}
    return LayerShare(
        *place,
        kernel_size=conv.kernel_size,
        stride=conv.stride,
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        groups=conv.groups,
        resolution=traced_conv.resolution,
        weights=conv.out_channels * conv.fan_in,
        state=state,
        patch_rank=numbers.get("patch_rank"),
        novelty=numbers.get("novelty"),
        output_rank=numbers.get("output_rank"),
        gradient_rank=numbers.get("gradient_rank"),
        effective_weights=numbers.get("effective_weights", 0.0),
        effective_uses=numbers.get("effective_uses", 0.0),
        share=numbers.get("share", 0.0),
        log_term=numbers.get("log_term", 0.0),
    )
