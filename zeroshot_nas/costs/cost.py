"""What a network costs, and limits on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.core.lazy import is_torch_module
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import ArchitectureError

if TYPE_CHECKING:
    from torch import nn


def cost(model: Architecture | HasArchitecture | nn.Module, *, input_size: Sequence[int] | None = None) -> Costs:
    """Parameters, FLOPs (multiply-adds), layers, activations and further registered costs of a network.

    Args:
        model: An architecture or a candidate of a search (closed form, no torch), or any ``nn.Module`` (counted by
            fvcore on one forward pass; see `zeroshot_nas.costs.module.module_costs` for its warnings).
        input_size: Shape ``(C, H, W)`` of one input; needed for a module (an architecture has its own).

    Raises:
        ArchitectureError: ``input_size`` is missing or not the architecture's, or the module does not run on it.

    Example:
        >>> cost(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", input_size=(3, 4, 4)))
        Costs(params=322, flops=3536, layers=1, activations=138, peak_memory=2672, weights=671)
    """
    if not is_torch_module(model):
        architecture = architecture_of(model)
        if architecture is None:
            raise ArchitectureError(f"expected an Architecture or a torch.nn.Module, got {type(model).__name__}")
        given = tuple(input_size) if isinstance(input_size, Sequence) else input_size
        if given not in (None, architecture.input_size):
            raise ArchitectureError(f"the architecture has input_size {architecture.input_size}, got {given!r}")
        return complexity(architecture)
    if input_size is None:
        raise ArchitectureError(f"cost of a {type(model).__name__} needs input_size=(C, H, W)")
    from zeroshot_nas.costs.module import module_costs  # here: an architecture's costs must not load torch

    return module_costs(model, input_size)
