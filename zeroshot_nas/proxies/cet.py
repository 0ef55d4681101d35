"""CET, capacity x expressivity x trainability; in closed form for architectures of ours, else measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.cet.variant import Variant
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.scoring.measured_cet import measure_cet
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    from torch import nn

    from zeroshot_nas.costs.budget import Budget
    from zeroshot_nas.spaces.base import SearchSpace
else:
    nn = LazyModule("torch.nn")


def cet_closed_form(architecture: Architecture, /, *, variant: Variant = "u") -> float:
    """`zeroshot_nas.closed_form.cet.score.cet`, which is imported, and numpy with it, when there is one to compute."""
    from zeroshot_nas.closed_form.cet.score import cet

    return cet(architecture, variant=variant)


def cet_pool_closed_form(
    architectures: Sequence[Architecture], /, *, variant: Variant = "u"
) -> Sequence[float | ZeroShotNASError]:
    """`zeroshot_nas.closed_form.cet.score.cet_pool`, likewise."""
    from zeroshot_nas.closed_form.cet.score import cet_pool

    return cet_pool(architectures, variant=variant)


def cet_upper_bound(space: SearchSpace, budget: Budget, *, variant: Variant = "u") -> float | None:
    """`zeroshot_nas.bounds.convolutional.cet_bound`, likewise."""
    from zeroshot_nas.bounds.convolutional import cet_bound

    return cet_bound(space, budget, variant=variant)


@register_proxy(
    ProxyInfo(
        "cet",
        source="this project",
        batch_size=8,
        needs_gradients=True,
        reads=("layers",),
        cost="backward",
        upper_bound=cet_upper_bound,
        closed_form=cet_closed_form,
        closed_form_pool=cet_pool_closed_form,
        exact=True,
        knows_bits=True,
    )
)
def cet(network: nn.Module, batch: Batch, /, *, variant: Variant = "u") -> float:
    """CET, capacity x expressivity x trainability; in closed form for architectures of ours; higher is better.

    An architecture, and a module that `zeroshot_nas.build` made of one, has the closed form
    (`zeroshot_nas.closed_form.cet.score.cet`), which is the mean over weights and images. Any other module is measured
    (`zeroshot_nas.scoring.measured_cet.measure_cet`). Both have the same pieces, which the score shows as its
    ``details``, but the two are not one number and not to be mixed in one ranking. On 292 random cells of NAS-Bench-201
    (N = 1, batch 8, one repeat) Spearman's correlation between the two is .98 for the score, .93 for P, 1.00 for E and
    .82 for D (``benchmarks/cet.py``).

    Args:
        network: Any module that convolves.
        batch: ``inputs`` (N, C, H, W), two images or more, of variance 1.
        variant: ``"u"``, ``"g"``, ``"p"``, ``"pf"`` or ``"gm"``, as in the closed form.

    Returns:
        The score, with its pieces as ``.details``.

    Raises:
        ProxyError: As `zeroshot_nas.scoring.measured_cet.measure_cet`, or no variant has that name.
        UndefinedScoreError: As `zeroshot_nas.scoring.measured_cet.measure_cet`.

    Example:
        >>> from zeroshot_nas import Architecture, score
        >>> net = Architecture.from_string("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,1)", (3, 16, 16))
        >>> result = score(net, "cet")
        >>> round(result.value, 3), round(result.details["P"])
        (17.336, 6407)
    """
    return measure_cet(network, batch).pieces.value(variant)
