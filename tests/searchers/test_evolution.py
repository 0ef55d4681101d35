"""Zen-NAS's evolution, with made-up scores."""

from zeroshot_nas import get_space
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.searchers.base import Candidate
from zeroshot_nas.searchers.evolution import Evolution
from zeroshot_nas.spaces.base import SearchSpace

SPACE = get_space("resnet", input_size=(1, 8, 8))


def candidate(architecture, fitness):
    return Candidate(architecture, complexity(architecture), {}, fitness)


def test_the_start_comes_first_and_the_worst_leaves():
    searcher = Evolution(SPACE, python_rng(0), SPACE.initial(), population_size=3)
    assert searcher.ask(1) == [SPACE.initial()]
    for fitness in (5.0, 1.0, 4.0, 3.0, 0.5):
        searcher.tell([candidate(searcher.ask(1)[0], fitness)])
    assert [member.fitness for member in searcher.members] == [3.0, 4.0, 5.0]


def test_parents_are_drawn_evenly_from_the_population():
    class Space:
        mutate_all = SearchSpace.mutate_all

        def mutate(self, architecture, rng, mutations=1):
            parents.append((architecture, mutations))
            return architecture

    parents = []
    members = [SPACE.sample(python_rng(seed)) for seed in range(4)]
    searcher = Evolution(Space(), python_rng(0), SPACE.initial())
    searcher.ask(1)
    searcher.tell([candidate(member, index) for index, member in enumerate(members)])
    searcher.ask(4000)
    shares = [sum(parent == member for parent, _ in parents) / 4000 for member in members]
    assert all(abs(share - 0.25) < 0.035 for share in shares)  # 5 standard deviations


def test_two_mutations_once_the_population_has_grown():
    class Space:
        mutate_all = SearchSpace.mutate_all

        def mutate(self, architecture, rng, mutations=1):
            seen.append(mutations)
            return architecture

    seen = []
    searcher = Evolution(Space(), python_rng(0), SPACE.initial())
    searcher.ask(1)
    for count in range(1, 13):
        searcher.tell([candidate(SPACE.initial(), count)])
        searcher.ask(1)
    assert seen == [1] * 10 + [2] * 2
