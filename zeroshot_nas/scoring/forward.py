"""Scores that run a network: weights and images drawn, a module built or copied only where a proxy needs one."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.foreign import copied, representative, unusable, without_checkpoints
from zeroshot_nas.core.score import ScoreValue
from zeroshot_nas.core.seeding import derive_seed, preserved_rng, seed_global_rng, torch_generator
from zeroshot_nas.errors import ProxyError, UndefinedScoreError, ZeroShotNASError
from zeroshot_nas.network.init import Init
from zeroshot_nas.network.layout import in_layout, is_unsafe_in_channels_last
from zeroshot_nas.network.module import build, initialize, without_residual_links
from zeroshot_nas.scoring.batch_norm import batch_norms, batch_statistics
from zeroshot_nas.scoring.given import GivenTensors
from zeroshot_nas.scoring.passes import SharedPasses, expected_logits
from zeroshot_nas.scoring.perturbed_pass import count_weights, gaussian_weights, is_chain
from zeroshot_nas.scoring.proxy import PROXIES, Batch, Proxy, ProxyInfo, missing_fact
from zeroshot_nas.scoring.trial import ModuleState, Trial, trial


class Draws(NamedTuple):
    """What weights and images are drawn from; all but the arrays as in `zeroshot_nas.score`.

    Attributes:
        arrays: The batch, or the shape of one input of a Gaussian one.
        batch_size: Inputs a repeat; None is the proxy's.
        init: The initialisation asked for; None is the proxy's.
        seed: Seed of all draws.
        device: Where to compute; None is where the module is.
    """

    arrays: Batch | tuple[int, ...]
    batch_size: int | None
    init: Init | None
    seed: int
    device: str | torch.device | None

    def batch(
        self,
        proxies: Sequence[Proxy],
        repeat: int,
        like: Tensor,
        classes: Callable[[], int | None],
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> Batch:
        """The given arrays, or Gaussian ones with all that the proxies read, with labels drawn evenly.

        Args:
            proxies: Whom it is for; they have the same batch size.
            repeat: Number of the draw.
            like: A tensor of the device and dtype.
            classes: How many labels there are, asked where there are any.
            memory_format: How images lie in memory; those that are drawn, where it is preserved, channels last.
        """
        if isinstance(self.arrays, Batch):
            return _laid_out(self.arrays, memory_format)
        size = self.batch_size or proxies[0].info.batch_size
        batches = max(proxy.info.batches for proxy in proxies)
        count = classes() if batches > 1 or any(proxy.info.needs_labels for proxy in proxies) else None
        images = torch_generator(self.seed, repeat, 1)
        inputs, perturbation = (_images((size, *self.arrays), images, like, memory_format) for _ in range(2))
        targets = _labels(count, size, torch_generator(self.seed, repeat, 2), like)
        more = torch_generator(self.seed, repeat, 3)
        further = tuple(
            Batch(_images((size, *self.arrays), more, like, memory_format), _labels(count, size, more, like))
            for _ in range(batches - 1)
        )
        return Batch(inputs, targets, perturbation, further, seed=derive_seed(self.seed, repeat, 4))


class ArchitectureSource:
    """Values of an architecture of ours by `ProxyInfo.of_architecture`: weights are drawn, and no module is built.

    Args:
        architecture: What is scored.
        draws: What it is drawn from.
        like: A tensor of the device and dtype.
    """

    is_exact = is_fixed = False

    def __init__(self, architecture: Architecture, draws: Draws, like: Tensor) -> None:
        self._architecture = architecture
        self._draws = draws
        self._like = like

    @staticmethod
    def fits(proxy: Proxy, architecture: Architecture | None, init: Init | None) -> bool:
        """Whether a proxy's values can come from here."""
        has_form = proxy.info.of_architecture is not None and init in (None, "gaussian")
        return has_form and architecture is not None and is_chain(architecture)

    @contextmanager
    def draw(self, proxies: Sequence[Proxy], repeat: int) -> Iterator[Callable[[Proxy], float]]:
        """The function that computes each, on weights and images of the repeat."""
        weights = gaussian_weights(self._draws.seed, repeat, count_weights(self._architecture)).to(self._like)
        batch = self._draws.batch(proxies, repeat, self._like, lambda: self._architecture.num_classes)

        def value(proxy: Proxy) -> float:
            assert proxy.info.of_architecture is not None, "see fits"
            return proxy.info.of_architecture(self._architecture, batch, weights, **proxy.options)

        yield value


class ModuleSource:
    """Values of a module that is run with weights drawn; its proxies ask for the same weights and so share its passes.

    Args:
        module: What is run.
        draws: What it is drawn from.
        init: How weights are drawn.
    """

    is_exact = False

    def __init__(self, module: ScoredModule, draws: Draws, init: Init) -> None:
        self._module = module
        self._draws = draws
        self._init = init
        self.is_fixed = init == "keep" and isinstance(draws.arrays, Batch)

    @contextmanager
    def draw(self, proxies: Sequence[Proxy], repeat: int) -> Iterator[Callable[[Proxy], float]]:
        """The function that computes each, while the module has the repeat's weights."""
        network, keeps_links = self._module.network, proxies[0].info.keeps_residual_links
        with ExitStack() as contexts:
            contexts.enter_context(without_checkpoints())
            if self._module.draws:  # all passes of a repeat see the same noise, whoever runs them
                seed = derive_seed(self._draws.seed, repeat, 5)
                contexts.enter_context(preserved_rng())
                seed_global_rng(seed)
                contexts.callback(network.register_forward_pre_hook(lambda *_: seed_global_rng(seed)).remove)
            contexts.callback(self._module.state.restore)  # repeats don't depend on those before
            contexts.enter_context(batch_statistics(network))
            batch = self._prepared(proxies, repeat)
            if not keeps_links:
                contexts.enter_context(without_residual_links(network))
            state, given = ModuleState(network), GivenTensors(network, batch)

            def value(proxy: Proxy) -> float:
                nonlocal batch
                try:
                    return self._value(proxy, batch)
                finally:  # the next proxy has the value that it has alone
                    state.restore()
                    if given.restore():
                        batch = with_shared_passes(batch, [each.info for each in proxies])

            yield value

    def _prepared(self, proxies: Sequence[Proxy], repeat: int) -> Batch:
        """The batch, once the weights are drawn."""
        network = self._module.network
        try:
            initialize(network, self._init, torch_generator(self._draws.seed, repeat, 0))
            _check_weights(network)
            module = self._module
            batch = self._draws.batch(proxies, repeat, module.like, lambda: module.num_classes, module.memory_format)
        except ZeroShotNASError:
            raise
        except Exception as error:  # a stranger's weights may be of any kind; it is passed on, with its cause
            raise ProxyError(
                f"the weights or inputs of {type(network).__name__} could not be drawn ({_line(error)}); use "
                "init='keep', or batch=Batch(inputs, targets)"
            ) from error
        return with_shared_passes(batch, [proxy.info for proxy in proxies])

    def _value(self, proxy: Proxy, batch: Batch) -> float:
        network = self._module.network
        if proxy.info.needs_batch_norm and not batch_norms(network):
            others = ", ".join(name for name in PROXIES if _runs_without_batch_norm(name))
            raise ProxyError(
                f"{proxy.info.name} needs batch norm, and {type(network).__name__} has none. "
                f"Use a proxy that does without ({others}), or add nn.BatchNorm2d after the convolutions"
            )
        if not isinstance(self._draws.arrays, Batch):  # what it would have been given alone
            batch = batch._replace(further=batch.further[: proxy.info.batches - 1])
        if proxy.info.needs_labels and batch.targets is None and not isinstance(self._draws.arrays, Batch):
            raise self._without_logits(proxy, batch)
        try:
            with torch.set_grad_enabled(proxy.info.needs_gradients):
                return _number(proxy(network, batch))
        except ZeroShotNASError:
            raise
        except Exception as error:  # a stranger's module or proxy may raise anything; it is passed on, with its cause
            raise _could_not_run(proxy, network, batch, error) from error

    def _without_logits(self, proxy: Proxy, batch: Batch) -> ZeroShotNASError:
        """Why no labels could be drawn."""
        first, network = self._module.trial, self._module.network
        assert first is not None, "networks of our own have classes"
        if first.error is not None:
            return _could_not_run(proxy, network, batch, first.error)
        return ProxyError(expected_logits(network, first.output))


def _could_not_run(proxy: Proxy, network: nn.Module, batch: Batch, error: Exception) -> ZeroShotNASError:
    reason = (
        f"{proxy.key} could not run {type(network).__name__} on inputs of shape {tuple(batch.inputs.shape)} "
        f"({_line(error)})"
    )
    if "more than 1 value per channel" in str(error):
        return UndefinedScoreError(f"{reason}; score on more inputs")
    return ProxyError(f"{reason}. {missing_fact(proxy.info, batch, error) or 'Check input_size and the module'}")


class ScoredModule:
    """A module that scoring may change: built from an architecture, copied from a module, when it is first needed.

    Args:
        model: The architecture or module.
        architecture: Its architecture; None for a foreign module.
        draws: What its weights and inputs are drawn from.
    """

    def __init__(self, model: Any, architecture: Architecture | None, draws: Draws) -> None:
        self._model = model
        self._architecture = architecture
        self._draws = draws

    @property
    def network(self) -> nn.Module:
        """The module.

        Raises:
            ProxyError: The module can't be copied or holds no weights that can be drawn, or an architecture has no
                weights to keep.
        """
        return self._prepared.network

    @property
    def memory_format(self) -> torch.memory_format:
        """How weights and images lie in memory."""
        return self._prepared.memory_format

    @property
    def draws(self) -> bool:
        """Whether the module may draw from the global random state, as it runs or as its weights are set."""
        first = self._prepared.trial
        return first is not None and (first.draws or any(map(is_parametrized, self.network.modules())))

    @property
    def state(self) -> ModuleState:
        """What the module held at first, beside its parameters."""
        return self._prepared.state

    @property
    def trial(self) -> Trial | None:
        """Its first run; None for one of our own."""
        return self._prepared.trial

    @property
    def like(self) -> Tensor:
        """A tensor of the module's device and dtype."""
        return _like(self.network, self._draws.device)

    @property
    def num_classes(self) -> int | None:
        """Outputs of the classifier; None for a module that returns no logits, which whoever needs them will say."""
        if self._architecture is not None:
            return self._architecture.num_classes
        output = self._prepared.trial.output if self._prepared.trial is not None else None
        return output.shape[1] if isinstance(output, Tensor) and output.dim() == 2 else None

    @cached_property
    def _prepared(self) -> _Prepared:
        network = self._copy() if isinstance(self._model, nn.Module) else self._built()
        if self._draws.device is not None:
            network.to(self._draws.device)
        for parameter in network.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)  # what its owner froze has a gradient too
        arrays, like = self._draws.arrays, _like(network, self._draws.device)
        if isinstance(arrays, Batch):  # they and the weights are read in the layout that they have, where that is safe
            inputs, layout = _normal(arrays.inputs)[:2], torch.preserve_format
        else:
            inputs, layout = torch.ones(2, *arrays).to(like), torch.contiguous_format
            if inputs.dim() == 4 and like.dtype == torch.float32:
                layout = torch.channels_last  # half the time of a forward pass on a CPU
        if layout != torch.contiguous_format and not is_unsafe_in_channels_last(network):
            prepared = self._laid_out(network, inputs, layout)
            if prepared.trial is None or (prepared.trial.error is None and not prepared.trial.needs_c_order):
                return prepared
        return self._laid_out(network, inputs, torch.contiguous_format)

    def _laid_out(self, network: nn.Module, inputs: Tensor, layout: torch.memory_format) -> _Prepared:
        """The network in a layout, tried on the inputs; one of our own needs no trial."""
        for parameter in network.parameters():
            parameter.data = in_layout(parameter.data, layout)
        first = None if self._architecture is not None else trial(network, in_layout(inputs, layout))
        return _Prepared(network, layout, first, ModuleState(network))

    def _built(self) -> nn.Module:
        assert self._architecture is not None, "a model is a module or has an architecture"
        if self._draws.init == "keep":
            raise ProxyError("an architecture has no weights to keep; build it first, or leave init out")
        return build(self._architecture, init="keep")

    def _copy(self) -> nn.Module:
        if reason := unusable(self._model):
            raise ProxyError(reason)
        try:
            return copied(self._model)
        except ValueError as error:
            raise ProxyError(str(error)) from error


class _Prepared(NamedTuple):
    """A network that proxies may run; see `ScoredModule`."""

    network: nn.Module
    memory_format: torch.memory_format
    trial: Trial | None
    state: ModuleState


def forward_sources(
    model: Any, architecture: Architecture | None, proxies: Sequence[Proxy], draws: Draws
) -> list[tuple[list[Proxy], ArchitectureSource | ModuleSource]]:
    """Proxies in groups that ask for the same weights and inputs, each with where its values come from.

    Args:
        model: An architecture, anything that has one, or a module.
        architecture: Its architecture; None for a foreign module.
        proxies: Proxies that run a network.
        draws: What weights and inputs are drawn from.
    """
    module = ScoredModule(model, architecture, draws)
    groups: dict[Any, tuple[list[Proxy], ArchitectureSource | ModuleSource]] = {}
    for proxy in proxies:
        info, init = proxy.info, draws.init or proxy.info.init
        if architecture is not None and ArchitectureSource.fits(proxy, architecture, draws.init):
            of_module = isinstance(model, nn.Module) and draws.device is None
            like = next(model.parameters()).detach() if of_module else torch.zeros(0, device=draws.device)
            groups[proxy.key] = [proxy], ArchitectureSource(architecture, draws, like)
        else:
            key = init, info.keeps_residual_links, draws.batch_size or info.batch_size
            groups.setdefault(key, ([], ModuleSource(module, draws, init)))[0].append(proxy)
    return list(groups.values())


def with_shared_passes(batch: Batch, infos: Sequence[ProxyInfo]) -> Batch:
    """The batch, with passes that keep what any of the proxies reads, and differentiate where any does."""
    reads = frozenset[str]().union(*(info.reads for info in infos))
    shared = SharedPasses(any(info.needs_gradients for info in infos), reads)
    return batch._replace(shared=shared, further=tuple(each._replace(shared=shared) for each in batch.further))


def _images(
    shape: tuple[int, ...], generator: torch.Generator, like: Tensor, memory_format: torch.memory_format
) -> Tensor:
    """Gaussian images in a tensor's dtype and on its device."""
    images = torch.randn(shape, generator=generator, dtype=torch.float32).to(like)
    if images.dim() != 4 or images.dtype != torch.float32:
        return images
    is_free = memory_format == torch.preserve_format
    return images.contiguous(memory_format=torch.channels_last if is_free else memory_format)


def _laid_out(batch: Batch, memory_format: torch.memory_format) -> Batch:
    """A given batch in the layout that a network needs, for autograd; the very one where it is so."""

    def usable(images: Tensor) -> Tensor:
        return _normal(in_layout(images, memory_format))

    inputs, further = usable(batch.inputs), tuple(_laid_out(each, memory_format) for each in batch.further)
    perturbation = None if batch.perturbation is None else usable(batch.perturbation)
    targets = None if batch.targets is None else _normal(batch.targets)
    laid_out = batch._replace(inputs=inputs, targets=targets, perturbation=perturbation, further=further)
    is_same = all(map(operator.is_, (*laid_out[:3], *further), (*batch[:3], *batch.further)))
    return batch if is_same else laid_out


def _normal(tensor: Tensor) -> Tensor:
    """A tensor that autograd takes: one made in inference mode is copied."""
    return tensor.clone() if tensor.is_inference() else tensor


def _like(network: nn.Module, device: str | torch.device | None) -> Tensor:
    """A tensor of a module's device and dtype."""
    return representative(network, device)


def _labels(classes: int | None, count: int, generator: torch.Generator, like: Tensor) -> Tensor | None:
    return None if classes is None else torch.randint(classes, (count,), generator=generator).to(like.device)


def _check_weights(network: nn.Module) -> None:
    """Refuses weights that are no numbers. Buffers may be infinite, as masks are."""
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UndefinedScoreError(f"{name} of the module is not finite")


def _line(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _runs_without_batch_norm(name: str) -> bool:
    return PROXIES[name].function is not None and not PROXIES[name].needs_batch_norm


def _number(value: object) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise ProxyError(f"a proxy returns one number, got {type(value).__name__}")
    return value if isinstance(value, ScoreValue) else float(value)
