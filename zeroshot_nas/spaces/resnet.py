"""Zen-NAS's space of residual networks (its ``search_space_XXBL``)."""

from __future__ import annotations

from collections.abc import Sequence

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.errors import ArchitectureError
from zeroshot_nas.spaces.base import register_space
from zeroshot_nas.spaces.chain import ChainSpace


@register_space("resnet")
def resnet(
    *,
    input_size: Shape,
    num_classes: int,
    squeeze_excite: bool = False,
    max_width: int = 2048,
    width_step: int = 8,
    blocks: str = "both",
    resolutions: Sequence[int] | None = None,
) -> ChainSpace:
    """Chains of basic (k x k, k x k) and bottleneck (1x1, k x k, 1x1) residual blocks, k in 3, 5, 7.

    Source: Lin et al., arXiv:2102.01063. Departures from the authors' code: the six types are drawn evenly (their list
    repeats the early ones by accident), ``width_step`` can make widths finer or coarser than their multiples of 8, and
    ``blocks``, ``"basic"`` or ``"bottleneck"``, keeps to one kind of block; ``resolutions`` as for
    `zeroshot_nas.spaces.chain.ChainSpace`.

    Raises:
        ArchitectureError: An option is not usable.

    Example:
        >>> resnet(input_size=(3, 32, 32), num_classes=10).initial().to_string()[:50]
        'SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,1,8,1)'
    """
    kinds = {"basic": ["SuperResK{k}K{k}"], "bottleneck": ["SuperResK1K{k}K1"]}
    kinds["both"] = kinds["basic"] + kinds["bottleneck"]
    if blocks not in kinds:
        raise ArchitectureError(f"blocks must be basic, bottleneck or both, got {blocks!r}")
    types = [kind.format(k=k) for kind in kinds[blocks] for k in (3, 5, 7)]
    return ChainSpace(
        *("resnet", tuple(types), input_size, num_classes, squeeze_excite, max_width),
        width_step=width_step,
        resolutions=resolutions,
    )
