"""Accuracy with the shared weights of a trained supernet: no training-free score, and here to compare these with."""

from __future__ import annotations

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.errors import ArchitectureError, ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.proxy import PROXIES, ProxyInfo


def supernet(architecture: Architecture, /, *, run: str = "", calibration: int = 512) -> float:
    """Accuracy of a network with weights of a one-shot supernet (SPOS: Guo et al., ECCV 2020, arXiv:1904.00420).

    The fraction of held-out images that the network classifies right with its share of the supernet's weights, after
    its batch norms were measured anew on training images. Higher is better. It is no training-free score: the supernet
    is trained first (`zeroshot_nas.train_supernet`), and says nothing of networks that it does not hold. The supernet's
    images are in its folder; none of them is a test image. The same network always has the same score.

    Args:
        architecture: A network that the supernet holds: the same blocks as its largest network, of the same kinds and
            strides, with widths, depths and kernels no larger.
        run: Folder of the supernet's run. A cache of scores is by this name, so give a new supernet a new folder.
        calibration: Training images that batch norms are measured on, 2 or more; all that are kept where these are
            fewer (`zeroshot_nas.train_supernet` keeps 512).

    Raises:
        ProxyError: No folder is given, it holds no supernet, or ``calibration`` is below 2.
        UndefinedScoreError: The supernet does not hold the network; the message says in which block and what.
    """
    from zeroshot_nas.training.supernet import kept_supernet  # here: what only names proxies loads no torch

    check_counts(2, ProxyError, calibration=calibration)
    if not run:
        raise ProxyError("supernet needs a trained supernet: give its folder, as in supernet:run=runs/supernet")
    try:
        trained = kept_supernet(run)
    except FileNotFoundError as error:
        raise ProxyError(str(error)) from None
    try:
        return trained.accuracy(architecture, calibration)
    except ArchitectureError as error:
        raise UndefinedScoreError(str(error)) from None


PROXIES.add(
    "supernet",
    ProxyInfo("supernet", closed_form=supernet, source="arXiv:1904.00420", cost="many", never_negative=True),
)
