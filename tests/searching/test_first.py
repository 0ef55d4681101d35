"""Networks that are proposed first: every strategy, screened and not, executor, islands, bits, and what is refused."""

import json
import warnings

import pytest

import zeroshot_nas as zs
from tests.searching.test_every_strategy import KINDS, STRATEGIES, outcome, space_named
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ArchitectureError, ProposalsWarning, SearcherError, SettingsChangedError

HOW = {"input_size": (1, 8, 8), "proposals": 60, "progress": False}


def drawn(space, count=3, seed=17):
    """Random networks of a space, none twice."""
    rng = python_rng(seed)
    found = {}
    while len(found) < count:
        found[space.sample(rng)] = None
    return list(found)


def run(strategy, space, kind, first, **how):
    """A search without limits, so that nothing that comes first is over them."""
    how = {**KINDS[kind], "finalists": 1000, "proposals": 12, "progress": False, "seed": 3, **how}
    how |= {"searcher_options": {"starts": 3}} if strategy == "gradient" else {}
    return zs.search(space, searcher=strategy, first=first, **how)


@pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.ProposalsWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet", "vanilla", "nasbench201"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_seen_them(strategy, name, kind):
    space = space_named(name)
    first = drawn(space)
    try:
        result = run(strategy, space, kind, first)
    except SearcherError as error:
        pytest.skip(f"refused: {error}")
    scores = {each.architecture: each.fitness for each in result.history}
    assert set(first) <= scores.keys()
    assert result.best.fitness >= max(scores[network] for network in first)
    assert result.counts.proposed <= 12


@pytest.mark.parametrize("kind", KINDS)
def test_other_processes_find_the_same(kind, processes):
    space = space_named("vanilla")
    first = drawn(space)
    serial = outcome(run("regularized_evolution", space, kind, first))
    assert outcome(run("regularized_evolution", space, kind, first, executor=processes)) == serial
    assert outcome(run("regularized_evolution", space, kind, first[:1])) != serial


def test_islands_share_them_out():
    space = space_named("vanilla")
    first = drawn(space, 5)
    result = run("regularized_evolution", space, "screened", first, islands=2, exchanges=1, proposals=40)
    assert set(first) <= {each.architecture for each in result.history}


def test_what_comes_twice_is_proposed_once_and_no_more_than_there_are_proposals():
    space = space_named("resnet")
    first = drawn(space, 6)
    assert run("random", space, "ranked", [*first, *first]).counts.duplicate == 0
    few = run("random", space, "ranked", first, proposals=4)
    assert {each.architecture for each in few.history} == set(first[:4])


def test_a_winner_is_not_lost_by_the_search_that_begins_with_it():
    before = zs.search(budget=zs.Budget(params=5e3), **{**HOW, "proposals": 600})
    after = zs.search(budget=zs.Budget(params=5e3), first=[before.best], **{**HOW, "seed": 1})
    assert after.best.fitness >= before.best.fitness


@pytest.mark.parametrize(("bits", "kept"), [((4, 8), (4, 8)), (None, (2, 4, 8))])
def test_bits_of_what_comes_first_are_chosen_anew_where_the_search_chooses_them(bits, kept):
    budget = zs.Budget(weights="3kB")
    found = zs.search(budget=budget, bits=(2, 4, 8), **HOW).best.architecture
    result = zs.search(budget=budget, bits=bits, first=[found], finalists=1000, **HOW)
    (same,) = (each.architecture for each in result.history if each.architecture.blocks == found.blocks)
    assert set(same.weight_bits) <= set(kept)
    assert bits is not None or same.weight_bits == found.weight_bits


def test_those_over_the_budget_are_said_and_win_nothing():
    wide, narrow = (zs.reference("resnet8", zs.Budget(params=params), input_size=(1, 8, 8)) for params in (9e3, 3e3))
    with pytest.warns(ProposalsWarning, match=r"^1 of 2 .* can't win: \S+ has params 8,\d+, the limit is 4,000$"):
        result = zs.search("vanilla", budget=zs.Budget(params=4e3), first=[wide, narrow], finalists=1000, **HOW)
    networks = {each.architecture for each in result.history}
    assert narrow in networks
    assert wide not in networks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zs.search("vanilla", budget=zs.Budget(params=4e3), first=[narrow], **HOW)


def test_what_is_no_network_of_the_space_is_refused(tmp_path):
    elsewhere = zs.get_space("resnet", input_size=(3, 8, 8)).initial()
    cell = zs.get_space("nasbench201").initial()
    for first, said in (("resnet8", "got str"), (cell, "'vanilla'"), (elsewhere, r"\(1, 8, 8\)")):
        with pytest.raises(ArchitectureError, match=said):
            zs.search("vanilla", first=[first], out=tmp_path / "run", **HOW)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("space", [3, (), zs.Budget()])
def test_what_is_no_space_is_refused(space):
    with pytest.raises(TypeError, match="space must be a name, such as 'vanilla', or a SearchSpace, got"):
        zs.search(space, **HOW)


def test_a_run_goes_on_with_those_that_it_began_with(tmp_path):
    first = drawn(zs.get_space("vanilla", input_size=(1, 8, 8)))
    done = zs.search("vanilla", first=first, out=tmp_path, **HOW)
    assert outcome(zs.search("vanilla", first=first, out=tmp_path, resume=True, **HOW)) == outcome(done)
    with pytest.raises(SettingsChangedError, match="first"):
        zs.search("vanilla", first=first[:1], out=tmp_path, resume=True, **HOW)
    assert len(json.loads((tmp_path / "result.json").read_text())["history"]) == len(done.history)
