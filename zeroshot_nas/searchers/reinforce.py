"""REINFORCE: a policy writes networks token by token, and learns from their scores."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Hashable, Sequence

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import NothingFitsError
from zeroshot_nas.searchers.base import Candidate, Problem, Searcher, register_searcher
from zeroshot_nas.searchers.policy import Draw, Policy
from zeroshot_nas.searchers.writing import writer_of
from zeroshot_nas.spaces.base import SearchSpace

ADVANTAGE_LIMIT = 3.0
"""Advantages beyond it, in mean deviations, are cut: a score far out moves the policy no further."""

REMEMBERED = 200_000
"""Rewards that are remembered at most, for networks that are written again."""

_REPAIRS = 300
"""Mutations that a start that exceeds the budget is tried to be mended by."""

_TRIES = 100
"""Networks that are begun and given up before the strategy has no more to propose."""


@register_searcher("reinforce")
class Reinforce(Searcher):
    r"""Policy gradient (Williams, Machine Learning 8, 1992; Zoph and Le, arXiv:1611.01578).

    .. math:: \theta \leftarrow \theta + \eta \sum_i \frac{R_i - b}{s} \nabla_\theta \log \pi_\theta(a_i)
        + \beta \nabla_\theta H(\pi_\theta)

    The reward R is the fitness; the moving baseline b is a decaying mean of batches' means, and s one of their mean
    deviations from the median, so that a score of any scale teaches as much. Beta falls from ``entropy_bonus`` to 0 at
    the last proposal where their number is known.

    The policy is factorised: a softmax for each token, whatever the tokens before it were. Tokens are, for chains, the
    stem's, each body block's stride (or the end), type, sub-layers, bottleneck width and width, and the last
    convolution's; for spaces such as ``nasbench201``, each position of the genotype. The budget masks tokens
    (`zeroshot_nas.searchers.writing`): no proposal exceeds it, and none is punished for it.

    On ``resnet`` within 1M parameters and 18 layers, 10,000 proposals (some 25 s of a core) reach 99.96 % of the best
    `cet` that 100,000 of regularized evolution reach, and 100.2 % of the best closed form of `zen`; medians of five
    seeds. A proposal takes some seven times as long as evolution's: what the mask has to know of costs is most of it.

    Departures from Zoph and Le: factorised in place of an LSTM, since a chain's places differ more than its contexts;
    Adam's steps per choice; gradients on widths and depths are smoothed over neighbouring values; a network that is
    written again teaches by the reward that it had. The first proposal is the start.

    Args:
        space: A `ChainSpace` or a `zeroshot_nas.spaces.genotypes.DigitSpace`.
        rng: Its only source of randomness.
        start: The first proposal, and a guide to what leaves room for the rest.
        learning_rate: Step size.
        entropy_bonus: Worth of a nat of a token's entropy at first, in units of the scaled reward.
        networks_per_step: Networks that a step learns from.
        baseline_decay: What a step leaves of the baseline and its scale.

    Raises:
        SearcherError: The space's networks are written in no tokens.
        ValueError: An option is out of its range.

    Example:
        >>> from zeroshot_nas.spaces.base import get_space
        >>> space = get_space("resnet", input_size=(1, 8, 8))
        >>> searcher, problem = Reinforce(space, random.Random(0), space.initial()), Problem(Budget(params=9e3), "cet")
        >>> searcher.begin(problem)
        >>> all(problem.fits(network) for network in searcher.ask(50))
        True
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: random.Random,
        start: Architecture,
        learning_rate: float = 0.05,
        entropy_bonus: float = 0.1,
        networks_per_step: int = 32,
        baseline_decay: float = 0.9,
    ) -> None:
        super().__init__(space, rng, start)
        for name, value, is_usable, expected in (
            ("learning_rate", learning_rate, 0 < learning_rate < math.inf, "a number above 0"),
            ("entropy_bonus", entropy_bonus, 0 <= entropy_bonus < math.inf, "a number of 0 or more"),
            ("networks_per_step", networks_per_step, networks_per_step >= 1, "1 or more"),
            ("baseline_decay", baseline_decay, 0 <= baseline_decay < 1, "from 0 to below 1"),
        ):
            if not is_usable:
                raise ValueError(f"{name} must be {expected}, got {value!r}")
        self.policy = Policy(rng, learning_rate)
        self.entropy_bonus = entropy_bonus
        self.networks_per_step = self.generation = networks_per_step
        self.baseline_decay = baseline_decay
        self._baseline: tuple[float, float] | None = None  # with its scale
        self._rewards: dict[int, float] = {}
        self._batch: list[tuple[int, list[Draw]]] = []
        self._written = 0
        self.begin(Problem(Budget(), ""))

    def begin(self, problem: Problem) -> None:
        if not problem.fits(self.start):
            self.start = _within(problem, self.space, self.start, self.rng)
        self._writer = writer_of(self.space, problem, self.start)
        self._problem = problem

    def ask(self, n: int) -> list[Architecture]:
        proposals = []
        if n and not self._written:
            self._written = 1
            if self._problem.fits(self.start):
                proposals.append(self.start)
        while len(proposals) < n and (architecture := self._propose()) is not None:
            proposals.append(architecture)
        return proposals

    def tell(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if math.isfinite(candidate.fitness):
                self._rewards[hash(candidate.architecture)] = candidate.fitness
        if len(self._rewards) > REMEMBERED:
            for key in list(itertools.islice(self._rewards, REMEMBERED // 2)):
                del self._rewards[key]

    def _propose(self) -> Architecture | None:
        if (
            self._written % self.networks_per_step == 0
        ):  # so that all of a step's are scored where so many are asked for
            self._learn()
        for _ in range(_TRIES):
            draws: list[Draw] = []
            try:
                architecture = self._writer.write(self._recorded(draws))
            except NothingFitsError:
                continue
            self._batch.append((hash(architecture), draws))
            self._written += 1
            return architecture
        return None

    def _recorded(self, draws: list[Draw]) -> Callable[..., int]:
        draw_option = self.policy.draw

        def choose(
            name: Hashable,
            logits: Callable[[], Sequence[float]],
            fits: Callable[[int], bool],
            *,
            ordered: bool = False,
            monotone: bool = False,
        ) -> int:
            draw = draw_option(name, logits, fits, ordered=ordered, monotone=monotone)
            draws.append(draw)
            return draw.option

        return choose

    def _learn(self) -> None:
        """One step by the batch's networks whose rewards are known; others failed, or are still being scored."""
        samples = [(draws, self._rewards[key]) for key, draws in self._batch if key in self._rewards]
        self._batch.clear()
        if not samples:
            return
        rewards = [reward for _, reward in samples]
        middle = statistics.median(rewards)
        own = statistics.fmean(rewards), statistics.fmean(abs(reward - middle) for reward in rewards)
        mean, scale = (
            self.baseline_decay * before + (1 - self.baseline_decay) * now
            for before, now in zip(self._baseline or own, own, strict=True)
        )
        self._baseline = mean, scale
        advantages = [(reward - mean) / scale if scale > 0 else 0.0 for reward in rewards]
        cut = [max(-ADVANTAGE_LIMIT, min(ADVANTAGE_LIMIT, advantage)) for advantage in advantages]
        done = self._written / self._problem.proposals if self._problem.proposals else 0.0
        bonus = self.entropy_bonus * max(0.0, 1.0 - done)
        self.policy.learn([(draws, advantage) for (draws, _), advantage in zip(samples, cut, strict=True)], bonus)


def _within(problem: Problem, space: SearchSpace, architecture: Architecture, rng: random.Random) -> Architecture:
    """A network mutated until it keeps to the budget, or as near as that comes."""

    def excess(candidate: Architecture) -> float:
        violations = problem.budget.violations(problem.costs(candidate), candidate)
        return sum(violation.value / violation.limit - 1 for violation in violations)

    least = excess(architecture)
    for _ in range(_REPAIRS):
        if least <= 0:
            break
        mutant = space.mutate(architecture, rng)
        if (now := excess(mutant)) <= least:
            architecture, least = mutant, now
    return architecture
