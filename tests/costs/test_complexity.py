"""Closed-form costs: a convolution by hand, the published networks, fvcore's count of the built network."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import published
from tests.counting import counted
from tests.strategies import CHAIN_TYPES, architectures
from zeroshot_nas import Architecture, Costs, build, cost
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.blocks.conv import SuperConv
from zeroshot_nas.costs.complexity import MAX_ACTIVATIONS, MAX_PARAMS, check_buildable, complexity
from zeroshot_nas.errors import ArchitectureError


def test_one_convolution_by_hand():
    """3 -> 8 channels, 3x3, stride 2, on 5x7: output 3x4."""
    costs = complexity(Architecture((SuperConv(8, stride=2),), (3, 5, 7), num_classes=10))
    assert costs == Costs(
        params=3 * 8 * 9 + 2 * 8 + (8 * 10 + 10),  # weights, scale and shift, classifier
        flops=3 * 8 * 9 * 12 + 8 * 10,
        layers=1,
        activations=8 * 12 + 10,
        peak_memory=costs["peak_memory"],  # has tests of its own
        weights=costs["weights"],
    )


def test_one_depthwise_unit_with_its_gate_by_hand():
    """SuperResIDWE2K3 from 4 to 8 channels at 2x2: two units of 1x1 to 16, depthwise 3x3, gate of 4, 1x1 to 8."""
    text = "SuperResIDWE2K3(4,8,1,8,1)"
    costs = complexity(Architecture.from_string(text, (4, 2, 2), num_classes=2, squeeze_excite=True))
    gate = 16 * 4 + 4 * 16
    first = 4 * 16 + 16 * 9 + 16 * 8 + 4 * 8  # the last term is the projection
    second = 8 * 16 + 16 * 9 + 16 * 8  # 8 channels in and out: the identity
    norms = 2 * (16 + 16 + 8 + 8 + 4 + 16) + 2 * (16 + 16 + 8 + 4 + 16)
    assert costs.params == first + second + 2 * gate + norms + 8 * 2 + 2
    assert costs.flops == (first + second) * 4 + 2 * gate + 8 * 2  # a gate works on one position
    assert costs.activations == (16 + 16 + 8 + 8 + 16 + 16 + 8) * 4 + 2 * (4 + 16) + 2


@pytest.mark.parametrize("entry", published.NETWORKS, ids=published.NAMES)
def test_the_published_networks_exactly(entry):
    """The authors' projections carry a redundant bias, which we leave out."""
    costs = cost(published.architecture_of(entry))
    assert costs.params == entry["params_counted"] - entry["projection_biases"]
    assert costs.flops == entry["flops_conv_linear"]
    assert costs.layers == entry["layers"]


@pytest.mark.slow
@settings(max_examples=15)
@given(architectures(max_blocks=3))
def test_equals_the_built_networks_count(architecture):
    costs = complexity(architecture)
    assert (costs.params, costs.flops, costs.activations) == counted(architecture)


@pytest.mark.parametrize("name", CHAIN_TYPES)
def test_equals_the_built_networks_count_for_every_type(name):
    """Each registered type once, odd and oblong input, one channel, with its switches on."""
    values = {"out_channels": 5, "stride": 2, "sub_layers": 2, "bottleneck_channels": 6, "squeeze_excite": True}
    block = BLOCKS[name](**{field: values.get(field, 1) for field in BLOCKS[name].free_fields})
    architecture = Architecture((block,), (1, 9, 6), num_classes=3)
    costs = complexity(architecture)
    assert (costs.params, costs.flops, costs.activations) == counted(architecture)


@pytest.mark.slow
@pytest.mark.parametrize("entry", published.CIFAR, ids=[entry["name"] for entry in published.CIFAR])
def test_the_cifar_networks_as_built(entry):
    architecture = published.architecture_of(entry)
    costs = cost(architecture)
    assert (costs.params, costs.flops, costs.activations) == counted(architecture)
    assert costs.flops == entry["flops_conv_linear"]


@given(architectures())
def test_the_whole_is_the_sum_of_its_parts(architecture):
    """Each block as a network of its own, less its classifier, and the classifier of the whole."""
    classes = architecture.num_classes

    def head(width: int) -> tuple[int, int, int]:
        return width * classes + classes, width * classes, classes

    parts = []
    for block, in_channels, resolution in architecture.inputs():
        alone = complexity(Architecture((block,), (in_channels, *resolution), classes))
        own = (alone.params, alone.flops, alone.activations)
        parts.append([a - b for a, b in zip(own, head(block.out_channels), strict=True)])
        assert min(parts[-1]) > 0
    totals = [sum(column) for column in zip(*parts, head(architecture.blocks[-1].out_channels), strict=True)]
    whole = complexity(architecture)
    assert [whole.params, whole.flops, whole.activations] == totals
    assert whole.layers == architecture.layers


@given(architectures(), st.integers(2, 3))
def test_a_larger_image_costs_more_flops_and_no_parameters(architecture, factor):
    channels, height, width = architecture.input_size
    larger = replace(architecture, input_size=(channels, height * factor + 2, width * factor))
    before, after = complexity(architecture), complexity(larger)
    assert after.params == before.params
    assert after.flops >= before.flops


def test_cost_takes_the_architectures_own_size_only():
    architecture = Architecture((SuperConv(8),), (3, 8, 8))
    assert cost(architecture, input_size=(3, 8, 8)) == cost(architecture) == complexity(architecture)
    assert cost(architecture, input_size=[3, 8, 8]) == cost(architecture)
    with pytest.raises(ArchitectureError, match=r"has input_size \(3, 8, 8\), got \(3, 16, 16\)"):
        cost(architecture, input_size=(3, 16, 16))


def test_costs_are_plain_numbers():
    costs = complexity(Architecture((SuperConv(8),), (3, 4, 4)))
    own = {"params": 322, "flops": 3536, "layers": 1, "activations": 138}
    assert costs.to_dict() == {**own, **{name: costs[name] for name in ("peak_memory", "weights")}}
    assert all(type(value) is int for value in costs.to_dict().values())


# What is too large to build


ABSURD = {
    "wide": Architecture((SuperConv(10**9),), (3, 8, 8)),
    "wide and deep": Architecture((SuperConv(10_000, sub_layers=4),), (3, 8, 8)),  # 2.7e9 weights, in no single layer
    "classes": Architecture((SuperConv(8),), (3, 8, 8), num_classes=10**9),
    "channels": Architecture((SuperConv(8),), (10**9, 8, 8)),
    "image": Architecture((SuperConv(8),), (3, 10**5, 10**5)),
    "activations over many layers": Architecture((SuperConv(256, sub_layers=5),), (3, 1_000, 1_000)),
}


@pytest.mark.parametrize("architecture", ABSURD.values(), ids=ABSURD)
def test_absurd_sizes_are_refused_before_memory_is_touched(architecture, monkeypatch):
    def allocate(*_, **__):
        raise AssertionError("a layer was made")

    for name in ("Conv2d", "Linear"):
        monkeypatch.setattr(f"zeroshot_nas.network.module.{name}", allocate)
    with pytest.raises(ArchitectureError, match=r"are not built.*Use fewer channels or a smaller input"):
        check_buildable(architecture)
    with pytest.raises(ArchitectureError, match="are not built"):
        build(architecture)


def test_the_limits_are_inclusive():
    """A linear layer of exactly `MAX_PARAMS` less the convolution's passes; one class more does not."""
    one = Architecture((SuperConv(1),), (1, 1, 1))
    rest = complexity(replace(one, num_classes=1)).params - 2  # a class has a weight and a bias
    classes = (MAX_PARAMS - rest) // 2
    with pytest.raises(ArchitectureError, match="params"):
        check_buildable(replace(one, num_classes=classes + 1))
    assert complexity(replace(one, num_classes=classes)).params <= MAX_PARAMS
    activations = Architecture((SuperConv(1, sub_layers=1),), (1, 1, MAX_ACTIVATIONS - 10))
    check_buildable(activations)
    with pytest.raises(ArchitectureError, match="activations an image"):
        check_buildable(replace(activations, input_size=(1, 1, MAX_ACTIVATIONS - 9)))


def test_published_networks_are_buildable():
    for entry in published.NETWORKS:
        check_buildable(published.architecture_of(entry))
