"""Architectures as data: laws of their strings, JSON and keys, then the published networks, then bad input."""

import copy
import dataclasses
import json
import pickle
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import published
from tests.strategies import CHAIN_TYPES, architectures, blocks
from zeroshot_nas.architecture.architecture import MAX_LAYERS, Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, register_block
from zeroshot_nas.blocks.conv import SuperConv
from zeroshot_nas.blocks.inverted_residual import SuperResIDW
from zeroshot_nas.blocks.residual import SuperResK1KXK1, SuperResKXKX
from zeroshot_nas.errors import ArchitectureError

CHAIN = "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)SuperResIDWE2K5(16,16,1,8,2)"
VALID = Architecture.from_string(CHAIN)


# Laws


@pytest.mark.slow
@given(architectures())
def test_json_round_trip(architecture):
    text = architecture.to_json()
    assert Architecture.from_json(text) == architecture
    assert Architecture.from_json(text).to_json() == text
    assert Architecture.from_json(architecture.to_json(indent=2)) == architecture
    assert Architecture.from_dict(architecture.to_dict()) == architecture


@given(architectures(), st.booleans())
def test_string_round_trip(architecture, squeeze_excite):
    """Squeeze-and-excitation is a flag beside the string, one for all blocks; the rest comes back exactly."""
    chain = tuple(
        dataclasses.replace(block, squeeze_excite=squeeze_excite) if hasattr(block, "squeeze_excite") else block
        for block in architecture.blocks
    )
    architecture = dataclasses.replace(architecture, blocks=chain)
    text = architecture.to_string()
    back = Architecture.from_string(
        text, architecture.input_size, architecture.num_classes, squeeze_excite=squeeze_excite
    )
    assert back == architecture
    assert back.to_string() == text


CHOICES = {"expansion": (1, 2, 4, 6), "kernel_size": (3, 5, 7)}
"""Values of the fields that a registered name fixes."""


@st.composite
def pairs(draw):
    """Two architectures that are equal, or differ in one place."""
    first = draw(architectures())
    change = draw(st.sampled_from(["none", "classes", "input", "block", "longer"]))
    if change == "none":
        return first, Architecture.from_json(first.to_json())
    if change == "classes":
        return first, dataclasses.replace(first, num_classes=draw(st.integers(1, 12)))
    if change == "input":
        channels, height, width = first.input_size
        return first, dataclasses.replace(first, input_size=(channels, width, height))
    if change == "longer":
        return first, dataclasses.replace(first, blocks=(*first.blocks, draw(blocks())))
    index = draw(st.integers(0, len(first.blocks) - 1))
    block = first.blocks[index]
    name = draw(st.sampled_from([field.name for field in dataclasses.fields(block)]))
    value = getattr(block, name)
    changed = (not value) if isinstance(value, bool) else draw(st.sampled_from(CHOICES.get(name, range(1, 13))))
    chain = (*first.blocks[:index], dataclasses.replace(block, **{name: changed}), *first.blocks[index + 1 :])
    return first, dataclasses.replace(first, blocks=chain)


@given(pairs())
def test_keys_are_equal_exactly_where_architectures_are(pair):
    first, second = pair
    assert (first.key == second.key) == (first == second)
    if first == second:
        assert hash(first) == hash(second)


def test_keys_of_every_block_type_differ():
    """No two types of the registry share a key, with the same numbers everywhere."""
    values = {"out_channels": 8, "stride": 1, "sub_layers": 1, "bottleneck_channels": 8, "squeeze_excite": False}
    keys = {
        Architecture((BLOCKS[name](**{field: values.get(field, 1) for field in BLOCKS[name].free_fields}),)).key
        for name in CHAIN_TYPES
    }
    assert len(keys) == len(CHAIN_TYPES)


def test_key_is_pinned():
    """Scores are filed under it: it may not change between releases unless the JSON's version does."""
    assert VALID.key == "07c07fe06a73367d8a7dae7f8de0c2fe"


@given(architectures())
def test_channels_form_a_chain(architecture):
    channels, *resolution = architecture.input_size
    inputs = list(architecture.inputs())
    assert len(inputs) == len(architecture.blocks)
    for block, in_channels, seen in inputs:
        assert in_channels == channels
        assert list(seen) == resolution
        channels = block.out_channels
        resolution = [-(-side // block.stride) for side in resolution]  # "same" padding: the ceiling
    assert architecture.feature_shape == (channels, *resolution)
    assert architecture.layers == sum(block.sub_layers for block in architecture.blocks)


@given(architectures())
def test_frozen_hashable_and_copied_by_value(architecture):
    _ = architecture.key  # cached before the copies
    for twin in (pickle.loads(pickle.dumps(architecture)), copy.deepcopy(architecture), copy.copy(architecture)):
        assert twin == architecture
        assert hash(twin) == hash(architecture)
        assert twin.key == architecture.key
    with pytest.raises(dataclasses.FrozenInstanceError):
        architecture.num_classes = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        architecture.blocks[0].out_channels = 3


def test_a_changed_copy_has_its_own_key():
    before = VALID.key
    assert dataclasses.replace(VALID, num_classes=11).key != before


@pytest.mark.parametrize("wrong", [{"blocks": list(VALID.blocks)}, {"input_size": [3, 32, 32]}])
def test_lists_become_tuples_or_are_refused(wrong):
    """Equal keys iff equal architectures, and hashable, whatever sequence the caller hands over."""
    fields = {"blocks": VALID.blocks, "input_size": (3, 32, 32), **wrong}
    try:
        architecture = Architecture(**fields)
    except ArchitectureError:
        return
    assert architecture == VALID
    assert hash(architecture) == hash(VALID)


@given(blocks())
def test_type_names_lead_back(block):
    assert BLOCKS[block.type_name].cls is type(block)


# The published networks


@pytest.mark.parametrize("entry", published.NETWORKS, ids=published.NAMES)
def test_published_networks_load_and_print(entry):
    architecture = published.architecture_of(entry)
    assert architecture.to_string() == entry["plainnet"]
    assert architecture.layers == entry["layers"]
    assert any(getattr(block, "squeeze_excite", False) for block in architecture.blocks) == entry["squeeze_excite"]
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert len(architecture.feature_shape) == 3


def test_there_are_twelve():
    assert len(published.NETWORKS) == 12
    assert len({published.architecture_of(entry).key for entry in published.NETWORKS}) == 12


@pytest.mark.parametrize(
    "text",
    [
        "SuperConvK3BNRELU(stem|3,8,1,1);SuperResK3K3(SuperResK3K3_1|8,16,2,8,1);SuperResIDWE2K5(|16,16,1,8,2);",
        "  SuperConvK3BNRELU(3, 8, 1, 1)\n\tSuperResK3K3( 8,16 ,2,8,1 ) ; SuperResIDWE2K5(16,16,1,8,2)\n",
        "SuperConvK3BNRELU(0x1f|3,8,1,1) SuperResK3K3(8,16,2,8,1);\nSuperResIDWE2K5(16,16,1,8,2) ;  ",
    ],
)
def test_labels_semicolons_and_spaces_are_accepted(text):
    assert Architecture.from_string(text) == VALID
    assert Architecture.from_string(text).to_string() == CHAIN


def test_squeeze_excite_reaches_residual_blocks_only():
    architecture = Architecture.from_string(CHAIN, squeeze_excite=True)
    assert not hasattr(architecture.blocks[0], "squeeze_excite")
    assert all(block.squeeze_excite for block in architecture.blocks[1:])
    assert architecture != VALID
    assert architecture.to_string() == CHAIN


@pytest.mark.parametrize("name", ["squeeze_excites", "out_channels", "kernel_size", "cell"])
def test_an_option_that_no_block_has_beside_its_numbers_is_refused(name):
    with pytest.raises(ArchitectureError, match=f"no block has the option '{name}'.*Options: squeeze_excite"):
        Architecture.from_string(CHAIN, **{name: 1})


def test_a_field_without_a_kind_is_refused_when_its_block_is_registered():
    @dataclasses.dataclass(frozen=True)
    class Odd(SuperConv):
        rate: float = 0.5

    with pytest.raises(TypeError, match=r"Odd\.rate must be annotated as int, bool or str"):
        register_block("Odd{kernel_size}", plainnet_fields=None, kernel_size=(3,))(Odd)
    assert "Odd3" not in BLOCKS


# Bad input


@pytest.mark.parametrize(
    ("text", "position", "token"),
    [
        ("SuperConvK3BNRELU(3,8,1,1", 0, "SuperConvK3BNRELU(3,8,1,1"),
        ("SuperConvK3BNRELU(3,8,1,1)oops", 26, "oops"),
        ("SuperConvK3BNRELU(3,8,1,1))", 26, ")"),
        ("SuperConvK3BNRELU(3,8,1,1);;", 27, ";"),
        ("(3,8,1,1)", 0, "(3,8,1,1)"),
        ("SuperConvK3BNRELU(3,x,1,1)", 18, "x"),
        ("SuperConvK3BNRELU(3,8,,1)", 18, ""),
        ("SuperConvK3BNRELU(3,-8,1,1)", 18, "-8"),
        ("SuperConvK3BNRELU(3,8.0,1,1)", 18, "8.0"),
        ("SuperConvK3BNRELU(3,8e1,1,1)", 18, "8e1"),
        ("SuperConvK3BNRELU(3,True,1,1)", 18, "True"),
        ("SuperConvK3BNRELU(3,1_0,1,1)", 18, "1_0"),
        ("SuperConvK3BNRELU(3,\u0663,1,1)", 18, "\u0663"),  # a digit, but not one that we write
        ("SuperConvK3BNRELU()", 18, ""),
        ("SuperConvK3BNRELU(a|b|3,8,1,1)", 0, "SuperConvK3BNRELU(a|b|3,8,1,1)"),
        ("SuperConvK3BNRELU(SuperConvK3BNRELU(3,8,1,1))", 0, "SuperConvK3BNRELU(SuperConvK3B"),
        (CHAIN + "SuperConvK1BNRELU(16,y,1,1)", len(CHAIN) + 18, "y"),
    ],
)
def test_a_malformed_string_names_position_and_token(text, position, token):
    with pytest.raises(ArchitectureError) as caught:
        Architecture.from_string(text)
    assert f"position {position}:" in str(caught.value)
    assert repr(token) in str(caught.value)


@pytest.mark.parametrize("text", ["", "   \n", ";"])
def test_no_blocks(text):
    with pytest.raises(ArchitectureError, match=r"at least one block|malformed"):
        Architecture.from_string(text)


def test_a_channel_mismatch_names_both_blocks():
    with pytest.raises(
        ArchitectureError,
        match=r"SuperConvK3BNRELU at position 0 gives 8, but SuperResK3K3 at position 26 takes 16",
    ):
        Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(16,16,2,8,1)")
    with pytest.raises(ArchitectureError, match=r"the input gives 1, but SuperConvK3BNRELU at position 0 takes 3"):
        Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", (1, 8, 8))


def test_the_number_of_numbers_is_checked():
    with pytest.raises(ArchitectureError, match=r"SuperResK3K3 at position 0 takes 5 numbers .*bottleneck.*, got 4"):
        Architecture.from_string("SuperResK3K3(3,8,1,1)")
    with pytest.raises(ArchitectureError, match=r"SuperConvK3BNRELU at position 0 takes 4 numbers .*, got 5"):
        Architecture.from_string("SuperConvK3BNRELU(3,8,1,8,1)")


@pytest.mark.parametrize("numbers", ["0,8,1,1", "3,0,1,1", "3,8,0,1", "3,8,1,0"])
def test_zeros_in_a_string(numbers):
    with pytest.raises(ArchitectureError):
        Architecture.from_string(f"SuperConvK3BNRELU({numbers})")


BAD_NUMBERS = [0, -1, 8.0, 1e300, float("nan"), True, False, "8", None, [8], 2 + 0j]


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["out_channels", "stride", "sub_layers", "bottleneck_channels"])
@pytest.mark.parametrize("cls", [SuperResKXKX, SuperResK1KXK1, SuperResIDW])
def test_bad_numbers_in_a_block(cls, name, value):
    with pytest.raises(ArchitectureError, match=f"{cls.__name__}.{name} must be a whole number"):
        cls(**{"out_channels": 8, name: value})


@pytest.mark.parametrize("value", [0, 1, 2, -1, "yes", None, 1.0], ids=repr)
def test_a_switch_is_a_bool(value):
    """1 would equal True and yet have another key."""
    with pytest.raises(ArchitectureError, match="squeeze_excite"):
        SuperResKXKX(8, squeeze_excite=value)


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
def test_bad_numbers_in_an_architecture(value):
    for fields in (
        {"num_classes": value},
        *({"input_size": (*(3, 8, 8)[:axis], value, *(3, 8, 8)[axis + 1 :])} for axis in range(3)),
    ):
        with pytest.raises(ArchitectureError):
            Architecture(VALID.blocks, **fields)


@pytest.mark.parametrize("size", [(), (3,), (3, 8), (3, 8, 8, 8)])
def test_an_input_size_has_three_numbers(size):
    for make in (
        lambda: Architecture(VALID.blocks, size),
        lambda: Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", size),
        lambda: Architecture.from_dict({**VALID.to_dict(), "input_size": list(size)}),
    ):
        with pytest.raises(ArchitectureError):
            make()


@pytest.mark.parametrize(
    ("cls", "values"),
    [(SuperConv, {"kernel_size": 2}), (SuperConv, {"kernel_size": 9}), (SuperResIDW, {"expansion": 3})],
)
def test_a_block_that_no_name_describes_is_refused_or_round_trips(cls, values):
    """Fields that a name fixes take its choices; for any other the key, the JSON and the string have no word."""
    try:
        architecture = Architecture((cls(8, **values),))
    except ArchitectureError:
        return
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert Architecture.from_string(architecture.to_string()) == architecture


@pytest.fixture
def no_lowering(monkeypatch):
    """Fails a test that lowers a block: what is too deep must be refused before."""

    def lower(self, in_channels, resolution):
        raise AssertionError("lowered")

    for cls in {BLOCKS[name].cls for name in BLOCKS}:
        monkeypatch.setattr(cls, "lower", lower)


@pytest.mark.usefixtures("no_lowering")
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("SuperConvK3BNRELU(3,3,1,1)" * 10_000, "10,000 layers; the limit is 1,000"),
        ("SuperConvK3BNRELU(3,3,1,1000000000)", "1,000,000,000 layers; the limit is 1,000"),
        ("SuperResK1K3K1(3,3,1,8,999999999)", "999,999,999 layers"),
        (f"SuperConvK3BNRELU({'9' * 1_000_000},8,1,1)", "expected whole numbers, got '9999"),
        (f"SuperConvK3BNRELU({'3,' * 200_000}1)", "takes 4 numbers"),
        ("S" * 1_000_000, "malformed"),
        ("S" * 1_000_000 + "(3,8,1,1)", "unknown block type 'SSSS"),
        ("SuperConvK3BNRELU(3,3,1,1)" * 10_000 + " " * 100_000 + "?", "malformed"),
        ("(" * 1_000_000, "malformed"),
    ],
    ids=["blocks", "sub_layers", "bottlenecks", "digits", "numbers", "no brackets", "long name", "late", "brackets"],
)
def test_absurd_strings_are_refused_quickly(text, match):
    start = time.perf_counter()
    with pytest.raises(ArchitectureError, match=match) as caught:
        Architecture.from_string(text)
    assert time.perf_counter() - start < 10, "seconds; the slowest takes a fifth of one on an idle machine"
    assert len(str(caught.value)) < 2_000, "a message for people"


@pytest.mark.usefixtures("no_lowering")
def test_absurd_json_is_refused_quickly():
    data = Architecture((SuperConv(3),)).to_dict()
    for blocks_ in (data["blocks"] * 10_000, [{**data["blocks"][0], "sub_layers": 10**9}]):
        with pytest.raises(ArchitectureError, match="the limit is 1,000"):
            Architecture.from_json(json.dumps({**data, "blocks": blocks_}))


def test_the_deepest_is_accepted():
    assert Architecture((SuperConv(3, sub_layers=MAX_LAYERS),)).layers == MAX_LAYERS
    with pytest.raises(ArchitectureError):
        Architecture((SuperConv(3, sub_layers=MAX_LAYERS), SuperConv(3)))


def test_an_unknown_type_suggests_the_nearest():
    with pytest.raises(
        ArchitectureError, match=r"unknown block type 'SuperResK3K'.*position 0.*Did you mean 'SuperResK3K3'"
    ):
        Architecture.from_string("SuperResK3K(3,8,1,8,1)")
    data = VALID.to_dict()
    data["blocks"][0]["type"] = "SuperConvK3"
    with pytest.raises(ArchitectureError, match=r"unknown block type 'SuperConvK3'.*Did you mean 'SuperConvK\dBNRELU'"):
        Architecture.from_dict(data)


@pytest.mark.parametrize(
    "text",
    ["", "{", "nul", "[1,", '{"format": }', "\x00", "{'format': 1}", "[" * 100_000, '{"a":' * 100_000, "9" * 5_000],
)
def test_what_is_not_json(text):
    with pytest.raises(ArchitectureError, match="not JSON"):
        Architecture.from_json(text)


def edited(**changes):
    """The valid architecture's data with changes: ``None`` removes a key."""
    data = {**VALID.to_dict(), **changes}
    return {key: value for key, value in data.items() if value is not None}


def edited_block(**changes):
    first, *rest = VALID.to_dict()["blocks"]
    first = {key: value for key, value in {**first, **changes}.items() if value is not None}
    return edited(blocks=[first, *rest])


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (1, "not an architecture"),
        ([], "not an architecture"),
        (None, "not an architecture"),
        ({}, "not an architecture"),
        (edited(format="another"), "not an architecture"),
        (edited(version=2), "version 2; this release reads version 1"),
        (edited(version=None), "version None"),
        (edited(blocks=None), "needs 'blocks'"),
        (edited(blocks={}), "needs 'blocks'"),
        (edited(blocks="SuperConvK3BNRELU(3,8,1,1)"), "needs 'blocks'"),
        (edited(input_size=None), "'input_size'"),
        (edited(input_size="3x32x32"), "'input_size'"),
        (edited(input_size=[3, 32]), "input_size"),
        (edited(input_size=[3, 32, [32]]), "input_size"),
        (edited(num_classes=None), "'num_classes'"),
        (edited(num_classes="10"), "'num_classes'"),
        (edited(num_classes=0), "num_classes"),
        (edited(num_classes=True), "num_classes"),
        (edited(blocks=[]), "at least one block"),
        (edited(blocks=["SuperConvK3BNRELU"]), "a block is a JSON object"),
        (edited(blocks=[{}]), "a block is a JSON object"),
        (edited(blocks=[None]), "a block is a JSON object"),
        (edited_block(type=3), "a block is a JSON object"),
        (edited_block(type="SuperConv"), "unknown block type"),
        (edited_block(stride=None), "takes the fields"),
        (edited_block(colour="red"), "takes the fields"),
        (edited_block(kernel_size=5), "takes the fields"),
        (edited_block(out_channels="8"), "out_channels must be"),
        (edited_block(out_channels=8.5), "out_channels must be"),
        (edited_block(stride=0), "stride must be"),
        (edited_block(stride=True), "stride must be"),
        (edited(extra=1), "extra"),
    ],
)
def test_json_that_is_no_architecture(data, match):
    """A key that is missing, unknown, or of the wrong type."""
    with pytest.raises(ArchitectureError, match=match):
        Architecture.from_dict(data)
    with pytest.raises(ArchitectureError, match=match):
        Architecture.from_json(json.dumps(data))


def test_a_switch_in_json_is_a_bool():
    data = Architecture((SuperResKXKX(8),)).to_dict()
    data["blocks"][0]["squeeze_excite"] = 1
    with pytest.raises(ArchitectureError, match="squeeze_excite"):
        Architecture.from_dict(data)


def test_numpy_numbers_are_read_or_refused():
    try:
        block = SuperConv(np.int64(8))
    except ArchitectureError:
        return
    assert Architecture.from_json(Architecture((block,)).to_json()).blocks == (SuperConv(8),)


@pytest.mark.parametrize("where", ["out_channels", "blocks", "input_size", "type"])
def test_deep_nesting_is_refused_whatever_its_depth(where):
    """Between what the JSON reader nests and what a message can show there must be no gap."""
    text = VALID.to_json()
    places = {
        "out_channels": ('"out_channels": 8', '"out_channels": {}'),
        "blocks": ('"blocks": [', '"blocks": [{},'),
        "input_size": ("[3, 32, 32]", "[3, 32, {}]"),
        "type": ('"type": "SuperConvK3BNRELU"', '"type": {}'),
    }
    old, new = places[where]
    assert old in text
    for depth in (*range(1, 600, 100), *range(600, 1_100)):
        nested = text.replace(old, new.replace("{}", "[" * depth + "]" * depth), 1)
        with pytest.raises(ArchitectureError):
            Architecture.from_json(nested)


# Fuzz: whatever comes in, an architecture or an ArchitectureError comes out, and nothing else


def parses_or_refuses(parse, text):
    try:
        architecture = parse(text)
    except ArchitectureError:
        return
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert architecture.key == Architecture.from_json(architecture.to_json()).key


@st.composite
def mutated(draw, text):
    """A valid text with a few slices removed, doubled, or replaced."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 6)))
        piece = draw(
            st.sampled_from(
                ["", text[start:end] * 2, "0", "-1", "9" * 30, ",", "(", ")", "|", ";", "{", "]", '"', "null"]
            )
            | st.text(max_size=3)
        )
        text = text[:start] + piece + text[end:]
    return text


@pytest.mark.slow
@given(st.text(max_size=60) | mutated(CHAIN) | st.text("SuperResK13()|,; 0", max_size=60))
@example("SuperConvK3BNRELU(3,8,1,1)\ud800")
def test_any_string_parses_or_is_refused(text):
    parses_or_refuses(Architecture.from_string, text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.text(max_size=40) | JSON_VALUES.map(json.dumps) | mutated(VALID.to_json()))
@example('"\\ud800"')
def test_any_json_text_parses_or_is_refused(text):
    parses_or_refuses(Architecture.from_json, text)


@given(st.data())
def test_json_with_one_value_replaced_parses_or_is_refused(data):
    document = VALID.to_dict()
    holder = data.draw(st.sampled_from([document, *document["blocks"]]))
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(JSON_VALUES | st.integers(1, 10**400))
    parses_or_refuses(Architecture.from_json, json.dumps(document))
