"""A new cost is a function with a decorator: all that reads costs knows it from then on."""

import dataclasses
import json
import pickle
import runpy
import subprocess
import sys

import pytest
import torch

import zeroshot_nas as zs
from tests.costs import toys as toys_file
from zeroshot_nas import Budget, Costs
from zeroshot_nas.costs.base import COSTS, list_costs, summed_costs
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import BudgetError, InfeasibleBudgetError, SettingsChangedError, UnknownNameError
from zeroshot_nas.testing import check_space

NET = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,16,2,8,3)", (1, 8, 8))
TOYS = ("convolutions", "peak_width")
STANDARD = ["params", "flops", "layers", "activations"]
FURTHER = ["peak_memory", "weights"]
WITH_TOYS = sorted([*TOYS, *FURTHER])


def forget_toys():
    for name in TOYS:
        COSTS._entries.pop(name, None)
    summed_costs.cache_clear()


forget_toys()  # only for tests that ask for them


@pytest.fixture
def toys():
    """Registers the toy costs; gives the architectures that the lazy one is worked out for."""
    complexity(NET)  # a cost that is registered late counts as well
    calls = runpy.run_path(toys_file.__file__)["CALLS"]
    yield calls
    forget_toys()


def test_a_cost_is_an_attribute_and_an_item(toys):
    costs = zs.cost(NET)
    assert (costs.convolutions, costs["convolutions"]) == (8, 8)  # the stem, three times two, a projection
    assert (costs.peak_width, costs["peak_width"]) == (16, 16)
    assert costs["params"] == costs.params
    assert list_costs() == [*STANDARD, "latency_ms", *WITH_TOYS]
    assert list(costs.to_dict()) == [*STANDARD, *WITH_TOYS]


def test_the_other_costs_stay_as_they_were(toys):
    with_toys = complexity(NET)
    forget_toys()
    assert {**with_toys.to_dict(), **complexity(NET).to_dict()} == with_toys.to_dict()
    assert list(complexity(NET).to_dict()) == [*STANDARD, *FURTHER]


def test_a_cost_of_the_whole_is_worked_out_once_and_only_where_it_is_asked_for(toys):
    costs = complexity(NET)
    assert costs.params > 0
    assert Budget(params=1e9, convolutions=9).violations(costs) == ()
    assert toys == []
    assert costs.peak_width == costs.with_latency(2.0).peak_width == 16
    assert toys == [NET]


def test_costs_round_trip(toys):
    costs = complexity(NET)
    for again in (Costs(**json.loads(json.dumps(costs.to_dict()))), pickle.loads(pickle.dumps(costs))):
        assert again == costs
        assert hash(again) == hash(costs)
        assert again.peak_width == 16
    assert dataclasses.replace(costs, params=1).convolutions == 8
    assert dataclasses.replace(costs, params=1) != costs
    assert Costs(1, 2, 3, 4, convolutions=5) != Costs(1, 2, 3, 4, convolutions=6)
    with pytest.raises(dataclasses.FrozenInstanceError):
        costs.convolutions = 3


def test_costs_of_a_file_that_are_not_registered_here_can_be_read():
    costs = Costs(params=1, flops=2, layers=3, activations=4, energy=5)
    assert costs["energy"] == 5
    assert costs.to_dict()["energy"] == 5
    with pytest.raises(TypeError, match="energy must be a number"):
        Costs(params=1, flops=2, layers=3, activations=4, energy="5")


def test_a_misspelt_cost_is_refused(toys):
    costs = zs.cost(NET)
    with pytest.raises(UnknownNameError, match=r"unknown cost 'convolution'\. Did you mean 'convolutions'\?"):
        costs["convolution"]
    with pytest.raises(AttributeError, match="Did you mean 'convolutions'"):
        _ = costs.convolution
    with pytest.raises(UnknownNameError, match="Did you mean 'convolutions'"):
        Budget(convolution=5)
    with pytest.raises(AttributeError, match="Did you mean 'convolutions'"):
        _ = Budget(convolutions=5).convolution


def test_a_budget_limits_it(toys):
    budget = Budget(params=1e6, convolutions=7, peak_width=16)
    assert (budget.convolutions, budget.peak_width, Budget().peak_width) == (7, 16, None)
    assert budget.limits() == {"params": 1e6, "convolutions": 7, "peak_width": 16}
    assert budget.violations(zs.cost(NET)) == (("convolutions", 8, 7),)
    tighter = dataclasses.replace(budget, peak_width=15, convolutions=None)
    assert tighter.violations(zs.cost(NET)) == (("peak_width", 16, 15),)
    assert dataclasses.replace(budget, layers=3).limits()["convolutions"] == 7
    assert budget == Budget(1e6, peak_width=16, convolutions=7)
    assert budget != tighter
    with pytest.raises(BudgetError, match=r"Budget\.convolutions must be a number above 0"):
        Budget(convolutions=-1)


def test_a_module_has_no_such_cost(toys):
    costs = zs.cost(torch.nn.Conv2d(1, 2, 3), input_size=(1, 8, 8))
    assert costs.convolutions is None
    assert list(costs.to_dict()) == ["params", "flops", "layers", "activations"]
    with pytest.raises(BudgetError, match="has no convolutions"):
        Budget(convolutions=1).violations(costs)


def test_a_space_knows_the_smallest(toys):
    check_space(zs.get_space("resnet", input_size=(1, 8, 8)), samples=4)


@pytest.mark.slow
def test_a_search_keeps_to_it_and_can_be_resumed(toys, tmp_path):
    search = {"space": "resnet", "input_size": (1, 8, 8), "proposals": 300, "finalists": 3, "progress": False}
    budget = Budget(params=2e4, convolutions=10, peak_width=24)
    result = zs.search(**search, budget=budget, out=tmp_path)
    assert all(each.costs.convolutions <= 10 and each.costs.peak_width <= 24 for each in result.history)
    assert result.counts.over_budget > 0
    assert result.settings["budget"] == {"params": 2e4, "convolutions": 10, "peak_width": 24}
    assert zs.SearchResult.from_json(result.to_json()) == result
    assert zs.search(**search, budget=budget, out=tmp_path, resume=True).best == result.best
    with pytest.raises(SettingsChangedError, match="convolutions"):
        zs.search(**search, budget=dataclasses.replace(budget, convolutions=9), out=tmp_path, resume=True)
    with pytest.raises(InfeasibleBudgetError, match="the smallest has 8 convolutions"):
        zs.search(**search, budget=Budget(convolutions=1))


def test_the_cheapest_cell_of_a_finite_space_is_looked_for(toys):
    """No cell space knows its network of fewest convolutions; the search starts within the budget all the same."""
    found = zs.search("nasbench201", "flops", Budget(convolutions=20), proposals=50, finalists=2, progress=False)
    assert found.best.costs.convolutions <= 20


@pytest.mark.slow
def test_the_command_line_knows_it(tmp_path):
    def run(*arguments):
        code = "import sys, tests.costs.toys; from zeroshot_nas.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert "--max-convolutions" in run("search", "--help")[1]
    search = ("search", "--input", "1x8x8", "--max-convolutions", "10", "--max-peak-width", "0.02k", "--quiet")
    code, out, err = run(*search, "--proposals", 200, "--out", tmp_path)
    assert (code, err) == (0, "")
    assert "peak width" in out
    assert "channels" in out
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["costs"]["convolutions"] <= 10
    assert best["costs"]["peak_width"] <= 20
    assert json.loads(run("cost", tmp_path / "best.json", "--json")[1]) == best["costs"]
    code, _, err = run("search", "--resume", tmp_path, "--max-convolutions", "9")
    assert code == 2
    stored, asked = err.split(" in the run, ")
    assert "'convolutions': 10.0" in stored
    assert "'convolutions': 9.0" in asked
    assert run("search", "--max-convolutions", "many")[2].startswith("error: Invalid value: --max-convolutions must be")
