"""Contracts as checks: what every proxy, space, searcher and block keeps to, in this package or a plug-in.

Each raises ``AssertionError`` with what was broken. Call them from your own tests::

    from zeroshot_nas.testing import check_proxy

    def test_my_proxy():
        check_proxy("my_proxy")
"""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.core.score import Score
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.base import COSTS, list_costs
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.costs.cost import cost
from zeroshot_nas.errors import ProxyError
from zeroshot_nas.network.module import build
from zeroshot_nas.scoring.engine import score
from zeroshot_nas.scoring.proxy import Batch, Proxy, ProxyFunction, get_proxy
from zeroshot_nas.searchers.base import Candidate, Counts, Problem, Searcher, SearchResult
from zeroshot_nas.spaces.base import SearchSpace


def check_proxy(proxy: str | Proxy | ProxyFunction) -> None:
    """A proxy is a function of the network, the batch and the seed, and leaves all of these as they were.

    It has the same value for the same seed whatever ran before, and in one call with other proxies; it changes neither
    weights, buffers, modes, gradients and hooks of the network that it is given, nor the batch, nor the global random
    state; and it has a value for a plain chain, a residual network with depthwise convolutions, and a cell with edges
    that lead nowhere and edges that nothing reaches, as random cells of NAS benchmarks have.

    Example:
        >>> check_proxy("naswot")
    """
    if get_proxy(proxy).info.parts:
        for part in get_proxy(proxy).info.parts:
            check_proxy(part)
        return
    if get_proxy(proxy).info.function is None:
        _check_closed_form(get_proxy(proxy))
        return
    changes: list[str] = []
    watched = _watched(get_proxy(proxy), changes)
    for module in _example_modules():
        before, random_before = _state(module), _random_state()
        try:
            first = score(module, watched, input_size=(3, 8, 8), repeats=2, seed=7)
        except ProxyError as error:
            raise AssertionError(f"{watched.key} fails on a plain {type(module).__name__}: {error}") from error
        assert not changes, f"{first.proxy} changed {changes[0]}"
        assert first.ok, f"{first.proxy} fails on a plain {type(module).__name__}: {first.reason}"
        assert _state(module) == before, f"{first.proxy} changed the module: weights, buffers, mode, gradients or hooks"
        assert _random_state() == random_before, f"{first.proxy} changed the global random state"
        score(module, proxy, input_size=(3, 8, 8), repeats=1, seed=8)
        torch.rand(3)
        again = score(module, proxy, input_size=(3, 8, 8), repeats=2, seed=7)
        assert again.value == first.value, f"{first.proxy} gave {first.value}, then {again.value} for the same seed"
        _check_company(module, get_proxy(proxy), first)
    assert get_proxy(proxy).info.direction in ("higher", "lower"), "direction must be 'higher' or 'lower'"


_COMPANY = ("synflow", "grad_norm", "naswot")
"""Proxies that a joint call asks too: one that reads weights, one that differentiates, one that only runs."""


def _watched(proxy: Proxy, changes: list[str]) -> Proxy:
    """The proxy, which notes what it changes of what it is given."""
    function = proxy.info.function
    assert function is not None, "a closed form is given nothing to change"

    @wraps(function)
    def watching(network: nn.Module, batch: Batch, /, **options: Any) -> float:
        before = _state(network, norms_count=False), _arrays(batch)
        value = function(network, batch, **options)
        if _state(network, norms_count=False) != before[0]:
            changes.append("the network that it was given: weights, buffers, modes, gradients or hooks")
        if _arrays(batch) != before[1]:
            changes.append("the batch that it was given")
        return value

    return replace(proxy, info=replace(proxy.info, function=watching))


def _check_company(module: nn.Module, proxy: Proxy, alone: Score) -> None:
    """A joint call gives each proxy the value that it has alone."""
    others = [name for name in _COMPANY if name != proxy.info.name]
    expected = {name: score(module, name, input_size=(3, 8, 8), repeats=2, seed=7).value for name in others}
    expected[proxy.key] = alone.value
    orders: tuple[list[str | Proxy], ...] = ([proxy, *others], [*others, proxy])
    for order in orders:
        joint = score(module, order, input_size=(3, 8, 8), repeats=2, seed=7)
        for key, value in expected.items():
            got = joint[key]
            assert got.value == value, f"{key} gave {value} alone, and {got.value} ({got.reason}) beside {proxy.key}"


def _check_closed_form(proxy: Proxy) -> None:
    defined = 0
    for text in ("SuperConvK3BNRELU(3,8,1,1)", "SuperConvK3BNRELU(3,8,1,1)SuperResK1K5K1(8,16,2,8,3)"):
        architecture = Architecture.from_string(text, (3, 9, 9))
        random_before = _random_state()
        (first,) = score(architecture, [proxy]).values()
        if not first.ok:
            assert first.reason, f"{proxy.key} fails on {text} without a reason"
            continue
        defined += 1
        assert first.standard_error == 0, (
            f"{proxy.key} is a closed form, but reports an error of {first.standard_error}"
        )
        assert _random_state() == random_before, f"{proxy.key} changed the global random state"
        again = score(Architecture.from_json(architecture.to_json()), proxy, seed=1, repeats=3)
        assert again.value == first.value, f"{proxy.key} gave {first.value}, then {again.value} for equal architectures"
    assert defined, f"{proxy.key} is defined neither for a plain convolution nor for a residual network"


def check_space(space: SearchSpace, *, samples: int = 20, seed: int = 0) -> None:
    """Every product of a space is in it, builds and runs; the same seed gives the same.

    Products, and a search's result of them, come back from JSON as they were; their strings from the space's notation.
    """
    rng = python_rng(seed)
    countable = [name for name in list_costs() if COSTS[name].per != "device"]
    products = [space.initial(), *map(space.smallest, countable)]
    for _ in range(samples):
        a, b = space.sample(rng), rng.choice(products)
        products += [a, space.mutate(a, rng), space.mutate(a, rng, mutations=3), space.crossover(a, b, rng)]
    for architecture in products:
        assert architecture in space, f"a product is not in the space: {architecture}"
        assert Architecture.from_json(architecture.to_json()) == architecture, f"JSON changes {architecture}"
    _check_result(space, products)
    for name in countable:
        if name == "peak_memory":
            continue  # it hangs on what lives at one time, of which no space knows the least
        smallest, least = complexity(space.smallest(name))[name], min(complexity(each)[name] or 0 for each in products)
        assert smallest == least, f"smallest({name!r}) has {smallest}, another network {least}"
    for architecture in sorted(products, key=lambda each: complexity(each).flops)[: max(1, samples // 2)]:
        _check_forward(architecture)
    replay = [space.sample(python_rng(seed, 1)) for _ in range(2)]
    assert replay[0] == replay[1], "the same seed gave two samples"


def _check_result(space: SearchSpace, products: Sequence[Architecture]) -> None:
    """What a search writes of a space's products can be written, and read back."""
    history = tuple(_with_made_up_score(architecture).written_by(space) for architecture in products)
    result = SearchResult(history[0], history, Counts(), {}, {}, {})
    assert SearchResult.from_json(result.to_json()) == result, "JSON changes a search's result"
    for candidate in history:
        if candidate.string:
            back = space.from_string(candidate.string)
            assert back == candidate.architecture, f"{candidate.string} reads as {back}, not {candidate.architecture}"


def check_searcher(searcher: Callable[..., Searcher], space: SearchSpace, *, steps: int = 100, seed: int = 0) -> None:
    """A searcher proposes as many networks of the space as asked, and its history is a function of the seed.

    It is told of a problem that is easy to plan for: the most params within limits on layers and FLOPs. Where it has no
    more to propose it may give fewer, and after that none. `Searcher.members`, where it has any, are candidates that it
    was told of, and a new strategy that is told of them has the same.
    """
    (strategy, history), (_, again) = (_drive(searcher, space, steps, seed) for _ in range(2))
    assert history == again, "the same seed gave two histories"
    assert all(architecture in space for architecture in history), "a proposal is not in the space"
    if strategy.has_members():
        population = {member.architecture for member in strategy.members}
        assert population <= set(history), "a member is no network that the strategy was told of"
        other = _begun(searcher, space, seed)
        other.tell(strategy.members)
        passed_on = {member.architecture for member in other.members}
        assert passed_on == population, "a strategy that is told of another's members has others"


def check_block(type_name: str) -> None:
    """A block keeps its promises about channels and stride, and its closed-form costs are those of the built module."""
    block_type = BLOCKS[type_name]
    for in_channels, side, stride, sub_layers in ((3, 9, 1, 1), (8, 8, 2, 2), (1, 5, 2, 3)):
        free: dict[str, Any] = {"out_channels": 16, "stride": stride, "sub_layers": sub_layers}
        if "bottleneck_channels" in block_type.free_fields:
            free["bottleneck_channels"] = 8
        block = block_type(**{name: value for name, value in free.items() if name in block_type.free_fields})
        assert block.type_name == type_name, f"{type_name} calls itself {block.type_name}"
        assert pickle.loads(pickle.dumps(block)) == block, f"{type_name} does not survive pickling"  # noqa: S301
        architecture = Architecture((block,), (in_channels, side, side), 10)
        expected = (16, -(-side // stride), -(-side // stride))
        assert architecture.feature_shape == expected, f"{type_name} gives {architecture.feature_shape}, not {expected}"
        network = _check_forward(architecture)
        counted, closed = cost(network, input_size=architecture.input_size), complexity(architecture)
        assert (counted.params, counted.flops) == (closed.params, closed.flops), f"{type_name}: {closed} != {counted}"


def _check_forward(architecture: Architecture) -> nn.Module:
    network = build(architecture)
    with torch.no_grad():
        logits = network(torch.zeros(2, *architecture.input_size))
    assert logits.shape == (2, architecture.num_classes), f"logits of shape {tuple(logits.shape)} from {architecture}"
    return network


def _begun(searcher: Callable[..., Searcher], space: SearchSpace, seed: int) -> Searcher:
    """A searcher that knows its problem and has proposed nothing."""
    strategy = searcher(space, python_rng(seed), space.initial())
    params = get_proxy("params")
    strategy.begin(
        Problem(
            Budget(layers=12, flops=1e6),
            params.key,
            params.bound_closed_form(),
            params.sign,
            block_sum=params.bound_block_sum(),
        )
    )
    return strategy


def _drive(
    searcher: Callable[..., Searcher], space: SearchSpace, steps: int, seed: int
) -> tuple[Searcher, list[Architecture]]:
    """A searcher that was told a made-up fitness, and its proposals."""
    strategy = _begun(searcher, space, seed)
    history: list[Architecture] = []
    has_more = True
    for step in range(steps):
        wanted = 1 + step % 3
        proposals = strategy.ask(wanted)
        assert len(proposals) <= (wanted if has_more else 0), f"asked for {wanted} proposals, got {len(proposals)}"
        has_more = len(proposals) == wanted
        history += proposals
        strategy.tell([_with_made_up_score(architecture) for architecture in proposals])
    return strategy, history


def _with_made_up_score(architecture: Architecture) -> Candidate:
    costs = complexity(architecture)
    fitness = float(costs.layers or 0) - costs.params / 1e6
    return Candidate(architecture, costs, {"made_up": Score("made_up", fitness, None, 1, 0.0)}, fitness)


class _ResidualModule(nn.Module):
    """A foreign residual network with a depthwise convolution and functional activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.inner_norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.inner_norm(self.depthwise(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _Cell(nn.Module):
    """A cell some of whose edges lead nowhere, and some of which nothing reaches."""

    def __init__(self) -> None:
        super().__init__()
        edges = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())]
        edges += [nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(3)]
        self.edges = nn.ModuleList(edges)

    def forward(self, x: Tensor) -> Tensor:
        live, unread, unreached, second = self.edges
        unread(x)
        node = live(x) + unreached(torch.zeros_like(x))
        output: Tensor = second(node) + x
        return output


def _example_modules() -> Iterable[nn.Module]:
    """A plain chain, a residual depthwise network and a cell, with odd state: gradients, a hook, mixed modes."""
    chain = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)),
    )
    stem, head = chain[:3], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    for module in (chain, _ResidualModule(), nn.Sequential(copy.deepcopy(stem), _Cell(), _Cell(), head)):
        module(torch.zeros(2, 3, 8, 8)).sum().backward()
        module.register_forward_hook(_do_nothing)
        next(module.children()).eval()
        yield module


def _do_nothing(module: nn.Module, arguments: Any, output: Any) -> None:
    """A hook for the contract to find again."""


def _state(module: nn.Module, norms_count: bool = True) -> list[Any]:
    """All that scoring must leave alone, as comparable values, with how many batches the norms have seen or without."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    if not norms_count:
        tensors = [(name, tensor) for name, tensor in tensors if not name.endswith("num_batches_tracked")]
    return [
        [(name, tensor.detach().numpy().tobytes(), tensor.requires_grad) for name, tensor in tensors],
        [None if each.grad is None else each.grad.numpy().tobytes() for each in module.parameters()],
        [(part.training, len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()],
    ]


def _arrays(batch: Batch) -> list[Any]:
    """All arrays of a batch, as comparable values."""
    arrays = (batch.inputs, batch.targets, batch.perturbation, *batch.output_noise)
    values: list[Any] = [None if array is None else array.numpy().tobytes() for array in arrays]
    return [*values, *map(_arrays, batch.further)]


def _random_state() -> list[Any]:
    numpy_state = np.random.get_state()  # noqa: NPY002  the global state is the point
    numpy_bytes = [part.tobytes() if isinstance(part, np.ndarray) else part for part in numpy_state]
    return [random.getstate(), numpy_bytes, torch.get_rng_state().numpy().tobytes()]
