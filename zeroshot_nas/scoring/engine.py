"""`score`: any proxy on any network, in one call."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.core.foreign import unwrapped
from zeroshot_nas.core.lazy import is_torch_module
from zeroshot_nas.core.score import Score, ScoreValue
from zeroshot_nas.core.seeding import derive_seed, one_torch_thread, plain_torch, preserved_rng
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError
from zeroshot_nas.network.init import Init
from zeroshot_nas.scoring.closed_forms import DEFAULT_REPEATS, check_repeats
from zeroshot_nas.scoring.proxy import DEFAULT_PROXY, Batch, Proxy, ProxyFunction, get_proxy, pool_only

if TYPE_CHECKING:
    import torch
    from torch import nn


@overload
def score(
    model: Architecture | HasArchitecture | nn.Module,
    proxy: str | Proxy | ProxyFunction = DEFAULT_PROXY,
    *,
    input_size: Sequence[int] | None = None,
    batch: Batch | None = None,
    batch_size: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    standard_error: float | None = None,
    max_repeats: int = 64,
    init: Init | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> Score: ...


@overload
def score(
    model: Architecture | HasArchitecture | nn.Module,
    proxy: Sequence[str | Proxy | ProxyFunction],
    *,
    input_size: Sequence[int] | None = None,
    batch: Batch | None = None,
    batch_size: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    standard_error: float | None = None,
    max_repeats: int = 64,
    init: Init | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> dict[str, Score]: ...


def score(
    model: Architecture | HasArchitecture | nn.Module,
    proxy: str | Proxy | ProxyFunction | Sequence[str | Proxy | ProxyFunction] = DEFAULT_PROXY,
    *,
    input_size: Sequence[int] | None = None,
    batch: Batch | None = None,
    batch_size: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    standard_error: float | None = None,
    max_repeats: int = 64,
    init: Init | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> Score | dict[str, Score]:
    """Scores a network without training it.

    The score is a function of the network, the proxy, these settings and the seed, and of nothing else: it runs on one
    thread, since rounding differs with their number (use processes to score several networks at once). It is computed
    on a copy: the module's weights, buffers, mode, gradients and hooks and the global random state stay as they were.

    Args:
        model: An architecture or a candidate of a search, or any ``nn.Module``; no special methods are needed.
        proxy: A name (`list_proxies`), a name with options (``"zen:variant=zennas"``), a function
            ``(network, batch) -> float``, or a list of these.
        input_size: Shape ``(C, H, W)`` of one input; an architecture has its own.
        batch: Arrays to score on, in place of Gaussian ones; its size and dtype are then the score's.
        batch_size: Gaussian inputs a repeat; default: the proxy's (`ProxyInfo`).
        repeats: Independent draws of weights and inputs; the score is their mean.
        standard_error: Repeats further until the mean is that certain; the `Score` says what was reached.
        max_repeats: Where it stops at the latest.
        init: Weights: ``"gaussian"``, ``"kaiming"``, or ``"keep"`` for those that the module has. Default: the proxy's.
        seed: Repeat r draws from stream r of this seed, so repeats 1 to 4 are the first four of 1 to 32.
        device: Where to compute; default: where the module is.
        options: Options of the proxy.

    Returns:
        One `Score`, or for a list a dict of them by `Proxy.key`. A network whose numbers leave the proxy undefined
        (dead, not finite) has a score in state ``"failed"`` with the reason. In a list, so has a proxy that can't be
        computed for this module. Proxies that ask for the same weights share the module and its passes, and each has
        the value that it has alone.

    Raises:
        UnknownNameError: No proxy has that name.
        ProxyError: The one proxy can't be computed for this module, or an input or setting is not usable.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> result = score(net, "zen", input_size=(3, 8, 8), seed=0)
        >>> result.state, result.repeats
        ('ok', 4)
    """
    derive_seed(seed)  # refuses what is no seed, also where nothing is drawn
    check_repeats(repeats=repeats, batch_size=batch_size, standard_error=standard_error, max_repeats=max_repeats)
    if is_torch_module(model):
        model = unwrapped(model)
    architecture = _architecture(model)
    asked = [proxy] if isinstance(proxy, str) or not isinstance(proxy, Sequence) else proxy
    proxies = [get_proxy(each, **options) for each in asked]
    if len({each.key for each in proxies}) < len(proxies):
        raise ProxyError(f"the proxies must differ, got {', '.join(each.key for each in proxies)}")
    for each in proxies:
        if each.info.parts:
            raise pool_only(each.info)
    arrays = _input_size(model, architecture, input_size) if batch is None else _batch(batch)
    sources: list[tuple[list[Proxy], Source]] = []
    drawn = []
    for each in proxies:
        if each.info.needs_weights or (each.info.function is not None and architecture is None):
            drawn.append(each)
        else:
            sources.append(([each], ClosedForms(model, architecture)))
    if drawn:
        from zeroshot_nas.scoring.forward import Draws, forward_sources  # here: a closed form loads no torch

        _check_device(device)
        sources += forward_sources(model, architecture, drawn, Draws(arrays, batch_size, init, seed, device))
    precision = _Precision(repeats, standard_error, max_repeats)
    runs: dict[str, _Run] = {}
    with ExitStack() as contexts:
        if any(_is_strangers(each) for each in proxies):  # ours leave the global random state alone
            contexts.enter_context(preserved_rng())
        if "torch" in sys.modules:
            contexts.enter_context(one_torch_thread())
            contexts.enter_context(plain_torch())
        for group, source in sources:
            group_runs = [_Run(each, source.is_exact) for each in group]
            _run_group(group_runs, source, precision, alone=asked is not proxy)
            runs.update((run.proxy.key, run) for run in group_runs)
    scores = {each.key: runs[each.key].score() for each in proxies}
    return scores if asked is proxy else scores[proxies[0].key]


class Source(Protocol):
    """Where the values of a group of proxies come from.

    Attributes:
        is_exact: Whether a value has no error.
        is_fixed: Whether every repeat gives the same value.
    """

    @property
    def is_exact(self) -> bool: ...

    @property
    def is_fixed(self) -> bool: ...

    def draw(self, proxies: Sequence[Proxy], repeat: int) -> AbstractContextManager[Callable[[Proxy], float]]:
        """Draws once for several of the proxies, and gives the function that computes each."""


class ClosedForms:
    """Values read off an architecture.

    Args:
        model: What is scored, for the message.
        architecture: Its architecture; None for a foreign module, which has no such value.
    """

    is_exact = is_fixed = True

    def __init__(self, model: object, architecture: Architecture | None) -> None:
        self._model = model
        self._architecture = architecture

    @contextmanager
    def draw(self, proxies: Sequence[Proxy], repeat: int) -> Iterator[Callable[[Proxy], float]]:
        yield self._value

    def _value(self, proxy: Proxy) -> float:
        if self._architecture is None:
            kind = type(self._model).__name__
            raise ProxyError(f"{proxy.key} reads an Architecture, got a {kind}; use a proxy that runs modules")
        return proxy.closed_form(self._architecture)


class _Precision(NamedTuple):
    """How often to repeat."""

    repeats: int
    standard_error: float | None
    max_repeats: int


class _Run:
    """One proxy's values as they come."""

    def __init__(self, proxy: Proxy, is_exact: bool) -> None:
        self.proxy = proxy
        self.is_exact = is_exact
        self.values: list[float] = []
        self.seconds = 0.0
        self.failure = ""

    @property
    def standard_error(self) -> float | None:
        if self.is_exact and self.values:
            return 0.0
        return statistics.stdev(self.values) / math.sqrt(len(self.values)) if len(self.values) > 1 else None

    def wants_more(self, precision: _Precision) -> bool:
        """Whether another repeat is due."""
        done = len(self.values)
        if self.failure:
            return False
        if done < precision.repeats or precision.standard_error is None:
            return done < precision.repeats
        error = self.standard_error
        return done < precision.max_repeats and (error is None or error > precision.standard_error)

    def score(self) -> Score:
        key, repeats = self.proxy.key, len(self.values)
        if self.failure:
            return Score(key, math.nan, None, repeats, self.seconds, "failed", self.failure)
        mean = statistics.fmean(self.values)
        return Score(key, mean, self.standard_error, repeats, self.seconds, details=self._details())

    def _details(self) -> dict[str, float]:
        """What the values are made of: of each part the mean."""
        parts = [value.details for value in self.values if isinstance(value, ScoreValue)]
        return {name: statistics.fmean(each[name] for each in parts) for name in (parts[0] if parts else ())}


def _run_group(group: Sequence[_Run], source: Source, precision: _Precision, alone: bool) -> None:
    """Repeats the group's proxies until each has what it needs."""
    if source.is_fixed:
        precision = _Precision(1, None, 1)  # nothing is left to draw
    for repeat in itertools.count():
        active = [run for run in group if run.wants_more(precision)]
        if not active:
            return
        start = time.perf_counter()
        try:
            with source.draw([run.proxy for run in active], repeat) as compute:
                share = (time.perf_counter() - start) / len(active)
                for run in active:
                    _repeat(run, compute, share, alone)
        except ZeroShotNASError as failure:  # of the network, whatever the proxy: too large, not finite
            if alone and not isinstance(failure, UndefinedScoreError):
                raise
            for run in active:
                run.failure = str(failure)


def _repeat(run: _Run, compute: Callable[[Proxy], float], share: float, alone: bool) -> None:
    """One value of one proxy, or the reason why there is none."""
    start = time.perf_counter()
    try:
        value = compute(run.proxy)
        if not math.isfinite(value):
            raise UndefinedScoreError(f"{run.proxy.key} is not finite ({value})")
        run.values.append(value)
    except UndefinedScoreError as failure:
        run.failure = str(failure)
    except ZeroShotNASError as failure:
        if alone:
            raise
        run.failure = str(failure)  # the other proxies of the call are not lost
    finally:
        run.seconds += share + time.perf_counter() - start


def _architecture(model: object) -> Architecture | None:
    """The architecture that a model is, has, or was built from; None for a foreign module.

    Raises:
        ProxyError: It is neither a module nor anything with an architecture.
    """
    if is_torch_module(model):
        from zeroshot_nas.network.module import Network

        return model.architecture if isinstance(model, Network) else None
    architecture = architecture_of(model)
    if architecture is None:
        raise ProxyError(f"expected an Architecture or a torch.nn.Module, got {type(model).__name__}")
    return architecture


def _input_size(model: object, architecture: Architecture | None, input_size: Sequence[int] | None) -> tuple[int, ...]:
    if architecture is not None:
        if input_size is not None and not (_is_shape(input_size) and tuple(input_size) == architecture.input_size):
            raise ProxyError(f"the architecture has input_size {architecture.input_size}, got {input_size!r}")
        return architecture.input_size
    if input_size is None:
        raise ProxyError(f"scoring a {type(model).__name__} needs input_size=(C, H, W), or batch=Batch(inputs, …)")
    if not _is_shape(input_size) or any(size < 1 for size in input_size):
        raise ProxyError(f"input_size must be whole numbers of 1 or more, such as (3, 32, 32), got {input_size!r}")
    return tuple(input_size)


def _is_shape(input_size: object) -> bool:
    return isinstance(input_size, Sequence) and bool(input_size) and all(type(size) is int for size in input_size)


def _batch(batch: object) -> Batch:
    """A batch with tensors that can be differentiated.

    Raises:
        ProxyError: It is something else, a tensor of images most often.
    """
    if not isinstance(batch, Batch) or not isinstance(batch.inputs, sys.modules["torch"].Tensor):
        got = type(batch.inputs if isinstance(batch, Batch) else batch).__name__
        raise ProxyError(
            f"batch must be Batch(inputs, targets) with tensors, got {got}; wrap it: batch=zs.Batch(images)"
        )
    return batch


def _check_device(device: str | torch.device | None) -> None:
    """Refuses a device that is unknown or not here.

    Raises:
        ProxyError: It is.
    """
    import torch

    try:
        torch.zeros(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch's, for one that is unknown or not there
        reason = str(error).partition("\n")[0]
        raise ProxyError(
            f"device {device!r} can't be used: {reason}; expected 'cpu' or a device that is here"
        ) from error


def _is_strangers(proxy: Proxy) -> bool:
    """Whether any function of a proxy is defined outside of this package."""
    info = proxy.info
    functions = (info.function, info.closed_form, info.of_architecture)
    home = f"{__name__.partition('.')[0]}."
    return any(not getattr(each, "__module__", "").startswith(home) for each in functions if each is not None)
