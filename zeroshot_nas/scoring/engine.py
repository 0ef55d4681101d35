"""`score`: any proxy on any network, in one call."""

from __future__ import annotations

import copy
import itertools
import math
import numbers
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.core.lazy import LazyModule, is_torch_module
from zeroshot_nas.core.score import Score, ScoreValue
from zeroshot_nas.core.seeding import derive_seed, one_torch_thread, preserved_rng, torch_generator
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError
from zeroshot_nas.network.init import Init
from zeroshot_nas.scoring.closed_forms import DEFAULT_REPEATS, check_repeats
from zeroshot_nas.scoring.feature_map import batch_norms
from zeroshot_nas.scoring.passes import shared_passes
from zeroshot_nas.scoring.perturbed_pass import count_weights, gaussian_weights, is_chain
from zeroshot_nas.scoring.proxy import PROXIES, Batch, Proxy, ProxyFunction, get_proxy, pool_only

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")


@overload
def score(
    model: Architecture | HasArchitecture | nn.Module,
    proxy: str | Proxy | ProxyFunction = "zen",
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
    proxy: str | Proxy | ProxyFunction | Sequence[str | Proxy | ProxyFunction] = "zen",
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
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> result = score(net, "zen", input_size=(3, 8, 8), seed=0)
        >>> result.state, result.repeats
        ('ok', 4)
    """
    check_repeats(repeats=repeats, batch_size=batch_size, standard_error=standard_error, max_repeats=max_repeats)
    if not is_torch_module(model):
        architecture = architecture_of(model)
        if architecture is None:
            raise ProxyError(f"expected an Architecture or a torch.nn.Module, got {type(model).__name__}")
        model = architecture
    asked = [proxy] if isinstance(proxy, str) or not isinstance(proxy, Sequence) else proxy
    proxies = [get_proxy(each, **options) for each in asked]
    if len({each.key for each in proxies}) < len(proxies):
        raise ProxyError(f"the proxies must differ, got {', '.join(each.key for each in proxies)}")
    for each in proxies:
        if each.info.parts:
            raise pool_only(each.info)
    subject = _Subject(model, batch if batch is not None else _input_size(model, input_size), init, seed, device)
    runs = [_Run(each, batch_size or each.info.batch_size, subject.reads_graph(each)) for each in proxies]
    precision = _Precision(repeats, standard_error, max_repeats)
    draws = not all(subject.reads_graph(each) for each in proxies)  # what is read off the architecture needs no torch
    with one_torch_thread() if draws or "torch" in sys.modules else nullcontext(), preserved_rng():
        for group in _groups(runs, subject):
            _run_group(group, subject, precision, alone=asked is not proxy)
    scores = {run.proxy.key: run.score() for run in runs}
    return scores if asked is proxy else scores[proxies[0].key]


class _Precision(NamedTuple):
    """How often to repeat."""

    repeats: int
    standard_error: float | None
    max_repeats: int


class _Run:
    """One proxy's values as they come."""

    def __init__(self, proxy: Proxy, batch_size: int, exact: bool) -> None:
        self.proxy = proxy
        self.exact = exact  # read off the architecture, so without error
        self.batch_size = batch_size
        self.values: list[float] = []
        self.seconds = 0.0
        self.failure = ""

    @property
    def standard_error(self) -> float | None:
        if self.exact and self.values:
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


def _groups(runs: Sequence[_Run], subject: _Subject) -> list[list[_Run]]:
    """Proxies that ask for the same weights and inputs, and so share them."""
    groups: dict[Any, list[_Run]] = {}
    for run in runs:
        info = run.proxy.info
        alone = subject.reads_graph(run.proxy) or subject.is_fast(run.proxy)
        key = run.proxy.key if alone else (subject.init or info.init, info.keeps_residual_links, run.batch_size)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _run_group(group: Sequence[_Run], subject: _Subject, precision: _Precision, alone: bool) -> None:
    """Repeats the group's proxies until each has what it needs."""
    if subject.is_fixed or subject.reads_graph(group[0].proxy):
        precision = _Precision(1, None, 1)  # nothing is left to draw
    for repeat in itertools.count():
        active = [run for run in group if run.wants_more(precision)]
        if not active:
            return
        start = time.perf_counter()
        try:
            with subject.drawn([run.proxy for run in active], active[0].batch_size, repeat) as compute:
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


class _Subject:
    """What is scored, and how; a module is built or copied only where a proxy needs one.

    Args:
        model: An architecture or a module.
        arrays: The batch, or the shape of one input of a Gaussian one.
        init: The initialisation asked for; None is the proxy's.
        seed: Seed of all draws.
        device: Where to compute.
    """

    def __init__(
        self,
        model: Architecture | nn.Module,
        arrays: Batch | tuple[int, ...],
        init: Init | None,
        seed: int,
        device: str | torch.device | None,
    ) -> None:
        self.model = model
        self.arrays = arrays
        self.init = init
        self.seed = seed
        self.device = device
        self.architecture = _architecture_or_module(model)
        self.is_fixed = init == "keep" and isinstance(arrays, Batch)

    def architecture_for(self, proxy: Proxy) -> Architecture:
        """The architecture.

        Raises:
            ProxyError: The model is a foreign module.
        """
        if not isinstance(self.architecture, Architecture):
            raise ProxyError(
                f"{proxy.key} reads an Architecture, got a {type(self.model).__name__}; use a proxy that runs modules"
            )
        return self.architecture

    @contextmanager
    def drawn(self, proxies: Sequence[Proxy], batch_size: int, repeat: int) -> Iterator[Callable[[Proxy], float]]:
        """Draws weights and inputs once for several proxies, and gives the function that computes each."""
        info = proxies[0].info
        if self.reads_graph(proxies[0]):
            yield lambda proxy: proxy.closed_form(self.architecture_for(proxy))
        elif self.is_fast(proxies[0]):
            yield lambda proxy: self._value_of_architecture(proxy, batch_size, repeat)
        else:
            from zeroshot_nas.network.module import initialize, without_residual_links  # here: it loads torch

            network = self.network
            initialize(network, self.init or info.init, torch_generator(self.seed, repeat, 0))
            _check_weights(network)
            like = next(network.parameters(), torch.zeros(0, device=self.device))
            batch = self._batch(
                like,
                batch_size,
                repeat,
                labels=any(proxy.info.needs_labels for proxy in proxies),
                batches=max(proxy.info.batches for proxy in proxies),
            )
            with ExitStack() as stack:
                stack.enter_context(_batch_statistics(network))
                differentiable = any(proxy.info.needs_gradients for proxy in proxies)
                reads = frozenset[str]().union(*(proxy.info.reads for proxy in proxies))
                stack.enter_context(shared_passes(differentiable, reads))
                if not info.keeps_residual_links:
                    stack.enter_context(without_residual_links(network))
                yield lambda proxy: self._value(proxy, batch)

    def reads_graph(self, proxy: Proxy) -> bool:
        """Whether the proxy is computed from the architecture alone."""
        info = proxy.info
        return info.function is None or (not info.needs_weights and isinstance(self.architecture, Architecture))

    def is_fast(self, proxy: Proxy) -> bool:
        """Whether the proxy has a faster way for this subject."""
        return (
            proxy.info.of_architecture is not None
            and isinstance(self.architecture, Architecture)
            and self.init in (None, "gaussian")
            and is_chain(self.architecture)
        )

    def _value_of_architecture(self, proxy: Proxy, batch_size: int, repeat: int) -> float:
        architecture = self.architecture_for(proxy)
        assert proxy.info.of_architecture is not None, "see is_fast"
        like = torch.zeros(0, device=self.device)
        if not isinstance(self.model, Architecture) and self.device is None:
            like = next(self.model.parameters()).detach()
        batch = self._batch(like, batch_size, repeat)
        weights = gaussian_weights(self.seed, repeat, count_weights(architecture)).to(like)
        return proxy.info.of_architecture(architecture, batch, weights, **proxy.options)

    def _value(self, proxy: Proxy, batch: Batch) -> float:
        network = self.network
        if proxy.info.needs_batch_norm and not batch_norms(network):
            others = ", ".join(name for name in PROXIES if _runs_without_batch_norm(name))
            raise ProxyError(
                f"{proxy.info.name} needs batch norm, and {type(network).__name__} has none. "
                f"Use a proxy that does without ({others}), or add nn.BatchNorm2d after the convolutions"
            )
        if not isinstance(self.arrays, Batch):  # what it would have been given alone
            batch = batch._replace(further=batch.further[: proxy.info.batches - 1])
        try:
            with torch.set_grad_enabled(proxy.info.needs_gradients):
                return _number(proxy(network, batch))
        except ZeroShotNASError:
            raise
        except Exception as error:  # a stranger's module or proxy may raise anything; it is passed on, with its cause
            reason = (
                f"{proxy.key} could not run {type(network).__name__} on inputs of shape {tuple(batch.inputs.shape)} "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            )
            if "more than 1 value per channel" in str(error):
                raise UndefinedScoreError(f"{reason}; score on more inputs") from error
            raise ProxyError(f"{reason}. Check input_size and the module") from error

    def _batch(self, like: torch.Tensor, batch_size: int, repeat: int, labels: bool = False, batches: int = 1) -> Batch:
        """The given arrays, or Gaussian ones on the network's device and in its dtype, with labels drawn evenly."""
        if isinstance(self.arrays, Batch):
            return self.arrays
        shape = (batch_size, *self.arrays)
        generator = torch_generator(self.seed, repeat, 1)
        inputs, perturbation = (
            _channels_last(torch.randn(shape, generator=generator, dtype=torch.float32).to(like)) for _ in range(2)
        )
        classes = self.num_classes if labels or batches > 1 else None
        targets = _labels(classes, batch_size, torch_generator(self.seed, repeat, 2), like)
        further = []
        generator = torch_generator(self.seed, repeat, 3)
        for _ in range(batches - 1):
            more = _channels_last(torch.randn(shape, generator=generator, dtype=torch.float32).to(like))
            further.append(Batch(more, _labels(classes, batch_size, generator, like)))
        return Batch(inputs, targets, perturbation, tuple(further), seed=derive_seed(self.seed, repeat, 4))

    @cached_property
    def num_classes(self) -> int | None:
        """Outputs of the classifier; None for a module that returns no logits, which whoever needs them will say."""
        if isinstance(self.architecture, Architecture):
            return self.architecture.num_classes
        assert not isinstance(self.arrays, Batch), "a given batch brings its labels"
        like = next(self.network.parameters(), torch.zeros(0, device=self.device))
        with torch.no_grad(), _batch_statistics(self.network):
            output = self.network(torch.ones(2, *self.arrays).to(like))
        return output.shape[1] if isinstance(output, torch.Tensor) and output.dim() == 2 else None

    @cached_property
    def network(self) -> nn.Module:
        """A module that scoring may change: built from an architecture, copied from a module."""
        if isinstance(self.model, Architecture):
            if self.init == "keep":
                raise ProxyError("an architecture has no weights to keep; build it first, or leave init out")
            from zeroshot_nas.network.module import build

            network: nn.Module = build(self.model, init="keep")
        else:
            try:
                network = copy.deepcopy(self.model)
            except Exception as error:  # torch raises several kinds here; passed on, with its cause
                raise ProxyError(
                    f"{type(self.model).__name__} can't be copied, so it can't be scored without changing it: {error}. "
                    "Remove tensors with gradients (weight_norm, cached activations) from its attributes"
                ) from error
        if self.device is not None:
            network.to(self.device)
        for parameter in network.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)  # what its owner froze has a gradient too
        drawn = not isinstance(self.arrays, Batch)  # given arrays are read in the layout that they have
        if drawn and next(network.parameters(), torch.zeros(0)).dtype == torch.float32:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time of a forward pass on a CPU
        return network


def _channels_last(inputs: torch.Tensor) -> torch.Tensor:
    """The same numbers, laid out as convolutions read them fastest."""
    if inputs.dim() != 4 or inputs.dtype != torch.float32:
        return inputs
    return inputs.contiguous(memory_format=torch.channels_last)


def _labels(classes: int | None, count: int, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor | None:
    return None if classes is None else torch.randint(classes, (count,), generator=generator).to(like.device)


def _check_weights(network: nn.Module) -> None:
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UndefinedScoreError(f"{name} of the module is not finite")


def _runs_without_batch_norm(name: str) -> bool:
    return PROXIES[name].function is not None and not PROXIES[name].needs_batch_norm


def _number(value: object) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise ProxyError(f"a proxy returns one number, got {type(value).__name__}")
    return value if isinstance(value, ScoreValue) else float(value)


def _architecture_or_module(model: Architecture | nn.Module) -> Architecture | nn.Module:
    """The architecture that a model is or is built from; another module itself."""
    if isinstance(model, Architecture):
        return model
    from zeroshot_nas.network.module import Network

    return model.architecture if isinstance(model, Network) else model


def _input_size(model: Architecture | nn.Module, input_size: Sequence[int] | None) -> tuple[int, ...]:
    architecture = _architecture_or_module(model)
    if isinstance(architecture, Architecture):
        if input_size is not None and tuple(input_size) != architecture.input_size:
            raise ProxyError(f"the architecture has input_size {architecture.input_size}, got {tuple(input_size)}")
        return architecture.input_size
    if input_size is None:
        raise ProxyError(f"scoring a {type(model).__name__} needs input_size=(C, H, W), or batch=Batch(inputs, …)")
    if not input_size or any(type(size) is not int or size < 1 for size in input_size):
        raise ProxyError(f"input_size must be whole numbers of 1 or more, got {tuple(input_size)}")
    return tuple(input_size)


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics and keep none; all else is as at inference: dropout would add noise."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    norms = batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.training = True
        norm.momentum = 0.0  # type: ignore[assignment]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
