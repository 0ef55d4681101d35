r"""How well scores order architectures by their accuracy. numpy and scipy alone, no torch here.

Every function takes the scores first, higher being better, and the accuracy second. A score that is NaN, a failure, is
worse than every number: who searches by a proxy never picks what it fails on. Accuracies are finite numbers. Where a
figure is undefined, as any correlation of a constant is, it is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata

Floats: TypeAlias = NDArray[np.float64]

RELEVANCE_LEVELS = 20
"""Relevance of the best architecture in `ndcg`: a gain halves with each twentieth of the architectures."""

_TAU_BY_MATRICES = 500  # architectures up to which matrices of all pairs take less time than merging


def kendall(scores: ArrayLike, accuracy: ArrayLike) -> float:
    r"""Kendall's tau-b (Kendall, Biometrika 33(3), 1945), which counts pairs that both sides order alike.

    .. math:: \tau_b = \frac{C - D}{\sqrt{(P - T_s)(P - T_a)}}

    with C pairs in the same order and D in the opposite one out of P, T_s tied in score and T_a in accuracy.

    Args:
        scores: One number an architecture, higher is better; NaN is worse than all.
        accuracy: Their accuracy.

    Raises:
        ValueError: The two are not of one length, or an accuracy is not finite.

    Example:
        >>> round(kendall([1, 2, 3, 4], [10, 30, 20, 40]), 3)  # five pairs against one
        0.667
    """
    own, true = checked(scores, accuracy)
    return _tau(own, true)


def spearman(scores: ArrayLike, accuracy: ArrayLike) -> float:
    """Spearman's rho: Pearson's correlation of the ranks, ties averaged. Arguments and errors are `kendall`'s.

    Example:
        >>> spearman([1, 2, 3, 4], [10, 30, 20, 40])
        0.8
    """
    own, true = checked(scores, accuracy)
    return _rho(own, true)


def spearman_at_top(scores: ArrayLike, accuracy: ArrayLike, share: float = 0.1) -> float:
    """`spearman` among the architectures of best accuracy alone: whether scores tell good networks from the best.

    Args:
        scores: As in `kendall`.
        accuracy: As in `kendall`.
        share: The part of the architectures that counts as best. Of n these are the ceil(share * n) most accurate, and
            all that are as accurate as the last of them.

    Returns:
        The correlation; NaN where fewer than three architectures are left, since two always agree or disagree.

    Raises:
        ValueError: As in `kendall`, or the share is not above 0 and at most 1.

    Example:
        >>> spearman_at_top([1, 2, 9, 8, 7], [10, 20, 70, 80, 90], share=0.6)
        -1.0
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share!r}")
    own, true = checked(scores, accuracy)
    if not len(true):
        return math.nan
    least = np.sort(true)[-math.ceil(share * len(true))]
    best = true >= least
    return _rho(own[best], true[best]) if best.sum() > 2 else math.nan


def partial_kendall(scores: ArrayLike, accuracy: ArrayLike, control: ArrayLike) -> float:
    r"""Kendall's partial tau: how scores and accuracy agree beyond what both share with a third quantity.

    .. math:: \tau_{sa \cdot c} = \frac{\tau_{sa} - \tau_{sc} \tau_{ac}}
        {\sqrt{(1 - \tau_{sc}^2)(1 - \tau_{ac}^2)}}

    (Kendall, Biometrika 32, 1942), here with tau-b. A proxy that only counts parameters has none beyond them.

    Args:
        scores: As in `kendall`.
        accuracy: As in `kendall`.
        control: What to hold fixed, such as FLOPs; NaN is below all.

    Returns:
        The partial tau; NaN where the control is constant, or orders the scores or the accuracy just as they are.

    Raises:
        ValueError: As in `kendall`.

    Example:
        >>> scores, flops = [1, 2, 3, 4], [2, 1, 4, 3]
        >>> round(partial_kendall(scores, [10, 30, 20, 40], flops), 3)
        0.707
    """
    own, true = checked(scores, accuracy)
    held, _ = checked(control, accuracy)
    both, own_held, true_held = _tau(own, true), _tau(own, held), _tau(true, held)
    spread = (1 - own_held**2) * (1 - true_held**2)
    if not spread > 1e-12:  # NaN too
        return math.nan
    return (both - own_held * true_held) / math.sqrt(spread)


def ndcg(scores: ArrayLike, accuracy: ArrayLike, k: int | None = None) -> float:
    r"""Normalised discounted cumulative gain: how much of the best comes first, 1 where the order is the true one.

    .. math:: \frac{\sum_{j=1}^{k} g_{s(j)} / \log_2(1 + j)}{\sum_{j=1}^{k} g_{a(j)} / \log_2(1 + j)},
        \qquad g_i = 2^{20 p_i} - 1

    with s(j) the architecture of j-th best score, a(j) that of j-th best accuracy, and p the share of the other
    architectures that are less accurate, ties counting half. So the gain follows from the rank of the accuracy, not
    from its value, and halves (all but exactly) with each twentieth of the architectures that are better. Where scores
    are tied, each place has the mean gain of those that could stand there.

    The measure is Jarvelin and Kekalainen's (ACM TOIS 20(4), 2002), with the exponential gain of Burges et al. (ICML
    2005). AceNAS (arXiv:2108.03001) and VKDNW (arXiv:2502.04975) argue for it in architecture search. Published gains
    differ, and with them the values: compare those of one definition only, and of one number of architectures, since
    scores at random have about 0.43 among 60 and 0.58 among 1,000.

    Args:
        scores: As in `kendall`.
        accuracy: As in `kendall`.
        k: Places that count; None counts all.

    Raises:
        ValueError: As in `kendall`, or ``k`` is below 1.

    Example:
        >>> ndcg([1, 2, 3], [10, 20, 30]), round(ndcg([3, 2, 1], [10, 20, 30]), 2)
        (1.0, 0.5)
    """
    own, true = checked(scores, accuracy)
    places = len(true) if k is None else min(_at_least_one(k, "k"), len(true))
    if len(true) < 2:
        return math.nan
    gains = np.exp2(RELEVANCE_LEVELS * (rankdata(true) - 1) / (len(true) - 1)) - 1
    discounts = 1 / np.log2(np.arange(2, len(true) + 2))
    discounts[places:] = 0
    return float((_mean_of_ties(own, gains) * discounts).sum() / (np.sort(gains)[::-1] * discounts).sum())


def top_k_accuracy(scores: ArrayLike, accuracy: ArrayLike, k: int = 1) -> float:
    """Mean accuracy of the k architectures of best score.

    Args:
        scores: As in `kendall`. Where the k-th place is tied, each of those tied counts as often as the others do: the
            result is the mean over all ways to break the tie.
        accuracy: As in `kendall`.
        k: How many; all where there are fewer.

    Raises:
        ValueError: As in `kendall`, or ``k`` is below 1.

    Example:
        >>> top_k_accuracy([1, 3, 2], [70, 80, 90]), top_k_accuracy([1, 3, 2], [70, 80, 90], k=2)
        (80.0, 85.0)
        >>> top_k_accuracy([5, 5, 1], [70, 80, 90])
        75.0
    """
    own, true = checked(scores, accuracy)
    return float(_mean_of_ties(own, true)[: _at_least_one(k, "k")].mean()) if len(true) else math.nan


def regret(scores: ArrayLike, accuracy: ArrayLike, k: int = 1) -> float:
    """What a choice by score costs: the best accuracy less `top_k_accuracy`, in the unit of the accuracy.

    Example:
        >>> regret([1, 3, 2], [70, 80, 90])
        10.0
    """
    true = checked(scores, accuracy)[1]
    return float(true.max()) - top_k_accuracy(scores, accuracy, k) if len(true) else math.nan


def bootstrap_interval(
    function: Callable[..., float],
    *arrays: ArrayLike,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """A percentile bootstrap interval over architectures (Efron, Annals of Statistics 7(1), 1979).

    Each resample draws as many architectures as there are, with replacement. The interval says how much a figure would
    vary with other architectures of the same kind; it says nothing of other seeds of the scores.

    Args:
        function: Called with the resampled arrays.
        arrays: One entry an architecture each.
        level: The share of the resamples' values between the limits.
        resamples: How many.
        seed: Seed of the draws.

    Returns:
        Lower and upper limit; NaN where the function is undefined on every resample. Resamples on which it is undefined
        are left out.

    Raises:
        ValueError: The arrays are not of one length, or ``level`` or ``resamples`` is out of range.

    Example:
        >>> numbers = np.arange(100.0)
        >>> low, high = bootstrap_interval(np.mean, numbers)
        >>> [round(float(number), 1) for number in (low, high)]  # two standard errors, each 2.9, around 49.5
        [43.8, 55.0]
    """
    columns = [np.asarray(values) for values in arrays]
    if len({len(column) for column in columns}) != 1:
        raise ValueError(f"expected arrays of one length, got lengths {[len(column) for column in columns]}")
    draws = draw_members(len(columns[0]), resamples, seed)
    values = [function(*(column[drawn] for column in columns)) for drawn in draws]
    return limits_of(np.array(values, dtype=np.float64), level)


def kendall_interval(
    scores: ArrayLike, accuracy: ArrayLike, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """`bootstrap_interval` of `kendall`: the same draws and figures in a small part of the time.

    Example:
        >>> scores, accuracy = [1, 2, 3, 4, 5], [10, 30, 20, 40, 50]
        >>> low, high = kendall_interval(scores, accuracy)
        >>> low < kendall(scores, accuracy) <= high == 1
        True
    """
    own, true = checked(scores, accuracy)
    tau_of_resamples = _resampled_tau if len(own) <= _TAU_BY_MATRICES else _resampled_tau_by_merging
    draws = draw_members(len(own), resamples, seed)
    return limits_of(tau_of_resamples(own, true, draws) if len(own) else np.empty(0), level)


def draw_members(members: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Which members each resample of a bootstrap draws, with replacement; none of nobody.

    Raises:
        ValueError: ``resamples`` is below 1.

    Example:
        >>> [drawn.tolist() for drawn in draw_members(4, 2, seed=0)]
        [[3, 2, 2, 1], [1, 0, 0, 0]]
    """
    rng, times = np.random.default_rng(seed), _at_least_one(resamples, "resamples")
    return (rng.integers(members, size=members) for _ in range(times if members else 0))


def limits_of(values: Floats, level: float) -> tuple[float, float]:
    """The limits between which the given share of the values lies, those that are NaN left out.

    Raises:
        ValueError: ``level`` is not between 0 and 1.

    Example:
        >>> limits_of(np.arange(101.0), 0.5), limits_of(np.array([math.nan]), 0.5)
        ((25.0, 75.0), (nan, nan))
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def checked(scores: ArrayLike, accuracy: ArrayLike) -> tuple[Floats, Floats]:
    """Both as new arrays; scores that are NaN become minus infinity.

    Raises:
        ValueError: The two are not of one length, or an accuracy is not finite.

    Example:
        >>> checked([1, math.nan], [70, 80])
        (array([  1., -inf]), array([70., 80.]))
    """
    own, true = np.array(scores, dtype=np.float64), np.array(accuracy, dtype=np.float64)
    if own.ndim != 1 or own.shape != true.shape:
        raise ValueError(f"expected one number an architecture on both sides, got shapes {own.shape} and {true.shape}")
    if not np.isfinite(true).all():
        raise ValueError("accuracies must be finite numbers; leave out the architectures that have none")
    own[np.isnan(own)] = -np.inf
    return own, true


def _tau(a: Floats, b: Floats) -> float:
    if _is_constant(a) or _is_constant(b):
        return math.nan
    # the method is that of a p-value, which is not read: the exact one takes long, the other is not defined for two
    return float(kendalltau(a, b, method="asymptotic" if len(a) > 2 else "exact").statistic)


def _resampled_tau(a: Floats, b: Floats, draws: Iterable[NDArray[np.int64]]) -> Floats:
    """Tau-b of resamples; counts of pairs are quadratic forms in how often each architecture was drawn."""
    counts = np.array([np.bincount(drawn, minlength=len(a)) for drawn in draws], dtype=np.float64).reshape(-1, len(a))
    ranks_a, ranks_b = rankdata(a), rankdata(b)
    order_a, order_b = np.sign(ranks_a[:, None] - ranks_a), np.sign(ranks_b[:, None] - ranks_b)
    agreeing, apart_a, apart_b = (
        np.einsum("ri,ri->r", counts @ pairs, counts) for pairs in (order_a * order_b, order_a**2, order_b**2)
    )
    apart = np.sqrt(apart_a * apart_b)
    apart[apart == 0] = math.nan
    taus: Floats = agreeing / apart
    return taus


def _resampled_tau_by_merging(a: Floats, b: Floats, draws: Iterable[NDArray[np.int64]]) -> Floats:
    """Tau-b of resamples, bit for bit scipy's, in a fifth of the time: what does not depend on the draw is sorted once.

    In the order of a, ties by b, a pair is discordant where b falls. A merge sort by b meets each such pair once, when
    it merges the halves that hold its two; the number of copies on the other side that stand above a member is then a
    difference of cumulated counts (Knight, JASA 61, 1966, with weights).
    """
    ranks_a, ranks_b = (np.unique(values, return_inverse=True)[1] for values in (a, b))
    order = np.lexsort((ranks_b, ranks_a))
    ranks_a, ranks_b = ranks_a[order], ranks_b[order]
    pairs = np.unique(ranks_a * len(a) + ranks_b, return_inverse=True)[1]
    merges = list(_merges(ranks_b))
    taus = []
    for drawn in draws:
        copies = np.bincount(drawn, minlength=len(a))[order].astype(
            np.float64
        )  # whole numbers, below 2**53 in all sums
        cumulated = np.zeros(len(a) + 1)
        discordant = 0.0
        for sorting, later, below, end in merges:
            np.cumsum(copies.take(sorting), out=cumulated[1:])
            discordant += int(copies.take(later) @ (cumulated.take(end) - cumulated.take(below)))
        everything = len(a) * (len(a) - 1) // 2
        tied_a, tied_b, tied_both = (_tied_pairs(ranks, copies) for ranks in (ranks_a, ranks_b, pairs))
        if everything in (tied_a, tied_b):
            taus.append(math.nan)
            continue
        surplus = everything - tied_a - tied_b + tied_both - 2 * discordant
        tau = surplus / np.sqrt(everything - tied_a) / np.sqrt(everything - tied_b)
        taus.append(float(min(1.0, max(-1.0, tau))))
    return np.array(taus)


def _merges(ranks: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """The merges of a merge sort, width by width.

    Yields:
        The order in which each run of the width is sorted; the members of right-hand runs; and for each of these two
        places in that order, between which stand the members of the left-hand run that rank above it.
    """
    places, high = np.arange(len(ranks)), int(ranks.max()) + 1
    width = 1
    while width < len(ranks):
        run = places // width
        sorting = np.lexsort((ranks, run))
        later = places[run % 2 == 1]
        left = run[later] - 1
        below = np.searchsorted((run * high + ranks)[sorting], left * high + ranks[later], side="right")
        yield sorting, later, below, (left + 1) * width
        width *= 2


def _tied_pairs(ranks: NDArray[np.int64], copies: NDArray[Any]) -> int:
    tied = np.bincount(ranks, weights=copies)  # whole numbers, and their squares too
    return int((tied * (tied - 1)).sum()) // 2


def _rho(a: Floats, b: Floats) -> float:
    if _is_constant(a) or _is_constant(b):
        return math.nan
    ranks_a, ranks_b = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    return float(ranks_a @ ranks_b / math.sqrt((ranks_a @ ranks_a) * (ranks_b @ ranks_b)))


def _is_constant(values: Floats) -> bool:
    return len(values) < 2 or bool((values == values[0]).all())


def _mean_of_ties(scores: Floats, values: Floats) -> Floats:
    """The values from the best score to the worst, with the mean of the tied in each of their places."""
    order = np.argsort(-scores, kind="stable")
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=values) / sizes
    ordered: Floats = means[group[order]]
    return ordered


def _at_least_one(number: int, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more, got {number!r}")
    return int(number)
