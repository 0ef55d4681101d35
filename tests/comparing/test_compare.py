"""Networks beside hand-made ones: what is trained, what is said of it, and that nothing changes it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zeroshot_nas as zs
from zeroshot_nas.comparing import compare as comparing
from zeroshot_nas.comparing.comparison import Compared, Comparison, Training
from zeroshot_nas.errors import (
    ArchitectureError,
    BudgetError,
    DataError,
    FileFormatError,
    InfeasibleBudgetError,
    MissingExtraError,
    OutputExistsError,
    SettingsChangedError,
    UnknownNameError,
)
from zeroshot_nas.training import learner
from zeroshot_nas.training.result import wilson_interval

pytestmark = pytest.mark.slow

NET = zs.Architecture.from_string("SuperConvK3BNRELU(1,16,2,1)SuperResK3K3(16,32,2,16,1)", (1, 8, 8))
RECIPE = zs.Recipe(epochs=2, batch_size=512, warmup_epochs=0)
TEXT = str(NET)


def compared(models=NET, references=("resnet8:strides=222",), **options):
    how = {"seeds": 2, "backend": None, "progress": False, **options}
    return zs.compare(models, references, "digits", RECIPE, **how)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "run"
    return compared(out=folder), folder


def right(comparison):
    return {each.name: [(run.seed, run.right) for run in each.trainings] for each in comparison.networks}


def network(*accuracies, images=400, name="net"):
    trainings = tuple(Training(seed, each) for seed, each in enumerate(accuracies))
    return Compared(name, NET, TEXT, False, zs.cost(NET), images, trainings)


RIGHT = st.integers(0, 400)


@given(RIGHT)
def test_the_interval_of_one_training_is_that_of_its_images(count):
    value, low, high = network(count).accuracy
    assert value == count / 400
    assert (low, high) == pytest.approx(wilson_interval(count, 400))


@given(st.lists(RIGHT, min_size=2, max_size=6))
def test_the_interval_of_several_is_wider_than_of_images_alone_and_of_seeds_alone(counts):
    value, low, high = network(*counts).accuracy
    mean = sum(counts) / len(counts)
    assert value == pytest.approx(mean / 400)
    bounds = wilson_interval(mean, 400)
    assert 0 <= low <= bounds[0] + 1e-9
    assert bounds[1] - 1e-9 <= high <= 1
    same = network(*[round(mean)] * len(counts)).accuracy
    assert high - low >= same.high - same.low - 0.01


def test_the_interval_over_seeds_is_students():
    value, low, high = network(200, 220, 240, images=10**9 // 2).accuracy
    half = 4.302653 * 20 / math.sqrt(3) / (10**9 // 2)  # Student's quantile of two degrees of freedom
    assert value - low == pytest.approx(math.hypot(half, value - wilson_interval(220, 10**9 // 2)[0]), rel=1e-6)
    assert high > value > low


@given(st.lists(RIGHT, min_size=1, max_size=3), st.lists(RIGHT, min_size=1, max_size=3))
def test_ahead_and_behind_are_one(mine, its):
    a, b = network(*mine), network(*its)
    ahead, behind = a.ahead_of(b), b.ahead_of(a)
    assert ahead.low <= ahead.value <= ahead.high
    assert tuple(-each for each in ahead) == pytest.approx((behind.value, behind.high, behind.low))


def test_a_comparison_is_read_back(unbroken):
    comparison, folder = unbroken
    assert Comparison.from_json(comparison.to_json()) == comparison
    assert Comparison.from_json((folder / "comparison.json").read_text()) == comparison
    assert len(repr(comparison)) < 2_000
    assert all(each.name in repr(comparison) for each in comparison.networks)
    for text in ("{", "[]", '{"format": "zeroshot_nas.comparison", "version": 1}', '{"format": "x"}'):
        with pytest.raises(FileFormatError):
            Comparison.from_json(text)


def test_hand_made_networks_get_the_same_means(unbroken):
    comparison, folder = unbroken
    found, by_hand = comparison.networks
    assert (found.name, by_hand.name, by_hand.by_hand) == ("network", "resnet8:strides=222", True)
    for cost in ("params", "flops"):
        assert getattr(by_hand.costs, cost) <= getattr(found.costs, cost)
    for name in ("comparison.png", "comparison.svg"):
        assert (folder / name).stat().st_size > 1_000


def test_each_training_is_the_one_that_train_does(unbroken):
    comparison, folder = unbroken
    for each in comparison.networks:
        for run in each.trainings:
            alone = zs.train(each.architecture, "digits", RECIPE, seed=run.seed, threads=1, progress=False)
            assert run.right / each.test_images == alone.test_accuracy
            where = folder / "trainings" / f"{each.name.replace(':', '-')}-seed{run.seed}"
            kept = zs.load(where).state_dict()
            assert all(kept[name].equal(value) for name, value in alone.network.state_dict().items())


@pytest.mark.usefixtures("no_plots")
def test_neither_workers_nor_power_cuts_change_it(tmp_path, monkeypatch, unbroken, processes):
    expected = right(unbroken[0])
    assert right(compared(executor=processes)) == expected
    train_epoch, calls = learner.Learner._train_epoch, []

    def dying(self, epoch):
        calls.append(epoch)
        if len(calls) == 4:
            raise SystemExit("power cut")
        return train_epoch(self, epoch)

    with monkeypatch.context() as patches:
        patches.setattr(learner.Learner, "_train_epoch", dying)
        with pytest.raises(SystemExit):
            compared(out=tmp_path / "run")
    calls.clear()
    patched = lambda self, epoch: calls.append(epoch) or train_epoch(self, epoch)  # noqa: E731
    monkeypatch.setattr(learner.Learner, "_train_epoch", patched)
    assert right(zs.resume(tmp_path / "run", progress=False)) == expected
    assert len(calls) == 8 - 3  # nothing is trained twice
    monkeypatch.setattr(learner.Learner, "_train_epoch", None)
    assert right(compared(out=tmp_path / "run", resume=True)) == expected
    with pytest.raises(SettingsChangedError, match="seeds"):
        compared(out=tmp_path / "run", resume=True, seeds=3)
    with pytest.raises(OutputExistsError):
        compared(out=tmp_path / "run")


@pytest.mark.usefixtures("no_plots")
def test_ctrl_c_keeps_what_is_done_and_goes_on(tmp_path, unbroken):
    seen = []

    def stop(event):
        seen.append(event)
        if event.kind == "training" and event.step == 2:
            raise KeyboardInterrupt

    found = compared(out=tmp_path, callbacks=[stop])
    assert found.state == "interrupted"
    assert [len(each.trainings) for each in found.networks] == [1, 1]
    assert [event.kind for event in seen] == ["begin", "plan", "training", "training", "end"]
    again = []
    assert right(zs.resume(tmp_path, progress=False, callbacks=[again.append])) == right(unbroken[0])
    assert [event.known for event in again if event.kind == "training"] == [True, True, False, False]
    assert again[-1].values["network"] == unbroken[0]["network"].accuracy.value


def test_what_can_not_be_trained_is_said_beside_the_others(monkeypatch):
    train_epoch = learner.Learner._train_epoch

    def diverging(self, epoch):
        return (0.1, math.nan) if len(self.network.architecture.blocks) == 4 else train_epoch(self, epoch)

    monkeypatch.setattr(learner.Learner, "_train_epoch", diverging)
    found = compared(seeds=1)
    assert found["resnet8:strides=222"].accuracy is None
    assert found.verdicts() == []
    texts = dict(found.rows())
    assert "the loss became nan" in texts["resnet8:strides=222"]
    assert found.by_accuracy()[0].name == "network"


@pytest.fixture
def untrained(monkeypatch, no_plots):
    """Trainings that take no time, and no picture of them; `unbroken` has its own."""
    monkeypatch.setattr(comparing, "train_one", lambda architecture, images, recipe, folder, seed, device: ANSWER)


ANSWER = ({"right": 300, "images": 450, "seconds": 1.0}, "")


@pytest.mark.parametrize("space", zs.list_spaces())
def test_a_network_of_every_space_is_compared(space, untrained, tmp_path):
    result = zs.search(space, "params", input_size=(1, 16, 16), proposals=20, progress=False)
    found = compared(result, ["resnet8"], seeds=1, out=tmp_path)
    assert [each.accuracy.value for each in found.networks] == [300 / 450] * 2
    assert zs.resume(tmp_path, progress=False) == found


def test_the_budget_of_hand_made_networks(untrained):
    budget = zs.Budget(params=3e4, layers=4, flops=None, structure=zs.StructureBounds(monotone_widths=True))
    result = zs.search("resnet", "cet", budget, input_size=(1, 8, 8), proposals=60, progress=False)
    scaled = {"what": zs.reference("resnet20", zs.Budget(params=3e4), (1, 8, 8))}
    for models, options, expected in (
        (result, {}, scaled["what"]),
        ([result.best], {"budget": zs.Budget(flops=1e6)}, zs.reference("resnet20", zs.Budget(flops=1e6), (1, 8, 8))),
        ({"a": result.best.architecture}, {"budget": zs.Budget()}, zs.reference("resnet20", None, (1, 8, 8))),
    ):
        assert compared(models, ["resnet20"], seeds=1, **options)["resnet20"].architecture == expected


def test_latency_is_measured_where_it_can_be(untrained, tmp_path, monkeypatch):
    calls = []
    fake = zs.cost(NET)
    stable = type(
        "M", (), {"latency_ms": 0.25, "__str__": lambda self: "0.25 ms ± 1.0% on engine 1.0, batch 1, 9 runs"}
    )

    def measured(architecture, backend, **how):
        calls.append(backend)
        return stable()

    monkeypatch.setattr(comparing, "measure", measured)
    found = compared(backend="torch", out=tmp_path, seeds=1)
    assert found.networks[0].costs == replace(fake, latency_ms=0.25)
    assert found.latency == "engine 1.0, batch 1, on this machine"
    compared(backend="torch", out=tmp_path, seeds=1, resume=True)
    assert calls == ["torch"] * 2  # kept

    def missing(*_, **__):
        raise MissingExtraError("onnxruntime", "onnx")

    monkeypatch.setattr(comparing, "measure", missing)
    assert "pip install" in compared(backend="onnxruntime", seeds=1).latency


def test_bad_questions_are_refused_before_anything_is_written(tmp_path):
    large = replace(NET, num_classes=7)
    for arguments, error, said in (
        ({"models": []}, ArchitectureError, "nothing to compare"),
        ({"models": [NET, "x"]}, ArchitectureError, "got str"),
        ({"models": [NET, zs.reference("resnet8")]}, ArchitectureError, "as many channels, got [1, 3]"),
        ({"references": ["resnet9"]}, UnknownNameError, "Did you mean 'resnet"),
        ({"references": ["resnet8", "resnet8"]}, ArchitectureError, "twice"),
        ({"budget": zs.Budget(params=10)}, InfeasibleBudgetError, "--published"),
        ({"models": large}, DataError, "num_classes=7"),
        ({"seeds": 0}, ValueError, "seeds"),
        ({"backend": "onnx"}, UnknownNameError, "onnxruntime"),
    ):
        with pytest.raises(error) as caught:
            compared(**arguments, out=tmp_path / "run")
        assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError, match="takes no option 'epoch'"):
        compared(epoch=3)


def test_the_command_line(untrained, tmp_path, capsys, monkeypatch):
    import sys

    from zeroshot_nas import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    budget, found = zs.Budget(params=3e4, layers=6), tmp_path / "found"
    zs.search("resnet", "cet", budget, input_size=(1, 8, 8), proposals=60, progress=False, out=found)
    how = ("--backend", "none", "--seeds", "2", "--epochs", "1", "--json")
    hand = zs.reference("resnet8", zs.Budget(params=3e4), (1, 8, 8))
    for place, model in enumerate((found, found / "best.json")):
        out = tmp_path / f"run{place}"
        code, text, err = run("compare", model, "--with", "resnet8", *how, "--out", out)
        assert code == 0
        assert err.startswith("2 networks x 2 seeds: 4 trainings of 1 epochs of 1,347 images")
        told = json.loads(text)
        assert [each["name"] for each in told["networks"]] == ["found", "resnet8"]
        assert zs.Architecture.from_dict(told["networks"][1]["architecture"]) == hand
        assert run("resume", out, "--json")[0] == 0
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    monkeypatch.chdir(tmp_path)
    for more in ((TEXT, "--input", "1x8x8"), (cell, "--space", "nasbench201", "--input", "1x8x8", "--published")):
        code, text, err = run("compare", *more, "--with", "mobilenetv2,resnet20", "--published", *how[:-1], "--quiet")
        assert (code, err) == (0, "")
        assert "network is 0.0 points" in text
        assert "written to" in text
    assert len(list((tmp_path / "runs").glob("compare-digits-*"))) == 2
    for arguments, said in (
        ((TEXT, "--input", "1x8x8", "--max-latency", "2ms"), "give --max-flops or --max-params"),
        ((TEXT, "--input", "1x8x8", "--published", "--max-params", "1M"), "leave out the limits, or it"),
        ((tmp_path,), "holds no network"),
        ((TEXT, "--input", "1x8x8", "--classes", "7", "--published"), "--new-head"),
    ):
        code, text, err = run("compare", *arguments, *how)
        assert (code, text) == (2, "")
        assert said in err
        assert err.count("\n") == 1
    assert (
        run("compare", TEXT, "--input", "1x8x8", "--classes", 7, "--new-head", "--published", *how, "--out", "x")[0]
        == 0
    )


@given(st.lists(st.text(max_size=80), unique=True, max_size=8))
def test_every_network_has_a_folder_of_its_own(names):
    """Also where names differ only in what a file system can't keep, or in capitals, or are too long for it."""
    files = comparing._file_names(names)
    assert len({file.casefold() for file in files}) == len(names)
    assert all(0 < len(file) < 80 and "/" not in file and file[0] not in ".-" for file in files)


def test_names_that_make_the_same_folder_are_trained_apart(tmp_path):
    wider = zs.Architecture.from_string("SuperConvK3BNRELU(1,20,2,1)", (1, 8, 8))
    found = compared({"a b": NET, "a-b": wider}, [], out=tmp_path / "run", seeds=1)
    assert [len(each.accuracies) for each in found.networks] == [1, 1]
    assert {"a-b-seed0", "a-b-2-seed0"} <= {each.name for each in (tmp_path / "run" / "trainings").iterdir()}
    with pytest.raises(FileNotFoundError, match="holds a comparison, whose trainings lie below"):
        zs.load(tmp_path / "run")


def test_networks_of_ones_own_by_hand():
    """Under a name that is taken they stand beside it; of images of other channels they are refused."""
    found = compared({"net": NET}, {"net": NET}, seeds=1)
    assert [each.name for each in found.networks] == ["net", "net by hand"]
    with pytest.raises(ArchitectureError, match="images of as many channels, 1; 'big' takes 3"):
        compared(NET, {"big": zs.reference("resnet8")})
    with pytest.raises(ArchitectureError, match="got Linear"):
        compared(NET, {"module": torch.nn.Linear(2, 2)})
    with pytest.raises(UnknownNameError, match=r"'resnet9'\. Did you mean 'resnet8'"):
        compared(NET, "resnet9")  # one name, not its letters


def test_a_recipe_may_hold_nothing_out():
    whole = replace(RECIPE, epochs=1, validation_fraction=0.0)
    found = zs.compare(NET, (), "digits", whole, seeds=1, backend=None, progress=False)
    assert [len(each.trainings) for each in found.networks] == [1]


def test_seeds_beyond_reason_are_refused_before_they_are_counted():
    with pytest.raises(ValueError, match="seeds must be 1,000 or fewer, got 100,000,000,000,000"):
        compared(seeds=10**14)


def test_a_limit_on_latency_is_refused():
    with pytest.raises(BudgetError, match="scaled by what is counted"):
        compared(budget=zs.Budget(latency_ms=1.0))


def test_what_was_not_compared_is_named(unbroken):
    with pytest.raises(UnknownNameError, match=r"unknown network 'nett'\. Known: network, resnet8"):
        unbroken[0]["nett"]
    text = json.dumps({**unbroken[0].to_dict(), "networks": []})
    with pytest.raises(FileFormatError, match="no networks"):
        Comparison.from_json(text)
