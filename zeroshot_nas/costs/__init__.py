"""What a network costs, and limits on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import ArchitectureError

if TYPE_CHECKING:
    from torch import nn


def cost(model: Architecture | nn.Module, *, input_size: Sequence[int] | None = None) -> Costs:
    """Parameters, FLOPs (multiply-adds), layers and activations of a network.

    Args:
        model: An architecture (closed form, no torch) or any ``nn.Module`` (counted by fvcore on one forward pass;
            see `zeroshot_nas.costs.module.module_costs` for its warnings).
        input_size: Shape ``(C, H, W)`` of one input; needed for a module (an architecture has its own).

    Raises:
        ArchitectureError: ``input_size`` is missing or not the architecture's, or the module does not run on it.

    Example:
        >>> cost(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", input_size=(3, 4, 4)))
        Costs(params=322, flops=3536, layers=1, activations=138)
    """
    if isinstance(model, Architecture):
        if input_size is not None and tuple(input_size) != model.input_size:
            raise ArchitectureError(f"the architecture has input_size {model.input_size}, got {tuple(input_size)}")
        return complexity(model)
    if input_size is None:
        raise ArchitectureError(f"cost of a {type(model).__name__} needs input_size=(C, H, W)")
    from zeroshot_nas.costs.module import module_costs  # here: an architecture's costs must not load torch

    return module_costs(model, input_size)
