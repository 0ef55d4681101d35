"""Compound scaling: a network made deeper, wider and of a higher resolution at once. No torch here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Graph, Residual
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import (
    ArchitectureError,
    ProxyError,
    UndefinedScoreError,
    WeightBitsWarning,
    did_you_mean,
)
from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY, Proxy, ProxyFunction, get_proxy

TOLERANCE = 0.03
"""How far from ``2^phi`` times the FLOPs a scaled network may be."""

SHARE_STEPS = 10
"""Parts in which doubled FLOPs are shared out among depth, width and resolution while factors are searched for."""

_LARGEST_PHI = 10

_GUESSES, _STEPS, _STEP = 6, 40, 1.0025
"""Guesses at a multiplier on the widths, then so many steps to either side of the best, each by that factor."""


class Factors(NamedTuple):
    """By how much one unit of phi multiplies depth (alpha), width (beta) and resolution (gamma).

    FLOPs grow by ``alpha * beta^2 * gamma^2``, about 2 for factors to scale by.
    """

    depth: float
    width: float
    resolution: float

    @classmethod
    def of_shares(cls, depth: float, width: float, resolution: float) -> Factors:
        """Factors that share doubled FLOPs out: ``2^depth * 2^width * 2^resolution``, where these add up to 1.

        Example:
            >>> Factors.of_shares(0, 1, 0)
            Factors(depth=1, width=1.4142135623730951, resolution=1.0)
        """
        return cls(2**depth, 2 ** (width / 2), 2 ** (resolution / 2))


PRESETS = {
    "efficientnet": Factors(1.2, 1.1, 1.15),
    "fast": Factors.of_shares(0.1, 0.8, 0.1),
    "depth": Factors.of_shares(1, 0, 0),
    "width": Factors.of_shares(0, 1, 0),
    "resolution": Factors.of_shares(0, 0, 1),
}
"""Published factors and single ones: EfficientNet's (arXiv:1905.11946), fast compound scaling's (arXiv:2103.06877)."""


@dataclass(frozen=True)
class ScaledNetwork:
    """A network that was scaled.

    Attributes:
        architecture: The network.
        phi: By how many doublings of FLOPs.
        factors: Depth's, width's and resolution's factors of one doubling; rounding and fitting the FLOPs leave them
            approximate.
        costs: What the network costs.
    """

    architecture: Architecture
    phi: float
    factors: Factors
    costs: Costs


def scale(
    network: Architecture | HasArchitecture,
    phi: float,
    factors: str | Sequence[float] = "found",
    *,
    proxy: str | Proxy | ProxyFunction | None = None,
    width_step: int = 1,
) -> ScaledNetwork:
    """A network of about ``2^phi`` times the FLOPs: depth alpha^phi, width beta^phi, resolution gamma^phi.

    Resolution and depth are rounded to whole pixels and layers first; then one multiplier on all widths brings the
    FLOPs within 3 % of ``2^phi``. Layers are added where the most are missing; a plain convolution at either end, as
    stems are, stays one layer, and so do parts of a published network that stand once (reductions of NAS-Bench cells).
    Strides, kernels and kinds of blocks stay what they are. A negative phi makes the network smaller.

    Args:
        network: Any architecture of ours, or what has one.
        phi: Doublings of FLOPs, -10 to 10.
        factors: Alpha, beta and gamma, or a name: ``"efficientnet"``, ``"fast"``, ``"depth"``, ``"width"``,
            ``"resolution"``, or ``"found"`` for those of `find_factors`.
        proxy: What ``"found"`` ranks by; default that of `search`.
        width_step: Every width is a multiple of it.

    Raises:
        ArchitectureError: Phi is out of range, no network near ``2^phi`` times the FLOPs has such depths and widths, or
            the network is none of ours.
        ValueError: The factors are none that double the FLOPs, or ``width_step`` is no whole number of 1 or more.
        UnknownNameError: No proxy has that name.

    Warns:
        WeightBitsWarning: The network has weights of fewer than 8 bits, and the scaled one, of other layers, has not.

    Source: Tan and Le, arXiv:1905.11946. Departure: FLOPs are fitted by the width, so that rounded depths and
    resolutions leave them what was asked for.

    Example:
        >>> from zeroshot_nas import reference
        >>> twice = scale(reference("resnet8"), 1, "efficientnet")
        >>> twice.architecture.input_size, twice.architecture.layers, twice.architecture.blocks[-1].out_channels
        ((3, 37, 37), 5, 66)
        >>> round(twice.costs.flops / complexity(reference("resnet8")).flops, 2)
        1.97
    """
    architecture = _architecture_of(network)
    check_counts(1, width_step=width_step)
    if isinstance(phi, bool) or not isinstance(phi, int | float) or not abs(phi) <= _LARGEST_PHI:
        raise ArchitectureError(f"phi must be a number from -{_LARGEST_PHI} to {_LARGEST_PHI}, got {phi!r}")
    chosen = find_factors(architecture, proxy) if factors == "found" else read_factors(factors)
    scaled = _scaled(architecture, phi, chosen, width_step)
    if set(architecture.weight_bits or ()) - {8} and scaled.architecture.weight_bits is None:
        warnings.warn(
            "the network's bits are those of its own layers, so the scaled one has weights of 8 bits; choose bits anew "
            "by zs.allocate_bits",
            WeightBitsWarning,
            stacklevel=2,
        )
    return scaled


def find_factors(network: Architecture | HasArchitecture, proxy: str | Proxy | ProxyFunction | None = None) -> Factors:
    """The factors whose network of twice the FLOPs scores best, of a grid that shares the FLOPs out in tenths.

    Closed form, so it takes seconds. It knows nothing of the images: whether they hold more at a higher resolution is
    for the user to say.

    Args:
        network: Any architecture of ours, or what has one.
        proxy: One with a closed form; default that of `search`.

    Raises:
        ProxyError: The proxy has no closed form, or none for any of these networks.
        ArchitectureError: No network has about twice the FLOPs.

    Example:
        >>> from zeroshot_nas import reference
        >>> factors = find_factors(reference("resnet8"), "params")
        >>> factors.resolution  # params are the more, the less of the FLOPs goes into resolution
        1.0
    """
    architecture = _architecture_of(network)
    ranked_by = get_proxy(DEFAULT_SEARCH_PROXY if proxy is None else proxy)
    closed_form = ranked_by.bound_closed_form()
    best: tuple[float, Factors] | None = None
    problem: Exception | None = None
    for factors in _grid():
        try:
            value = ranked_by.sign * closed_form(_scaled(architecture, 1, factors, 1).architecture)
        except (ArchitectureError, ProxyError, UndefinedScoreError) as error:
            problem = error
            continue
        if best is None or value > best[0]:
            best = value, factors
    if best is None:
        assert problem is not None, "the grid has points"
        raise problem
    return best[1]


def read_factors(factors: str | Sequence[float]) -> Factors:
    """Factors by their name, or three numbers.

    Raises:
        ValueError: They are neither, or do not about double the FLOPs.

    Example:
        >>> read_factors("1.2,1.1,1.15") == read_factors("efficientnet")
        True
        >>> read_factors((2, 2, 1))
        Traceback (most recent call last):
        ValueError: factors must about double the FLOPs, depth * width^2 * resolution^2 from 1.8 to 2.2; got 8
    """
    if isinstance(factors, str) and factors in PRESETS:
        return PRESETS[factors]
    parts: Sequence[Any] = factors.split(",") if isinstance(factors, str) else factors
    try:
        chosen = Factors(*map(float, parts))
    except (TypeError, ValueError):
        names = ["found", *PRESETS]
        raise ValueError(
            f"factors must be {', '.join(names)}, or three numbers for depth, width and resolution; got {factors!r}."
            f"{did_you_mean(str(factors), names)}"
        ) from None
    growth = chosen.depth * chosen.width * chosen.width * chosen.resolution * chosen.resolution  # ** overflows
    if min(chosen) <= 0 or not 1.8 <= growth <= 2.2:
        raise ValueError(
            f"factors must about double the FLOPs, depth * width^2 * resolution^2 from 1.8 to 2.2; got {growth:.3g}"
        )
    return chosen


def _grid() -> Iterator[Factors]:
    """All ways to share out doubled FLOPs in steps, width first: of equal scores it is the cheapest to run."""
    for depth in range(SHARE_STEPS + 1):
        for resolution in range(SHARE_STEPS + 1 - depth):
            width = SHARE_STEPS - depth - resolution
            yield Factors.of_shares(depth / SHARE_STEPS, width / SHARE_STEPS, resolution / SHARE_STEPS)


def _architecture_of(network: object) -> Architecture:
    architecture = architecture_of(network)
    if architecture is None:
        raise ArchitectureError(f"only architectures can be scaled, and what has one; got {type(network).__name__}")
    return architecture


def _scaled(architecture: Architecture, phi: float, factors: Factors, width_step: int) -> ScaledNetwork:
    if phi == 0:
        return ScaledNetwork(architecture, phi, factors, complexity(architecture))
    channels, height, width = architecture.input_size
    longer = factors.resolution**phi
    sides = (max(1, round(height * longer)), max(1, round(width * longer)))
    blocks = _deeper(architecture.blocks, factors.depth**phi)

    def make(widths: Mapping[int, int]) -> Architecture:
        return Architecture(_with_widths(blocks, widths), (channels, *sides), architecture.num_classes)

    widths = _widths(blocks)
    target = 2**phi * complexity(architecture).flops
    try:
        complexity(make(_rounded(widths, 1.0, width_step, False)))
    except ArchitectureError as error:
        if sides == (height, width):
            raise
        raise ArchitectureError(
            f"phi={phi:g} gives images of {sides[0]}x{sides[1]}, which these blocks do not take: {error}; give another "
            "phi, or factors that leave the resolution alone"
        ) from None
    found, costs = _nearest(make, widths, width_step, target)
    off = costs.flops / target - 1
    if abs(off) > TOLERANCE:
        raise ArchitectureError(
            f"phi={phi:g} asks for {target:,.0f} FLOPs; with {sum(block.sub_layers for block in blocks)} layers at "
            f"{sides[0]}x{sides[1]} and widths in steps of {width_step} the nearest network has {costs.flops:,} "
            f"({off:+.0%}); give another phi or other factors{', or width_step=1' if width_step > 1 else ''}"
        )
    return ScaledNetwork(found, phi, factors, costs)


def _deeper(blocks: tuple[BlockSpec, ...], ratio: float) -> list[BlockSpec]:
    """Blocks with the number of layers times a ratio in all, rounded, where most are missing."""
    fields = [_depth_field(blocks, place) for place in range(len(blocks))]
    depths = {place: int(getattr(blocks[place], field)) for place, field in enumerate(fields) if field}
    total = round(ratio * sum(depths.values()))
    if total < len(depths):
        raise ArchitectureError(
            f"{len(depths)} blocks need a layer each, and the depth times {ratio:.3g} leaves {total}; give a phi "
            "nearer to 0, or factors that leave depth alone"
        )
    deeper = {place: max(1, math.floor(ratio * depth)) for place, depth in depths.items()}
    while (missing := total - sum(deeper.values())) != 0:
        change = 1 if missing > 0 else -1
        able = [place for place in deeper if deeper[place] + change >= 1]
        place = max(able, key=lambda place: change * (ratio * depths[place] - deeper[place]))
        deeper[place] += change
    values: dict[int, Any] = deeper
    return [
        block if field is None else replace(block, **{field: values[place]})
        for place, (block, field) in enumerate(zip(blocks, fields, strict=True))
    ]


def _depth_field(blocks: Sequence[BlockSpec], place: int) -> str | None:
    """The field of a block that makes it deeper; None where it stays as deep as it is."""
    block = blocks[place]
    at_an_end = place in (0, len(blocks) - 1)
    is_plain = not any(isinstance(op, Residual | Graph) for op in block.following())
    return None if at_an_end and is_plain else block.depth_field


def wider(blocks: Sequence[BlockSpec], multiplier: float, step: int) -> tuple[BlockSpec, ...]:
    """Blocks with all widths times a number, rounded."""
    return _with_widths(blocks, _rounded(_widths(blocks), multiplier, step, spread=False))


def _width_fields(block: BlockSpec) -> list[str]:
    return [name for name in block.field_kinds if name.endswith("_channels")]


def _widths(blocks: Sequence[BlockSpec]) -> list[int]:
    """The widths of blocks, each once: equal ones stay equal."""
    return sorted({getattr(block, name) for block in blocks for name in _width_fields(block)})


def _with_widths(blocks: Sequence[BlockSpec], widths: Mapping[int, int]) -> tuple[BlockSpec, ...]:
    """Blocks with other widths for theirs."""
    values: Mapping[int, Any] = widths
    return tuple(
        replace(block, **{name: values[getattr(block, name)] for name in _width_fields(block)}) for block in blocks
    )


def _rounded(widths: Sequence[int], multiplier: float, step: int, spread: bool) -> dict[int, int]:
    """All widths times a number, rounded; with ``spread`` unlike widths are rounded at unlike places."""
    shifts = {width: (place + 0.5) / len(widths) if spread else 0.5 for place, width in enumerate(widths)}
    return {width: step * max(1, math.floor(width * multiplier / step + shift)) for width, shift in shifts.items()}


class _Try(NamedTuple):
    """What widths came to: how far the FLOPs are off, and by which number and as what the widths were made."""

    off: float
    multiplier: float
    widths: Mapping[int, int]
    network: Architecture
    costs: Costs


def _nearest(
    make: Callable[[Mapping[int, int]], Architecture], widths: Sequence[int], step: int, target: float
) -> tuple[Architecture, Costs]:
    """The network whose FLOPs are nearest to a number, over multipliers on its widths.

    Where none is near enough, single widths go a step up or down as long as that brings the FLOPs nearer.
    """
    found: list[_Try] = []

    def attempt(multiplier: float, rounded: Mapping[int, int]) -> None:
        try:
            network = make(rounded)
            costs = complexity(network)
        except ArchitectureError:  # cells with dead branches take some widths alone; they take those they have
            return
        found.append(_Try(abs(costs.flops / target - 1), multiplier, rounded, network, costs))

    def best() -> _Try:
        return min(found, key=attrgetter("off", "multiplier"))

    attempt(1.0, _rounded(widths, 1.0, step, False))
    for _ in range(_GUESSES):  # FLOPs grow by about the square of the widths
        guess = best().multiplier * math.sqrt(target / best().costs.flops)
        attempt(guess, _rounded(widths, guess, step, False))
    around = best().multiplier
    for spread in (False, True):
        for number in range(-_STEPS, _STEPS + 1):
            multiplier = around * _STEP**number
            attempt(multiplier, _rounded(widths, multiplier, step, spread))
        if best().off <= TOLERANCE:
            break
    last = math.inf
    while TOLERANCE < best().off < last:
        start, last = best(), best().off
        for width, change in product(widths, (-step, step)):
            if start.widths[width] + change >= step:
                attempt(start.multiplier, {**start.widths, width: start.widths[width] + change})
    return best().network, best().costs
