"""Counts of activation patterns: SWAP-Score over units, and TE-NAS's linear regions over images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule, no_grad
from zeroshot_nas.errors import ProxyError, UndefinedScoreError
from zeroshot_nas.scoring.proxy import Batch, ProxyInfo, register_proxy
from zeroshot_nas.scoring.relu_patterns import count_images, count_patterns, relu_units, unit_codes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

DEFAULT_MU = 1000.0
"""Thousands of parameters that `swap_reg` favours unless the caller says otherwise."""


@register_proxy(
    ProxyInfo("swap", never_negative=True, reads=("relus",), source="arXiv:2403.04161", grows_with_depth=True)
)
@no_grad()
def swap(network: nn.Module, batch: Batch, /) -> float:
    r"""SWAP-Score (Peng et al., "SWAP-NAS", ICLR 2024, arXiv:2403.04161); higher is better.

    .. math:: |\{ p_v : v = 1 \ldots V \}|, \qquad p_v = (\mathbb 1[a_v(x_1) > 0], \ldots, \mathbb 1[a_v(x_N) > 0])

    with a_v the input of the v-th unit of all activations on feature maps: the number of different patterns that units
    show over the images. ReLUs count and what is like them, as in `naswot`. It is a whole number of 2^N at most, so few
    images can't tell wide networks apart. It needs neither labels nor gradients.

    Args:
        network: A module with ReLUs or their like on feature maps; those without spatial axes don't count, as in the
            authors' code.
        batch: ``inputs`` (N, C, *spatial).

    Raises:
        ProxyError: The module calls none on a feature map.
        UndefinedScoreError: There is one image, or numbers are not finite.

    Departures from the authors' code: functional ReLUs count like modules, and activations of other kinds count.

    Example:
        >>> from zeroshot_nas import score
        >>> score(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "swap", input_size=(3, 8, 8), batch_size=2).value
        4.0
    """
    return float(_patterns(network, batch))


@register_proxy(ProxyInfo("swap_reg", never_negative=True, reads=("relus",), source="arXiv:2403.04161"))
@no_grad()
def swap_reg(network: nn.Module, batch: Batch, /, *, mu: float = DEFAULT_MU, sigma: float | None = None) -> float:
    r"""Regularised SWAP-Score (Peng et al., "SWAP-NAS", ICLR 2024, arXiv:2403.04161); higher is better.

    .. math:: \mathrm{swap} \cdot \exp\left(-\frac{(p - \mu)^2}{\sigma}\right)

    with p the number of parameters in thousands. It steers a search towards networks of about mu thousand parameters:
    give the size that you want.

    Args:
        network: As in `swap`.
        batch: As in `swap`.
        mu: Thousands of parameters that are best. The authors set it for each search space; the default of 1000 is
            ours, and fits networks of about a million parameters.
        sigma: How fast the score falls off, in squared thousands. Default: mu squared, so that a network of twice mu
            keeps exp(-1) of its score.

    Raises:
        ProxyError: ``mu`` or ``sigma`` is not above 0, or not finite.
        UndefinedScoreError: As `swap`; or the network's size is so far from mu that the factor is 0.

    Departures from the authors' code: as in `swap`; and without mu or sigma theirs gives the plain score.

    Example:
        >>> from zeroshot_nas import score
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> round(score(net, "swap_reg:mu=0.112", input_size=(3, 8, 8), batch_size=2).value, 9)  # 112 parameters
        4.0
    """
    for name, value in (("mu", mu), ("sigma", 1.0 if sigma is None else sigma)):
        if not 0 < value < math.inf:
            raise ProxyError(f"swap_reg's {name} must be a number above 0, got {value!r}")
    spread = mu**2 if sigma is None else sigma
    thousands = sum(parameter.numel() for parameter in network.parameters()) / 1000
    factor = math.exp(-((thousands - mu) ** 2) / spread)
    if factor == 0:
        raise UndefinedScoreError(
            f"swap_reg's factor is 0 for {thousands:g} thousand parameters with mu={mu:g}, sigma={spread:g}; "
            "set mu to the size that is wanted"
        )
    return _patterns(network, batch) * factor


@register_proxy(
    ProxyInfo("linear_regions", never_negative=True, reads=("relus",), source="arXiv:2102.11535", batch_size=64)
)
@no_grad()
def linear_regions(network: nn.Module, batch: Batch, /) -> float:
    """Linear regions (Chen et al., "TE-NAS", ICLR 2021, arXiv:2102.11535); higher is better.

    The number of images that differ in the pattern of all ReLUs on feature maps, so that they lie in different linear
    regions of the network: a whole number of N at most. For activations of other kinds the pattern is the sign of their
    inputs, as in `naswot`. It needs neither labels nor gradients.

    It is N for nearly every network where images differ much, as Gaussian ones of the usual sizes do, and then ranks
    nothing. The paper takes thousands of tiny images (3x3 and less) and tiny networks.

    Args:
        network: A module with ReLUs or their like on feature maps.
        batch: ``inputs`` (N, C, *spatial).

    Raises:
        ProxyError: The module calls none on a feature map.
        UndefinedScoreError: There is one image, or numbers are not finite.

    Departures from the authors' code: patterns are compared exactly, not by sums of reciprocals in half precision;
    functional ReLUs count like modules, and activations of other kinds count.

    Example:
        >>> from zeroshot_nas import score
        >>> score(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "linear_regions", input_size=(3, 8, 8)).value
        64.0
    """
    return float(count_images(_relus(network, batch, "linear_regions")))


def layer_swap(relu: Tensor) -> int:
    """How many patterns over the images the units of one activation show.

    Args:
        relu: Which units are on, ``(N, ...)``: booleans, or a ReLU's result.

    Example:
        >>> layer_swap(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]]))
        3
    """
    return count_patterns(unit_codes(*relu_units([relu], len(relu))))


def _patterns(network: nn.Module, batch: Batch) -> int:
    codes = [unit_codes(units) for units in _relus(network, batch, "swap")]
    return count_patterns(torch.cat(codes, dim=1))


def _relus(network: nn.Module, batch: Batch, proxy: str) -> list[Tensor]:
    """Units of every activation on a feature map."""
    if len(batch.inputs) < 2:
        raise UndefinedScoreError(f"{proxy} compares images; score on two or more")
    relus = batch.passes(network).forward.relus
    return relu_units(relus, len(batch.inputs), spatial=True)
