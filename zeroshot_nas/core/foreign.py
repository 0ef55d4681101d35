"""Modules of strangers: out of their wrappers, copied, refused where they hold no numbers, and watched on a run."""

from __future__ import annotations

import copy
import importlib
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from zeroshot_nas.core.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn
    from torch.utils._python_dispatch import TorchDispatchMode
else:
    np = LazyModule("numpy")
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside ``torch.compile``, data parallelism and moving averages; any other module as it is.

    Example:
        >>> inner = nn.Linear(2, 2)
        >>> unwrapped(nn.DataParallel(nn.DataParallel(inner))) is inner
        True
    """
    while True:
        inner = getattr(module, "_orig_mod", None)  # torch.compile's
        if not isinstance(inner, nn.Module) and isinstance(module, _wrappers()):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def representative(module: nn.Module, device: str | torch.device | None = None) -> Tensor:
    """A parameter of the device and dtype of a module's numbers: the first that is no integer, where there is one.

    Args:
        module: Any module.
        device: Where an empty tensor stands for a module without parameters.

    Example:
        >>> module = nn.Linear(2, 2)
        >>> module.places = nn.Parameter(torch.arange(2), requires_grad=False)
        >>> representative(module).dtype
        torch.float32
    """
    parameters = list(module.parameters())
    numbers = (each for each in parameters if each.is_floating_point() or each.is_complex())
    return next(numbers, parameters[0] if parameters else torch.zeros(0, device=device))


@cache
def _wrappers() -> tuple[type[nn.Module], ...]:
    from torch.optim.swa_utils import AveragedModel

    return nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel


def copied(module: nn.Module) -> nn.Module:
    """A deep copy without wrappers, in which computed tensors (a weight norm's weight, a cache) stand by themselves.

    Raises:
        ValueError: It can't be copied; the message says why, and what to do.
    """
    module = unwrapped(module)
    memo: dict[int, Any] = {}
    try:
        with torch.inference_mode(False):  # a copy made in that mode could not be differentiated
            for tensor in _computed_tensors(module):
                memo[id(tensor)] = tensor.detach().clone()  # torch refuses to copy what has a history
            duplicate: nn.Module = copy.deepcopy(module, memo)
    except Exception as error:  # a stranger's attributes may raise anything; it is passed on, with its cause
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{type(module).__name__} can't be copied ({type(error).__name__}: {reason}), and it must not be changed. "
            "Keep what can't be copied (locks, files, streams) out of its attributes, or give it a __deepcopy__"
        ) from error
    for part in list(duplicate.modules()):
        for name, child in part._modules.items():
            if child is not None:
                part._modules[name] = unwrapped(child)
    return duplicate


def _computed_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Tensors with a history among a module's attributes, also in lists, tuples and dicts."""
    pending: list[Any] = [vars(part) for part in module.modules()]
    seen: set[int] = set()
    while pending:
        value = pending.pop()
        if isinstance(value, torch.Tensor):
            if not value.is_leaf:
                yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, dict) else value


def unusable(module: nn.Module) -> str:
    """Why a module's weights can't be drawn or read, in a few words and what to do; empty where they can."""
    kind = type(module).__name__
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            return f"{kind} is TorchScript, which hides its layers; pass the module before scripting or tracing"
        if is_quantised(part):
            return f"{kind} is quantised, so its weights have no gradients; pass the module before quantisation"
    for tensor in (*module.parameters(), *module.buffers()):
        if nn.parameter.is_lazy(tensor):
            return f"{kind} has uninitialised parameters; run it once on an input"
        if tensor.is_meta:
            return f"{kind} is on the meta device and has no numbers; move it to one with module.to_empty(device='cpu')"
    return ""


def is_quantised(part: nn.Module) -> bool:
    """Whether a module's weights are integers of torch's quantisation."""
    home = type(part).__module__
    is_torchs = home.startswith(("torch.ao.nn.", "torch.nn.")) and "quantized" in home.split(".")
    return is_torchs or any(each.is_quantized for each in part._parameters.values() if each is not None)


class DrawWatch:
    """While open, notes whether this thread draws from the global random state of torch, Python or numpy.

    Attributes:
        has_drawn: Whether it has.

    Example:
        >>> with DrawWatch() as watch:
        ...     _ = torch.ones(2) + 1
        >>> watch.has_drawn
        False
        >>> from zeroshot_nas.core.seeding import preserved_rng
        >>> with preserved_rng(), DrawWatch() as watch:
        ...     _ = torch.rand(2)
        >>> watch.has_drawn
        True
    """

    def __init__(self) -> None:
        self.has_drawn = False

    def __enter__(self) -> DrawWatch:
        self._mode = _dispatch_class()(self._note)
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._is_profiled = sys.getprofile() is not None
        if self._is_profiled:
            self.has_drawn = True  # unknown: another profiler stands where Python's draws would be seen
        else:
            sys.setprofile(self._profile)
        return self

    def __exit__(self, *details: Any) -> None:
        if not self._is_profiled:
            sys.setprofile(None)
        self._mode.__exit__(*details)  # type: ignore[no-untyped-call]

    def _note(self) -> None:
        self.has_drawn = True

    def _profile(self, _frame: object, event: str, function: Any) -> None:
        if event == "c_call" and any(getattr(function, "__self__", None) is each for each in _generators()):
            self.has_drawn = True


@cache
def _generators() -> tuple[object, ...]:
    """What the functions of ``random`` and ``numpy.random`` are methods of."""
    return random.random.__self__, np.random.rand.__self__  # type: ignore[attr-defined]


@cache
def _dispatch_class() -> Callable[[Callable[[], None]], TorchDispatchMode]:
    from torch.utils._python_dispatch import TorchDispatchMode  # here: who derives from a class must load it

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self, note: Callable[[], None]) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self._note_draw = note

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if torch.Tag.nondeterministic_seeded in func.tags:
                self._note_draw()
            return func(*args, **(kwargs or {}))

    return Watch


class _Bypass:
    """How many threads want checkpoints bypassed, and what stands in torch's module otherwise."""

    lock = threading.Lock()
    users = 0
    originals: ClassVar[dict[str, Any]] = {}


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """While open, ``torch.utils.checkpoint`` runs its function plainly, without a second forward pass.

    That pass would run in the backward pass, when the weights and functions put in place for the first are gone. Values
    are the same. What is checkpointed meanwhile in another thread keeps its activations, and nothing else changes.
    """
    checkpoint = importlib.import_module("torch.utils.checkpoint")
    plainly = {"CheckpointFunction": _PlainCheckpoint, "_checkpoint_without_reentrant_generator": _plain_generator}
    with _Bypass.lock:
        if not _Bypass.users:
            _Bypass.originals = {name: getattr(checkpoint, name) for name in plainly}
            for name, value in plainly.items():
                setattr(checkpoint, name, value)
        _Bypass.users += 1
    try:
        yield
    finally:
        with _Bypass.lock:
            _Bypass.users -= 1
            if not _Bypass.users:
                for name, value in _Bypass.originals.items():
                    setattr(checkpoint, name, value)


class _PlainCheckpoint:
    """Stands for torch's reentrant checkpoint."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve: bool, *inputs: Any) -> Any:
        return function(*inputs)


def _plain_generator(*_inputs: Any, **_options: Any) -> Iterator[None]:
    """Stands for what torch does before and after the function of a checkpoint that is not reentrant."""
    yield
