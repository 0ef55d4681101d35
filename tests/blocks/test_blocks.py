"""Each block family's operations, written out by hand, and the pieces that they share."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.strategies import blocks, input_sizes
from zeroshot_nas.architecture.blockspec import BLOCKS, block_steps
from zeroshot_nas.architecture.ops import (
    Activation,
    BatchNorm,
    Conv,
    Gate,
    GlobalPool,
    Linear,
    Repeat,
    Residual,
    output_shape,
    walk,
)
from zeroshot_nas.blocks.base import conv_bn, round_width, squeeze_and_excitation
from zeroshot_nas.blocks.conv import SuperConv
from zeroshot_nas.blocks.inverted_residual import SuperResIDW
from zeroshot_nas.blocks.residual import SuperResK1KXK1, SuperResKXKX
from zeroshot_nas.errors import ArchitectureError

RELU = Activation("relu")


def test_the_registered_names():
    """The whole PlainNet vocabulary of Zen-NAS's published networks and spaces; plug-ins may add to it."""
    expected = {
        *(f"SuperConvK{k}BNRELU" for k in (1, 3, 5, 7)),
        *(f"SuperResK{k}K{k}" for k in (3, 5, 7)),
        *(f"SuperResK1K{k}K1" for k in (3, 5, 7)),
        *(f"SuperResIDWE{e}K{k}" for e in (1, 2, 4, 6) for k in (3, 5, 7)),
    }
    assert expected <= set(BLOCKS)


def test_super_conv():
    block = SuperConv(out_channels=8, stride=2, sub_layers=2, kernel_size=5)
    assert block.lower(3) == (
        Conv(3, 8, kernel_size=5, stride=2, groups=1, bias=False),
        BatchNorm(8),
        RELU,
        Repeat((Conv(8, 8, kernel_size=5, stride=1, groups=1, bias=False), BatchNorm(8), RELU), times=1),
    )


def test_super_res_kxkx():
    """One unit a sub-layer; the first has a projection, the second, of equal width and stride 1, the identity."""
    block = SuperResKXKX(out_channels=16, stride=2, sub_layers=2, bottleneck_channels=4, kernel_size=3)
    first = Residual(
        body=(Conv(6, 4, 3, stride=2), BatchNorm(4), RELU, Conv(4, 16, 3), BatchNorm(16)),
        shortcut=(Conv(6, 16, 1, stride=2), BatchNorm(16)),
    )
    second = Residual(body=(Conv(16, 4, 3), BatchNorm(4), RELU, Conv(4, 16, 3), BatchNorm(16)), shortcut=())
    assert block.lower(6) == (first, RELU, Repeat((second, RELU), times=1))


def test_super_res_k1kxk1():
    """Two bottlenecks a sub-layer; the stride is in the first unit's middle convolution."""
    block = SuperResK1KXK1(out_channels=16, stride=2, sub_layers=1, bottleneck_channels=4, kernel_size=5)
    first = Residual(
        body=(
            *(Conv(6, 4, 1), BatchNorm(4), RELU),
            *(Conv(4, 4, 5, stride=2), BatchNorm(4), RELU),
            *(Conv(4, 16, 1), BatchNorm(16)),
        ),
        shortcut=(Conv(6, 16, 1, stride=2), BatchNorm(16)),
    )
    second = Residual(
        body=(
            *(Conv(16, 4, 1), BatchNorm(4), RELU),
            *(Conv(4, 4, 5), BatchNorm(4), RELU),
            *(Conv(4, 16, 1), BatchNorm(16)),
        )
    )
    assert block.lower(6) == (first, RELU, second, RELU)


def test_super_res_idw():
    """Two inverted residuals a sub-layer, to the bottleneck and to the output; each changes width, so each projects."""
    block = SuperResIDW(out_channels=12, stride=2, sub_layers=1, bottleneck_channels=5, expansion=2, kernel_size=7)
    first = Residual(  # 2 x 5 = 10, rounded to 8
        body=(
            *(Conv(6, 8, 1), BatchNorm(8), RELU),
            *(Conv(8, 8, 7, stride=2, groups=8), BatchNorm(8), RELU),
            *(Conv(8, 5, 1), BatchNorm(5)),
        ),
        shortcut=(Conv(6, 5, 1, stride=2), BatchNorm(5)),
    )
    second = Residual(  # 2 x 12 = 24
        body=(
            *(Conv(5, 24, 1), BatchNorm(24), RELU),
            *(Conv(24, 24, 7, groups=24), BatchNorm(24), RELU),
            *(Conv(24, 12, 1), BatchNorm(12)),
        ),
        shortcut=(Conv(5, 12, 1), BatchNorm(12)),
    )
    assert block.lower(6) == (first, RELU, second, RELU)


def test_the_first_unit_projects_even_where_nothing_changes():
    """As the authors' code does; later units of equal width have the identity."""
    for cls, units in ((SuperResKXKX, 2), (SuperResK1KXK1, 4), (SuperResIDW, 4)):
        block = cls(out_channels=8, bottleneck_channels=8, sub_layers=2)
        ops = block.first(8) + block.following()
        shortcuts = [op.shortcut for op in ops if isinstance(op, Residual)]
        assert shortcuts == [(Conv(8, 8, 1), BatchNorm(8)), *[()] * (units - 1)]
        assert ops[1::2] == (RELU,) * units


def test_idw_sub_layers_alternate_between_bottleneck_and_output():
    block = SuperResIDW(out_channels=12, bottleneck_channels=5, sub_layers=2)
    ops = block.first(3) + block.following()
    widths = [output_shape((op,), (width, 4, 4))[0] for op, width in zip(ops[::2], (3, 5, 12, 5), strict=True)]
    assert widths == [5, 12, 5, 12]


def test_squeeze_and_excitation_layout():
    """Pool, 1x1 to a quarter, batch norm, ReLU, 1x1, batch norm, sigmoid; no biases."""
    assert squeeze_and_excitation(24) == Gate(
        (
            GlobalPool(),
            *(Conv(24, 6, 1, bias=False), BatchNorm(6), Activation("relu")),
            *(Conv(6, 24, 1, bias=False), BatchNorm(24), Activation("sigmoid")),
        )
    )


@pytest.mark.parametrize(("channels", "squeezed"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (7, 2), (40, 10)])
def test_squeezed_width(channels, squeezed):
    assert squeeze_and_excitation(channels).body[1] == Conv(channels, squeezed, 1)


@pytest.mark.parametrize(
    ("block", "gated"),
    [
        (SuperResKXKX(8, bottleneck_channels=4, squeeze_excite=True), [4]),
        (SuperResK1KXK1(8, bottleneck_channels=4, squeeze_excite=True), [4, 4]),
        (SuperResIDW(8, bottleneck_channels=16, squeeze_excite=True), [16, 8]),
    ],
)
def test_the_gate_stands_before_each_units_last_convolution(block, gated):
    units = [op for op in block.lower(3) if isinstance(op, Residual)]
    for unit, channels in zip(units, gated, strict=True):
        *_, relu, gate, conv, norm = unit.body
        assert relu == RELU
        assert gate == squeeze_and_excitation(channels)
        assert isinstance(conv, Conv)
        assert conv.in_channels == channels
        assert isinstance(norm, BatchNorm)
        assert sum(isinstance(op, Gate) for op in unit.body) == 1


@given(blocks(), input_sizes())
def test_shape_follows_from_width_and_stride(block, size):
    channels, height, width = size
    shape = output_shape(block.lower(channels), size)
    assert shape[1:] == block_steps(block, channels, (height, width)).resolution
    assert shape == (block.out_channels, -(-height // block.stride), -(-width // block.stride))


@given(blocks(), input_sizes())
def test_every_convolution_has_its_batch_norm_and_no_bias(block, size):
    parts = [step.op for step in walk(block.lower(size[0]), size)[0]]
    convolutions = [op for op in parts if isinstance(op, Conv)]
    assert [op.out_channels for op in convolutions] == [op.channels for op in parts if isinstance(op, BatchNorm)]
    assert not any(op.bias for op in convolutions)
    assert not any(isinstance(op, Linear) for op in parts)
    assert all(op.groups in (1, op.in_channels) for op in convolutions)


@given(blocks(), st.integers(1, 4))
def test_squeeze_excite_adds_gates_and_changes_nothing_else(block, channels):
    assume(getattr(block, "squeeze_excite", False))
    without = replace(block, squeeze_excite=False)

    def ungated(ops):
        return tuple(
            Residual(ungated(op.body), op.shortcut) if isinstance(op, Residual) else op
            for op in ops
            if not isinstance(op, Gate)
        )

    for gated, plain in ((block.first(channels), without.first(channels)), (block.following(), without.following())):
        assert ungated(gated) == plain
        assert gated != plain


@pytest.mark.parametrize(
    ("width", "rounded"),
    [(0, 8), (1, 8), (8, 8), (11, 8), (11.99, 8), (12, 16), (16, 16), (19, 16), (20, 24), (100, 104), (1e6, 1_000_000)],
)
def test_round_width(width, rounded):
    assert round_width(width) == rounded


@given(st.floats(0.5, 1e7), st.integers(1, 64))
def test_round_width_is_the_nearest_multiple(width, step):
    width = max(width, step / 2)  # below, it is one step
    rounded = round_width(width, step)
    assert isinstance(rounded, int)
    assert rounded % step == 0
    assert -step / 2 < rounded - width <= step / 2  # halves go up


def test_conv_bn():
    assert conv_bn(4, 8, 3, stride=2, groups=4) == (Conv(4, 8, 3, 2, 4, False), BatchNorm(8))


@pytest.mark.parametrize(
    ("op", "shape", "expected"),
    [
        (Conv(3, 8, 3, stride=2), (3, 15, 16), (8, 8, 8)),
        (Conv(3, 8, 7), (3, 1, 1), (8, 1, 1)),  # a kernel wider than the image: padding makes room
        (Conv(3, 8, 1, stride=3), (3, 7, 6), (8, 3, 2)),
        (GlobalPool(), (5, 3, 2), (5, 1, 1)),
        (Linear(5, 10), (5, 1, 1), (10, 1, 1)),
        (squeeze_and_excitation(4), (4, 3, 2), (4, 3, 2)),
    ],
)
def test_output_shapes(op, shape, expected):
    assert output_shape((op,), shape) == expected


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ((Conv(3, 8, 3),), "Conv expects 3 input channels, got 4"),
        ((Conv(4, 8, 3), BatchNorm(9)), "BatchNorm expects 9 input channels, got 8"),
        ((Linear(4, 10),), "Linear expects 4 input channels, got 256"),
        ((Residual((Conv(4, 8, 3),)),), r"residual branch gives \(8, 8, 8\) but its shortcut \(4, 8, 8\)"),
        ((Gate((Conv(4, 5, 1),)),), "Gate expects 4 input channels, got 5"),
    ],
)
def test_operations_that_do_not_fit_are_named(ops, message):
    with pytest.raises(ArchitectureError, match=message):
        output_shape(ops, (4, 8, 8))
    with pytest.raises(ArchitectureError, match=message):
        walk(ops, (4, 8, 8))
