"""The public contract checks hold for all that is registered, and can fail."""

import pytest
import torch

from zeroshot_nas import get_space, list_proxies, list_searchers, list_spaces
from zeroshot_nas.architecture.blockspec import BLOCKS
from zeroshot_nas.scoring.proxy import PROXIES, Proxy, ProxyInfo, get_proxy
from zeroshot_nas.searchers.base import SEARCHERS, Searcher
from zeroshot_nas.spaces.chain import ChainSpace
from zeroshot_nas.testing import check_block, check_proxy, check_searcher, check_space

PARTS = {name: PROXIES[name].parts for name in list_proxies() if PROXIES[name].parts}
AGGREGATES = list(PARTS)
NEED_A_RUN = ("supernet",)  # tests/training/test_supernet.py checks it with one


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_proxies() if name not in (*AGGREGATES[:-1], *NEED_A_RUN)])
def test_proxies_keep_the_contract(name):
    """Of the aggregates the last: its check is that of its parts."""
    check_proxy(name)


@pytest.mark.parametrize("name", AGGREGATES)
def test_an_aggregates_parts_are_checked_by_themselves(name):
    assert {get_proxy(part).info.name for part in PARTS[name]} <= {*list_proxies()} - {*AGGREGATES}


@pytest.mark.parametrize("input_size", [(3, 32, 32), (1, 8, 8), (3, 13, 20), (2, 96, 64)])
@pytest.mark.parametrize("name", list_spaces())
def test_spaces_keep_the_contract(name, input_size):
    check_space(get_space(name, input_size=input_size, num_classes=7), samples=8)


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_spaces_with_squeeze_and_excitation_keep_the_contract(name):
    check_space(get_space(name, input_size=(3, 16, 16), squeeze_excite=True), samples=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_searchers())
def test_searchers_keep_the_contract(name):
    check_searcher(SEARCHERS[name], get_space("resnet", input_size=(1, 8, 8), max_width=64))


@pytest.mark.parametrize("name", list(BLOCKS))
def test_blocks_keep_the_contract(name):
    check_block(name)


def test_a_proxy_that_draws_from_the_global_generator_is_caught():
    def noisy(network, batch, /):
        return torch.rand(()).item()

    with pytest.raises(AssertionError, match="for the same seed"):
        check_proxy(noisy)


def doubling(network, batch, /):
    """Changes the weights behind autograd's back."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.data.mul_(2)
        return network(batch.inputs).abs().mean().item()


def greedy(network, batch, /):
    batch.inputs.mul_(2)
    return batch.inputs.abs().mean().item()


def eager(network, batch, /):
    network.train()
    return 1.0


def accumulating(network, batch, /):
    with torch.enable_grad():
        torch.nn.functional.cross_entropy(network(batch.inputs), torch.zeros(len(batch.inputs)).long()).backward()
    return 1.0


def replacing(network, batch, /):
    for parameter in network.parameters():
        parameter.data = parameter.data + 1
    return 1.0


@pytest.mark.parametrize(
    ("proxy", "what"),
    [(doubling, "network"), (replacing, "network"), (eager, "network"), (accumulating, "network"), (greedy, "batch")],
)
def test_a_proxy_that_changes_what_it_is_given_is_caught(proxy, what):
    with pytest.raises(AssertionError, match=f"{proxy.__name__} changed the {what} that it was given"):
        check_proxy(proxy)


def registered(name, function, **facts):
    return Proxy(ProxyInfo(name, function, source="this test", **facts))


@pytest.mark.slow
def test_a_proxy_that_forgets_a_fact_is_told_which():
    def loss(network, batch, /):
        return torch.nn.functional.cross_entropy(network(batch.inputs), batch.targets).item()

    def counted(network, batch, /):
        return float(batch.targets.shape[0])

    def gradient(network, batch, /):
        weights = [each for each in network.parameters() if each.dim() > 1]
        found = torch.autograd.grad(network(batch.inputs).sum(), weights)
        return sum(each.abs().sum().item() for each in found)

    for function in (loss, counted):
        with pytest.raises(AssertionError, match=r"targets is None: register forgetful with needs_labels=True"):
            check_proxy(registered("forgetful", function))
        check_proxy(registered("mindful", function, needs_labels=True))
    with pytest.raises(AssertionError, match=r"register forgetful with needs_gradients=True"):
        check_proxy(registered("forgetful", gradient))
    with pytest.raises(AssertionError, match=r"does not depend on all of the weights .* takes allow_unused=True"):
        check_proxy(registered("strict", gradient, needs_gradients=True))


def test_a_space_whose_products_leave_it_is_caught():
    class Leaky(ChainSpace):
        def __contains__(self, architecture):
            return super().__contains__(architecture) and architecture.layers < 6

    with pytest.raises(AssertionError, match="not in the space"):
        check_space(Leaky("leaky", ("SuperResK3K3",), (1, 16, 16)))


def test_a_searcher_with_a_source_of_its_own_is_caught():
    calls = iter(range(10**6))

    class Counting(Searcher):
        def ask(self, n):
            mutations = next(calls) % 7
            return [self.space.mutate(self.start, self.rng, mutations) for _ in range(n)]

        def tell(self, candidates):
            pass

    with pytest.raises(AssertionError, match="two histories"):
        check_searcher(Counting, get_space("resnet", input_size=(1, 8, 8)), steps=5)


def test_a_searcher_that_forgets_members_is_caught():
    class Forgetful(Searcher):
        def __init__(self, space, rng, start):
            super().__init__(space, rng, start)
            self._best = []

        @property
        def members(self):
            return tuple(self._best)

        def ask(self, n):
            return [self.space.sample(self.rng) for _ in range(n)]

        def tell(self, candidates):
            self._best = [*self._best, *candidates][-3:] if self._best else [*candidates][:1]

    with pytest.raises(AssertionError, match="has others"):
        check_searcher(Forgetful, get_space("resnet", input_size=(1, 8, 8)), steps=5)
