"""One forward pass and its backward passes, recorded, so that many proxies read the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zeroshot_nas.errors import ProxyError, did_you_mean

_RELUS = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, nn.functional.relu, nn.functional.relu_}
_CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d}
_ELEMENTWISE = (
    nn.modules.batchnorm._NormBase,
    nn.ReLU,
    nn.ReLU6,
    nn.Sigmoid,
    nn.SiLU,
    nn.Hardswish,
    nn.GELU,
    nn.Dropout,
)


class Layer(NamedTuple):
    """One call of a convolution or linear layer.

    Attributes:
        weight: Its weight, ``(out, in / groups, *kernel)`` or ``(out, in)``.
        output: What it returned, ``(N, C, *spatial)`` or ``(N, C)``.
    """

    weight: Tensor
    output: Tensor


class Passes:
    """The passes of one network on one batch; each runs once, when it is first read.

    ReLUs, convolutions and linear layers are seen where torch is called, so functional ones count like modules.

    Args:
        network: Any module, in the mode in which it is to be run.
        inputs: ``(N, C, *spatial)`` or ``(N, F)``.
        targets: Labels ``(N,)`` for `loss`.
        differentiable: Whether the forward pass keeps what a backward pass needs.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, targets: Tensor | None, differentiable: bool) -> None:
        self.network = network
        self.given = inputs  # kept, so that no other tensor takes its place in memory
        self.inputs = inputs.detach().requires_grad_(differentiable)
        self.targets = targets
        self.differentiable = differentiable

    @cached_property
    def forward(self) -> Forward:
        """The recorded forward pass."""
        with torch.set_grad_enabled(self.differentiable):
            return Forward(self.network, self.inputs)

    @property
    def logits(self) -> Tensor:
        """The network's output ``(N, num_classes)``.

        Raises:
            ProxyError: The output is not a matrix.
        """
        output = self.forward.output
        if not isinstance(output, Tensor) or output.dim() != 2:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ProxyError(f"expected logits (N, num_classes) from {type(self.network).__name__}, got {got}")
        return output

    @cached_property
    def loss(self) -> Tensor:
        """Mean cross-entropy of the logits.

        Raises:
            ProxyError: There are no targets, or they don't fit the logits.
        """
        logits, targets = self.logits, self.targets
        if targets is None:
            raise ProxyError("the loss needs labels: Batch(inputs, targets)")
        if targets.shape != logits.shape[:1] or not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1]:
            raise ProxyError(
                f"expected {len(logits)} labels from 0 to {logits.shape[1] - 1}, got {tuple(targets.shape)} "
                f"from {int(targets.min())} to {int(targets.max())}"
            )
        return nn.functional.cross_entropy(logits, targets)

    @cached_property
    def weights(self) -> list[Tensor]:
        """Weights of the convolutions and linear layers that ran, each once, in order of execution."""
        return list({id(layer.weight): layer.weight for layer in self.forward.layers}.values())

    @cached_property
    def weight_gradients(self) -> list[Tensor]:
        """The loss's gradient for each of `weights`; zeros where the loss does not depend on one."""
        return self._loss_gradients[0]

    @cached_property
    def output_gradients(self) -> list[Tensor]:
        """The loss's gradient for the output of each of the forward pass's layers."""
        return self._loss_gradients[1]

    @cached_property
    def parameter_gradients(self) -> list[Tensor]:
        """The loss's gradient for every parameter, in order of registration."""
        return self._loss_gradients[2]

    @cached_property
    def _loss_gradients(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        weights, outputs = self.weights, [layer.output for layer in self.forward.layers]
        known = {id(weight) for weight in weights}
        others = [each for each in self.network.parameters() if id(each) not in known and each.requires_grad]
        gradients = self.backward(self.loss, [*weights, *outputs, *others])
        by_weight, rest = gradients[: len(weights)], gradients[len(weights) :]
        found = {id(each): gradient for each, gradient in zip(weights, by_weight, strict=True)}
        found.update({id(each): gradient for each, gradient in zip(others, rest[len(outputs) :], strict=True)})
        by_parameter = [found[id(each)] for each in self.network.parameters() if id(each) in found]
        return by_weight, rest[: len(outputs)], by_parameter

    @cached_property
    def input_gradients(self) -> Tensor:
        """The gradient of the sum of all logits for the inputs, of their shape: one row a sample."""
        return self.backward(self.logits.sum(), [self.inputs])[0]

    def backward(
        self, output: Tensor, sources: Sequence[Tensor], output_gradient: Tensor | None = None
    ) -> list[Tensor]:
        """Gradients of an output of the forward pass; its graph stays for further ones.

        Raises:
            ProxyError: The forward pass kept no graph: the proxy was registered without ``needs_gradients``.
        """
        if not self.differentiable:
            raise ProxyError("this proxy differentiates; register it with needs_gradients=True")
        sources = list(sources)
        found = torch.autograd.grad(output, sources, output_gradient, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(source) if each is None else each for source, each in zip(sources, found, strict=True)]


class Forward:
    """A forward pass with what proxies read of it.

    Attributes:
        output: What the network returned.
    """

    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        self._network = network
        self._dimensions = inputs.dim()
        self._relus: list[Tensor] = []
        self._layers: list[Layer] = []
        self._modules: list[tuple[nn.Module, Tensor]] = []
        self._named: dict[str, Tensor] = {}
        self._versions: dict[int, int] = {}
        self._changed: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # by the old one's id: the old, which lives on, and the new
        handles = [module.register_forward_hook(self._hook(name)) for name, module in network.named_modules() if name]
        try:
            with _Recorder(self):
                self.output = self._current(network(inputs))
        finally:
            for handle in handles:
                handle.remove()

    @cached_property
    def relus(self) -> list[Tensor]:
        """Results of all ReLU calls, in order."""
        return self._unchanged(self._relus)

    @cached_property
    def layers(self) -> list[Layer]:
        """Calls of convolutions and linear layers, in order."""
        self._unchanged([layer.output for layer in self._layers])
        return self._layers

    @cached_property
    def modules(self) -> list[tuple[nn.Module, Tensor]]:
        """Every module without children that ran, with its output, in order."""
        self._unchanged([output for _, output in self._modules])
        return self._modules

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """Feature maps that the network's blocks return, by name.

        Blocks are the members of the network and of its (nested) Sequentials; a norm or an activation belongs to the
        member before it.
        """
        found = {name: self._named[name] for name in _blocks(self._network) if name in self._named}
        maps = {name: x for name, x in found.items() if x.dim() == self._dimensions and x.shape[2:].numel() > 1}
        self._unchanged(list(maps.values()))
        return maps

    def outputs(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of modules by name, the last call of each.

        Raises:
            ProxyError: No module of that name ran.
        """
        for name in names:
            if name not in self._named:
                known = ", ".join(self._named)
                raise ProxyError(f"no module {name!r} returned a tensor.{did_you_mean(name, self._named)} Ran: {known}")
        found = {name: self._named[name] for name in names}
        self._unchanged(list(found.values()))
        return found

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Runs one torch function, out of place: what was there before is still to be read.

        What the network then finds under the old tensor is the new one, as if it had been changed.
        """
        if self._changed:
            args = [self._current(argument) for argument in args]
            kwargs = {name: self._current(argument) for name, argument in kwargs.items()}
        if func in _RELUS:
            x = args[0] if args else kwargs["input"]
            result = torch.relu(x)
            self._relus.append(self.keep(result))
            if func.__name__ == "relu_" or kwargs.get("inplace") or True in args[1:]:
                self._changed[id(x)] = (x, result)
            return result
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and args and self._is_known(args[0]):
            out_of_place = getattr(Tensor, name[:-1], None)
            if out_of_place is not None and args[0]._base is None:
                result = out_of_place(*args, **kwargs)
                self._changed[id(args[0])] = (args[0], result)
                return result
        result = func(*args, **kwargs)
        if func in _CONVOLUTIONS or func is nn.functional.linear:
            self._layers.append(Layer(args[1] if len(args) > 1 else kwargs["weight"], self.keep(result)))
        return result

    def _is_known(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and id(tensor) in self._versions

    def _current(self, value: Any) -> Any:
        """A tensor as the network would see it; lists and tuples member by member."""
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return type(value)(self._current(each) for each in value)
        while isinstance(value, Tensor) and id(value) in self._changed:
            value = self._changed[id(value)][1]
        return value

    def keep(self, tensor: Tensor) -> Tensor:
        """Notes a tensor's version, so that a later change in place is noticed."""
        self._versions.setdefault(id(tensor), tensor._version)
        return tensor

    def _unchanged(self, tensors: list[Tensor]) -> list[Tensor]:
        if any(self._versions[id(tensor)] != tensor._version for tensor in tensors):
            raise ProxyError(
                "the module changes part of a feature map in place, so that its value is lost to this proxy. Use the "
                "form that returns a new tensor"
            )
        return tensors

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def read(module: nn.Module, _: Any, output: Any) -> None:
            output = self._current(output)
            if isinstance(output, Tensor):
                self._named[name] = self.keep(output)
                if not any(True for _ in module.children()):
                    self._modules.append((module, output))

        return read


class _Recorder(TorchFunctionMode):
    """Hands every call of a torch function to a record."""

    def __init__(self, record: Forward) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.record.call(func, args, kwargs or {})


def _blocks(network: nn.Module) -> list[str]:
    """Names of a network's blocks, in order of registration; see `Forward.features`."""
    members = list(_members(network, ""))
    return [
        name
        for index, (name, _) in enumerate(members)
        if index + 1 == len(members) or not isinstance(members[index + 1][1], _ELEMENTWISE)
    ]


def _members(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _members(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


_SHARED: ContextVar[dict[tuple[int, int, bool], Passes] | None] = ContextVar("shared passes", default=None)
_DIFFERENTIABLE: ContextVar[bool] = ContextVar("whether shared passes are differentiable", default=False)


@contextmanager
def shared_passes(differentiable: bool) -> Iterator[None]:
    """While open, `passes` of one network and one batch are the same object; weights must not change meanwhile.

    Args:
        differentiable: Whether any of the proxies that share them differentiates.
    """
    shared, kind = _SHARED.set({}), _DIFFERENTIABLE.set(differentiable)
    try:
        yield
    finally:
        _SHARED.reset(shared)
        _DIFFERENTIABLE.reset(kind)


def passes(network: nn.Module, inputs: Tensor, targets: Tensor | None = None) -> Passes:
    """The passes of a network on inputs; within one call of ``score`` all proxies get the same.

    Args:
        network: The module that the proxy was given.
        inputs: The batch's inputs.
        targets: The batch's labels.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU())
        >>> [tuple(each.shape) for each in passes(network, torch.zeros(2, 3, 8, 8)).forward.relus]
        [(2, 4, 6, 6), (2, 2, 4, 4)]
    """
    shared = _SHARED.get()
    if shared is None:
        return Passes(network, inputs, targets, torch.is_grad_enabled())
    key = (id(network), id(inputs), network.training)
    if key not in shared:
        shared[key] = Passes(network, inputs, targets, _DIFFERENTIABLE.get())
    found = shared[key]
    if found.targets is None:
        found.targets = targets
    return found
