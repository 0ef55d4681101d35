"""The exact strategy in the loop: its certificate, what it refuses, and how it stops and goes on."""

import pytest

import zeroshot_nas as zs
from zeroshot_nas.errors import InfeasibleBudgetError, ProxyError, SearcherError
from zeroshot_nas.searchers.exact import Exact

SPACE = zs.get_space("resnet", input_size=(3, 8, 8), max_width=24)
BUDGET = zs.Budget(params=2e4, flops=1e6, layers=6)


def find(searcher="exact", proxy="zen_closed_form", budget=BUDGET, space=SPACE, **options):
    return zs.search(space, proxy, budget, searcher=searcher, progress=False, **options)


@pytest.mark.slow
def test_the_result_carries_a_proof_that_no_other_strategy_beats(tmp_path, processes):
    found = find(out=tmp_path / "run")
    proof = found.certificate
    assert (proof["proxy"], proof["by"], proof["finished"], proof["gap"]) == ("zen_closed_form", "exact", True, 0)
    assert proof["bound"] == proof["best"] == found.best.fitness
    assert proof["enumerated"]["blocks"] > 0
    assert not BUDGET.violations(found.best.costs, found.best.architecture)
    for other in ("regularized_evolution", "evolution", "random"):
        assert find(other, proposals=2_000, islands=1).best.fitness <= proof["bound"] + 1e-9
    assert zs.SearchResult.from_json(found.to_json()) == found
    assert find(out=tmp_path / "run", resume=True).certificate == proof
    assert find(seed=1).best.architecture == found.best.architecture
    assert find(executor=processes).certificate == proof


@pytest.mark.slow
def test_fewer_nodes_leave_a_gap_and_a_true_bound():
    optimum, cut = find(), find(nodes=1)
    assert cut.certificate["bound"] >= optimum.best.fitness - 1e-9
    assert cut.certificate["gap"] >= 0
    assert cut.best.fitness <= optimum.best.fitness


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_stopped_at_any_moment_the_bound_is_true(stop_after, monkeypatch):
    optimum = find().best.fitness
    asks, ask = [], Exact.ask

    def interrupted(self, n):
        asks.append(n)
        if len(asks) > stop_after:
            raise KeyboardInterrupt
        return ask(self, n)

    monkeypatch.setattr(Exact, "ask", interrupted)
    found = find()
    assert found.state == "interrupted"
    bound = found.certificate["bound"]
    assert bound is None or bound >= optimum - 1e-9
    assert found.certificate["best"] <= optimum + 1e-9


@pytest.mark.slow
def test_limits_on_whole_networks_are_kept_and_named():
    structure = zs.StructureBounds(depth_to_width=0.12)
    budget = zs.Budget(params=2e4, layers=4, structure=structure)
    found = find(budget=budget)
    assert found.certificate["checked_whole"] == ["depth_to_width"]
    assert not budget.violations(found.best.costs, found.best.architecture)
    assert found.certificate["bound"] >= found.best.fitness


@pytest.mark.parametrize("proxy", ["cet", "entropy_deepmad"])
def test_a_score_that_is_no_sum_is_refused(proxy):
    with pytest.raises(SearcherError, match=f"{proxy} is no sum over blocks.*zen_closed_form.*regularized_evolution"):
        find(proxy=proxy)


@pytest.mark.parametrize("space", ["nasbench201", "vanilla"])
def test_a_space_that_is_no_chain_of_fixed_strides_is_refused(space):
    with pytest.raises(SearcherError, match=f"exact searches chains whose strides are fixed.*{space}"):
        find(space=space, proxy="params", budget=zs.Budget(layers=20))


def test_what_has_no_bound_on_depth_is_refused():
    with pytest.raises(SearcherError, match=r"exact needs a limit on layers, as Budget\(layers=18\)"):
        find(budget=zs.Budget(params=1e5), proxy="params")


def test_a_proxy_without_a_closed_form_is_refused():
    with pytest.raises(SearcherError, match="exact searches by closed forms, and naswot has none"):
        find(proxy="naswot")


@pytest.mark.slow
@pytest.mark.parametrize("screen", [True, False])
def test_a_score_of_the_forward_pass_is_searched_by_its_closed_form(screen):
    found = find(proxy="zen", screen=screen, repeats=1)
    assert found.certificate["best"] == pytest.approx(find().best.fitness)
    assert found.best.scores["zen"].value != found.certificate["best"]


def test_too_many_widths_are_refused():
    space = zs.get_space("resnet", width_step=1, max_width=300)
    with pytest.raises(ProxyError, match=r"at most 256 widths.*has 300.*width_step"):
        find(space=space, budget=BUDGET)


def test_limits_that_can_not_be_met_together_are_said_to_be_so():
    least = zs.cost(SPACE.smallest("params")).params
    budget = zs.Budget(layers=6, params=least, structure=zs.StructureBounds(bottleneck_ratio=0.5))
    with pytest.raises(
        InfeasibleBudgetError, match=r"keeps to .*layers 6, bottleneck_ratio 0.5 at once, which is proved"
    ):
        find(budget=budget)


def test_nodes_must_be_a_number_of_them():
    with pytest.raises(ValueError, match="nodes must be 1 or more, got 0"):
        find(nodes=0)
