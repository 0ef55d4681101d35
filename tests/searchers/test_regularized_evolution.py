"""Regularized evolution, with made-up scores."""

import pytest

from zeroshot_nas import get_space
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.searchers.base import Candidate
from zeroshot_nas.searchers.regularized_evolution import RegularizedEvolution
from zeroshot_nas.spaces.base import SearchSpace

SPACE = get_space("resnet", input_size=(1, 8, 8))


def candidate(architecture, fitness):
    return Candidate(architecture, complexity(architecture), {}, fitness)


def test_the_start_comes_first_and_the_oldest_leaves():
    searcher = RegularizedEvolution(SPACE, python_rng(0), SPACE.initial(), population_size=3)
    assert searcher.ask(1) == [SPACE.initial()]
    for fitness in (5.0, 1.0, 4.0, 3.0, 0.5):
        searcher.tell([candidate(searcher.ask(1)[0], fitness)])
    assert [member.fitness for member in searcher.members] == [4.0, 3.0, 0.5]


def test_parents_win_a_tournament():
    class Space:
        mutate_all = SearchSpace.mutate_all

        def mutate(self, architecture, rng, mutations=1):
            parents.append(architecture)
            counts.append(mutations)
            return architecture

    parents, counts = [], []
    members = [SPACE.sample(python_rng(seed)) for seed in range(4)]
    searcher = RegularizedEvolution(Space(), python_rng(0), SPACE.initial(), tournament_size=3)
    searcher.ask(1)
    searcher.tell([candidate(member, index) for index, member in enumerate(members)])
    searcher.ask(4000)
    for rank, member in enumerate(members):
        expected = ((rank + 1) / 4) ** 3 - (rank / 4) ** 3  # the best of three drawn evenly is of this rank
        assert abs(parents.count(member) / 4000 - expected) < 0.035
    assert set(counts) == {1, 2}
    assert abs(counts.count(2) / 4000 - 0.5) < 0.04


@pytest.mark.parametrize("option", ["population_size", "tournament_size", "generation_size"])
def test_sizes_are_checked(option):
    with pytest.raises(ValueError, match=f"{option} must be 1 or more, got 0"):
        RegularizedEvolution(SPACE, python_rng(0), SPACE.initial(), **{option: 0})
