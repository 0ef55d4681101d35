"""What a proxy is: a function of a network and a batch, with facts stated at its registration."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.closed_form.block_sum import BlockSum
from zeroshot_nas.core.options import checked_option, option_types, parsed_option
from zeroshot_nas.core.ranking import Aggregation
from zeroshot_nas.core.registry import Registry
from zeroshot_nas.core.score import value_or_error
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError, did_you_mean
from zeroshot_nas.network.init import Init

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zeroshot_nas.costs.budget import Budget
    from zeroshot_nas.scoring.passes import Passes, SharedPasses
    from zeroshot_nas.spaces.base import SearchSpace

DEFAULT_PROXY = "cet"
"""What `score` computes unless told otherwise: a score for networks of any size."""

DEFAULT_SEARCH_PROXY = "ceres:images=10000:steps=1250"
"""What `search` ranks by unless told otherwise: a score for networks that fill the same budget, for a short training.

Winners for a short training are those that train best after three times as many steps, too (``docs/ceres.md``)."""

Direction: TypeAlias = Literal["higher", "lower"]

CostClass: TypeAlias = Literal["graph", "weights", "forward", "backward", "many"]
"""What a proxy costs: reading the ``graph`` or the ``weights`` alone, one or two ``forward`` passes, one or two
``backward`` passes, or ``many`` of either."""

READS = frozenset({"relus", "layers", "modules", "features", "outputs", "weight_gradients", "parameter_gradients"})
"""What of a network's passes a proxy may read; what none of a call's proxies reads is not kept, which saves time."""


class Batch(NamedTuple):
    """The arrays that a proxy reads.

    Attributes:
        inputs: Images ``(N, C, H, W)``, Gaussian unless given.
        targets: Labels ``(N,)``, int64; None where a proxy needs none.
        perturbation: Noise of the shape of ``inputs``, for proxies that compare two nearby inputs.
        further: More batches, for proxies that compare gradients of several.
        output_noise: Signs of the shapes of the feature maps, for proxies that estimate a Jacobian.
        seed: Where a proxy draws further noise from.
        shared: Passes that the proxies of one call of ``score`` share.
    """

    inputs: Tensor
    targets: Tensor | None = None
    perturbation: Tensor | None = None
    further: tuple[Batch, ...] = ()
    output_noise: tuple[Tensor, ...] = ()
    seed: int = 0
    shared: SharedPasses | None = None

    def passes(self, network: nn.Module) -> Passes:
        """The passes of a network on these inputs and targets, within one call of ``score`` the same for all proxies.

        Passes of a batch of one's own are its own; they can go backward where gradients are enabled.

        Example:
            >>> import torch
            >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
            >>> [tuple(each.shape) for each in Batch(torch.zeros(2, 3, 8, 8)).passes(network).forward.relus]
            [(2, 4, 6, 6)]
        """
        if self.shared is not None:
            return self.shared.of(network, self.inputs, self.targets)
        import torch

        from zeroshot_nas.scoring.passes import Passes  # here: what only names proxies loads no torch

        return Passes(network, self.inputs, self.targets, torch.is_grad_enabled(), READS)


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
        block_sum: The closed form as a sum over blocks, where it is one; ``exact`` searches by it.
        upper_bound: A function ``(space, budget, **options) -> float | None``: what the closed form of no network of
            the space within the budget exceeds, quickly worked out; None where nothing is proved of that space.
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
        reads: What it reads of `Batch.passes`, of `READS`; naming it saves time.
        grows_with_depth: Whether a deeper network always scores better, so that a search needs a limit on depth.
        knows_bits: Whether the closed form reads `Architecture.weight_bits`, so that a search may choose them.
        never_negative: Whether no value is below 0, so that a `zeroshot_nas.Reward` may multiply it.
    """

    name: str
    function: ProxyFunction | None = None
    closed_form: ClosedForm | None = None
    closed_form_pool: ClosedFormPool | None = None
    block_sum: BlockSum | None = None
    upper_bound: Callable[..., float | None] | None = None
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
    reads: Collection[str] = READS
    grows_with_depth: bool = False
    never_negative: bool = False
    knows_bits: bool = False

    def __post_init__(self) -> None:
        choices = {"direction": Direction, "init": Init, "cost": CostClass, "aggregation": Aggregation}
        for fact, choice in choices.items():
            _checked(f"{self.name}'s {fact}", getattr(self, fact), choice)
        unknown = set(self.reads) - READS
        if unknown:
            raise ProxyError(f"a proxy reads {', '.join(sorted(READS))}; got {', '.join(sorted(unknown))}")
        object.__setattr__(self, "reads", frozenset(self.reads))

    @property
    def needs_weights(self) -> bool:
        """Whether the score of an architecture of ours draws weights; an aggregate's where a part's does.

        One that does not is read off the architecture: exact, the same for every seed, and computed side by side for
        many (`Proxy.closed_forms`).
        """
        if self.parts:
            return any(get_proxy(part).info.needs_weights for part in self.parts)
        return self.function is not None and not self.exact

    @property
    def options(self) -> dict[str, Any]:
        """The function's keyword-only options, and their types as it states them."""
        if self.parts:
            return {}
        function = self.function or self.closed_form
        assert function is not None, f"{self.name} has neither a function nor a closed form"
        return option_types(function)


@dataclass(frozen=True)
class Proxy:
    """A registered proxy with its options set.

    An option has the type with which the proxy's function annotates it: ``Literal``, ``bool``, ``int``, ``float``,
    ``str``, ``None`` or a union of them; other types are not checked.

    Raises:
        ProxyError: The proxy has no such option, or the value is not of its type.

    Example:
        >>> get_proxy("zen:variant=zennas").key
        'zen:variant=zennas'
        >>> get_proxy("meco:channels=4").options
        {'channels': 4}
    """

    info: ProxyInfo
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        types = self.info.options if self.options else {}
        for option in self.options:
            if option not in types:
                hint = did_you_mean(option, types)
                known = ", ".join(types) or "none"
                raise ProxyError(f"proxy {self.info.name!r} has no option {option!r}.{hint} Options: {known}")
        options = {
            option: _checked(f"{self.info.name}'s {option}", value, types[option])
            for option, value in self.options.items()
        }
        object.__setattr__(self, "options", options)

    @cached_property
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
        alone, pool = self.bound_closed_form(), self.bound_closed_form_pool()
        if pool is not None:
            return list(pool(architectures))
        return [value_or_error(alone, architecture) for architecture in architectures]

    def bound_closed_form_pool(self) -> ClosedFormPool | None:
        """The closed form of many with its options set; None where there is no way faster than one by one."""
        pool = self.info.closed_form_pool
        return None if pool is None else partial(pool, **self.options)

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

    def bound_block_sum(self) -> BlockSum:
        """The closed form as a sum over blocks, with its options set.

        Raises:
            ProxyError: It is none; the message names those that are.
        """
        found = self.block_sum_or_error()
        if isinstance(found, ProxyError):
            raise found
        return found

    def upper_bound(self, space: SearchSpace, budget: Budget) -> float | None:
        """What the closed form of no network of a space within a budget exceeds; None where nothing is proved."""
        bound = self.info.upper_bound
        return None if bound is None else bound(space, budget, **self.options)

    def block_sum_or_error(self) -> BlockSum | ProxyError:
        """`bound_block_sum`, or in its place the error that it raises."""
        if self.info.block_sum is not None:
            return replace(self.info.block_sum, options=self.options)
        sums = ", ".join(name for name in PROXIES if PROXIES[name].block_sum)
        return ProxyError(
            f"{self.info.name} is no sum over blocks, so its optimum can't be worked out; those that are: {sums}. "
            "Take one of them, or another strategy, as regularized_evolution"
        )


PROXIES: Registry[ProxyInfo] = Registry("proxy", package="zeroshot_nas.proxies")

_Function = TypeVar("_Function", bound=ProxyFunction)


def register_proxy(proxy: ProxyInfo | str, **facts: Any) -> Callable[[_Function], _Function]:
    """Registers the function below as a proxy.

    Args:
        proxy: The proxy's facts, without the function, or its name alone.
        facts: Facts by the names of `ProxyInfo`, for a proxy given by name.

    Raises:
        ProxyError: There is no such fact, one has a wrong value, or the source is missing.
        ValueError: The name is taken.

    Example:
        >>> from zeroshot_nas.scoring.proxy import PROXIES
        >>> PROXIES["zen"].source
        'arXiv:2102.01063'
    """
    info = _stated(proxy, facts)

    def register(function: _Function) -> _Function:
        PROXIES.add(info.name, replace(info, function=function))
        return function

    return register


def _stated(proxy: ProxyInfo | str, facts: Mapping[str, Any]) -> ProxyInfo:
    """The facts of a proxy that is about to be registered."""
    if not isinstance(proxy, ProxyInfo | str):
        raise ProxyError(f"a proxy is registered by a ProxyInfo or a name, got {type(proxy).__name__}")
    names = [each.name for each in fields(ProxyInfo) if each.name not in ("name", "function")]
    for fact in facts:
        if fact not in names:
            raise ProxyError(f"a proxy has no fact {fact!r}.{did_you_mean(fact, names)} Facts: {', '.join(names)}")
    info = ProxyInfo(proxy, **facts) if isinstance(proxy, str) else replace(proxy, **facts)
    if not info.source:
        raise ProxyError(f"proxy {info.name!r} must say where its formula is from: source='arXiv:...'")
    return info


def get_proxy(proxy: str | Proxy | ProxyFunction, **options: Any) -> Proxy:
    """A proxy by name, by name with options, or from a function of one's own.

    Args:
        proxy: ``"zen"``, ``"zen:variant=zennas"``, a `Proxy`, or any function ``(network, batch) -> float`` (higher is
            better, Kaiming weights, no gradients; register it to say otherwise).
        options: The proxy's keyword-only options.

    Raises:
        UnknownNameError: No proxy has that name.
        ProxyError: The proxy has no such option, or the option no such value (see `Proxy`).
    """
    if isinstance(proxy, Proxy):
        return Proxy(proxy.info, {**proxy.options, **options})
    if isinstance(proxy, str):
        name, *settings = proxy.split(":")
        info = PROXIES[name]
        types = info.options if settings else {}
        parsed = {}
        for setting in settings:
            option, equals, value = setting.partition("=")
            if not equals:
                raise ProxyError(f"expected option=value after {name!r}, got {setting!r}")
            parsed[option] = parsed_option(value, types.get(option, Any))
        return Proxy(info, {**parsed, **options})
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


def _checked(name: str, value: Any, annotation: Any) -> Any:
    try:
        return checked_option(name, value, annotation)
    except ValueError as error:
        raise ProxyError(str(error)) from None


def missing_fact(info: ProxyInfo, batch: Batch, error: Exception) -> str:
    """What a proxy's registration most likely lacks, given what it raised; empty where nothing shows."""
    text = str(error)
    if batch.targets is None and not info.needs_labels and ("NoneType" in text or "None" in text):
        return f"batch.targets is None: register {info.name} with needs_labels=True"
    if not info.needs_gradients and ("does not require grad" in text or "does not have a grad_fn" in text):
        return f"No gradients are kept: register {info.name} with needs_gradients=True"
    if "appears to not have been used in the graph" in text or "allow_unused" in text:
        return (
            f"The output does not depend on all of the weights that {info.name} differentiates for: torch.autograd.grad"
            " takes allow_unused=True"
        )
    if (once := re.search(r"derivative for (?:aten::)?(\w+?)(?:_backward)? is not implemented", text)) is not None:
        return (
            f"{info.name} differentiates twice, and torch has no second derivative of {once[1]}, which the module "
            "calls: call another function there, or use another proxy"
        )
    return ""


def pool_only(info: ProxyInfo) -> ProxyError:
    """What to raise where an aggregate is asked for one network's value."""
    return ProxyError(
        f"{info.name} joins the ranks of {', '.join(info.parts)} in a pool of networks, and has no value for one: "
        f"use score_pool(networks, {info.name!r}), or score the parts"
    )
