r"""How well scores order networks of one size. numpy and scipy alone, no torch here.

A search compares networks that fill the same budget, and most of what a benchmark rewards is size: a score that counts
parameters agrees with accuracy over all networks and says nothing there. Two figures say what is left: Kendall's tau
between networks of one size (`kendall_within`), and what the choice under a budget lacks to the best under it
(`regret_under`), over a sweep of budgets.

Scores and accuracies are those of `zeroshot_nas.nasbench.agreement`: higher is better, NaN is worse than every number.
Intervals are percentile bootstraps over networks; bins and budgets stay those of the whole sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from zeroshot_nas.nasbench.agreement import Floats, checked, draw_members, limits_of

Ints: TypeAlias = NDArray[np.int64]
Copies: TypeAlias = NDArray[np.float32]
Drawn: TypeAlias = NDArray[np.bool_]

BINS, LEAST_MEMBERS = 20, 10
"""Quantile bins, and how many networks each has at least: of fewer than 200 networks there are fewer bins."""

EXACT_PAIRS, EXACT_MEMBERS = 0.02, 0.9
"""Bins are groups of exactly equal cost where at least this part of all pairs of networks has equal costs (as much as
50 quantile bins would leave), and at least this part of the networks has an equal."""

BUDGETS = 20
"""Budgets of a sweep, at quantiles .05, .1, ... 1 of the costs; equal ones count once."""

CHOICES = 5
"""Networks of best score that somebody trains to keep the best of them."""

_PREFIX = 64  # networks of best score among which the first five of a resample all but surely are
_BLOCK = 1 << 18  # entries of a block that stays in the cache


@dataclass(frozen=True)
class EqualBudget:
    """How well one proxy orders networks of equal cost; None stands where a figure is undefined.

    Attributes:
        kendall: `kendall_within` bins of equal cost.
        kendall_interval: Its bootstrap interval over networks.
        regret: `regret_under` of the first choice, the mean over the budgets, in the unit of the accuracy.
        regret_interval: Its bootstrap interval.
        regret_of_five: The same where the five networks of best score are trained and the best of them is kept.
        regret_of_five_interval: Its bootstrap interval.
        regrets: Of the first choice, budget by budget.
        regrets_of_five: Of the best of five, budget by budget.
    """

    kendall: float | None = None
    kendall_interval: tuple[float, float] | None = None
    regret: float | None = None
    regret_interval: tuple[float, float] | None = None
    regret_of_five: float | None = None
    regret_of_five_interval: tuple[float, float] | None = None
    regrets: tuple[float, ...] = ()
    regrets_of_five: tuple[float, ...] = ()


@dataclass(frozen=True)
class BudgetSweep:
    """Networks by one of their costs: the bins of equal cost and the budgets.

    Attributes:
        networks: How many have this cost.
        exact: Whether the bins are groups of exactly equal cost; otherwise they are quantile bins.
        bins: How many there are.
        pairs: Pairs of networks within bins.
        budgets: Upper limits on the cost, ascending; the last is the largest cost.
        random: What a random order has in expectation: a tau of 0, and the regrets of a random choice; no intervals.
    """

    networks: int
    exact: bool
    bins: int
    pairs: int
    budgets: tuple[float, ...]
    random: EqualBudget


def budget_bins(costs: ArrayLike, bins: int | None = None) -> tuple[Ints, bool]:
    """Bins of networks of equal cost.

    Where many networks share exactly one cost, as in NAS-Bench-201 with its 28 different numbers of parameters, each
    cost is a bin: where at least a fiftieth of all pairs has equal costs, and nine of ten networks have an equal.
    Otherwise bins are quantiles of the cost. Networks of equal cost are never parted.

    Args:
        costs: One finite number a network.
        bins: Quantile bins; default: 20, or as many as have ten networks each, but two at least.

    Returns:
        The number of each network's bin, from 0 on, ascending with the cost; and whether each cost is a bin.

    Raises:
        ValueError: A cost is not finite, or ``bins`` is below 1.

    Example:
        >>> labels, exact = budget_bins([5, 1, 5, 1, 1])
        >>> labels.tolist(), exact
        ([1, 0, 1, 0, 0], True)
        >>> labels, exact = budget_bins([3, 1, 4, 15, 9, 2], bins=2)
        >>> labels.tolist(), exact
        ([0, 0, 1, 1, 1, 0], False)
    """
    values = np.asarray(costs, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("costs must be one finite number a network; leave out the networks that have none")
    if bins is not None and (isinstance(bins, bool) or not isinstance(bins, int) or bins < 1):
        raise ValueError(f"bins must be a whole number of 1 or more, got {bins!r}")
    count = len(values)
    if not count:
        return np.zeros(0, dtype=np.int64), False
    _, ranks, sizes = np.unique(values, return_inverse=True, return_counts=True)
    equal_pairs = int((sizes * (sizes - 1)).sum())
    shared = equal_pairs >= EXACT_PAIRS * count * (count - 1) and sizes[sizes > 1].sum() >= EXACT_MEMBERS * count
    if bins is None and shared:
        return ranks, True
    number = bins if bins is not None else max(2, min(BINS, count // LEAST_MEMBERS))
    middles = np.cumsum(sizes) - sizes / 2  # of the places that networks of one cost share
    quantiles = np.floor(number * middles / count).astype(np.int64)
    return np.unique(quantiles[ranks], return_inverse=True)[1], False


def kendall_within(scores: ArrayLike, accuracy: ArrayLike, bins: ArrayLike) -> float:
    r"""Kendall's tau-b of pairs of networks within one bin; pairs of different bins do not count.

    .. math:: \tau = \frac{\sum_b (C_b - D_b)}
        {\sqrt{\sum_b (P_b - S_b) \sum_b (P_b - A_b)}}

    with, of the P_b pairs of bin b, C_b in the same order and D_b in the opposite one, S_b tied in score and A_b in
    accuracy: tau-b's definition with all counts summed over the bins, so that a bin weighs as its pairs do. With one
    bin it is tau-b.

    Args:
        scores: One number a network, higher is better; NaN is worse than all.
        accuracy: Their accuracy.
        bins: The bin of each, as `budget_bins` numbers them.

    Returns:
        The tau; NaN where no pair within a bin differs in score, or none in accuracy.

    Raises:
        ValueError: The lengths differ, or an accuracy is not finite.

    Example:
        >>> kendall_within([1, 2, 11, 12], [10, 20, 40, 30], [0, 0, 1, 1])  # one pair against one
        0.0
    """
    own, true = checked(scores, accuracy)
    return float(_taus(own, true, _labels(bins, own), np.ones((len(own), 1), dtype=np.float32))[0])


def budgets_of(costs: ArrayLike, count: int = BUDGETS) -> Floats:
    """Budgets at equally spaced quantiles of the costs, equal ones once; the last is the largest cost.

    Example:
        >>> budgets_of([10, 20, 30, 40, 50, 60], count=3).tolist()
        [20.0, 40.0, 60.0]
    """
    values = np.asarray(costs, dtype=np.float64)
    return np.unique(np.quantile(values, np.arange(1, count + 1) / count, method="inverted_cdf"))


def regret_under(scores: ArrayLike, accuracy: ArrayLike, costs: ArrayLike, budgets: ArrayLike, k: int = 1) -> Floats:
    r"""What the best of a score's k first choices lacks to the best network, for each budget.

    .. math:: r(B) = \max_{i: c_i \le B} a_i - E \max_{i \in K(B)} a_i

    with K(B) the k networks of best score among those within the budget, all of them where there are fewer. Where the
    k-th place is tied, E is the mean over all ways to break the tie, in closed form: of m tied networks, s of which are
    chosen, the i-th best is the best of those chosen in C(m - i, s - 1) of C(m, s) ways. So a constant score has the
    regret of a random choice.

    Args:
        scores: One number a network, higher is better; NaN is worse than all.
        accuracy: Their accuracy.
        costs: What each costs.
        budgets: Upper limits on the cost.
        k: How many are chosen; the best of them is kept.

    Returns:
        One number a budget, in the unit of the accuracy; NaN where no network is within the budget.

    Raises:
        ValueError: The lengths differ, an accuracy is not finite, or ``k`` is below 1.

    Example:
        >>> scores, accuracy, params = [1, 3, 2], [70, 80, 90], [1, 2, 3]
        >>> regret_under(scores, accuracy, params, [1, 2, 3]).tolist()
        [0.0, 0.0, 10.0]
        >>> regret_under([7, 7, 7], accuracy, params, [3], k=2).round(2).tolist()  # 80, 90 or 90
        [3.33]
    """
    own, true = checked(scores, accuracy)
    prices, _ = checked(costs, accuracy)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be a whole number of 1 or more, got {k!r}")
    everyone = np.ones((1, len(own)), dtype=bool)
    limits = np.asarray(budgets, dtype=np.float64)
    (best,), (chosen,) = (_chosen(order, true, prices, limits, everyone, (k,)) for order in (true, own))
    regrets: Floats = np.maximum(best - chosen, 0)[0]  # chances sum to 1 but for rounding
    return regrets


def equal_budgets(
    scores: Mapping[str, Sequence[float]],
    accuracy: ArrayLike,
    costs: Mapping[str, ArrayLike],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, BudgetSweep], dict[str, dict[str, EqualBudget]]]:
    """All figures at equal budget: of every score, for every kind of cost.

    A resample of the bootstrap draws as many networks as there are, with replacement. Its tau counts a network as often
    as it was drawn; its regrets are among the networks that were drawn, since the same network is not trained twice.
    All scores meet the same resamples.

    Args:
        scores: By proxy; higher is better, NaN is worse than all.
        accuracy: The networks' accuracy.
        costs: By kind, such as ``"flops"``; networks whose cost is not finite are left out of its figures, and a kind
            that fewer than three networks have is left out whole.
        level: Level of the intervals.
        resamples: Resamples of the bootstrap.
        seed: Its seed.

    Returns:
        The sweep of each kind of cost, and for each proxy its figures by kind. A score that is NaN throughout has none.

    Raises:
        ValueError: The lengths differ, or an accuracy is not finite.

    Example:
        >>> sweeps, figures = equal_budgets({"good": [1, 2, 4, 3]}, [70, 80, 90, 85], {"flops": [1, 1, 2, 2]})
        >>> sweeps["flops"].exact, sweeps["flops"].budgets, figures["good"]["flops"].kendall
        (True, (1.0, 2.0), 1.0)
    """
    sweeps: dict[str, BudgetSweep] = {}
    figures: dict[str, dict[str, EqualBudget]] = {proxy: {} for proxy in scores}
    for kind, prices in costs.items():
        values = np.asarray(prices, dtype=np.float64)
        known = np.isfinite(values)
        if known.sum() < 3:
            continue
        sample = _Sample(values[known], np.asarray(accuracy, dtype=np.float64)[known], level, resamples, seed)
        sweeps[kind] = sample.sweep()
        for proxy, numbers in scores.items():
            figures[proxy][kind] = sample.figures(np.asarray(numbers, dtype=np.float64)[known])
    return sweeps, figures


class _Sample:
    """Networks with one of their costs, and the resamples that all scores share."""

    def __init__(self, costs: Floats, accuracy: Floats, level: float, resamples: int, seed: int) -> None:
        self.costs, self.accuracy, self.level = costs, accuracy, level
        self.bins, self.exact = budget_bins(costs)
        self.budgets = budgets_of(costs)
        everyone = np.ones(len(costs), dtype=np.float32)
        draws = draw_members(len(costs), resamples, seed)
        copies = [np.bincount(drawn, minlength=len(costs)).astype(np.float32) for drawn in draws]
        rows = np.array([everyone, *copies])  # the sample itself first
        self.copies, self.drawn = np.ascontiguousarray(rows.T), rows > 0
        (self.best,) = _chosen(accuracy, accuracy, costs, self.budgets, self.drawn, (1,))

    def sweep(self) -> BudgetSweep:
        sizes = np.bincount(self.bins)
        return BudgetSweep(
            networks=len(self.costs),
            exact=self.exact,
            bins=len(sizes),
            pairs=int((sizes * (sizes - 1)).sum()) // 2,
            budgets=tuple(map(float, self.budgets)),
            random=EqualBudget(kendall=0.0, **self._regrets(np.zeros(len(self.costs)), resamples=0)),
        )

    def figures(self, scores: Floats) -> EqualBudget:
        if np.isnan(scores).all():
            return EqualBudget()
        own, true = checked(scores, self.accuracy)
        tau, interval = self._summary(_taus(own, true, self.bins, self.copies))
        return EqualBudget(kendall=tau, kendall_interval=interval, **self._regrets(own))

    def _regrets(self, own: Floats, resamples: int | None = None) -> dict[str, Any]:
        """The figures of both regrets; in all resamples, or in so many."""
        rows = None if resamples is None else 1 + resamples
        found: dict[str, Any] = {}
        chosen = _chosen(own, self.accuracy, self.costs, self.budgets, self.drawn[:rows], (1, CHOICES))
        for accuracies, name in zip(chosen, ("regret", "regret_of_five"), strict=True):
            each = np.maximum(self.best[:rows] - accuracies, 0)  # chances sum to 1 but for rounding
            defined = ~np.isnan(each)
            sums, counts = np.where(defined, each, 0).sum(axis=1), defined.sum(axis=1)
            found[name], found[f"{name}_interval"] = self._summary(
                np.divide(sums, counts, out=np.full(len(sums), math.nan), where=counts > 0)
            )
            found[name.replace("regret", "regrets")] = tuple(map(float, each[0]))
        return found

    def _summary(self, values: Floats) -> tuple[float | None, tuple[float, float] | None]:
        """The figure of the sample itself, which stands first, and its interval."""
        if math.isnan(values[0]):
            return None, None
        low, high = limits_of(values[1:], self.level)
        return float(values[0]), None if math.isnan(low) else (low, high)


def _labels(bins: ArrayLike, scores: Floats) -> Ints:
    labels = np.unique(np.asarray(bins), return_inverse=True)[1]
    if labels.shape != scores.shape:
        raise ValueError(f"expected one bin a network, {len(scores)} in all, got shape {labels.shape}")
    return labels


def _taus(own: Floats, true: Floats, bins: Ints, copies: Copies) -> Floats:
    """Tau within bins of every resample, a column of ``copies``: how often each network was drawn.

    Counts of pairs are quadratic forms in the copies; all sums are whole numbers that floating point holds exactly.
    """
    ranks = [np.unique(values, return_inverse=True)[1] for values in (own, true)]
    by_score, by_accuracy = (each.astype(np.float32) for each in ranks)
    surplus = np.zeros(copies.shape[1])
    for members in _members(bins):
        surplus += _surplus(by_score[members], by_accuracy[members], copies[members])
    within = _squares(bins, copies)
    apart = [within - _squares(bins * len(bins) + each, copies) for each in ranks]
    spread = np.sqrt(apart[0]) * np.sqrt(apart[1])
    spread[spread == 0] = math.nan
    taus: Floats = np.clip(surplus / spread, -1, 1)
    return taus


def _members(bins: Ints) -> Iterator[Ints]:
    """Places of each bin's networks; bins of one have no pairs."""
    order = np.argsort(bins, kind="stable")
    for members in np.split(order, np.cumsum(np.bincount(bins))[:-1]):
        if len(members) > 1:
            yield members


def _surplus(own: Copies, true: Copies, copies: Copies) -> Floats:
    """Twice the pairs in the same order less twice those in the opposite one."""
    total = np.zeros(copies.shape[1])
    step = max(1, _BLOCK // len(own))
    for start in range(0, len(own), step):
        part = slice(start, start + step)
        order = np.sign(own[part, None] - own)
        order *= np.sign(true[part, None] - true)
        total += ((order @ copies) * copies[part]).sum(axis=0, dtype=np.float64)
    return total


def _squares(groups: Ints, copies: Copies) -> Floats:
    """The sum over groups of the square of their copies: twice the pairs of one group, and each copy with itself."""
    places = np.unique(groups, return_inverse=True)[1]
    ones = np.ones(len(places), dtype=np.float32)
    members = csr_array((ones, (places, np.arange(len(places)))), shape=(int(places.max(initial=-1)) + 1, len(places)))
    sums = (members @ copies).astype(np.float64)
    squares: Floats = np.einsum("gr,gr->r", sums, sums)
    return squares


def _chosen(
    own: Floats, true: Floats, costs: Floats, budgets: Floats, drawn: Drawn, counts: Sequence[int]
) -> list[Floats]:
    """For each count, the expected accuracy of the best of so many choices: a row a resample, a column a budget.

    NaN stands where no network that was drawn is within the budget.
    """
    order = np.lexsort((-true, -own))  # the best score first, the tied by accuracy
    drawn, true, costs = drawn[:, order], true[order], costs[order]
    groups = np.unique(-own[order], return_inverse=True)[1]
    chosen = [np.full((len(drawn), len(budgets)), math.nan) for _ in counts]
    for column, budget in enumerate(budgets):
        places = np.flatnonzero(costs <= budget)
        if not len(places):
            continue
        first = places[: _PREFIX + max(counts)]
        first = places[: np.searchsorted(groups[places], groups[first[-1]], side="right")]  # ties are never parted
        step = max(1, _BLOCK // len(first))
        for start in range(0, len(drawn), step):
            rows = slice(start, start + step)
            part = drawn[rows, first]
            some = first
            if len(first) < len(places) and (part.sum(axis=1) < max(counts)).any():
                part, some = drawn[rows, places], places
            for numbers, accuracies in zip(
                chosen, _expected_bests(part, groups[some], true[some], counts), strict=True
            ):
                numbers[rows, column] = accuracies
    return chosen


def _expected_bests(drawn: Drawn, groups: Ints, true: Floats, counts: Sequence[int]) -> Iterator[Floats]:
    """Of networks from the best score to the worst, tied ones in groups by accuracy: that of the best of the chosen."""
    counted = np.cumsum(drawn, axis=1, dtype=np.int32)
    rows = np.arange(len(drawn))
    for count in counts:
        taken = np.minimum(counted[:, -1], count)
        last = groups[(counted >= taken[:, None]).argmax(axis=1)]  # the group of the last choice
        start, end = np.searchsorted(groups, last), np.searchsorted(groups, last, side="right")
        before = np.where(start > 0, counted[rows, start - 1], 0)
        tied, picked = counted[rows, end - 1] - before, taken - before
        whole = np.array(np.where(tied > picked, start, end))  # up to there all are chosen
        columns = np.arange(whole.max(initial=0))
        sure = drawn[:, : len(columns)] & (columns < whole[:, None])
        best = np.where(sure, true[: len(columns)], -np.inf).max(axis=1, initial=-np.inf)
        best[taken == 0] = math.nan
        some = np.flatnonzero(tied > picked)
        if len(some):
            low, high = int(start[some].min()), int(end[some].max())
            columns = np.arange(low, high)
            group = drawn[some, low:high] & (columns >= start[some, None]) & (columns < end[some, None])
            best[some] = _expected_of_tied(group, true[low:high], picked[some], best[some])
        yield best


def _expected_of_tied(group: Drawn, true: Floats, picked: Ints, sure: Floats) -> Floats:
    """The best of so many picked at random from a group, which is by accuracy, and of what is chosen for sure."""
    rows, columns = np.nonzero(group)
    sizes = group.sum(axis=1)
    worse = sizes[rows] - 1 - (np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[rows])  # of the same group
    chance = (picked / sizes)[rows]  # that it is picked; then, that all others picked are worse
    for step in range(int(picked.max()) - 1):
        factor = (worse - step) / np.maximum(sizes - 1 - step, 1)[rows]
        chance *= np.where((picked - 1 > step)[rows], factor, 1.0)
    weighted = chance * np.maximum(true[columns], sure[rows])
    return np.bincount(rows, weights=weighted, minlength=len(group)).astype(np.float64)
