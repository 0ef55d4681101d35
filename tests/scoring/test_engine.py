"""`score`: a function of network, proxy, settings and seed and of nothing else; any module; failures are states."""

import copy
import math
import random
import statistics
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zeroshot_nas as zs
from tests import published
from zeroshot_nas import Architecture, Batch, build, get_proxy, list_proxies
from zeroshot_nas.core.score import Score
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.errors import ArchitectureError, ProxyError, UnknownNameError
from zeroshot_nas.scoring.proxy import PROXIES, Proxy

SMALL = Architecture.from_string(
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,12,2,8,2)SuperResIDWE2K3(12,16,2,8,1)", (3, 9, 8), squeeze_excite=True
)
MODULE_PROXIES = [name for name in list_proxies() if PROXIES[name].function is not None]
SIZE = (3, 8, 8)


class Foreign(nn.Module):
    """A module with no special methods: functional ReLU, dropout, mean pooling."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.drop(F.relu(self.bn1(self.conv1(x))))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(self.drop(x.mean((2, 3))))


def foreign(dropout: float = 0.5) -> Foreign:
    """With weights from a fixed seed and running statistics that a forward pass has moved."""
    module = Foreign(dropout)
    generator = torch_generator(11)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 0.9, generator=generator)
    return module


def plain(*last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *last)


def value(*args, **options) -> float:
    result = zs.score(*args, **options)
    assert result.ok, result.reason
    return result.value


def random_states():
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


def snapshot(module: nn.Module) -> dict[str, object]:
    """All that scoring could change: bits of weights and buffers, modes, gradients, hooks, flags, random state."""
    parts = list(module.modules())
    return {
        "tensors": {name: (tensor.dtype, tensor.tolist()) for name, tensor in module.state_dict().items()},
        "identity": [id(tensor) for tensor in module.parameters()],
        "modes": [part.training for part in parts],
        "grads": [None if p.grad is None else p.grad.tolist() for p in module.parameters()],
        "requires grad": [p.requires_grad for p in module.parameters()],
        "hooks": [
            [list(getattr(part, name)) for name in vars(part) if name.endswith("_hooks") and getattr(part, name)]
            for part in parts
        ],
        "attributes": [sorted(vars(part)) for part in parts],
        "random": random_states(),
    }


# Laws


def vandal(network, batch, /):
    """A proxy that breaks what it can: weights, modes, hooks, gradients and the global generators."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    network.train()
    network.register_forward_hook(lambda *_: None)
    with torch.enable_grad():
        network(batch.inputs).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    batch.inputs.zero_()
    return 1.0


CALLS = {
    "paper": {"proxy": "zen"},
    "zennas": {"proxy": "zen", "variant": "zennas"},
    "keep": {"proxy": "zen", "init": "keep"},
    "every proxy": {"proxy": MODULE_PROXIES},
    "vandal": {"proxy": vandal},
    "fails": {"proxy": lambda *_: math.nan},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_scoring_leaves_the_module_as_it_was(call):
    module = foreign()
    module.bn1.eval()
    module.bn2.weight.requires_grad_(False)
    module.conv1.weight.grad = torch.ones_like(module.conv1.weight)
    module.register_forward_hook(lambda *_: None)
    module.conv2.register_forward_pre_hook(lambda *_: None)
    before = snapshot(module)
    zs.score(module, input_size=SIZE, repeats=2, **call)
    after = snapshot(module)
    assert [name for name in before if before[name] != after[name]] == []


def test_an_error_leaves_all_as_it_was_too():
    module = foreign()
    before = snapshot(module)
    with pytest.raises(ProxyError):
        zs.score(module, "zen", input_size=(5, 8, 8))
    assert snapshot(module) == before


def test_our_own_network_is_left_as_it_was():
    network = build(SMALL)
    before = snapshot(network)
    zs.score(network, "zen", repeats=1)
    assert snapshot(network) == before


@pytest.mark.parametrize("proxy", [*MODULE_PROXIES, "zen:variant=zennas"])
@pytest.mark.parametrize("model", [SMALL, foreign()], ids=["architecture", "module"])
def test_the_same_seed_gives_the_same_score(model, proxy):
    size = {} if model is SMALL else {"input_size": SIZE}
    (first,) = zs.score(model, [proxy], seed=3, repeats=2, **size).values()
    random.random()
    torch.rand(())
    (again,) = zs.score(model, [proxy], seed=3, repeats=2, **size).values()
    assert (again.reason, str(again.value)) == (first.reason, str(first.value))


@pytest.mark.parametrize(
    "proxy", ["zen", "zen:variant=zennas", "phi", "naswot", "snip", "synflow", "jacob_cov", "meco"]
)
def test_another_seed_gives_another_score(proxy):
    assert value(WHOLE, proxy, input_size=SIZE, seed=3) != value(WHOLE, proxy, input_size=SIZE, seed=4)


def test_the_order_of_calls_does_not_matter():
    one, two = SMALL, foreign()

    def first():
        return value(one, "zen")

    def second():
        return value(two, "zen", input_size=SIZE)

    forwards = [first(), second()]
    backwards = [second(), first()]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("init", [None, "keep"])
def test_proxies_asked_together_score_as_alone(init):
    """In any order; one proxy's passes do not reach the next one's score."""
    asked = ["zen", "phi", "zen:variant=zennas"]
    module = foreign()
    alone = {get_proxy(name).key: value(module, name, input_size=SIZE, init=init) for name in asked}
    for order in (asked, asked[::-1]):
        together = zs.score(module, order, input_size=SIZE, init=init)
        assert list(together) == [get_proxy(name).key for name in order]
        assert {key: result.value for key, result in together.items()} == alone


class Recorder:
    """Zen-score that keeps each repeat's value."""

    __name__ = "recorder"

    def __init__(self) -> None:
        self.values: list[float] = []

    def __call__(self, network, batch, /):
        self.values.append(PROXIES["zen"].function(network, batch))
        return self.values[-1]


@pytest.mark.parametrize("model", [SMALL, foreign()], ids=["architecture", "module"])
def test_repeats_are_the_first_of_more_repeats(model):
    size = {} if model is SMALL else {"input_size": SIZE}
    recorders = {repeats: Recorder() for repeats in (1, 2, 5)}
    results = {n: zs.score(model, recorder, repeats=n, **size) for n, recorder in recorders.items()}
    many = recorders[5].values
    assert len(set(many)) == 5
    for repeats, recorder in recorders.items():
        assert recorder.values == many[:repeats]
        assert results[repeats].value == statistics.fmean(many[:repeats])
        assert results[repeats].repeats == repeats
    assert results[1].standard_error is None
    assert results[5].standard_error == pytest.approx(statistics.stdev(many) / math.sqrt(5), rel=1e-12)


def test_each_repeat_draws_its_own_weights_and_images():
    """From the seed alone: another model or proxy sees the same images. N(0, 1), mean and deviation within 5 errors."""

    def draws(model, seed, **size):
        seen = []

        def look(network, batch, /):
            seen.append((next(network.parameters()).clone(), *(tensor.clone() for tensor in (batch[0], batch[2]))))
            return 1.0

        zs.score(model, look, batch_size=4, repeats=3, seed=seed, **size)
        return seen

    seen = draws(foreign(), 5, input_size=SIZE)
    for first in range(3):
        for second in range(first):
            assert not any(map(torch.equal, seen[first], seen[second]))
    for images, other in zip(seen, draws(plain(), 5, input_size=SIZE), strict=True):
        assert all(map(torch.equal, images[1:], other[1:]))
    assert not any(map(torch.equal, seen[0], draws(foreign(), 6, input_size=SIZE)[0]))
    drawn = torch.cat([tensor.flatten() for _, *tensors in seen for tensor in tensors])
    assert abs(drawn.mean().item()) < 5 / math.sqrt(drawn.numel())
    assert abs(drawn.std().item() - 1) < 5 / math.sqrt(2 * drawn.numel())
    assert len(set(drawn.tolist())) > 0.99 * drawn.numel(), "no image is another one's perturbation"


@pytest.mark.slow
def test_an_architecture_scores_as_its_network():
    """Whatever the network's weights: they are drawn anew."""
    expected = zs.score(SMALL, ["zen", "phi"])
    for network in (build(SMALL), build(SMALL, seed=9), build(SMALL).eval()):
        scores = zs.score(network, ["zen", "phi"])
        assert {key: result.value for key, result in scores.items()} == {k: r.value for k, r in expected.items()}


def test_the_modules_own_state_does_not_matter_where_weights_are_drawn():
    reference, moved = Foreign(), foreign().eval()
    expected = value(reference, "zen", input_size=SIZE)
    assert value(moved, "zen", input_size=SIZE) == expected
    with torch.no_grad(), torch.inference_mode():
        assert value(moved, "zen", input_size=SIZE) == expected


@pytest.mark.parametrize(
    "architecture", [SMALL, published.architecture_of(published.CIFAR_1M)], ids=["small", "published"]
)
def test_the_thread_count_does_not_matter(architecture):
    """To 1e-4 relative: threads split sums, which rounds otherwise; depth must not amplify that into the score."""
    before, values = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            values.append(value(architecture, "zen", repeats=1))
    finally:
        torch.set_num_threads(before)
    assert values[1] == pytest.approx(values[0], rel=1e-4)


def test_the_default_dtype_does_not_matter():
    """A float32 module is scored on the same draws whatever type new tensors have elsewhere in the program."""
    module = foreign()
    expected = value(module, "zen", input_size=SIZE)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert value(module, "zen", input_size=SIZE) == pytest.approx(expected, rel=1e-4)
    finally:
        torch.set_default_dtype(before)


def test_the_batch_that_was_given_is_used():
    module = foreign()
    inputs, perturbation = (torch.randn(4, *SIZE, generator=torch_generator(axis)) for axis in range(2))
    batch = Batch(inputs, perturbation=perturbation)
    kept = zs.score(module, "zen", batch=batch, init="keep", repeats=4)
    assert kept.repeats == 1, "nothing is left to draw"
    assert kept.standard_error is None
    seen = []
    zs.score(module, lambda _, given: seen.append(given) or 1.0, batch=batch, repeats=2)
    assert all(torch.equal(given.inputs, inputs) for given in seen)
    assert zs.score(module, "zen", batch=batch, repeats=4).standard_error > 0, "weights are drawn on the given images"


# Anchors


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "mean"), [("paper", 191.9), ("zennas", 122.3)])
def test_the_published_network_scores_what_it_should(variant, mean):
    """ZenNet CIFAR-1M, batch 16, the mean of seeds 0 to 3; within 1.5."""
    architecture = published.architecture_of(published.CIFAR_1M)
    values = [value(architecture, "zen", variant=variant, batch_size=16, repeats=1, seed=seed) for seed in range(4)]
    assert statistics.fmean(values) == pytest.approx(mean, abs=1.5)


def test_deeper_networks_score_higher():
    """The paper's point: expressivity grows with depth."""
    texts = [f"SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,{depth})" for depth in (1, 3, 6)]
    values = [value(Architecture.from_string(text, SIZE), "zen") for text in texts]
    assert values == sorted(values)
    assert values[0] < values[-1] - 1


# Any module


def one_dimensional() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())


MODULES = {
    "sequential": (plain(), SIZE),
    "sequential with a head": (plain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)), SIZE),
    "functional": (foreign(), SIZE),
    "one channel": (nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (1, 8, 8)),
    "one dimension": (one_dimensional(), (2, 16)),
    "no space": (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()), (6,)),
    "double": (plain().double(), SIZE),
    "in place": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)), SIZE),
    "eval": (plain().eval(), SIZE),
    "frozen": (plain().requires_grad_(False), SIZE),
    "no running statistics": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)), SIZE),
}


@pytest.mark.parametrize("proxy", ["zen", "phi"])
@pytest.mark.parametrize(("module", "size"), MODULES.values(), ids=MODULES)
def test_any_module_is_scored(module, size, proxy):
    """Default settings; the whole feature map moves with the image, so two draws differ."""
    result = zs.score(module, proxy, input_size=size, batch_size=8)
    assert result.ok, result.reason
    assert math.isfinite(result.value)
    assert 0 < result.standard_error < 5


WHOLE = nn.Sequential(
    *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
    *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()),
    *(nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
)
"""A classifier for which every proxy of a module is defined."""


@pytest.mark.parametrize("proxy", MODULE_PROXIES)
def test_every_proxy_scores_a_classifier(proxy):
    for module in (WHOLE, copy.deepcopy(WHOLE).requires_grad_(False).eval(), copy.deepcopy(WHOLE).double()):
        result = zs.score(module, proxy, input_size=SIZE, repeats=2)
        assert result.ok, result.reason
        assert math.isfinite(result.value)


@pytest.mark.filterwarnings("ignore:no FLOPs are counted")
@pytest.mark.parametrize(("module", "size"), MODULES.values(), ids=MODULES)
def test_what_a_proxy_lacks_is_a_state_with_a_reason(module, size):
    """No logits, no ReLU, one block alone, inputs without space: said in words, and nothing else is lost."""
    scores = zs.score(module, MODULE_PROXIES, input_size=size, batch_size=8, repeats=1)
    assert list(scores) == MODULE_PROXIES
    for name, result in scores.items():
        assert math.isfinite(result.value) if result.ok else len(result.reason) > 20, name
        assert "could not run" not in result.reason, f"{name}: {result.reason}"
    assert sum(result.ok for result in scores.values()) >= 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_proxy_scores_on_cuda_what_it_does_on_the_cpu():
    here = zs.score(WHOLE, MODULE_PROXIES, input_size=SIZE, repeats=1)
    there = zs.score(copy.deepcopy(WHOLE).to("cuda"), MODULE_PROXIES, input_size=SIZE, repeats=1)
    assert {name: score.ok for name, score in there.items()} == {name: score.ok for name, score in here.items()}
    for name in ("zen", "phi", "naswot", "synflow", "snip"):
        assert there[name].value == pytest.approx(here[name].value, rel=1e-2)


def test_a_network_too_large_to_build_is_an_error_alone_and_a_state_among_others():
    huge = Architecture.from_string("SuperConvK3BNRELU(3,60000,1,2)", SIZE)
    with pytest.raises(ArchitectureError, match="are not built"):
        zs.score(huge, "naswot")
    scores = zs.score(huge, ["params", "naswot", "zen"])
    assert scores["params"].ok
    for name in ("naswot", "zen"):
        assert "are not built" in scores[name].reason


def test_one_image_is_enough():
    assert zs.score(plain(), "zen", input_size=SIZE, batch_size=1).ok


def test_dropout_adds_no_noise():
    """Batch norms use the batch, all else is as at inference."""
    with_dropout, without = (value(foreign(dropout), "zen", input_size=SIZE) for dropout in (0.5, 0.0))
    assert with_dropout == without


def test_an_in_place_relu_scores_as_one_that_is_not():
    plain_one = plain()
    in_place = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    assert value(in_place, "zen", input_size=SIZE) == value(plain_one, "zen", input_size=SIZE)


# Failures are states with a reason


def dead() -> nn.Module:
    module = plain()
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.zero_()
    return module


def with_nan() -> nn.Module:
    module = plain()
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = math.nan
    return module


@pytest.mark.parametrize(("make", "reason"), [(dead, "dead|zero"), (with_nan, "not finite")])
def test_a_network_that_has_no_score_is_failed_with_the_reason(make, reason):
    result = zs.score(make(), "zen", input_size=SIZE, init="keep")
    assert result.state == "failed"
    assert not result.ok
    assert math.isnan(result.value)
    assert result.standard_error is None
    assert result.repeats == 0
    assert 0 <= result.seconds < 60
    assert any(word in result.reason for word in reason.split("|"))
    assert result.reason in str(result)
    assert result.to_dict()["value"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_proxy_that_is_not_finite_has_failed(bad):
    result = zs.score(plain(), lambda *_: bad, input_size=SIZE)
    assert result.state == "failed"
    assert "not finite" in result.reason


def test_a_failure_of_one_proxy_leaves_the_others():
    scores = zs.score(dead(), ["zen", constant], input_size=SIZE, init="keep")
    assert [result.state for result in scores.values()] == ["failed", "ok"]


def constant(network, batch, /):
    return 1.0


# Mistakes


@pytest.mark.parametrize("size", [(5, 8, 8), (3, 1, 1), (3, 8), (3, 8, 8, 8)])
def test_a_wrong_input_size(size):
    with pytest.raises(
        ProxyError, match=r"zen could not run Sequential on inputs of shape .*Check input_size"
    ) as caught:
        zs.score(plain(), "zen", input_size=size)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("size", [(), (0, 8, 8), (3, -8, 8), (3.0, 8, 8), (3, True, 8), "338"])
def test_an_input_size_that_is_none(size):
    with pytest.raises(ProxyError, match="input_size must be whole numbers"):
        zs.score(plain(), "zen", input_size=size)


def test_a_missing_input_size():
    with pytest.raises(ProxyError, match=r"scoring a Sequential needs input_size=\(C, H, W\), or batch="):
        zs.score(plain(), "zen")


def test_an_architecture_has_its_own_input_size():
    for model in (SMALL, build(SMALL)):
        assert value(model, "zen", input_size=(3, 9, 8), repeats=1) == value(model, "zen", repeats=1)
        with pytest.raises(ProxyError, match=r"has input_size \(3, 9, 8\), got \(3, 8, 8\)"):
            zs.score(model, "zen", input_size=(3, 8, 8))


def test_an_unknown_proxy_suggests_the_nearest():
    for proxy in ("zem", ["zen", "zem"], "zem:variant=l1"):
        with pytest.raises(UnknownNameError, match=r"unknown proxy 'zem'\. Did you mean 'zen'\?"):
            zs.score(SMALL, proxy)
    with pytest.raises(KeyError):
        zs.score(SMALL, "zem")


def test_an_unknown_option_suggests_the_nearest():
    for call in ({"proxy": "zen", "variannt": "l1"}, {"proxy": "zen:variannt=l1"}):
        with pytest.raises(ProxyError, match=r"proxy 'zen' has no option 'variannt'\. Did you mean 'variant'\?"):
            zs.score(SMALL, **call)
    with pytest.raises(ProxyError, match=r"'constant' has no option 'k'.* Options: none"):
        zs.score(SMALL, constant, k=3)
    with pytest.raises(ProxyError, match="expected option=value after 'zen', got 'l1'"):
        zs.score(SMALL, "zen:l1")


@pytest.mark.parametrize("setting", ["repeats", "batch_size"])
@pytest.mark.parametrize("number", [0, -1, 1.0, True, "4"])
def test_bad_settings(setting, number):
    with pytest.raises(ProxyError, match=f"{setting} must be a whole number"):
        zs.score(SMALL, "zen", **{setting: number})


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
def test_a_bad_seed(seed):
    with pytest.raises(ValueError, match="a seed is an integer of 0 or more"):
        zs.score(SMALL, "zen", seed=seed)


def test_an_unknown_init():
    with pytest.raises(ValueError, match="init must be 'kaiming', 'gaussian' or 'keep'"):
        zs.score(SMALL, "zen", init="xavier")


def test_an_architecture_has_no_weights_to_keep():
    with pytest.raises(ProxyError, match="an architecture has no weights to keep"):
        zs.score(SMALL, "zen", init="keep")


@pytest.mark.parametrize("model", ["SuperConvK3BNRELU(3,8,1,1)", None, plain, 3])
def test_what_is_no_network(model):
    with pytest.raises(ProxyError, match=r"expected an Architecture or a torch\.nn\.Module, got|needs input_size"):
        zs.score(model, "zen")
    with pytest.raises(ProxyError, match=r"expected an Architecture or a torch\.nn\.Module, got"):
        zs.score(model, "zen", input_size=SIZE)


def test_a_module_that_can_not_be_copied():
    module = plain()
    module.lock = threading.Lock()
    with pytest.raises(ProxyError, match=r"Sequential can't be copied \(TypeError: .*lock.*locks, files, streams"):
        zs.score(module, "zen", input_size=SIZE)
    with pytest.raises(ArchitectureError, match="Sequential can't be copied"):
        zs.cost(module, input_size=SIZE)


def test_tensors_with_a_history_are_copied():
    module = plain()
    module.cache = {"last": [module[0].weight * 2]}
    assert value(module, "zen", input_size=SIZE) == value(plain(), "zen", input_size=SIZE)
    assert module.cache["last"][0].grad_fn is not None


@pytest.mark.parametrize("proxy", [3, None, object()], ids=["number", "None", "object"])
def test_what_is_no_proxy(proxy):
    with pytest.raises(ProxyError, match="a proxy is a name or a function"):
        zs.score(SMALL, proxy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": torch.zeros(2, 3, 8, 8)}, r"batch must be Batch\(inputs, targets\) with tensors, got Tensor"),
        ({"batch": Batch([1.0])}, "with tensors, got list"),
        ({"input_size": 32}, r"input_size must be whole numbers of 1 or more, such as \(3, 32, 32\), got 32"),
        ({"input_size": "32"}, "input_size must be whole numbers"),
        ({"input_size": (3, 8.0, 8)}, "input_size must be whole numbers"),
        ({"input_size": SIZE, "device": "cuda:99"}, r"device 'cuda:99' can't be used: .*expected 'cpu' or a device"),
        ({"input_size": SIZE, "device": "no such"}, "device 'no such' can't be used"),
    ],
)
def test_settings_of_another_kind_are_refused_in_one_line(settings, message):
    for model in (plain(), SMALL):
        if model is SMALL and "input_size" in settings:
            settings = settings | {"input_size": SMALL.input_size} if "device" in settings else settings
            message = message if "device" in settings else r"the architecture has input_size \(3, 9, 8\), got"
        with pytest.raises(ProxyError, match=message) as caught:
            zs.score(model, "naswot", **settings)
        assert "\n" not in str(caught.value)


# What the caller's torch is set to


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def every_score(model):
    names = ["zen", "naswot", "snip", "synflow", "vkdnw", "az_trainability", "meco", "phi", "gradsign"]  # of each kind
    return {name: score.value for name, score in zs.score(model, names, input_size=SIZE, repeats=1).items()}


CALLERS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "meta by default": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_the_context_of_the_caller_does_not_reach_scores(caller):
    expected = every_score(foreign())
    of_ours = value(SMALL, "snip", repeats=1)
    module, costs = foreign(), zs.cost(foreign(), input_size=SIZE)
    with caller():
        assert every_score(module) == pytest.approx(expected, nan_ok=True, rel=0)
        assert value(SMALL, "snip", repeats=1) == of_ours
        assert zs.cost(module, input_size=SIZE) == costs


def test_a_module_and_a_batch_of_inference_mode_have_gradients():
    batch = Batch(torch.ones(4, *SIZE) + torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([0, 1, 2, 0]))
    expected = value(foreign(), "snip", batch=batch)
    with torch.inference_mode():
        made_there = foreign()
        copied = Batch(batch.inputs.clone(), batch.targets.clone())
    assert value(made_there, "snip", batch=copied) == expected


@pytest.mark.usefixtures("float64_by_default")
def test_the_default_dtype_does_not_reach_scores():
    ours, given = value(SMALL, "snip", repeats=1), zs.score(foreign().float(), "snip", input_size=SIZE, repeats=1)
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)
    assert ours == value(SMALL, "snip", repeats=1)
    assert given.value == zs.score(foreign(), "snip", input_size=SIZE, repeats=1).value


@pytest.mark.slow
def test_scoring_in_a_thread_rewinds_no_stream_of_the_caller():
    """A stream that is put back while another thread draws from it repeats itself."""
    done = threading.Event()

    def work():
        for _ in range(3):
            zs.score(foreign(0.0), MODULE_PROXIES, input_size=SIZE, repeats=1)
            zs.score(SMALL, ["snip", "zen"], repeats=1)
            zs.cost(foreign(), input_size=SIZE)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    draws = []
    while not done.is_set() or len(draws) < 1000:
        draws.append((torch.rand((), dtype=torch.float64).item(), random.random(), np.random.rand()))  # noqa: NPY002
    thread.join()
    for stream in zip(*draws, strict=True):
        assert len(set(stream)) == len(stream)


# Proxies of one's own


def test_a_function_is_a_proxy():
    """Higher is better, Kaiming weights, links on, no gradients."""
    seen = []

    def spread(network, batch, /, *, power=1.0):
        seen.append((network.training, torch.is_grad_enabled(), batch.inputs.shape, batch.inputs.dtype))
        return float(network(batch.inputs).std()) ** power

    result = zs.score(SMALL, spread, batch_size=3, repeats=2)
    assert result.ok
    assert result.proxy == "spread"
    assert seen == [(False, False, (3, 3, 9, 8), torch.float32)] * 2
    assert get_proxy(spread).sign == 1
    squared = zs.score(SMALL, spread, batch_size=3, repeats=1, power=2)
    once = zs.score(SMALL, spread, batch_size=3, repeats=1)
    assert squared.proxy == "spread:power=2"
    assert squared.value == pytest.approx(once.value**2, rel=1e-12)


def test_a_function_may_return_any_scalar():
    """A tensor of one element, a numpy number: what torch code returns without thinking."""
    for number in (torch.tensor(1.5), np.float32(1.5), 3 / 2):
        for repeats in (1, 3):
            result = zs.score(plain(), lambda *_, number=number: number, input_size=SIZE, repeats=repeats)
            assert result.value == 1.5
            assert type(result.value) is float
    assert zs.score(plain(), lambda *_: 2, input_size=SIZE, repeats=1).value == 2


@pytest.mark.parametrize("returned", [None, "1.0", [1.0], torch.zeros(3)], ids=lambda value: type(value).__name__)
def test_a_function_that_returns_no_number_is_refused(returned):
    with pytest.raises(ProxyError):
        zs.score(plain(), lambda *_: returned, input_size=SIZE)


def test_what_a_function_raises_is_passed_on_with_its_cause():
    def broken(network, batch, /):
        raise IndexError("first line\nsecond line")

    with pytest.raises(ProxyError, match=r"broken could not run Sequential .*IndexError: first line") as caught:
        zs.score(plain(), broken, input_size=SIZE)
    assert isinstance(caught.value.__cause__, IndexError)
    assert "second line" not in str(caught.value)


def test_interrupts_are_not_swallowed():
    def interrupted(network, batch, /):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zs.score(plain(), interrupted, input_size=SIZE)


def test_two_functions_of_one_name_are_both_scored_or_refused():
    first, second = (lambda *_: 1.0), (lambda *_: 2.0)
    try:
        scores = zs.score(plain(), [first, second], input_size=SIZE)
    except ProxyError:
        return
    assert sorted(result.value for result in scores.values()) == [1.0, 2.0]


def test_several_proxies_in_a_list():
    scores = zs.score(SMALL, ["zen", "zen:variant=zennas", constant, get_proxy("zen", alpha=0.1)], repeats=1)
    assert list(scores) == ["zen", "zen:variant=zennas", "constant", "zen:alpha=0.1"]
    assert all(result.ok and result.proxy == key for key, result in scores.items())
    assert scores["zen"].value != scores["zen:variant=zennas"].value
    assert zs.score(SMALL, ("zen",), repeats=1)["zen"].value == scores["zen"].value


def test_options_in_the_name_are_the_options():
    by_name = value(SMALL, "zen:alpha=0.05:variant=l1", repeats=1)
    assert value(SMALL, "zen", alpha=0.05, variant="l1", repeats=1) == by_name
    assert value(SMALL, get_proxy("zen", variant="l1"), alpha=0.05, repeats=1) == by_name
    assert get_proxy("zen:alpha=0.05:variant=l1").key == get_proxy("zen", variant="l1", alpha=0.05).key


def test_keys_lead_back_to_the_proxy():
    for proxy in (get_proxy("zen"), get_proxy("zen", alpha=0.25, variant="l1")):
        again = get_proxy(proxy.key)
        assert isinstance(again, Proxy)
        assert (again.info.name, dict(again.options)) == (proxy.info.name, dict(proxy.options))


def test_every_registered_proxy_states_its_facts():
    for name in list_proxies():
        info = PROXIES[name]
        assert info.name == name
        assert info.source, name
        assert info.direction in ("higher", "lower")
        assert info.init in ("gaussian", "kaiming", "keep")
        assert info.parts or (info.function or info.closed_form).__doc__, name


def test_a_score_round_trips():
    ok, failed = zs.score(plain(), "zen", input_size=SIZE), zs.score(dead(), "zen", input_size=SIZE, init="keep")
    assert Score.from_dict(ok.to_dict()) == ok
    back = Score.from_dict(failed.to_dict())
    assert math.isnan(back.value)
    assert back.to_dict() == failed.to_dict()
    assert "4 repeats" in str(ok)
    assert "failed" in str(failed)


# What one proxy changes, the others don't see


def doubles(network, batch, /):
    for parameter in network.parameters():
        parameter.data.mul_(2)
    batch.inputs.mul_(2)
    return 1.0


def doubles_as_autograd_knows(network, batch, /):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
        return batch.passes(network).forward.output.abs().mean().item()


def replaces(network, batch, /):
    for parameter in network.parameters():
        parameter.data = parameter.data[:1] if parameter.dim() == 1 else parameter.data.double()
    return 1.0


def accumulates(network, batch, /):
    with torch.enable_grad():
        F.cross_entropy(network(batch.inputs), torch.zeros(len(batch.inputs)).long()).backward()
    return math.fsum(parameter.grad.abs().sum().item() for parameter in network.parameters())


def freezes(network, batch, /):
    network.requires_grad_(False)
    return 1.0


def accumulates_too(network, batch, /):
    return accumulates(network, batch)


@pytest.mark.parametrize("vandal", [doubles, doubles_as_autograd_knows, replaces, accumulates, freezes])
@pytest.mark.parametrize("init", [None, "keep"])
def test_a_proxy_that_changes_what_it_is_given_changes_no_other_one(vandal, init):
    module, asked = foreign(), ["synflow", "grad_norm", "naswot", "ntk_cond", "l2_norm", accumulates_too]
    alone = {get_proxy(each).key: value(module, each, input_size=SIZE, init=init) for each in asked}
    for order in ([vandal, *asked], [*asked[:3], vandal, *asked[3:]]):
        joint = zs.score(module, order, input_size=SIZE, init=init)
        assert {key: joint[key].value for key in alone} == alone


def test_arrays_that_a_proxy_changes_are_put_back():
    inputs = torch.randn(4, *SIZE, generator=torch_generator(0))
    before = inputs.clone()
    zs.score(foreign(), doubles, batch=Batch(inputs))
    assert torch.equal(inputs, before)
