"""The optimum of a chain space, with a proof."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import InfeasibleBudgetError, ProxyError, SearcherError
from zeroshot_nas.searchers.base import Candidate, Problem, Searcher, register_searcher
from zeroshot_nas.spaces.base import SearchSpace
from zeroshot_nas.spaces.chain import ChainSpace


@register_searcher("exact")
class Exact(Searcher):
    """The best network within a budget by a score that is a sum over blocks, with a certificate.

    DeepMAD (arXiv:2303.02165) states such a search as a mathematical programme and solves it by evolution. Here it is
    solved: a Lagrangian relaxation of the limits on costs, by dynamic programming over stage, width and layers, bounds
    the score from above; widths and blocks that can't lead beyond the best network so far are left out; what remains
    is enumerated, cut by the same bounds. Proposals are the networks that come up on the way, each better than all
    before, so there are a few dozen at most.

    Limits on params, FLOPs, activations, any other cost that is a sum over operations, and layers, which must be
    limited, are kept to throughout; so are widths that never shrink and bottlenecks. Latency, depth over width and
    costs of whole networks are no sums: each network is held against them alone, and the bound, which leaves them out,
    is true and may be far.

    What is proved rests on two things: the score is the sum that it says (`zeroshot_nas.closed_form.block_sum`), and
    blocks' terms have the form that `zeroshot_nas.bounds.tables.Form` states, which is read off a few blocks of each
    type and checked on a hundred others, with a relative error of 1e-9; where it does not hold, every block is
    evaluated. Where the space lets the resolution be searched, each is solved in turn.

    Args:
        space: Where to search: ``resnet``, ``mobilenet``, or another `ChainSpace` whose strides are fixed.
        rng: Not used: another seed gives the same networks.
        start: The first proposal.
        nodes: Beginnings of chains that the enumeration makes at most, at each resolution; with fewer than it takes a
            gap is left.
    """

    restarts: ClassVar[bool] = False

    def __init__(self, space: SearchSpace, rng: random.Random, start: Architecture, nodes: int = 5_000_000) -> None:
        super().__init__(space, rng, start)
        if nodes < 1:
            raise ValueError(f"nodes must be 1 or more, got {nodes}")
        self.nodes = nodes
        self._problem: Problem | None = None
        self._networks: Iterator[Architecture] | None = None
        self._optima: list[Any] = []  # those that were begun, one a resolution

    def begin(self, problem: Problem) -> None:
        """Takes note of what is searched for; `ask` begins anew.

        Raises:
            SearcherError: The score is no sum over blocks, or has no closed form here; the space is no chain with
                fixed strides; or layers are not limited.
        """
        space = self.space
        if not isinstance(space, ChainSpace) or type(space).__contains__ is not ChainSpace.__contains__:
            raise SearcherError(
                f"exact searches chains whose strides are fixed, as resnet and mobilenet, and {space.name!r} is none; "
                "take one of these, or another strategy, as regularized_evolution"
            )
        if problem.closed_form is None:
            raise SearcherError(
                f"exact searches by closed forms, and {problem.proxy} has none for {space.name!r}; take another score, "
                "as zen_closed_form, or another strategy, as regularized_evolution"
            )
        if isinstance(problem.block_sum, ProxyError):
            raise SearcherError(f"exact needs a sum over blocks: {problem.block_sum}")
        if problem.budget.layers is None:
            raise SearcherError("exact needs a limit on layers, as Budget(layers=18): depth has no bound else")
        self._problem, self._networks, self._optima = problem, None, []

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """What is proved so far; see `zeroshot_nas.searchers.base.SearchResult`."""
        if not self._optima or self._problem is None:
            return None
        found = self._together([each.certificate() for each in self._optima])
        sign = self._problem.sign
        signed = {name: value and sign * value for name, value in found.items() if name in ("bound", "best")}
        return {"proxy": self._problem.proxy, "by": "exact", **found, **signed}

    def _together(self, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What is proved at all resolutions, of what is at each so far."""
        if len(self.space.input_sizes) == 1:
            return found[0]
        bounds = [each["bound"] for each in found]
        best = max((each["best"] for each in found if each["best"] is not None), default=None)
        is_all = len(found) == len(self.space.input_sizes)
        # where no chain keeps to the limits at a resolution it is finished without a bound
        is_open = not is_all or any(each["bound"] is None and not each["finished"] for each in found)
        bound = None if is_open else max((each for each in bounds if each is not None), default=None)
        counts = [each["enumerated"] for each in found]
        return {
            **found[-1],
            "bound": bound,
            "best": best,
            "gap": None if bound is None or best is None else max(0.0, bound - best),
            "finished": is_all and all(each["finished"] for each in found),
            "enumerated": {name: sum(each[name] or 0 for each in counts) for name in counts[0]},
        }

    generation = 1  # an improvement is told as soon as it is found

    def ask(self, n: int) -> list[Architecture]:
        if self._networks is None:
            self._networks = self._improvements()
        return [network for _, network in zip(range(n), self._networks, strict=False)]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        del candidates  # what they score is known before

    def _improvements(self) -> Iterator[Architecture]:
        from zeroshot_nas.bounds.optimum import Optimum, Task, signed  # numpy, only where there is work for it

        problem, space = self._problem, self.space
        assert problem is not None, "begun"
        assert isinstance(space, ChainSpace), "or it was refused"
        assert not isinstance(problem.block_sum, ProxyError), "and so was the score"
        assert problem.block_sum is not None, "as it was without a closed form"
        score = signed(problem.block_sum, problem.sign)
        best = self._fitness(self.start) if problem.fits(self.start) else -math.inf
        for one in space.by_resolution():
            optimum = Optimum(Task(one, score, problem.budget, self.nodes))
            optimum.accept(best)
            self._optima.append(optimum)
            if len(self._optima) == 1 and best > -math.inf:
                yield self.start
            for network in optimum.improvements():
                if problem.fits(network):
                    fitness = self._fitness(network)
                    is_better = fitness > optimum.best
                    optimum.accept(fitness)
                    if is_better:
                        yield network
            best = max(best, optimum.best)
        if math.isinf(best) and all(optimum.finished for optimum in self._optima):
            structure = problem.budget.structure
            limits = problem.budget.limits() | (structure.limits() if structure else {})
            text = ", ".join(f"{name} {limit:g}" for name, limit in limits.items())
            raise InfeasibleBudgetError(
                f"no network of the space {space.name!r} keeps to {text} at once, which is proved; raise a limit"
            )

    def _fitness(self, network: Architecture) -> float:
        assert self._problem is not None, "begun"
        assert self._problem.closed_form is not None, "or it was refused"
        return self._problem.sign * self._problem.closed_form(network)
