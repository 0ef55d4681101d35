"""Correlations of the images' input gradients: jacob_cov, and EPE-NAS by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

_GUARD = 1e-5
"""What both sources add before a logarithm or a reciprocal."""

_MANY_CLASSES = 100
"""Above so many classes EPE-NAS compares them in pairs."""


@register_proxy(
    ProxyInfo(
        "jacob_cov",
        reads=(),
        source="arXiv:2006.04647v1, arXiv:2101.08134",
        needs_gradients=True,
        real_data=True,
        cost="backward",
    )
)
def jacob_cov(network: nn.Module, batch: Batch, /) -> float:
    r"""Jacobian covariance (Mellor et al., arXiv:2006.04647v1; so named in arXiv:2101.08134); higher is better.

    .. math:: -\sum_{i=1}^{N} \left( \log(\lambda_i + k) + \frac{1}{\lambda_i + k} \right), \qquad k = 10^{-5}

    with lambda the eigenvalues of the correlation matrix of the images' rows of the Jacobian, each the gradient of the
    sum of all logits for that image. It is highest where the rows are uncorrelated. It needs no labels; the sources
    take real images. On Gaussian ones it is mostly noise (docs/proxies.md: it hardly agrees with itself between seeds).

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, ...) of two images or more.

    Raises:
        ProxyError: The module returns no logits.
        UndefinedScoreError: There is one image, a gradient is not finite, or one has no variation over pixels (a dead
            network, or one that is linear in the sum of its pixels).

    Images that are equal give an eigenvalue of 0, which k keeps finite: each costs about 1 / k = 100000.

    Departures from the authors' code: correlations and eigenvalues in double precision, by a solver for symmetric
    matrices; rounding below 0 counts as 0.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "jacob_cov", input_size=(3, 8, 8)).ok
        True
    """
    correlation = _correlation(network, batch)
    eigenvalues = torch.linalg.eigvalsh(correlation).clamp(min=0) + _GUARD
    return -float((eigenvalues.log() + eigenvalues.reciprocal()).sum())


@register_proxy(
    ProxyInfo(
        "epe_nas",
        never_negative=True,
        reads=(),
        source="arXiv:2102.08099",
        needs_gradients=True,
        needs_labels=True,
        real_data=True,
        cost="backward",
    )
)
def epe_nas(network: nn.Module, batch: Batch, /, *, pairwise: bool | None = None) -> float:
    r"""EPE-NAS (Lopes et al., ICANN 2021, arXiv:2102.08099); higher is better.

    .. math:: \sum_c |e_c|, \qquad e_c = \sum_{i, j \in c} \log(|\rho_{ij}| + k), \qquad k = 10^{-5}

    with rho the correlations of the images' rows of the Jacobian, as in `jacob_cov`, and c the classes of the batch.
    With many classes it compares them, those with two images or more (n_c of them, C classes):

    .. math:: \frac{1}{C} \sum_{c, d} \left| \frac{e_c}{n_c} - \frac{e_d}{n_d} \right|

    On Gaussian images with random labels, which stand in where none are given, it is noise: the labels drawn and the
    logarithms of the smallest correlations decide, and networks differ by less than repeats of one do. Give it real
    images with their labels.

    Args:
        network: A module that returns logits.
        batch: ``inputs`` (N, ...) of two images or more and their ``targets`` (N,).
        pairwise: Compare classes in pairs. Default: where more than 100 classes are in the batch.

    Raises:
        ProxyError: There are no labels or not one an image, or the module returns no logits.
        UndefinedScoreError: As `jacob_cov`; or no class has two images, or in pairs less than two have.

    Departures from the authors' code: correlations in double precision; the classes in the batch decide on pairs, not
    those of the data set; a constant row is an error there too, but only drops its class.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> score(net, "epe_nas", input_size=(3, 8, 8)).ok
        True
    """
    targets = batch.targets
    if targets is None or targets.shape != (len(batch.inputs),):
        got = "none" if targets is None else f"labels of shape {tuple(targets.shape)}"
        raise ProxyError(f"epe_nas needs one label an image: Batch(inputs, targets); got {got}")
    correlation = _correlation(network, batch)
    _, labels = torch.unique(targets, return_inverse=True)
    members = nn.functional.one_hot(labels).to(correlation)
    counts = members.sum(0)
    sums = (members * ((correlation.abs() + _GUARD).log() @ members)).sum(0)
    repeated = counts > 1
    if not repeated.any():
        raise UndefinedScoreError("no class has two images to compare; score on more images")
    if pairwise is None:
        pairwise = len(counts) > _MANY_CLASSES
    if not pairwise:
        return float(sums.abs().sum())
    means = sums[repeated] / counts[repeated]
    if len(means) < 2:
        raise UndefinedScoreError("less than two classes have two images to compare; score on more images")
    return float((means[:, None] - means).abs().sum() / len(means))


def _correlation(network: nn.Module, batch: Batch) -> Tensor:
    """Pearson correlations of the images' input gradients over all pixels and channels, ``(N, N)`` in float64."""
    if len(batch.inputs) < 2:
        raise UndefinedScoreError("correlations compare images; score on two or more")
    gradients = batch.passes(network).input_gradients.flatten(1)
    if not torch.isfinite(gradients).all():
        raise UndefinedScoreError("the logits' gradient for the images is not finite")
    lowest, highest = gradients.aminmax(dim=1)
    rounding = 16 * torch.finfo(gradients.dtype).eps * torch.maximum(lowest.abs(), highest.abs())
    if (highest - lowest <= rounding).any():
        raise UndefinedScoreError("an image's gradient is the same for all pixels, so that it has no correlations")
    rows: Tensor = gradients.double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows @ rows.T
