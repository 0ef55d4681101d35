"""What a network weighs, as a score: the baselines that every other proxy has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.block_sum import BlockSum, End, PlacedBlock
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.costs.base import summed_costs
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.cost import cost
from zeroshot_nas.errors import ArchitectureError, ProxyError
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    from torch import nn
else:
    nn = LazyModule("torch.nn")


def architecture_params(architecture: Architecture) -> int:
    """`params` of an architecture, by its operations."""
    return complexity(architecture).params


def architecture_flops(architecture: Architecture) -> int:
    """`flops` of an architecture, by its operations."""
    return complexity(architecture).flops


def architecture_layers(architecture: Architecture) -> int:
    """`layers` of an architecture: ``Architecture.layers``."""
    return architecture.layers


@dataclass(frozen=True)
class _CostOfBlock:
    """A block's part of a cost; two of one name are equal, wherever they were pickled."""

    name: str

    def __call__(self, placed: PlacedBlock) -> float:
        costs = summed_costs()
        return costs.block_sums(placed.block, placed.in_channels, placed.resolution).row[costs.names.index(self.name)]


@dataclass(frozen=True)
class _CostOfHead:
    """The pooling's and the classifier's part of a cost."""

    name: str

    def __call__(self, end: End) -> float:
        costs = summed_costs()
        return costs.head_row(end.channels, end.resolution, end.num_classes)[costs.names.index(self.name)]


def _sub_layers(placed: PlacedBlock) -> int:
    return placed.block.sub_layers


PARAMS, FLOPS = (BlockSum(_CostOfBlock(name), _CostOfHead(name)) for name in ("params", "flops"))
LAYERS = BlockSum(_sub_layers)


def module_flops(network: nn.Module, batch: Batch, name: str) -> int:
    """FLOPs (multiply-adds) of any module on one image of the batch's shape.

    Args:
        network: The module.
        batch: Only the shape of ``inputs`` is read.
        name: The proxy's, for the message.

    Raises:
        ProxyError: The module can't be traced on such an image.
    """
    try:
        return cost(network, input_size=batch.inputs.shape[1:]).flops
    except ArchitectureError as error:
        raise ProxyError(f"{name}: {error}") from error


@register_proxy(
    ProxyInfo(
        "params",
        never_negative=True,
        reads=(),
        source="baseline",
        cost="graph",
        closed_form=architecture_params,
        block_sum=PARAMS,
        exact=True,
    )
)
def params(network: nn.Module, _: Batch, /) -> int:
    """How many values are trained: weights, biases, two a batch-norm channel; higher is better.

    A baseline: many published proxies rank no better than it does.

    Args:
        network: Any module, frozen parameters included. For an architecture of ours the number is read off its
            operations.

    Example:
        >>> from zeroshot_nas import score
        >>> score(nn.Conv2d(3, 8, 3), "params", input_size=(3, 8, 8)).value
        224.0
    """
    return sum(parameter.numel() for parameter in network.parameters())


@register_proxy(
    ProxyInfo(
        "flops",
        never_negative=True,
        reads=(),
        source="baseline",
        cost="graph",
        closed_form=architecture_flops,
        block_sum=FLOPS,
        exact=True,
    )
)
def flops(network: nn.Module, batch: Batch, /) -> int:
    """FLOPs (multiply-adds) of convolutions and linear layers on one image; higher is better.

    A baseline: many published proxies rank no better than it does.

    Args:
        network: Any module, traced on one image by `zeroshot_nas.costs.module.module_costs`; see there for what is not
            counted. For an architecture of ours the number is read off its operations.
        batch: ``inputs``, of which only the shape is read.

    Raises:
        ProxyError: The module can't be traced.

    Example:
        >>> from zeroshot_nas import Architecture, score
        >>> score(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", input_size=(3, 4, 4)), "flops").value
        3536.0
    """
    return module_flops(network, batch, "flops")


@register_proxy(
    ProxyInfo(
        "layers",
        never_negative=True,
        reads=(),
        source="baseline",
        cost="graph",
        grows_with_depth=True,
        closed_form=architecture_layers,
        block_sum=LAYERS,
        exact=True,
    )
)
def layers(network: nn.Module, _: Batch, /) -> int:
    """Depth; higher is better. Two different counts, so compare networks of one kind only.

    For an architecture of ours it is ``Architecture.layers``, depth as Zen-NAS counts it: the sum of the blocks'
    sub-layers, each of one to six convolutions. For any other module it is the number of its convolutions and linear
    layers, wherever they stand (shortcuts and gates too).

    A baseline: many published proxies rank no better than it does.

    Args:
        network: Any module.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "layers", input_size=(3, 8, 8)).value
        2.0
    """
    return sum(isinstance(part, nn.modules.conv._ConvNd | nn.Linear) for part in network.modules())


@register_proxy(
    ProxyInfo(
        "az_complexity",
        never_negative=True,
        reads=(),
        source="arXiv:2403.19232",
        cost="graph",
        closed_form=architecture_flops,
        block_sum=FLOPS,
        exact=True,
    )
)
def az_complexity(network: nn.Module, batch: Batch, /) -> int:
    """Complexity of AZ-NAS (Lee and Ham, CVPR 2024, arXiv:2403.19232): FLOPs (multiply-adds); higher is better.

    The same number as the proxy ``flops``.

    Args:
        network: Any module, traced on one image. For an architecture of ours the number is read off its operations.
        batch: ``inputs``, of which only the shape is read.

    Raises:
        ProxyError: The module can't be traced.

    Example:
        >>> from zeroshot_nas import Architecture, score
        >>> score(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", input_size=(3, 4, 4)), "az_complexity").value
        3536.0
    """
    return module_flops(network, batch, "az_complexity")
