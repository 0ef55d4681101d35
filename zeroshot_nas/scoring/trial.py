"""A first run of a stranger's module, which tells how it can be scored: in what layout, by chance or not, or not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroshot_nas.core.foreign import DrawWatch, without_checkpoints
from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.core.seeding import saved_rng
from zeroshot_nas.network.layout import has_unsafe_gradient
from zeroshot_nas.scoring.batch_norm import batch_statistics
from zeroshot_nas.scoring.interception import intercepted, is_in_place

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

_COLLECTIONS = (dict, OrderedDict, list, set)


class Trial(NamedTuple):
    """What a first run showed.

    Attributes:
        output: What the module returned; None where it failed.
        error: Why it failed; None where it did not.
        draws: Whether it draws from the global random state.
        needs_c_order: Whether it calls what crashes where channels come last in memory, or depends on strides: it reads
            them, or changes in place what is a view in one layout and a copy in the other.
    """

    output: Any
    error: Exception | None
    draws: bool
    needs_c_order: bool


def trial(network: nn.Module, inputs: Tensor) -> Trial:
    """Runs a module once, as proxies do; buffers and the global random state are as before.

    Args:
        network: Any module.
        inputs: Two inputs: a batch norm refuses one.
    """
    needs_c_order = False
    reshaped: list[Tensor] = []  # alive, so that no other tensor has their memory

    def watch(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        nonlocal needs_c_order
        needs_c_order |= func in _of_strides() or _crashes(func, args, kwargs)
        if reshaped and is_in_place(func, args, kwargs):
            needs_c_order |= any(_share_memory(each, args[0]) for each in reshaped)
        result = func(*args, **kwargs)
        if func in _copies_by_layout() and result.layout == torch.strided:
            reshaped.append(result)
        return result

    output: Any = None
    error = None
    restore, draws = saved_rng(), DrawWatch()
    state = ModuleState(network)
    try:
        with torch.no_grad(), without_checkpoints(), batch_statistics(network), draws, intercepted(watch):
            output = network(inputs)
    except Exception as raised:  # a stranger's forward may raise anything; whoever runs it again says so
        error = raised
    finally:
        state.restore()
        if draws.has_drawn:
            restore()
    return Trial(output, error, draws.has_drawn or error is not None, needs_c_order)


@cache
def _of_strides() -> frozenset[Callable[..., Any]]:
    """Functions that read how a tensor lies in memory."""
    of_tensor = torch.Tensor
    return frozenset({torch.as_strided, of_tensor.as_strided, of_tensor.stride, of_tensor.is_contiguous})


@cache
def _copies_by_layout() -> frozenset[Callable[..., Any]]:
    """Functions that return a view or a copy, as a tensor lies: who then changes it in place may change the tensor."""
    of_tensor = torch.Tensor
    functions = (torch.reshape, torch.flatten, torch.ravel, of_tensor.reshape, of_tensor.flatten, of_tensor.ravel)
    return frozenset((*functions, of_tensor.reshape_as, of_tensor.contiguous))


def _share_memory(one: Tensor, other: object) -> bool:
    if not isinstance(other, torch.Tensor) or other.layout != torch.strided:
        return False
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)


def _crashes(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether torch 2.13 may crash as it differentiates a call for weights alone where channels come last."""
    if func is nn.functional.group_norm:
        return True
    if func is not torch.conv2d:
        return False
    weight = args[1] if len(args) > 1 else kwargs["weight"]
    stride = args[3] if len(args) > 3 else kwargs.get("stride", 1)
    return has_unsafe_gradient(weight.shape[2:], (stride,) if isinstance(stride, int) else stride, weight.shape[1])


class ModuleState:
    """All that a module holds but its parameters' values, noted, so that it can be restored.

    A proxy that runs a module may leave traces in it: buffers that a forward pass changes, computed weights, caches,
    hooks. Without them the next proxy has the value that it has alone.
    """

    def __init__(self, network: nn.Module) -> None:
        parts = list(network.modules())
        self._attributes = [(part, dict(vars(part))) for part in parts]
        collections = (value for part in parts for value in vars(part).values() if type(value) in _COLLECTIONS)
        self._collections = [(value, value.copy()) for value in collections]
        self._buffers = [(each, each._version, each.clone()) for each in network.buffers()]

    def restore(self) -> None:
        """Puts everything back."""
        for part, kept in self._attributes:
            vars(part).clear()
            vars(part).update(kept)
        for collection, members in self._collections:  # in place: a handle of a hook knows the dict that it is in
            if collection or members:
                collection.clear()
                collection.extend(members) if isinstance(collection, list) else collection.update(members)
        with torch.no_grad():
            for buffer, version, values in self._buffers:
                if buffer._version != version:
                    buffer.copy_(values)
