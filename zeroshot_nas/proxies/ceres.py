"""CERES, capacity and expressivity by resolution; in closed form for architectures of ours, else measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.training_length import IMAGES, STEPS
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError, ZeroShotNASError
from zeroshot_nas.scoring.measured_cet import measure_cet
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    from torch import nn

    from zeroshot_nas.costs.budget import Budget
    from zeroshot_nas.spaces.base import SearchSpace
else:
    nn = LazyModule("torch.nn")


def ceres_closed_form(architecture: Architecture, /, *, images: int = IMAGES, steps: int = STEPS) -> float:
    """`zeroshot_nas.closed_form.ceres.ceres`, which is imported, and numpy with it, when there is one to compute."""
    from zeroshot_nas.closed_form.ceres import ceres

    return ceres(architecture, images=images, steps=steps)


def ceres_pool_closed_form(
    architectures: Sequence[Architecture], /, *, images: int = IMAGES, steps: int = STEPS
) -> Sequence[float | ZeroShotNASError]:
    """`zeroshot_nas.closed_form.ceres.ceres_pool`, likewise."""
    from zeroshot_nas.closed_form.ceres import ceres_pool

    return ceres_pool(architectures, images=images, steps=steps)


def ceres_upper_bound(space: SearchSpace, budget: Budget, *, images: int = IMAGES, steps: int = STEPS) -> float | None:
    """`zeroshot_nas.bounds.convolutional.ceres_bound`, likewise."""
    from zeroshot_nas.bounds.convolutional import ceres_bound

    return ceres_bound(space, budget, images=images, steps=steps)


@register_proxy(
    ProxyInfo(
        "ceres",
        source="this project",
        batch_size=8,
        needs_gradients=True,
        reads=("layers",),
        cost="backward",
        upper_bound=ceres_upper_bound,
        closed_form=ceres_closed_form,
        closed_form_pool=ceres_pool_closed_form,
        exact=True,
        knows_bits=True,
    )
)
def ceres(network: nn.Module, batch: Batch, /, *, images: int = IMAGES, steps: int = STEPS) -> float:
    """CERES, for networks that fill the same budget; in closed form for architectures of ours; higher is better.

    An architecture, and a module that `zeroshot_nas.build` made of one, has the closed form
    (`zeroshot_nas.closed_form.ceres.ceres`, with the formula). Of any other module the terms are measured
    (`zeroshot_nas.scoring.measured_cet.measure_cet`). The two are not one number and not to be mixed in one ranking.

    Args:
        network: Any module that convolves.
        batch: ``inputs`` (N, C, H, W), two images or more, of variance 1.
        images: Images that the network will be trained on.
        steps: Steps that it will be trained for.

    Returns:
        The score, with its terms as ``.details``.

    Raises:
        ProxyError: As `zeroshot_nas.scoring.measured_cet.measure_cet`, or a number is no whole number of 1 or more.
        UndefinedScoreError: As `zeroshot_nas.scoring.measured_cet.measure_cet`.

    Example:
        >>> from zeroshot_nas import Architecture, score
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> result = score(net, "ceres:images=1000")
        >>> round(result.value, 3), round(result.details["A"])
        (17.633, 5347)
    """
    from zeroshot_nas.closed_form.ceres import score_of

    check_counts(1, ProxyError, images=images, steps=steps)
    measured = measure_cet(network, batch)
    return score_of(measured.pieces, measured.num_classes, images, steps)
