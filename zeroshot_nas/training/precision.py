"""In which precision a network is trained, and how its values lie in memory; both follow from network and processor."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from zeroshot_nas.errors import PrecisionWarning
from zeroshot_nas.network.layout import is_unsafe_in_channels_last
from zeroshot_nas.network.module import Conv2d
from zeroshot_nas.training.checkpoint import Trained, TrainedNetwork
from zeroshot_nas.training.narrow_norm import fold_batch_norms


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 that torch's convolutions use (AVX-512 BF16, AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # a release of torch may lack one
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def precision_of(network: Trained, asked: str) -> str:
    """``"float32"`` or ``"bfloat16"``; the latter for ``"auto"`` where that was measured to be faster.

    Which is on CPUs that multiply bfloat16, for networks of ours whose channels lie last. No clock decides: the same
    network is trained alike on all machines of a kind.
    """
    if asked != "auto":
        return asked
    is_faster = (
        network.mean.device.type == "cpu"
        and multiplies_bfloat16()
        and isinstance(network, TrainedNetwork)
        and has_channels_last(network)
    )
    return "bfloat16" if is_faster else "float32"


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
    """Makes a network ready to be trained fast; to rounding it computes what it did."""
    _lay_out(network)
    if network.mean.device.type == "cpu":
        fold_batch_norms(network)
        _use_single_in_groups(network)


def _lay_out(network: TrainedNetwork) -> None:
    """Puts channels last, which is faster, except where torch 2.13 writes past its buffers.

    On the CPU that is the backward pass of a 1x1 convolution with a stride from few channels
    (`zeroshot_nas.network.layout`), for which the whole network stays as it is, and with several threads that of a
    convolution from one channel, which gets more of them.
    """
    if has_channels_last(network):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to torch's stub
        if network.mean.device.type == "cpu":
            for part in network.modules():
                if type(part) is Conv2d and part.in_channels == 1:
                    part.__class__ = GreyConv2d


def has_channels_last(network: TrainedNetwork) -> bool:
    """Whether `speed_up` puts the network's channels last."""
    return network.mean.device.type != "cpu" or not is_unsafe_in_channels_last(network)


def _use_single_in_groups(network: nn.Module) -> None:
    """Lets grouped convolutions compute in float32 among others that don't: oneDNN has no fast ones in bfloat16."""
    for part in network.modules():
        if type(part) is Conv2d and part.groups > 1:
            part.__class__ = SingleConv2d


class GreyConv2d(Conv2d):
    """A convolution from one channel that is trained as one from three, of which two are zeros."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        more = (0, 0, 0, 0, 0, 2)
        images = nn.functional.pad(x, more).contiguous(memory_format=torch.channels_last)
        weight = nn.functional.pad(self.weight, more).contiguous(memory_format=torch.channels_last)
        out: Tensor = self._conv_forward(images, weight, self.bias)
        return out


class SingleConv2d(Conv2d):
    """A convolution in the weights' precision where autocast has others in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)
