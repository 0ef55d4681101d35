"""The pictures of a search: what is kept of its way, and that every kind of search is drawn."""

import itertools
import math

import pytest

import zeroshot_nas as zs
from zeroshot_nas.errors import ReportError
from zeroshot_nas.plots.search import plot_search, write_search_plot
from zeroshot_nas.scoring.proxy import Proxy

from ..searching.test_every_space import SMALL

pytest.importorskip("matplotlib")
HOW = {"input_size": (1, 8, 8), "num_classes": 3, "progress": False, "finalists": 5, "repeats": 1, "batch_size": 4}


@pytest.mark.parametrize("islands", [1, 3])
def test_a_screens_way_has_every_improvement_and_is_thin(islands):
    result = zs.search("resnet", "cet", zs.Budget(params=3e4), proposals=3_000, islands=islands, **HOW)
    way = result.trajectory
    assert [point.proposals for point in way] == sorted({point.proposals for point in way})
    assert way[-1].proposals <= result.counts.proposed == 3_000
    assert max(point.fitness for point in way) == result.best.fitness
    improvements = len(set(itertools.accumulate(point.fitness for point in way)))
    assert len(way) <= 420 * islands + improvements
    assert all(point.costs["params"] <= 3e4 for point in way)
    assert zs.SearchResult.from_json(result.to_json()) == result


def test_a_resumed_search_has_the_same_way(tmp_path):
    first = zs.search("resnet", "cet", proposals=200, islands=2, out=tmp_path, **HOW)
    assert zs.resume(tmp_path, progress=False).trajectory == first.trajectory != ()


@pytest.mark.parametrize(
    ("proxy", "options", "xlabel", "ylabel"),
    [
        ("cet", {"objectives": ("activations",)}, "activations (thousands)", "cet"),
        ("zen", {"objectives": ("zen", "layers", "flops")}, "layers", "zen in closed form"),
        ("naswot", {"objectives": ("params",), "proposals": 9}, "parameters (thousands)", "naswot"),
        ("zen", {"reward": "params:exponent=-9:form=sum"}, "parameters (thousands)", "rewarded by -9 log(params)"),
        (
            "layers",
            {"reward": "params:target=9k"},
            "parameters (thousands)",
            "rewarded by (params / 9000)^-0.07",
        ),
    ],
)
def test_fronts_and_rewards_are_drawn(tmp_path, proxy, options, xlabel, ylabel):
    how = {"proposals": 60, **HOW, **options}
    result = zs.search("resnet", proxy, zs.Budget(params=3e4, layers=9), out=tmp_path, **how)
    assert write_search_plot(tmp_path).read_bytes().startswith(b"\x89PNG")
    left, right = plot_search(result).axes
    assert left.get_xlabel() == xlabel
    assert left.get_ylabel().endswith(ylabel)
    assert right.get_ylabel() == left.get_ylabel()
    if "reward" in options and result.trajectory:  # the finalists lie among what the screen saw, on its scale
        seen, finalists = (points.get_offsets()[:, 1] for points in left.collections[:2])
        assert max(finalists) == pytest.approx(max(point.fitness for point in result.trajectory))
        assert max(seen) <= max(finalists) + 1e-9


@pytest.mark.parametrize(("space", "proxy"), [*((space, "cet") for space in zs.list_spaces()), ("resnet", "naswot")])
def test_every_search_is_drawn(tmp_path, space, proxy):
    where = zs.get_space(space, input_size=(1, 16, 16), num_classes=3, **SMALL.get(space, {}))
    how = {name: value for name, value in HOW.items() if name not in ("input_size", "num_classes")}
    zs.search(where, proxy, zs.Budget(layers=30, flops=1e9), proposals=9, out=tmp_path, **how)
    assert write_search_plot(tmp_path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("budget", "label", "limit"),
    [
        (zs.Budget(params=3e4, layers=9), "parameters (thousands)", 30),
        (zs.Budget(params=3e4, flops=5e6, layers=9), "FLOPs (million multiply-adds)", 5),
        (zs.Budget(layers=9), "FLOPs (million multiply-adds)", None),
    ],
    ids=str,
)
def test_the_axis_is_that_of_the_budget_with_its_limit(budget, label, limit):
    result = zs.search("resnet", "zen", budget, proposals=60, screen=limit is not None, **HOW)
    left, right = plot_search(result).axes
    assert left.get_xlabel() == label
    lines = {line.get_label(): line.get_xdata() for line in left.get_lines()}
    assert (lines["budget"][0] if "budget" in lines else None) == limit
    assert right.get_xlabel() == ("proposals" if limit is not None else "networks scored")
    best = next(line.get_ydata() for line in right.get_lines() if line.get_label() == "best so far")
    assert list(best) == sorted(best)
    assert len(best) > 1


def test_lower_is_better_is_drawn_downwards(tmp_path):
    def few_weights(network, batch, /):
        return float(sum(weight.numel() for weight in network.parameters()))

    proxy = Proxy(zs.ProxyInfo("few_weights", few_weights, direction="lower"))  # not registered: other tests list them
    result = zs.search("resnet", proxy, zs.Budget(params=1e5), proposals=40, **HOW)
    right = plot_search(result).axes[1]
    best = next(line.get_ydata() for line in right.get_lines() if line.get_label() == "best so far")
    assert best[-1] == min(best) == result.best.costs.params
    assert math.isclose(best[-1], -result.best.fitness)


def test_what_can_t_be_drawn_is_said(tmp_path):
    with pytest.raises(ReportError, match="holds no finished search"):
        write_search_plot(tmp_path)
    with pytest.raises(ReportError, match=r"ends in \.png or \.svg"):
        write_search_plot(tmp_path, tmp_path / "a.pdf")
