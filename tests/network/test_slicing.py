"""A smaller network's weights as slices of a larger one's."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.network.test_inheritance import _trained
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.network.inheritance import inherit
from zeroshot_nas.network.module import Residual, build
from zeroshot_nas.network.slicing import shrink, slices
from zeroshot_nas.spaces.base import get_space, list_spaces

SIZE = (2, 8, 8)

KINDS = [
    *("SuperResK{k}K{k}", "SuperResK1K{k}K1", "SuperResIDWE{e}K{k}", "SuperConvK{k}BNRELU"),
    *("TinyNASK{k}K{k}", "TinyNASK1K{k}K1", "TinyNASK1DW{k}K1"),
]


@st.composite
def nested(draw):
    """A large architecture, a middle and a small one, each in the one before."""

    def falling(low, high):
        return sorted((draw(st.integers(low, high)) for _ in range(3)), reverse=True)

    kinds = ["SuperConvK{k}BNRELU", *draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))]
    chains = [[], [], []]
    for kind in kinds:
        kernels, expansions = ([draw(st.sampled_from(choices)) for _ in range(3)] for choices in ((3, 5, 7), (1, 2, 6)))
        kernels, expansions = sorted(kernels, reverse=True), sorted(expansions, reverse=True)
        widths, inner, depths = falling(1, 12), falling(1, 12), falling(1, 3)
        stride, squeeze = draw(st.integers(1, 2)), draw(st.booleans())
        for at, chain in enumerate(chains):
            values = {"out_channels": widths[at], "stride": stride, "sub_layers": depths[at]}
            if "Res" in kind or "TinyNAS" in kind:
                values["bottleneck_channels"] = inner[at]
            if "Res" in kind or "DW" in kind:
                values["squeeze_excite"] = squeeze
            chain.append(BLOCKS[kind.format(k=kernels[at], e=expansions[at])](**values))
    return [Architecture(tuple(chain), SIZE, 3) for chain in chains]


def _refused(architectures, error):
    """Whether a pair is one that can't be: TinyNAS's blocks lose their link where widths differ."""
    return "TinyNAS" in str(architectures) and any(word in str(error) for word in ("same kinds", "identity"))


def _sliced(large, small, weights=None):
    return slices(large, small, weights).of(build(large).state_dict() if weights is None else weights)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(architectures=nested())
def test_a_slice_of_a_slice_is_a_slice(architectures):
    large, middle, small = architectures
    parent = _trained(large)
    try:
        direct = shrink(parent, small, order="first")
        between = shrink(parent, middle, order="first")
        twice = shrink(between, small, order="first")
    except ArchitectureError as error:
        assert _refused(architectures, error)  # noqa: PT017
        return
    skipped = slices(large, small).fixed.keys() | slices(large, middle).fixed.keys()
    skipped |= slices(middle, small).fixed.keys()  # projections that are not the larger one's
    reached = direct.state_dict()
    assert set(reached) == set(twice.state_dict())
    for name, value in twice.state_dict().items():
        norm = name.rpartition(".")[0] + ".weight"
        if not {name, norm} & skipped:
            assert torch.equal(value, reached[name]), name


@pytest.mark.slow
@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(architectures=nested(), seed=st.integers(0, 3))
def test_what_matters_not_is_what_goes(architectures, seed):
    """A larger network, all zero but for a smaller one in its most important channels, is cut to the smaller one."""
    large, _, small = architectures
    generator = torch.Generator().manual_seed(seed)
    depths = [  # a further sub-layer of zeros is the identity where it has links and ReLUs
        of.sub_layers if of.type_name.startswith("SuperResK") else own.sub_layers
        for of, own in zip(large.blocks, small.blocks, strict=True)
    ]
    blocks = [replace(block, sub_layers=depth) for block, depth in zip(large.blocks, depths, strict=True)]
    large = replace(large, blocks=tuple(blocks))
    parent, child = build(large).eval(), _trained(small, seed)
    for part in parent.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
    try:
        found = slices(large, small, parent.state_dict())
    except ArchitectureError as error:
        assert _refused(architectures, error)  # noqa: PT017
        return
    if found.fixed:  # a link of all channels, of which fewer are kept on one side of it: see the test of its own
        return
    places = found.of({name: torch.arange(v.numel()).view_as(v) for name, v in parent.state_dict().items()})
    state = {name: torch.zeros_like(value) for name, value in parent.state_dict().items()}
    for name in found.parts:
        state[name].view(-1)[places[name].flatten()] = child.state_dict()[name].flatten()
    parent.load_state_dict(state)
    cut = shrink(parent, small)
    own = {name: value for name, value in child.state_dict().items() if name in found.parts}
    assert all(torch.equal(cut.state_dict()[name], value) for name, value in own.items())
    own_links = {name: len(part.shortcut) for name, part in cut.named_modules() if isinstance(part, Residual)}
    links = {name: len(parent.get_submodule(name).shortcut) for name in own_links}
    if own_links == links:  # else one has a projection where the other passes all its channels on
        images = torch.rand(4, *SIZE, generator=generator)
        torch.testing.assert_close(parent(images), cut(images), atol=1e-4, rtol=1e-4)
    assert not cut.training


def _shrunk(block, rng, step):
    """A block no larger in anything."""

    def fewer(width):
        return step * rng.randint(1, width // step)

    values = {"out_channels": fewer(block.out_channels), "sub_layers": rng.randint(1, block.sub_layers)}
    if hasattr(block, "bottleneck_channels"):
        values["bottleneck_channels"] = fewer(block.bottleneck_channels)
    for name in ("kernel_size", "expansion") if "Res" in block.type_name else ():
        if hasattr(block, name):
            choices = {"kernel_size": (3, 5, 7), "expansion": (1, 2, 4, 6)}[name]
            values[name] = rng.choice([each for each in choices if each <= getattr(block, name)])
    return replace(block, **values)


CHAIN_SPACES = [name for name in list_spaces() if hasattr(get_space(name), "body_types")]


@pytest.mark.parametrize("squeeze_excite", [False, True])
@pytest.mark.parametrize("name", CHAIN_SPACES)
def test_every_smaller_network_of_a_chain_space_can_be_cut(name, squeeze_excite):
    space = get_space(name, input_size=(3, 16, 16), squeeze_excite=squeeze_excite, max_width=64)
    for seed in range(3):
        rng = random.Random(seed)
        large = space.sample(rng)
        small = replace(large, blocks=tuple(_shrunk(block, rng, space.width_step) for block in large.blocks))
        assert small in space
        child = shrink(build(large), small)
        assert child.architecture == small
        assert child(torch.zeros(1, 3, 16, 16)).isfinite().all()


@pytest.mark.parametrize("name", list_spaces())
def test_a_network_cut_to_itself_is_itself(name):
    architecture = get_space(name).initial()
    parent = build(architecture)
    if any("Graph" in repr(block) for block in architecture.lower()):
        with pytest.raises(ArchitectureError, match="Graph can't be sliced"):
            shrink(parent, architecture)
        return
    state = torch.get_rng_state()
    for order in ("importance", "first"):
        child = shrink(parent, architecture, order=order)
        assert all(torch.equal(value, child.state_dict()[key]) for key, value in parent.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_cutting_undoes_growth():
    small = Architecture.from_string("SuperConvK3BNRELU(2,6,1,1)SuperResK3K3(6,8,2,4,1)SuperResK1K3K1(8,8,1,4,2)", SIZE)
    large = Architecture.from_string("SuperConvK5BNRELU(2,6,1,1)SuperResK7K7(6,8,2,4,3)SuperResK1K5K1(8,8,1,4,3)", SIZE)
    parent = _trained(small)
    back = shrink(inherit(parent, large), small)
    for name, value in parent.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value)


def test_a_link_that_becomes_a_projection_picks_the_channels_that_stay():
    """Of two inverted residuals the second loses its identity link where the smaller one's widths are not equal."""
    large = Architecture.from_string("SuperConvK3BNRELU(2,8,1,1)SuperResIDWE1K3(8,8,1,8,1)", SIZE, 3)
    small = Architecture.from_string("SuperConvK3BNRELU(2,8,1,1)SuperResIDWE1K3(8,6,1,3,1)", SIZE, 3)
    parent = _trained(large)
    child = shrink(parent, small)
    scales = sum(parent.blocks[1][unit].body[7].weight for unit in (0, 2)) + parent.blocks[1][0].shortcut[1].weight
    came, went = (scales.topk(count).indices.sort().values for count in (3, 6))
    marked = torch.arange(8.0).view(1, 8, 1, 1)
    passed = child.blocks[1][2].shortcut(marked[:, came]).flatten()
    wanted = [float(channel) if channel in came else 0.0 for channel in went]
    torch.testing.assert_close(passed, torch.tensor(wanted))
    assert torch.equal(slices(large, small).fixed["blocks.1.2.shortcut.0.weight"].flatten(1), torch.eye(6, 3))


def test_a_cut_network_trains_the_larger_one():
    large = Architecture.from_string("SuperConvK5BNRELU(2,8,1,1)SuperResK5K5(8,12,2,8,3)", SIZE, 3)
    small = Architecture.from_string("SuperConvK3BNRELU(2,4,1,1)SuperResK3K3(4,6,2,4,2)", SIZE, 3)
    parent, child = build(large), build(small)
    tensors = slices(large, small).of(dict(parent.named_parameters()))
    images = torch.rand(8, *SIZE, generator=torch.Generator().manual_seed(0))
    torch.func.functional_call(child, tensors, (images,)).square().sum().backward()
    gradient = parent.blocks[0][0].weight.grad
    assert gradient[:4, :, 1:4, 1:4].abs().amin(dim=(1, 2, 3)).min() > 0
    gradient[:4, :, 1:4, 1:4] = 0
    assert not gradient.any()
    assert parent.blocks[1][2][1][0].body[0].weight.grad is None  # the third sub-layer is not there
    assert all(value.grad is None for value in child.parameters())


@pytest.mark.parametrize(
    ("small", "message"),
    [
        ("SuperConvK3BNRELU(2,10,1,1)SuperResK3K3(10,8,2,8,2)", "block 0: expected 8 channels or fewer, got 10"),
        ("SuperConvK3BNRELU(2,8,1,1)SuperResK3K3(8,8,2,12,2)", "block 1: expected 8 channels or fewer, got 12"),
        ("SuperConvK5BNRELU(2,8,1,1)SuperResK3K3(8,8,2,8,2)", "block 0: expected a kernel cut from one of 3, got 5"),
        ("SuperConvK3BNRELU(2,8,2,1)SuperResK3K3(8,8,2,8,2)", "block 0: .* same stride"),
        ("SuperConvK3BNRELU(2,8,1,1)SuperResK3K3(8,8,2,8,3)", "block 1: expected 2 sub-layers or fewer, got 3"),
        ("SuperConvK3BNRELU(2,8,1,2)SuperResK3K3(8,8,2,8,2)", "block 0: expected 1 sub-layers or fewer, got 2"),
        ("SuperConvK3BNRELU(2,8,1,1)SuperResK1K3K1(8,8,2,8,2)", "block 1: expected operations of the same kinds"),
        ("SuperConvK3BNRELU(2,8,1,1)", "expected 2 blocks as in the network, got 1"),
    ],
)
def test_what_is_not_smaller_is_refused(small, message):
    large = Architecture.from_string("SuperConvK3BNRELU(2,8,1,1)SuperResK3K3(8,8,2,8,2)", SIZE, 3)
    with pytest.raises(ArchitectureError, match=message):
        shrink(build(large), Architecture.from_string(small, SIZE, 3))


def test_other_images_no_classifier_and_other_orders_are_refused():
    net = Architecture.from_string("SuperConvK3BNRELU(2,8,1,1)", SIZE, 3)
    with pytest.raises(ArchitectureError, match=r"3 classes, got .* 4"):
        shrink(build(net), replace(net, num_classes=4))
    with pytest.raises(ValueError, match="'importance' or 'first', got 'last'"):
        shrink(build(net), net, order="last")
    headless = build(net)
    headless.reset_classifier(0)
    with pytest.raises(ArchitectureError, match="no classifier"):
        shrink(headless, net)
