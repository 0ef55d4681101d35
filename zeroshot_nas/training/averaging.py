"""The exponential moving average of a network's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """``a <- d a + (1 - d) w`` over parameters and buffers after each step, with d rising from 0.1 to ``decay``.

    d is ``min(decay, (1 + n) / (10 + n))`` at step n, so that a short run does not keep its random beginning. Integer
    buffers are copied.

    Args:
        network: What to average.
        decay: Final d, from 0 to below 1.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> average = moving_average(line, 0.99)
        >>> _ = line.weight.data.fill_(5)
        >>> for _ in range(200):
        ...     average.update_parameters(line)
        >>> round(average.module.weight.item(), 3)
        5.0
    """

    def update(averages: Any, values: Any, _: Any) -> None:
        step = int(average.n_averaged) - 1  # it lies on the CPU: what torch hands over may have to be waited for
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + step) / (10 + step)))
        else:
            torch._foreach_copy_(averages, values)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    average.n_averaged.fill_(1)  # at 0 the first step would replace the initial weights
    return average
