"""Every notation of every space reads what it writes; one more is one decorated class, wherever it stands."""

import json

import pytest

from zeroshot_nas import Architecture, get_space, list_spaces
from zeroshot_nas.blocks.cells import OPERATIONS, read_cell
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError, UnknownNameError
from zeroshot_nas.spaces.base import SearchSpace, list_options
from zeroshot_nas.spaces.nasbench201 import NASBench201
from zeroshot_nas.spaces.notations import NOTATIONS, Notation, notations_of, register_notation

SPACES = [get_space(name, input_size=(1, 16, 16)) for name in list_spaces()]
EACH = [(space, notation) for space in SPACES for notation in space.notations]


@pytest.mark.parametrize(("space", "notation"), EACH, ids=[f"{space.name}-{name}" for space, name in EACH])
def test_a_notation_reads_what_it_writes(space, notation):
    rng = python_rng(0)
    for _ in range(20):
        network = space.sample(rng)
        genotype = space.genotype(network)
        text = space.format(genotype, notation)
        assert space.parse(text, notation) == genotype
        assert space.to_string(network, notation) == text
        assert space.from_string(text, notation) == space.network(genotype) == network


@pytest.mark.parametrize(("space", "notation"), EACH, ids=[f"{space.name}-{name}" for space, name in EACH])
@pytest.mark.parametrize(("before", "after"), [("", "\n"), ("  ", ""), ("\t", " \r\n"), ("\n\n", "\n")])
def test_space_around_a_text_is_left_out(space, notation, before, after):
    network = space.sample(python_rng(3))
    text = space.to_string(network, notation)
    assert space.from_string(f"{before}{text}{after}", notation) == network
    assert space.from_string(f"{before}{space.to_string(network)}{after}") == network


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("wrong", [(4, 0, 3, 1, 4, 3), 5, None, b"text", ["a"], object()])
def test_what_is_no_text_is_told_on_one_line(space, wrong):
    with pytest.raises(ArchitectureError, match=rf"an architecture of {space.name} is text in one of") as caught:
        space.from_string(wrong)
    assert str(caught.value).isprintable()
    with pytest.raises(ArchitectureError, match="from_string takes text such as 'SuperConv") as caught:
        Architecture.from_string(wrong)
    assert str(caught.value).isprintable()


CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|nor_conv_3x3~2|"
NAMES = {(0, 1): "nor_conv_3x3", (0, 2): "none", (1, 2): "skip_connect"}
NAMES |= {(0, 3): "nor_conv_1x1", (1, 3): "skip_connect", (2, 3): "nor_conv_3x3"}
SHORT = {"nor_conv_3x3": "conv_3x3", "none": "zero", "skip_connect": "identity", "nor_conv_1x1": "conv1x1"}
DICTS = {
    "pairs": NAMES,
    "turned pairs": {(target, source): name for (source, target), name in NAMES.items()},
    "another order": dict(reversed(NAMES.items())),
    "arrows": {f"{source}->{target}": name for (source, target), name in NAMES.items()},
    "xautodl": {f"{target}<-{source}": name for (source, target), name in NAMES.items()},
    "nni": {f"{source}_{target}": SHORT[name] for (source, target), name in NAMES.items()},
    "named edges": {f"edge_{source}_{target}": name for (source, target), name in NAMES.items()},
    "attributes": {edge: {"op": name} for edge, name in NAMES.items()},
    "numbers": {edge: OPERATIONS.index(name) for edge, name in NAMES.items()},
    "by target": {
        target: {source: name for (source, end), name in NAMES.items() if end == target} for target in (1, 2, 3)
    },
}


@pytest.mark.parametrize("name", ["nasbench201", "transnas_micro"])
@pytest.mark.parametrize("form", DICTS)
def test_a_cell_is_a_dict_of_its_edges(name, form):
    space = get_space(name)
    expected = space.network(read_cell(CELL))
    assert space.from_string(DICTS[form]) == space.from_string(str(DICTS[form])) == expected
    assert space.from_string(DICTS[form], "edges") == expected
    if all(isinstance(key, str) for key in DICTS[form]):
        assert space.from_string(json.dumps(DICTS[form])) == expected
    assert space.to_string(expected, "edges") == str(NAMES)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({}, "0->1, 0->2, 1->2, 0->3, 1->3, 2->3 missing"),
        ({**NAMES, (3, 4): "none"}, r"the edge '\(3, 4\)' is none of 0->1"),
        ({**NAMES, "1->0": "none"}, "the edge '1->0' occurs twice"),
        ({**NAMES, (0, 1): "conv_5x5"}, "unknown operation 'conv_5x5' at the edge 0->1"),
        ({**NAMES, (0, 1): 9}, "unknown operation 9 at the edge 0->1"),
        ({**NAMES, (0, 1): None}, "unknown operation None at the edge 0->1"),
        ({"first": "none"}, "the edge 'first' is none of"),
        ("{", "malformed dict of edges"),
        ("{1, 2}", "expected braces"),
        ("{" + "[" * 5_000, "malformed dict of edges"),
        ("{" + "1" * 20_000, "at most 10,000 characters"),
    ],
)
def test_a_spoilt_dict_of_edges_is_told(cell, message):
    with pytest.raises(ArchitectureError, match=message):
        get_space("nasbench201").from_string(cell)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_a_spaces_own_notation_has_no_need_of_a_name(space):
    network = space.sample(python_rng(1))
    text = space.to_string(network)
    assert space.own_notation in space.notations
    assert text == space.to_string(network, "arch") == space.to_string(network, space.own_notation)
    assert space.from_string(text) == space.from_string(text, "arch") == network


@pytest.mark.parametrize(
    "space", [space for space in SPACES if "naslib" in space.notations], ids=lambda each: each.name
)
def test_an_earlier_name_is_taken(space):
    network = space.sample(python_rng(2))
    text = space.to_string(network, "naslib_tuple")
    assert text == space.to_string(network, "naslib")
    assert space.from_string(text, "naslib_tuple") == space.from_string(text) == network


@pytest.fixture
def letters(monkeypatch):
    """A notation that a stranger's file adds."""
    monkeypatch.setattr(NOTATIONS, "_entries", {**NOTATIONS._entries})

    @register_notation("nasbench201", "letters")
    class Letters(Notation):
        def parse(self, text, space, /):
            return tuple(map("nsctp".index, text))

        def format(self, genotype, space, /):
            return "".join("nsctp"[digit] for digit in genotype)

    yield
    notations_of.cache_clear()


@pytest.mark.usefixtures("letters")
def test_a_new_notation_is_one_class():
    space = NASBench201()
    assert space.from_string("tntsns", "letters") == space.initial()
    assert space.to_string(space.initial(), "letters") == "tntsns"
    assert "letters" in space.notations
    assert "letters" not in get_space("transnas_micro").notations
    with pytest.raises(ValueError, match="'nasbench201 letters' is already registered"):
        register_notation("nasbench201", "letters")(type(space.notations["letters"]))


@pytest.mark.usefixtures("letters")
def test_a_space_made_of_another_reads_its_notations():
    class Mine(NASBench201):
        name = "mine"

    mine = Mine()
    assert (mine.name, NASBench201().name) == ("mine", "nasbench201")
    assert mine.from_string("tntsns", "letters") == mine.initial()


def test_the_tables_json_of_nasbench101_is_read():
    space = get_space("nasbench101")
    network = space.from_string('{"matrix":[[0,1,0],[0,0,1],[0,0,0]],"ops":["input","maxpool3x3","output"]}')
    assert space.to_string(network, "record") == "010001000 input,maxpool3x3,output"


def test_plain_strings_are_what_a_space_without_a_notation_has():
    space = get_space("resnet")
    assert list(space.notations) == ["plainnet"]
    assert space.parse(space.to_string(space.initial())) == space.genotype(space.initial()) == space.initial()
    with pytest.raises(UnknownNameError, match="unknown notation 'op_code'"):
        space.from_string("421211", "op_code")


@pytest.mark.parametrize("name", list_spaces())
def test_options_are_those_of_the_class_or_function(name):
    options = list_options(name)
    assert {"name", "input_size", "num_classes"}.isdisjoint(options)
    space = get_space(name, **{option: default for option, default in options.items() if default is not None})
    assert space.name == name
    assert isinstance(space, SearchSpace)
