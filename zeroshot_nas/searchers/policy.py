"""A policy of independent softmax choices that learns by rewards alone; the gradients are written by hand."""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from zeroshot_nas.errors import NothingFitsError

_LOGIT_RANGE = 15.0
"""Logits stay within it of their choice's largest, so that no option dies for good."""

_SMOOTHING = (0.25, 0.5, 0.25)
"""How a gradient on ordered options spreads to those beside."""

_DECAYS, _EPSILON = (0.9, 0.99), 1e-8
"""Of Adam: the moments' decays, and what keeps it from dividing by 0."""


class Draw(NamedTuple):
    """One draw of a choice.

    Attributes:
        name: Which choice.
        option: What was drawn.
        struck: Options that had been found not to fit.
    """

    name: Hashable
    option: int
    struck: frozenset[int]


class _Choice:
    """The logits of one choice, their moments by Adam, and its probabilities."""

    def __init__(self, logits: Sequence[float], ordered: bool) -> None:
        self.logits = list(logits)
        self.ordered = ordered
        self.means, self.squares, self.steps = [0.0] * len(logits), [0.0] * len(logits), 0
        self._normalise()

    def ascend(self, gradient: Sequence[float], rate: float) -> None:
        """One step of Adam (Kingma and Ba, arXiv:1412.6980) up a gradient, which is smoothed over ordered options."""
        self.steps += 1
        slow, slower = _DECAYS
        unbiased = 1 - slow**self.steps, 1 - slower**self.steps
        for option, slope in enumerate(_smoothed(gradient) if self.ordered else gradient):
            self.means[option] += (1 - slow) * (slope - self.means[option])
            self.squares[option] += (1 - slower) * (slope * slope - self.squares[option])
            deviation = math.sqrt(self.squares[option] / unbiased[1]) + _EPSILON
            self.logits[option] += rate * self.means[option] / unbiased[0] / deviation
        self._normalise()

    def _normalise(self) -> None:
        top = max(self.logits)
        self.logits = [max(logit - top, -_LOGIT_RANGE) for logit in self.logits]
        weights = [math.exp(logit) for logit in self.logits]
        total = sum(weights)
        self.probabilities = [weight / total for weight in weights]
        self.cumulated = list(itertools.accumulate(self.probabilities))


class Policy:
    r"""Choices by name, each with its own softmax; a choice is made when it is first met.

    .. math:: \pi(o) = \frac{e^{\theta_o}}{\sum_{f \text{ fits}} e^{\theta_f}}, \qquad
        \frac{\partial \log \pi(o)}{\partial \theta_k} = [k = o] - \pi(k)

    Args:
        rng: Its only source of randomness.
        learning_rate: Step size of Adam.
    """

    def __init__(self, rng: random.Random, learning_rate: float) -> None:
        self.rng = rng
        self.learning_rate = learning_rate
        self._choices: dict[Hashable, _Choice] = {}

    def probabilities(self, name: Hashable) -> list[float]:
        """The probabilities of a choice's options, those included that may not fit."""
        return list(self._choices[name].probabilities)

    def draw(
        self,
        name: Hashable,
        logits: Callable[[], Sequence[float]],
        fits: Callable[[int], bool],
        *,
        ordered: bool = False,
        monotone: bool = False,
    ) -> Draw:
        """An option that fits; the arguments are those of `zeroshot_nas.searchers.writing.Choose`.

        An option that doesn't fit is struck out and another is drawn, which is a draw from the masked softmax; options
        are asked no sooner than they are drawn.

        Raises:
            NothingFitsError: No option does.
        """
        choice = self._choices.get(name)
        if choice is None:
            choice = self._choices[name] = _Choice(logits(), ordered)
        cumulated, struck, options = choice.cumulated, frozenset[int](), len(choice.cumulated)
        while len(struck) < options:
            option = bisect_right(cumulated, self.rng.random() * cumulated[-1])
            if fits(option):
                return Draw(name, option, struck)
            struck |= frozenset(range(option, options)) if monotone else {option}
            left = (0.0 if place in struck else chance for place, chance in enumerate(choice.probabilities))
            cumulated = list(itertools.accumulate(left))
        raise NothingFitsError(name)

    def learn(self, samples: Sequence[tuple[Sequence[Draw], float]], entropy_bonus: float) -> None:
        """One step up the mean of advantage times log-probability, and of every drawn choice's entropy.

        Args:
            samples: The draws of each network, with its advantage.
            entropy_bonus: What a choice's entropy, in nats, is worth in units of the advantage.

        Example:
            >>> policy = Policy(random.Random(0), learning_rate=0.1)
            >>> for _ in range(100):
            ...     draw = policy.draw("coin", lambda: [0.0, 0.0], lambda option: True)
            ...     policy.learn([([draw], float(draw.option))], entropy_bonus=0.0)
            >>> policy.probabilities("coin")[1] > 0.9
            True
        """
        advantages: defaultdict[Hashable, defaultdict[tuple[int, frozenset[int]], float]]
        advantages = defaultdict(lambda: defaultdict(float))  # summed first: many draws are alike
        visits: defaultdict[Hashable, int] = defaultdict(int)
        for draws, advantage in samples:
            for name, option, struck in draws:
                advantages[name][option, struck] += advantage
                visits[name] += 1
        for name, of_choice in advantages.items():
            choice = self._choices[name]
            gradient = entropy_gradient(choice.probabilities, entropy_bonus * visits[name])
            add_score_gradient(gradient, choice.probabilities, of_choice)
            choice.ascend([slope / len(samples) for slope in gradient], self.learning_rate)


def entropy_gradient(probabilities: Sequence[float], weight: float) -> list[float]:
    """Of the entropy by the logits, times a weight."""
    logs = [math.log(chance) for chance in probabilities]
    entropy = -sum(chance * log for chance, log in zip(probabilities, logs, strict=True))
    return [-weight * chance * (log + entropy) for chance, log in zip(probabilities, logs, strict=True)]


def add_score_gradient(
    gradient: list[float],
    probabilities: Sequence[float],
    advantages: dict[tuple[int, frozenset[int]], float],
) -> None:
    """Adds what advantages times log-probabilities add, by options and what had been struck out."""
    by_mask: defaultdict[frozenset[int], float] = defaultdict(float)
    for (option, struck), advantage in advantages.items():
        gradient[option] += advantage
        by_mask[struck] += advantage
    for struck, advantage in by_mask.items():
        left = [option for option in range(len(probabilities)) if option not in struck]
        factor = advantage / sum(probabilities[option] for option in left)
        for option in left:
            gradient[option] -= factor * probabilities[option]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Each value mixed with its neighbours, the ends with themselves."""
    padded = [values[0], *values, values[-1]]
    before, here, after = _SMOOTHING
    return [
        before * first + here * middle + after * last
        for first, middle, last in zip(padded, values, padded[2:], strict=False)
    ]
