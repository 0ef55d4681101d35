"""One forward pass and its backward passes, recorded, so that many proxies read the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, did_you_mean
from zeroshot_nas.scoring.interception import Interception

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")

READS = frozenset({"relus", "layers", "modules", "features", "weight_gradients", "parameter_gradients"})
"""What of a network's passes a proxy may read; what none of a call's proxies reads is not kept, which saves time."""


@cache
def _relu_functions() -> frozenset[Callable[..., Any]]:
    functional = nn.functional
    return frozenset(
        {torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, functional.relu, functional.relu_}
    )


@cache
def _layer_functions() -> frozenset[Callable[..., Any]]:
    return frozenset({torch.conv1d, torch.conv2d, torch.conv3d, nn.functional.linear})


@cache
def _elementwise() -> tuple[type[nn.Module], ...]:
    activations = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.SiLU, nn.Hardswish, nn.GELU)
    return (nn.modules.batchnorm._NormBase, *activations, nn.Dropout)


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
        reads: What will be read of them, of `READS`.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        targets: Tensor | None,
        differentiable: bool,
        reads: frozenset[str] = READS,
    ) -> None:
        self.network = network
        self.reads = reads
        self.given = inputs  # kept, so that no other tensor takes its place in memory
        self.inputs = inputs.detach().requires_grad_(differentiable)
        self.targets = targets
        self.differentiable = differentiable
        self._everything: Passes | None = None

    @cached_property
    def forward(self) -> Forward:
        """The recorded forward pass."""
        with torch.set_grad_enabled(self.differentiable):
            return Forward(self.network, self.inputs, self.reads)

    @property
    def logits(self) -> Tensor:
        """The network's output ``(N, num_classes)``.

        Raises:
            ProxyError: The output is not a matrix.
        """
        output = self.forward.output
        if not isinstance(output, torch.Tensor) or output.dim() != 2:
            got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
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
        with torch.set_grad_enabled(self.differentiable):
            return nn.functional.cross_entropy(logits, targets)

    @cached_property
    def weights(self) -> list[Tensor]:
        """Weights of the convolutions and linear layers that ran, each once, in order of execution."""
        return list({id(weight): weight for weight in self.forward.weights}.values())

    @cached_property
    def weight_gradients(self) -> list[Tensor]:
        """The loss's gradient for each of `weights`; zeros where the loss does not depend on one."""
        return self._loss_gradients("weight_gradients", self.weights)

    @cached_property
    def output_gradients(self) -> list[Tensor]:
        """The loss's gradient for the output of each of the forward pass's layers."""
        return self._loss_gradients("layers", [layer.output for layer in self.forward.layers])

    @cached_property
    def parameter_gradients(self) -> list[Tensor]:
        """The loss's gradient for every parameter that has one, in order of registration."""
        return self._loss_gradients("parameter_gradients", _trainable(self.network))

    def _loss_gradients(self, kind: str, sources: Sequence[Tensor]) -> list[Tensor]:
        if kind not in self.reads:
            raise ProxyError(f"this proxy reads {kind}; name it in register_proxy(reads=...)")
        return [self._gradients[id(source)] for source in sources]

    @cached_property
    def _gradients(self) -> dict[int, Tensor]:
        """The loss's gradient for all that is read, by the tensor's id, from one backward pass."""
        sources: dict[int, Tensor] = {}
        if "weight_gradients" in self.reads:
            sources.update((id(weight), weight) for weight in self.weights)
        if "layers" in self.reads:
            sources.update((id(layer.output), layer.output) for layer in self.forward.layers)
        if "parameter_gradients" in self.reads:
            sources.update((id(parameter), parameter) for parameter in _trainable(self.network))
        return dict(zip(sources, self.backward(self.loss, list(sources.values())), strict=True))

    @cached_property
    def input_gradients(self) -> Tensor:
        """The gradient of the sum of all logits for the inputs, of their shape: one row a sample."""
        with torch.set_grad_enabled(self.differentiable):
            total = self.logits.sum()
        return self.backward(total, [self.inputs])[0]

    def outputs(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of modules by name, from one forward pass of their own.

        Raises:
            ProxyError: No module of that name ran.
        """
        if self.reads == READS:
            return self.forward.outputs(names)
        if self._everything is None:
            self._everything = Passes(self.network, self.given, self.targets, self.differentiable)
        return self._everything.outputs(names)

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
        weights: Weights of the convolutions and linear layers, one for each call, in order.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, reads: frozenset[str] = READS) -> None:
        self.weights: list[Tensor] = []
        self._network = network
        self._reads = reads
        self._dimensions = inputs.dim()
        self._relus: list[Tensor] = []
        self._last_relu: Tensor | None = None
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

    def _watched(self) -> Iterator[tuple[str, nn.Module]]:
        """Modules whose outputs are kept."""
        blocks = set(_blocks(self._network)) if "features" in self._reads else set()
        for name, module in self._network.named_modules():
            if name and (self._reads == READS or name in blocks or ("modules" in self._reads and _is_leaf(module))):
                yield name, module

    @cached_property
    def relus(self) -> list[Tensor]:
        """Which units are on after each ReLU call, in order: booleans ``(N, ...)``.

        Raises:
            UndefinedScoreError: The last ReLU's result has a NaN.
        """
        self._expect("relus")
        if self._last_relu is not None and self._last_relu.isnan().any():
            raise UndefinedScoreError("the last ReLU's result is not a number")
        return self._relus

    @cached_property
    def layers(self) -> list[Layer]:
        """Calls of convolutions and linear layers, in order."""
        self._expect("layers")
        self._unchanged([layer.output for layer in self._layers])
        return self._layers

    @cached_property
    def modules(self) -> list[tuple[nn.Module, Tensor]]:
        """Every module without children that ran, with its output, in order."""
        self._expect("modules")
        self._unchanged([output for _, output in self._modules])
        return self._modules

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """Feature maps that the network's blocks return, by name.

        Blocks are the members of the network and of its (nested) Sequentials; a norm or an activation belongs to the
        member before it.
        """
        self._expect("features")
        found = {name: self._named[name] for name in _blocks(self._network) if name in self._named}
        maps = {name: x for name, x in found.items() if x.dim() == self._dimensions and x.shape[2:].numel() > 1}
        self._unchanged(list(maps.values()))
        return maps

    def outputs(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of modules by name, the last call of each; all are kept only where everything is read.

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
        if func in _relu_functions():
            x = args[0] if args else kwargs["input"]
            result = torch.relu(x)
            if "relus" in self._reads:
                self._relus.append(result.detach() > 0)
                self._last_relu = result
            self._versions.setdefault(id(result), result._version)
            if func.__name__ == "relu_" or kwargs.get("inplace") or True in args[1:]:
                self._changed[id(x)] = (x, result)
            return result
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and args and self._is_known(args[0]):
            out_of_place = getattr(torch.Tensor, name[:-1], None)
            if out_of_place is not None and args[0]._base is None:
                result = out_of_place(*args, **kwargs)
                self._changed[id(args[0])] = (args[0], result)
                return result
        result = func(*args, **kwargs)
        if func in _layer_functions():
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self.weights.append(weight)
            if "layers" in self._reads:
                self._layers.append(Layer(weight, self.keep(result)))
        return result

    def _is_known(self, tensor: Any) -> bool:
        return isinstance(tensor, torch.Tensor) and id(tensor) in self._versions

    def _current(self, value: Any) -> Any:
        """A tensor as the network would see it; lists and tuples member by member."""
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return type(value)(self._current(each) for each in value)
        while isinstance(value, torch.Tensor) and id(value) in self._changed:
            value = self._changed[id(value)][1]
        return value

    def keep(self, tensor: Tensor) -> Tensor:
        """Notes a tensor's version, so that a later change in place is noticed."""
        self._versions.setdefault(id(tensor), tensor._version)
        return tensor

    def _expect(self, kind: str) -> None:
        if kind not in self._reads:
            raise ProxyError(f"this proxy reads {kind}; name it in register_proxy(reads=...)")

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
            if isinstance(output, torch.Tensor):
                self._named[name] = self.keep(output)
                if _is_leaf(module):
                    self._modules.append((module, output))

        return read


class _Recorder(Interception):
    """Hands every call of a torch function to a record."""

    def __init__(self, record: Forward) -> None:
        self.record = record

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.record.call(func, args, kwargs or {})


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _blocks(network: nn.Module) -> list[str]:
    """Names of a network's blocks, in order of registration; see `Forward.features`."""
    members = list(_members(network, ""))
    return [
        name
        for index, (name, _) in enumerate(members)
        if index + 1 == len(members) or not isinstance(members[index + 1][1], _elementwise())
    ]


def _members(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _members(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


class _Shared(NamedTuple):
    """Passes that the proxies of one call share."""

    differentiable: bool
    reads: frozenset[str]
    known: dict[tuple[int, int, bool], Passes]


_SHARED: ContextVar[_Shared | None] = ContextVar("shared passes", default=None)


@contextmanager
def shared_passes(differentiable: bool, reads: frozenset[str] = READS) -> Iterator[None]:
    """While open, `passes` of one network and one batch are the same object; weights must not change meanwhile.

    Args:
        differentiable: Whether any of the proxies that share them differentiates.
        reads: What any of them reads.
    """
    token = _SHARED.set(_Shared(differentiable, reads, {}))
    try:
        yield
    finally:
        _SHARED.reset(token)


def _differ(known: Tensor | None, targets: Tensor | None) -> bool:
    return known is not None and targets is not None and known is not targets


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
    if key not in shared.known or _differ(shared.known[key].targets, targets):
        shared.known[key] = Passes(network, inputs, targets, shared.differentiable, shared.reads)
    found = shared.known[key]
    if found.targets is None:
        found.targets = targets
    return found
