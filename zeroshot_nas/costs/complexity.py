"""Parameters, FLOPs, layers and activations of an architecture, in closed form from its operations. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.ops import Resolution
from zeroshot_nas.core.html import html_table, number
from zeroshot_nas.costs.base import COSTS, STANDARD, summed_costs
from zeroshot_nas.errors import ArchitectureError, did_you_mean

MAX_PARAMS = 2_000_000_000
"""Parameters beyond which a network is not built: 8 GB of weights in single precision."""

MAX_ACTIVATIONS = 1_000_000_000
"""Activations an image beyond which a network is not built: 4 GB an image in single precision."""


_new = object.__new__  # `complexity` fills in the attributes: in a search the constructor would be a third of its time


@dataclass(frozen=True, init=False, repr=False)
class Costs:
    """What one network costs, for one image.

    Further costs that are registered are attributes too: ``costs.peak_memory`` or ``costs["peak_memory"]``. Those that
    read the whole architecture are worked out when they are first asked for.

    Attributes:
        params: Trainable values: weights, biases, two a batch-norm channel.
        flops: FLOPs (multiply-adds) of convolutions and linear layers, as NAS papers and fvcore count them: one
            multiply-add is one FLOP. Normalisation, activation and pooling are not counted.
        layers: Depth as Zen-NAS counts it, the sum of the blocks' sub-layers; None for a module that is not ours.
        activations: Values that convolutions and linear layers put out (Radosavovic et al., arXiv:2003.13678), a better
            predictor of run time than FLOPs.
        latency_ms: Milliseconds of a batch on the device of a `zeroshot_nas.latency.device_table.DeviceTable`, as it
            predicts; None where no table was asked.
        further: The other registered costs, by name.

    Raises:
        TypeError: A further cost is no number.

    Example:
        >>> Costs(params=10, flops=20, layers=1, activations=5, weights=40)["weights"]
        40
    """

    params: int
    flops: int
    layers: int | None
    activations: int
    latency_ms: float | None
    further: Mapping[str, float] = field(hash=False)

    def __init__(
        self,
        params: int,
        flops: int,
        layers: int | None,
        activations: int,
        latency_ms: float | None = None,
        further: Mapping[str, float] | None = None,
        **more: float,
    ) -> None:
        more = {**(further or {}), **more}
        for name, value in more.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Costs.{name} must be a number, got {value!r}")
        own = {"params": params, "flops": flops, "layers": layers, "activations": activations}
        self.__dict__.update(more, **own, latency_ms=latency_ms)

    if not TYPE_CHECKING:  # so that a type checker still knows a misspelt attribute

        def __getattr__(self, name: str) -> Any:
            if name == "further":
                return {other: self[other] for other in self._further_names()}
            if name.startswith("_") or name not in COSTS:
                raise AttributeError(f"there is no cost {name!r}.{did_you_mean(name, COSTS)}")
            return self[name]

    def __getitem__(self, name: str) -> float | None:
        """A cost by its name; None where it is not known of this network.

        Raises:
            UnknownNameError: No cost has that name.
        """
        values = self.__dict__
        if name not in values or name.startswith("_"):
            info, architecture = COSTS[name], values.get("_architecture")
            if info.per != "architecture" or info.count is None or architecture is None:
                return None
            values[name] = info.count(architecture)
        value: float | None = values[name]
        return value

    def with_latency(self, latency_ms: float) -> Costs:
        """The costs with a latency; in a tenth of the time that ``dataclasses.replace`` takes."""
        costs = type(self).__new__(type(self))
        costs.__dict__.update(self.__dict__, latency_ms=latency_ms)
        return costs

    def to_dict(self, complete: bool = True) -> dict[str, Any]:
        """JSON-ready; latency is there where it is known.

        Args:
            complete: Whether costs that nobody asked for so far are worked out, too.
        """
        values = {name: getattr(self, name) for name in STANDARD if name != "latency_ms" or self.latency_ms is not None}
        known = {name: self.__dict__[name] for name in sorted(self.__dict__) if self._is_further(name)}
        return {**values, **(self.further if complete else known)}

    def __repr__(self) -> str:
        return f"Costs({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        known = {name: value for name, value in self.to_dict().items() if value is not None}
        rows = [(COSTS[name].label if name in COSTS else name, number(value)) for name, value in known.items()]
        return html_table("Costs of one image", rows)

    @staticmethod
    def _is_further(name: str) -> bool:
        return name not in STANDARD and not name.startswith("_")

    def _further_names(self) -> list[str]:
        """Names of what is known besides the standard costs, and of what can be worked out."""
        known = set(filter(self._is_further, self.__dict__))
        if "_architecture" in self.__dict__:
            known |= {name for name in COSTS if name not in STANDARD and COSTS[name].per == "architecture"}
        return sorted(known)


def complexity(architecture: Architecture) -> Costs:
    """Costs of an architecture as the sum over its blocks and its head.

    Example:
        >>> complexity(Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", input_size=(3, 4, 4)))
        Costs(params=322, flops=3536, layers=1, activations=138, peak_memory=2672, weights=671)
    """
    summed = summed_costs()
    block_sums = summed.block_sums
    channels, *sides = architecture.input_size
    resolution: Resolution = (sides[0], sides[1])
    rows = []
    for block in architecture.blocks:
        row, resolution = block_sums(block, channels, resolution)
        rows.append(row)
        channels = block.out_channels
    rows.append(summed.head_row(channels, resolution, architecture.num_classes))
    return costs_of_sums(zip(summed.names, map(sum, zip(*rows))), architecture)  # noqa: B905  checking takes time here


def costs_of_sums(sums: Iterable[tuple[str, float]], architecture: Architecture) -> Costs:
    """Costs whose sums over operations are known, by name."""
    costs = _new(Costs)
    values = costs.__dict__
    values.update(sums)
    values["layers"], values["latency_ms"], values["_architecture"] = architecture.layers, None, architecture
    return costs


def check_buildable(architecture: Architecture) -> None:
    """Refuses an architecture whose weights or feature maps would not fit in memory, before any is touched.

    Raises:
        ArchitectureError: Parameters or activations are over `MAX_PARAMS` or `MAX_ACTIVATIONS`.
    """
    costs = complexity(architecture)
    for name, value, limit in (
        ("params", costs.params, MAX_PARAMS),
        ("activations an image", costs.activations, MAX_ACTIVATIONS),
    ):
        if value > limit:
            raise ArchitectureError(
                f"the network has {value:,} {name}; more than {limit:,} are not built. "
                "Use fewer channels or a smaller input"
            )
