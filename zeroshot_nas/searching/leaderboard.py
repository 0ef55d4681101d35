"""Scored candidates and which of them lead: what a search ranks by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from zeroshot_nas.core.score import Score
from zeroshot_nas.costs.reward import Reward
from zeroshot_nas.errors import UndefinedScoreError
from zeroshot_nas.scoring.pool import aggregate_scores
from zeroshot_nas.scoring.proxy import Proxy, get_proxy
from zeroshot_nas.searchers.base import Candidate

LEADERS = 16
"""How many networks at most get more repeats than the rest."""


class Leaderboard:
    """Candidates with their scores by one proxy, or by an aggregate, which ranks each among all.

    Args:
        proxy: What to rank by.
        reward: What fitness is made of the score by; None takes the score.

    Attributes:
        parts: What is scored: the parts of an aggregate, or the proxy itself.
        history: The candidates, in the order in which they came.
        ranked: How many have been scored.
        failures: Reasons of failed scores, with how often each came.
    """

    def __init__(self, proxy: Proxy, reward: Reward | None = None) -> None:
        self.proxy = proxy
        self.reward = reward
        self.parts = tuple(get_proxy(part) for part in proxy.info.parts) or (proxy,)
        self.history: list[Candidate] = []
        self.ranked = 0
        self.failures: Counter[str] = Counter()

    @property
    def best_fitness(self) -> float:
        """Minus infinity where no candidate has a score."""
        return max((candidate.fitness for candidate in self.history), default=-math.inf)

    @property
    def best(self) -> Candidate:
        """The fittest candidate, of equals the first."""
        return max(self.history, key=lambda candidate: candidate.fitness)

    def add(self, candidate: Candidate, scores: Mapping[str, Score]) -> Candidate:
        """Enters a candidate with its scores by proxy key; an aggregate's fitness is there after `join`."""
        self.ranked += any(score.ok for score in scores.values())
        self.history.append(self._scored(candidate, scores))
        return self.history[-1]

    def rescore(self, place: int, scores: Mapping[str, Score]) -> None:
        """Replaces the scores of a candidate of the history by more certain ones."""
        self.history[place] = self._scored(self.history[place], scores)

    def join(self) -> list[Candidate]:
        """Gives every candidate its aggregate among all of them; the history."""
        key = self.proxy.key
        joined = aggregate_scores(self.proxy, [candidate.scores for candidate in self.history])
        for place, (candidate, score) in enumerate(zip(self.history, joined, strict=True)):
            others = {name: value for name, value in candidate.scores.items() if name != key}
            fitness = self._fitness(score, candidate)
            self.history[place] = replace(candidate, scores={key: score, **others}, fitness=fitness)
        return self.history

    def leaders(self) -> list[int]:
        """Places of the fittest candidates that a standard error does not tell from the best, the fittest first."""
        errors = [self._standard_error(candidate) for candidate in self.history]
        # of few repeats each alone says little
        pooled = math.sqrt(sum(error**2 for error in errors) / max(1, len(errors)))
        order = sorted(range(len(self.history)), key=lambda place: self.history[place].fitness, reverse=True)
        threshold = self.history[order[0]].fitness - 4 * pooled if order else math.inf
        return [place for place in order[:LEADERS] if self.history[place].fitness >= threshold]

    def _scored(self, candidate: Candidate, scores: Mapping[str, Score]) -> Candidate:
        self.failures.update(score.reason for score in scores.values() if not score.ok)
        others = {key: score for key, score in candidate.scores.items() if key not in scores}
        fitness = -math.inf if self.proxy.info.parts else self._fitness(scores[self.proxy.key], candidate)
        return replace(candidate, scores={**scores, **others}, fitness=fitness)

    def _fitness(self, score: Score, candidate: Candidate) -> float:
        if not score.ok:
            return -math.inf
        fitness = self.proxy.sign * score.value
        if self.reward is None:
            return fitness
        try:
            return self.reward.of_costs(fitness, candidate.costs)
        except UndefinedScoreError as error:
            self.failures[str(error)] += 1
            return -math.inf

    def _standard_error(self, candidate: Candidate) -> float:
        """Of a candidate's fitness; 0 where it is unknown."""
        error = candidate.scores[self.proxy.key].standard_error or 0.0
        if self.reward is None or not self.reward.scales or not math.isfinite(candidate.fitness):
            return error
        return self.reward.of_costs(error, candidate.costs)  # which is linear in the score
