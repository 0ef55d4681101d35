"""Pruning: within the budget exactly, nothing that could be put back, the outputs of the channels that are left."""

import copy
import dataclasses
import json
import random
import sys

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import zeroshot_nas as zs
from tests.training.test_trainer import BARS, _equal, _interrupt_at, _weights
from zeroshot_nas.errors import (
    ArchitectureError,
    BudgetError,
    DataError,
    FileFormatError,
    InfeasibleBudgetError,
    MissingExtraError,
    OutputExistsError,
    RecipeError,
    SettingsChangedError,
    UnfinishedRunWarning,
    UnknownNameError,
)
from zeroshot_nas.pruning.channels import IMPORTANCES, convolutions, find_groups, without_channels
from zeroshot_nas.pruning.prune import _like, prune_channels, tuning_recipe
from zeroshot_nas.pruning.widths import free_widths, narrowed, narrower, outline, outline_within, separated
from zeroshot_nas.training.checkpoint import TrainedNetwork, load, read_result

NET = zs.Architecture.from_string("SuperConvK3BNRELU(1,12,1,1)SuperResK3K3(12,16,2,10,2)", (1, 8, 8), 10)
FIRST = zs.Recipe(epochs=3, batch_size=128, shift=0, learning_rate_per_256=0.8, warmup_epochs=1)
TUNED = dataclasses.replace(FIRST, epochs=2)
BUDGET = zs.Budget(params=3_000)
CHAINS = ("resnet", "mobilenet", "mobilenet with gates", "vanilla")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on digits."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    zs.train(NET, "digits", FIRST, out=folder, progress=False, seed=3)
    return folder


def pruned(weights, budget=BUDGET, **options):
    return zs.prune(weights, budget, **{"recipe": TUNED, "progress": False, **options})


def drawn(space, seed, side=16, moves=6):
    """A network of a chain space whose batch norms are not what they are when it is built."""
    gates = {"squeeze_excite": True} if space.endswith("gates") else {}
    where = zs.get_space(space.split()[0], input_size=(3, side, side), num_classes=5, max_width=32, **gates)
    network, rng = where.initial(), random.Random(seed)
    for _ in range(moves):
        network = where.mutate(network, rng)
    return lively(zs.build(network, seed=seed))


def lively(network):
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight.data, part.running_var):
                values.uniform_(0.3, 2, generator=generator)
            for values in (part.bias.data, part.running_mean):
                values.normal_(generator=generator)
    return network.eval()


def masked(network, kept):
    """The network with all channels, those that went at zero: each convolution is followed by its batch norm."""
    network = copy.deepcopy(network)
    parts = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
    for norm, own in zip(parts[1::2], kept, strict=True):
        gone = torch.ones(norm.num_features, dtype=torch.bool)
        gone[list(own)] = False
        norm.weight.data[gone] = 0
        norm.bias.data[gone] = 0
    return network


@torch.no_grad()
def outputs(network):
    images = torch.randn(3, *network.architecture.input_size, generator=torch.Generator().manual_seed(1))
    return network(images)


@pytest.mark.parametrize("space", CHAINS)
@settings(max_examples=3, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 99),
    shares=st.tuples(st.floats(0.2, 1.1), st.floats(0.2, 1.1)),
    importance=st.sampled_from(["norm", "bn_scale", "random"]),
    step=st.sampled_from([1, 1, 4]),
)
def test_a_network_is_within_the_budget_and_nothing_could_be_put_back(space, seed, shares, importance, step):
    network = drawn(space, seed)
    before = zs.cost(network.architecture)
    budget = zs.Budget(params=shares[0] * before.params, flops=shares[1] * before.flops)
    try:
        found = prune_channels(network, budget, importance=importance, width_step=step)
    except InfeasibleBudgetError:
        return
    after = found.architecture
    assert found.costs == zs.cost(after)
    assert not budget.violations(zs.cost(after), after)
    kinds = [outline(each).skeleton for each in (network.architecture, separated(network.architecture))]
    assert outline(after).skeleton in kinds
    assert [len(own) for own in found.kept] == list(outline(after).widths)
    widths = free_widths(network.architecture)
    assert {place for width in widths for place in width.places} >= {(0, "out_channels"), (1, "out_channels")}
    for width in widths:
        place, name = width.places[0]
        own = getattr(after.blocks[place], name)
        wider = min((each for each in [width.value, *narrower(width.value, step)] if each > own), default=None)
        if wider is not None:
            more = narrowed(after, [(width, wider)])
            assert outline(more).skeleton != outline(after).skeleton or budget.violations(zs.cost(more), more)
    torch.testing.assert_close(outputs(found.network), outputs(masked(network, found.kept)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", zs.list_spaces())
def test_every_space_is_pruned_to_what_torch_pruning_makes_of_it_or_refused(space):
    where = zs.get_space(space, input_size=(3, 16, 16), num_classes=5)
    network = lively(zs.build(where.initial()))
    architecture, costs = network.architecture, zs.cost(network.architecture)
    budget = zs.Budget(params=0.6 * costs.params)
    found = prune_channels(network, budget, width_step=16 if costs.params > 100_000 else 1)
    assert not budget.violations(zs.cost(found.architecture))
    groups = find_groups(network, "norm", None, 0)
    assert sorted(place for group in groups for place in group.convolutions) == [*range(len(convolutions(network)))]
    module = without_channels(network, groups, [len(own) for own in found.kept])
    assert torch.equal(outputs(module), outputs(found.network))
    assert network.architecture is architecture


def test_repeats_of_a_plain_convolution_get_widths_of_their_own():
    network = lively(zs.build(zs.Architecture.from_string("SuperConvK3BNRELU(3,16,1,3)SuperResK3K3(16,16,2,8,2)")))
    apart = separated(network.architecture)
    assert apart.to_string() == "SuperConvK3BNRELU(3,16,1,1)" + 2 * "SuperConvK3BNRELU(16,16,1,1)" + (
        "SuperResK3K3(16,16,2,8,2)"
    ), "a residual block's repeats have no projection, but its first has"
    assert torch.equal(outputs(_like(network, apart, network)), outputs(network))
    found = prune_channels(network, zs.Budget(params=3_000), importance="random")
    assert len({block.out_channels for block in found.architecture.blocks[:3]}) > 1


def test_linked_blocks_keep_one_width():
    """Blocks that are linked where their widths are equal are so afterwards, and no others are."""
    blocks = [zs.Architecture.from_string("SuperConvK3BNRELU(3,12,1,1)").blocks[0]]
    from zeroshot_nas.architecture.blockspec import BLOCKS

    blocks += [BLOCKS["MobileNetV2E3K3"](out_channels=width) for width in (12, 12, 20)]
    network = zs.Architecture(tuple(blocks), (3, 8, 8))
    assert [width.value for width in free_widths(network)] == [12, 20]
    skeleton, (linked, _) = outline(network).skeleton, free_widths(network)
    assert outline_within(lambda: narrowed(network, [(linked, 7)]), skeleton)
    assert outline_within(lambda: narrowed(network, [(free_widths(network)[1], 12)]), skeleton) is None
    found = prune_channels(lively(zs.build(network)), zs.Budget(params=1_000))
    assert outline(found.architecture).skeleton == skeleton


def test_a_link_inside_of_a_block_keeps_its_widths_equal():
    network = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResIDWE1K3(8,16,2,16,1)")
    assert [(len(width.places), width.value) for width in free_widths(network)] == [(1, 8), (2, 16)]


def test_other_costs_are_kept_to_as_well():
    class Table:
        digest = "a table"

        def latency_ms(self, architecture):
            return 1 + zs.cost(architecture).activations / 1e4

    network = zs.build(NET)
    before = zs.cost(NET)
    limits = {"peak_memory": 0.95 * before.peak_memory, "weights": 0.5 * before.weights}
    found = prune_channels(network, zs.Budget(**limits, latency_ms=1.1), device_table=Table())
    assert not zs.Budget(**limits).violations(zs.cost(found.architecture))
    assert found.costs.latency_ms == Table().latency_ms(found.architecture) <= 1.1 < Table().latency_ms(NET)
    with pytest.raises(BudgetError, match="needs the table that predicts it: device_table=FILE"):
        prune_channels(network, zs.Budget(latency_ms=1))
    with pytest.raises(BudgetError, match="a device table needs a limit on latency"):
        prune_channels(network, BUDGET, device_table=Table())


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_channels_that_do_nothing_go_first(trained, importance):
    """Half of the inner channels at zero: what says how much a channel is worth takes these."""
    network = load(trained)
    first, *_ = (part for part in network.modules() if isinstance(part, nn.Sequential) and len(part) == 3)
    dead = torch.arange(0, 12, 2)
    convolution, norm = first[0], first[1]
    for values in (convolution.weight, norm.weight, norm.bias):
        values.data[dead] = 0
    for part in convolutions(network):
        if part.in_channels == 12:
            part.weight.data[:, dead] = 0
    narrow = dataclasses.replace(NET.blocks[0], out_channels=6)
    budget = zs.Budget(params=zs.cost(dataclasses.replace(NET, blocks=(narrow, NET.blocks[1]))).params)
    found = prune_channels(network, budget, zs.load_data("digits"), importance=importance)
    same = set(found.kept[0]) == set(range(1, 12, 2))
    assert same == (importance != "random")
    if same:
        torch.testing.assert_close(outputs(found.network), outputs(network.eval()), rtol=1e-4, atol=1e-5)


def test_a_budget_that_is_met_changes_nothing(trained):
    network = load(trained)
    found = prune_channels(network, zs.Budget(params=zs.cost(NET).params))
    assert found.architecture == NET
    assert found.before == found.costs == zs.cost(NET)
    assert _equal(found.network.state_dict(), network.state_dict())
    assert [len(own) for own in found.kept] == list(outline(NET).widths)
    still = pruned(trained, zs.Budget(), recipe=dataclasses.replace(TUNED, learning_rate_per_256=0))
    assert still.network.architecture == NET
    parameters = dict(network.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in still.network.named_parameters())


def test_a_budget_below_the_narrowest_network_names_both_numbers(trained):
    with pytest.raises(InfeasibleBudgetError, match=r"narrowest network .* \(params [\d,]+, limit 50\)"):
        pruned(trained, zs.Budget(params=50))
    with pytest.raises(InfeasibleBudgetError, match=r"\(layers 3, limit 2\)\. Pruning takes channels, not layers"):
        pruned(trained, zs.Budget(layers=2))


@pytest.mark.slow
def test_it_is_tuned_from_the_weights_that_are_left_and_can_be_exported(trained, tmp_path):
    before = json.loads((trained / "train.json").read_text())
    result = pruned(trained, out=tmp_path / "p")
    assert isinstance(result.network, TrainedNetwork)
    assert result.params <= 3_000 < before["params"]
    assert (result.seed, result.data) == (3, "digits"), "the run's"
    scratch = zs.train(result.network.architecture, "digits", TUNED, progress=False, seed=3)
    assert result.history[0].train_loss < scratch.history[0].train_loss
    about = json.loads((tmp_path / "p" / "prune.json").read_text())
    assert about["before"]["params"] == before["params"]
    assert about["costs"] == zs.cost(result.network.architecture).to_dict()
    assert load(tmp_path / "p").architecture == result.network.architecture
    report = zs.export_network(tmp_path / "p", tmp_path, formats=("onnx",))
    assert report.files[0].max_difference < 1e-4


def test_the_recipe_is_the_runs_own():
    told = {"recipe": FIRST.to_dict()}
    assert tuning_recipe(told, None) == FIRST
    assert tuning_recipe(told, None, epochs=1).epochs == 1
    assert tuning_recipe(told, "quick") == zs.get_recipe("quick")
    with pytest.raises(RecipeError, match="quantization must be none"):
        tuning_recipe(told, "qat")


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["taylor", "random"])
def test_the_same_seed_gives_the_same_network(trained, importance):
    once = dataclasses.replace(TUNED, epochs=1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = pruned(trained, importance=importance, seed=1, recipe=once)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = pruned(trained, importance=importance, seed=1, recipe=once)
    other = pruned(trained, importance=importance, seed=2, recipe=once)
    assert first.network.architecture == again.network.architecture
    assert _equal(_weights(first), _weights(again))
    assert not _equal(_weights(first), _weights(other))


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_never_was(trained, monkeypatch, tmp_path):
    whole = pruned(trained)
    with monkeypatch.context() as patch:
        _interrupt_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):  # before the end of the first epoch
            pruned(trained, out=tmp_path)
    weights = (tmp_path / "pruned.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        _interrupt_at(patch, 15)
        assert pruned(trained, out=tmp_path, resume=True).state == "interrupted"
    with pytest.raises(SettingsChangedError, match=r"was pruned otherwise.*budget.*3000.*2000"):
        pruned(trained, zs.Budget(params=2_000), out=tmp_path, resume=True)
    result = zs.resume(tmp_path, progress=False)
    assert result.state == "done"
    assert _equal(_weights(result), _weights(whole))
    again = pruned(trained, out=tmp_path, resume=True)
    assert _equal(_weights(again), _weights(whole))
    assert (tmp_path / "pruned.safetensors").read_bytes() == weights
    with pytest.raises(OutputExistsError, match="already holds a run"):
        pruned(trained, out=tmp_path)
    other = pruned(trained, zs.Budget(params=2_000), out=tmp_path, force=True)
    assert other.params <= 2_000
    assert other.history[0].epoch == 1


def test_a_network_of_ones_own_is_taken_with_data(tmp_path):
    tiny = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 6, 6), num_classes=2)
    network = zs.build(tiny)
    with pytest.raises(DataError, match="needs data"):
        zs.prune(network, zs.Budget(params=60))
    how = {"recipe": dataclasses.replace(TUNED, batch_size=16, epochs=1), "progress": False}
    alone = zs.prune(network, zs.Budget(params=60), BARS, **how)
    kept = zs.prune(network, zs.Budget(params=60), BARS, out=tmp_path, **how)
    assert alone.params == kept.params <= 60
    assert _equal(_weights(alone), _weights(kept))
    with pytest.raises(DataError, match="num_classes=2, but 'digits' has 10"):
        zs.prune(network, zs.Budget(params=60), "digits", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cant_be_pruned_is_refused(trained, tmp_path, monkeypatch):
    with pytest.raises(ArchitectureError, match="got a Linear: torch-pruning itself takes any module"):
        zs.prune(nn.Linear(2, 2), BUDGET)
    with pytest.raises(ArchitectureError, match="got a Architecture: train it first"):
        prune_channels(NET, BUDGET)
    with pytest.raises(FileNotFoundError, match="is not there"):
        pruned(tmp_path / "nowhere")
    (tmp_path / "best.safetensors").write_bytes(b"no weights")
    with pytest.raises(FileFormatError):
        pruned(tmp_path)
    with pytest.raises(OutputExistsError, match="holds the weights to start from"):
        pruned(trained, out=trained, force=True)
    with pytest.raises(UnknownNameError, match="unknown importance 'norn'\\. Did you mean 'norm'"):
        pruned(trained, importance="norn")
    with pytest.raises(BudgetError, match="takes a Budget"):
        pruned(trained, 50_000)
    with pytest.raises(DataError, match="'taylor' needs training images"):
        prune_channels(zs.build(NET), BUDGET, importance="taylor")
    with pytest.raises(ValueError, match="width_step"):
        prune_channels(zs.build(NET), BUDGET, width_step=0)
    one = zs.Architecture.from_string("SuperConvK3BNRELU(1,1,1,1)", (1, 8, 8))
    with pytest.raises(ArchitectureError, match="no width of the network can be narrowed"):
        prune_channels(zs.build(one), zs.Budget(params=5))
    headless = zs.build(NET)
    headless.reset_classifier(0)
    with pytest.raises(ArchitectureError, match="no classifier"):
        prune_channels(headless, BUDGET)
    zs.quantize_aware(trained, recipe=zs.Recipe(epochs=1, batch_size=512), out=tmp_path / "int8", progress=False)
    with pytest.raises(RecipeError, match="an int8 network is not pruned"):
        pruned(tmp_path / "int8")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingExtraError, match=r"torch-pruning is not installed.*zeroshot-nas\[prune\]"):
        pruned(trained)


def test_a_run_that_is_not_at_its_end_is_said(trained, monkeypatch, tmp_path):
    told = {**read_result(trained), "state": "running", "epochs": 1}
    for name in ("best.safetensors", "architecture.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "train.json").write_text(json.dumps(told))
    with pytest.warns(UnfinishedRunWarning, match=r"is running, 1 of 3 epochs are done"):
        pruned(tmp_path, recipe=dataclasses.replace(TUNED, epochs=1))


@pytest.mark.slow
def test_the_command(run, trained, tmp_path):
    call = ("prune", trained, "--max-params", "3k", "--epochs", 1, "--out", tmp_path / "p")
    code, out, err = run(*call, "--importance", "taylor")
    assert (code, err) == (0, "")
    assert f"of {zs.cost(NET).params:,}" in out.splitlines()[0]
    assert out.startswith("params")
    assert "test accuracy" in out
    code, out, err = run(*call, "--importance", "taylor", "--resume", "--json")
    assert json.loads(out)["pruned"]["settings"]["budget"]["params"] == 3_000
    for options, said in (
        (("--out", tmp_path / "q"), "a budget is missing: give --max-params"),
        (("--max-params", "3"), "no channels are left to prune"),
        (("--max-latency", "3ms"), "on the command line --device-table"),
        (("--max-params", "3k", "--importance", "x"), "unknown importance 'x'"),
        (("--max-params", "3k", "--data", "mnist9"), "unknown data set 'mnist9'"),
    ):
        code, out, err = run("prune", trained, *options)
        assert (code, out) == (2, ""), err
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("limits", [{"params": 2_000}, {"weights": "1.5kB"}])
def test_layers_keep_their_bits(limits):
    """Channels go, not layers: what is left of a layer is stored as it was."""
    whole = zs.allocate_bits(NET, "3kB", (2, 4, 8))
    left = prune_channels(zs.build(whole), zs.Budget(**limits), importance="norm")
    assert left.network.architecture.weight_bits == whole.weight_bits
    assert left.before == zs.cost(whole)
    assert left.costs == zs.cost(left.network.architecture)
    assert left.costs["weights"] < left.before["weights"]
    assert not zs.Budget(**limits).violations(left.costs, left.network.architecture)
