"""MeCo: how far the channels of every layer's output are from being linear in one another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from zeroshot_nas.core.lazy import LazyModule, no_grad
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

Variant: TypeAlias = Literal["paper", "opt"]


@register_proxy(
    ProxyInfo("meco", reads=("modules",), source="Jiang et al., NeurIPS 2023", batch_size=1, grows_with_depth=True)
)
@no_grad()
def meco(network: nn.Module, batch: Batch, /, *, variant: Variant = "paper", channels: int = 8) -> float:
    r"""MeCo (Jiang, Wang and Bie, NeurIPS 2023); higher is better.

    .. math:: \sum_l \lambda_{\min}(P(f_l)), \qquad P(f_l) \text{ the correlation of the channels of } f_l
        \text{ over positions}

    with f_l the first image's output of every module without children that ran, and of the network itself. One image
    and one forward pass do; batch norms use the statistics of the batch, so they need more than one image where a
    feature map has one position. It needs neither labels nor gradients.

    Args:
        network: Any module.
        batch: ``inputs`` (N, C, H, W); the paper takes one Gaussian image of 64 x 64, whatever the network is for.
        variant: ``"paper"``: all channels. ``"opt"``: the first so many, each eigenvalue times C / channels.
        channels: How many ``"opt"`` takes; where there are fewer, it takes all.

    Raises:
        ProxyError: ``channels`` is below 1.
        UndefinedScoreError: A feature map is not finite, or no channel of any varies over positions (a dead network, or
            one without feature maps).

    The smallest eigenvalue is 0 where there are no more positions than channels (a centred C x P matrix has a rank of
    P - 1 at most), and where a channel is constant: its correlations are undefined, and the authors put 0 for them,
    which is a zero row. Here it is that 0 exactly and not a decomposition's rounding, so only the other maps are
    decomposed, and in double precision by a solver for symmetric matrices.

    Departures from the authors' code: modules with children don't count again; ``"opt"`` draws its channels at random
    there and fails where they are fewer.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        >>> 0 < score(net, "meco", input_size=(3, 8, 8)).value < 4  # three modules and the network itself
        True
    """
    if channels < 1:
        raise ProxyError(f"meco's channels must be a whole number of 1 or more, got {channels}")
    run = batch.passes(network)
    outputs = [output for _, output in run.forward.modules]
    if isinstance(run.forward.output, torch.Tensor):
        outputs.append(run.forward.output)
    known: dict[int, float | None] = {}  # by identity: the network's output is most often its last module's
    for output in outputs:
        if id(output) not in known:
            known[id(output)] = _smallest_eigenvalue(output, channels if variant == "opt" else None)
    values = [known[id(output)] for output in outputs]
    if values and all(value is None for value in values):
        raise UndefinedScoreError("no channel of any feature map varies over positions")
    return math.fsum(value or 0.0 for value in values)


def _smallest_eigenvalue(output: Tensor, channels: int | None) -> float | None:
    """Of the correlation of all or so many channels, weighted; None where none varies over positions."""
    if output.dim() < 3:
        return None
    maps = output[0].flatten(1)
    count, positions = maps.shape
    if channels is not None:
        maps = maps[:channels]
    if positions <= len(maps):
        varies = bool((maps != maps[:, :1]).any())
        return 0.0 if varies else None
    means = maps.mean(1, keepdim=True)
    centred = maps - means
    covariance = (centred @ centred.T).double()
    variances = covariance.diagonal()
    rounding = positions * (means.double().squeeze(1) * 16 * torch.finfo(maps.dtype).eps).square()
    constant = variances <= rounding
    if constant.any():
        return None if constant.all() else 0.0
    deviations = variances.sqrt()
    correlation = covariance / torch.outer(deviations, deviations)
    if not torch.isfinite(correlation).all():
        raise UndefinedScoreError("a feature map is not finite")
    return float(torch.linalg.eigvalsh(correlation)[0]) * count / len(maps)
