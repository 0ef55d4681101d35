"""Feature maps: which tensors are one, the last that a module computes, and those that its blocks return."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.scoring.interception import intercepted

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")


class ShapeAndType(Protocol):
    """A tensor, or what autograd remembers of one."""

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...


def is_feature_map(x: ShapeAndType, axes: int | None = None) -> bool:
    """Whether a tensor is ``(N, C, *spatial)`` with more than one position.

    Args:
        x: The tensor.
        axes: How many it has in all, those of the network's inputs; None where any number will do.

    Example:
        >>> [is_feature_map(torch.zeros(shape), axes=4) for shape in ((2, 8, 4, 4), (2, 8, 1, 1), (2, 8, 4), (2, 8))]
        [True, False, False, False]
        >>> is_feature_map(torch.zeros(2, 8, 4))
        True
    """
    return axes in (None, len(x.shape)) and math.prod(x.shape[2:]) > 1 and x.dtype.is_floating_point


def feature_map(network: nn.Module, inputs: Tensor) -> Tensor:
    """The feature map before pooling, of any module.

    For a foreign module it is the last feature map (`is_feature_map`) of the inputs' axes that a torch function
    returns; for inputs without spatial axes the module's output.

    Args:
        network: Any module, no special methods needed.
        inputs: ``(N, C, H, W)``, ``(N, C, L)`` or ``(N, F)``.

    Raises:
        ProxyError: There is no feature map, and the output is no tensor.
    """
    from zeroshot_nas.network.module import Network  # here: it loads torch

    if isinstance(network, Network):
        return network.forward_features(inputs)
    last: Tensor | None = None

    def watch(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        nonlocal last
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and is_feature_map(result, axes=inputs.dim()):
            last = result
        return result

    with intercepted(watch):
        output = network(inputs)
    features = output if last is None else last
    if not isinstance(features, torch.Tensor):
        raise ProxyError(f"the module returns {type(features).__name__} and computes no feature map; expected a tensor")
    return features


class BlockOutputs:
    """What the blocks of a network return, in the order in which they run.

    A block is a member of the network or of its (nested) containers without a forward pass of their own, such as
    ``nn.Sequential``. What works on each value or channel by itself belongs to the block before it: every activation,
    norm and dropout of torch, a member that returns what it was given, unchanged, and a member of somebody else's type
    that has no parameters and keeps the shape. Before the first block it belongs to none. A member that runs twice is
    two blocks.

    Args:
        network: Any module; its members tell when they run, by `entered` and `left`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._names: dict[nn.Module, list[str]] = defaultdict(list)
        for name, member in _members(network):
            self._names[member].append(name)
        self._calls: dict[nn.Module, int] = defaultdict(int)
        self._given: list[tuple[Tensor | None, int]] = []  # of the members that run, with its version
        self._outputs: list[tuple[str, Tensor | None]] = []

    @property
    def members(self) -> list[nn.Module]:
        """The members, each once."""
        return list(self._names)

    def entered(self, given: Any) -> None:
        """A member starts on its first argument."""
        with torch._C.DisableTorchFunction():
            self._given.append((given, given._version) if isinstance(given, torch.Tensor) else (None, 0))

    def left(self, member: nn.Module, output: Any) -> None:
        """A member has returned; one that runs within another is part of that."""
        given, version = self._given.pop()
        if self._given:
            return
        name = self._next_name(member)
        result = output if isinstance(output, torch.Tensor) else None
        with torch._C.DisableTorchFunction():
            is_given = result is not None and result is given and result._version == version
        if not (is_given or _belongs_to_the_one_before(member, given, result)):
            self._outputs.append((name, result))
        elif self._outputs:
            self._outputs[-1] = name, result

    @property
    def maps(self) -> dict[str, Tensor]:
        """The tensors that they returned, by the name of the member that did; of one with several names in turn."""
        return {name: output for name, output in self._outputs if output is not None}

    def _next_name(self, member: nn.Module) -> str:
        names, call = self._names[member], self._calls[member]
        self._calls[member] += 1
        return names[call] if call < len(names) else f"{names[-1]} (call {call + 1})"


@cache
def _pointwise() -> tuple[type[nn.Module], ...]:
    """Torch's modules that belong to the one before them."""
    modules = nn.modules
    holders = (modules.activation, modules.batchnorm, modules.instancenorm, modules.normalization, modules.dropout)
    kinds = [kind for holder in holders for kind in vars(holder).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, nn.Module) and kind not in (nn.Module, nn.MultiheadAttention)]
    return nn.Identity, *(kind for kind in kinds if kind.__module__ in {holder.__name__ for holder in holders})


def _belongs_to_the_one_before(member: nn.Module, given: Tensor | None, output: Tensor | None) -> bool:
    if isinstance(member, _pointwise()):
        return True
    is_foreign = not type(member).__module__.startswith("torch.")
    is_bare = next(member.parameters(), None) is None and next(member.children(), None) is None
    shape = getattr(given, "shape", None)
    return is_foreign and is_bare and output is not None and output.shape == shape


def _members(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module._modules.items():  # not named_children: that names a shared one once
        if child is None:
            continue
        if isinstance(child, nn.Sequential) or type(child).forward is nn.Module.forward:
            yield from _members(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child
