"""Trials before any is trained: what is refused, which networks are chosen, and what their rounds cost."""

import contextlib
import dataclasses
import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import DataError, RecipeError, TrialsWarning, UnknownNameError
from zeroshot_nas.references.base import REFERENCES
from zeroshot_nas.searchers.base import Candidate
from zeroshot_nas.searchers.trial import Round, Trial, Trials, planned_epochs
from zeroshot_nas.searching.hand_made import hand_made
from zeroshot_nas.searching.signature import signature
from zeroshot_nas.searching.trials import entrants, halving, trial_settings


@given(networks=st.integers(1, 60), more=st.integers(0, 1500), warmup=st.floats(0, 2000))
def test_all_rounds_together_cost_at_most_one_training(networks, more, warmup):
    epochs = networks + more
    rounds = halving(networks, epochs, warmup)
    assert planned_epochs(rounds) <= epochs
    assert [each.until for each in rounds] == sorted({each.until for each in rounds})
    assert all(1 <= each.until <= epochs / 2 for each in rounds)
    assert [each.networks for each in rounds[:1]] == [networks] * (networks > 1)
    for one, after in itertools.pairwise(rounds):
        assert after.networks == math.ceil(one.networks / 2) > 1
    # the epochs are used: what is left is too little for another one of all in the last round
    assert not rounds or epochs - planned_epochs(rounds) < rounds[-1].networks or rounds[-1].networks > 2


@given(networks=st.integers(2, 60), epochs=st.integers(1, 59))
def test_a_recipe_too_short_for_an_epoch_each_is_refused(networks, epochs):
    if networks <= epochs:
        assert halving(networks, epochs)
        return
    with pytest.raises(RecipeError, match=f"{networks} trials of one epoch each .*give {epochs} trials at most"):
        halving(networks, epochs)


@given(networks=st.integers(2, 60), more=st.integers(0, 300), warmup=st.floats(0, 10))
def test_nothing_is_decided_within_the_warm_up_where_the_epochs_allow_it(networks, more, warmup):
    epochs = networks + more
    plain, rounds = halving(networks, epochs), halving(networks, epochs, warmup)
    assert [each.networks for each in rounds] == [each.networks for each in plain]
    assert rounds[0].until >= plain[0].until
    later = sum(each.networks for each in rounds[1:])
    assert rounds[0].until >= warmup or (rounds[0].until + 1) * networks + later > epochs
    if warmup <= plain[0].until:
        assert rounds == plain


def test_a_longer_recipe_never_has_fewer_rounds():
    for networks in range(2, 20):
        lengths = [len(halving(networks, epochs)) for epochs in range(networks, 80)]
        assert lengths == sorted(lengths)
        assert lengths[-1] == math.ceil(math.log2(networks))


def candidates(space, seed, count):
    rng = random.Random(seed)
    networks = dict.fromkeys(space.sample(rng) for _ in range(count))
    fitness = [rng.choice([-math.inf, rng.gauss(0, 1)]) for _ in networks]
    return [Candidate(each, complexity(each), {}, value) for each, value in zip(networks, fitness, strict=True)]


@pytest.mark.parametrize("name", zs.list_spaces())
@settings(max_examples=12)
@given(seed=st.integers(0, 1000), count=st.integers(2, 12))
def test_no_two_entrants_are_alike(name, seed, count):
    space = zs.get_space(name, input_size=(1, 16, 16), num_classes=3)
    found, by_hand = candidates(space, seed, 12), candidates(space, seed + 1, 5)
    chosen = entrants(found, by_hand, count)
    assert len(chosen) <= count
    assert len({signature(each.architecture) for each in chosen}) == len(chosen)
    alive = [each for each in found if math.isfinite(each.fitness)]
    if alive:
        assert chosen[0].fitness == max(each.fitness for each in alive)
    assert set(map(id, chosen)) <= set(map(id, [*alive, *by_hand]))
    # one was passed over only where a fitter one like it is there, or there was no place
    if len(chosen) < count:
        taken = {signature(each.architecture) for each in chosen}
        assert taken == {signature(each.architecture) for each in [*alive, *by_hand]}
    refused = entrants(found, by_hand, count, lambda candidate: candidate.architecture.layers % 2 == 0)
    assert all(each.architecture.layers % 2 == 0 for each in refused)


@pytest.mark.slow
def test_hand_made_networks_have_half_of_the_places_however_low_they_score():
    space = zs.get_space("resnet", input_size=(3, 32, 32))
    found = [dataclasses.replace(each, fitness=10.0) for each in candidates(space, 0, 200)]
    networks = hand_made(zs.Budget(params=100e3), (3, 32, 32), 10, complexity)
    by_hand = [Candidate(each, complexity(each), {}, -1.0) for _, each in networks]
    chosen = entrants(found, by_hand, 8)
    assert [sum(each.fitness == fitness for each in chosen) for fitness in (10.0, -1.0)] == [4, 4]


def test_width_alone_makes_no_other_network_but_depth_strides_and_kernels_do():
    def net(width=16, repeats=1, stride=1, block="SuperResK3K3"):
        text = f"SuperConvK3BNRELU(3,{width},1,1){block}({width},{width},{stride},{width},{repeats})"
        return signature(zs.Architecture.from_string(text))

    assert net() == net(width=24)
    assert len({net(), net(repeats=4), net(stride=2), net(block="SuperResK5K5"), net(block="SuperResIDWE4K3")}) == 5


@given(params=st.floats(2e3, 3e6), flops=st.floats(1e5, 1e9), layers=st.integers(3, 12))
def test_hand_made_networks_fill_the_budget_and_keep_to_it(params, flops, layers):
    budget = zs.Budget(params=params, flops=flops, layers=layers)
    for name, network in hand_made(budget, (3, 32, 32), 7, complexity):
        costs = complexity(network)
        assert not budget.violations(costs, network)
        published = zs.reference(name.replace("-", ":strides="), input_size=(3, 32, 32))
        assert costs.layers == published.layers
        assert (network.num_classes, network.input_size) == (7, (3, 32, 32))
        widths = [block.out_channels for block in network.blocks]
        if min(widths) > 16:
            assert max(costs.params / params, costs.flops / flops) > 0.85


def test_without_a_limit_on_widths_hand_made_networks_have_the_published_ones():
    networks = dict(hand_made(zs.Budget(layers=100), (3, 32, 32), 10, complexity))
    assert {name.split("-")[0] for name in networks} == {
        name for name in zs.list_references() if REFERENCES[name].tried
    }
    for name, network in networks.items():
        assert network == zs.reference(name.replace("-", ":strides="))
    assert [block.out_channels for block in networks["resnet8-122"].blocks] == [16, 16, 32, 64]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"trials": 1, "data": "digits"}, ValueError, "trials must be 0 for none, or .* 2 or more, got 1"),
        ({"trials": -2, "data": "digits"}, ValueError, "got -2"),
        ({"trials": True, "data": "digits"}, ValueError, "got True"),
        ({"trials": 4.0, "data": "digits"}, ValueError, r"got 4\.0"),
        ({"trials": 4}, ValueError, "trials need data to train on: data='digits'"),
        ({"data": "digits"}, ValueError, "data is what trials train by, and there are none; give trials"),
        ({"recipe": "quick"}, ValueError, "recipe is what trials train by"),
        ({"trials": 9, "data": "digits", "recipe": "quick"}, RecipeError, "give 8 trials at most"),
        ({"trials": 4, "data": "digits", "recipe": "zennas"}, RecipeError, "a validation_fraction above 0"),
        ({"trials": 4, "data": "digits", "recipe": "quik"}, UnknownNameError, "Did you mean 'quick'"),
        ({"trials": 4, "data": "digit"}, UnknownNameError, "Did you mean 'digits'"),
        ({"trials": 4, "data": "digits"}, DataError, "num_classes=3, but 'digits' has 10.*--classes 10"),
    ],
)
def test_what_can_not_be_tried_is_refused_before_anything_is_written(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        zs.search("resnet", input_size=(1, 8, 8), num_classes=3, out=tmp_path / "run", progress=False, **arguments)
    assert not (tmp_path / "run").exists()


def test_the_recipe_is_the_standard_one_unless_another_is_asked_for():
    assert trial_settings(4, "digits", None).recipe == zs.get_recipe("standard")
    assert trial_settings(3, "digits", "quick").recipe == zs.get_recipe("quick")
    assert trial_settings(0, None, None) is None


@pytest.mark.parametrize(
    ("count", "epochs", "warmup", "told"),
    [
        (8, 12, 2, "half of 8 trials are dropped after epoch 1 of 12, within the 2 of warm-up.*give 4 trials, or more"),
        (4, 8, 2, "give 3 trials, or more epochs"),
        (2, 3, 3, "little; give more epochs"),
        (8, 30, 3, None),
        (8, 8, 1, None),
        (8, 8, 0, None),
        (2, 4, 0.5, None),
    ],
)
def test_trials_that_are_dropped_within_the_warm_up_are_warned_of(count, epochs, warmup, told):
    recipe = zs.Recipe(epochs=epochs, warmup_epochs=warmup)
    with pytest.warns(TrialsWarning, match=told) if told else contextlib.nullcontext():
        assert trial_settings(count, "digits", recipe).count == count
    if told and "trials" in told.partition("give ")[2]:
        fewer = int(told.partition("give ")[2].split()[0])
        trial_settings(fewer, "digits", recipe)
        with pytest.warns(TrialsWarning):
            trial_settings(fewer + 1, "digits", recipe)


def test_a_table_of_trials_is_read_back_and_shows_what_became_of_each():
    network = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)")
    trial = Trial("found-1", network, complexity(network), 3.5, 1, (0.5, 0.75))
    dropped = dataclasses.replace(trial, name="resnet8-122", score=None, place=7, accuracies=(0.25,), dropped=1)
    failed = dataclasses.replace(dropped, name="found-2", accuracies=(), failure="the loss became nan")
    table = Trials((dropped, trial, failed), (Round(3, 1), Round(2, 4)), 10, "digits")
    assert Trials.from_dict(table.to_dict()) == table
    assert (table.winner, table.epochs) == (trial, 9)
    rows = table.rows()
    assert rows[0][1] == "3 networks on digits: 3 to epoch 1, 2 to epoch 4; 9 epochs in all, one full training has 10"
    assert [name for name, _ in rows[2:]] == ["found-1", "resnet8-122", "found-2", "found-2"]
    costs = [f"{trial.costs.params:,}", f"{trial.costs.flops:,}"]
    assert rows[2][1].split() == ["50.00%", "75.00%", "winner", "3.5", "1", *costs]
    assert rows[3][1].split()[:5] == ["25.00%", "round", "1", "failed", "7"]
    assert rows[5][1] == "the loss became nan"
