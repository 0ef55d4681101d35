"""AZ-NAS: four views of a network's feature maps, made to be joined by their ranks in a pool.

The paper's score is the sum over the four of log(rank / pool size): ``zeroshot_nas.score_pool(networks, "az_nas")``.
Feature maps are those that the network's blocks return. In one call of ``zeroshot_nas.score`` the three that run the
network share one forward pass, and trainability adds one backward pass through the features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule, no_grad
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.passes import Passes
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")


@register_proxy(ProxyInfo("az_expressivity", reads=("features",), source="arXiv:2403.19232", grows_with_depth=True))
@no_grad()
def az_expressivity(network: nn.Module, batch: Batch, /, *, features: str | Sequence[str] = "") -> float:
    r"""Expressivity of AZ-NAS (Lee and Ham, CVPR 2024, arXiv:2403.19232); higher is better.

    .. math:: \sum_i e_i, \qquad e_i = -\sum_c p_{ic} \log(p_{ic} + 10^{-8}),
        \quad p_i = \lambda_i / \textstyle\sum_c \lambda_{ic}

    with lambda_i the eigenvalues of the channels' covariance in feature map i, over images and positions: how evenly
    the features fill their space. It needs neither labels nor gradients. It grows with the number of feature maps.

    Args:
        network: A module with at least one feature map.
        batch: ``inputs`` (N, C, H, W).
        features: Names of the modules whose outputs are the feature maps, comma-separated or a sequence. Default: what
            the network's blocks return (`zeroshot_nas.scoring.feature_map.BlockOutputs`).

    Raises:
        ProxyError: No module of a given name ran.
        UndefinedScoreError: There is no feature map, or one of them is constant or not finite.

    Departures from the authors' code: eigenvalues below 0, which rounding makes of those that are 0, count as 0; there
    their logarithm is NaN and the score -inf. Eigenvalues are computed in double precision. Fewer positions than
    channels: the other Gram matrix, which has the same eigenvalues but for zeros.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> 0 < score(net, "az_expressivity", input_size=(3, 8, 8)).value < math.log(8)
        True
    """
    return sum(_entropies(_features(batch.passes(network), features, 1)))


@register_proxy(ProxyInfo("az_progressivity", reads=("features",), source="arXiv:2403.19232"))
@no_grad()
def az_progressivity(network: nn.Module, batch: Batch, /, *, features: str | Sequence[str] = "") -> float:
    r"""Progressivity of AZ-NAS (Lee and Ham, CVPR 2024, arXiv:2403.19232); higher is better.

    .. math:: \min_{i > 1} \; (e_i - e_{i-1})

    with the entropies e_i of `az_expressivity`: the least that any block adds. It needs neither labels nor gradients.

    Args:
        network: A module with at least two feature maps.
        batch: ``inputs`` (N, C, H, W).
        features: As in `az_expressivity`.

    Raises:
        ProxyError: No module of a given name ran.
        UndefinedScoreError: There are fewer than two feature maps, or one of them is constant or not finite.

    Departures from the authors' code: as in `az_expressivity`.

    Example:
        >>> from zeroshot_nas import Architecture, score
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperConvK3BNRELU(8,16,2,1)", (3, 8, 8))
        >>> score(net, "az_progressivity", repeats=1).ok
        True
    """
    entropies = _entropies(_features(batch.passes(network), features, 2))
    return min(after - before for before, after in pairwise(entropies))


@register_proxy(
    ProxyInfo("az_trainability", reads=("features",), source="arXiv:2403.19232", needs_gradients=True, cost="backward")
)
def az_trainability(network: nn.Module, batch: Batch, /, *, features: str | Sequence[str] = "") -> float:
    r"""Trainability of AZ-NAS (Lee and Ham, CVPR 2024, arXiv:2403.19232); higher is better, 0 at best (about).

    .. math:: \frac{1}{L - 1} \sum_{i > 1} \left(2 - s_i - \frac{1}{s_i + 10^{-6}}\right)

    with s_i the largest singular value of the estimated Jacobian of block i: signs g_out at random, the size of feature
    map i, give g_in by a vector-Jacobian product back to feature map i - 1, and the estimate is the mean of g_in times
    the transpose of g_out over images and positions. Where the block has a stride, the positions of g_in that belong to
    one of g_out are stacked as channels; where it enlarges the map, those of g_out are. The stride of two sides
    is their ratio; where that is no whole number the power of two by which the larger one, divided and rounded up or
    down, is the smaller; else the whole number nearest to the ratio. A larger map that is no such multiple gets zeros
    at its end, or loses what is over at both. A gradient is kept in size where s_i is 1. It needs no labels.

    Args:
        network: A module with at least two feature maps, each computed from the one before it.
        batch: ``inputs`` (N, C, H, W); ``output_noise``, one tensor of signs for each feature map after the first, or
            none, and they are drawn from ``seed``.
        features: As in `az_expressivity`.

    Raises:
        ProxyError: No module of a given name ran, or the noise does not fit the feature maps.
        UndefinedScoreError: There are fewer than two feature maps; one of them does not depend on the one before (a
            dead block among them); a block returns the gradient as it came (an identity); two maps differ in their
            number of axes; or a gradient is not finite.

    Departures from the authors' code: where it puts -inf for an identity there is no score here, and where it rounds a
    stride down, and fails, there is one.

    Example:
        >>> from zeroshot_nas import Architecture, score
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperConvK3BNRELU(8,16,2,1)", (3, 8, 8))
        >>> score(net, "az_trainability", repeats=1).value < 1e-6
        True
    """
    run = batch.passes(network)
    maps = _features(run, features, 2)
    if len(batch.output_noise) not in (0, len(maps) - 1):
        raise ProxyError(
            f"az_trainability has {len(maps)} feature maps and needs one output_noise for each after the first, "
            f"or none; got {len(batch.output_noise)}"
        )
    terms = []
    for index, ((_, before), (name, after)) in enumerate(pairwise(maps.items()), start=1):
        noise = _output_noise(after, batch, index)
        spectral = _largest_singular_value(run, before, after, noise, name)
        terms.append(2 - spectral - 1 / (spectral + 1e-6))
    return sum(terms) / len(terms)


def _features(run: Passes, features: str | Sequence[str], least: int) -> dict[str, Tensor]:
    """The feature maps by name, at least so many."""
    names = [name for name in features.split(",") if name] if isinstance(features, str) else list(features)
    maps = run.outputs(names) if names else run.forward.features
    if len(maps) < least:
        found = ", ".join(maps) or "none"
        raise UndefinedScoreError(
            f"{least} or more feature maps are needed, and the network has {len(maps)}: {found}. The option features "
            "names modules whose outputs to take"
        )
    return maps


def _entropies(maps: dict[str, Tensor]) -> list[float]:
    """The entropy of each feature map's spectrum."""
    return [_entropy(_rows(features), name) for name, features in maps.items()]


def _entropy(rows: Tensor, name: str) -> float:
    means = rows.mean(0)
    centred = rows - means
    gram = centred.T @ centred if centred.shape[0] >= centred.shape[1] else centred @ centred.T
    gram = gram.double()
    total = gram.trace().item()
    if not math.isfinite(total):
        raise UndefinedScoreError(f"the feature map {name} is not finite")
    rounding = len(rows) * (means.double() * 16 * torch.finfo(rows.dtype).eps).square().sum().item()
    if total <= rounding:
        raise UndefinedScoreError(f"the feature map {name} is constant")
    shares = torch.linalg.eigvalsh(gram).clamp_min_(0)
    shares /= shares.sum()
    return -float((shares * (shares + 1e-8).log()).sum())


def _rows(features: Tensor) -> Tensor:
    """One row for each image and position, one column a channel: ``(N, C, *spatial)`` to ``(N * positions, C)``."""
    return features.movedim(1, -1).flatten(0, -2)


def _output_noise(features: Tensor, batch: Batch, index: int) -> Tensor:
    """Signs of the features' shape, in their layout in memory: the batch's, or drawn."""
    if batch.output_noise:
        given = batch.output_noise[index - 1]
        if given.shape != features.shape:
            raise ProxyError(
                f"output_noise {index - 1} must have the shape {tuple(features.shape)}, got {tuple(given.shape)}"
            )
        return torch.empty_like(features).copy_(given)
    shape = features.movedim(1, -1).shape
    size = shape.numel()
    draws = torch.randint(256, (-(-size // 8), 1), generator=torch_generator(batch.seed, index), dtype=torch.uint8)
    bits = (draws >> torch.arange(8, dtype=torch.uint8)) & 1  # a sign a bit: a quarter of the time
    return bits.flatten()[:size].view(shape).to(features).mul_(2).sub_(1).movedim(-1, 1)


def _largest_singular_value(run: Passes, before: Tensor, after: Tensor, noise: Tensor, name: str) -> float:
    """Of the estimated Jacobian from the feature map before to the one after, whose name is given."""
    detached = run.differentiable and not after.requires_grad
    gradient = torch.zeros_like(before) if detached else run.backward(after, [before], noise)[0]
    with torch.no_grad():
        if gradient.shape == noise.shape and torch.equal(gradient, noise):
            raise UndefinedScoreError(f"what leads to the feature map {name} is the identity")
        if gradient.dim() != noise.dim():
            sides = tuple(noise.shape[2:]), tuple(gradient.shape[2:])
            raise UndefinedScoreError(f"the feature map {name} has sides {sides[0]}, and the one before it {sides[1]}")
        common = [min(sides) for sides in zip(gradient.shape[2:], noise.shape[2:], strict=True)]
        inputs, outputs = _stacked(gradient, common), _stacked(noise, common)
        jacobian = (inputs.T @ outputs).double() / len(outputs)
        if not torch.isfinite(jacobian).all():
            raise UndefinedScoreError(f"the gradient of the feature map {name} is not finite")
        if not jacobian.any():
            raise UndefinedScoreError(
                f"the feature map {name} does not depend on the one before it, or the way between is under no_grad"
            )
        return float(torch.linalg.matrix_norm(jacobian, ord=2))


def _stacked(features: Tensor, sides: Sequence[int]) -> Tensor:
    """The rows at a resolution that is no finer: positions that share one of it become channels."""
    if features.shape[2:] == tuple(sides):
        return _rows(features)
    strides = [_stride(side, coarse) for side, coarse in zip(features.shape[2:], sides, strict=True)]
    split = [size for coarse, stride in zip(sides, strides, strict=True) for size in (coarse, stride)]
    windows = _fitted(features, [coarse * stride for coarse, stride in zip(sides, strides, strict=True)])
    windows = windows.movedim(1, -1).reshape(len(features), *split, -1)  # N, then position and offset an axis, then C
    positions, offsets = range(1, 2 * len(sides), 2), range(2, 2 * len(sides) + 1, 2)
    return windows.permute(0, *positions, *offsets, -1).flatten(0, len(sides)).flatten(1)


def _stride(side: int, coarse: int) -> int:
    """By what a side was most likely made so coarse, rounded up (padding) or down (none)."""
    if side % coarse == 0:
        return side // coarse
    powers = [1 << place for place in range(1, side.bit_length())]
    fitting = [stride for stride in powers if coarse in (side // stride, -(-side // stride))]
    return fitting[0] if fitting else math.ceil(side / coarse - 0.5)


def _fitted(features: Tensor, sides: Sequence[int]) -> Tensor:
    """The features with zeros at their end, or cut at both, so that they have the sides."""
    margins: list[int] = []  # before and after of each axis, the last one first; below zero they cut
    for side, wanted in zip(features.shape[2:], sides, strict=True):
        before = -(max(0, side - wanted) // 2)
        margins = [before, wanted - side - before, *margins]
    return nn.functional.pad(features, margins) if any(margins) else features
