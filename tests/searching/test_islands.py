"""Islands that pass their elites on: the same with any workers, however often stopped, and never worse for it."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from tests.searching.test_every_strategy import SMALL
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ProposalsWarning
from zeroshot_nas.searchers.base import SEARCHERS, Problem
from zeroshot_nas.searching import rounds
from zeroshot_nas.searching.screening import ELITES, Island, populations
from zeroshot_nas.searching.settings import SearchSettings

SPACE = zs.get_space("resnet", input_size=(1, 8, 8), num_classes=3, **SMALL["resnet"])
BUDGET = zs.Budget(params=20_000, layers=8)
SPEAKING = [name for name in zs.list_searchers() if SEARCHERS[name].has_members()]
OBJECTIVES = {"nsga2": ("zen", "flops")}


def search(strategy="regularized_evolution", **how):
    how = {"islands": 3, "exchanges": 2, "proposals": 270, "finalists": 9, "seed": 3, **how}
    how["objectives"] = OBJECTIVES.get(strategy)
    return zs.search(SPACE, "zen:variant=zennas", BUDGET, searcher=strategy, progress=False, **how)


def outcome(result):
    """All of a result but wall times."""
    history = [(each.architecture, each.costs, each.fitness) for each in (result.best, *result.history)]
    return history, result.counts, result.trajectory


def island(best, members=()):
    """An island that found networks of these fitnesses, told apart by their last width."""
    ranked, held = ([(fitness, network(8 * fitness)) for fitness in each] for each in (best, members))
    return Island(tuple(sorted(ranked, reverse=True)), {"proposed": 1}, {}, {}, members=tuple(held))


@cache
def network(width):
    body = "SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,8,2,8,1)"
    text = f"SuperConvK3BNRELU(1,8,1,1){body}SuperConvK1BNRELU(8,{width},1,1)"
    return zs.get_space("resnet", input_size=(1, 8, 8), num_classes=3).from_string(text)


@pytest.mark.parametrize("strategy", SPEAKING)
def test_any_workers_and_any_interruption_give_the_same(strategy, processes, tmp_path, monkeypatch):
    unbroken = outcome(search(strategy))
    assert unbroken[1].proposed == 270
    assert outcome(search(strategy, executor=processes)) == unbroken
    real, begun = rounds.screen_islands, []

    def dying(tasks, report=None):
        begun.append([task.index for task in tasks])
        if len(begun) in (2, 4):
            raise SystemExit("power cut")
        return real(tasks, report)

    monkeypatch.setattr(rounds, "screen_islands", dying)
    for resume in (False, True):
        with pytest.raises(SystemExit):
            search(strategy, out=tmp_path, resume=resume)
    assert outcome(search(strategy, out=tmp_path, resume=True)) == unbroken
    first, second, third = [0, 1, 2], [3, 4, 5], [6, 7, 8]
    assert begun == [first, second, second, third, third], "a leg that was finished is not done again"


def test_stopped_by_the_keyboard_in_a_later_leg_it_has_what_was_found(tmp_path, monkeypatch):
    real = rounds.screen_islands

    def stopped(tasks, report=None):
        if tasks[0].index == 3:
            raise KeyboardInterrupt
        return real(tasks, report)

    with monkeypatch.context() as patched:
        patched.setattr(rounds, "screen_islands", stopped)
        result = search(out=tmp_path)
    assert (result.state, result.counts.proposed) == ("interrupted", 3 * 30)
    assert outcome(search(out=tmp_path, resume=True)) == outcome(search())


def test_the_first_leg_is_that_of_islands_that_do_not_speak():
    tasks = []

    def noted(leg, report=None):
        tasks.extend(leg)
        return real(leg, report)

    real = rounds.screen_islands
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rounds, "screen_islands", noted)
        search()
        search(exchanges=0)
    spoke, alone = tasks[:9], tasks[9:]
    assert [task.index for task in spoke] == list(range(9))
    assert [task.index for task in alone] == [0, 1, 2]
    assert all(not task.population for task in [*spoke[:3], *alone])
    assert all(task.population for task in spoke[3:])
    assert sum(task.proposals for task in spoke) == sum(task.proposals for task in alone) == 270


def test_what_an_island_is_told_of_counts_as_a_duplicate_when_it_is_proposed_again():
    known = search(islands=1, exchanges=0, proposals=200, finalists=100)
    proposed = []

    class Again(SEARCHERS["random"]):
        members = ()

        def tell(self, candidates):
            proposed.extend(candidates)

        def ask(self, n):
            return [proposed[0].architecture if proposed else self.start] * n

    result = search(Again, islands=1, exchanges=1, proposals=10)
    assert result.counts.screened == 1
    assert result.counts.duplicate == 9
    assert known.counts.screened > 1


FITNESSES = st.lists(st.integers(1, 30), min_size=1, max_size=20, unique=True)


@given(st.lists(st.tuples(FITNESSES, FITNESSES), min_size=2, max_size=4))
def test_elites_go_round(islands):
    problem = Problem(zs.Budget(), "zen")
    told = populations([[island(best, members) for best, members in islands]], problem)
    for index, ((_, members), got) in enumerate(zip(islands, told, strict=True)):
        elites = sorted(islands[index - 1][0], reverse=True)[:ELITES]
        assert [value for value, _ in got] == members + [each for each in elites if each not in members]


def test_an_island_passes_on_the_best_of_all_its_legs():
    problem = Problem(zs.Budget(), "zen")
    legs = [[island([5, 1]), island([2])], [island([3], [1, 3]), island([4, 5], [4])]]
    assert [[value for value, _ in told] for told in populations(legs, problem)] == [[1, 3, 5, 4, 2], [4, 5, 3, 1]]
    assert populations([], problem) == []


@pytest.mark.parametrize("strategy", SPEAKING)
def test_a_population_is_all_that_a_strategy_has_learnt(strategy):
    known = search(strategy, islands=1, exchanges=0, proposals=300, finalists=100).history
    problem = Problem(BUDGET, "zen")
    one, other = (SEARCHERS[strategy](SPACE, python_rng(0), SPACE.initial()) for _ in range(2))
    for each in (one, other):
        each.begin(problem)
    one.tell(known)
    other.tell(one.members)
    assert {each.architecture for each in other.members} == {each.architecture for each in one.members}


@pytest.mark.parametrize(
    ("searcher", "proposals", "networks", "islands", "exchanges"),
    [
        ("regularized_evolution", 100_000, float("inf"), 4, 9),
        ("regularized_evolution", 20_000, float("inf"), 2, 9),
        ("regularized_evolution", 19_999, float("inf"), 1, 0),
        ("regularized_evolution", 1_600_000, float("inf"), 10, 9),
        ("regularized_evolution", 100_000, 15_625, 1, 0),
        ("random", 100_000, float("inf"), 1, 0),
        ("reinforce", 480_000, float("inf"), 3, 0),
        ("exact", 480_000, float("inf"), 1, 0),
    ],
)
def test_islands_by_default(searcher, proposals, networks, islands, exchanges):
    settings = SearchSettings(searcher=searcher, proposals=proposals).counted(True, networks)
    assert (settings.islands, settings.exchanges) == (islands, exchanges)
    unscreened = SearchSettings(searcher=searcher, proposals=proposals).counted(False, networks)
    assert (unscreened.islands, unscreened.exchanges) == (1, 0)


def test_settings_without_exchanges_are_filed_as_before():
    alone = SearchSettings(proposals=100).counted(True).to_dict(True)
    assert "exchanges" not in alone
    speaking = SearchSettings(proposals=100, islands=2, exchanges=3).counted(True).to_dict(True)
    assert speaking == {**alone, "islands": 2, "exchanges": 3}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"exchanges": -1}, "exchanges must be a whole number of 0 or more, got -1"),
        ({"exchanges": True}, "exchanges must be a whole number of 0 or more, got True"),
        ({"exchanges": 90}, "exchanges must be below the proposals of an island, 90, got 90"),
        ({"strategy": "random"}, "random has no population that elites could join: exchanges must be 0"),
    ],
)
def test_exchanges_that_can_not_be(how, said):
    with pytest.raises(ValueError, match=said):
        search(**how)


def test_a_study_takes_no_exchanges():
    with pytest.raises(TypeError, match="a Study takes no exchanges"):
        zs.Study(SPACE, "zen", BUDGET, exchanges=2)


@pytest.mark.filterwarnings("error", category=ProposalsWarning)
def test_every_proposal_is_made(tmp_path):
    for islands, exchanges, proposals in ((1, 3, 101), (4, 6, 123), (7, 0, 50)):
        assert search(islands=islands, exchanges=exchanges, proposals=proposals).counts.proposed == proposals
