"""Orders of candidates: the Pareto front, and one order from several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from zeroshot_nas.core.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

Aggregation: TypeAlias = Literal["mean_rank", "log_rank", "vote"]
"""How `rank_aggregate` joins several scores of a pool."""


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point dominates, in the order given; smaller is better on every axis.

    A point dominates another where it is nowhere larger and somewhere smaller. Of equal points the first is kept.

    Args:
        points: ``n`` points with the same number of coordinates.

    Example:
        >>> pareto_front([(1, 5), (2, 2), (3, 3), (5, 1), (2, 2)])
        [0, 1, 3]
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (tuple(points[i]), i)):
        # whatever dominates a point sorts before it, so only points already kept need a look
        if not any(all(a <= b for a, b in zip(points[kept], points[index], strict=True)) for kept in front):
            front.append(index)
    return sorted(front)


def rank_aggregate(scores: Sequence[Sequence[float]], method: Aggregation = "mean_rank") -> list[float]:
    r"""One value for each member of a pool from several scores; higher is better.

    With rank r = 1 for the worst of m members and m for the best, ties averaged, and a sum over the scores p:

    - ``"mean_rank"``: the mean of r_p / m.
    - ``"log_rank"``: the sum of log(r_p / m), at most 0: a member that one score calls bad can't make it good by others
      (Lee and Ham, AZ-NAS, arXiv:2403.19232).
    - ``"vote"``: the share of the other members that it beats by a majority of the scores, ties counting half
      (Abdelfattah et al., arXiv:2101.08134, vote so among proxies).

    The values say something about a member in this pool only.

    Args:
        scores: One sequence a score, each with one number a member, higher being better; NaN ranks below all.
        method: How to join them.

    Raises:
        ValueError: The sequences differ in length, there are none, or the method is unknown.

    Example:
        >>> rank_aggregate([[1, 2, 3], [30, 10, 20]])
        [0.6666666666666666, 0.5, 0.8333333333333333]
    """
    if method not in get_args(Aggregation):
        raise ValueError(f"method must be one of {', '.join(get_args(Aggregation))}, got {method!r}")
    if not scores or len({len(each) for each in scores}) > 1:
        raise ValueError(f"expected scores of one length, got lengths {[len(each) for each in scores]}")
    values = np.array(scores, dtype=float)
    values[np.isnan(values)] = -np.inf
    members = values.shape[1]
    if members == 0:
        return []
    if method == "vote":
        return [_votes(values, member) / max(1, members - 1) for member in range(members)]
    from scipy.stats import rankdata  # a tenth of a second to import, which a search does not need

    ranks = rankdata(values, axis=1) / members
    joined = ranks.mean(axis=0) if method == "mean_rank" else np.log(ranks).sum(axis=0)
    return [float(value) for value in joined]


def _votes(values: np.ndarray, member: int) -> float:
    """How many of the others a member beats by a majority of the rows; ties count half."""
    own = values[:, member : member + 1]
    margins = np.delete((own > values).sum(axis=0) - (own < values).sum(axis=0), member)
    return float((margins > 0).sum() + 0.5 * (margins == 0).sum())
