"""A smaller architecture's weights as slices of a larger one's, as Once-for-all shares them (arXiv:1908.09791)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from zeroshot_nas.architecture import ops
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.network.module import Network, build

Order: TypeAlias = Literal["importance", "first"]
"""Which channels a smaller network keeps: those of the largest batch-norm scales, or the first."""

_PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


Kept: TypeAlias = slice | Tensor
"""What is kept along a dimension: a range, or indices ``(n,)`` in ascending order."""


@dataclass(frozen=True, eq=False)
class Slices:
    """All of a smaller network's weights as slices of a larger one's, whose names are the same.

    Attributes:
        parts: For each name of a parameter or buffer what is kept of the larger network's along each dimension.
        fixed: Values of parameters that the larger one has none for: a projection where its link is the identity, which
            picks the channels that the smaller network keeps.
    """

    parts: Mapping[str, tuple[Kept, ...]]
    fixed: Mapping[str, Tensor]

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The smaller network's tensors, from those of the larger one that are given, and the fixed ones.

        Gradients pass to the larger network's: of ``dict(network.named_parameters())`` it gives what
        ``torch.func.functional_call`` takes to run the smaller network on the larger one's parameters. A tensor is a
        view where only ranges are kept.
        """
        found = {name: _cut_out(tensors[name], kept) for name, kept in self.parts.items() if name in tensors}
        return {**found, **self.fixed}


def _cut_out(tensor: Tensor, index: tuple[Kept, ...]) -> Tensor:
    for dimension, kept in enumerate(index):
        if isinstance(kept, slice):
            tensor = tensor.narrow(dimension, kept.start, kept.stop - kept.start)
        else:
            tensor = tensor.index_select(dimension, kept.to(tensor.device))
    return tensor


def slices(large: Architecture, small: Architecture, weights: Mapping[str, Tensor] | None = None) -> Slices:
    """A smaller architecture's weights as slices of a larger one's.

    Both have the same blocks in the same order, of the same kinds and strides. The smaller one has widths, depths and
    kernels that are no larger: of a kernel the centre is kept, of a block's sub-layers the first ones.

    Args:
        large: The larger architecture.
        small: The smaller one, with the same input size and classes.
        weights: The larger network's tensors by name. Channels with the largest batch-norm scales ``|weight|`` are
            kept then; tensors that a residual link joins share one order, by the sum of their scales. None keeps the
            first channels.

    Raises:
        ArchitectureError: The architecture is not a smaller one in this sense; the message says where.

    Example:
        >>> large = Architecture.from_string("SuperConvK5BNRELU(1,16,1,3)", (1, 8, 8))
        >>> small = Architecture.from_string("SuperConvK3BNRELU(1,4,1,2)", (1, 8, 8))
        >>> slices(large, small).parts["blocks.0.0.weight"]
        (slice(0, 4, None), slice(0, 1, None), slice(1, 4, None), slice(1, 4, None))
    """
    if (large.input_size, large.num_classes) != (small.input_size, small.num_classes):
        raise ArchitectureError(
            f"expected an architecture for images {large.input_size} and {large.num_classes} classes, got "
            f"{small.input_size} and {small.num_classes}"
        )
    if len(large.blocks) != len(small.blocks):
        raise ArchitectureError(f"expected {len(large.blocks)} blocks as in the network, got {len(small.blocks)}")
    cut = _Cut()
    channels = _Channels(_Joined(), large.input_size[0], small.input_size[0])
    for index, (large_ops, small_ops) in enumerate(zip(large.lower(), small.lower(), strict=True)):
        is_block = index < len(large.blocks)
        cut.place = f"block {index}" if is_block else "the head"
        channels = cut.chain(large_ops, small_ops, f"blocks.{index}" if is_block else "head", channels)
    return cut.resolved(weights)


def shrink(network: Network, architecture: Architecture, *, order: Order = "importance") -> Network:
    """Builds a smaller architecture with the weights of a larger network that matter most.

    It does not compute what the larger one does, but begins near to it: tune it, or measure its batch norms anew.

    - Of **channels** those with the largest batch-norm scales stay, as Once-for-all sorts them (Cai et al.,
      arXiv:1908.09791; it sorts by the L1 norm of weights; by scales as in network slimming, arXiv:1708.06519). Tensors
      that a residual link joins share one order, by the sum of their scales; gates have no say.
    - Of **kernels** the centre stays.
    - Of a block's **sub-layers** the first ones stay.

    A projection shortcut that is the identity in the larger network, where the widths of two inverted residuals became
    different, begins as what picks the channels; one that is the identity in the smaller network is left out.

    Args:
        network: The trained network; it is not changed.
        architecture: The smaller one: the same blocks in the same order, of the same kinds and strides, with widths,
            depths and kernels no larger, and the same input size and classes.
        order: ``"first"`` keeps the first channels instead, as in a network that was trained to be cut so.

    Returns:
        The smaller network, in eval mode; it takes what the plain `Network` takes, normalised images. The global random
        state is not touched.

    Raises:
        ArchitectureError: The architecture is not a smaller one in this sense; the message says where. Or the network
            has no classifier.
        ValueError: ``order`` is neither.

    Example:
        >>> large = Architecture.from_string("SuperConvK3BNRELU(1,16,1,1)SuperResK5K5(16,24,2,16,3)", (1, 8, 8))
        >>> small = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,16,2,8,1)", (1, 8, 8))
        >>> shrink(build(large), small)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    if order not in ("importance", "first"):
        raise ValueError(f"order must be 'importance' or 'first', got {order!r:.40}")
    if not network.num_classes:
        raise ArchitectureError("the network has no classifier to slice; give it one: reset_classifier(classes)")
    weights = network.state_dict()
    parts = slices(network.architecture, architecture, weights if order == "importance" else None)
    child = build(architecture, init="keep").to(next(network.parameters())).eval()
    child.load_state_dict({**child.state_dict(), **parts.of(weights)})
    return child


@dataclass(eq=False)
class _Joined:
    """Tensors of the larger network that residual links join, so that their channels have one order.

    Attributes:
        norms: Names of the batch norms whose scales order them.
        into: The one that this one became a part of.
    """

    norms: list[str] = field(default_factory=list)
    into: _Joined | None = None

    def root(self) -> _Joined:
        return self if self.into is None else self.into.root()

    def join(self, other: _Joined) -> None:
        ours, theirs = self.root(), other.root()
        if ours is not theirs:
            ours.norms += theirs.norms
            theirs.into = ours


class _Channels(NamedTuple):
    """A tensor's channels: how many the larger network has and the smaller one keeps, and in whose order."""

    joined: _Joined
    large: int
    small: int


@dataclass
class _Cut:
    """Finds the slices, operation by operation; which channels are kept is settled at the end, when all is joined.

    Attributes:
        place: Where in the network, for messages.
    """

    place: str = ""
    parts: dict[str, tuple[slice | _Channels, ...]] = field(default_factory=dict)
    links: dict[str, tuple[_Channels, _Channels]] = field(default_factory=dict)  # projections that are new, by name
    fixed: dict[str, Tensor] = field(default_factory=dict)

    def chain(self, larges: Sequence[ops.Op], smalls: Sequence[ops.Op], name: str, channels: _Channels) -> _Channels:
        """Slices a chain whose module has a name, and gives the channels of its output."""
        for index, (large, small) in enumerate(self._aligned(larges, smalls)):
            channels = self._op(large, small, f"{name}.{index}", channels)
        return channels

    def resolved(self, weights: Mapping[str, Tensor] | None) -> Slices:
        """The slices, with what is kept of channels written out."""
        orders: dict[_Joined, Tensor] = {}

        def kept(channels: slice | _Channels) -> Kept:
            if isinstance(channels, slice):
                return channels
            if weights is None or channels.small == channels.large:
                return slice(0, channels.small)
            root = channels.joined.root()
            if root not in orders:
                scales = [weights[f"{norm}.weight"].detach().abs() for norm in root.norms]
                total = torch.stack(scales).sum(0) if scales else torch.zeros(channels.large)
                orders[root] = total.cpu().sort(descending=True, stable=True).indices
            return orders[root][: channels.small].sort().values

        parts = {name: tuple(map(kept, index)) for name, index in self.parts.items()}
        fixed = dict(self.fixed)
        for name, ends in self.links.items():
            came, went = (torch.arange(end.large)[kept(end)] for end in ends)
            fixed[name] = (went[:, None] == came).float()[..., None, None]
        return Slices(parts, fixed)

    def _op(self, large: Any, small: Any, name: str, channels: _Channels) -> _Channels:
        if isinstance(small, ops.Conv):
            return self._conv(large, small, name, channels)
        if isinstance(small, ops.BatchNorm):
            for each in _PER_CHANNEL:
                self._add(f"{name}.{each}", channels)
            self._add(f"{name}.num_batches_tracked")
            channels.joined.root().norms.append(name)
            return channels
        if isinstance(small, ops.Linear):
            classes = slice(0, small.out_features)
            self._add(f"{name}.weight", classes, channels)
            if small.bias:
                self._add(f"{name}.bias", classes)
            return _Channels(_Joined(), large.out_features, small.out_features)
        if isinstance(small, ops.Residual):
            return self._residual(large, small, name, channels)
        if isinstance(small, ops.Gate):
            self._gate(large, small, name, channels)
        elif isinstance(small, ops.Repeat):
            if small.times > large.times:
                raise self._too_deep(large.times + 1, small)
            for index in range(small.times):
                after = self.chain(large.body, small.body, f"{name}.{index}", channels)
                channels.joined.join(after.joined)
        elif large != small or not isinstance(small, ops.Activation | ops.Pool | ops.GlobalPool | ops.Zero):
            raise self._error(f"{type(small).__name__} can't be sliced; keep it as it is in the network")
        return channels

    def _conv(self, large: ops.Conv, small: ops.Conv, name: str, channels: _Channels) -> _Channels:
        margin = large.kernel_size - small.kernel_size
        if small.out_channels > large.out_channels:
            raise self._error(f"expected {large.out_channels} channels or fewer, got {small.out_channels}")
        if margin < 0 or margin % 2:
            raise self._error(f"expected a kernel cut from one of {large.kernel_size}, got {small.kernel_size}")
        depthwise = large.groups > 1 and all(op.groups == op.in_channels == op.out_channels for op in (large, small))
        fixed = [(op.stride, op.dilation, op.bias) for op in (large, small)]
        if fixed[0] != fixed[1] or not (depthwise or large.groups == small.groups):
            raise self._error(f"{small} is not a smaller {large} of the same stride and grouping")
        crop = slice(margin // 2, margin // 2 + small.kernel_size)
        inner: slice | _Channels = channels
        out = _Channels(_Joined(), large.out_channels, small.out_channels)
        if depthwise:
            out, inner = channels, slice(0, 1)
        elif small.groups > 1:
            if large.in_channels != small.in_channels or large.out_channels != small.out_channels:
                raise self._error(f"{small} has groups of several channels, which can't be sliced")
            inner = slice(0, small.in_channels // small.groups)
        self._add(f"{name}.weight", out, inner, crop, crop)
        if small.bias:
            self._add(f"{name}.bias", out)
        return out

    def _residual(self, large: ops.Residual, small: ops.Residual, name: str, channels: _Channels) -> _Channels:
        out = self.chain(large.body, small.body, f"{name}.body", channels)
        if large.shortcut and small.shortcut:
            projected = self.chain(large.shortcut, small.shortcut, f"{name}.shortcut", channels)
            out.joined.join(projected.joined)
        elif not large.shortcut:
            out.joined.join(channels.joined)
            if small.shortcut:
                self._pick(small.shortcut, f"{name}.shortcut", channels, out)
        return out

    def _pick(self, shortcut: Sequence[ops.Op], name: str, channels: _Channels, out: _Channels) -> None:
        """A projection that the larger network, where it is the identity, has no weights for."""
        kinds = [type(op) for op in shortcut]
        if kinds != [ops.Conv, ops.BatchNorm] or getattr(shortcut[0], "stride", 1) != 1:
            raise self._error("a shortcut is the identity in the network; it can't become this projection")
        self.links[f"{name}.0.weight"] = channels, out
        self.fixed[f"{name}.1.weight"] = torch.full((out.small,), math.sqrt(1 + ops.BATCH_NORM_EPSILON))
        self.fixed[f"{name}.1.bias"] = torch.zeros(out.small)

    def _gate(self, large: ops.Gate, small: ops.Gate, name: str, channels: _Channels) -> None:
        after = self.chain(large.body, small.body, f"{name}.body", channels).joined.root()
        if after is not channels.joined.root():
            after.norms.clear()  # the scales of a gate's own batch norm do not say how large the channels are
            channels.joined.join(after)

    def _aligned(self, larges: Sequence[ops.Op], smalls: Sequence[ops.Op]) -> Sequence[tuple[ops.Op, ops.Op]]:
        """The operations of two chains in pairs, without a repeat that only the larger one has."""
        kinds, wanted = ([type(op) for op in chain] for chain in (larges, smalls))
        if isinstance(smalls[-1] if smalls else None, ops.Repeat) and kinds == wanted[:-1]:
            raise self._too_deep(1, smalls[-1])
        if kinds not in (wanted, [*wanted, ops.Repeat]):
            raise self._error(
                "expected operations of the same kinds as in the network, "
                f"{[kind.__name__ for kind in kinds]}, got {[kind.__name__ for kind in wanted]}"
            )
        return list(zip(larges, smalls, strict=False))

    def _too_deep(self, most: int, small: Any) -> ArchitectureError:
        return self._error(f"expected {most} sub-layers or fewer, got {small.times + 1}")

    def _add(self, name: str, *index: slice | _Channels) -> None:
        self.parts[name] = index

    def _error(self, text: str) -> ArchitectureError:
        return ArchitectureError(f"{self.place}: {text}")
