"""From operations to a ``torch.nn.Module``, and its weights' initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.utils.parametrize
from torch import Tensor, nn

from zeroshot_nas.architecture import ops
from zeroshot_nas.architecture.architecture import Architecture, head
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.costs.complexity import check_buildable
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.network.init import Init
from zeroshot_nas.network.levels import feature_levels

POWER_ITERATIONS = 15
"""How often a spectral norm is brought up to date after its weight was drawn, as torch does at first."""


class Conv2d(nn.Conv2d):
    """A convolution whose weights wait for `initialize`: torch's own draw would cost time and touch the global RNG."""

    def reset_parameters(self) -> None:
        return None


class Linear(nn.Linear):
    """A linear layer on a pooled ``(N, C, 1, 1)`` tensor, whose weights wait for `initialize`."""

    def reset_parameters(self) -> None:
        return None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


class GlobalPool(nn.Module):
    """The mean over height and width, ``(N, C, H, W)`` to ``(N, C, 1, 1)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Gate(nn.Module):
    """``x * body(x)``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.body(x)
        return x * weights


class Residual(nn.Module):
    """``body(x) + shortcut(x)``, or ``body(x)`` alone while the link is off (see `without_residual_links`)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.link = True

    def forward(self, x: Tensor) -> Tensor:
        main: Tensor = self.body(x)
        return main + self.shortcut(x) if self.link else main


class Zero(nn.Module):
    """Zeros of the input's channels, at the resolution that a stride leaves."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride].mul(0.0)


class Graph(nn.Module):
    """Nodes in order, each the sum or concatenation of its edges; returns the last.

    Args:
        nodes: How each joins what its edges bring, and where these begin: 0 for the input, i for the i-th node.
        edges: The module of every edge, in the same order.
    """

    def __init__(self, nodes: Sequence[tuple[str, Sequence[int]]], edges: Iterable[nn.Module]) -> None:
        super().__init__()
        self.nodes = nodes
        self.edges = nn.ModuleList(edges)

    def outputs(self, x: Tensor) -> list[Tensor]:
        """The input, and what each node gives."""
        outputs, edges = [x], iter(self.edges)
        for join, sources in self.nodes:
            brought = [next(edges)(outputs[source]) for source in sources]
            outputs.append(torch.cat(brought, 1) if join == "concatenation" else sum(brought[1:], brought[0]))
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[-1]


class Network(nn.Module):
    """The module of an architecture: ``blocks`` in order, then ``head``.

    Build it with `build`, or load a trained one with ``zeroshot_nas.load``. Its methods are those of timm's models.

    Args:
        architecture: What to build; kept as ``.architecture``.

    Attributes:
        num_classes: Outputs of the classifier; 0 where `reset_classifier` took it away.
        num_features: Channels of the last feature map, which the classifier reads.
        feature_info: Its feature maps, one a resolution, the finest first: channels ``num_chs``, stride ``reduction``
            and the ``module`` that gives it, as in timm. ``zeroshot_nas.features`` gives the maps.

    Raises:
        ArchitectureError: The architecture would not fit in memory.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        check_buildable(architecture)
        *bodies, last = architecture.lower()
        self.architecture = architecture
        self.blocks = nn.Sequential(*map(sequential, bodies))
        self.head = sequential(last)

    def forward_features(self, x: Tensor) -> Tensor:
        """The feature map before pooling, ``(N, C, H, W)``."""
        features: Tensor = self.blocks(x)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits ``(N, num_classes)`` from the feature map; with ``pre_logits`` what the classifier reads."""
        if not pre_logits:
            logits: Tensor = self.head(features)
            return logits
        pooled: Tensor = self.head[0](features)
        return pooled if isinstance(self.head[0], nn.Identity) else pooled.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` for images ``(N, C, H, W)``."""
        return self.forward_head(self.forward_features(x))

    @property
    def num_classes(self) -> int:
        classifier = self.head[1]
        return classifier.out_features if isinstance(classifier, nn.Linear) else 0

    @property
    def num_features(self) -> int:
        return self.architecture.blocks[-1].out_channels

    @property
    def head_hidden_size(self) -> int:
        """Channels that the classifier reads: `num_features`, in timm's newer word."""
        return self.num_features

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return [{**level.to_dict(), "index": index} for index, level in enumerate(feature_levels(self.architecture))]

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """The classifier, or its name; an ``nn.Identity`` where there is none."""
        return "head.1" if name_only else self.head[1]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, *, seed: int = 0) -> None:
        """Gives the network a new classifier, for classes of your own; the blocks keep their weights.

        Args:
            num_classes: Outputs of the new one. 0 takes the classifier away, so that the network gives pooled features
                ``(N, num_features)``; ``architecture`` then stays as it was.
            global_pool: ``"avg"`` or None to pool; ``""``, with 0 classes, to leave the map ``(N, C, H, W)`` whole.
            seed: Seed of its weights; the global random state is not touched.

        Raises:
            ArchitectureError: A number of classes or a pooling that there is not.
        """
        if type(num_classes) is not int or num_classes < 0:
            raise ArchitectureError(f"num_classes must be a whole number of 0 or more, got {num_classes!r:.40}")
        if global_pool not in (None, "avg", "") or (global_pool == "" and num_classes):
            raise ArchitectureError(
                f"global_pool must be 'avg', or '' with 0 classes, got {global_pool!r:.40} with {num_classes} classes"
            )
        if num_classes:
            self.architecture = replace(self.architecture, num_classes=num_classes)
            new = sequential(head(self.num_features, num_classes))
            initialize(new, "kaiming", torch_generator(seed))
        else:
            pooling = nn.Identity() if global_pool == "" else nn.Sequential(GlobalPool(), nn.Flatten(1))
            new = nn.Sequential(pooling, nn.Identity())
        weight = next(self.blocks.parameters(), None)
        self.head = (new if weight is None else new.to(weight)).train(self.training)


def build(architecture: Architecture, *, init: Init = "kaiming", seed: int = 0) -> Network:
    """Builds and initialises the network of an architecture.

    Args:
        architecture: What to build.
        init: The weights' initialisation; ``"keep"`` leaves them unset.
        seed: Seed of the draw; the global random state is not touched.

    Raises:
        ArchitectureError: The architecture would not fit in memory.

    Example:
        >>> network = build(Architecture.from_string("SuperConvK3BNRELU(3,8,2,1)", input_size=(3, 8, 8)))
        >>> network(torch.zeros(2, 3, 8, 8)).shape, network.forward_features(torch.zeros(2, 3, 8, 8)).shape
        (torch.Size([2, 10]), torch.Size([2, 8, 4, 4]))
    """
    network = Network(architecture)
    initialize(network, init, torch_generator(seed))
    return network


@torch.no_grad()
def initialize(module: nn.Module, init: Init, generator: torch.Generator) -> None:
    """Draws the weights of every convolution and linear layer anew; biases become 0, batch norms 1 and 0.

    Args:
        module: Any module; parameters of other layers stay as they are.
        init: ``"gaussian"`` draws weights from N(0, 1). ``"kaiming"`` draws from N(0, 2 / fan_out) for convolutions
            (He et al., arXiv:1502.01852) and N(0, 1 / fan_in) for linear layers. ``"keep"`` changes nothing.
        generator: A generator on the CPU: the draw is the same on every device.
    """
    if init == "keep":
        return
    if init not in ("gaussian", "kaiming"):
        raise ValueError(f"init must be 'kaiming', 'gaussian' or 'keep', got {init!r}")
    for part in module.modules():
        if isinstance(part, nn.modules.conv._ConvNd | nn.Linear):
            deviation = 1.0 if init == "gaussian" else _kaiming_deviation(part)
            _set_values(part, "weight", partial(_draw_normal, deviation=deviation, generator=generator))
            if part.bias is not None:
                _set_values(part, "bias", Tensor.zero_)
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_parameters()


@contextmanager
def without_residual_links(module: nn.Module) -> Iterator[None]:
    """Switches the shortcuts of our own networks off, as Zen-NAS does before it scores."""
    residuals = [part for part in module.modules() if isinstance(part, Residual)]
    before = [residual.link for residual in residuals]
    for residual in residuals:
        residual.link = False
    try:
        yield
    finally:
        for residual, link in zip(residuals, before, strict=True):
            residual.link = link


def _kaiming_deviation(part: nn.modules.conv._ConvNd | nn.Linear) -> float:
    if isinstance(part, nn.Linear):
        return math.sqrt(1 / part.in_features)
    fan_out = part.out_channels * math.prod(part.kernel_size) / part.groups
    return math.sqrt(2 / fan_out)


def _set_values(part: nn.Module, name: str, fill: Callable[[Tensor], object]) -> None:
    """Fills a parameter; one that is computed, by what it is computed from.

    Raises:
        ArchitectureError: It is computed in a way that has no inverse.
    """
    if name in part._parameters:
        fill(getattr(part, name))
        return
    values = torch.empty_like(getattr(part, name))
    fill(values)
    if nn.utils.parametrize.is_parametrized(part, name):
        _set_parametrized(part, name, values)
    else:
        _set_computed(part, name, values)


def _set_parametrized(part: Any, name: str, values: Tensor) -> None:
    try:
        setattr(part, name, values)
    except Exception as error:  # a stranger's parametrisation may raise anything; it is passed on, with its cause
        raise ArchitectureError(
            f"{name} of {type(part).__name__} is computed by a parametrisation that takes no drawn values "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); use init='keep'"
        ) from error
    maps = part.parametrizations[name]
    if next(maps.buffers(), None) is not None:  # a spectral norm: its vectors belong to the values before
        training = maps.training
        maps.train()
        for _ in range(POWER_ITERATIONS):
            getattr(part, name)
        maps.train(training)


def _set_computed(part: Any, name: str, values: Tensor) -> None:
    """As `_set_parametrized`, for the older hooks of ``torch.nn.utils``: weight and spectral norm, pruning."""
    hooks = [
        hook
        for hook in part._forward_pre_hooks.values()
        if name in (getattr(hook, "name", None), getattr(hook, "_tensor_name", None))
    ]
    parameters = part._parameters
    if hooks and f"{name}_orig" in parameters:
        parameters[f"{name}_orig"].copy_(values)
    elif hooks and f"{name}_v" in parameters:
        parameters[f"{name}_v"].copy_(values)
        parameters[f"{name}_g"].copy_(torch.norm_except_dim(values, 2, hooks[0].dim))
    else:
        raise ArchitectureError(
            f"{name} of {type(part).__name__} is computed, from what can't be drawn; use init='keep'"
        )
    training = part.training
    part.train()  # a spectral norm's vectors belong to the values before
    for _ in range(POWER_ITERATIONS):
        hooks[0](part, None)
    part.train(training)


def _draw_normal(tensor: Tensor, deviation: float, generator: torch.Generator) -> None:
    if tensor.device.type == "cpu" and tensor.is_contiguous():
        tensor.normal_(0.0, deviation, generator=generator)
    else:
        draw = torch.empty(tensor.shape, dtype=tensor.dtype).normal_(0.0, deviation, generator=generator)
        tensor.copy_(draw)


def _pool(op: ops.Pool) -> nn.Module:
    if op.kind == "max":
        return nn.MaxPool2d(op.kernel_size, op.stride, op.padding)
    return nn.AvgPool2d(op.kernel_size, op.stride, op.padding, count_include_pad=False)


def sequential(chain: tuple[ops.Op, ...]) -> nn.Sequential:
    """The module of a chain of operations, its weights unset.

    Example:
        >>> sequential((ops.GlobalPool(), ops.Linear(4, 2)))(torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 2])
    """
    return nn.Sequential(*map(_module, chain))


def _module(op: ops.Op) -> nn.Module:
    try:
        make = _MODULES[type(op)]
    except KeyError:
        raise ArchitectureError(f"no module is known for the operation {type(op).__name__}") from None
    return make(op)


def graph_nodes(graph: ops.Graph) -> list[tuple[str, list[int]]]:
    """How each node of a graph joins its edges, and where they begin, as `Graph` takes it."""
    return [(node.join, [edge.source for edge in node.edges]) for node in graph.nodes]


def _graph(op: ops.Graph) -> nn.Module:
    return Graph(graph_nodes(op), (sequential(edge.ops) for node in op.nodes for edge in node.edges))


def _activation(op: ops.Activation) -> nn.Module:
    return nn.ReLU() if op.kind == "relu" else nn.Sigmoid()


def _conv(op: ops.Conv) -> nn.Module:
    return Conv2d(
        op.in_channels, op.out_channels, op.kernel_size, op.stride, op.padding, op.dilation, op.groups, op.bias
    )


_MODULES: dict[type, Callable[..., nn.Module]] = {
    ops.Conv: _conv,
    ops.BatchNorm: lambda op: nn.BatchNorm2d(op.channels, eps=ops.BATCH_NORM_EPSILON),
    ops.Activation: _activation,
    ops.Pool: _pool,
    ops.Zero: lambda op: Zero(op.stride),
    ops.Graph: _graph,
    ops.GlobalPool: lambda _: GlobalPool(),
    ops.Linear: lambda op: Linear(op.in_features, op.out_features, op.bias),
    ops.Gate: lambda op: Gate(sequential(op.body)),
    ops.Repeat: lambda op: nn.Sequential(*(sequential(op.body) for _ in range(op.times))),
    ops.Residual: lambda op: Residual(sequential(op.body), sequential(op.shortcut)),
}
