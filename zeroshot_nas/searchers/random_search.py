"""Random search: the baseline that any strategy must beat."""

from __future__ import annotations

from collections.abc import Sequence

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.searchers.base import Candidate, Searcher, register_searcher


@register_searcher("random")
class RandomSearch(Searcher):
    """Independent samples of the space; learns nothing."""

    generation = 256

    def ask(self, n: int) -> Sequence[Architecture]:
        return self.space.sample_all(self.rng, n)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        del candidates
