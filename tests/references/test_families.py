"""Figures of hand-made networks as they are published."""

import pytest

import zeroshot_nas as zs
from zeroshot_nas.errors import ArchitectureError


@pytest.mark.parametrize(
    ("name", "size", "classes", "params", "flops"),
    [
        ("resnet8", (3, 32, 32), 10, 78_000, 12.5e6),  # MLPerf Tiny, arXiv:2106.07597
        ("resnet20", (3, 32, 32), 10, 0.27e6, 41e6),  # arXiv:1512.03385, table 6
        ("resnet32", (3, 32, 32), 10, 0.46e6, 69e6),  # arXiv:1512.03385, table 6
        ("resnet56", (3, 32, 32), 10, 0.85e6, 125e6),
        ("resnet18", (3, 32, 32), 10, 11.17e6, 0.56e9),  # of many papers on CIFAR
        ("all_cnn", (3, 32, 32), 10, 1.37e6, 0.28e9),  # arXiv:1412.6806: 1.3 million parameters
        ("mobilenet_v2", (3, 224, 224), 1000, 3.5e6, 300e6),  # arXiv:1801.04381
    ],
)
def test_published_figures(name, size, classes, params, flops):
    costs = zs.cost(zs.reference(name, None, size, classes))
    assert costs.params == pytest.approx(params, rel=0.025)
    assert costs.flops == pytest.approx(flops, rel=0.025)


def test_mobilenet_v2_has_the_parameters_of_torchvisions():
    assert zs.cost(zs.reference("mobilenet_v2", None, (3, 224, 224), 1000)).params == 3_504_872


def test_what_is_like_shufflenet_v2_costs_about_as_much():
    costs = zs.cost(zs.reference("shufflenet_v2_like", None, (3, 224, 224), 1000))
    assert 2.3e6 <= costs.params < 1.3 * 2.3e6  # arXiv:1807.11164, table 8
    assert 146e6 <= costs.flops < 1.6 * 146e6


@pytest.mark.parametrize("name", ["mobilenetv2", "MobileNet-V2", "ResNet_20", "resnet-20"])
def test_names_are_read_with_or_without_what_parts_them(name):
    assert zs.reference(name) == zs.reference({"m": "mobilenet_v2", "r": "resnet20"}[name[0].lower()])


def test_a_resnet_has_the_published_parameters_but_for_the_first_shortcut():
    """With projections where the width changes: 272,474; ours has one more, of 16 to 16 channels."""
    assert zs.cost(zs.reference("resnet20")).params == 272_474 + 16 * 16 + 2 * 16


@pytest.mark.parametrize(("side", "halvings"), [(8, 1), (16, 2), (32, 3), (64, 4), (128, 5), (224, 5), (512, 5)])
def test_mobilenet_v2_halves_as_the_image_allows(side, halvings):
    network = zs.reference("mobilenet_v2", None, (3, side, side))
    assert sum(block.stride == 2 for block in network.blocks) == halvings
    assert network.feature_shape[1] == side // 2**halvings


def test_depth_multiplies_the_blocks():
    half, whole = (zs.reference("mobilenet_v2", depth=depth) for depth in (0.5, 1))
    assert [block.sub_layers for block in whole.blocks] == [1, 1, 2, 3, 4, 3, 3, 1, 1]
    assert [block.sub_layers for block in half.blocks] == [1, 1, 1, 2, 2, 2, 2, 1, 1]
    for depth in (0, -1, 11):
        with pytest.raises(ArchitectureError, match="depth of 'mobilenet_v2' must be above 0"):
            zs.reference("mobilenet_v2", depth=depth)


def test_repeats_and_expansion_of_three_stages():
    network = zs.reference("mobilenet_3stage", repeats="123", expansion=6, strides="212", stem_stride=2)
    assert [(block.stride, block.sub_layers) for block in network.blocks] == [(2, 1), (2, 1), (1, 2), (2, 3), (1, 1)]
    assert network.blocks[1].type_name == "SuperResIDWE6K3"
    assert network.blocks[-1].out_channels == 4 * 64
    with pytest.raises(ArchitectureError, match="repeats must be three digits"):
        zs.reference("mobilenet_3stage", repeats="11")


def test_a_bottleneck_has_half_the_width_inside():
    network = zs.reference("resnet14", block="bottleneck", kernel=5)
    assert [(block.type_name, block.bottleneck_channels, block.sub_layers) for block in network.blocks[1:]] == [
        ("SuperResK1K5K1", inner, 2) for inner in (8, 16, 32)
    ]


@pytest.mark.parametrize("name", ["resnet8", "resnet14", "resnet18", "mobilenet_3stage"])
@pytest.mark.parametrize(("size", "stride"), [((3, 63, 90), 1), ((3, 64, 64), 2), ((3, 128, 96), 2), ((3, 32, 32), 1)])
def test_the_first_convolution_of_larger_images_halves_them(name, size, stride):
    network = zs.reference(name, input_size=size)
    assert network.blocks[0].stride == stride
    for asked in (1, 2):
        other = zs.reference(f"{name}:stem_stride={asked}", input_size=size)
        assert other.blocks[0].stride == asked
        assert (other == network) == (asked == stride)
