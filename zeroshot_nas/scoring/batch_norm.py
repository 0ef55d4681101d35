"""Batch norms of any module: on which statistics they run, what they see, and a network without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.scoring.interception import intercepted

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

_ROUNDING = 16
"""By how many rounding errors of its mean a constant may seem to vary."""


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


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics and keep none; all else is as at inference: dropout would add noise.

    So do instance norms that track statistics, each image its own, as they are trained.
    """
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    tracking = nn.modules.instancenorm._InstanceNorm
    norms = [*batch_norms(network), *(part for part in network.modules() if isinstance(part, tracking))]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.training = True
        norm.momentum = 0.0  # type: ignore[assignment]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def without_batch_norm() -> AbstractContextManager[object]:
    """While open, batch norm returns a copy of its input, whether a module calls it or a function.

    A hook on the modules would not do: a batch norm refuses one value per channel before its hook runs, and where the
    hook gives the input itself, an activation in place changes it under those who still read it.
    """

    def passed_by(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if func in (nn.functional.batch_norm, torch.batch_norm):
            return (args[0] if args else kwargs["input"]).clone()
        return func(*args, **kwargs)

    return intercepted(passed_by)


class BatchNormVariances:
    """While open, reads the variance of every batch norm's input, averaged over channels, in order of execution.

    A batch norm computes that variance anyway; one of momentum 1 hands it over as its running variance. Of an input
    that is the same everywhere, but for rounding, it is 0.

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
        norm.momentum, norm.track_running_stats = 1.0, True
        norm.num_batches_tracked = torch.zeros((), dtype=torch.int64, device=x.device)  # a SyncBatchNorm asks for it
        norm.running_mean, norm.running_var = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])

    def _read(self, norm: Any, arguments: tuple[Tensor, ...], _: Any) -> None:
        (x,) = arguments
        count = x.numel() // x.shape[1]
        mean = norm.running_var.double().mean().item()  # of the unbiased variance
        if mean <= (norm.running_mean.double() * _ROUNDING * torch.finfo(x.dtype).eps).square().mean().item():
            mean = 0.0
        self.means.append(mean if self._unbiased else mean * (count - 1) / count)
