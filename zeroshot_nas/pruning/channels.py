"""Which channels of a network belong together, what each is worth, and taking some away: torch-pruning's part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshot_nas.core.seeding import preserved_rng, torch_generator
from zeroshot_nas.errors import ArchitectureError, DataError, MissingExtraError, UnknownNameError
from zeroshot_nas.network.module import Network
from zeroshot_nas.training.base import ImageData, as_float
from zeroshot_nas.training.checkpoint import TrainedNetwork
from zeroshot_nas.training.trainer import channel_statistics

TAYLOR_IMAGES, TAYLOR_BATCH = 512, 64
"""Training images that gradients are of, and how many at once."""

IMPORTANCES: Mapping[str, str] = MappingProxyType(
    {
        "norm": "squared weights of all that reads or writes the channel (group norm, Fang et al., arXiv:2301.12900)",
        "bn_scale": "scales of its batch norms (network slimming, Liu et al., arXiv:1708.06519)",
        "taylor": "weights times gradients of the loss on training images (Molchanov et al., arXiv:1906.10771)",
        "random": "drawn: what the others must beat",
    }
)
"""Ways to say what a channel is worth."""


@dataclass(frozen=True)
class Group:
    """Channels of several layers that can only go together.

    Attributes:
        convolutions: The convolutions that write them, by their place among the module's.
        importance: What each channel is worth, in means of the group, ``(channels,)``.
        order: The channels, the least important first.
        sums: What the first so many of that order are worth together; one more entry than channels.
    """

    convolutions: tuple[int, ...]
    importance: tuple[float, ...]
    order: tuple[int, ...]
    sums: tuple[float, ...]

    def kept(self, count: int) -> tuple[int, ...]:
        """The most important channels, in their order in the layer."""
        return tuple(sorted(self.order[len(self.order) - count :]))


def check_importance(name: str) -> str:
    """The name of an importance, if it is one and torch-pruning is there.

    Raises:
        UnknownNameError: It is none.
        MissingExtraError: torch-pruning is not installed.
    """
    if name not in IMPORTANCES:
        raise UnknownNameError("importance", str(name), IMPORTANCES)
    _library()
    return name


def find_groups(network: Network, importance: str, images: ImageData | None, seed: int) -> list[Group]:
    """The groups of channels of a network.

    Args:
        network: The network, which stays as it is.
        importance: One of `IMPORTANCES`.
        images: Training images, for ``"taylor"``.
        seed: Which of the images, or what is drawn.

    Raises:
        DataError: ``"taylor"`` without images.
    """
    network = _working_copy(network)
    score = _scorer(network, importance, images, seed)
    places = {module: place for place, module in enumerate(convolutions(network))}
    found = []
    for group in _graph(network).get_all_groups(ignored_layers=[network.head[1]], root_module_types=[nn.Conv2d]):
        members = sorted({places[dep.layer] for dep, _ in group if _writes(dep)})
        worth = score(group).double()
        mean = worth.mean().item()
        values = (worth / mean).tolist() if mean > 0 else [0.0] * len(worth)
        order = sorted(range(len(values)), key=lambda channel, values=values: (values[channel], channel))  # type: ignore[misc]
        sums = [0.0]
        for channel in order:
            sums.append(sums[-1] + values[channel])
        found.append(Group(tuple(members), tuple(values), tuple(order), tuple(sums)))
    return found


def without_channels(network: Network, groups: Sequence[Group], widths: Sequence[int]) -> Network:
    """A copy of a network that has the most important channels of each group, as torch-pruning leaves it.

    Its architecture is still that of the network before: the module alone is narrower.

    Args:
        network: The network that the groups are of.
        groups: Its groups.
        widths: How many channels every convolution is to have.

    Raises:
        ArchitectureError: Convolutions of a group are to have different numbers.
    """
    network = _working_copy(network)
    graph, parts = _graph(network), convolutions(network)
    for group in groups:
        wanted = {widths[place] for place in group.convolutions}
        if len(wanted) != 1:
            raise ArchitectureError(f"convolutions that share their channels can't have different widths: {wanted}")
        kept = set(group.kept(wanted.pop()))
        gone = [channel for channel in range(len(group.order)) if channel not in kept]
        if gone:
            part = parts[group.convolutions[0]]
            remove = graph.get_pruner_of_module(part).prune_out_channels
            graph.get_pruning_group(part, remove, idxs=gone).prune()
    return network


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of a module, in its order."""
    return [part for part in network.modules() if isinstance(part, nn.Conv2d)]


def _library() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtraError("torch-pruning", "prune") from error
    return torch_pruning


def _working_copy(network: Network) -> Network:
    copied = copy.deepcopy(network).cpu().eval()
    return copied.requires_grad_(True)  # the dependencies are read off autograd's graph


def _graph(network: Network) -> Any:
    with preserved_rng(), torch.enable_grad():
        example = torch.zeros(1, *network.architecture.input_size)
        return _library().DependencyGraph().build_dependency(network, example_inputs=example)


def _writes(dep: Any) -> bool:
    """Whether a convolution is in a group with its outputs."""
    if not isinstance(dep.layer, nn.Conv2d):
        return False
    is_depthwise = dep.layer.groups == dep.layer.out_channels and dep.layer.groups > 1
    return is_depthwise or "out_channels" in dep.pruning_fn.__name__


def _scorer(network: Network, importance: str, images: ImageData | None, seed: int) -> Callable[[Any], Tensor]:
    library = _library()
    if importance == "random":
        generator = torch_generator(seed)
        return lambda group: torch.rand(len(group[0].idxs), generator=generator)
    if importance == "taylor":
        if images is None:
            raise DataError("importance 'taylor' needs training images: give data")
        _keep_gradients(network, images, seed)
        score = library.importance.GroupTaylorImportance(normalizer=None)
    elif importance == "bn_scale":
        score = library.importance.BNScaleImportance(normalizer=None)
    else:
        score = library.importance.GroupMagnitudeImportance(p=2, normalizer=None)

    def scored(group: Any) -> Tensor:
        worth: Tensor | None = score(group)
        if worth is None:
            raise ArchitectureError(
                f"some channels have no batch norm, so that importance {importance!r} says nothing of them; use 'norm'"
            )
        return worth

    return scored


def _keep_gradients(network: Network, images: ImageData, seed: int) -> None:
    """Leaves the gradients of the loss on some training images in a network's weights."""
    own = not isinstance(network, TrainedNetwork)  # that takes normalised images; the other normalises by itself
    mean, std = channel_statistics(images.train_images) if own else (torch.zeros(1), torch.ones(1))
    chosen = torch.randperm(len(images.train_labels), generator=torch_generator(seed))[:TAYLOR_IMAGES]
    with torch.enable_grad():
        for part in torch.split(chosen, TAYLOR_BATCH):
            inputs = (as_float(images.train_images[part]) - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
            logits = network(inputs.float())
            loss = F.cross_entropy(logits, images.train_labels[part], reduction="sum") / len(chosen)
            torch.autograd.backward(loss)
