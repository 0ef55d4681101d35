"""The terms of CET measured on any module, from one forward pass and two passes back.

All is read off the graph that autograd keeps of the forward pass: the input and output of each convolution, what lies
between two of them, and which are parallel. One backward pass gives all gradients. In a second one every nonlinearity
passes its mean slope alone, which leaves the part of the output that is linear in the image. Neither needs gradients of
weights, so that both together cost about what a training step's backward pass does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.autograd_graph import AutogradGraph, Node, all_but_channels, energy, random_signs
from zeroshot_nas.scoring.passes import check_differentiable
from zeroshot_nas.scoring.proxy import Batch, checked_log

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from zeroshot_nas.closed_form.cet.terms import CetTerms, ConvColumns
else:
    np = LazyModule("numpy")
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

CLASSES = 10
"""Random linear outputs that stand in for logits where a module returns a feature map."""

_POSITIONS = 128
"""Positions, over all images, whose inner products give a layer's second moments."""

_MAPS = 32
"""Maps of one channel and image whose power spectra are averaged."""

_GROUPS = 32
"""Groups of a grouped convolution that are looked at."""

_ROUNDING = 1e-4
"""A channel that varies by less, against its mean or what a norm adds, is constant."""

_LEAST_CORRELATION = 0.05
"""What samples leave of no correlation; below it two convolutions count as independent."""


class Measured(NamedTuple):
    """What `measure_cet` finds.

    Attributes:
        layers: The convolutions that count, in order.
        weights: How many weights each has.
        pieces: What CET weighs.
        num_classes: Number of logits.
    """

    layers: ConvColumns
    weights: tuple[int, ...]
    pieces: CetTerms
    num_classes: int


def measure_cet(network: nn.Module, batch: Batch) -> Measured:
    r"""The pieces of CET of any module, from one forward pass and two backward passes; a higher value is better.

    For each convolution, with second moments over images and positions (8 images are enough):

    - patch rank :math:`(\mathrm{tr}\,C)^2 / \mathrm{tr}\,C^2 \cdot (\mathrm{tr}\,T)^2 / \mathrm{tr}\,T^2`, C the
      covariance of its input channels (of one group's), T that of its kernel's taps, averaged over channels;
    - output rank and gradient rank, the same of the correlations of its output channels, and of their gradients when
      random signs arrive at the logits; effective positions of both, exp of the entropy of the power spectrum;
    - novelty: of convolutions on parallel paths with inputs and outputs of equal shape, the squared diagonal of the
      Cholesky factor of (correlation of inputs) x (correlation of output gradients), the one of most weights first.

    Traces of squares are sums over pairs of different images, so that few images make them noisy but not larger. D_b
    is the logarithm of the gradient's gain in energy from the last feature map to the image, in units of a plain
    chain's layer. D_f is the logarithm of the linear share of the last feature map's energy, likewise: a linear map A
    that sends x ~ N(0, 1) to an output of energy q has the share :math:`\|A\|_F^2 / q`, by Stein's lemma A is the mean
    slope, and in the mean field the mean slope is the product of the mean slopes of the layers.

    What counts: convolutions that an image and a gradient reach, but for those from one position to one (gates,
    classifiers), and 1x1 convolutions with neither an activation before nor a norm behind (bare shortcuts). Those that
    read the image through no other convolution are marked as the stem.

    Departures from the closed form: patches that the zero padding touches are left out; channels and taps are measured
    on the weights at hand, which correlate channels more than the mean over weights does; a sum is all that it is, not
    a sum of independent sources. The covariance of whole patches, which also holds what different channels share at
    different positions, is half as large in rank and ranks networks worse.

    Args:
        network: Any module that convolves; linear layers don't count. Its weights, and the mode of its norms, are used
            as they are; `zeroshot_nas.score` sets both.
        batch: ``inputs`` (N, C, H, W), two images or more, of variance 1; random signs are drawn from ``seed``.

    Raises:
        ProxyError: There is one image only, or the module returns neither logits (N, K) nor a feature map.
        UndefinedScoreError: No convolution is alive, the images or the last feature map are constant, or a number is
            not finite.

    Example:
        >>> conv = [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> found = measure_cet(network, Batch(torch.randn(8, 3, 16, 16, generator=torch_generator(0))))
        >>> found.weights, 0 < found.pieces.P < 8 * 8 * 9, found.pieces.P >= found.pieces.W
        ((216, 576), True, True)
    """
    from zeroshot_nas.closed_form.cet.terms import GRADIENT_GAIN, LINEAR_LOSS, CetTerms, ConvColumns

    run = batch.passes(network)
    images, output = run.inputs, run.forward.output
    if len(images) < 2:
        raise ProxyError(f"cet compares images and needs two or more, got {len(images)}; raise batch_size")
    calls = [layer.output for layer in run.forward.layers if layer.weight.dim() > 2]
    if any(call.is_complex() for call in calls):
        raise ProxyError(f"cet reads convolutions of real numbers, and {type(network).__name__} has complex ones")
    image_variance = _variance(images, "the images")
    logits = _logits(network, output, batch)
    graph = AutogradGraph(logits, images)
    outputs = {call.grad_fn: call for call in calls if call.grad_fn in graph.place}
    if not outputs:
        raise UndefinedScoreError("no convolution lies between the image and the output")
    signs = random_signs(logits, batch.seed)
    with graph.energy_at_last() as last_energy:
        image_gradient, *gradients = run.backward(logits, [images, *outputs.values()], signs)
    sampler = _Sampler(len(images), batch.seed)
    with torch.no_grad():
        every = (
            _Convolution(node, output, gradient, graph, sampler)
            for (node, output), gradient in zip(outputs.items(), gradients, strict=True)
            if graph.is_counted(node, output)
        )
        live = [each for each in every if each.is_live]
        if not live:
            raise UndefinedScoreError("no convolution is alive: none has both an input and a gradient")
        novelties = _novelties(live, graph.segments())
        rows = [each.numbers(novelty, sampler) for each, novelty in zip(live, novelties, strict=True)]
        ratio = image_variance / _variance(graph.last_value(outputs), "the last feature map")
    with graph.linearised(batch.seed) as noise_energy:
        (linear_gradient,) = run.backward(logits, [images], signs)
    share = checked_log(energy(linear_gradient) / noise_energy[0] * ratio, "the output's part linear in the image")
    gain = checked_log(energy(image_gradient) / last_energy[0] * ratio, "the image's gradient")
    layers = ConvColumns(*np.array(rows, np.float64).T)
    weights = tuple(each.weight.numel() for each in live)
    terms = CetTerms.of(layers, -share / LINEAR_LOSS, gain / GRADIENT_GAIN)
    return Measured(layers, weights, terms, logits.shape[1])


def _logits(network: nn.Module, output: Any, batch: Batch) -> Tensor:
    """The module's output (N, K); of a feature map what a random linear classifier makes of its mean."""
    if not isinstance(output, torch.Tensor) or output.dim() < 2:
        got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise ProxyError(f"cet expects logits (N, num_classes) or a feature map, got {got}")
    check_differentiable(network, output)
    if output.dim() == 2:
        return output
    with torch.enable_grad():
        pooled = output.flatten(2).mean(2)
        weights = torch.randn(pooled.shape[1], CLASSES, generator=torch_generator(batch.seed, 1))
        return pooled @ weights.to(pooled)


def _variance(x: Tensor, what: str) -> float:
    """The variance about each channel's mean, averaged over channels."""
    variance = float(x.detach().transpose(0, 1).flatten(1).double().var(1, correction=0).mean())
    if not 0 < variance < math.inf:
        raise UndefinedScoreError(f"the variance of {what} is {variance:g}")
    return variance


class _Sampler:
    """Which positions, taps and maps of a tensor are looked at; the same for tensors of the same shape."""

    def __init__(self, images: int, seed: int) -> None:
        self.images = images
        self.seed = seed
        self._positions: dict[tuple[int, ...], Tensor] = {}

    def positions(self, sides: Sequence[int]) -> Tensor:
        """Places in a flattened map, the same in each image."""
        key = tuple(sides)
        if key not in self._positions:
            order = torch.randperm(math.prod(key), generator=torch_generator(self.seed, 2, *key))
            self._positions[key] = order[: -(-_POSITIONS // self.images)]
        return self._positions[key]

    def rows(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` at the positions: ``(N, positions, C)``."""
        return _select(x, self.positions(x.shape[2:]))

    def patches(self, x: Tensor, kernel: Sequence[int], dilation: Sequence[int]) -> Tensor:
        """Patches that lie inside the map: ``(taps, N * positions, C)``; a kernel is cut where the map is smaller."""
        sides = x.shape[2:]
        cut = [max(1, min(k, side // d)) for k, side, d in zip(kernel, sides, dilation, strict=True)]
        room = [side - d * (k - 1) for k, side, d in zip(cut, sides, dilation, strict=True)]
        steps = [math.prod(sides[axis + 1 :]) for axis in range(len(sides))]
        starts = torch.unravel_index(self.positions(room), room)
        corner = sum(start * step for start, step in zip(starts, steps, strict=True))
        taps = [
            sum(place * d * step for place, d, step in zip(tap, dilation, steps, strict=True))
            for tap in product(*map(range, cut))
        ]
        index = torch.tensor(taps)[:, None] + corner
        return _select(x, index.flatten()).view(len(x), *index.shape, -1).transpose(0, 1).flatten(1, 2)

    def effective_positions(self, x: Tensor, means: Tensor) -> float:
        """Exp of the entropy of the power spectrum, averaged over maps of as many channels as may be."""
        channels = x.shape[1]
        which = torch.arange(min(_MAPS, len(x) * channels))
        channel = which * max(1, channels // _MAPS) % channels
        maps = x[which % len(x), channel].float()
        maps -= means[channel].view(-1, *[1] * (maps.dim() - 1))
        power = torch.fft.rfftn(maps, dim=tuple(range(1, maps.dim())))
        power = torch.view_as_real(power).square().sum((0, -1)).double()
        mirrored = torch.ones(power.shape[-1], dtype=torch.float64, device=power.device)
        mirrored[1 : (maps.shape[-1] + 1) // 2] = 2  # frequencies that stand for their mirror image too
        total = float((power * mirrored).sum())
        return total * math.exp(-float((torch.special.xlogy(power, power) * mirrored).sum()) / total) if total else 0.0


def _select(x: Tensor, places: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2).index_select(1, places.to(x.device))


class _Convolution:
    """One call of a convolution, and what is sampled of it.

    Args:
        node: Its operation.
        output: What it returned.
        gradient: The gradient of that.
        graph: The graph that it is part of.
        sampler: What to look at.
    """

    def __init__(self, node: Node, output: Tensor, gradient: Tensor, graph: AutogradGraph, sampler: _Sampler) -> None:
        self.node = node
        self.output = output
        self.gradient = gradient
        self.input: Tensor = node._saved_input
        self.weight: Tensor = node._saved_weight
        self.is_stem = graph.is_stem(node)
        self.input_means = self.input.mean(all_but_channels(self.input))
        self.output_means, self.deviations = _channel_moments(output, graph.norm_behind(node))
        self.inputs = sampler.rows(self.input) - self.input_means
        self.gradients = sampler.rows(gradient) * self.deviations  # of the output as a norm behind it scales it

    @property
    def is_live(self) -> bool:
        """Whether an input reaches it and a gradient comes back."""
        variance, constant = self.deviations.square().mean(), self.output_means.square().mean()
        return bool(variance > constant * _ROUNDING**2 and self.gradients.any())

    def numbers(self, novelty: float, sampler: _Sampler) -> tuple[float, ...]:
        """One value for each field of `ConvColumns`."""
        outputs = sampler.rows(self.output) - self.output_means
        outputs /= self.deviations.clamp_min(torch.finfo(outputs.dtype).tiny)
        return (
            self.output.shape[1],
            self.input.shape[1],
            self.weight[0].numel(),
            self.output.shape[2:].numel(),
            self._patch_rank(sampler),
            novelty,
            _rank(outputs[:, :, None]),
            sampler.effective_positions(self.output, self.output_means),
            _rank(self.gradients[:, :, None]),
            sampler.effective_positions(self.gradient, torch.zeros_like(self.output_means)),
            self.is_stem,
        )

    def _patch_rank(self, sampler: _Sampler) -> float:
        """Effective channels times effective taps: the covariance as a product of the two, which the mean field has."""
        groups = self.node._saved_groups
        rows = self.inputs.view(*self.inputs.shape[:2], groups, -1)[:, :, :: -(-groups // _GROUPS)]
        patches = sampler.patches(self.input, self.weight.shape[2:], self.node._saved_dilation) - self.input_means
        taps = patches.flatten(1)
        covariance = (taps @ taps.T).double()
        return _rank(rows) * float(covariance.trace().square() / covariance.square().sum())


def _channel_moments(x: Tensor, norm: Node | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel over images and positions; a batch norm of the batch has them already."""
    if norm is not None and getattr(norm, "_saved_training", False) and len(norm._saved_result2):
        variances = norm._saved_result2.pow(-2) - norm._saved_eps
        variances *= variances > norm._saved_eps * _ROUNDING
        return norm._saved_result1, variances.sqrt()
    variances, means = torch.var_mean(x, all_but_channels(x), correction=0)
    return means, variances.sqrt()


def _rank(rows: Tensor) -> float:
    """Participation ratio (tr C)^2 / tr C^2 of the columns' second moments, averaged over groups; 1 to the columns.

    Both traces are sums over pairs of different images, which are independent: neither is biased by how few there are.

    Args:
        rows: ``(N, positions, groups, columns)``, of mean zero.
    """
    images, positions, groups, columns = rows.shape
    if columns == 1:
        return 1.0
    flat = rows.permute(2, 0, 1, 3).reshape(groups, images * positions, columns)
    gram = flat @ flat.transpose(1, 2)
    energies = gram.diagonal(dim1=1, dim2=2).view(groups, images, positions).sum(2).double()
    squares = gram.square_().view(groups, images, positions, images, positions).sum((2, 4)).double()
    trace = float(energies.sum(1).square().sum() - energies.square().sum())
    trace_of_square = float(squares.sum() - squares.diagonal(dim1=1, dim2=2).sum())
    return min(max(trace / trace_of_square, 1.0), float(columns)) if trace_of_square > 0 else 1.0


def _novelties(convolutions: Sequence[_Convolution], segments: Mapping[Node, int]) -> list[float]:
    """Of each convolution the share that no larger one on a parallel path of the same shape repeats.

    Two that read alike and whose outputs are used alike are one linear map: their likeness is the product of the two
    correlations, and the novelty the squared diagonal of its Cholesky factor, the largest first.
    """
    parallel: dict[Any, list[int]] = {}
    for index, each in enumerate(convolutions):
        key = segments[each.node], each.input.shape, each.output.shape
        parallel.setdefault(key, []).append(index)
    novelties = [1.0] * len(convolutions)
    for members in parallel.values():
        if len(members) > 1:
            members.sort(key=lambda index: -convolutions[index].weight.numel())
            inputs = _correlations([convolutions[index].inputs for index in members])
            likeness = inputs * _correlations([convolutions[index].gradients for index in members])
            likeness[np.abs(likeness) < _LEAST_CORRELATION] = 0
            for place, index in enumerate(members[1:], start=1):
                before, own = likeness[:place, :place], likeness[place, :place]
                repeated = own @ np.linalg.pinv(before, rcond=1e-6, hermitian=True) @ own
                novelties[index] = float(np.clip(1 - repeated, 0, 1))
    return novelties


def _correlations(samples: Sequence[Tensor]) -> np.ndarray:
    rows = torch.stack([each.flatten() for each in samples]).double()
    rows /= rows.norm(dim=1, keepdim=True)
    return (rows @ rows.T).cpu().numpy()
