"""`score`: any proxy on any network, in one call."""

from __future__ import annotations

import copy
import math
import numbers
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, overload

import torch
from torch import nn

from zeroshot_nas.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError
from zeroshot_nas.network import Init, Network, build, initialize, without_residual_links
from zeroshot_nas.perturbation import count_weights, gaussian_weights
from zeroshot_nas.probes import batch_norms
from zeroshot_nas.proxies.base import PROXIES, Batch, Proxy, ProxyFunction, Score, get_proxy
from zeroshot_nas.seeding import one_torch_thread, preserved_rng, torch_generator

DEFAULT_BATCH_SIZE = 2
"""Zen-score's noise comes from the weights, not the images: two images have the standard error of sixteen."""

DEFAULT_REPEATS = 4
"""Independent draws of weights and images that a score is the mean of."""


@overload
def score(
    model: Architecture | HasArchitecture | nn.Module,
    proxy: str | Proxy | ProxyFunction = "zen",
    *,
    input_size: Sequence[int] | None = None,
    batch: Batch | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
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
    batch_size: int = DEFAULT_BATCH_SIZE,
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
    batch_size: int = DEFAULT_BATCH_SIZE,
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
        batch_size: Gaussian inputs a repeat.
        repeats: Independent draws of weights and inputs; the score is their mean.
        standard_error: Repeats further until the mean is that certain; the `Score` says what was reached.
        max_repeats: Where it stops at the latest.
        init: Weights: ``"gaussian"``, ``"kaiming"``, or ``"keep"`` for those that the module has. Default: the proxy's.
        seed: Repeat r draws from stream r of this seed, so repeats 1 to 4 are the first four of 1 to 32.
        device: Where to compute; default: where the module is.
        options: Options of the proxy.

    Returns:
        One `Score`, or for a list a dict of them by `Proxy.key`. A network whose numbers leave the proxy undefined
        (dead, not finite) has a score in state ``"failed"`` with the reason.

    Raises:
        UnknownNameError: No proxy has that name.
        ProxyError: The proxy can't be computed for this module, input or setting.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> result = score(net, "zen", input_size=(3, 8, 8), seed=0)
        >>> result.state, result.repeats
        ('ok', 4)
    """
    for name, value in (("repeats", repeats), ("batch_size", batch_size), ("max_repeats", max_repeats)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ProxyError(f"{name} must be a whole number of 1 or more, got {value!r}")
    if standard_error is not None and not standard_error > 0:
        raise ProxyError(f"standard_error must be above 0, got {standard_error!r}")
    if not isinstance(model, nn.Module):
        architecture = architecture_of(model)
        if architecture is None:
            raise ProxyError(f"expected an Architecture or a torch.nn.Module, got {type(model).__name__}")
        model = architecture
    asked = [proxy] if isinstance(proxy, str) or not isinstance(proxy, Sequence) else proxy
    proxies = [get_proxy(each, **options) for each in asked]
    if len({each.key for each in proxies}) < len(proxies):
        raise ProxyError(f"the proxies must differ, got {', '.join(each.key for each in proxies)}")
    arrays = batch if batch is not None else (batch_size, *_input_size(model, input_size))
    subject = _Subject(model, arrays, init, seed, device)
    with preserved_rng(), one_torch_thread():
        scores = {each.key: _score(subject, each, repeats, standard_error, max_repeats) for each in proxies}
    return scores if asked is proxy else scores[proxies[0].key]


def _score(subject: _Subject, proxy: Proxy, repeats: int, standard_error: float | None, max_repeats: int) -> Score:
    """Mean and standard error over repeats, or the reason why there is none."""
    start = time.perf_counter()
    if proxy.info.function is None:
        value = proxy.closed_form(subject.architecture_for(proxy))
        return Score(proxy.key, value, 0.0, 1, time.perf_counter() - start)
    if subject.is_fixed:
        repeats, standard_error = 1, None  # nothing is left to draw
    values: list[float] = []
    error: float | None = None
    try:
        while len(values) < repeats or (
            standard_error is not None and _still_above(error, standard_error, values, max_repeats)
        ):
            values.append(subject.draw(proxy, len(values)))
            if len(values) > 1:
                error = statistics.stdev(values) / math.sqrt(len(values))
    except UndefinedScoreError as failure:
        seconds = time.perf_counter() - start
        return Score(proxy.key, math.nan, None, len(values), seconds, "failed", str(failure))
    return Score(proxy.key, statistics.fmean(values), error, len(values), time.perf_counter() - start)


def _still_above(error: float | None, wanted: float, values: Sequence[float], max_repeats: int) -> bool:
    return len(values) < max_repeats and (error is None or error > wanted)


class _Subject:
    """What is scored, and how; a module is built or copied only where a proxy needs one.

    Args:
        model: An architecture or a module.
        arrays: The batch, or the shape of a Gaussian one.
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
        self.architecture = model.architecture if isinstance(model, Network) else model
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

    def draw(self, proxy: Proxy, repeat: int) -> float:
        """The proxy's value for one draw of weights and inputs."""
        value = self._draw_of_architecture(proxy, repeat) if self._is_fast(proxy) else self._draw(proxy, repeat)
        if not math.isfinite(value):
            raise UndefinedScoreError(f"{proxy.key} is not finite ({value})")
        return value

    def _is_fast(self, proxy: Proxy) -> bool:
        return (
            proxy.info.of_architecture is not None
            and isinstance(self.architecture, Architecture)
            and self.init in (None, "gaussian")
        )

    def _draw_of_architecture(self, proxy: Proxy, repeat: int) -> float:
        architecture = self.architecture_for(proxy)
        assert proxy.info.of_architecture is not None, "see _is_fast"
        like = torch.zeros(0, device=self.device)
        if isinstance(self.model, Network) and self.device is None:
            like = next(self.model.parameters()).detach()
        batch = self._batch(like, repeat)
        weights = gaussian_weights(self.seed, repeat, count_weights(architecture)).to(like)
        return proxy.info.of_architecture(architecture, batch, weights, **proxy.options)

    def _draw(self, proxy: Proxy, repeat: int) -> float:
        assert proxy.info.function is not None, "closed forms draw nothing"
        network = self.network
        if proxy.info.needs_batch_norm and not batch_norms(network):
            others = ", ".join(name for name in PROXIES if _runs_without_batch_norm(name))
            raise ProxyError(
                f"{proxy.info.name} needs batch norm, and {type(network).__name__} has none. "
                f"Use a proxy that does without ({others}), or add nn.BatchNorm2d after the convolutions"
            )
        initialize(network, self.init or proxy.info.init, torch_generator(self.seed, repeat, 0))
        batch = self._batch(next(network.parameters(), torch.zeros(0)), repeat)
        try:
            with _batch_statistics(network), torch.set_grad_enabled(proxy.info.needs_gradients), ExitStack() as stack:
                if not proxy.info.keeps_residual_links:
                    stack.enter_context(without_residual_links(network))
                return _number(proxy(network, batch))
        except ZeroShotNASError:
            raise
        except Exception as error:  # a stranger's module or proxy may raise anything; it is passed on, with its cause
            raise ProxyError(
                f"{proxy.key} could not run {type(network).__name__} on inputs of shape {tuple(batch.inputs.shape)} "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Check input_size and the module"
            ) from error

    def _batch(self, like: torch.Tensor, repeat: int) -> Batch:
        """The given arrays, or inputs and perturbation from N(0, 1) on the network's device and in its dtype."""
        if isinstance(self.arrays, Batch):
            return self.arrays
        generator = torch_generator(self.seed, repeat, 1)
        inputs, perturbation = (
            torch.randn(self.arrays, generator=generator, dtype=torch.float32).to(like) for _ in range(2)
        )
        return Batch(inputs, perturbation=perturbation)

    @cached_property
    def network(self) -> nn.Module:
        """A module that scoring may change: built from an architecture, copied from a module."""
        if isinstance(self.model, Architecture):
            if self.init == "keep":
                raise ProxyError("an architecture has no weights to keep; build it first, or leave init out")
            network: nn.Module = build(self.model, init="keep")
        else:
            try:
                network = copy.deepcopy(self.model)
            except Exception as error:  # torch raises several kinds here; passed on, with its cause
                raise ProxyError(
                    f"{type(self.model).__name__} can't be copied, so it can't be scored without changing it: {error}. "
                    "Remove tensors with gradients (weight_norm, cached activations) from its attributes"
                ) from error
        return network if self.device is None else network.to(self.device)


def _runs_without_batch_norm(name: str) -> bool:
    return PROXIES[name].function is not None and not PROXIES[name].needs_batch_norm


def _number(value: object) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise ProxyError(f"a proxy returns one number, got {type(value).__name__}")
    return float(value)


def _input_size(model: Architecture | nn.Module, input_size: Sequence[int] | None) -> tuple[int, ...]:
    architecture = model.architecture if isinstance(model, Network) else model
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
    """Batch norms use the batch's statistics; all else is as at inference, so that dropout adds no noise."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    for norm in batch_norms(network):
        norm.training = True
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
