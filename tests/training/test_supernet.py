"""One-shot supernets: what is trained, that it goes on, and what it says of the networks that it holds."""

import random
import shutil
from dataclasses import replace

import pytest
import torch

import zeroshot_nas as zs
from zeroshot_nas.errors import (
    ArchitectureError,
    FileFormatError,
    InfeasibleBudgetError,
    ProxyError,
    RecipeError,
    SettingsChangedError,
)
from zeroshot_nas.network.slicing import slices
from zeroshot_nas.testing import check_proxy
from zeroshot_nas.training import supernet as supernets
from zeroshot_nas.training.elastic import Elastic

SIZE = (3, 9, 9)
LARGEST = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK5K5(8,12,2,8,2)", SIZE, 3)
SMALL = zs.Architecture.from_string("SuperConvK3BNRELU(3,4,1,1)SuperResK3K3(4,6,2,4,1)", SIZE, 3)
RECIPE = zs.Recipe(epochs=2, batch_size=16, learning_rate_per_256=1.0, warmup_epochs=0, validation_fraction=0.25)
QUIET = {"progress": False, "width_step": 2}


def _data():
    """Three classes, each with a channel that is bright."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 3
    images = torch.rand(96, *SIZE, generator=generator) * 0.5
    images[torch.arange(96), labels] += 0.4
    names = ("red", "green", "blue")
    return zs.ImageData(images, labels, images[:12], labels[:12], names, "colours")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "supernet"
    zs.train_supernet(LARGEST, _data(), replace(RECIPE, epochs=12), out=folder, **QUIET)
    return folder


def _weights(result):
    return {name: value.clone() for name, value in result.network.state_dict().items()}


def _same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vanilla", "inverted"])
def test_every_drawn_network_of_a_chain_space_is_held_and_in_the_space(name):
    kernels = {"kernels": (3, 5, 7)} if name == "inverted" else {}  # a largest network holds all smaller kernels
    space = zs.get_space(name, input_size=SIZE, num_classes=3, max_width=64, **kernels)
    for seed in range(4):
        largest = space.sample(random.Random(seed))
        elastic = Elastic(largest, width_step=space.width_step)
        drawn = [elastic.sample(random.Random(each)) for each in range(3)]
        assert all(each in space for each in (*drawn, elastic.smallest()))
        assert all(slices(largest, each).parts for each in (*drawn, elastic.smallest()))
        assert all(zs.cost(elastic.smallest()).params <= zs.cost(each).params for each in drawn)
        assert drawn[0] == elastic.sample(random.Random(0))


def test_choices_are_drawn_evenly():
    elastic, rng = Elastic(LARGEST, width_step=2, least_width=0.5), random.Random(0)
    blocks = [elastic.sample(rng).blocks for _ in range(600)]
    counts = {width: sum(stem.out_channels == width for stem, _ in blocks) for width in (4, 6, 8)}
    assert sum(counts.values()) == 600
    assert all(abs(count - 200) < 60 for count in counts.values())
    assert {(body.kernel_size, body.sub_layers) for _, body in blocks} == {(3, 1), (3, 2), (5, 1), (5, 2)}


def test_a_budget_leaves_the_dear_ones_out():
    budget = zs.Budget(flops=zs.cost(SMALL).flops)
    elastic = Elastic(LARGEST, width_step=1, budget=budget)
    assert all(zs.cost(elastic.sample(random.Random(seed))).flops <= budget.flops for seed in range(20))
    with pytest.raises(InfeasibleBudgetError, match="none of 10,000 random networks was within"):
        zs.train_supernet(LARGEST, _data(), RECIPE, budget=zs.Budget(flops=10), **QUIET)


@pytest.mark.slow
@pytest.mark.parametrize("sandwich", [0, 1])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch, sandwich):
    def asked(**how):
        return zs.train_supernet(LARGEST, _data(), RECIPE, sandwich=sandwich, seed=3, **QUIET, **how)

    state = torch.get_rng_state()
    whole = asked()
    assert torch.equal(state, torch.get_rng_state())

    def interrupting(event):
        if event.kind == "epoch":
            raise KeyboardInterrupt

    assert asked(out=tmp_path / "run", callbacks=[interrupting]).state == "interrupted"
    ended = asked(out=tmp_path / "run", resume=True)
    assert (ended.state, ended.epochs) == ("done", 2)
    assert _same(_weights(whole), _weights(ended))
    assert not _same(_weights(whole), _weights(zs.train_supernet(LARGEST, _data(), RECIPE, seed=4, **QUIET)))
    with pytest.raises(SettingsChangedError, match="width_step"):
        zs.train_supernet(LARGEST, _data(), RECIPE, out=tmp_path / "run", resume=True, progress=False, width_step=4)


def test_a_run_goes_on_from_its_folder(tmp_path):
    ended = zs.train_supernet(LARGEST, _data(), RECIPE, out=tmp_path, budget=zs.Budget(params=1e4), **QUIET)
    again = zs.resume(tmp_path, data=_data(), progress=False)
    assert _same(_weights(ended), _weights(again))


def test_one_path_a_step_trains_that_path_and_nothing_else(monkeypatch):
    monkeypatch.setattr(Elastic, "sample", lambda *_: SMALL)
    recipe = replace(RECIPE, weight_decay=0.0)
    trained = _weights(zs.train_supernet(LARGEST, _data(), recipe, **QUIET))
    monkeypatch.setattr(supernets._SupernetLearner, "_train_epoch", lambda *_: (0.1, 1.0))
    before = _weights(zs.train_supernet(LARGEST, _data(), recipe, **QUIET))
    changed = {name: trained[name] != before[name] for name in trained if "running" not in name and "num" not in name}
    for name, kept in slices(LARGEST, SMALL).parts.items():
        if name in changed:
            inside = changed[name]
            for dimension, part in enumerate(kept):
                inside = inside.narrow(dimension, part.start, part.stop - part.start)
            assert inside.any(), name
            inside.fill_(False)
    assert not any(each.any() for each in changed.values())


@pytest.mark.slow
def test_a_supernet_knows_what_it_was_trained_on(run):
    supernet = zs.Supernet.load(run)
    assert len(supernet.images) == len(supernet.labels) == 24
    assert len(supernet.calibration) == 72
    assert supernet.network.architecture == LARGEST
    assert supernet.accuracy(SMALL) > 0.8
    child = supernet.sub_network(SMALL)
    assert torch.equal(child.blocks[0][0].weight, supernet.network.blocks[0][0].weight[:4])
    statistics = child.blocks[0][1].running_mean
    raw = torch.cat([child.blocks[0][0]((each - child.mean) / child.std) for each in supernet.calibration.split(36)])
    torch.testing.assert_close(statistics, raw.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert not child.training


def test_the_proxy_keeps_the_contract(tmp_path):
    largest = zs.Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)", SIZE, 10)
    data = replace(_data(), class_names=tuple("abcdefghij"))
    zs.train_supernet(largest, data, replace(RECIPE, epochs=1), out=tmp_path, **QUIET)
    check_proxy(f"supernet:run={tmp_path}")


def test_the_proxy_is_the_accuracy(run):
    key = f"supernet:run={run}"
    score = zs.score(SMALL, key)
    assert score.value == zs.Supernet.load(run).accuracy(SMALL)
    assert score.standard_error == 0
    elastic = Elastic(LARGEST, width_step=2)
    rows = [elastic.sample(random.Random(seed)).to_string() for seed in range(4)]
    table = zs.BenchmarkTable(name="four", space="vanilla", rows=rows, accuracy=[50, 60, 70, 80])
    found = zs.correlate([key, "ceres"], table, input_size=SIZE, num_classes=3, progress=False)
    assert found[key].failed == 0


def test_a_search_within_a_supernet(run):
    space = zs.get_space("vanilla", input_size=SIZE, num_classes=3, max_width=16)
    found = zs.search(space, f"supernet:run={run}", zs.Budget(params=5e4), proposals=15, progress=False, seed=1)
    assert found.best is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SuperConvK3BNRELU(3,10,1,1)SuperResK3K3(10,6,2,4,1)", "block 0: expected 8 channels or fewer, got 10"),
        ("SuperConvK3BNRELU(3,4,1,1)SuperResK3K3(4,6,2,4,3)", "block 1: expected 2 sub-layers or fewer, got 3"),
        ("SuperConvK3BNRELU(3,4,1,1)", "expected 2 blocks"),
    ],
)
def test_a_network_that_a_supernet_does_not_hold_has_no_score(run, text, message):
    network = zs.Architecture.from_string(text, SIZE, 3)
    score = zs.score(network, f"supernet:run={run}")
    assert (score.state, "does not hold" in score.reason) == ("failed", True)
    with pytest.raises(ArchitectureError, match=message):
        zs.Supernet.load(run).accuracy(network)


def test_other_images_have_no_score(run):
    score = zs.score(replace(SMALL, input_size=(3, 16, 16)), f"supernet:run={run}")
    assert "expected an architecture for images (3, 9, 9)" in score.reason


def test_what_is_no_supernet_is_said(run, tmp_path):
    with pytest.raises(ProxyError, match="give its folder, as in supernet:run="):
        zs.score(SMALL, "supernet")
    with pytest.raises(ProxyError, match="holds no supernet"):
        zs.score(SMALL, f"supernet:run={tmp_path}")
    with pytest.raises(ProxyError, match=r"calibration must be .* 2 or more, got 1"):
        zs.score(SMALL, f"supernet:run={run}:calibration=1")
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / supernets.SUPERNET_IMAGES).write_bytes(b"no images")
    with pytest.raises(FileFormatError, match="is damaged"):
        zs.score(SMALL, f"supernet:run={tmp_path / 'copy'}")


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"recipe": replace(RECIPE, validation_fraction=0.0)}, RecipeError, "validation_fraction must be above 0"),
        ({"sandwich": 2, "budget": zs.Budget(flops=1e6)}, RecipeError, "one of the two"),
        ({"sandwich": -1}, RecipeError, "sandwich"),
        ({"least_width": 0.0}, ArchitectureError, "least_width must be above 0"),
        ({"width_step": 0}, ArchitectureError, "width_step"),
    ],
)
def test_settings_that_can_not_be_are_refused(how, error, message):
    with pytest.raises(error, match=message):
        zs.train_supernet(LARGEST, _data(), **{"recipe": RECIPE, **QUIET, **how})


def test_a_network_of_cells_is_refused():
    with pytest.raises(ArchitectureError, match="Graph can't be sliced"):
        zs.train_supernet(zs.get_space("nasbench201").initial(), _data(), RECIPE, **QUIET)
