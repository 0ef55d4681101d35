"""The space in which strides, stem and last convolution are free."""

import csv
import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import default_space
from zeroshot_nas.spaces.chain import SPLIT_AT, stride_steps
from zeroshot_nas.spaces.vanilla import KINDS, STEMS, VanillaSpace
from zeroshot_nas.testing import check_space

OPTIONS = [
    {},
    {"width_step": 8},
    {"width_step": 4, "max_width": 40, "blocks": "basic"},
    {"blocks": "bottleneck+inverted", "squeeze_excite": True},
    {"stem_strides": [2]},
    {"stem_strides": 1, "width_step": 2},
]
SPACES = [zs.get_space("vanilla", input_size=size, **each) for size in ((1, 7, 7), (3, 32, 32)) for each in OPTIONS]


def halvings(architecture):
    return sum(block.stride == 2 for block in architecture.blocks)


@given(seed=st.integers(0, 2**32), space=st.sampled_from(SPACES), mutations=st.integers(1, 5))
def test_moves_stay_in_the_space(seed, space, mutations):
    rng = python_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    child = space.crossover(a, b, rng)
    for architecture in (a, b, child, space.mutate(a, rng, mutations)):
        assert architecture in space
        assert space.from_string(space.to_string(architecture)) == architecture
        assert halvings(architecture) <= stride_steps(space.input_size) + 1
        assert architecture.blocks[0].stride in space.stem_strides
    assert set(child.blocks) <= set(a.blocks) | set(b.blocks)


@given(seed=st.integers(0, 2**32), space=st.sampled_from(SPACES))
def test_one_mutation_changes_at_most_two_blocks(seed, space):
    rng = python_rng(seed)
    before = space.sample(rng)
    after = space.mutate(before, rng)
    untouched = sum((Counter(before.blocks) & Counter(after.blocks)).values())
    assert untouched >= len(before.blocks) - 2
    assert abs(halvings(after) - halvings(before)) <= 1


@pytest.mark.parametrize("options", OPTIONS[1:])
def test_every_option_keeps_the_contract(options):
    check_space(zs.get_space("vanilla", input_size=(3, 13, 20), num_classes=7, **options), samples=6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stem_strides"), [("vanilla", (1, 2)), ("vanilla", 2), ("inverted", 1)])
def test_mutations_reach_every_freedom(name, stem_strides):
    space, rng = zs.get_space(name, stem_strides=stem_strides), python_rng(0)
    network, seen = space.initial(), Counter()
    for _ in range(6_000):
        network = space.mutate(network, rng) if len(network.blocks) < 12 else space.initial()
        stem, *rest = network.blocks
        seen.update((("stem", stem.type_name, stem.stride), ("halvings", halvings(network)), ("blocks", len(rest))))
        seen["last" if rest[-1].type_name == space.last_type else "no last"] += 1
        seen.update(("type", block.type_name) for block in rest)
        seen.update(("strides", *(block.stride for block in rest[:3])) for _ in range(1))
    assert {key[1:] for key in seen if key[0] == "stem"} == set(itertools.product(STEMS, space.stem_strides))
    assert {key[1] for key in seen if key[0] == "halvings"} == set(range(min(space.stem_strides) - 1, 5))
    assert {key[1] for key in seen if key[0] == "blocks"} >= set(range(1, 8))
    assert {key[1] for key in seen if key[0] == "type"} == {*space.body_types, space.last_type}
    assert {key[1:] for key in seen if key[0] == "strides"} >= set(itertools.product((1, 2), repeat=3))
    assert min(seen["last"], seen["no last"]) > 600


def test_kinds_of_blocks_are_drawn_equally_often():
    space, rng = zs.get_space("vanilla", input_size=(1, 8, 8)), python_rng(0)
    initial = space.initial()
    (start,) = (block.type_name for block in initial.blocks[1:])
    drawn = Counter(
        name
        for mutant in space.mutate_all([initial] * 12_000, [rng.getrandbits(64) for _ in range(12_000)], [1] * 12_000)
        for name in {block.type_name for block in mutant.blocks[1:]}
        if name not in (start, space.last_type)
    )
    counts = [sum(drawn[name] for name in names) for names in (KINDS["bottleneck"], KINDS["inverted"])]
    assert abs(counts[0] - counts[1]) < 5 * math.sqrt(sum(counts))  # binomial, 5 standard deviations
    assert min(counts) > 100
    assert set(zs.get_space("vanilla", blocks="basic+inverted").body_types) == {*KINDS["basic"], *KINDS["inverted"]}
    assert VanillaSpace("mine", ("SuperResK3K3", "TinyNASK3K3")).kinds == (("SuperResK3K3",), ("TinyNASK3K3",))


@pytest.mark.parametrize("side", [4, 8, 16, 28, 32, 64, 224])
def test_a_search_starts_small(side):
    space = zs.get_space("vanilla", input_size=(3, side, side))
    initial = space.initial()
    assert halvings(initial) == stride_steps(space.input_size)
    costs = zs.cost(initial)
    assert costs.flops < 4e6 * max(1, (side / 32) ** 2)
    assert costs.params < 150_000


def test_what_other_spaces_and_hand_have_made_is_in_it():
    rng, space = python_rng(1), zs.get_space("vanilla")
    for name in ("resnet", "mobilenet"):
        for _ in range(20):
            assert zs.get_space(name).sample(rng) in space
    for name in ("resnet8", "resnet14", "resnet20", "mobilenet_3stage"):
        assert zs.reference(name, zs.Budget(flops=4e6), strides="222") in space
    plan = Path(__file__).parents[2] / "benchmarks" / "vcn_plan.csv"
    with plan.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert space.to_string(space.from_string(row["architecture"])) == row["architecture"]


@pytest.mark.parametrize("stem_strides", [(1,), (2,), (1, 2)])
def test_size_equals_a_count_by_enumeration(stem_strides):
    options = {"width_step": 8, "max_width": 16, "blocks": "basic", "stem_strides": stem_strides}
    space = zs.get_space("vanilla", input_size=(1, 8, 8), **options)
    blocks, count = Counter(), 0
    limit = 4
    for layers in range(2, limit + 1):
        for has_last, body in itertools.product((0, 1), range(1, limit)):
            for depths in itertools.product(range(1, SPLIT_AT), repeat=body):
                if 1 + has_last + sum(depths) != layers:
                    continue
                for strides in itertools.product((1, 2), repeat=body + 1):
                    if strides.count(2) <= 2 and strides[0] in stem_strides:
                        count += 3 * 2 * (3 * 2 * 2) ** body * (2 if has_last else 1)
                        blocks[body] += 1
    assert len(blocks) == 3
    assert space.size(limit) == count
    assert space.size() == math.inf
    assert space.size(1) == space.size(0) == 0


def test_membership_notices_every_field():
    space = zs.get_space("vanilla", input_size=(3, 16, 16), width_step=2, max_width=64)
    inside = space.from_string("SuperConvK5BNRELU(3,8,2,1)SuperResK3K3(8,16,2,8,2)SuperConvK1BNRELU(16,24,1,1)")
    stem, body, last = inside.blocks
    outside = [
        (replace(inside, num_classes=11), "11 classes"),
        (replace(inside, blocks=(stem,)), "no body"),
        (replace(inside, blocks=(last,)), "stem"),
        (replace(inside, blocks=(stem, last)), "no body"),
        (replace(inside, blocks=(body, last)), "stem"),
        (replace(inside, blocks=(stem, last, body)), "block 1"),
        (replace(inside, blocks=(stem, body, last, last)), "block 2"),
        (replace(inside, blocks=(stem, body, replace(last, stride=2))), "last block"),
        (replace(inside, blocks=(stem, body, replace(last, sub_layers=2))), "last block"),
        (replace(inside, blocks=(replace(stem, sub_layers=2), body)), "stem"),
        (replace(inside, blocks=(stem, body, body)), ""),
        (replace(inside, blocks=(stem, body, body, body)), "at most 3 times 2"),
        *(
            (replace(inside, blocks=(stem, replace(body, **change), last)), text)
            for change, text in (
                ({"stride": 3}, "strides"),
                ({"out_channels": 15}, "steps of 2"),
                ({"out_channels": 66}, "up to 64"),
                ({"bottleneck_channels": 9}, "block 1"),
                ({"sub_layers": SPLIT_AT}, "block 1"),
                ({"squeeze_excite": True}, "block 1"),
            )
        ),
    ]
    assert inside in space
    for architecture, text in outside:
        assert (architecture in space) == (text == ""), architecture
        if text:
            with pytest.raises(ArchitectureError, match=text):
                space.to_string(architecture)
    assert "SuperConvK3BNRELU(3,8,1,1)" not in space


def test_crossover_without_a_common_place_gives_the_first():
    space = zs.get_space("vanilla", input_size=(3, 16, 16))
    a = space.from_string("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,16,1,8,2)")
    b = space.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,1,8,2)")
    assert space.crossover(a, b, python_rng(0)) == a


def test_bad_options_are_refused():
    for blocks in ("both", "basic+", "", 3):
        with pytest.raises(ArchitectureError, match="blocks must be all, or some of basic, bottleneck, inverted"):
            zs.get_space("vanilla", blocks=blocks)
    with pytest.raises(ArchitectureError, match="max_width must be a whole number of 8 or more, got 7"):
        VanillaSpace("mine", ("SuperResK3K3",), max_width=7)


@pytest.mark.parametrize("stem_strides", [0, 3, (), (1, 1), "1", None, True, (1, 2, 2)])
def test_strides_that_no_stem_has_are_refused(stem_strides):
    with pytest.raises(ArchitectureError, match="stem_strides must be 1, 2 or both"):
        zs.get_space("vanilla", stem_strides=stem_strides)


def test_a_stem_of_one_stride_keeps_it():
    space = zs.get_space("vanilla", stem_strides=1)
    with pytest.raises(ArchitectureError, match="its stem has stride 2; expected 1"):
        space.from_string("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,16,2,8,1)")


@pytest.mark.parametrize(("side", "strides"), [(8, (1,)), (32, (1,)), (63, (1,)), (64, (1, 2)), (224, (1, 2))])
def test_small_images_keep_their_resolution_in_the_stem(side, strides):
    space = zs.get_space("inverted", input_size=(3, side, side))
    assert space.stem_strides == strides
    assert set(space.body_types) == {name for name in KINDS["inverted"] if not name.endswith("K3")}
    assert space.initial() in zs.get_space("vanilla", input_size=(3, side, side))
    assert zs.get_space("inverted", input_size=(3, side, side), stem_strides=(1, 2)).stem_strides == (1, 2)


@pytest.mark.parametrize("kernels", [(3,), 5, [7, 3], (3, 5, 7)])
def test_kernels_are_those_that_are_asked_for(kernels):
    space = zs.get_space("inverted", kernels=kernels)
    wanted = {kernels} if isinstance(kernels, int) else {*kernels}
    assert {int(name[-1]) for name in space.body_types} == wanted
    assert len(space.body_types) == 4 * len(wanted)
    check_space(space, samples=4)


@pytest.mark.parametrize("kernels", [(), 4, (3, 9), "5", None])
def test_kernels_that_no_block_has_are_refused(kernels):
    with pytest.raises(ArchitectureError, match="kernels must be some of 3, 5 and 7"):
        zs.get_space("inverted", kernels=kernels)


@pytest.mark.parametrize(("side", "name"), [(8, "inverted"), (32, "inverted"), (63, "inverted"), (64, "vanilla")])
def test_where_a_search_looks_depends_on_the_images(side, name):
    assert default_space((3, side, 2 * side)) == name
    size = {"input_size": (1, side, 70)}
    result = zs.search(None, "params", zs.Budget(params=3e3), proposals=20, progress=False, **size)
    assert result.best.architecture in zs.get_space(name, **size)
    with pytest.raises(ArchitectureError, match=r"expected input_size \(C, H, W\)"):
        default_space((3, side))


def test_a_search_keeps_a_small_budget():
    budget = zs.Budget(params=100e3, flops=4e6, layers=20)
    result = zs.search("vanilla", "cet", budget, proposals=300, progress=False)
    assert not budget.violations(zs.cost(result.best.architecture))
    assert zs.cost(result.best.architecture).flops > 2.5e6
