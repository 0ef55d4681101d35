"""In which precision a network is trained, and how its values lie in memory; both follow from network and processor."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from zeroshot_nas.errors import PrecisionWarning
from zeroshot_nas.network.module import Conv2d
from zeroshot_nas.training.checkpoint import QuantizedNetwork, Trained, TrainedNetwork
from zeroshot_nas.training.narrow_norm import fold_batch_norms


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 that torch's convolutions use (AVX-512 BF16, AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # a release of torch may lack one
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def precision_of(network: Trained, asked: str) -> str:
    """``"float32"`` or ``"bfloat16"``; the latter for ``"auto"`` where that was measured to be faster.

    Which is on CPUs that multiply bfloat16, for networks of ours, whose channels lie last. No clock decides: the same
    network is trained alike on all machines of a kind.
    """
    if asked != "auto":
        return asked
    is_ours = isinstance(network, TrainedNetwork) and not isinstance(network, QuantizedNetwork)  # which rounds itself
    on_cpu = network.mean.device.type == "cpu"
    return "bfloat16" if is_ours and on_cpu and multiplies_bfloat16() else "float32"


def warn_where_slow(precision: str, device: torch.device) -> None:
    """Warns of a precision that the processor can only imitate."""
    if precision == "bfloat16" and device.type == "cpu" and not multiplies_bfloat16():
        warnings.warn(
            "training in bfloat16 on a processor without instructions for it, several times slower than in float32; "
            "precision 'auto' takes what is faster",
            PrecisionWarning,
            stacklevel=2,
        )


def speed_up(network: TrainedNetwork) -> None:
    """Makes a network ready to be trained fast, channels last; to rounding it computes what it did."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to torch's stub
    if network.mean.device.type != "cpu":
        return
    fold_batch_norms(network)
    for part in network.modules():
        if type(part) is Conv2d:
            part.__class__ = FastConv2d


class FastConv2d(Conv2d):
    """A convolution that is trained round what torch 2.13 does slowly on a CPU, or writing past its buffers.

    Of a 1x1 kernel with a stride it reads the pixels that count and no others; from one channel it is one from three,
    of which two are zeros (see `zeroshot_nas.network.layout` for either); in groups it stays in the weights' precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        weight, stride, padding = self.weight, self.stride, self.padding
        assert not isinstance(padding, str), "a convolution of ours pads by numbers"
        if max(stride) > 1 and self.kernel_size == (1, 1) and max(padding) == 0:
            x, stride = nn.functional.avg_pool2d(x, 1, stride), (1, 1)  # a slice's gradient would have rows first
        if self.in_channels == 1:
            x, weight = (nn.functional.pad(each, (0, 0, 0, 0, 0, 2)) for each in (x, weight))
            x, weight = (each.contiguous(memory_format=torch.channels_last) for each in (x, weight))
        how = self.bias, stride, padding, self.dilation, self.groups
        if self.groups == 1:
            return nn.functional.conv2d(x, weight, *how)
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.conv2d(x.to(weight.dtype), weight, *how).to(x.dtype)
