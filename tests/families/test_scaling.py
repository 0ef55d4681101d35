"""Compound scaling: FLOPs are what phi says, nothing else than depth, width and resolution changes."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.errors import ArchitectureError, ProxyError, UnknownNameError, WeightBitsWarning
from zeroshot_nas.families import scaling
from zeroshot_nas.families.scaling import PRESETS, Factors, read_factors
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY

GROWN = ("sub_layers", "cells")


def network(space, seed=0, side=32):
    return zs.get_space(space, input_size=(3, side, side), num_classes=5).sample(random.Random(seed))


def unscaled(block):
    """What scaling leaves alone."""
    kept = {name: getattr(block, name) for name in block.field_kinds}
    return block.type_name, {
        name: value for name, value in kept.items() if not name.endswith("_channels") and name not in GROWN
    }


@pytest.mark.slow
@pytest.mark.parametrize("space", zs.list_spaces())
@settings(max_examples=12)
@given(seed=st.integers(0, 99), phi=st.floats(-1, 3), preset=st.sampled_from(sorted(PRESETS)))
def test_flops_are_those_of_phi_and_only_depth_width_and_resolution_change(space, seed, phi, preset):
    before = network(space, seed)
    try:
        scaled = zs.scale(before, phi, preset)
    except ArchitectureError as error:
        # a narrow network has few widths near what is asked for, a shallow one few depths below its own
        assert str(error).startswith("phi=") or phi < 0  # noqa: PT017
        return
    after, factors = scaled.architecture, PRESETS[preset]
    assert scaled.costs == zs.cost(after)
    assert scaled.costs.flops == pytest.approx(2**phi * zs.cost(before).flops, rel=scaling.TOLERANCE)
    assert list(map(unscaled, after.blocks)) == list(map(unscaled, before.blocks))
    assert after.input_size == (3, *[round(32 * factors.resolution**phi)] * 2)
    assert after.num_classes == before.num_classes
    grown = [
        (getattr(new, field), getattr(old, field))
        for new, old in zip(after.blocks, before.blocks, strict=True)
        for field in GROWN
        if field == old.depth_field
    ]
    ends = {place for place in (0, -1) if before.blocks[place].type_name.startswith("SuperConv")}
    if not ends:
        total = sum(old for _, old in grown)
        assert sum(new for new, _ in grown) == pytest.approx(total * factors.depth**phi, abs=0.51)
    if phi == 0 or preset in ("width", "resolution"):
        assert all(new == old for new, old in grown)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_resnet20_is_scaled_as_is_published(preset):
    resnet = zs.reference("resnet20")
    for phi in (1, 2, 3):
        scaled, factors = zs.scale(resnet, phi, preset), PRESETS[preset]
        layers = [block.sub_layers for block in scaled.architecture.blocks]
        assert layers[0] == 1, "the stem"
        assert sum(layers[1:]) == round(9 * factors.depth**phi)
        assert max(layers[1:]) - min(layers[1:]) <= 1
        widths = [block.out_channels for block in scaled.architecture.blocks]
        for new, old in zip(widths, (16, 16, 32, 64), strict=True):
            assert new == pytest.approx(old * factors.width**phi, rel=0.12)  # fitted to what rounding leaves


@pytest.mark.slow
@given(seed=st.integers(0, 99), phi=st.floats(0, 3), preset=st.sampled_from(sorted(PRESETS)))
def test_no_doubling_changes_nothing_and_more_never_shrinks(seed, phi, preset):
    before = network("resnet", seed)
    assert zs.scale(before, 0, preset).architecture == before
    try:
        after = zs.scale(before, phi, preset).architecture
    except ArchitectureError:
        return
    assert after.layers >= before.layers
    assert after.input_size >= before.input_size


def test_widths_keep_to_their_step():
    scaled = zs.scale(zs.reference("resnet20"), 3, "width", width_step=8)
    assert all(block.out_channels % 8 == 0 for block in scaled.architecture.blocks)


@given(depth=st.integers(0, 10), width=st.integers(0, 10))
def test_shares_of_a_doubling_double(depth, width):
    total = depth + width + 1
    factors = Factors.of_shares(depth / total, width / total, 1 / total)
    assert factors.depth * factors.width**2 * factors.resolution**2 == pytest.approx(2)
    assert read_factors(factors) == factors
    assert read_factors(",".join(map(str, factors))) == factors


@pytest.mark.slow
def test_found_factors_are_the_best_of_the_grid():
    resnet = zs.reference("resnet8")
    found = zs.find_factors(resnet, DEFAULT_SEARCH_PROXY)
    best = zs.score(zs.scale(resnet, 1, found).architecture, DEFAULT_SEARCH_PROXY).value
    for factors in scaling._grid():
        try:
            other = zs.scale(resnet, 1, factors)
        except ArchitectureError:
            continue
        assert zs.score(other.architecture, DEFAULT_SEARCH_PROXY).value <= best
    assert zs.scale(resnet, 1, proxy=DEFAULT_SEARCH_PROXY) == zs.scale(resnet, 1, found)
    assert zs.scale(resnet, 1) == zs.scale(resnet, 1, found), "it is what searches rank by"
    # by params no share of the FLOPs goes into resolution, by FLOPs all points are alike
    assert zs.find_factors(resnet, "params").resolution == 1


def test_what_has_an_architecture_is_scaled_as_that_is():
    found = zs.search("resnet", "params", zs.Budget(params=20e3), input_size=(1, 8, 8), proposals=50, progress=False)
    assert zs.scale(found.best, 1, "width") == zs.scale(found.best.architecture, 1, "width")
    built = zs.build(found.best.architecture)
    assert zs.scale(built, 1, "width") == zs.scale(found.best.architecture, 1, "width")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"phi": "1"}, ArchitectureError, "phi must be a number from -10 to 10, got '1'"),
        ({"phi": 11}, ArchitectureError, "got 11"),
        ({"phi": float("nan")}, ArchitectureError, "got nan"),
        ({"phi": True}, ArchitectureError, "got True"),
        ({"factors": "effnet"}, ValueError, "factors must be found, efficientnet, .* got 'effnet'"),
        ({"factors": "1.2,1.1"}, ValueError, "three numbers"),
        ({"factors": (1, 2, 3, 4)}, ValueError, "three numbers"),
        ({"factors": (2, 2, 1)}, ValueError, r"must about double the FLOPs, .* got 8"),
        ({"factors": (-2, 1, 1)}, ValueError, "must about double"),
        ({"width_step": 0}, ValueError, "width_step must be a whole number of 1 or more, got 0"),
        ({"factors": "depth", "phi": -3}, ArchitectureError, "3 blocks need a layer each, and the depth times 0.125"),
        ({"factors": "width", "width_step": 64}, ArchitectureError, "in steps of 64 the nearest .* or width_step=1"),
        ({"factors": "width", "phi": -10}, ArchitectureError, "phi=-10 asks for .* FLOPs; .* the nearest network has"),
        ({"proxy": "zenn"}, UnknownNameError, "Did you mean 'zen'"),
        ({"proxy": "synflow"}, ProxyError, "synflow has no closed form"),
    ],
)
def test_what_cannot_be_scaled_is_said(arguments, error, message):
    with pytest.raises(error, match=message):
        zs.scale(**{"network": zs.reference("resnet8"), "phi": 1, **arguments})


def test_a_foreign_module_is_refused():
    from torch import nn

    with pytest.raises(ArchitectureError, match=r"only architectures can be scaled.*got Linear"):
        zs.scale(nn.Linear(2, 2), 1)


@pytest.mark.slow
def test_a_new_block_says_itself_what_makes_it_deeper():
    darts = zs.get_space("nasbench301", input_size=(3, 32, 32)).initial()
    cells = darts.blocks[-1].cells
    scaled = zs.scale(darts, 1, Factors.of_shares(1, 0, 0)).architecture
    assert (scaled.blocks[-1].cells, scaled.blocks[-1].sub_layers) == (2 * cells, 1)
    assert dataclasses.replace(scaled.blocks[-1], cells=cells, out_channels=1).stride == darts.blocks[-1].stride


def test_narrow_networks_reach_their_flops_by_single_widths():
    """All widths times a number leave this one 3.05 % off."""
    blocks = (
        "SuperConvK3BNRELU(3,18,2,1)SuperResIDWE1K3(18,36,2,29,1)SuperResK3K3(36,28,2,21,1)"
        "SuperResIDWE2K3(28,45,2,58,1)SuperConvK1BNRELU(45,45,1,1)"
    )
    architecture = zs.Architecture.from_string(blocks, (3, 32, 32))
    scaled = zs.scale(architecture, 1, "efficientnet")
    assert abs(scaled.costs.flops / (2 * zs.cost(architecture).flops) - 1) <= scaling.TOLERANCE


def test_bits_of_other_layers_are_not_taken_over_without_a_word():
    network = zs.reference("resnet8")
    few = zs.allocate_bits(network, "50kB")
    with pytest.warns(WeightBitsWarning, match="allocate_bits"):
        twice = zs.scale(few, 1, "width")
    assert twice.architecture == zs.scale(network, 1, "width").architecture
    assert zs.scale(few, 0, "width").architecture == few
    assert zs.scale(zs.allocate_bits(network, "1MB"), 1, "width").architecture == twice.architecture, "all of 8 bits"
