"""The spaces of Zen-NAS's chains."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.published import NETWORKS, architecture_of
from zeroshot_nas import Architecture, get_space
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError, UnknownNameError
from zeroshot_nas.spaces.chain import SPLIT_AT, ChainSpace, stride_steps

SPACES = [get_space(name, input_size=(1, 16, 16)) for name in ("resnet", "mobilenet")]


@given(seed=st.integers(0, 2**32), space=st.sampled_from(SPACES), mutations=st.integers(1, 5))
def test_moves_stay_in_the_space(seed, space, mutations):
    rng = python_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    assert a in space
    assert space.mutate(a, rng, mutations) in space
    child = space.crossover(a, b, rng)
    assert child in space
    assert set(child.blocks) <= set(a.blocks) | set(b.blocks)


@given(seed=st.integers(0, 2**32), space=st.sampled_from(SPACES))
def test_one_mutation_changes_at_most_one_block(seed, space):
    rng = python_rng(seed)
    before = space.sample(rng)
    after = space.mutate(before, rng)
    untouched = sum((Counter(before.blocks) & Counter(after.blocks)).values())
    assert untouched >= len(before.blocks) - 1
    assert [block.stride for block in after.blocks if block.stride == 2] == [2] * stride_steps(space.input_size)


@pytest.mark.parametrize(
    ("input_size", "steps"),
    [((3, 32, 32), 3), ((3, 224, 224), 5), ((1, 8, 8), 1), ((1, 7, 7), 0), ((1, 28, 28), 2), ((3, 64, 200), 4)],
)
def test_strides_follow_the_resolution(input_size, steps):
    initial = get_space("resnet", input_size=input_size).initial()
    assert math.prod(block.stride for block in initial.blocks) == 2**steps
    assert min(initial.feature_shape[1:]) == -(-min(input_size[1:]) // 2**steps)


def test_published_networks_within_the_width_bound_are_in_the_space():
    for entry in NETWORKS:
        architecture = architecture_of(entry)
        space = get_space(
            "mobilenet" if "IDW" in entry["plainnet"] else "resnet",
            input_size=architecture.input_size,
            num_classes=architecture.num_classes,
            squeeze_excite=entry["squeeze_excite"],
        )
        assert (architecture in space) == ("latency" not in entry["name"]), entry["name"]


def test_block_types_are_drawn_evenly():
    space = get_space("mobilenet", input_size=(1, 8, 8))
    rng = python_rng(0)
    initial = space.initial()
    drawn = Counter(
        block.type_name
        for mutant in space.mutate_all([initial] * 6_000, [rng.getrandbits(64) for _ in range(6_000)], [1] * 6_000)
        for old, block in zip(initial.blocks[1:-1], mutant.blocks[1:-1], strict=False)
        if block != old
    )
    assert set(drawn) == set(space.body_types)
    # where the type alone changed; multinomial over the 11 others, 5 standard deviations
    drawn.pop(space.body_types[0])
    expected = sum(drawn.values()) / 11
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in drawn.values())


@pytest.mark.slow
def test_a_mutation_changes_one_thing_of_a_block():
    space = get_space("mobilenet", input_size=(1, 8, 8))
    rng = python_rng(0)
    initial = space.initial()
    changed = Counter(
        tuple(
            field
            for field in ("type_name", "out_channels", "bottleneck_channels", "sub_layers")
            if getattr(old, field) != getattr(new, field)
        )
        for child in (space.mutate(initial, rng) for _ in range(2000))
        if len(child.blocks) == len(initial.blocks)
        for old, new in zip(initial.blocks[1:-1], child.blocks[1:-1], strict=True)
        if old != new
    )
    assert set(changed) == {("type_name",), ("out_channels",), ("bottleneck_channels",), ("sub_layers",)}


def test_long_blocks_are_split_and_keep_their_layers():
    space = get_space("resnet", input_size=(1, 8, 8))
    initial = space.initial()
    long = replace(initial.blocks[2], sub_layers=SPLIT_AT - 1)
    parent = replace(initial, blocks=(*initial.blocks[:2], long, initial.blocks[3]))
    rng = python_rng(1)
    children = [space.mutate(parent, rng) for _ in range(500)]
    split = [child for child in children if len(child.blocks) == 5]
    assert split
    for child in split:
        first, second = child.blocks[2:4]
        assert (first.sub_layers, first.stride, second.stride) == (3, 2, 1)
        assert first.sub_layers + second.sub_layers in (6, 7)


@given(seed=st.integers(0, 2**32))
def test_membership_notices_every_field(seed):
    space, rng = SPACES[0], python_rng(seed)
    inside = space.sample(rng)
    body = inside.blocks[1]
    outside = [
        replace(inside, num_classes=inside.num_classes + 1),
        replace(inside, input_size=(3, 16, 16)),
        replace(inside, blocks=inside.blocks[:2]),
        replace(inside, blocks=inside.blocks[1:]),
        *(
            replace(inside, blocks=(inside.blocks[0], replace(body, **change), *inside.blocks[2:]))
            for change in (
                {"stride": 2},
                {"stride": 3},
                {"out_channels": 12},
                {"out_channels": 4096},
                {"bottleneck_channels": 9},
                {"sub_layers": SPLIT_AT},
                {"squeeze_excite": True},
            )
        ),
    ]
    assert not [architecture for architecture in outside if architecture in space]
    assert "SuperConvK3BNRELU(1,8,1,1)" not in space


def test_size_equals_a_count_by_enumeration():
    space = ChainSpace("tiny", ("SuperResK3K3", "SuperResK1K3K1"), (1, 8, 8), max_width=16)
    limit = 5

    def bodies(layers):
        for count in range(1, layers + 1):
            for strides in itertools.product((1, 2), repeat=count):
                for depths in itertools.product(range(1, SPLIT_AT), repeat=count):
                    if sum(depths) <= layers:
                        yield strides, depths

    count = 0
    for strides, depths in bodies(limit - 2):
        blocks = [
            BLOCKS["SuperResK3K3"](out_channels=8, stride=s, sub_layers=d) for s, d in zip(strides, depths, strict=True)
        ]
        ends = BLOCKS["SuperConvK3BNRELU"](out_channels=8), BLOCKS["SuperConvK1BNRELU"](out_channels=8)
        if Architecture((ends[0], *blocks, ends[1]), (1, 8, 8)) in space:
            count += (2 * 2 * 2) ** len(blocks)  # types, widths, bottlenecks
    assert count > 0
    assert space.size(limit) == 2 * 2 * count
    assert space.size() == math.inf
    assert space.size(3) == 0  # the body alone needs two blocks


@given(seed=st.integers(0, 2**32), step=st.integers(1, 48), max_width=st.integers(48, 300))
def test_every_width_is_a_multiple_of_the_step(seed, step, max_width):
    space = get_space("resnet", input_size=(1, 8, 8), width_step=step, max_width=max_width)
    rng = python_rng(seed)
    made = [space.initial(), space.smallest("params"), space.sample(rng)]
    made += [space.mutate(made[-1], rng), space.crossover(made[0], made[2], rng)]
    for architecture in made:
        assert architecture in space
        widths = [block.out_channels for block in architecture.blocks]
        widths += [block.bottleneck_channels for block in architecture.blocks[1:-1]]
        assert all(width % step == 0 and step <= width <= max_width for width in widths)
    assert {block.out_channels for block in made[1].blocks} == {step}


def test_a_finer_step_holds_what_a_coarser_one_does_not():
    coarse, fine = (get_space("resnet", input_size=(1, 8, 8), width_step=step) for step in (8, 2))
    rng, found = python_rng(3), []
    for _ in range(50):
        found.append(fine.sample(rng))
        assert coarse.sample(rng) in fine
    assert any(architecture not in coarse for architecture in found)
    assert fine.size(5) > 4**4 * coarse.size(5)  # at least four widths, each four times as many
    with pytest.raises(ArchitectureError, match="widths in steps of 8 up to 2048"):
        coarse.to_string(next(each for each in found if each not in coarse))


def test_a_space_of_one_kind_of_block():
    both, basic, bottleneck = (
        get_space("resnet", input_size=(1, 8, 8), blocks=kind) for kind in ("both", "basic", "bottleneck")
    )
    assert set(basic.body_types) == {"SuperResK3K3", "SuperResK5K5", "SuperResK7K7"}
    assert set(bottleneck.body_types) == {"SuperResK1K3K1", "SuperResK1K5K1", "SuperResK1K7K1"}
    assert both == get_space("resnet", input_size=(1, 8, 8))
    assert both.body_types == basic.body_types + bottleneck.body_types
    rng = python_rng(0)
    for space, other in ((basic, bottleneck), (bottleneck, basic)):
        architecture = space.sample(rng)
        assert architecture in space
        assert architecture in both
        assert architecture not in other


def test_bad_spaces_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet'"):
        get_space("resnt")
    with pytest.raises(ArchitectureError, match="input_size"):
        get_space("resnet", input_size=(32, 32))
    with pytest.raises(ArchitectureError, match="whole numbers"):
        get_space("resnet", input_size=(3, 0, 32))
    with pytest.raises(ArchitectureError, match=r"no option 'max_widht'\. Did you mean 'max_width'"):
        get_space("resnet", max_widht=100)
    for name, options, message in (
        ("resnet", {"max_width": 7}, "max_width must be a whole number of 8 or more, got 7"),
        ("resnet", {"max_width": "wide"}, "got 'wide'"),
        ("resnet", {"width_step": 0}, "width_step must be a whole number of 1 or more, got 0"),
        ("resnet", {"width_step": True}, "width_step must be a whole number of 1 or more, got True"),
        ("resnet", {"blocks": "plain"}, "blocks must be basic, bottleneck or both, got 'plain'"),
        ("mobilenet", {"last_width": 100}, "last_width must be a multiple of 8 up to 2048, got 100"),
        ("mobilenet", {"last_width": 4096}, "got 4096"),
    ):
        with pytest.raises(ArchitectureError, match=message):
            get_space(name, **options)
    with pytest.raises(UnknownNameError, match="Did you mean 'SuperResK3K3'"):
        ChainSpace("mine", ("SuperResK3K4",))
