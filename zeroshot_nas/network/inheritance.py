"""Net2Wider and Net2Deeper: a larger network that computes what a trained smaller one does (arXiv:1511.05641)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroshot_nas.architecture import ops
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.network.module import Network, build, initialize


def inherit(network: Network, architecture: Architecture, *, seed: int = 0) -> Network:
    """Builds a larger architecture with the weights of a smaller network, so that it computes the same in eval mode.

    Both have the same blocks in the same order, of the same kinds and strides; the larger one may have

    - **wider** tensors (Net2Wider): a new channel j repeats an old channel g(j), and what reads it shares out the old
      weight among the repeats: ``W'_j = s_j W_g(j)`` with the s_j of one old channel summing to 1;
    - **deeper** blocks (Net2Deeper): a new sub-layer is the identity, with the last batch norm of its residual branch
      at zero, or where it has no residual link with a convolution that passes each channel on;
    - **larger kernels**, filled up with zeros.

    Tensors that a residual link adds are widened alike. Departure from Chen et al.: the s_j are drawn, and not equal,
    so that repeats differ from their first step on without noise on the weights.

    Args:
        network: The trained network; it is not changed.
        architecture: The larger one, with the same input size and classes.
        seed: Seed of the repeats and their shares.

    Returns:
        The larger network, in eval mode. In training mode batch norms of new sub-layers without a residual link see a
        batch's own statistics, so that only its eval mode is the same.

    Raises:
        ArchitectureError: The architecture is not a larger one in this sense; the message says where.

    Example:
        >>> small = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,2,8,1)", (1, 8, 8))
        >>> large = Architecture.from_string("SuperConvK3BNRELU(1,16,1,1)SuperResK5K5(16,24,2,16,3)", (1, 8, 8))
        >>> parent, images = build(small).eval(), torch.rand(4, 1, 8, 8)
        >>> bool((inherit(parent, large)(images) - parent(images)).abs().max() < 1e-5)
        True
    """
    small = network.architecture
    if (small.input_size, small.num_classes) != (architecture.input_size, architecture.num_classes):
        raise ArchitectureError(
            f"expected an architecture for images {small.input_size} and {small.num_classes} classes, got "
            f"{architecture.input_size} and {architecture.num_classes}"
        )
    if len(small.blocks) != len(architecture.blocks):
        raise ArchitectureError(
            f"expected {len(small.blocks)} blocks as in the network, got {len(architecture.blocks)}"
        )
    child = build(architecture, init="keep").eval()
    transfer = _Transfer(torch_generator(seed))
    channels = torch.arange(small.input_size[0])
    olds, news = [*network.blocks, network.head], [*child.blocks, child.head]
    with torch.no_grad():
        for index, (old_ops, new_ops) in enumerate(zip(small.lower(), architecture.lower(), strict=True)):
            place = f"block {index}" if index < len(small.blocks) else "the head"
            channels = transfer.chain(old_ops, new_ops, olds[index], news[index], channels, None, place)
    return child


class _Transfer:
    """Fills a new module from an old one, operation by operation.

    A tensor's widening is a map, an index tensor: of each new channel the old channel that it repeats.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def chain(
        self,
        olds: Sequence[ops.Op],
        news: Sequence[ops.Op],
        old: Any,
        new: Any,
        channels: Tensor,
        wanted: Tensor | None,
        place: str,
    ) -> Tensor:
        """Fills a chain and gives the map of its output, which is ``wanted`` if that is given."""
        if [type(op) for op in olds] != [type(op) for op in news]:
            olds, news, old, new = _align(olds, news, old, new, place)
        last = max((index for index, op in enumerate(news) if _sets_channels(op)), default=-1)
        for index, (old_op, new_op) in enumerate(zip(olds, news, strict=True)):
            goal = wanted if index == last else None
            channels = self._op(old_op, new_op, old[index], new[index], channels, goal, place)
        if wanted is not None and not torch.equal(channels, wanted):
            raise ArchitectureError(f"{place}: a residual link adds tensors that can't be widened alike")
        return channels

    def _op(
        self, old_op: Any, new_op: Any, old: Any, new: Any, channels: Tensor, wanted: Tensor | None, place: str
    ) -> Tensor:
        if isinstance(new_op, ops.Conv):
            return self._conv(old_op, new_op, old, new, channels, wanted, place)
        if isinstance(new_op, ops.BatchNorm):
            new.num_batches_tracked.copy_(old.num_batches_tracked)
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(new, name).copy_(getattr(old, name)[channels])
            return channels
        if isinstance(new_op, ops.Linear):
            new.weight.copy_(old.weight[:, channels] * self._shares(channels))
            new.bias.copy_(old.bias)
            return torch.arange(new_op.out_features)
        if isinstance(new_op, ops.Residual):
            return self._residual(old_op, new_op, old, new, channels, wanted, place)
        if isinstance(new_op, ops.Gate):
            self.chain(old_op.body, new_op.body, old.body, new.body, channels, channels, place)
            return channels
        if isinstance(new_op, ops.Repeat):
            return self._repeat(old_op, new_op, old, new, channels, place)
        if old_op != new_op or not isinstance(new_op, ops.Activation | ops.Pool | ops.GlobalPool | ops.Zero):
            raise ArchitectureError(f"{place}: {type(new_op).__name__} can't be grown; keep it as it is in the network")
        return channels

    def _conv(
        self,
        old_op: ops.Conv,
        new_op: ops.Conv,
        old: Any,
        new: Any,
        channels: Tensor,
        wanted: Tensor | None,
        place: str,
    ) -> Tensor:
        fixed = [(op.stride, op.dilation, op.bias, op.groups == 1) for op in (old_op, new_op)]
        margin = new_op.kernel_size - old_op.kernel_size
        grows = new_op.out_channels >= old_op.out_channels and margin >= 0 and margin % 2 == 0
        if fixed[0] != fixed[1] or not grows:
            raise ArchitectureError(f"{place}: {new_op} is not a larger {old_op} of the same stride and grouping")
        if new_op.groups == 1:
            out = self._repeats(old_op.out_channels, new_op.out_channels) if wanted is None else wanted
            weight = old.weight[out][:, channels] * self._shares(channels)[:, None, None]
        elif old_op.groups == old_op.in_channels and new_op.groups == new_op.in_channels:
            out, weight = channels, old.weight[channels]
        else:
            raise ArchitectureError(f"{place}: {new_op} has groups of several channels, which can't be widened")
        new.weight.copy_(nn.functional.pad(weight, (margin // 2,) * 4))
        if new_op.bias:
            new.bias.copy_(old.bias[out])
        return out

    def _residual(
        self,
        old_op: ops.Residual,
        new_op: ops.Residual,
        old: Any,
        new: Any,
        channels: Tensor,
        wanted: Tensor | None,
        place: str,
    ) -> Tensor:
        if not new_op.shortcut:
            if old_op.shortcut:
                raise ArchitectureError(f"{place}: a shortcut is a projection in the network; it can't be the identity")
            return self.chain(old_op.body, new_op.body, old.body, new.body, channels, channels, place)
        if old_op.shortcut:
            out = self.chain(old_op.shortcut, new_op.shortcut, old.shortcut, new.shortcut, channels, wanted, place)
        else:  # the projection begins as the identity that it was
            width = int(channels.max()) + 1
            out = self._repeats(width, new.shortcut[0].out_channels) if wanted is None else wanted
            _pass_on(new_op.shortcut, new.shortcut, place)
            new.shortcut[0].weight.copy_((torch.eye(width)[out][:, channels] * self._shares(channels))[..., None, None])
        return self.chain(old_op.body, new_op.body, old.body, new.body, channels, out, place)

    def _repeat(
        self, old_op: ops.Repeat, new_op: ops.Repeat, old: Any, new: Any, channels: Tensor, place: str
    ) -> Tensor:
        if new_op.times < old_op.times:
            raise ArchitectureError(f"{place}: expected {old_op.times + 1} sub-layers or more, got {new_op.times + 1}")
        for index in range(new_op.times):
            if index < old_op.times:
                self.chain(old_op.body, new_op.body, old[index], new[index], channels, channels, place)
            else:
                self.identity(new_op.body, new[index], place)
        return channels

    def identity(self, chain: Sequence[ops.Op], new: Any, place: str) -> None:
        """Makes a new sub-layer pass its input on, which no ReLU changes: it is behind one already."""
        for op, part in zip(chain, new, strict=True):
            if isinstance(op, ops.Residual):
                initialize(part, "kaiming", self.generator)
                norms = [module for module in part.body.children() if isinstance(module, nn.BatchNorm2d)]
                if not norms:
                    raise ArchitectureError(f"{place}: a new sub-layer must have a batch norm in its residual branch")
                norms[-1].weight.zero_()
        residuals = [op for op in chain if isinstance(op, ops.Residual)]
        links = [part.shortcut for op, part in zip(chain, new, strict=True) if isinstance(op, ops.Residual)]
        for op, link in zip(residuals, links, strict=True):
            _pass_on(op.shortcut, link, place)
        if not residuals:
            _pass_on(chain, new, place)

    def _repeats(self, old: int, new: int) -> Tensor:
        """The map of a tensor that grows: the old channels, then repeats of random ones."""
        return torch.cat([torch.arange(old), torch.randint(old, (new - old,), generator=self.generator)])

    def _shares(self, channels: Tensor) -> Tensor:
        """What part of an old channel's weight each of its repeats takes."""
        draw = 0.5 + torch.rand(len(channels), generator=self.generator)
        total = torch.zeros(int(channels.max()) + 1).index_add_(0, channels, draw)
        return draw / total[channels]


def _align(
    olds: Sequence[ops.Op], news: Sequence[ops.Op], old: Any, new: Any, place: str
) -> tuple[list[ops.Op], Sequence[ops.Op], list[Any], Any]:
    """An old chain with a repeat of no times in it, where only the new one has a repeat: a block that gets deeper."""
    if len(news) == len(olds) + 1 and isinstance(news[-1], ops.Repeat):
        empty = ops.Repeat(news[-1].body, 0)
        if [type(op) for op in olds] == [type(op) for op in news[:-1]]:
            return [*olds, empty], news, [*old, nn.Sequential()], new
    raise ArchitectureError(
        f"{place}: expected operations of the same kinds as in the network, "
        f"{[type(op).__name__ for op in olds]}, got {[type(op).__name__ for op in news]}"
    )


def _pass_on(chain: Sequence[ops.Op], new: Any, place: str) -> None:
    """Makes a chain of a convolution, a batch norm and a ReLU the identity, as far as its channels reach."""
    convs = [op for op in chain if isinstance(op, ops.Conv)]
    narrow = any(op.out_channels < op.in_channels for op in convs)
    if len(convs) > 1 or narrow or any(op.stride != 1 or op.groups != 1 for op in convs):
        raise ArchitectureError(
            f"{place}: a new sub-layer that narrows or has {len(convs)} convolutions can't be passed"
        )
    for op, part in zip(chain, new, strict=True):
        if isinstance(op, ops.Conv):
            nn.init.dirac_(part.weight)
        elif isinstance(op, ops.BatchNorm):
            part.reset_parameters()
            part.weight.fill_(math.sqrt(1 + part.eps))  # the running variance of 1 is divided out
        elif op != ops.Activation("relu"):
            raise ArchitectureError(f"{place}: a new sub-layer with {type(op).__name__} can't be the identity")


def _sets_channels(op: ops.Op) -> bool:
    """Whether an operation chooses the channels of its output."""
    if isinstance(op, ops.Conv):
        return op.groups == 1
    return isinstance(op, ops.Linear) or (isinstance(op, ops.Residual) and bool(op.shortcut))
