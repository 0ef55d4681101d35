"""`score_pool`: several networks at once, which is what an aggregate needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.core.lazy import is_torch_module
from zeroshot_nas.core.ranking import rank_aggregate
from zeroshot_nas.core.score import Score
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.closed_forms import COUNTS, check_repeats, closed_form_scores
from zeroshot_nas.scoring.engine import score
from zeroshot_nas.scoring.proxy import Proxy, ProxyFunction, get_proxy

if TYPE_CHECKING:
    from torch import nn


def score_pool(
    models: Iterable[Architecture | HasArchitecture | nn.Module],
    proxy: str | Proxy | ProxyFunction | Sequence[str | Proxy | ProxyFunction],
    **settings: Any,
) -> list[dict[str, Score]]:
    """Scores a pool of networks, with aggregates such as ``"az_nas"`` that mean something in a pool only.

    What needs no weights, such as ``"cet"``, is computed for many architectures side by side.

    Args:
        models: Architectures, candidates or modules.
        proxy: One proxy or several, as in `zeroshot_nas.score`; aggregates among them.
        settings: As in `zeroshot_nas.score`; the parts of an aggregate share their passes.

    Returns:
        For each network a dict of its scores by `Proxy.key`: those asked for and the parts of aggregates. An aggregate
        of which a part failed has failed, with the part's reason; among the ranks of the others it stays the lowest.

    Raises:
        ProxyError: As in `zeroshot_nas.score`.

    Example:
        >>> nets = [Architecture.from_string(f"SuperConvK3BNRELU(3,{width},1,2)", (3, 8, 8)) for width in (8, 16)]
        >>> [scores["az_nas"].ok for scores in score_pool(nets, "az_nas", repeats=1)]
        [True, True]
    """
    asked = [proxy] if isinstance(proxy, str) or not isinstance(proxy, Sequence) else list(proxy)
    proxies = [get_proxy(each) for each in asked]
    singles = {each.key: each for each in proxies if not each.info.parts}
    for each in proxies:
        singles.update({part: get_proxy(part) for part in each.info.parts})
    pool = _scored(list(models), list(singles.values()), settings)
    for each in proxies:
        if each.info.parts and pool:
            joined = aggregate_scores(each, pool)
            for scores, value in zip(pool, joined, strict=True):
                scores[each.key] = value
    return pool


def _scored(models: Sequence[Any], proxies: Sequence[Proxy], settings: Mapping[str, Any]) -> list[dict[str, Score]]:
    """The scores of every model by proxy key; what needs no weights is computed side by side."""
    read = [proxy for proxy in proxies if not proxy.info.needs_weights]
    drawn = [proxy for proxy in proxies if proxy.info.needs_weights]
    ours = [None if is_torch_module(model) else architecture_of(model) for model in models]
    pooled = {place: architecture for place, architecture in enumerate(ours) if architecture is not None}
    if not read or not pooled or not settings.keys() <= {"seed", "device", *COUNTS}:
        return [score(model, proxies, **settings) for model in models]
    check_repeats(**{name: settings[name] for name in COUNTS if name in settings})
    exact = dict(zip(pooled, closed_form_scores(list(pooled.values()), read), strict=True))
    pool = []
    for place, model in enumerate(models):
        if place in exact:
            by_key = exact[place] | (score(model, drawn, **settings) if drawn else {})
            pool.append({proxy.key: by_key[proxy.key] for proxy in proxies})
        else:
            pool.append(score(model, proxies, **settings))
    return pool


def aggregate_scores(aggregate: str | Proxy, pool: Sequence[Mapping[str, Score]]) -> list[Score]:
    """An aggregate from the scores that its parts gave to each network of a pool.

    Raises:
        ProxyError: It is no aggregate, or a part is missing.
    """
    proxy = get_proxy(aggregate)
    info = proxy.info
    if not info.parts:
        raise ProxyError(f"{info.name} is no aggregate: score it directly")
    rows = []
    for part in info.parts:
        sign = get_proxy(part).sign
        missing = [index for index, scores in enumerate(pool) if part not in scores]
        if missing:
            raise ProxyError(f"{info.name} needs {part} of every network; network {missing[0]} lacks it")
        rows.append([sign * scores[part].value for scores in pool])
    values = rank_aggregate(rows, info.aggregation)
    return [
        _joined(proxy, value, [scores[part] for part in info.parts]) for value, scores in zip(values, pool, strict=True)
    ]


def _joined(proxy: Proxy, value: float, parts: Sequence[Score]) -> Score:
    seconds, repeats = sum(part.seconds for part in parts), min(part.repeats for part in parts)
    if all(part.ok for part in parts):
        return Score(proxy.key, value, None, repeats, seconds)
    reasons = "; ".join(f"{part.proxy}: {part.reason}" for part in parts if not part.ok)
    return Score(proxy.key, math.nan, None, repeats, seconds, "failed", reasons)
