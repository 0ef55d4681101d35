"""`score`: any proxy on any network, in one call."""

from __future__ import annotations

import copy
import math
import numbers
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, overload

import torch
from torch import nn

from zeroshot_nas.architecture import Architecture
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError
from zeroshot_nas.network import Init, build, initialize, without_residual_links
from zeroshot_nas.probes import batch_norms
from zeroshot_nas.proxies.base import PROXIES, Batch, Proxy, ProxyFunction, Score, get_proxy
from zeroshot_nas.seeding import one_torch_thread, preserved_rng, torch_generator

DEFAULT_BATCH_SIZE = 2
"""Zen-score's noise comes from the weights, not the images: two images have the standard error of sixteen."""

DEFAULT_REPEATS = 4
"""Independent draws of weights and images that a score is the mean of."""


@overload
def score(
    model: Architecture | nn.Module,
    proxy: str | Proxy | ProxyFunction = "zen",
    *,
    input_size: Sequence[int] | None = None,
    batch: Batch | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    repeats: int = DEFAULT_REPEATS,
    init: Init | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> Score: ...


@overload
def score(
    model: Architecture | nn.Module,
    proxy: Sequence[str | Proxy | ProxyFunction],
    *,
    input_size: Sequence[int] | None = None,
    batch: Batch | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    repeats: int = DEFAULT_REPEATS,
    init: Init | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> dict[str, Score]: ...


def score(
    model: Architecture | nn.Module,
    proxy: str | Proxy | ProxyFunction | Sequence[str | Proxy | ProxyFunction] = "zen",
    *,
    input_size: Sequence[int] | None = None,
    batch: Batch | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    repeats: int = DEFAULT_REPEATS,
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
        model: An architecture, or any ``nn.Module``; no special methods are needed.
        proxy: A name (`list_proxies`), a name with options (``"zen:variant=zennas"``), a function
            ``(network, batch) -> float``, or a list of these.
        input_size: Shape ``(C, H, W)`` of one input; an architecture has its own.
        batch: Arrays to score on, in place of Gaussian ones; its size and dtype are then the score's.
        batch_size: Gaussian inputs a repeat.
        repeats: Independent draws of weights and inputs; the score is their mean.
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
    for name, value in (("repeats", repeats), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ProxyError(f"{name} must be a whole number of 1 or more, got {value!r}")
    asked = [proxy] if isinstance(proxy, str) or not isinstance(proxy, Sequence) else proxy
    proxies = [get_proxy(each, **options) for each in asked]
    if len({each.key for each in proxies}) < len(proxies):
        raise ProxyError(f"the proxies must differ, got {', '.join(each.key for each in proxies)}")
    arrays = batch if batch is not None else (batch_size, *_input_size(model, input_size))
    if batch is not None and init == "keep":
        repeats = 1  # nothing is left to draw
    with preserved_rng(), one_torch_thread():
        network = _private_copy(model, init, device)
        scores = {each.key: _score(network, each, init or each.info.init, arrays, repeats, seed) for each in proxies}
    return scores if asked is proxy else scores[proxies[0].key]


def _score(
    network: nn.Module, proxy: Proxy, init: Init, arrays: Batch | tuple[int, ...], repeats: int, seed: int
) -> Score:
    """Mean and standard error over repeats, or the reason why there is none."""
    if proxy.info.needs_batch_norm and not batch_norms(network):
        others = ", ".join(name for name in PROXIES if not PROXIES[name].needs_batch_norm)
        raise ProxyError(
            f"{proxy.info.name} needs batch norm, and {type(network).__name__} has none. "
            f"Use a proxy that does without ({others}), or add nn.BatchNorm2d after the convolutions"
        )
    start = time.perf_counter()
    values: list[float] = []
    reason = ""
    try:
        values.extend(_repeat(network, proxy, init, arrays, seed, repeat) for repeat in range(repeats))
    except UndefinedScoreError as failure:
        reason = str(failure)
    seconds = time.perf_counter() - start
    if reason:
        return Score(proxy.key, math.nan, None, len(values), seconds, "failed", reason)
    error = statistics.stdev(values) / math.sqrt(repeats) if repeats > 1 else None
    return Score(proxy.key, statistics.fmean(values), error, repeats, seconds)


def _repeat(
    network: nn.Module, proxy: Proxy, init: Init, arrays: Batch | tuple[int, ...], seed: int, repeat: int
) -> float:
    """The proxy's value for one draw of weights and inputs."""
    initialize(network, init, torch_generator(seed, repeat, 0))
    batch = arrays if isinstance(arrays, Batch) else _gaussian_batch(arrays, network, seed, repeat)
    try:
        with _batch_statistics(network), torch.set_grad_enabled(proxy.info.needs_gradients), ExitStack() as stack:
            if not proxy.info.keeps_residual_links:
                stack.enter_context(without_residual_links(network))
            value = _number(proxy(network, batch))
    except ZeroShotNASError:
        raise
    except Exception as error:  # a stranger's module or proxy may raise anything; it is passed on, with its cause
        raise ProxyError(
            f"{proxy.key} could not run {type(network).__name__} on inputs of shape {tuple(batch.inputs.shape)} "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Check input_size and the module"
        ) from error
    if not math.isfinite(value):
        raise UndefinedScoreError(f"{proxy.key} is not finite ({value})")
    return value


def _number(value: object) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise ProxyError(f"a proxy returns one number, got {type(value).__name__}")
    return float(value)


def _gaussian_batch(shape: tuple[int, ...], network: nn.Module, seed: int, repeat: int) -> Batch:
    """Inputs and perturbation from N(0, 1), on the network's device and in its dtype."""
    generator = torch_generator(seed, repeat, 1)
    like = next(network.parameters(), torch.zeros(0))
    inputs, perturbation = (torch.randn(shape, generator=generator, dtype=torch.float32).to(like) for _ in range(2))
    return Batch(inputs, perturbation=perturbation)


def _input_size(model: Architecture | nn.Module, input_size: Sequence[int] | None) -> tuple[int, ...]:
    architecture = model if isinstance(model, Architecture) else getattr(model, "architecture", None)
    if isinstance(architecture, Architecture):
        if input_size is not None and tuple(input_size) != architecture.input_size:
            raise ProxyError(f"the architecture has input_size {architecture.input_size}, got {tuple(input_size)}")
        return architecture.input_size
    if input_size is None:
        raise ProxyError(f"scoring a {type(model).__name__} needs input_size=(C, H, W), or batch=Batch(inputs, …)")
    if not input_size or any(type(size) is not int or size < 1 for size in input_size):
        raise ProxyError(f"input_size must be whole numbers of 1 or more, got {tuple(input_size)}")
    return tuple(input_size)


def _private_copy(model: Architecture | nn.Module, init: Init | None, device: str | torch.device | None) -> nn.Module:
    """A module that scoring may change: built from an architecture, copied from a module."""
    if isinstance(model, Architecture):
        if init == "keep":
            raise ProxyError("an architecture has no weights to keep; build it first, or leave init out")
        network: nn.Module = build(model, init="keep")
    elif isinstance(model, nn.Module):
        try:
            network = copy.deepcopy(model)
        except Exception as error:  # torch raises several kinds here; passed on, with its cause
            raise ProxyError(
                f"{type(model).__name__} can't be copied, so it can't be scored without changing it: {error}. "
                "Remove tensors with gradients (weight_norm, cached activations) from its attributes"
            ) from error
    else:
        raise ProxyError(f"expected an Architecture or a torch.nn.Module, got {type(model).__name__}")
    return network if device is None else network.to(device)


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
