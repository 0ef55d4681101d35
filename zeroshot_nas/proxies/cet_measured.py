"""CET measured: capacity, expressivity and trainability of any module, from one forward pass and two passes back.

All is read off the graph that autograd keeps of the forward pass: the input and output of each convolution, what lies
between two of them, and which are parallel. One backward pass gives all gradients. In a second one every nonlinearity
passes its mean slope alone, which leaves the part of the output that is linear in the image. Neither needs gradients of
weights, so that both together cost about what a training step's backward pass does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.passes import passes
from zeroshot_nas.proxies.base import Batch, checked_log
from zeroshot_nas.seeding import torch_generator

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

_SLOPE_ENTRIES = 512
"""Images times positions from which on a channel's mean slope is its own."""

_LEAST_CORRELATION = 0.05
"""What samples leave of no correlation; below it two convolutions count as independent."""

_LINEAR_LOSS = -math.log(1 / 4 / (1 / 2 - 1 / (2 * math.pi)))
"""What one layer of a plain chain takes from the logarithm of the linear share: 0.3098."""

_GRADIENT_GAIN = math.log(math.pi / (math.pi - 1))
"""What it adds to the logarithm of the gradient's energy: 0.3828."""

_ACTIVATIONS = {
    *("Relu", "LeakyRelu", "Prelu", "Hardtanh", "Clamp", "Threshold", "Silu", "Hardswish", "Gelu", "Elu", "Celu"),
    *("Mish", "Softplus", "Sigmoid", "LogSigmoid", "Hardsigmoid", "Tanh"),
}
"""Names of elementwise nonlinearities in autograd's graph."""

Node: TypeAlias = Any
"""A node of autograd's graph, which stands for one operation; torch states no type for what it saves."""


@dataclass(frozen=True)
class MeasuredLayer:
    """What one convolution was found to do.

    Attributes:
        weights: Number of its weights.
        out_channels: Output channels.
        positions: Output positions, height times width.
        patch_rank: Participation ratio of its input patches' covariance (of one group's).
        novelty: The share of it that no larger convolution on a parallel path repeats, 0 to 1.
        output_rank: Effective output channels, the participation ratio of their correlations.
        output_positions: Effective output positions, exp of the entropy of the power spectrum.
        gradient_rank: As ``output_rank``, of the gradient of the normalised output.
        gradient_positions: As ``output_positions``, of that gradient.
    """

    weights: int
    out_channels: int
    positions: int
    patch_rank: float
    novelty: float
    output_rank: float
    output_positions: float
    gradient_rank: float
    gradient_positions: float

    @property
    def parameters(self) -> float:
        """Effective parameters: novelty x output channels x patch rank."""
        return self.novelty * self.out_channels * self.patch_rank

    @property
    def trained(self) -> float:
        """Effective weights that the head can tell apart: with the gradient's rank in place of the channels."""
        return self.novelty * self.gradient_rank * self.patch_rank


@dataclass(frozen=True)
class MeasuredCet:
    """The measured pieces of CET, and the score.

    Attributes:
        layers: The convolutions that count, in order.
        D_f: Layers of a plain chain that keeps as small a share of its output linear in the image.
        D_b: Layers of a plain chain in which the gradient grows as much.
        P: Effective parameters.
        PF: The same, each at its effective output positions: effective FLOPs.
        W: Effective weights that the head can tell apart.
        W_L2: The same, each at all its output positions.
        E: Expressivity: the sum of the logarithms of the layers' effective output dimensions.
        Em: The same with the narrower of output and gradient, and 1 added to each.
        D: The larger of the two depths.
        value: log(1 + sqrt(W * W_L2)) + log(1/2 + Em) - max(0, D - 20) / 20, which is CET-G.
    """

    layers: tuple[MeasuredLayer, ...]
    D_f: float
    D_b: float
    P: float = field(init=False)
    PF: float = field(init=False)
    W: float = field(init=False)
    W_L2: float = field(init=False)
    E: float = field(init=False)
    Em: float = field(init=False)
    D: float = field(init=False)
    value: float = field(init=False)

    def __post_init__(self) -> None:
        layers = self.layers
        forward = [each.output_rank * each.output_positions for each in layers]
        backward = [each.gradient_rank * each.gradient_positions for each in layers]
        pieces = {
            "P": sum(each.parameters for each in layers),
            "PF": sum(each.parameters * each.output_positions for each in layers),
            "W": sum(each.trained for each in layers),
            "W_L2": sum(each.trained * each.positions for each in layers),
            "E": sum(max(0.0, math.log(rank)) for rank in forward),
            "Em": sum(math.log1p(min(ranks)) for ranks in zip(forward, backward, strict=True)),
            "D": max(self.D_f, self.D_b),
        }
        capacity = math.log1p(math.sqrt(pieces["W"] * pieces["W_L2"]))
        pieces["value"] = capacity + math.log(0.5 + pieces["Em"]) - max(0.0, pieces["D"] - 20) / 20
        for name, value in pieces.items():
            object.__setattr__(self, name, value)


def measure_cet(network: nn.Module, batch: Batch) -> MeasuredCet:
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

    What counts: convolutions that an image and a gradient reach, but for those that read the image through no other
    convolution (the stem), those from one position to one (gates, classifiers), and 1x1 convolutions with neither an
    activation before nor a norm behind (bare shortcuts).

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
        >>> pieces = measure_cet(network, Batch(torch.randn(8, 3, 16, 16, generator=torch_generator(0))))
        >>> len(pieces.layers), 0 < pieces.P < 8 * 8 * 9, pieces.P >= pieces.W
        (1, True, True)
    """
    run = passes(network, batch.inputs, batch.targets)
    images, output = run.inputs, run.forward.output
    if len(images) < 2:
        raise ProxyError(f"cet compares images and needs two or more, got {len(images)}; raise batch_size")
    image_variance = _variance(images, "the images")
    logits = _logits(output, batch)
    graph = _Graph(logits, images)
    calls = [layer.output for layer in run.forward.layers if layer.weight.dim() > 2]
    outputs = {call.grad_fn: call for call in calls if call.grad_fn in graph.place}
    if not outputs:
        raise UndefinedScoreError("no convolution lies between the image and the output")
    signs = _signs(logits, batch.seed)
    with graph.energy_at_last() as last_energy:
        image_gradient, *gradients = run.backward(logits, [images, *outputs.values()], signs)
    sampler = _Sampler(len(images), batch.seed)
    with torch.no_grad():
        every = (
            _Convolution(node, output, gradient, graph.norm_behind(node), sampler)
            for (node, output), gradient in zip(outputs.items(), gradients, strict=True)
            if graph.is_counted(node, output)
        )
        live = [each for each in every if each.is_live]
        if not live:
            raise UndefinedScoreError("no convolution behind the first is alive: none has both an input and a gradient")
        novelties = _novelties(live, graph.segments())
        layers = tuple(each.layer(novelty, sampler) for each, novelty in zip(live, novelties, strict=True))
        ratio = image_variance / _variance(graph.value(graph.last, outputs), "the last feature map")
    with graph.linearised(batch.seed) as noise_energy:
        (linear_gradient,) = run.backward(logits, [images], signs)
    share = checked_log(_energy(linear_gradient) / noise_energy[0] * ratio, "the output's part linear in the image")
    gain = checked_log(_energy(image_gradient) / last_energy[0] * ratio, "the image's gradient")
    return MeasuredCet(layers, -share / _LINEAR_LOSS, gain / _GRADIENT_GAIN)


def _logits(output: Any, batch: Batch) -> Tensor:
    """The module's output (N, K); of a feature map what a random linear classifier makes of its mean."""
    if not isinstance(output, Tensor) or output.dim() < 2 or output.grad_fn is None:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ProxyError(f"cet expects logits (N, num_classes) or a feature map with a gradient, got {got}")
    if output.dim() == 2:
        return output
    with torch.enable_grad():
        pooled = output.flatten(2).mean(2)
        weights = torch.randn(pooled.shape[1], CLASSES, generator=torch_generator(batch.seed, 1))
        return pooled @ weights.to(pooled)


def _signs(like: Tensor, seed: int) -> Tensor:
    draw = torch.randint(2, like.shape, generator=torch_generator(seed, 0), dtype=torch.int8)
    return torch.empty_like(like).copy_(draw).mul_(2).sub_(1)


def _energy(x: Tensor) -> float:
    return float(x.square().sum(dtype=torch.float64))


def _variance(x: Tensor, what: str) -> float:
    """The variance about each channel's mean, averaged over channels."""
    variance = float(x.detach().transpose(0, 1).flatten(1).double().var(1, correction=0).mean())
    if not 0 < variance < math.inf:
        raise UndefinedScoreError(f"the variance of {what} is {variance:g}")
    return variance


class _Graph:
    """The operations between the image and the output, in an order in which each stands behind what it reads.

    Attributes:
        place: Of each node its place in that order.
        last: The operation that gives the last feature map before an activation, a pooling or the classifier.
    """

    def __init__(self, output: Tensor, image: Tensor) -> None:
        self.sources: dict[Node, list[Node]] = {}
        stack: list[tuple[Node, bool]] = [(output.grad_fn, False)]
        seen: set[Node] = set()
        while stack:
            node, is_done = stack.pop()
            read = [each for each, _ in node.next_functions if each is not None]
            if is_done:
                sources = [each for each in read if each in self.sources]
                if sources or getattr(node, "variable", None) is image:  # weights lead to no image
                    self.sources[node] = sources
            elif node not in seen:
                seen.add(node)
                stack += [(node, True), *((each, False) for each in read if each not in seen)]
        self.users: dict[Node, list[Node]] = {node: [] for node in self.sources}
        for node, sources in self.sources.items():
            for each in sources:
                self.users[each].append(node)
        self.place = {node: index for index, node in enumerate(self.sources)}
        self.last = self._last_feature_map()
        self._behind_convolution: set[Node] = set()
        for node, sources in self.sources.items():
            if any(_is_convolution(each) or each in self._behind_convolution for each in sources):
                self._behind_convolution.add(node)

    def _last_feature_map(self) -> Node:
        found = [each for each in self.sources if _is_convolution(each) or _kind(each) in ("norm", "Add", "Cat", "Mul")]
        maps = [each for each in found if len(_shape(each)) > 2]
        if not maps:
            raise UndefinedScoreError("no convolution lies between the image and the output")
        return next((each for each in reversed(maps) if math.prod(_shape(each)[2:]) > 1), maps[-1])

    def segments(self) -> dict[Node, int]:
        """Numbers that two nodes share where they lie between the same two operations that all paths pass."""
        found, reach, segment = {}, 0, 0
        for place, (node, users) in enumerate(self.users.items()):
            passed_by_all = reach <= place
            segment += passed_by_all
            found[node] = segment
            segment += passed_by_all
            reach = max([reach, *(self.place[user] for user in users)])
        return found

    def is_counted(self, node: Node, output: Tensor) -> bool:
        """Whether a convolution is no stem, no gate's, and no bare 1x1 shortcut (neither activation nor norm)."""
        if node not in self._behind_convolution or output.shape[2:].numel() == 1 == node._saved_input.shape[2:].numel():
            return False
        if node._saved_weight.shape[2:].numel() > 1 or self.norm_behind(node) is not None:
            return True
        before = self.sources[node][0]
        while any(word in before.name() for word in ("Pool", "Pad")):
            before = self.sources[before][0]
        return _kind(before) == "activation"

    def norm_behind(self, node: Node) -> Node | None:
        """The norm that reads what an operation returned."""
        return next((user for user in self.users[node] if _kind(user) == "norm"), None)

    def value(self, node: Node, outputs: Mapping[Node, Tensor]) -> Tensor:
        """What an operation returned, from what autograd has saved."""
        name, sources = node.name(), self.sources[node]
        if node in outputs:
            return outputs[node]
        if "BatchNorm" in name:
            return nn.functional.batch_norm(node._saved_input, None, None, node._saved_weight, None, True)
        if "GroupNorm" in name:
            return nn.functional.group_norm(node._saved_input, node._saved_group, node._saved_weight)
        if name.startswith("Relu"):
            kept: Tensor = node._saved_result
            return kept
        if "Pool2D" in name and "Adaptive" not in name:
            x, window = node._saved_self, (node._saved_kernel_size, node._saved_stride, node._saved_padding)
            if name.startswith("Max"):
                return nn.functional.max_pool2d(x, *window, node._saved_dilation, node._saved_ceil_mode)
            return nn.functional.avg_pool2d(x, *window, node._saved_ceil_mode, node._saved_count_include_pad)
        if name.startswith("Mul"):
            factors = [each for each in (node._saved_self, node._saved_other) if each is not None]
            factors += [self.value(sources[0], outputs)] * (2 - len(factors))
            multiplied: Tensor = factors[0] * factors[1]
            return multiplied
        if name.startswith("Cat"):
            return torch.cat([self.value(each, outputs) for each in sources], 1)
        if name.startswith("Add"):
            parts = [self.value(each, outputs) for each in sources]
            return sum(parts[1:], parts[0])
        user = next((each for each in self.users[node] if hasattr(each, "_saved_self")), None)
        if user is None:
            raise ProxyError(f"cet knows no way to read what {name} returned; end the feature map by a norm or ReLU")
        read: Tensor = user._saved_self
        return read

    @contextmanager
    def energy_at_last(self) -> Iterator[list[float]]:
        """While open, a backward pass leaves the energy of the last feature map's gradient in the list."""
        found: list[float] = []
        handle = self.last.register_prehook(lambda gradients: found.append(_energy(gradients[0])))
        try:
            yield found
        finally:
            handle.remove()

    @contextmanager
    def linearised(self, seed: int) -> Iterator[list[float]]:
        """While open, a backward pass is that of the mean linear map, from random signs at the last feature map.

        The list gets the signs' energy. By Stein's lemma the mean of the slope is what is linear in a Gaussian input.
        """
        found: list[float] = []

        def start(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            found.append(float(gradients[0].numel()))
            return (_signs(gradients[0], seed), *gradients[1:])

        handles = [self.last.register_prehook(start)]
        for node in self.sources:
            if _kind(node) == "activation":
                handles.append(node.register_hook(_mean_slope))
            elif node.name().startswith("MaxPool2D"):
                handles.append(node.register_hook(_mean_of_windows(node)))
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


_Gradients: TypeAlias = tuple[Tensor, ...]


def _mean_slope(to_input: _Gradients, to_output: _Gradients) -> _Gradients:
    """The output's gradient times each channel's mean slope, in place of what the activation made of it.

    A channel with few entries takes the mean over all: the square of its own slope would be too large for its noise.
    """
    given, made = to_output[0], to_input[0]
    axes = _all_but_channels(given) if given.numel() >= _SLOPE_ENTRIES * given.shape[1] else tuple(range(given.dim()))
    slopes = (given * made).sum(axes, keepdim=True) / given.square().sum(axes, keepdim=True).clamp_min(1e-30)
    return (torch.mul(given, slopes, out=made), *to_input[1:])


def _mean_of_windows(node: Node) -> Callable[[_Gradients, _Gradients], _Gradients]:
    """The largest of a window is each of its positions equally often."""

    def spread(_: _Gradients, to_output: _Gradients) -> _Gradients:
        window = node._saved_kernel_size, node._saved_stride, node._saved_padding, node._saved_ceil_mode
        return (torch.ops.aten.avg_pool2d_backward(to_output[0], node._saved_self, *window, False, None),)

    return spread


def _kind(node: Node) -> str:
    """``activation``, ``norm``, or the name up to ``Backward``."""
    name: str = node.name().partition("Backward")[0]
    return "norm" if "Norm" in name else "activation" if name in _ACTIVATIONS else name


def _is_convolution(node: Node) -> bool:
    return "Convolution" in node.name()


def _shape(node: Node) -> tuple[int, ...]:
    """Shape of what an operation returned."""
    return tuple(node._input_metadata[0].shape)


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
        norm: The norm behind it, or None.
        sampler: What to look at.
    """

    def __init__(self, node: Node, output: Tensor, gradient: Tensor, norm: Node | None, sampler: _Sampler) -> None:
        self.node = node
        self.output = output
        self.gradient = gradient
        self.input: Tensor = node._saved_input
        self.weight: Tensor = node._saved_weight
        self.input_means = self.input.mean(_all_but_channels(self.input))
        self.output_means, self.deviations = _channel_moments(output, norm)
        self.inputs = sampler.rows(self.input) - self.input_means
        self.gradients = sampler.rows(gradient) * self.deviations  # of the output as a norm behind it scales it

    @property
    def is_live(self) -> bool:
        """Whether an input reaches it and a gradient comes back."""
        variance, constant = self.deviations.square().mean(), self.output_means.square().mean()
        return bool(variance > constant * _ROUNDING**2 and self.gradients.any())

    def layer(self, novelty: float, sampler: _Sampler) -> MeasuredLayer:
        outputs = sampler.rows(self.output) - self.output_means
        outputs /= self.deviations.clamp_min(torch.finfo(outputs.dtype).tiny)
        return MeasuredLayer(
            weights=self.weight.numel(),
            out_channels=self.output.shape[1],
            positions=self.output.shape[2:].numel(),
            patch_rank=self._patch_rank(sampler),
            novelty=novelty,
            output_rank=_rank(outputs[:, :, None]),
            output_positions=sampler.effective_positions(self.output, self.output_means),
            gradient_rank=_rank(self.gradients[:, :, None]),
            gradient_positions=sampler.effective_positions(self.gradient, torch.zeros_like(self.output_means)),
        )

    def _patch_rank(self, sampler: _Sampler) -> float:
        """Effective channels times effective taps: the covariance as a product of the two, which the mean field has."""
        groups = self.node._saved_groups
        rows = self.inputs.view(*self.inputs.shape[:2], groups, -1)[:, :, :: -(-groups // _GROUPS)]
        patches = sampler.patches(self.input, self.weight.shape[2:], self.node._saved_dilation) - self.input_means
        taps = patches.flatten(1)
        covariance = (taps @ taps.T).double()
        return _rank(rows) * float(covariance.trace().square() / covariance.square().sum())


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def _channel_moments(x: Tensor, norm: Node | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel over images and positions; a batch norm of the batch has them already."""
    if norm is not None and getattr(norm, "_saved_training", False) and len(norm._saved_result2):
        variances = norm._saved_result2.pow(-2) - norm._saved_eps
        variances *= variances > norm._saved_eps * _ROUNDING
        return norm._saved_result1, variances.sqrt()
    variances, means = torch.var_mean(x, _all_but_channels(x), correction=0)
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
