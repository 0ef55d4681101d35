"""The search loop: laws over seeds and budgets, then counts, failures and interruption."""

import gc
import json
import math
import random

import pytest
import torch

import zeroshot_nas as zs
from zeroshot_nas.closed_form.zen import zen_closed_form
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import DepthWarning, FileFormatError, InfeasibleBudgetError, ProxyError, UnknownNameError
from zeroshot_nas.scoring.proxy import PROXIES, Proxy, ProxyInfo
from zeroshot_nas.searchers.base import Searcher
from zeroshot_nas.spaces.chain import ChainSpace


def layers_minus_params(network, batch, /):
    costs = complexity(network.architecture)
    return costs.layers - costs.params / 1e6


def search(proxy=layers_minus_params, budget=None, **options):
    options = {"input_size": (1, 8, 8), "proposals": 60, "repeats": 1, "progress": False, **options}
    return zs.search("resnet", proxy, budget or zs.Budget(params=30_000, layers=8), **options)


def untimed(result):
    return [(each.architecture, each.costs, each.fitness) for each in result.history]


def test_same_seed_same_history_and_another_seed_another():
    first = search("zen", screen=None, proposals=25)
    random.seed(1)
    torch.manual_seed(5)
    assert untimed(search("zen", screen=None, proposals=25)) == untimed(first)
    assert untimed(search("zen", screen=None, proposals=25, seed=1)) != untimed(first)


def test_a_score_in_the_history_is_what_score_gives():
    result = search("zen", screen=None, proposals=6, repeats=2, seed=5)
    for each in result.history:
        repeats = each.scores["zen"].repeats
        assert each.scores["zen"].value == zs.score(each.architecture, "zen", repeats=repeats, seed=5).value


def test_a_candidate_is_scored_costed_and_trained_as_its_architecture():
    best = search(proposals=5).best
    assert zs.cost(best) == best.costs == zs.cost(best.architecture)
    assert zs.score(best, "zen", seed=2).value == zs.score(best.architecture, "zen", seed=2).value
    assert zs.train(best, "digits", zs.Recipe(epochs=1, batch_size=512), progress=False).params == best.costs.params


def test_global_random_state_is_left_alone():
    before = random.getstate(), torch.get_rng_state()
    search("zen", screen=None, proposals=5)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.slow
@pytest.mark.parametrize("searcher", ["evolution", "regularized_evolution", "random"])
def test_every_proposal_is_accounted_for_and_within_the_budget(searcher):
    budget = zs.Budget(params=30_000, flops=1e6, layers=8)
    result = search(budget=budget, searcher=searcher, proposals=120)
    counts = result.counts
    assert counts.proposed == 120 == counts.duplicate + counts.over_budget + counts.ranked + counts.failed
    assert counts.ranked == len(result.history) == len({each.architecture for each in result.history})
    assert counts.duplicate > 0 or searcher == "random"
    assert counts.over_budget > 0
    assert not any(budget.violations(each.costs) for each in result.history)
    assert result.best.fitness == max(each.fitness for each in result.history)


def test_a_longer_search_starts_as_the_shorter_one_did():
    short, long = search(proposals=30), search(proposals=60)
    assert untimed(long)[: len(short.history)] == untimed(short)
    assert long.best.fitness >= short.best.fitness


def test_lower_is_better_is_respected():
    def params(network, batch, /):
        return float(complexity(network.architecture).params)

    result = search(Proxy(ProxyInfo("params", params, direction="lower")), proposals=40)
    assert result.best.costs.params == min(each.costs.params for each in result.history)
    assert result.best.scores["params"].value == result.best.costs.params


BUDGET = zs.Budget(params=30_000, layers=10)


def screened(proxy="zen", **options):
    return search(proxy, BUDGET, **{"proposals": 500, "finalists": 12, "repeats": 2, "standard_error": 0.1, **options})


def test_the_closed_form_screens_and_the_forward_pass_decides():
    result = screened()
    counts = result.counts
    assert counts.proposed == 500 == counts.over_budget + counts.duplicate + counts.screened
    assert counts.ranked == len(result.history) == 12
    assert result.best.fitness == max(each.scores["zen"].value for each in result.history)
    for each in result.history:
        assert each.scores["zen in closed form"].value == zen_closed_form(each.architecture)
        assert not BUDGET.violations(each.costs)
    closed = [each.scores["zen in closed form"].value for each in result.history]
    assert closed == sorted(closed, reverse=True)
    assert result.seconds["screen"] > 0 < result.seconds["rank"]
    assert zs.SearchResult.from_json(result.to_json()) == result


def test_the_leaders_are_told_apart():
    result = screened(finalists=20, standard_error=0.2)
    ranked = sorted((each.scores["zen"] for each in result.history), key=lambda score: score.value, reverse=True)
    assert ranked[0].standard_error <= 0.2 or ranked[0].repeats == 64
    repeated = [score for score in ranked if score.repeats > 2]
    assert 1 <= len(repeated) < len(ranked), "some are leaders, some are not"
    assert min(score.value for score in repeated) > min(score.value for score in ranked)
    by_repeats = {each.scores["zen"].repeats: each for each in result.history}
    assert len(by_repeats) > 1
    for repeats, each in by_repeats.items():
        assert zs.score(each.architecture, "zen", repeats=repeats).value == each.scores["zen"].value


def test_finalists_are_the_best_of_all_that_were_screened():
    everything = screened("zen_closed_form", finalists=10_000, proposals=400)
    few = screened("zen_closed_form", finalists=7, proposals=400)
    assert everything.counts.screened == len(everything.history) == everything.counts.ranked
    assert [each.fitness for each in few.history] == sorted((e.fitness for e in everything.history), reverse=True)[:7]
    assert few.best.scores["zen_closed_form"].standard_error == 0


def test_screening_is_deterministic_and_a_variant_screens_by_its_own_closed_form():
    first, again = screened("zen:variant=zennas"), screened("zen:variant=zennas")
    assert untimed(first) == untimed(again)
    key = "zen:variant=zennas in closed form"
    for each in first.history:
        assert each.scores[key].value == zen_closed_form(each.architecture, variant="zennas")


def test_structure_bounds_are_kept():
    bounds = zs.StructureBounds(depth_to_width=0.4, monotone_widths=True, bottleneck_ratio=4)
    result = search("zen_closed_form", zs.Budget(params=60_000, structure=bounds), proposals=800)
    assert result.counts.over_budget > 0
    for each in result.history:
        assert not bounds.violations(each.architecture)
    assert result.settings["budget"]["structure"] == bounds.limits()


def test_a_search_without_a_limit_on_depth_says_so():
    with pytest.warns(DepthWarning, match="grows without limit in depth"):
        search("zen_closed_form", zs.Budget(params=30_000), proposals=5)


def test_the_keyboard_interrupts_a_screen_with_the_finalists_so_far(monkeypatch):
    calls = []

    def interrupting(architecture, *, variant="paper", alpha=0.01):
        calls.append(1)
        if len(calls) == 51:  # the first asks whether the space has a closed form
            raise KeyboardInterrupt
        return zen_closed_form(architecture, variant=variant, alpha=alpha)

    info = ProxyInfo("slow", PROXIES["zen"].function, closed_form=interrupting)
    result = screened(Proxy(info))
    assert result.state == "interrupted"
    counts = result.counts
    assert 0 < counts.screened < 50, "the generation that was under way is lost"
    assert counts.screened == counts.proposed - counts.over_budget - counts.duplicate
    assert len(result.history) == 12
    assert result.best.fitness == max(zen_closed_form(each.architecture) for each in result.history)


def test_garbage_collection_is_as_it_was():
    assert gc.isenabled()
    screened(proposals=50)
    assert gc.isenabled()


@pytest.mark.slow
def test_the_front_is_not_dominated():
    result = search(proposals=150)
    for member in result.front:
        assert not any(
            other.fitness > member.fitness
            and other.costs.params < member.costs.params
            and other.costs.flops < member.costs.flops
            for other in result.history
        )
    assert result.best in result.front


def test_result_round_trips_through_json():
    result = search("zen", screen=None, proposals=8)
    again = zs.SearchResult.from_json(result.to_json())
    assert again == result
    assert json.loads(result.to_json())["settings"]["budget"] == {"params": 30_000, "layers": 8}


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"format": "zeroshot_nas.search_result", "version": 9}'])
def test_files_that_are_no_result_are_refused(text):
    with pytest.raises(FileFormatError):
        zs.SearchResult.from_json(text)


def test_a_damaged_result_is_refused():
    data = json.loads(search(proposals=3).to_json())
    for key in ("best", "history", "counts", "settings"):
        damaged = {name: value for name, value in data.items() if name != key}
        with pytest.raises(FileFormatError):
            zs.SearchResult.from_json(json.dumps(damaged))
    data["best"]["architecture"]["blocks"][0]["out_channels"] = -8
    with pytest.raises(FileFormatError, match="out_channels"):
        zs.SearchResult.from_json(json.dumps(data))


def test_an_infeasible_budget_is_said_at_once_with_the_smallest_network():
    smallest = complexity(zs.get_space("resnet", input_size=(1, 8, 8)).smallest("params")).params
    with pytest.raises(InfeasibleBudgetError, match=f"smallest has {smallest:,} params; the budget is 1,000"):
        search(budget=zs.Budget(params=1000))
    with pytest.raises(InfeasibleBudgetError, match=r"smallest has 4 layers; the budget is 3"):
        search(budget=zs.Budget(layers=3))


def test_a_tight_budget_is_met_from_the_smallest_network():
    smallest = complexity(zs.get_space("resnet", input_size=(1, 8, 8)).smallest("params")).params
    result = search(budget=zs.Budget(params=smallest))
    assert result.best.costs.params == smallest


def test_limits_that_only_conflict_together_end_with_an_error():
    narrow = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 8, 8))  # few params, many FLOPs
    strided = zs.Architecture.from_string("SuperConvK3BNRELU(1,16,4,1)", (1, 8, 8))  # the other way round

    class TwoNetworks(ChainSpace):
        def smallest(self, cost):
            return min(narrow, strided, key=lambda each: getattr(complexity(each), cost))

        def mutate(self, architecture, rng, mutations=1):
            return rng.choice([narrow, strided])

    space = TwoNetworks("two", ("SuperResK3K3",), (1, 8, 8))
    budget = zs.Budget(params=complexity(narrow).params, flops=complexity(strided).flops)
    with pytest.raises(InfeasibleBudgetError, match="none of 20 proposed networks fits the budget params"):
        zs.search(space, layers_minus_params, budget, proposals=20, progress=False)


def test_failures_are_counted_with_their_reason_and_never_win():
    def fails_often(network, batch, /):
        layers = network.architecture.layers
        return math.nan if layers % 2 else float(layers)

    result = search(fails_often, proposals=100)
    assert result.counts.failed == sum(not math.isfinite(each.fitness) for each in result.history) > 0
    assert result.failures == {"fails_often is not finite (nan)": result.counts.failed}
    assert result.best.architecture.layers % 2 == 0
    assert zs.SearchResult.from_json(result.to_json()).counts == result.counts


def test_a_proxy_that_always_fails_is_an_error_with_its_reason():
    def broken(network, batch, /):
        raise KeyError("lost")

    with pytest.raises(ProxyError, match=r"failed for all \d+ networks.*lost"):
        search(broken, proposals=5)


def test_the_keyboard_interrupts_with_what_was_found():
    calls = []

    def interrupting(network, batch, /):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return float(network.architecture.layers)

    result = search(interrupting)
    assert result.state == "interrupted"
    assert result.counts.ranked == 6
    assert zs.SearchResult.from_json(result.to_json()) == result


def test_an_interrupt_before_anything_was_found_is_passed_on():
    def interrupting(network, batch, /):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(interrupting)


def test_a_searcher_class_and_a_space_object_are_taken_as_they_are():
    class Stuck(Searcher):
        def ask(self, n):
            return [self.start] * n

        def tell(self, candidates):
            pass

    space = zs.get_space("mobilenet", input_size=(1, 8, 8))
    result = zs.search(space, layers_minus_params, searcher=Stuck, proposals=5, repeats=1, progress=False)
    assert (result.counts.ranked, result.counts.duplicate) == (1, 4)
    with pytest.raises(ValueError, match="make the space"):
        zs.search(space, layers_minus_params, input_size=(3, 32, 32), proposals=1)


def test_bad_arguments():
    with pytest.raises(UnknownNameError, match="Did you mean 'evolution'"):
        search(searcher="evolutoin")
    with pytest.raises(ValueError, match="proposals"):
        search(proposals=0)
    with pytest.raises(ProxyError, match="has no option"):
        search("zen:varient=zennas")


def test_a_budget_is_a_budget():
    with pytest.raises(TypeError, match=r"a Budget, such as Budget\(params=1e5\), got dict"):
        zs.search("resnet", "cet", {"params": 1e5}, proposals=10, progress=False)
    with pytest.raises(TypeError, match=r"must be SearchSettings, got \(1, 8, 8\); name what else is given"):
        zs.search("resnet", "cet", zs.Budget(params=1e5), (1, 8, 8), proposals=10, progress=False)
