"""What makes training fast leaves what is computed: layouts, folded batch norms, bfloat16."""

import copy
import json
import random
import warnings

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

import zeroshot_nas as zs
from tests.searching.test_every_space import SMALL
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import PrecisionWarning, RecipeError
from zeroshot_nas.network.module import initialize
from zeroshot_nas.training import narrow_norm, precision
from zeroshot_nas.training.base import ImageData
from zeroshot_nas.training.checkpoint import TrainedNetwork
from zeroshot_nas.training.narrow_norm import FOLD, NARROW, NarrowBatchNorm2d, fold_batch_norms
from zeroshot_nas.training.precision import FastConv2d, precision_of, speed_up
from zeroshot_nas.training.recipe import PRECISIONS, Recipe
from zeroshot_nas.training.trainer import train

GREY = Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,12,1,8,1)", (1, 8, 8), num_classes=2)
COLOUR = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,1,8,1)", (3, 8, 8), num_classes=2)


def _bars(channels=3, count=60):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 128, (count, channels, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[labels == 0, :, 3] += 100
    images[labels == 1, :, :, 3] += 100
    half = count // 2
    return ImageData(images[:half], labels[:half], images[half:], labels[half:], ("row", "column"), "bars")


def _network(architecture):
    channels, classes = architecture.input_size[0], architecture.num_classes
    network = TrainedNetwork(architecture, [0.5] * channels, [0.3] * channels, tuple(map(str, range(classes))))
    initialize(network, "kaiming", torch.Generator().manual_seed(0))
    return network.train()


def _weights(result):
    return list(result.network.state_dict().values())


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(_weights(one), _weights(other), strict=True))


@pytest.fixture
def folds_all(monkeypatch):
    monkeypatch.setattr(narrow_norm, "FEW", 0)
    monkeypatch.setattr(narrow_norm, "LOW", (torch.bfloat16, torch.float32, torch.float64))


@pytest.fixture
def any_processor(monkeypatch):
    """Sets whether the processor multiplies bfloat16."""
    return lambda able: monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: able)


@given(
    st.integers(2, NARROW - 1),
    st.sampled_from([(4, 8, 16), (33, 32, 8)]),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_folded_batch_norm_is_a_batch_norm(channels, shape, low, seed):
    """Output, gradients and running statistics are those of double precision, as near as torch's own."""
    generator = torch.Generator().manual_seed(seed)
    count, height, width = shape
    dtype, tolerance = (torch.bfloat16, 2e-2) if low else (torch.float32, 2e-4)
    values = torch.randn(count, channels, height, width, generator=generator) * 3 + 1
    images = values.to(dtype).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(values.shape, generator=generator).to(images)
    exact = nn.BatchNorm2d(channels).double()
    nn.init.uniform_(exact.weight)
    nn.init.uniform_(exact.bias)
    folded = copy.deepcopy(exact).float()
    fold_batch_norms(folded)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow_norm, "FEW", 0)
        patch.setattr(narrow_norm, "LOW", (torch.bfloat16, torch.float32))
        for norm, x in ((exact, images.double()), (folded, images.clone())):
            out = norm(x.requires_grad_())
            out.backward(gradient.to(out))
            found.append([out, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
            assert norm.num_batches_tracked == 1
    assert found[1][0].grad_fn.name() == "_FoldedBackward"
    for one, other in zip(*found, strict=True):
        scale = one.abs().max().item()
        torch.testing.assert_close(other.double(), one, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(
    "case",
    [
        *("evaluation", "rows first", "few values", "odd number of pixels", "one channel", "many channels"),
        "single precision",
    ],
)
def test_batch_norms_that_are_not_folded(monkeypatch, case):
    channels = {"one channel": 1, "many channels": NARROW}.get(case, 8)
    monkeypatch.setattr(narrow_norm, "FEW", 10**9 if case == "few values" else 0)
    if case != "single precision":
        monkeypatch.setattr(narrow_norm, "LOW", (torch.float32,))
    shape = (3, channels, 5, 7) if case == "odd number of pixels" else (2, channels, FOLD, FOLD)
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    images = images.contiguous() if case == "rows first" else images
    plain = nn.BatchNorm2d(channels)
    folded = copy.deepcopy(plain)
    fold_batch_norms(folded)
    assert isinstance(folded, NarrowBatchNorm2d) is (case != "many channels")
    for norm in (plain, folded):
        norm.train(case != "evaluation")
    assert torch.equal(plain(images), folded(images))
    assert plain.state_dict().keys() == folded.state_dict().keys()
    assert torch.equal(plain.running_var, folded.running_var)


@pytest.mark.usefixtures("folds_all")
@pytest.mark.parametrize("name", zs.list_spaces())
def test_networks_of_every_space_compute_what_they_did(name):
    """Logits and gradients of a network that was sped up are those of the plain one; in double precision, by which no
    ReLU passes what another has not.
    """
    architecture = zs.get_space(name, **SMALL.get(name, {})).sample(random.Random(0))
    plain, fast = _network(architecture).double(), _network(architecture).double()
    speed_up(fast)
    images = torch.rand(8, *architecture.input_size, dtype=torch.float64)
    logits = [network(images) for network in (plain, fast)]
    for each in logits:
        each.square().mean().backward()
    torch.testing.assert_close(*logits, rtol=1e-6, atol=1e-8)
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {"kernel_size": 3, "stride": 2, "padding": 1}),
        (1, {"kernel_size": 1, "stride": 2}),
        (3, {"kernel_size": 1, "stride": 2}),
        (6, {"kernel_size": 1, "stride": (1, 3), "groups": 2}),
        (6, {"kernel_size": 3, "groups": 6, "dilation": 2}),
        (5, {"kernel_size": 1, "stride": 2, "padding": 1}),
    ],
)
def test_a_fast_convolution_is_a_convolution(channels, options):
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, 12, **options)
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    fast.__class__ = FastConv2d
    images, found = torch.rand(4, channels, 9, 9), []
    for conv in (plain, fast):
        x = images.clone().requires_grad_()
        out = conv(x)
        out.square().sum().backward()
        found.append((out, x.grad, conv.weight.grad, conv.bias.grad, conv.eval()(images)))
    torch.testing.assert_close(*found)


def test_channels_lie_last():
    for architecture in (GREY, COLOUR, Architecture.from_string("SuperConvK1BNRELU(3,8,2,1)", (3, 8, 8))):
        network = _network(architecture)
        speed_up(network)
        convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
        assert {type(each) for each in convolutions} == {FastConv2d}
        assert all(each.weight.is_contiguous(memory_format=torch.channels_last) for each in convolutions)


def test_grouped_convolutions_stay_in_single_precision():
    network = _network(Architecture.from_string("SuperResIDWE2K3(3,8,2,8,1)", (3, 8, 8)))
    speed_up(network)
    grouped = next(part for part in network.modules() if isinstance(part, FastConv2d) and part.groups > 1)
    x = torch.randn(2, grouped.in_channels, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low, single = grouped(x.bfloat16()), grouped(x)
    assert (low.dtype, single.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(single, grouped(x))


@pytest.mark.parametrize("able", [True, False])
def test_auto_follows_from_network_and_processor(any_processor, able):
    any_processor(able)
    assert precision_of(_network(COLOUR), "auto") == ("bfloat16" if able else "float32")
    assert precision_of(_network(COLOUR), "bfloat16") == "bfloat16"
    assert precision_of(_network(COLOUR), "float32") == "float32"
    assert precision_of(_network(COLOUR).to("meta"), "auto") == "float32"  # as on any other device


def test_a_module_of_anyones_is_trained_as_it_is(any_processor):
    any_processor(able=True)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    result = train(module, _bars(), Recipe(epochs=1, batch_size=16), progress=False)
    assert result.precision == "float32"
    assert type(result.network.module[1]) is nn.BatchNorm2d


@pytest.mark.parametrize("asked", PRECISIONS)
@pytest.mark.parametrize("architecture", [GREY, COLOUR], ids=["grey", "colour"])
def test_what_it_was_trained_in_is_told(tmp_path, any_processor, architecture, asked):
    any_processor(able=True)
    recipe = Recipe(epochs=3, batch_size=16, precision=asked)
    result = train(architecture, _bars(architecture.input_size[0]), recipe, progress=False, out=tmp_path)
    assert result.precision == ("float32" if asked == "float32" else "bfloat16")
    assert result.test_accuracy >= 0.5
    written = json.loads((tmp_path / "train.json").read_text())
    assert (written["precision"], written["recipe"]["precision"]) == (result.precision, asked)
    assert dict(result.rows())["time"].endswith(f"trained in {result.precision}")
    loaded = zs.load(tmp_path)
    assert all(value.dtype in (torch.float32, torch.int64) for value in loaded.state_dict().values())
    assert {type(part) for part in loaded.modules()}.isdisjoint({NarrowBatchNorm2d, FastConv2d})


@pytest.mark.usefixtures("folds_all")
def test_a_seed_gives_the_same_weights_stopped_or_not(tmp_path, any_processor):
    """A run goes on in the precision that it began in, wherever; a processor that can only imitate it is told of."""
    recipe = Recipe(epochs=3, batch_size=16, ema_decay=0.9, mixup=0.2, flip=True)
    any_processor(able=True)
    whole = train(COLOUR, _bars(), recipe, progress=False)
    assert _same(whole, train(COLOUR, _bars(), recipe, progress=False))
    stop = {"out": tmp_path, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        zs.training.trainer.train_until(
            3,
            COLOUR,
            _bars(),
            recipe,
            zs.runs.options.RunOptions(**stop),
            seed=0,
            device=None,
            threads=None,
            stops=lambda: True,
        )
    any_processor(able=False)
    with pytest.warns(PrecisionWarning, match="precision 'auto' takes what is faster"):
        resumed = train(COLOUR, _bars(), recipe, **stop, resume=True)
    assert resumed.precision == "bfloat16"
    assert _same(whole, resumed)


def test_bfloat16_where_the_processor_has_none_works_and_warns(any_processor):
    any_processor(able=False)
    recipe = Recipe(epochs=1, batch_size=16, precision="bfloat16")
    with pytest.warns(PrecisionWarning):
        result = train(COLOUR, _bars(), recipe, progress=False)
    assert result.precision == "bfloat16"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train(COLOUR, _bars(), Recipe(epochs=1, batch_size=16), progress=False).precision == "float32"


def test_a_teacher_in_bfloat16():
    recipe = Recipe(epochs=2, batch_size=16, precision="bfloat16", gradient_clip=1.0, random_erasing=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        teacher = train(COLOUR, _bars(), recipe, progress=False).network
        result = train(COLOUR, _bars(), recipe, teacher=teacher, progress=False)
    assert all(value.isfinite().all() for value in _weights(result))


def test_wrong_precisions_are_refused_in_one_line(run):
    with pytest.raises(RecipeError, match="precision must be one of 'float32', 'bfloat16', 'auto', got 'bf16x'"):
        Recipe(precision="bf16x")
    commands = (
        ("train", "SuperConvK3BNRELU(1,8,1,1)", "--input", "1x8x8"),
        ("compare", "SuperConvK3BNRELU(1,8,1,1)", "--input", "1x8x8"),
        ("search", "--max-params", "10k", "--trials", "2", "--data", "digits", "--input", "1x8x8"),
    )
    for command in commands:
        code, out, error = run(*command, "--precision", "bf16x")
        assert (code, out, error.count("\n")) == (2, "", 1)
        assert "'float32', 'bfloat16', 'auto'" in error
    code, _, error = run("search", "--max-params", "10k", "--precision", "float32")
    assert (code, "--precision is what trials train by" in error) == (2, True)


@pytest.mark.slow
def test_trials_train_in_the_precision_that_is_asked_for(run, tmp_path):
    how = ("--max-params", "4k", "--max-layers", "6", "--input", "1x8x8", "--proposals", "50", "--seed", "0")
    trials = ("--trials", "2", "--data", "digits", "--recipe", "quick", "--precision", "float32", "--out", tmp_path)
    assert run("search", *how, *trials)[0] == 0
    written = [json.loads(file.read_text()) for file in (tmp_path / "trials").glob("*/train.json")]
    assert {(each["precision"], each["recipe"]["precision"]) for each in written} == {("float32", "float32")}
