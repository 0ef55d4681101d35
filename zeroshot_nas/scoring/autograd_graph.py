"""The graph that autograd keeps of a forward pass: which operation reads which, what each returned, its mean slopes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.feature_map import ShapeAndType, is_feature_map

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

_SLOPE_ENTRIES = 512
"""Images times positions from which on a channel's mean slope is its own."""

_ACTIVATIONS = {
    *("Relu", "LeakyRelu", "PreluKernel", "Hardtanh", "Clamp", "Threshold", "Silu", "Hardswish", "Gelu", "Elu", "Celu"),
    *("Mish", "Softplus", "Sigmoid", "LogSigmoid", "Hardsigmoid", "Tanh"),
}
"""Names of elementwise nonlinearities in autograd's graph."""

Node: TypeAlias = Any
"""A node of autograd's graph, which stands for one operation; torch states no type for what it saves."""


def nodes_behind(outputs: Iterable[Tensor]) -> set[Node]:
    """All operations that tensors were computed by, and the leaves that those read."""
    pending: list[Node] = [output.grad_fn for output in outputs if output.grad_fn is not None]
    found = set(pending)
    while pending:
        read = {node for node, _ in pending.pop().next_functions if node is not None} - found
        found |= read
        pending += read
    return found


class AutogradGraph:
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
        kinds = ("norm", "Add", "Cat", "Mul")
        nodes = [each for each in self.sources if _is_convolution(each) or _kind(each) in kinds]
        maps = [each for each in nodes if len(_returned(each).shape) > 2]
        if not maps:
            raise UndefinedScoreError("no convolution lies between the image and the output")
        return next((each for each in reversed(maps) if is_feature_map(_returned(each))), maps[-1])

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
        """Whether a convolution is no gate's, and no bare 1x1 shortcut (neither activation nor norm)."""
        if output.shape[2:].numel() == 1 == node._saved_input.shape[2:].numel():
            return False
        if node._saved_weight.shape[2:].numel() > 1 or self.norm_behind(node) is not None:
            return True
        before = self.sources[node][0]
        while any(word in before.name() for word in ("Pool", "Pad")):
            before = self.sources[before][0]
        return _kind(before) == "activation"

    def is_stem(self, node: Node) -> bool:
        """Whether a convolution reads the image through no other."""
        return node not in self._behind_convolution

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
        if name.startswith("NativeLayerNorm"):
            return nn.functional.layer_norm(node._saved_input, node._saved_normalized_shape, node._saved_weight)
        if _kind(node) == "activation" and (activated := _activated(node)) is not None:
            return activated
        if "Pool2D" in name and "Adaptive" not in name:
            x, window = node._saved_self, (node._saved_kernel_size, node._saved_stride, node._saved_padding)
            if name.startswith("Max"):
                return nn.functional.max_pool2d(x, *window, node._saved_dilation, node._saved_ceil_mode)
            return nn.functional.avg_pool2d(x, *window, node._saved_ceil_mode, node._saved_count_include_pad)
        if name.startswith("Mul"):
            kept = (
                getattr(node, each, None) for each in ("_saved_self", "_saved_other")
            )  # a number times a map has one
            factors = [each for each in kept if each is not None]
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
            raise ProxyError(
                "cet reads batch, group and layer norms, activations, pooling, sums, products and joined maps, and "
                f"this network needs the output of torch's {name.partition('Backward')[0]}; score it by another proxy"
            )
        read: Tensor = user._saved_self
        return read

    def last_value(self, outputs: Mapping[Node, Tensor]) -> Tensor:
        """The last feature map ``(N, C, ...)``; a layer norm of one axis has the channels there."""
        value = self.value(self.last, outputs)
        is_of_one_axis = "LayerNorm" in self.last.name() and len(self.last._saved_normalized_shape) == 1
        return value.movedim(-1, 1) if is_of_one_axis else value

    @contextmanager
    def energy_at_last(self) -> Iterator[list[float]]:
        """While open, a backward pass leaves the energy of the last feature map's gradient in the list."""
        found: list[float] = []
        handle = self.last.register_prehook(lambda gradients: found.append(energy(gradients[0])))
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
            return (random_signs(gradients[0], seed), *gradients[1:])

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


_Gradients: TypeAlias = "tuple[Tensor, ...]"


def _mean_slope(to_input: _Gradients, to_output: _Gradients) -> _Gradients:
    """The output's gradient times each channel's mean slope, in place of what the activation made of it.

    A channel with few entries takes the mean over all: the square of its own slope would be too large for its noise.
    """
    given, made = to_output[0], to_input[0]
    axes = all_but_channels(given) if given.numel() >= _SLOPE_ENTRIES * given.shape[1] else tuple(range(given.dim()))
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


def _activated(node: Node) -> Tensor | None:
    """What an activation returned: saved, or computed again from its input; None where too little is saved for that."""
    if hasattr(node, "_saved_result"):
        result: Tensor = node._saved_result
        return result
    name = re.sub("(?<=[a-z])(?=[A-Z])", "_", node.name().partition("Backward")[0]).lower()
    operator = getattr(torch.ops.aten, "_prelu_kernel" if name == "prelu_kernel" else name).default
    arguments = {each.name: each for each in operator._schema.arguments}
    saved = {each: getattr(node, f"_saved_{each}") for each in arguments if hasattr(node, f"_saved_{each}")}
    if any(each not in saved and not argument.has_default_value() for each, argument in arguments.items()):
        return None
    again: Tensor = operator(saved.pop("self"), **saved)
    return again


def _is_convolution(node: Node) -> bool:
    return "Convolution" in node.name()


def _returned(node: Node) -> ShapeAndType:
    """Shape and type of what an operation returned."""
    metadata: ShapeAndType = node._input_metadata[0]
    return metadata


def random_signs(like: Tensor, seed: int) -> Tensor:
    """1 or -1 in each place of a tensor of the same shape."""
    draw = torch.randint(2, like.shape, generator=torch_generator(seed, 0), dtype=torch.int8)
    return torch.empty_like(like).copy_(draw).mul_(2).sub_(1)


def energy(x: Tensor) -> float:
    """The sum of squares."""
    return float(x.square().sum(dtype=torch.float64))


def all_but_channels(x: Tensor) -> tuple[int, ...]:
    """Axes of images and positions of ``(N, C, *spatial)``."""
    return (0, *range(2, x.dim()))
