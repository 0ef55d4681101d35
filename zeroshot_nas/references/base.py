"""The registry of hand-made networks, and how one is widened to fill a budget. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BlockSpec
from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.core.checks import as_shape
from zeroshot_nas.core.options import checked_option, option_types, parsed_option
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import Costs, complexity
from zeroshot_nas.errors import ArchitectureError, BudgetError, InfeasibleBudgetError, did_you_mean

PREFIX = "reference:"
"""What stands before a reference's name where other architectures are text too."""

NARROWEST, WIDEST, PRECISION = 0.02, 64.0, 1.002
"""Multipliers that are tried, and the ratio of one to the next."""

Scaled: TypeAlias = Callable[[float], int]
"""A published width times the multiplier, as a whole number of channels."""


class Family(Protocol):
    """``(scaled, input_size, **options) -> blocks``; options are keyword-only, with defaults as published."""

    def __call__(self, scaled: Scaled, input_size: Shape, /) -> Sequence[BlockSpec]: ...


@dataclass(frozen=True)
class Reference:
    """A family of hand-made networks.

    Attributes:
        name: Registered name.
        function: Makes the blocks of one of its networks.
        source: Where it is published.
        tried: Whether trials of a search set it beside what was found.
    """

    name: str
    function: Family
    source: str
    tried: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """Names and types of the family's own options."""
        return option_types(self.function)


REFERENCES: Registry[Reference] = Registry("reference", package="zeroshot_nas.references")

_Family = TypeVar("_Family", bound=Family)


def register_reference(name: str, *, source: str, tried: bool = True) -> Callable[[_Family], _Family]:
    """Registers a family of hand-made networks, also from another file or distribution.

    Example:
        >>> @register_reference("plain", source="this page")  # doctest: +SKIP
        ... def plain(scaled, input_size, /):
        ...     return [BLOCKS["SuperConvK3BNRELU"](out_channels=scaled(16), stride=2)]
    """

    def register(function: _Family) -> _Family:
        REFERENCES.add(name, Reference(name, function, source, tried))
        return function

    return register


def list_references() -> list[str]:
    """Names of the hand-made networks that `reference` makes.

    Example:
        >>> "resnet8" in list_references()
        True
    """
    return list(REFERENCES)


def whole_width(channels: float, step: int = 1) -> int:
    """The nearest multiple of ``step``, 4 or more.

    Example:
        >>> whole_width(10.4), whole_width(0.3), whole_width(10.4, 3)
        (10, 4, 9)
    """
    return max(math.ceil(4 / step) * step, round(channels / step) * step)


def reference(
    name: str,
    budget: Budget | None = None,
    input_size: Sequence[int] = (3, 32, 32),
    num_classes: int = 10,
    *,
    costs: Callable[[Architecture], Costs] = complexity,
    **options: Any,
) -> Architecture:
    """A hand-made network, with one multiplier on all of its widths: the largest that fits a budget.

    Depth, strides and kernels stay what they are. Where no limit of the budget depends on the widths, such as one on
    layers alone, they are the published ones.

    Args:
        name: See `list_references`; with or without its underscores, and options may follow it, as in
            ``"resnet8:strides=222:kernel=5"``.
        budget: What the network may cost; None gives the published widths.
        input_size: Shape ``(C, H, W)`` of one image.
        num_classes: Outputs of the classifier.
        costs: Counts the costs; for a limit on latency, one that predicts it.
        options: The family's own options.

    Raises:
        UnknownNameError: No reference has that name.
        ArchitectureError: The input size is not usable, or there is no such option or value.
        BudgetError: The budget limits latency, and ``costs`` has none.
        InfeasibleBudgetError: Even the narrowest network, of 4 channels, does not fit.

    Example:
        >>> from zeroshot_nas.costs.cost import cost
        >>> [block.out_channels for block in reference("resnet8").blocks]
        [16, 16, 32, 64]
        >>> network = reference("resnet8", Budget(params=100e3, flops=4e6), strides="222")
        >>> [block.out_channels for block in network.blocks], cost(network).params
        ([17, 17, 34, 69], 89897)
    """
    name, *settings = name.split(":")
    family, shape = _family(name), as_shape(input_size, ArchitectureError)
    given = {**_parsed(family, settings), **options}
    chosen = {option: _checked(family, option, value) for option, value in given.items()}

    def make(multiplier: float) -> Architecture:
        blocks = family.function(lambda channels: whole_width(channels * multiplier), shape, **chosen)
        return Architecture(tuple(blocks), shape, num_classes)

    if budget is None:
        return make(1.0)
    if budget.latency_ms is not None and costs is complexity:
        raise BudgetError("a limit on latency needs costs= that predict it; leave it out, or give a function")
    network = widest(make, budget, costs)
    if network is None:
        narrow = make(NARROWEST)
        over = "; ".join(map(str, budget.violations(costs(narrow), narrow)))
        raise InfeasibleBudgetError(f"no {name} fits the budget: the narrowest has {over or 'a misfit shape'}")
    return network


def _family(name: str) -> Reference:
    """A family by its name; ``mobilenetv2`` and ``MobileNet-V2`` are ``mobilenet_v2``."""
    if name in REFERENCES:
        return REFERENCES[name]
    plain = _letters(name)
    return REFERENCES[next((known for known in REFERENCES if _letters(known) == plain), name)]


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def widest(
    make: Callable[[float], Architecture], budget: Budget, costs: Callable[[Architecture], Costs] = complexity
) -> Architecture | None:
    """The network of the largest multiplier that fits; None where none does.

    Args:
        make: The network whose widths are multiplied by a number.
        budget: What it may cost.
        costs: Counts the costs.
    """

    def fits(multiplier: float) -> bool:
        return not budget.violations(costs(make(multiplier)))  # costs grow with the widths, bounds on structure may not

    def limited(multiplier: float) -> list[float]:
        return [getattr(costs(make(multiplier)), name) for name in budget.limits()]

    low, high = NARROWEST, WIDEST
    if not fits(low):
        return None
    if limited(low) == limited(high):
        low = 1.0
    else:
        while high / low > PRECISION:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if fits(middle) else (low, middle)
        # rounded widths are not quite monotone in the multiplier: a little above there may be a wider one that fits
        wider = (low * PRECISION**step for step in range(20, 0, -1))
        low = next(filter(fits, wider), low)
    network = make(low)
    while budget.violations(costs(network), network):
        low /= PRECISION
        if low < NARROWEST:
            return None
        network = make(low)
    return network


def read_reference(text: str, input_size: Sequence[int] = (3, 32, 32), num_classes: int = 10) -> Architecture:
    """The network that a text stands for: ``reference:NAME``, then options and limits of a budget.

    Raises:
        ArchitectureError: A setting is not ``name=value``, or see `reference`.

    Example:
        >>> read_reference("reference:resnet8:strides=222:params=100k:flops=4M").blocks[-1].out_channels
        69
    """
    name, *settings = text.strip().removeprefix(PREFIX).split(":")
    limits: dict[str, float] = {}
    options: list[str] = []
    for setting in settings:
        option, _, value = setting.partition("=")
        if option not in COSTS:
            options.append(setting)
            continue
        try:
            limits[option] = COSTS[option].parse(value)
        except ValueError as error:
            raise ArchitectureError(f"{option} of {text!r} must be {error}; got {value!r}") from None
    budget = Budget(further=limits) if limits else None
    return reference(":".join([name, *options]), budget, input_size, num_classes)


def reference_table() -> list[tuple[str, ...]]:
    """The hand-made networks at their published widths, for 32 x 32 images; a row of names before.

    Example:
        >>> reference_table()[0]
        ('reference', 'params', 'flops', 'options', 'source')
    """
    rows = []
    for name in list_references():
        costs = complexity(reference(name))
        family = REFERENCES[name]
        rows.append((name, f"{costs.params:,}", f"{costs.flops:,}", ", ".join(family.options), family.source))
    return [("reference", "params", "flops", "options", "source"), *rows]


def _parsed(family: Reference, settings: Sequence[str]) -> dict[str, Any]:
    """Options from ``name=value``."""
    parsed = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        if not equals:
            raise ArchitectureError(f"expected option=value after {family.name!r}, got {setting!r}")
        parsed[option] = parsed_option(value, family.options.get(option, Any))
    return parsed


def _checked(family: Reference, option: str, value: Any) -> Any:
    if option not in family.options:
        known = ", ".join(family.options) or "none"
        raise ArchitectureError(
            f"the reference {family.name!r} has no option {option!r}.{did_you_mean(option, family.options)} "
            f"Options: {known}"
        )
    try:
        return checked_option(f"{option} of {family.name!r}", value, family.options[option])
    except ValueError as error:
        raise ArchitectureError(str(error)) from None
