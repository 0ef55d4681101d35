"""Grid search: its points, their order, and what it refuses."""

import itertools
import sys

import pytest

import zeroshot_nas as zs
from zeroshot_nas import cli, get_space
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError, ProposalsWarning, SearcherError
from zeroshot_nas.searchers.grid import Grid
from zeroshot_nas.spaces.chain import ChainSpace

SPACE = get_space("resnet", input_size=(1, 8, 8), width_step=1)
CHAINS = ("resnet", "mobilenet", "vanilla", "inverted")
LISTED = ("nasbench_macro", "transnas_macro", "transnas_micro")


def grid(space=SPACE, **axes):
    return Grid(space, python_rng(0), space.initial(), **axes)


def everything(searcher):
    networks = searcher.ask(10**6)
    assert searcher.ask(1) == []
    return networks


def scales(network, space=SPACE):
    """Width and depth over those of the initial network, kernel and kind."""
    base, block = space.initial(), network.blocks[1]
    depth = (network.layers - 2) / (base.layers - 2)
    return block.out_channels / base.blocks[1].out_channels, depth, block.kernel_size, "K1K" in block.type_name


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("size", [(3, 32, 32), (1, 8, 8), (3, 13, 200)])
def test_a_grid_of_chains_is_in_the_space_and_as_large_as_it_says(name, size):
    space = get_space(name, input_size=size)
    searcher = grid(space)
    networks = everything(searcher)
    assert (
        searcher.grid_size
        == len(networks)
        == 3 * 3 * 2 * {"resnet": 2, "mobilenet": 4, "vanilla": 6, "inverted": 4}[name]
    )
    assert all(network in space for network in networks)


@pytest.mark.parametrize("name", LISTED)
def test_the_grid_of_a_finite_space_is_its_networks(name):
    space = get_space(name, input_size=(1, 8, 8))
    searcher = grid(space)
    networks = everything(searcher)
    assert networks == list(space.architectures())
    assert len(set(networks)) == len(networks) == searcher.grid_size == space.size()


def test_the_product_of_the_axes_comes_whole():
    axes = {"widths": (0.5, 1, 1.5, 4), "depths": (1, 3), "kernels": (3, 5, 7)}
    found = [scales(network) for network in everything(grid(**axes))]
    assert sorted(found) == sorted(itertools.product(*axes.values(), (False, True)))


def test_the_ends_come_before_what_is_between_them():
    found = [scales(network) for network in everything(grid(widths=(1, 2, 3, 4, 5), depths=(1, 2, 3), kernels=3))]
    levels = [max({1: 0, 5: 0, 3: 1, 2: 2, 4: 2}[width], {1: 0, 3: 0, 2: 1}[depth]) for width, depth, *_ in found]
    assert levels == sorted(levels)
    assert found[:8] == [(w, d, 3, kind) for w in (1, 5) for d in (1, 3) for kind in (False, True)]


def test_any_order_of_the_values_is_the_same_grid():
    assert everything(grid(widths=(2, 1, 3), depths=[3, 1])) == everything(grid(widths=(1, 2, 3), depths=(1, 3)))


def test_deep_blocks_are_split_and_widths_stay_within_the_space():
    space = get_space("resnet", input_size=(1, 8, 8), max_width=24)
    (network,) = everything(grid(space, widths=100, depths=13, kernels=3, kinds="basic"))
    assert [block.sub_layers for block in network.blocks[1:-1]] == [5, 5, 3] * 2
    assert {block.out_channels for block in network.blocks} == {24}
    assert network in space


def test_a_fixed_last_width_stays():
    space = get_space("mobilenet", input_size=(1, 8, 8), last_width=64)
    assert {network.blocks[-1].out_channels for network in everything(grid(space))} == {64}


@pytest.mark.parametrize(
    ("kinds", "types"),
    [
        ("basic", {"SuperResK3K3"}),
        (["bottleneck", "basic"], {"SuperResK3K3", "SuperResK1K3K1"}),
        ("inverted", {f"SuperResIDWE{expansion}K3" for expansion in (1, 2, 4, 6)}),
        (("SuperResIDWE6Kk", "basic"), {"SuperResIDWE6K3", "SuperResK3K3"}),
    ],
)
def test_kinds_of_block_are_chosen_by_name(kinds, types):
    searcher = grid(get_space("vanilla", input_size=(1, 8, 8)), widths=1, depths=1, kernels=3, kinds=kinds)
    assert {network.blocks[1].type_name for network in everything(searcher)} == types


BAD = [
    *((axis, value) for axis in ("widths", "depths", "kernels") for value in (0, -1, "wide", (), (1, 1), [1, "x"])),
    *(("widths", value) for value in (float("inf"), float("nan"), True)),
    *(("depths", value) for value in (1.5, True)),
    *(("kernels", value) for value in (4, (3, 9))),
    *(("kinds", value) for value in ("inverted", (), ("basic", "x"))),
]


@pytest.mark.parametrize(("axis", "value"), BAD)
def test_bad_values_are_refused_in_one_line_that_names_the_axis(axis, value):
    with pytest.raises(ValueError, match=rf"{axis}") as error:
        zs.search(SPACE, "params", searcher="grid", progress=False, **{axis: value})
    assert "\n" not in str(error.value)


def test_what_is_too_deep_is_refused_before_it_is_made():
    for depth in (500, 10**9):
        with pytest.raises(ArchitectureError, match="limit is 1,000"):
            grid(depths=(1, depth))


def test_a_space_of_other_blocks_says_which_kernels_it_has():
    space = ChainSpace("own", ("SuperResK5K5", "SuperResK7K7"), (1, 8, 8))
    with pytest.raises(SearcherError, match="kernels must be of those of 'own', 5, 7; got 3"):
        grid(space, kernels=(3, 5))
    assert grid(space, kernels=(5, 7)).grid_size == grid(space).grid_size == 18


def test_a_finite_space_has_no_axes():
    with pytest.raises(
        SearcherError, match="the list of its 15,625 networks and has no widths; leave widths, kinds out"
    ):
        grid(get_space("nasbench201"), widths=(1, 2), kinds="basic")


@pytest.mark.parametrize("name", ["nasbench101", "nasbench301"])
def test_a_space_that_is_neither_is_refused_with_another_strategy(name):
    with pytest.raises(SearcherError, match=f"'{name}' is neither, so take random or regularized_evolution"):
        grid(get_space(name))


def test_a_grid_larger_than_the_proposals_says_so_beforehand_and_begins_with_the_coarsest():
    with pytest.warns(ProposalsWarning, match=r"the grid has 36 networks, and 8 proposals .* set proposals=36"):
        result = zs.search(SPACE, "params", searcher="grid", proposals=8, finalists=8, progress=False)
    assert {candidate.architecture for candidate in result.history} == set(grid().ask(8))


def test_the_best_under_a_limit_by_plain_enumeration():
    budget = zs.Budget(params=20_000)
    result = zs.search(SPACE, "params", budget, searcher="grid", widths=(1, 2, 4), finalists=100, progress=False)
    params = [zs.cost(network).params for network in everything(grid(widths=(1, 2, 4)))]
    assert result.best.costs.params == max(each for each in params if each <= budget.params)
    assert result.counts.proposed == 36
    assert result.counts.over_budget == sum(each > budget.params for each in params)


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["zeroshot-nas", "search", "--input", "1x8x8", "--quiet", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr()


def of_grid(*options):
    return ["--searcher", "grid", "--proxy", "params", *(f"--searcher-option={option}" for option in options)]


def test_axes_reach_the_command_line_and_a_run_that_goes_on(monkeypatch, capsys, tmp_path):
    asked = ["--space", "vanilla", *of_grid("widths=0.5,1", "depths=2", "kernels=3", "kinds=basic,bottleneck")]
    code, said = command(monkeypatch, capsys, *asked, "--out", tmp_path)
    assert (code, said.err) == (0, "")
    assert "4: 0 over budget" in said.out
    options = {"widths": [0.5, 1.0], "depths": [2], "kernels": [3], "kinds": ["basic", "bottleneck"]}
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()).settings["searcher_options"] == options
    (tmp_path / "result.json").unlink()
    for again in ([], asked, of_grid("depths=2")):
        code, said = command(monkeypatch, capsys, *again, "--resume", "--out", tmp_path)
        assert (code, said.err) == (0, "")
    code, said = command(monkeypatch, capsys, *of_grid("depths=1,2"), "--resume", "--out", tmp_path)
    assert code == 2
    assert "searcher_options" in said.err


def test_the_space_may_stand_alone(monkeypatch, capsys):
    asked = of_grid("widths=1", "kernels=3", "depths=1")
    code, said = command(monkeypatch, capsys, "mobilenet", *asked)
    assert (code, said.err) == (0, "")
    assert "SuperResIDW" in said.out
    for arguments in (["mobilnet", *asked], ["mobilenet", "--space", "resnet", *asked]):
        code, said = command(monkeypatch, capsys, *arguments)
        assert code == 2
        assert f"search takes a space as its one argument; got '{arguments[0]}'" in said.err


@pytest.mark.parametrize(
    ("option", "says"),
    [
        *(
            (f"{axis}={value}", axis)
            for axis in ("widths", "depths", "kernels")
            for value in ("", "0", "-1", "x", "1,,2")
        ),
        ("kernels=4", "kernels must be of those of 'resnet', 3, 5, 7; got 4"),
        ("depths=1.5", "depths must be a whole number, a list of such or none, got '1.5'"),
        ("kinds=inverted", "kinds must be of those of 'resnet', basic"),
        ("width=1", "no option 'width'. Did you mean 'widths'?"),
        ("widths", "--searcher-option is name=value"),
    ],
)
def test_bad_options_on_the_command_line_are_one_line_each(monkeypatch, capsys, option, says):
    code, said = command(monkeypatch, capsys, "resnet", *of_grid(option))
    assert code == 2
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert says in said.err
    assert "traceback" not in said.err
