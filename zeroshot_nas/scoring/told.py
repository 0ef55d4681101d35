"""The proxy of values that a caller tells: a fitness that nothing here computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.proxy import Batch, Proxy, ProxyInfo

if TYPE_CHECKING:
    from torch import nn


def _not_computed(network: nn.Module, batch: Batch, /) -> float:
    del network, batch
    raise ProxyError("values of 'told' come from the caller, by Study.tell; nothing computes them")


TOLD = Proxy(ProxyInfo("told", _not_computed, direction="higher"))
"""Files name it by its key, as they name a proxy; it is not registered, since no network can be scored by it."""
