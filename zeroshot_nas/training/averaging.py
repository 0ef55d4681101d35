"""The exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """``a <- d a + (1 - d) w`` over parameters and buffers after each step, with d rising from 0.1 to ``decay``.

    d is ``min(decay, (1 + n) / (10 + n))`` at step n, so that a short run does not keep its random beginning. Integer
    buffers are copied.

    Args:
        network: What to average.
        decay: Final d, from 0 to below 1.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> average = MovingAverage(line, 0.99)
        >>> _ = line.weight.data.fill_(5)
        >>> for _ in range(200):
        ...     average.update(line)
        >>> round(average.state_dict()["average"]["weight"].item(), 3)
        5.0
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Takes the network's values of now into account."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                averages.append(self.average[name])
                values.append(value)
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        for name, value in state["average"].items():
            self.average[name].copy_(value)
