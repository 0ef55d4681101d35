"""PyTorch without a compiler: on the CPU in either memory format, and on a CUDA device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.kernels import ADD, CONCATENATE, SCALE, instructions
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import torch_generator, torch_threads
from zeroshot_nas.errors import LatencyError
from zeroshot_nas.latency.base import Prepared, Target, failing, register_backend

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")


@register_backend("torch", package="torch")
@contextmanager
def torch_contiguous(target: Target, image_shape: Shape, /, *, batch_size: int, threads: int) -> Iterator[Prepared]:
    """Eager PyTorch on the CPU, tensors ``(N, C, H, W)`` in that order."""
    with _prepared(target, image_shape, batch_size, threads, torch.contiguous_format, "cpu") as prepared:
        yield prepared


@register_backend("torch_channels_last", package="torch")
@contextmanager
def torch_channels_last(target: Target, image_shape: Shape, /, *, batch_size: int, threads: int) -> Iterator[Prepared]:
    """Eager PyTorch on the CPU, channels innermost in memory."""
    with _prepared(target, image_shape, batch_size, threads, torch.channels_last, "cpu") as prepared:
        yield prepared


def _cuda_device() -> str:
    if not torch.cuda.is_available():
        raise LatencyError("the backend torch_cuda needs a CUDA device, and torch sees none; use torch or onnxruntime")
    return torch.cuda.get_device_name()


@register_backend("torch_cuda", package="torch", device=_cuda_device)
@contextmanager
def torch_cuda(target: Target, image_shape: Shape, /, *, batch_size: int, threads: int) -> Iterator[Prepared]:
    """Eager PyTorch on the CUDA device, synchronised after every run (and every kernel, where these are timed)."""
    _cuda_device()
    with _prepared(target, image_shape, batch_size, threads, torch.contiguous_format, "cuda") as prepared:
        yield prepared


@contextmanager
def _prepared(
    target: Target, image_shape: Shape, batch_size: int, threads: int, memory_format: torch.memory_format, device: str
) -> Iterator[Prepared]:
    from zeroshot_nas.network.module import build  # here: listing backends must not load torch

    synchronise: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
    place: dict[str, Any] = {"device": device, "memory_format": memory_format}
    images = torch.randn((batch_size, *image_shape), generator=torch_generator(0)).to(**place)
    module: nn.Module = build(target) if isinstance(target, Architecture) else copy.deepcopy(target)
    module = module.eval().to(**place)

    def run() -> None:
        module(images)
        synchronise()

    def kernel_seconds(runs: int) -> list[list[float]]:
        assert isinstance(target, Architecture), "kernels are those of an architecture"
        chain = _Kernels(target, place)
        return [chain.seconds(images, synchronise) for _ in range(runs)]

    with torch_threads(threads), torch.inference_mode():
        try:
            run()
        except Exception as error:  # a stranger's forward may raise anything; it is passed on, with its cause
            raise failing("torch", error) from error
        yield Prepared(run, kernel_seconds if isinstance(target, Architecture) else None)


class _Kernels:
    """A network as modules kernel by kernel, each timed where it stands."""

    def __init__(self, architecture: Architecture, place: dict[str, Any]) -> None:
        from zeroshot_nas.network.module import initialize, sequential

        self.program = instructions(architecture.lower(), architecture.input_size)
        self.modules = [sequential(each.ops) for each in self.program]
        generator = torch_generator(0)
        for module in self.modules:
            initialize(module, "kaiming", generator)
            module.eval().to(**place)
        last_use = {source: index for index, each in enumerate(self.program) for source in each.sources}
        self.freed = [
            [source for source in each.sources if last_use[source] == index] for index, each in enumerate(self.program)
        ]

    def seconds(self, images: Tensor, synchronise: Callable[[], object]) -> list[float]:
        """Seconds of every kernel in one run; tensors are freed as in a real one."""
        tensors: dict[int, Tensor] = {0: images}
        found = []
        for index, (instruction, module) in enumerate(zip(self.program, self.modules, strict=True)):
            inputs = [tensors[source] for source in instruction.sources]
            start = perf_counter()
            tensors[index + 1] = module(_JOINS.get(instruction.kernel.kind, _only)(inputs))
            synchronise()
            found.append(perf_counter() - start)
            del inputs
            for source in self.freed[index]:
                tensors.pop(source, None)
        return found


def _only(tensors: list[Tensor]) -> Tensor:
    (tensor,) = tensors
    return tensor


def _sum(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


_JOINS: dict[str, Callable[[list[Tensor]], Tensor]] = {
    ADD: _sum,
    SCALE: lambda tensors: tensors[0] * tensors[1],
    CONCATENATE: lambda tensors: torch.cat(tensors, 1),
}
