"""What any module computes on the way: its last feature map, the statistics that its batch norms see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.interception import Interception

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every batch norm of a module, in order of registration."""
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """While open, batch norms use their running statistics, so that images don't mix."""
    norms = batch_norms(module)
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm, training in zip(norms, modes, strict=True):
            norm.training = training


class WithoutBatchNorm(Interception):
    """While open, batch norm returns a copy of its input, whether a module calls it or a function.

    A hook on the modules would not do: a batch norm refuses one value per channel before its hook runs, and where the
    hook gives the input itself, an activation in place changes it under those who still read it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in (nn.functional.batch_norm, torch.batch_norm):
            return (args[0] if args else given["input"]).clone()
        return func(*args, **given)


class BatchNormVariances:
    """While open, reads the variance of every batch norm's input, averaged over channels, in order of execution.

    A batch norm computes that variance anyway; one of momentum 1 hands it over as its running variance.

    Args:
        network: Any module.
        unbiased: Divide by n - 1 in place of n.
    """

    def __init__(self, network: nn.Module, unbiased: bool) -> None:
        self.means: list[float] = []
        self._norms = batch_norms(network)
        self._unbiased = unbiased

    def __enter__(self) -> BatchNormVariances:
        self._kept: list[tuple[Any, dict[str, Any]]] = []
        for norm in self._norms:
            names = ("momentum", "running_mean", "running_var", "num_batches_tracked", "track_running_stats")
            self._kept.append((norm, {name: getattr(norm, name) for name in names}))
        self._handles = []
        for norm in self._norms:
            self._handles.append(norm.register_forward_pre_hook(self._prepare))
            self._handles.append(norm.register_forward_hook(self._read))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for norm, kept in self._kept:
            for name, value in kept.items():
                setattr(norm, name, value)

    def _prepare(self, norm: Any, arguments: tuple[Tensor, ...]) -> None:
        (x,) = arguments
        norm.momentum, norm.track_running_stats, norm.num_batches_tracked = 1.0, True, None
        norm.running_mean, norm.running_var = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])

    def _read(self, norm: Any, arguments: tuple[Tensor, ...], _: Any) -> None:
        (x,) = arguments
        count = x.numel() // x.shape[1]
        mean = norm.running_var.double().mean().item()  # of the unbiased variance
        self.means.append(mean if self._unbiased else mean * (count - 1) / count)


def feature_map(network: nn.Module, inputs: Tensor) -> Tensor:
    """The feature map before pooling, of any module.

    For a foreign module it is the last tensor of the input's dimensionality ``(N, C, *spatial)`` with more than one
    position that the module computes; for inputs without spatial axes the module's output.

    Args:
        network: Any module, no special methods needed.
        inputs: ``(N, C, H, W)``, ``(N, C, L)`` or ``(N, F)``.
    """
    from zeroshot_nas.network.module import Network  # here: it loads torch

    if isinstance(network, Network):
        return network.forward_features(inputs)
    with _LastFeatureMap(inputs.dim()) as trace:
        output = network(inputs)
    features = output if trace.features is None else trace.features
    if not isinstance(features, torch.Tensor):
        raise ProxyError(f"the module returns {type(features).__name__} and computes no feature map; expected a tensor")
    return features


class _LastFeatureMap(Interception):
    """Watches torch functions and keeps the last result that is a feature map."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.features: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if (
            isinstance(result, torch.Tensor)
            and result.is_floating_point()
            and result.dim() == self.dimensions
            and math.prod(result.shape[2:]) > 1
        ):
            self.features = result
        return result
