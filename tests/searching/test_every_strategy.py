"""Strategy x space x screen x executor x kill: a search is right and the same, or it is refused in one line."""

import math
import re
import warnings

import pytest

import zeroshot_nas as zs
from tests.searching.test_every_space import SMALL as SMALL_CELLS
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ProposalsWarning, SearcherError
from zeroshot_nas.runs import evaluate as evaluating
from zeroshot_nas.searchers.base import SEARCHERS
from zeroshot_nas.searching import rounds

pytestmark = pytest.mark.filterwarnings("ignore::zeroshot_nas.errors.ProposalsWarning")

SMALL = {**SMALL_CELLS, **{name: {"max_width": 32} for name in ("resnet", "mobilenet", "vanilla", "inverted")}}
"""Options that make a space's networks quick to build, and to enumerate."""

STRATEGIES = zs.list_searchers()


def widest(network, batch):
    """A proxy that runs nothing."""
    return float(max(weight.shape[0] for weight in network.parameters()))


KINDS = {
    "screened": {"proxy": "params", "proposals": 80, "finalists": 6},
    "ranked": {"proxy": widest, "proposals": 12, "repeats": 1},
}


QUICK = {"gradient": {"starts": 3}}
"""Options that make a strategy quick."""

RANKED = ("resnet", "nasbench201")
"""Spaces whose networks are built for every strategy: a chain, and cells of a list."""


def space_named(name):
    return zs.get_space(name, input_size=(1, 8, 8), num_classes=3, **SMALL.get(name, {}))


def budget_of(space):
    """What half of the random networks keep to."""
    rng = python_rng(1)
    costs = [complexity(space.sample(rng)) for _ in range(15)]
    middle = {name: sorted(each[name] for each in costs)[7] for name in ("params", "flops", "layers")}
    return zs.Budget(**middle)


def search(strategy, space, kind, **how):
    how = {**KINDS[kind], "progress": False, "seed": 3, **QUICK.get(strategy, {}), **how}
    return zs.search(space, budget=budget_of(space), searcher=strategy, **how)


def outcome(result):
    """All of a result but wall times."""
    return [(each.architecture, each.costs, each.fitness) for each in (result.best, *result.history)], result.counts


@pytest.fixture(scope="module", params=zs.list_spaces())
def space(request):
    return space_named(request.param)


@pytest.fixture(scope="module", params=STRATEGIES)
def strategy(request):
    return request.param


@pytest.fixture(scope="module", params=KINDS)
def kind(request, space):
    if request.param == "ranked" and space.name not in RANKED:
        pytest.skip("to build networks takes long")
    return request.param


@pytest.fixture(scope="module")
def unbroken(strategy, space, kind):
    """The outcome of a search that nothing disturbs; a strategy that can't search the space is done with here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProposalsWarning)
        try:
            return outcome(search(strategy, space, kind))
        except SearcherError as error:
            said = str(error)
    assert re.fullmatch(f".*{space.name}.*take .*", said), (
        "it names neither the space nor what to do, or takes two lines"
    )
    return pytest.skip(f"refused: {said}")


def test_a_search_keeps_to_the_space_and_the_budget(strategy, space, unbroken):
    (best, *history), counts = unbroken
    budget = budget_of(space)
    assert best[2] == max(fitness for *_, fitness in history) > -math.inf
    for network, costs, _ in history:
        assert network in space
        assert costs == complexity(network)
        assert not budget.violations(costs, network)
    assert len({network for network, *_ in history}) == len(history) == counts.ranked


def test_a_search_that_was_killed_goes_on_in_other_processes_as_if_it_never_was(
    strategy, space, kind, unbroken, processes, tmp_path, monkeypatch
):
    calls = []

    def dying(function):
        def run(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                raise SystemExit("power cut")
            return function(*arguments)

        return run

    with monkeypatch.context() as patched:
        patched.setattr(evaluating, "compute", dying(evaluating.compute))
        patched.setattr(rounds, "screen_islands", dying(rounds.screen_islands))
        with pytest.raises(SystemExit):
            search(strategy, space, kind, out=tmp_path)
    assert outcome(search(strategy, space, kind, out=tmp_path, resume=True, executor=processes)) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_islands_are_the_same_in_other_processes_and_what_another_seed_makes_of_them(strategy, processes):
    space, how = space_named("resnet"), {"islands": 2, "finalists": 60}
    runs = ({"seed": 3}, {"seed": 3, "executor": processes}, {"seed": 4})
    outcomes = [outcome(search(strategy, space, "screened", **run, **how)) for run in runs]
    assert outcomes[0] == outcomes[1]
    assert (outcomes[0] == outcomes[2]) is not SEARCHERS[strategy].restarts


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", zs.list_spaces())
def test_a_strategy_needs_no_budget(strategy, name):
    space = space_named(name)
    try:
        how = {"proposals": 40, "finalists": 5, "progress": False, **QUICK.get(strategy, {})}
        result = zs.search(space, "params", searcher=strategy, **how)
    except SearcherError:
        return
    assert result.counts.over_budget == 0
    assert result.best.fitness > -math.inf
