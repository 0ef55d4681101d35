"""TinyNAS's structure lists: the authors' published networks have the costs that they publish, and build."""

import json
import random

import pytest
import torch
from torch import nn

import zeroshot_nas as zs
from tests.published import PUBLISHED_STRUCTURES
from zeroshot_nas.architecture.ops import Conv, Pool, walk
from zeroshot_nas.errors import ArchitectureError

CLASSES = ["SuperResK1KXK1", "SuperResKXKX", "SuperResK1KX", "SuperResK1DWK1", "SuperResK1DWSEK1"]


def read(structure, size=224, classes=1000):
    return zs.Architecture.from_string(str(structure), (3, size, size), classes)


@pytest.mark.parametrize("name", PUBLISHED_STRUCTURES)
def test_a_published_network_has_the_published_costs(name):
    """The authors print budgets and rounded numbers; their FLOPs have three more for each value of a feature map."""
    entry = PUBLISHED_STRUCTURES[name]
    costs = zs.cost(read(entry["structure"], entry["image_size"]))
    assert costs.params / 1e6 == pytest.approx(entry["params_m"], rel=0.012)
    with_norms = costs.flops + 3 * costs.activations
    assert costs.flops / 1e9 < 1.01 * entry["flops_g"]
    assert with_norms / 1e9 == pytest.approx(entry["flops_g"], rel=0.022)
    assert read(entry["structure"]).layers == sum(block.get("L", 1) for block in entry["structure"])


@pytest.mark.parametrize("name", ["deepmad-R18", "deepmad-29M-224"])
def test_a_published_network_builds_as_it_is_counted(name):
    architecture = read(PUBLISHED_STRUCTURES[name]["structure"], 32, 10)
    network = zs.build(architecture).eval()
    assert sum(value.numel() for value in network.parameters()) == zs.cost(architecture).params
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert zs.Architecture.from_json(architecture.to_json()) == architecture


def a_chain(name, stride=2, out=24, **changes):
    super_block = {"class": name, "in": 16, "out": out, "s": stride, "k": 3, "L": 2, "btn": 8, **changes}
    return [{"class": "ConvKXBNRELU", "in": 3, "out": 16, "s": 1, "k": 3}, super_block]


def convolutions(architecture):
    found = [step.op for step in walk(architecture.lower()[1], (16, 8, 8))[0] if isinstance(step.op, Conv)]
    return [(op.in_channels, op.out_channels, op.kernel_size, op.stride, op.groups) for op in found]


@pytest.mark.parametrize(
    ("name", "out", "expected"),
    [
        ("SuperResK1KXK1", 24, [(16, 8, 1, 1, 1), (8, 8, 3, 2, 1), (8, 24, 1, 1, 1), (16, 24, 1, 1, 1)]),
        ("SuperResK1KXK1", 16, [(16, 8, 1, 1, 1), (8, 8, 3, 2, 1), (8, 16, 1, 1, 1), (16, 16, 1, 1, 1)]),
        ("SuperResKXKX", 24, [(16, 8, 3, 1, 1), (8, 24, 3, 2, 1), (16, 24, 1, 1, 1)]),
        ("SuperResKXKX", 16, [(16, 8, 3, 1, 1), (8, 16, 3, 2, 1)]),
        ("SuperResK1KX", 24, [(16, 8, 1, 1, 1), (8, 24, 3, 2, 1), (16, 24, 1, 1, 1)]),
        ("SuperResK1DWK1", 24, [(16, 8, 1, 1, 1), (8, 8, 3, 2, 8), (8, 24, 1, 1, 1)]),
        (
            "SuperResK1DWSEK1",
            16,
            [(16, 8, 1, 1, 1), (8, 8, 3, 2, 8), (8, 8, 1, 1, 1), (8, 8, 1, 1, 1), (8, 16, 1, 1, 1)],
        ),
    ],
)
def test_the_first_unit_has_the_authors_convolutions(name, out, expected):
    """In, out, kernel size, stride and groups, the link's last."""
    assert convolutions(read(a_chain(name, out=out, L=1), 8)) == expected


def test_silu_and_the_gate_are_the_authors():
    architecture = read(a_chain("SuperResK1DWSEK1", stride=1, out=24, L=1), 8, 10)
    network = zs.build(architecture).eval()
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    conv = lambda index, x: layers[2 * index + 1](layers[2 * index](x))  # noqa: E731
    stem = conv(0, images).relu()
    hidden = nn.functional.silu(conv(2, nn.functional.silu(conv(1, stem))))
    gate = conv(4, nn.functional.silu(conv(3, hidden.mean((2, 3), keepdim=True)))).sigmoid()
    expected = nn.functional.silu(conv(5, hidden * gate))
    torch.testing.assert_close(network.forward_features(images), expected)


@pytest.mark.parametrize("name", ["SuperResK1KXK1", "SuperResKXKX", "SuperResK1KX"])
@pytest.mark.parametrize(("side", "window"), [(8, 2), (9, 3)])
def test_the_link_is_pooled_in_the_authors_windows_where_they_fit(name, side, window):
    architecture = read(a_chain(name), side, 10)
    pools = [step.op for step in walk(architecture.lower()[1], (16, side, side))[0] if isinstance(step.op, Pool)]
    assert pools == [Pool("average", window, 2)]
    assert zs.build(architecture)(torch.zeros(2, 3, side, side)).shape == (2, 10)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("k", [3, 5, 7])
def test_other_spellings_are_the_same_network(name, k):
    chain = a_chain(name, k=k)
    expected = read(chain, 16)
    renamed = chain[1]["class"].replace("SuperRes", "SuperResConv")
    bits = {"nbitsA": [8] * 6, "nbitsW": [4] * 6, "inner_class": name.removeprefix("Super")}
    for other in (
        [chain[0], {**chain[1], "class": renamed}],
        [chain[0], {**chain[1], "p": (k - 1) // 2, "g": 1, "act": "relu", **bits}],
        [chain[0], dict(random.Random(0).sample(sorted(chain[1].items()), len(chain[1])))],
        {"best_structures": [chain], "space_arch": "CnnNet"},
    ):
        for text in (str(other), json.dumps(other), f"\n {other} \n"):
            assert zs.Architecture.from_string(text, (3, 16, 16), 1000) == expected


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ("[{'class': 'ConvKXBNRELU', ", "malformed structure list"),
        ("[{'class': 'ConvKXBNRELU'}]", "block 1 of a structure list lacks in, k, out"),
        (a_chain("SuperResK1KXK2"), r"unknown class 'SuperResK1KXK2' of block 2\. Did you mean 'SuperResK1KXK1'\?"),
        (a_chain("SuperResK1KXK1", k=4), "block 2: SuperResK1KXK1 has no kernel size 4"),
        (a_chain("SuperResK1KXK1", k="{0}"), r"block 2: SuperResK1KXK1 has no kernel size '\{0\}'"),
        (a_chain("SuperResK1KXK1", L=0), r"block 2: TinyNASK1KXK1\.sub_layers must be a whole number"),
        (a_chain("SuperResK1KXK1", btn="8"), r"block 2: TinyNASK1KXK1\.bottleneck_channels must be"),
        (a_chain("SuperResK1KXK1", g=2), "block 2 of a structure list: 'g' = 2 is not known"),
        (a_chain("SuperResK1KXK1", act="swish"), "'act' = 'swish' is not known"),
        ([*a_chain("SuperResK1KXK1"), 5], "block 3 of a structure list must be a dict with a 'class', got 5"),
        ([{**a_chain("SuperResK1KXK1")[0], "in": 1}], "channels do not match: the input gives 3, but block 1 takes 1"),
        ({"best_structures": 5}, "expected a list of blocks, got a dict"),
        ("[{'class':" + "[" * 100_000, "malformed structure list"),
    ],
)
def test_a_spoilt_structure_list_is_told(structure, message):
    with pytest.raises(ArchitectureError, match=message):
        zs.Architecture.from_string(str(structure))
