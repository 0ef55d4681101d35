"""Net2Wider and Net2Deeper: the larger network computes what the smaller one does."""

import copy
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.network.inheritance import inherit
from zeroshot_nas.network.module import build

SIZE = (2, 8, 8)


def _trained(architecture, seed=0):
    """A network in eval mode whose batch norms have seen data and have scales and shifts of their own."""
    network = build(architecture, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        network.train()(torch.rand(16, *architecture.input_size, generator=generator))
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return network.eval()


def _assert_same_function(small, large, seed=0):
    images = torch.rand(8, *small.input_size, generator=torch.Generator().manual_seed(1))
    parent = _trained(small, seed)
    before = {name: value.clone() for name, value in parent.state_dict().items()}
    child = inherit(parent, large, seed=seed)
    assert child.architecture == large
    assert not child.training
    # in double precision: weights are inherited, and not how a processor rounds their sums
    exact = [copy.deepcopy(network).double()(images.double()) for network in (child, parent)]
    torch.testing.assert_close(*exact, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in parent.state_dict().items())
    return parent, child


BODIES = [f"SuperResK{k}K{k}" for k in (3, 5)] + ["SuperResK1K3K1", "SuperResK1K5K1"]
WIDTHS = st.integers(1, 12)


@st.composite
def growths(draw):
    """An architecture of a chain space, and a larger one."""
    squeeze = draw(st.booleans())
    blocks, grown = [], []
    kinds = draw(st.lists(st.sampled_from([*BODIES, "SuperConvK3BNRELU", "SuperResIDWE2K3"]), min_size=1, max_size=3))
    for kind in ["SuperConvK3BNRELU", *kinds, "SuperConvK1BNRELU"]:
        small = {"out_channels": draw(WIDTHS), "stride": draw(st.integers(1, 2)), "sub_layers": draw(st.integers(1, 2))}
        if "Res" in kind:
            small |= {"bottleneck_channels": draw(WIDTHS), "squeeze_excite": squeeze}
        large = dict(small)
        for name in ("out_channels", "bottleneck_channels"):
            if name in large:
                large[name] += draw(st.integers(0, 5))
        deeper = "IDW" not in kind  # its two units meet at the bottleneck, which may be narrower
        large["sub_layers"] += draw(st.integers(0, 2)) if deeper else 0
        larger_kernel = kind.replace("K3", "K5") if draw(st.booleans()) and "Res" in kind and deeper else kind
        blocks.append(BLOCKS[kind](**small))
        grown.append(BLOCKS[larger_kernel](**large))
    return Architecture(tuple(blocks), SIZE, 3), Architecture(tuple(grown), SIZE, 3)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(pair=growths(), seed=st.integers(0, 3))
def test_a_grown_network_computes_the_same(pair, seed):
    try:
        _assert_same_function(*pair, seed)
    except ArchitectureError as error:  # of two inverted residuals one may lose its identity link
        assert "IDW" in str(pair) and "projection in the network" in str(error)  # noqa: PT017, PT018


@pytest.mark.slow
def test_moves_of_a_search_space_can_be_undone_by_inheritance():
    """A network of the space grows to one with every width times 1.5 and a sub-layer more."""
    from dataclasses import replace

    from zeroshot_nas.spaces.base import get_space

    space = get_space("resnet", input_size=(1, 16, 16))
    for seed in range(5):
        small = space.sample(random.Random(seed))
        if sum(block.out_channels for block in small.blocks) > 600:
            continue
        grown = []
        for block in small.blocks:
            values = {"out_channels": block.out_channels + 8}
            if hasattr(block, "bottleneck_channels"):
                values |= {"bottleneck_channels": block.bottleneck_channels + 8, "sub_layers": block.sub_layers + 1}
            grown.append(replace(block, **values))
        _assert_same_function(small, replace(small, blocks=tuple(grown)))


def test_the_same_architecture_gives_the_same_weights():
    net = Architecture.from_string("SuperConvK3BNRELU(2,6,1,1)SuperResK3K3(6,8,2,4,2)", SIZE, 3)
    parent, child = _assert_same_function(net, net)
    assert all(torch.allclose(value, child.state_dict()[name]) for name, value in parent.state_dict().items())


def test_mobilenet_v2_grows():
    def net(expansion, kernel_size, width, depth):
        stem = BLOCKS["SuperConvK3BNRELU"](out_channels=width)
        name = f"MobileNetV2E{expansion}K{kernel_size}"
        return Architecture((stem, BLOCKS[name](out_channels=width, sub_layers=depth)), SIZE, 3)

    _assert_same_function(net(3, 3, 8, 1), net(6, 5, 12, 3))


def test_a_grown_network_learns_at_once_and_its_repeats_part():
    small = Architecture.from_string("SuperConvK3BNRELU(2,4,1,1)SuperResK3K3(4,6,2,4,1)", SIZE, 3)
    large = Architecture.from_string("SuperConvK3BNRELU(2,8,1,1)SuperResK3K3(8,12,2,8,2)", SIZE, 3)
    child = inherit(_trained(small), large).train()
    child(torch.rand(8, *SIZE)).square().sum().backward()
    gradient = child.blocks[0][0].weight.grad
    assert gradient.abs().amin(dim=(1, 2, 3)).shape == (8,)
    assert len({tuple(each.flatten().tolist()) for each in gradient}) == 8


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        ("SuperConvK3BNRELU(2,8,1,1)", "SuperConvK3BNRELU(2,6,1,1)", r"block 0: Conv.*not a larger"),
        ("SuperConvK3BNRELU(2,8,1,1)", "SuperConvK3BNRELU(2,8,2,1)", "same stride"),
        ("SuperConvK3BNRELU(2,8,1,3)", "SuperConvK3BNRELU(2,8,1,2)", "3 sub-layers or more, got 2"),
        ("SuperConvK5BNRELU(2,8,1,1)", "SuperConvK3BNRELU(2,8,1,1)", "not a larger"),
        ("SuperConvK3BNRELU(2,8,1,1)", "SuperResK3K3(2,8,1,8,1)", "same kinds"),
        ("SuperConvK3BNRELU(2,8,1,1)", "SuperConvK3BNRELU(2,8,1,1)SuperConvK3BNRELU(8,8,1,1)", "expected 1 blocks"),
    ],
)
def test_what_is_not_larger_is_refused(small, large, message):
    small, large = (Architecture.from_string(text, SIZE, 3) for text in (small, large))
    with pytest.raises(ArchitectureError, match=message):
        inherit(build(small), large)


def test_other_images_are_refused():
    small = Architecture.from_string("SuperConvK3BNRELU(2,8,1,1)", SIZE, 3)
    with pytest.raises(ArchitectureError, match="3 classes, got"):
        inherit(build(small), Architecture.from_string("SuperConvK3BNRELU(2,8,1,1)", SIZE, 4))
