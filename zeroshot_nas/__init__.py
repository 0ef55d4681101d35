"""Training-free neural architecture search: score, search and train small convolutional networks.

Names are imported when they are first used, so that costs and closed forms do not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroshot_nas.architecture import Architecture as Architecture
    from zeroshot_nas.architecture import BlockSpec as BlockSpec
    from zeroshot_nas.architecture import register_block as register_block
    from zeroshot_nas.costs import cost as cost
    from zeroshot_nas.costs.budget import Budget as Budget
    from zeroshot_nas.costs.complexity import Costs as Costs
    from zeroshot_nas.network import Network as Network
    from zeroshot_nas.network import build as build
    from zeroshot_nas.proxies.base import Batch as Batch
    from zeroshot_nas.proxies.base import Score as Score
    from zeroshot_nas.proxies.base import get_proxy as get_proxy
    from zeroshot_nas.proxies.base import list_proxies as list_proxies
    from zeroshot_nas.proxies.base import register_proxy as register_proxy
    from zeroshot_nas.proxies.scoring import score as score

_HOMES = {
    "Architecture": "architecture",
    "BlockSpec": "architecture",
    "register_block": "architecture",
    "cost": "costs",
    "Budget": "costs.budget",
    "Costs": "costs.complexity",
    "Network": "network",
    "build": "network",
    "Batch": "proxies.base",
    "Score": "proxies.base",
    "get_proxy": "proxies.base",
    "list_proxies": "proxies.base",
    "register_proxy": "proxies.base",
    "score": "proxies.scoring",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
