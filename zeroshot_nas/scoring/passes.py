"""One forward pass and its backward passes, recorded, so that many proxies read the same ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroshot_nas.core.lazy import LazyModule
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, did_you_mean
from zeroshot_nas.scoring.feature_map import BlockOutputs, is_feature_map
from zeroshot_nas.scoring.interception import KeptTensors, intercepted
from zeroshot_nas.scoring.relu_patterns import units_on
from zeroshot_nas.scoring.twice import hardsigmoid

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")


@cache
def _kinds() -> dict[Callable[..., Any], str]:
    """Torch's functions that a recorded pass treats in a way of their own."""
    functional = nn.functional
    relus = torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, functional.relu, functional.relu_
    layers = torch.conv1d, torch.conv2d, torch.conv3d, functional.linear
    norms = torch.batch_norm, functional.batch_norm
    return {
        **dict.fromkeys(relus, "relu"),
        **dict.fromkeys(layers, "layer"),
        **dict.fromkeys(norms, "batch norm"),
        functional.hardsigmoid: "hardsigmoid",
    }


@cache
def _fast_twice() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Functions of torch whose second derivative is slow, and their like."""
    from zeroshot_nas.scoring.double_backward import batch_norm, convolution  # here: it loads torch

    convolutions = dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), convolution)
    return {**convolutions, nn.functional.batch_norm: batch_norm}


class LayerCall(NamedTuple):
    """One call of a convolution or linear layer.

    Attributes:
        weight: Its weight, ``(out, in / groups, *kernel)`` or ``(out, in)``.
        output: What it returned, ``(N, C, *spatial)`` or ``(N, C)``.
    """

    weight: Tensor
    output: Tensor


class Passes:
    """The passes of one network on one batch; each runs once, when it is first read.

    Activations, convolutions and linear layers are seen where torch is called, so functional ones count like modules.

    Args:
        network: Any module, in the mode in which it is to be run.
        inputs: ``(N, C, *spatial)`` or ``(N, F)``.
        targets: Labels ``(N,)`` for `loss`.
        differentiable: Whether the forward pass keeps what a backward pass needs.
        reads: What will be read of them, of `zeroshot_nas.scoring.proxy.READS`.
        twice: Whether functions that torch differentiates once, or slowly twice, are replaced by their like with two
            derivatives, for those of weights.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        targets: Tensor | None,
        differentiable: bool,
        reads: frozenset[str],
        *,
        twice: bool = False,
    ) -> None:
        self._twice = twice
        self.network = network
        self.reads = reads
        self.given = inputs
        differentiates_inputs = differentiable and not twice and (inputs.is_floating_point() or inputs.is_complex())
        self.inputs = inputs.detach().requires_grad_(differentiates_inputs)
        self.targets = targets
        self.differentiable = differentiable

    @cached_property
    def forward(self) -> RecordedPass:
        """The recorded forward pass; attention runs by its formula, since fused it has no second derivative."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with torch.set_grad_enabled(self.differentiable), sdpa_kernel(SDPBackend.MATH):
            images = self.inputs.clone()  # a module may write into what it is given
            return RecordedPass(self.network, images, self.reads, twice=self._twice)

    @cached_property
    def differentiable_twice(self) -> Passes:
        """Passes of the same values, to differentiate twice for weights."""
        return Passes(self.network, self.given, self.targets, self.differentiable, self.reads, twice=True)

    @property
    def logits(self) -> Tensor:
        """The network's output ``(N, num_classes)``.

        Raises:
            ProxyError: The output is not a matrix.
        """
        output = self.forward.output
        if not isinstance(output, torch.Tensor) or output.dim() != 2:
            raise ProxyError(expected_logits(self.network, output))
        return output

    @cached_property
    def loss(self) -> Tensor:
        """Mean cross-entropy of the logits.

        Raises:
            ProxyError: There are no targets, or they don't fit the logits.
            UndefinedScoreError: There is one logit: its cross-entropy is 0 whatever the weights are.
        """
        logits, targets = self.logits, self.targets
        if logits.shape[1] == 1:
            raise UndefinedScoreError("the loss of one class is constant; score a network of two or more classes")
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

    def same_layers(self, other: Passes) -> bool:
        """Whether another pass ran the same layers in the same order, as far as weights tell.

        What is made of parameters at every call, as a weight norm does, is another tensor each time: its shape counts.
        """
        sides = [[id(each) if each.is_leaf else each.shape for each in run.weights] for run in (self, other)]
        return sides[0] == sides[1]

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
        if "layers" in self.reads and self.forward.keeps_layers:  # else whoever reads them is told why there are none
            sources.update((id(layer.output), layer.output) for layer in self.forward.layers)
        if "parameter_gradients" in self.reads:
            sources.update((id(parameter), parameter) for parameter in _trainable(self.network))
        return dict(zip(sources, self.backward(self.loss, list(sources.values())), strict=True))

    @cached_property
    def input_gradients(self) -> Tensor:
        """The gradient of the sum of all logits for the inputs, of their shape: one row a sample.

        Raises:
            ProxyError: The inputs are integers.
        """
        if self.differentiable and not self.inputs.requires_grad:
            raise ProxyError(f"inputs of type {self.inputs.dtype} have no gradient; use a proxy that reads weights'")
        with torch.set_grad_enabled(self.differentiable):
            total = self.logits.sum()
        return self.backward(total, [self.inputs])[0]

    def outputs(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of modules by name; from a forward pass of their own unless outputs are among what is read.

        Raises:
            ProxyError: No module of that name ran.
        """
        passes = self if "outputs" in self.reads else self._with_outputs
        return passes.forward.outputs(names)

    @cached_property
    def _with_outputs(self) -> Passes:
        return Passes(self.network, self.given, self.targets, self.differentiable, frozenset({"outputs"}))

    def backward(
        self, output: Tensor, sources: Sequence[Tensor], output_gradient: Tensor | None = None
    ) -> list[Tensor]:
        """Gradients of an output of the forward pass; its graph stays for further ones.

        Raises:
            ProxyError: The forward pass kept no graph: the proxy was registered without ``needs_gradients``.
        """
        if not self.differentiable:
            raise ProxyError("this proxy differentiates; register it with needs_gradients=True")
        check_differentiable(self.network, output)
        gradients = {id(source): torch.zeros_like(source) for source in sources if not source.requires_grad}
        reached = [source for source in sources if source.requires_grad]  # what ran under no_grad has none
        if reached:
            found = torch.autograd.grad(output, reached, output_gradient, retain_graph=True, allow_unused=True)
            for source, gradient in zip(reached, found, strict=True):
                gradients[id(source)] = torch.zeros_like(source) if gradient is None else gradient
        return [gradients[id(source)] for source in sources]


def check_differentiable(network: nn.Module, output: Tensor) -> None:
    """Refuses an output that is not differentiable.

    Raises:
        ProxyError: It is not.
    """
    if not output.requires_grad:
        kind = type(network).__name__
        raise ProxyError(
            f"{kind} returns what has no gradient: its forward runs under no_grad, or detaches; take that out"
        )


def expected_logits(network: nn.Module, output: object) -> str:
    """What is wrong with an output that is no matrix of logits."""
    got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
    return f"expected logits (N, num_classes) from {type(network).__name__}, got {got}"


class RecordedPass:
    """A forward pass with what proxies read of it.

    Attributes:
        output: What the network returned.
        weights: Weights of the convolutions and linear layers, one for each call, in order.

    Args:
        network: Any module.
        inputs: As of `Passes`.
        reads: As of `Passes`.
        twice: As of `Passes`.
        norms: Whether batch norms run; else they return a copy of their input.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        reads: frozenset[str],
        *,
        twice: bool = False,
        norms: bool = True,
    ) -> None:
        self._twice = twice
        self._norms = norms
        self.weights: list[Tensor] = []
        self._reads = reads
        self._axes = inputs.dim()
        self._relus: list[Tensor] = []
        self._last_relu: Tensor | None = None
        self._layers: list[LayerCall] = []
        self._modules: list[tuple[nn.Module, Tensor]] = []
        self._named: dict[nn.Module, list[Tensor]] = defaultdict(list)
        self._names = _names(network)
        self._kept = KeptTensors()
        modules = {module: names for module, names in self._names.items() if module is not network}
        handles = [module.register_forward_hook(self._hook(len(names))) for module, names in modules.items()]
        if "features" in reads:
            self._blocks = BlockOutputs(network)
            for member in self._blocks.members:
                handles.append(member.register_forward_pre_hook(self._block_pre_hook))
                handles.append(member.register_forward_hook(self._block_hook))
        try:
            with intercepted(self._call):
                self.output = self._kept.current(network(inputs))
        finally:
            for handle in handles:
                handle.remove()

    @cached_property
    def relus(self) -> list[Tensor]:
        """Which units are on in each call of a ReLU or its like, in order: booleans ``(N, ...)``; see `units_on`.

        Raises:
            UndefinedScoreError: The last one's result has a NaN.
        """
        self._expect("relus")
        if self._last_relu is not None and self._last_relu.isnan().any():
            raise UndefinedScoreError("the last activation's result is not a number")
        return self._relus

    @cached_property
    def layers(self) -> list[LayerCall]:
        """Calls of convolutions and linear layers, in order."""
        self._expect("layers")
        self._kept.check(*(layer.output for layer in self._layers))
        return self._layers

    @property
    def keeps_layers(self) -> bool:
        """Whether the outputs of `layers` are as the layers returned them."""
        return self._kept.are_unchanged(*(layer.output for layer in self._layers))

    @cached_property
    def modules(self) -> list[tuple[nn.Module, Tensor]]:
        """Every module without children that ran, with its output, in order."""
        self._expect("modules")
        self._kept.check(*(output for _, output in self._modules))
        return self._modules

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """Feature maps that the network's blocks return, by name, in order; see `BlockOutputs`."""
        self._expect("features")
        outputs = self._blocks.maps
        maps = {name: output for name, output in outputs.items() if is_feature_map(output, axes=self._axes)}
        self._kept.check(*maps.values())
        return maps

    def outputs(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of modules by name, the last call of each; of a module with several names its last calls in turn.

        Raises:
            ProxyError: No module of that name ran.
        """
        self._expect("outputs")
        ran = {
            name: output
            for module, outputs in self._named.items()
            for name, output in zip(self._names[module], outputs, strict=False)
        }
        for name in names:
            if name not in ran:
                hint = did_you_mean(name, ran)
                raise ProxyError(f"no module {name!r} returned a tensor.{hint} Ran: {', '.join(ran)}")
        outputs = {name: ran[name] for name in names}
        self._kept.check(*outputs.values())
        return outputs

    def _expect(self, kind: str) -> None:
        if kind not in self._reads:
            raise ProxyError(f"this proxy reads {kind}; name it in register_proxy(reads=...)")

    def _call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Runs one torch function, out of place where it would change what is read, and notes it."""
        if self._kept.has_replaced:
            args = [self._kept.current(argument) for argument in args]
            kwargs = {name: self._kept.current(argument) for name, argument in kwargs.items()}
        kind = _kinds().get(func)
        if kind == "relu":
            return self._relu(func, args, kwargs)
        if self._twice and kind == "hardsigmoid":
            return self._replaced(hardsigmoid, func, args, kwargs)
        if kind == "batch norm" and not self._norms:
            return (args[0] if args else kwargs["input"]).clone()
        on = units_on(func, args, kwargs) if "relus" in self._reads else None  # before it runs, which may be in place
        result = self._kept.run(_fast_twice().get(func, func) if self._twice else func, args, kwargs)
        if on is not None:
            self._relus.append(on)
            self._last_relu = result
        if kind == "layer":
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self.weights.append(weight)
            self._kept.keep(result)
            if "layers" in self._reads:
                self._layers.append(LayerCall(weight, result))
        return result

    def _relu(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        result = self._replaced(torch.relu, func, args, kwargs)
        self._kept.keep(result)
        if "relus" in self._reads:
            self._relus.append(result.detach().bool())  # the fastest of the ways to ask for what is above zero
            self._last_relu = result
        return result

    def _replaced(
        self,
        other: Callable[[Tensor], Tensor],
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Tensor:
        """What another function returns in place of one that may be in place."""
        x = args[0] if args else kwargs["input"]
        if not (func.__name__ == "relu_" or kwargs.get("inplace") or True in args[1:]):
            return other(x)
        given = self._kept.before_change(x)
        self._kept.replace(given, other(given))
        return self._kept.current(x)  # type: ignore[no-any-return]

    def _hook(self, names: int) -> Callable[[nn.Module, Any, Any], None]:
        """Keeps every module's output, so that what runs does not depend on what is read, and notes those that are."""

        def read(module: nn.Module, _: Any, output: Any) -> None:
            output = self._kept.current(output)
            if not isinstance(output, torch.Tensor):
                return
            self._kept.keep(output)
            if "outputs" in self._reads:
                self._named[module] = [*self._named[module], output][-names:]
            if "modules" in self._reads and _is_leaf(module):
                self._modules.append((module, output))

        return read

    def _block_pre_hook(self, _: nn.Module, given: Any) -> None:
        self._blocks.entered(self._kept.current(given[0]) if given else None)

    def _block_hook(self, module: nn.Module, _: Any, output: Any) -> None:
        self._blocks.left(module, self._kept.current(output))


def _names(network: nn.Module) -> dict[nn.Module, list[str]]:
    """Names of every module in order of registration, without those that make weights; a shared one has several."""
    names: dict[nn.Module, list[str]] = defaultdict(list)
    for name, module in network.named_modules(remove_duplicate=False):
        if "parametrizations" not in name.split("."):
            names[module].append(name)
    return names


def _is_leaf(module: nn.Module) -> bool:
    return all(name == "parametrizations" for name, _ in module.named_children())


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


class SharedPasses:
    """The passes that the proxies of one call share; weights must not change meanwhile.

    Args:
        differentiable: Whether any of the proxies differentiates.
        reads: What any of them reads.
    """

    def __init__(self, differentiable: bool, reads: frozenset[str]) -> None:
        self._differentiable = differentiable
        self._reads = reads
        self._passes: dict[tuple[int, int, int, bool], Passes] = {}  # which hold what the numbers are the ids of

    def of(self, network: nn.Module, inputs: Tensor, targets: Tensor | None) -> Passes:
        """The passes of a network in the mode that it has now, the same object for the same arguments."""
        key = (id(network), id(inputs), id(targets), network.training)
        if key not in self._passes:
            self._passes[key] = Passes(network, inputs, targets, self._differentiable, self._reads)
        return self._passes[key]
