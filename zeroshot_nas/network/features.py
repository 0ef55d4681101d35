"""`features`: a network's maps of several resolutions, for detection and segmentation, in timm's convention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.network.levels import feature_levels
from zeroshot_nas.network.module import Graph, Network, build


class FeatureInfo:
    """What timm's ``FeatureInfo`` says of a network's feature maps.

    Args:
        info: A network's ``feature_info``.
        out_indices: Which of them are given, in their order.
    """

    def __init__(self, info: Sequence[dict[str, Any]], out_indices: Sequence[int]) -> None:
        self.info, self.out_indices = list(info), tuple(out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """A fact of the maps given, or of those of some indices; of one index the fact itself."""
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[index][key] for index in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None) -> Any:
        """Several facts, or all, of the maps given, or of those of some indices."""
        if isinstance(idx, int):
            return {key: self.info[idx][key] for key in keys or self.info[idx]}
        return [self.get_dicts(keys, index) for index in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Channels of the maps."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Strides of the maps: by what factor they are smaller than the image."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Names of the modules that give them."""
        return self.get("module", idx)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)


class FeatureNetwork(nn.Module):
    """The blocks of a network up to the last map that is asked for; it returns a list of maps. See `features`.

    Its ``state_dict`` has the network's own keys, without those that it does not need.
    """

    blocks: nn.Sequential
    mean: Tensor | None
    std: Tensor | None

    def __init__(self, network: Network, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        levels = feature_levels(network.architecture)
        self.feature_info = FeatureInfo(
            network.feature_info, _indices(out_indices, [each.reduction for each in levels])
        )
        wanted = [levels[index] for index in self.feature_info.out_indices]
        self._places = [(level.block, level.node) for level in wanted]
        self.blocks = nn.Sequential(*list(network.blocks)[: 1 + max(level.block for level in wanted)])
        for name in ("mean", "std"):  # of a trained network, which takes images in [0, 1]
            self.register_buffer(name, getattr(network, name, None), persistent=False)
        self.train(network.training)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps ``(N, channels, ceil(H / reduction), ceil(W / reduction))`` of images, in the order asked for."""
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        maps: dict[tuple[int, int | None], Tensor] = {}
        for place, block in enumerate(self.blocks):
            parts = list(cast("nn.Sequential", block))
            if parts and isinstance(graph := parts[0], Graph):
                outputs = graph.outputs(x)
                maps.update({(place, node): each for node, each in enumerate(outputs)})
                x = outputs[-1]
                del parts[0]
            for part in parts:
                x = part(x)
            maps[place, None] = x
        return [maps[place] for place in self._places]


def features(
    network: Network | Architecture | HasArchitecture, out_indices: int | Sequence[int] | None = None
) -> FeatureNetwork:
    """A network's feature maps of several resolutions, as ``timm.create_model(..., features_only=True)`` gives them.

    There is one map for each resolution that the network passes through: the output of its last block, or cell, there.
    ``.feature_info.channels()`` and ``.reduction()`` say their channels and strides. Images may be of any size.

    Args:
        network: A network, trained or not, whose weights are shared, not copied: what is trained on top of its maps
            changes it. A trained one takes images in [0, 1] here too. Of an architecture the network is built.
        out_indices: Which maps, the finest being 0; negative ones count from the coarsest. A number n stands for the
            last n. Default: all.

    Raises:
        ArchitectureError: It is no network of this package, or has no such map.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,16,2,8,1)")
        >>> backbone = features(net)
        >>> backbone.feature_info.channels(), backbone.feature_info.reduction()
        ([8, 16], [2, 4])
        >>> import torch
        >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 3, 64, 48))]
        [(1, 8, 32, 24), (1, 16, 16, 12)]
    """
    if not isinstance(network, nn.Module):
        architecture = architecture_of(network)
        network = network if architecture is None else build(architecture)
    if not isinstance(network, Network):
        raise ArchitectureError(
            f"features takes an architecture or a network of this package, got {type(network).__name__}, of which is "
            "not known where its maps are; of timm's models create_model(..., features_only=True) gives them"
        )
    return FeatureNetwork(network, out_indices)


def _indices(asked: int | Sequence[int] | None, reductions: Sequence[int]) -> list[int]:
    """Places of the maps asked for, from 0."""
    count = len(reductions)
    if asked is None:
        return list(range(count))
    if type(asked) is int and 1 <= asked <= count:
        return list(range(count - asked, count))
    listed = list(asked) if isinstance(asked, Sequence) and not isinstance(asked, str) else []
    if not listed or not all(type(index) is int and -count <= index < count for index in listed):
        raise ArchitectureError(
            f"the network has {count} feature maps, of strides {', '.join(map(str, reductions))}; expected out_indices "
            f"from 0 to {count - 1} or from -{count} to -1, or how many of the last, got {asked!r:.80}"
        )
    places = [index % count for index in listed]
    if len(set(places)) < len(places):
        raise ArchitectureError(f"out_indices must be different maps, got {places}")
    return places
