"""What a search is asked to make large or small: a proxy's score, costs beside it, or both as one reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.costs.reward import Reward
from zeroshot_nas.costs.structure import StructureBounds
from zeroshot_nas.errors import ObjectiveError, UnknownNameError
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY, PROXIES, Proxy, ProxyFunction, get_proxy
from zeroshot_nas.searchers.front import Objective

_BOUNDS = tuple(each.name for each in fields(StructureBounds))


def ranking(
    proxy: str | Proxy | ProxyFunction | None, names: Sequence[str] | None
) -> tuple[Proxy, tuple[Objective, ...]]:
    """The proxy that ranks, and the objectives in their order; none where none are named.

    One objective is the proxy's score. It is the one that the objectives name, or ``proxy``, which comes first where
    they name costs alone. A name that is a cost's is the cost (lower is better), but for that of ``proxy`` itself:
    ``proxy="params", objectives=("params", "flops")`` asks for many params of few FLOPs.

    Args:
        proxy: What ranks; None for the one that the objectives name, or `DEFAULT_SEARCH_PROXY`.
        names: A proxy and costs, or costs alone.

    Raises:
        ObjectiveError: They name two proxies, or one thing twice, or leave one objective alone.
        UnknownNameError: A name is no cost's and no proxy's.

    Example:
        >>> [each.name for each in ranking(None, ("flops", "zen"))[1]], ranking(None, ("flops", "zen"))[0].key
        (['flops', 'zen'], 'zen')
        >>> [(each.name, each.direction) for each in ranking("cet", ("flops",))[1]]
        [('cet', 'higher'), ('flops', 'lower')]
    """
    given = None if proxy is None else get_proxy(proxy)
    if names is None:
        return given or get_proxy(DEFAULT_SEARCH_PROXY), ()
    named = {name: _named(name, given) for name in names}
    proxies = {each.key: each for each in named.values() if each is not None}
    if given is not None and proxies.keys() - {given.key}:
        raise ObjectiveError(
            f"the objectives name the proxy {next(iter(proxies.keys() - {given.key}))}, and the proxy is {given.key}; "
            "give one of the two, and costs beside it"
        )
    if len(proxies) > 1:
        raise ObjectiveError(
            f"objectives are one proxy and costs, and {' and '.join(proxies)} are proxies; leave out one, or search by "
            "each for itself"
        )
    ranks = given or next(iter(proxies.values()), None) or get_proxy(DEFAULT_SEARCH_PROXY)
    score = Objective(ranks.key, "score", ranks.info.direction)
    objectives = [Objective(name) if each is None else score for name, each in named.items()]
    objectives = objectives if proxies else [score, *objectives]
    if len(objectives) < 2 or len(objectives) < len(names):
        raise ObjectiveError(
            f"objectives are a proxy and one cost or more, each once, such as {ranks.key},flops; got {','.join(names)}"
        )
    return ranks, tuple(objectives)


def check_reward(reward: Reward | None, proxy: Proxy, objectives: Sequence[Objective]) -> None:
    """Refuses a reward that the proxy's scores can't be multiplied by, or beside objectives.

    Raises:
        ObjectiveError: Why, and what to take.
    """
    if reward is None:
        return
    if objectives:
        raise ObjectiveError(
            "a reward makes one number of score and cost, objectives keep them apart; give one of them"
        )
    if reward.scales and (not proxy.info.never_negative or proxy.sign < 0):
        fault = "is better where lower" if proxy.sign < 0 else "may be below 0"
        raise ObjectiveError(
            f"{proxy.key} {fault}, so that a factor would turn its order round; take form='sum' (form=sum), which adds "
            f"to it, or objectives=({proxy.key!r}, {reward.cost!r})"
        )


def reads_latency(objectives: Sequence[Objective], reward: Reward | None) -> bool:
    """Whether latency is to be predicted although the budget need not limit it."""
    rewarded = reward is not None and reward.cost == "latency_ms"
    return rewarded or any(each.kind == "cost" and each.name == "latency_ms" for each in objectives)


def _named(name: str, given: Proxy | None) -> Proxy | None:
    """The proxy that an objective's name stands for; None for a cost."""
    if not isinstance(name, str):
        raise ObjectiveError(
            f"objectives are names of a proxy and of costs, got {name!r:.80}; give a function as the proxy, and the "
            "costs alone as objectives"
        )
    if given is not None and name in (given.key, given.info.name):
        return given
    if name in COSTS:
        return None
    if name.partition(":")[0] in PROXIES:
        return get_proxy(name)
    if name in _BOUNDS:
        raise ObjectiveError(f"{name} is a bound without a direction to search in; set it in the budget's structure")
    raise UnknownNameError("objective", name, {*COSTS, *PROXIES})
