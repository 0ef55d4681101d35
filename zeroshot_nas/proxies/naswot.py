"""NASWOT: how well a random network's activations tell the images of a batch apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule, no_grad
from zeroshot_nas.errors import UndefinedScoreError
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy
from zeroshot_nas.scoring.relu_patterns import differing_units, packed_units, relu_units

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
else:
    np = LazyModule("numpy")
    nn = LazyModule("torch.nn")


@register_proxy(ProxyInfo("naswot", reads=("relus",), source="arXiv:2006.04647", real_data=True, grows_with_depth=True))
@no_grad()
def naswot(network: nn.Module, batch: Batch, /, *, normalise: bool = False) -> float:
    r"""NASWOT (Mellor et al., "Neural Architecture Search without Training", ICML 2021, arXiv:2006.04647).

    .. math:: \log |\det K|, \qquad K_{ij} = N_A - d_H(c_i, c_j)

    with c_i the code of image i: one bit for each of the N_A units of all activations, whether it is on: its input is
    above zero. d_H is the number of bits that differ. Higher is better. Every ReLU counts, also behind a linear layer
    and in a squeeze-and-excitation gate, and so do its like: ReLU6, leaky ones, ELU, GELU, SiLU, hardswish, tanh and
    others (`zeroshot_nas.scoring.relu_patterns.units_on`), but sigmoids and other gates do not. It needs neither labels
    nor gradients; the paper takes real images.

    Args:
        network: A module with ReLUs or their like, as modules or as functions.
        batch: ``inputs`` (N, ...) of two images or more.
        normalise: Divide K by N_A, so that the score does not grow by N log N_A with the number of units.

    Raises:
        ProxyError: The module calls none.
        UndefinedScoreError: There is one image, two images have the same code (the message names them), or there are
            too few units for so many images.

    K is a sum of integers and is exact; its eigenvalues are computed in double precision.

    Departures from the authors' code: functional ReLUs count like modules, and activations of other kinds count; no
    backward pass, which they run and don't use; a singular K is an error with its reason, not minus infinity.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> score(net, "naswot", input_size=(3, 8, 8), batch_size=4).ok
        True
    """
    images = len(batch.inputs)
    if images < 2:
        raise UndefinedScoreError("naswot compares images; score on two or more")
    relus = relu_units(batch.passes(network).forward.relus, images)
    units = sum(relu.shape[1] for relu in relus)
    distances = differing_units(packed_units(relus))
    eigenvalues = np.linalg.eigvalsh(units - distances)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if smallest <= images * np.finfo(np.float64).eps * largest:
        equal = np.argwhere(np.triu(distances == 0, 1))
        pairs = [f"{first} and {second}" for first, second in equal[:3]]
        if pairs:
            raise UndefinedScoreError(f"all activations are on for the same units in images {', '.join(pairs)}")
        raise UndefinedScoreError(f"{units} activation units are too few to compare {images} images; score on fewer")
    log_determinant = float(np.log(eigenvalues).sum())
    return log_determinant - images * math.log(units) if normalise else log_determinant
