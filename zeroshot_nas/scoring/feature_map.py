"""Feature maps: which tensors are one, and the last that a module computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.interception import intercepted

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")


class ShapeAndType(Protocol):
    """A tensor, or what autograd remembers of one."""

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...


def is_feature_map(x: ShapeAndType, axes: int | None = None) -> bool:
    """Whether a tensor is ``(N, C, *spatial)`` with more than one position.

    Args:
        x: The tensor.
        axes: How many it has in all, those of the network's inputs; None where any number will do.

    Example:
        >>> [is_feature_map(torch.zeros(shape), axes=4) for shape in ((2, 8, 4, 4), (2, 8, 1, 1), (2, 8, 4), (2, 8))]
        [True, False, False, False]
        >>> is_feature_map(torch.zeros(2, 8, 4))
        True
    """
    return axes in (None, len(x.shape)) and math.prod(x.shape[2:]) > 1 and x.dtype.is_floating_point


def feature_map(network: nn.Module, inputs: Tensor) -> Tensor:
    """The feature map before pooling, of any module.

    For a foreign module it is the last feature map (`is_feature_map`) of the inputs' axes that a torch function
    returns; for inputs without spatial axes the module's output.

    Args:
        network: Any module, no special methods needed.
        inputs: ``(N, C, H, W)``, ``(N, C, L)`` or ``(N, F)``.

    Raises:
        ProxyError: There is no feature map, and the output is no tensor.
    """
    from zeroshot_nas.network.module import Network  # here: it loads torch

    if isinstance(network, Network):
        return network.forward_features(inputs)
    last: Tensor | None = None

    def watch(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        nonlocal last
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and is_feature_map(result, axes=inputs.dim()):
            last = result
        return result

    with intercepted(watch):
        output = network(inputs)
    features = output if last is None else last
    if not isinstance(features, torch.Tensor):
        raise ProxyError(f"the module returns {type(features).__name__} and computes no feature map; expected a tensor")
    return features
