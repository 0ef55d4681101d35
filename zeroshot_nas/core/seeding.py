"""Generators from a seed, and contexts that keep a computation from depending on, or changing, global state."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from zeroshot_nas.core.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
else:
    np = LazyModule("numpy")


def derive_seed(seed: int, *stream: int) -> int:
    """A 63-bit seed for one stream of a run, independent of every other stream's.

    Args:
        seed: The run's seed, 0 or more.
        stream: Numbers that name the stream, e.g. the repeat.

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(0, 2)
        (True, False)
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"a seed is an integer of 0 or more, got {seed!r}")
    state = np.random.SeedSequence(entropy=int(seed), spawn_key=stream).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def python_rng(seed: int, *stream: int) -> random.Random:
    """A ``random.Random`` for one stream; the search uses it, since a scalar draw costs a tenth of numpy's."""
    return random.Random(derive_seed(seed, *stream))


def uniform(seeds: Sequence[int], start: int, count: int) -> NDArray[np.float64]:
    """Numbers from 0 to 1 of many streams at once, ``(streams, count)``: of each those from ``start`` on.

    What a stream gives depends on its seed alone, neither on the others nor on how many are asked for at a time:
    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose numbers are counted.

    Example:
        >>> uniform([3, 4], 0, 4)[1, 2:].tolist() == uniform([4], 2, 2)[0].tolist()
        True
    """
    counted = np.arange(start + 1, start + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = np.array(seeds, np.uint64)[:, None] + counted
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53, np.float64)


def torch_generator(seed: int, *stream: int) -> torch.Generator:
    """A ``torch.Generator`` on the CPU for one stream, so that draws are the same on every device."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *stream))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Runs torch on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_torch_thread() -> AbstractContextManager[None]:
    """Runs torch on one thread: results are the same on every machine of a kind, and small networks run faster."""
    return torch_threads(1)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Runs torch as it starts: float32 by default, on the CPU, no autocast, no inference mode.

    Example:
        >>> import torch
        >>> with torch.inference_mode(), torch.autocast("cpu"), plain_torch():
        ...     (torch.ones(1, 1, requires_grad=True) @ torch.ones(1, 1)).dtype
        torch.float32
    """
    import torch

    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    with ExitStack() as contexts:
        contexts.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                contexts.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            contexts.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            contexts.callback(torch.set_default_dtype, dtype)
        if precision != "highest":
            torch.set_float32_matmul_precision("highest")
            contexts.callback(torch.set_float32_matmul_precision, precision)
        yield


def seed_global_rng(seed: int) -> None:
    """Seeds the global random state of Python, numpy and torch, for code that draws from it; see `preserved_rng`."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    # for each kind of device that is not here torch's own notes the whole call stack, and keeps it
    (torch.manual_seed if _has_accelerator() else torch.default_generator.manual_seed)(seed)


@cache
def _has_accelerator() -> bool:
    import torch

    return any(kind.is_available() for kind in (torch.cuda, torch.backends.mps, torch.xpu, torch.mtia))


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restores the global random state of Python, numpy and torch (CPU and CUDA) on the way out.

    What another thread draws meanwhile is drawn again: open it only around what may draw from the global state.

    Example:
        >>> before = random.getstate()
        >>> with preserved_rng():
        ...     _ = random.random()
        >>> random.getstate() == before
        True
    """
    restore = saved_rng()
    try:
        yield
    finally:
        restore()


def saved_rng() -> Callable[[], None]:
    """Notes the global random state of Python, numpy and torch; what is returned restores it."""
    torch = sys.modules.get("torch")  # what was never imported has no state to keep
    python_state, numpy_state = random.getstate(), np.random.get_state()  # the global state is the point
    torch_state = torch.get_rng_state() if torch else None
    cuda_states = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch and torch_state is not None:
            torch.set_rng_state(torch_state)
        if torch and cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)

    return restore
