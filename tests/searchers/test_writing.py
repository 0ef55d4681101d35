"""Networks written token by token: all keep to the budget, and nothing that keeps to it is out of reach."""

import random

import pytest

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import NothingFitsError, SearcherError
from zeroshot_nas.searchers.base import Problem
from zeroshot_nas.searchers.reinforce import Reinforce
from zeroshot_nas.searchers.writing import writer_of

CHAINS = ("resnet", "mobilenet", "vanilla", "inverted")
DIGITS = ("nasbench201", "nasbench_macro", "nats_sss", "transnas_micro")
SIZES = {"nasbench201": {"num_cells": 1, "channels": 4}, "transnas_micro": {"channels": 4}}


def space_named(name, **options):
    return zs.get_space(name, input_size=(1, 16, 16), **{**SIZES.get(name, {}), **options})


def evenly(rng):
    """Chooses among the options that fit, each as likely."""

    def choose(name, logits, fits, *, ordered=False, monotone=False):
        options = list(range(len(logits())))
        rng.shuffle(options)
        for option in options:
            if fits(option):
                return option
        raise NothingFitsError(name)

    return choose


def budgets(space):
    """Budgets of each kind, from next to nothing to plenty, by name."""
    middle = complexity(space.initial())
    least = {name: complexity(space.smallest(name))[name] for name in ("params", "flops", "layers", "activations")}
    for name, value in least.items():
        yield f"least {name}", zs.Budget(**{name: value})
    yield "plenty", zs.Budget(params=50 * middle.params, layers=40)
    yield "all", zs.Budget(**{name: 1.2 * middle[name] for name in least})
    yield "none", zs.Budget()
    yield "structure", zs.Budget(params=5 * middle.params, structure=zs.StructureBounds(0.5, True, 4))
    yield "latency", zs.Budget(params=5 * middle.params, latency_ms=latency_ms(space.initial()))


def latency_ms(architecture):
    """Is no sum over blocks."""
    costs = complexity(architecture)
    return costs.layers * costs.activations**0.5 / 100


CASES = [(name, kind) for name in (*CHAINS, *DIGITS) for kind, _ in budgets(space_named(name))]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_is_written_is_in_the_space_and_within_the_budget(name, kind):
    space = space_named(name)
    budget = dict(budgets(space))[kind]
    problem = Problem(budget, "params", latency_ms=latency_ms if budget.latency_ms else None)
    searcher = Reinforce(space, python_rng(0), space.initial())
    searcher.begin(problem)
    writer, choose, written = writer_of(space, problem, searcher.start), evenly(random.Random(0)), []
    for _ in range(12):
        try:
            written.append(writer.write(choose))
        except NothingFitsError:
            assert kind in ("structure", "latency"), "a guide's tokens always fit"
    assert len(written) > 2
    for network in written:
        assert network in space
        assert problem.fits(network)
    if kind not in ("least params", "least flops", "least activations", "least layers"):
        assert len(set(written)) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transnas_micro"])
def test_all_genotypes_within_a_limit_can_be_written(name):
    """Each limit's own smallest network is a guide, and there costs are sums: nothing is masked that would fit."""
    space = space_named(name)
    networks = list(space.architectures())
    limit = sorted(complexity(network).params for network in networks)[len(networks) // 3]
    writer = writer_of(space, Problem(zs.Budget(params=limit), "params"), space.smallest("params"))
    begun, written = [()], set()
    while begun:
        path = begun.pop()
        taken = iter(path)

        def choose(name, logits, fits, *, ordered=False, monotone=False, path=path, taken=taken):
            fitting = [option for option in range(len(logits())) if fits(option)]
            step = next(taken, None)
            if step is None:
                begun.extend((*path, option) for option in fitting)
                raise NothingFitsError(name)
            assert step in fitting
            return step

        try:
            written.add(writer.write(choose))
        except NothingFitsError:
            continue
    assert written == {network for network in networks if complexity(network).params <= limit}


@pytest.mark.parametrize("limit", ["params", "flops", "activations", "layers"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_that_just_keeps_to_a_limit_can_be_written(name, limit):
    """The options that a network was written by fit under the very costs of that network."""
    space = space_named(name)
    rng = random.Random(3)
    loose = writer_of(space, Problem(zs.Budget(params=300_000, layers=20), "params"), space.initial())
    for _ in range(6):
        taken = []

        def noting(*arguments, taken=taken, **how):
            taken.append(evenly(rng)(*arguments, **how))
            return taken[-1]

        network = loose.write(noting)
        exact = Problem(zs.Budget(**{limit: complexity(network)[limit]}), "params")
        again = iter(taken)

        def following(name, logits, fits, *, again=again, **_):
            option = next(again)
            assert fits(option), f"{name} is masked, though the network fits"
            return option

        assert writer_of(space, exact, space.initial()).write(following) == network


@pytest.mark.parametrize("name", CHAINS)
def test_any_kind_of_network_can_be_written(name):
    space = space_named(name)
    choose, writer = (
        evenly(random.Random(1)),
        writer_of(space, Problem(zs.Budget(layers=30), "params"), space.initial()),
    )
    written = [writer.write(choose) for _ in range(150)]
    assert {block.type_name for network in written for block in network.blocks} >= {
        *space.body_types,
        *dict(space.stems),
    }
    assert {block.sub_layers for network in written for block in network.blocks} == {1, 2, 3, 4, 5}
    assert {block.stride for network in written for block in network.blocks} == {1, 2}
    ends = {network.blocks[-1].type_name == space.last_type for network in written}
    assert ends == ({True, False} if space.last_is_optional else {True})
    assert len({network.blocks[1].out_channels for network in written}) > 20


def test_a_fixed_last_convolution_is_kept():
    space = space_named("mobilenet", last_width=64)
    writer = writer_of(space, Problem(zs.Budget(params=100_000), "params"), space.initial())
    assert {writer.write(evenly(random.Random(0))).blocks[-1].out_channels for _ in range(10)} == {64}


@pytest.mark.parametrize("name", sorted({*zs.list_spaces()} - {*CHAINS, *DIGITS}))
def test_other_spaces_are_refused_in_one_line(name):
    space = space_named(name)
    with pytest.raises(SearcherError, match=f"'{name}' is neither, so take regularized_evolution"):
        writer_of(space, Problem(zs.Budget(), "params"), space.initial())
