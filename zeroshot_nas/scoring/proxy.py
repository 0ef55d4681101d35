"""What a proxy is: a function of a network and a batch, with facts stated at its registration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from torch import Tensor, nn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.ranking import Aggregation
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError, did_you_mean
from zeroshot_nas.network.module import Init
from zeroshot_nas.scoring.passes import READS

Direction: TypeAlias = Literal["higher", "lower"]

CostClass: TypeAlias = Literal["graph", "weights", "forward", "backward", "many"]
"""What a proxy costs: reading the ``graph`` or the ``weights`` alone, one or two ``forward`` passes, one or two
``backward`` passes, or ``many`` of either."""


class Batch(NamedTuple):
    """The arrays that a proxy reads.

    Attributes:
        inputs: Images ``(N, C, H, W)``, Gaussian unless given.
        targets: Labels ``(N,)``, int64; None where a proxy needs none.
        perturbation: Noise of the shape of ``inputs``, for proxies that compare two nearby inputs.
        further: More batches, for proxies that compare gradients of several.
        output_noise: Signs of the shapes of the feature maps, for proxies that estimate a Jacobian.
        seed: Where a proxy draws further noise from.
    """

    inputs: Tensor
    targets: Tensor | None = None
    perturbation: Tensor | None = None
    further: tuple[Batch, ...] = ()
    output_noise: tuple[Tensor, ...] = ()
    seed: int = 0


class ProxyFunction(Protocol):
    """``(network, batch, /, **options) -> float``; options are keyword-only."""

    def __call__(self, network: nn.Module, batch: Batch, /) -> float: ...


class ClosedForm(Protocol):
    """``(architecture, **options) -> float``; options are keyword-only."""

    def __call__(self, architecture: Architecture, /) -> float: ...


class ClosedFormPool(Protocol):
    """``(architectures, **options) -> values``: a closed form of many architectures side by side, in their order.

    A value is the very number that the closed form gives alone; where that raises, the error stands in its place.
    """

    def __call__(self, architectures: Sequence[Architecture], /) -> Sequence[float | ZeroShotNASError]: ...


class ArchitectureForm(Protocol):
    """``(architecture, batch, weights, **options) -> float``: a proxy on given Gaussian weights, nothing built."""

    def __call__(self, architecture: Architecture, batch: Batch, weights: Tensor, /) -> float: ...


@dataclass(frozen=True)
class ProxyInfo:
    """A proxy and the facts that a caller needs.

    Attributes:
        name: Registered name.
        function: The proxy itself; None where there is only a closed form.
        closed_form: A function ``(architecture, **options) -> float`` that ranks as the proxy does, without building
            anything; a search screens by it.
        closed_form_pool: The closed form of many architectures at once, where that is faster; bit-identical to one by
            one.
        exact: Whether the closed form is the very number that the function gives, and stands in for it.
        of_architecture: A faster way to the same score for architectures of ours: ``(architecture, batch, weights,
            **options) -> float`` with weights from N(0, 1).
        parts: Names of the proxies that an aggregate over a pool joins; it has no value for one network.
        aggregation: How it joins them; see `zeroshot_nas.core.ranking.rank_aggregate`.
        direction: Whether ``"higher"`` or ``"lower"`` values promise better networks.
        source: Where the formula is from, with its arXiv number.
        init: Initialisation that the formula asks for.
        keeps_residual_links: False where our own networks are scored without shortcuts, as Zen-NAS does.
        needs_batch_norm: Whether a module without batch norm has no such score.
        needs_gradients: Whether the proxy differentiates.
        needs_labels: Whether it reads labels; seeded random ones stand in where none are given.
        real_data: Whether the source computes it on real images, for which Gaussian ones stand in here.
        batch_size: Inputs a repeat unless the caller says otherwise.
        batches: How many batches it compares; all but the first are in ``Batch.further``.
        cost: What it costs; see `CostClass`.
        reads: What it reads of `zeroshot_nas.scoring.passes.passes`, of its `READS`; naming it saves time.
        grows_with_depth: Whether a deeper network always scores better, so that a search needs a limit on depth.
    """

    name: str
    function: ProxyFunction | None = None
    closed_form: ClosedForm | None = None
    closed_form_pool: ClosedFormPool | None = None
    exact: bool = False
    of_architecture: ArchitectureForm | None = None
    parts: tuple[str, ...] = ()
    aggregation: Aggregation = "log_rank"
    direction: Direction = "higher"
    source: str = ""
    init: Init = "kaiming"
    keeps_residual_links: bool = True
    needs_batch_norm: bool = False
    needs_gradients: bool = False
    needs_labels: bool = False
    real_data: bool = False
    batch_size: int = 16
    batches: int = 1
    cost: CostClass = "forward"
    reads: frozenset[str] = READS
    grows_with_depth: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the function's keyword-only options."""
        if self.parts:
            return ()
        function = self.function or self.closed_form
        assert function is not None, f"{self.name} has neither a function nor a closed form"
        parameters = inspect.signature(function).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Proxy:
    """A registered proxy with its options set.

    Example:
        >>> get_proxy("zen:variant=zennas").key
        'zen:variant=zennas'
    """

    info: ProxyInfo
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option in self.options:
            if option not in self.info.options:
                known = ", ".join(self.info.options) or "none"
                hint = did_you_mean(option, self.info.options)
                raise ProxyError(f"proxy {self.info.name!r} has no option {option!r}.{hint} Options: {known}")

    @property
    def key(self) -> str:
        """Name and options; what a score is filed under."""
        return ":".join([self.info.name, *(f"{name}={value}" for name, value in sorted(self.options.items()))])

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.info.direction == "higher" else -1

    def __call__(self, network: nn.Module, batch: Batch, /) -> float:
        if self.info.parts:
            raise pool_only(self.info)
        if self.info.function is None:
            raise ProxyError(f"{self.info.name} is a closed form: it reads an Architecture, not a module")
        return self.info.function(network, batch, **self.options)

    def closed_form(self, architecture: Architecture) -> float:
        """The closed form's value.

        Raises:
            ProxyError: The proxy has none.
        """
        return self.bound_closed_form()(architecture)

    def closed_forms(self, architectures: Sequence[Architecture]) -> list[float | ZeroShotNASError]:
        """The closed form's values of many architectures; the error where one has none.

        Raises:
            ProxyError: The proxy has no closed form.
        """
        alone = self.bound_closed_form()
        if self.info.closed_form_pool is not None:
            return list(self.info.closed_form_pool(architectures, **self.options))
        return [_value_or_error(alone, architecture) for architecture in architectures]

    def bound_closed_form(self) -> Callable[[Architecture], float]:
        """The closed form with its options set, and nothing else of the proxy: what a worker needs.

        Raises:
            ProxyError: The proxy has none.
        """
        if self.info.parts:
            raise pool_only(self.info)
        if self.info.closed_form is None:
            raise ProxyError(f"{self.info.name} has no closed form")
        return partial(self.info.closed_form, **self.options) if self.options else self.info.closed_form


PROXIES: Registry[ProxyInfo] = Registry("proxy", package="zeroshot_nas.proxies")

_Function = TypeVar("_Function", bound=ProxyFunction)


def register_proxy(
    name: str,
    *,
    source: str,
    direction: Direction = "higher",
    init: Init = "kaiming",
    keeps_residual_links: bool = True,
    needs_batch_norm: bool = False,
    needs_gradients: bool = False,
    needs_labels: bool = False,
    real_data: bool = False,
    batch_size: int = 16,
    batches: int = 1,
    cost: CostClass = "forward",
    reads: Iterable[str] = READS,
    grows_with_depth: bool = False,
    closed_form: ClosedForm | None = None,
    closed_form_pool: ClosedFormPool | None = None,
    exact: bool = False,
    of_architecture: ArchitectureForm | None = None,
) -> Callable[[_Function], _Function]:
    """Registers a proxy function under a name; the arguments are `ProxyInfo`'s.

    Example:
        >>> from zeroshot_nas.scoring.proxy import PROXIES
        >>> PROXIES["zen"].source
        'arXiv:2102.01063'
    """

    def register(function: _Function) -> _Function:
        PROXIES.add(
            name,
            ProxyInfo(
                name=name,
                function=function,
                closed_form=closed_form,
                closed_form_pool=closed_form_pool,
                exact=exact,
                of_architecture=of_architecture,
                direction=direction,
                source=source,
                init=init,
                keeps_residual_links=keeps_residual_links,
                needs_batch_norm=needs_batch_norm,
                needs_gradients=needs_gradients,
                needs_labels=needs_labels,
                real_data=real_data,
                batch_size=batch_size,
                batches=batches,
                cost=cost,
                reads=_checked_reads(reads),
                grows_with_depth=grows_with_depth,
            ),
        )
        return function

    return register


def register_closed_form(
    name: str, function: ClosedForm, *, source: str, direction: Direction = "higher", grows_with_depth: bool = False
) -> None:
    """Registers a proxy that is a function of the architecture alone: no weights, no images, no noise."""
    PROXIES.add(
        name,
        ProxyInfo(
            name,
            closed_form=function,
            direction=direction,
            source=source,
            cost="graph",
            grows_with_depth=grows_with_depth,
        ),
    )


def register_aggregate(name: str, parts: Sequence[str], aggregation: Aggregation, *, source: str) -> None:
    """Registers an aggregate: a function of a pool of networks that joins the ranks of several proxies.

    ``zeroshot_nas.score_pool`` computes it. Higher is better, whatever the directions of the parts.
    """
    PROXIES.add(name, ProxyInfo(name, parts=tuple(parts), aggregation=aggregation, source=source, cost="many"))


def get_proxy(proxy: str | Proxy | ProxyFunction, **options: Any) -> Proxy:
    """A proxy by name, by name with options, or from a function of one's own.

    Args:
        proxy: ``"zen"``, ``"zen:variant=zennas"``, a `Proxy`, or any function ``(network, batch) -> float`` (higher is
            better, Kaiming weights, no gradients; register it to say otherwise).
        options: The proxy's keyword-only options.

    Raises:
        UnknownNameError: No proxy has that name.
        ProxyError: The proxy has no such option.
    """
    if isinstance(proxy, Proxy):
        return Proxy(proxy.info, {**proxy.options, **options})
    if isinstance(proxy, str):
        name, *settings = proxy.split(":")
        parsed = {}
        for setting in settings:
            option, equals, value = setting.partition("=")
            if not equals:
                raise ProxyError(f"expected option=value after {name!r}, got {setting!r}")
            parsed[option] = _number_or_text(value)
        return Proxy(PROXIES[name], {**parsed, **options})
    if not callable(proxy):
        raise ProxyError(f"a proxy is a name or a function (network, batch) -> float, got {type(proxy).__name__}")
    return Proxy(ProxyInfo(getattr(proxy, "__name__", type(proxy).__name__), proxy), options)


def checked_log(value: float, what: str) -> float:
    """The logarithm, or the reason why a score has none.

    Raises:
        UndefinedScoreError: The value is not finite, or not positive.
    """
    if not math.isfinite(value):
        raise UndefinedScoreError(f"{what} is not finite ({value})")
    if value <= 0:
        raise UndefinedScoreError(f"{what} is zero: the network is dead")
    return math.log(value)


def list_proxies() -> list[str]:
    """Names of the registered proxies.

    Example:
        >>> "zen" in list_proxies()
        True
    """
    return list(PROXIES)


def _checked_reads(reads: Iterable[str]) -> frozenset[str]:
    unknown = set(reads) - READS
    if unknown:
        raise ProxyError(f"a proxy reads {', '.join(sorted(READS))}; got {', '.join(sorted(unknown))}")
    return frozenset(reads)


def pool_only(info: ProxyInfo) -> ProxyError:
    """What to raise where an aggregate is asked for one network's value."""
    return ProxyError(
        f"{info.name} joins the ranks of {', '.join(info.parts)} in a pool of networks, and has no value for one: "
        f"use score_pool(networks, {info.name!r}), or score the parts"
    )


def _value_or_error(
    closed_form: Callable[[Architecture], float], architecture: Architecture
) -> float | ZeroShotNASError:
    try:
        return closed_form(architecture)
    except ZeroShotNASError as error:
        return error


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
