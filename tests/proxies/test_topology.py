"""NN-Mass and NN-Degree by hand and by laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS, BlockSpec
from zeroshot_nas.architecture.ops import Edge, Gate, Graph, Node, Repeat, Residual
from zeroshot_nas.blocks.base import RELU, conv_bn
from zeroshot_nas.closed_form.topology import _units, block_topology, nn_degree, nn_mass
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.proxy import get_proxy

STEM = "SuperConvK3BNRELU(3,16,1,1)"


def of(text: str, **settings: bool) -> Architecture:
    return Architecture.from_string(STEM + text, (3, 8, 8), **settings)


def by_hand(*units: tuple[int, ...]) -> tuple[float, float]:
    """Mass and degree of units given as widths, written out link by link."""
    mass = degree = 0.0
    for widths in units:
        depth = len(widths) - 1
        possible = sum(widths[i] for j in range(len(widths)) for i in range(len(widths)) if j - i >= 2)
        width = sum(widths[:depth]) / depth
        mass += width * depth * widths[0] / possible
        degree += width + widths[0] / (width * depth)
    return mass, degree


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("SuperResK3K3(16,24,2,8,1)", [(16, 8, 24)]),
        ("SuperResK3K3(16,24,2,8,3)", [(16, 8, 24), (24, 8, 24), (24, 8, 24)]),
        ("SuperResK1K5K1(16,32,1,8,1)", [(16, 8, 8, 32), (32, 8, 8, 32)]),
        ("SuperResIDWE2K3(16,24,2,16,1)", [(16, 32, 32, 16), (16, 48, 48, 24)]),
        (
            "SuperResK3K3(16,24,2,8,1)SuperConvK1BNRELU(24,8,1,1)SuperResK3K3(8,8,1,8,1)",
            [(16, 8, 24), (8, 8, 8)],
        ),
    ],
)
def test_by_hand(text, units):
    mass, degree = by_hand(*units)
    assert nn_mass(of(text)) == pytest.approx(mass, rel=1e-13)
    assert nn_degree(of(text)) == pytest.approx(degree, rel=1e-13)


def test_the_authors_forms():
    """Their ResNets: n_0 + n_1 for two convolutions, (n_0 + 2 w) n_0 / (2 n_0 + w) for a bottleneck of width w."""
    assert nn_mass(of("SuperResK3K3(16,24,1,12,1)")) == 16 + 12
    bottlenecks = [(n + 2 * 8) * n / (2 * n + 8) for n in (16, 32)]
    assert nn_mass(of("SuperResK1K3K1(16,32,1,8,1)")) == pytest.approx(sum(bottlenecks), rel=1e-13)


RESIDUAL = ["SuperResK3K3", "SuperResK5K5", "SuperResK1K3K1", "SuperResIDWE1K3", "SuperResIDWE4K7"]
"""Blocks of residual units."""


@st.composite
def blocks(draw: st.DrawFn, names: list[str]) -> BlockSpec:
    """One block of such a name."""
    block_type = BLOCKS[draw(st.sampled_from(names))]
    sizes = {"out_channels": 12, "bottleneck_channels": 12, "stride": 3, "sub_layers": 3}
    values = {name: draw(st.integers(1, most)) for name, most in sizes.items() if name in block_type.free_fields}
    return block_type(**values)


@given(st.lists(blocks([*RESIDUAL, "SuperConvK3BNRELU"]), max_size=3), blocks(RESIDUAL))
def test_blocks_add_up(chain, last):
    """The last block's terms come on top of those before it, whatever it is."""
    deeper = Architecture((*chain, last), (3, 9, 7))
    *_, placed = deeper.inputs()
    added = block_topology(*placed)
    mass = degree = 0.0
    if any(block.type_name in RESIDUAL for block in chain):
        before = Architecture(tuple(chain), (3, 9, 7))
        mass, degree = nn_mass(before), nn_degree(before)
    assert nn_mass(deeper) == pytest.approx(mass + added.mass)
    assert nn_degree(deeper) == pytest.approx(degree + added.degree)
    assert min(added) > 0


def test_gates_do_not_count():
    text = "SuperResK1K3K1(16,32,2,8,2)"
    assert nn_mass(of(text, squeeze_excite=True)) == nn_mass(of(text))
    assert nn_degree(of(text, squeeze_excite=True)) == nn_degree(of(text))


def test_units_of_any_operations():
    """Repeats in and around a unit; a unit of one convolution has a degree, but skips no layer."""
    unit = Residual((*conv_bn(4, 4, 3), RELU, Repeat((*conv_bn(4, 4, 1), Gate(conv_bn(4, 4, 1))), 2)))
    chain = (*conv_bn(3, 4, 3), Repeat((unit, RELU), 3), Residual(conv_bn(4, 8, 3), conv_bn(4, 8, 1)))
    assert list(_units(chain, (3, 6, 6), 1, "")) == [((4, 4, 4, 4), 3), ((4, 8), 1)]


@pytest.mark.parametrize("proxy", ["nn_mass", "nn_degree"])
def test_without_residual_links_it_is_undefined(proxy):
    chain = of("SuperConvK3BNRELU(16,16,1,2)")
    result = zs.score(chain, proxy)
    assert result.state == "failed"
    assert f"{proxy} is defined for architectures with residual links" in result.reason
    both = zs.score(chain, [proxy, "params"])
    assert both["params"].ok


def test_graphs_are_refused():
    graph = Graph((Node((Edge(0), Edge(0, conv_bn(4, 4, 3)))),))
    with pytest.raises(UndefinedScoreError, match="not defined for cells that are graphs, as Cell is"):
        list(_units((graph,), (4, 6, 6), 1, "Cell"))


@pytest.mark.parametrize(("name", "source"), [("nn_mass", "arXiv:1910.00780"), ("nn_degree", "arXiv:2108.00568")])
def test_registered(name, source):
    net = of("SuperResK3K3(16,24,2,8,2)")
    result = zs.score(net, name)
    assert result.value == {"nn_mass": nn_mass, "nn_degree": nn_degree}[name](net)
    assert (result.standard_error, result.repeats) == (0, 1)
    info = get_proxy(name).info
    assert (info.source, info.cost, info.direction, info.grows_with_depth) == (source, "graph", "higher", True)
    with pytest.raises(ProxyError, match="reads an Architecture"):
        zs.score(zs.build(net).blocks, name, input_size=(3, 8, 8))
