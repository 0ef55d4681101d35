"""A strategy of your own: it proposes networks, and is told how they scored.

Budget, duplicates, screening, scoring, the store and resuming belong to the search.

    python examples/add_a_searcher.py
    zeroshot-nas search resnet --plugin examples/add_a_searcher.py --searcher hill_climbing --max-layers 12
"""

from collections.abc import Sequence

import zeroshot_nas as zs
from zeroshot_nas.testing import check_searcher


@zs.register_searcher("hill_climbing")
class HillClimbing(zs.Searcher):
    """Changes the best network so far, in one to three places."""

    best: zs.Candidate | None = None

    def ask(self, n: int) -> list[zs.Architecture]:
        parent = self.best.architecture if self.best else self.start
        return [self.space.mutate(parent, self.rng, mutations=self.rng.randint(1, 3)) for _ in range(n)]

    def tell(self, candidates: Sequence[zs.Candidate]) -> None:
        for candidate in candidates:
            if self.best is None or candidate.fitness > self.best.fitness:
                self.best = candidate


def main() -> None:
    check_searcher(HillClimbing, zs.get_space("resnet", input_size=(3, 16, 16)))

    budget = zs.Budget(params=100_000, layers=12)
    for searcher in ("hill_climbing", "regularized_evolution", "random"):
        found = zs.search(
            "resnet", "cet", budget, input_size=(3, 16, 16), searcher=searcher, proposals=2_000, progress=False
        )
        print(f"{searcher:22} {found.best.fitness:.3f}")


if __name__ == "__main__":
    main()
