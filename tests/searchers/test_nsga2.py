"""NSGA-II, with made-up scores."""

import pytest

from zeroshot_nas import get_space
from zeroshot_nas.core.pareto import nondominated_ranks
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.searchers.base import Candidate, Problem
from zeroshot_nas.searchers.front import Objective
from zeroshot_nas.searchers.nsga2 import NSGA2
from zeroshot_nas.spaces.base import SearchSpace

SPACE = get_space("resnet", input_size=(1, 8, 8))
PROBLEM = Problem(Budget(), "made_up", objectives=(Objective("made_up", "score", "higher"), Objective("flops")))
NETS = [SPACE.sample(python_rng(seed)) for seed in range(40)]


def candidate(architecture, fitness, flops):
    return Candidate(architecture, Costs(1, flops, 1, 1), {}, fitness)


def searcher(space=SPACE, **options):
    made = NSGA2(space, python_rng(0), SPACE.initial(), **options)
    made.begin(PROBLEM)
    return made


def test_the_start_comes_first_and_the_first_generation_grows_from_it():
    made = searcher(population_size=4)
    first, *others = made.ask(6)
    assert first == SPACE.initial()
    assert set(others) - {first}
    assert all(other in SPACE for other in others)


def test_the_better_front_stays_and_the_crowded_leave():
    made = searcher(population_size=4)
    line = [candidate(net, value, value) for net, value in zip(NETS, (1, 5, 6, 9), strict=False)]
    made.tell(line)
    assert made.population == line
    better = [candidate(net, fitness, 1) for net, fitness in zip(NETS[4:], (2, 1, 1, 1), strict=False)]
    made.tell(better)
    # of the front (2, 1), (5, 5), (6, 6), (9, 9), which has no room for more, nobody leaves
    assert sorted((each.fitness, each.costs.flops) for each in made.population) == [(2, 1), (5, 5), (6, 6), (9, 9)]
    made.tell([candidate(net, 5.5, 5.5) for net in NETS[8:12]])
    points = [(each.fitness, each.costs.flops) for each in made.population]
    assert {(2, 1), (9, 9)} <= set(points)
    assert len(points) == 4


def test_no_member_is_behind_one_that_left():
    rng = python_rng(3)
    made = searcher(population_size=10)
    told = [candidate(NETS[n % 40], rng.randrange(20), rng.randrange(20)) for n in range(20)]
    made.tell(told)
    ranks = nondominated_ranks([PROBLEM.point(each) for each in told]).tolist()
    rank_of = {id(each): rank for each, rank in zip(told, ranks, strict=True)}
    kept = [rank_of[id(each)] for each in made.population]
    assert len(kept) == 10
    assert max(kept) <= min(rank for each, rank in zip(told, ranks, strict=True) if each not in made.population)


def test_parents_win_a_tournament_by_front_then_by_crowding():
    class Space:
        mutate_all = SearchSpace.mutate_all

        def mutate(self, architecture, rng, mutations=1):
            parents.append(architecture)
            return architecture

        def crossover(self, a, b, rng):
            crossed.append((a, b))
            return a

    parents, crossed = [], []
    made = searcher(Space(), population_size=4, crossover_rate=0)
    made.ask(1)
    made.tell([candidate(net, fitness, 5) for net, fitness in zip(NETS, (4, 3, 2, 1), strict=False)])  # four fronts
    made.ask(4000)
    for rank in range(4):
        expected = ((4 - rank) / 4) ** 2 - ((3 - rank) / 4) ** 2  # the better of two drawn evenly is of this front
        assert abs(parents.count(NETS[rank]) / 4000 - expected) < 0.035
    assert not crossed
    made.crossover_rate = 1
    made.ask(50)
    assert len(crossed) == 50


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"population_size": 1}, "population_size must be 2 or more, got 1"),
        ({"crossover_rate": 1.5}, "crossover_rate must be between 0 and 1, got 1.5"),
    ],
)
def test_options_are_checked(option, message):
    with pytest.raises(ValueError, match=message):
        searcher(**option)
