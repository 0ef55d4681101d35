"""How fast each proxy is: against its formula written plainly, and all of them in one call against one by one.

    python benchmarks/proxy_speed.py                     # both parts, three runs; some minutes on one core
    python benchmarks/proxy_speed.py --only together
    python benchmarks/proxy_speed.py --quick             # one call each: shows that it runs, not how fast

Parts: ``alone`` times each proxy's function and the plain one of `plain_proxies.py` in turn, on the same weights and
the same batch of 16, and checks that they give the same number. Neither is charged for the building or copying of the
network, nor for drawing weights and images; the whole call of ``score`` is a figure of its own. Times are also given
as multiples of one plain forward pass without gradients, measured in between. How fast ours could be at best is what
its convolution kernels alone take, forward and backward: plain time over that is the limit of plain over ours, were all
else free, and the share of these kernels in ours is how much of the limit is reached. ``together`` is one call of
``score`` for all proxies that share their passes. The network has the shape of ResNet-20 with 22, 44 and 88 channels
(513,776 parameters, 76.9M multiply-adds on 3x32x32). Torch runs on one thread, and times are seconds of CPU. Results go
to ``benchmarks/results/proxy_speed.json``, a table to the screen.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from common import Figure, Part, cpu_seconds_of, main
from plain_proxies import PLAIN, outputs_of
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import torch_generator
from zeroshot_nas.network.module import initialize
from zeroshot_nas.scoring.batch_norm import batch_statistics
from zeroshot_nas.scoring.forward import with_shared_passes
from zeroshot_nas.scoring.proxy import Proxy

INPUT_SIZE = (3, 32, 32)
BATCH_SIZE = 16
CLASSES = 10
SAME = 1e-9
"""Relative difference, in float64, of two ways to compute the same number."""


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = None
        if stride > 1 or in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(x)) + shortcut)


class ResNet20(nn.Module):
    """A stem, three stages of three blocks, a classifier."""

    def __init__(self, widths: Sequence[int] = (22, 44, 88), blocks: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages, channels = [], widths[0]
        for stage, width in enumerate(widths):
            for index in range(blocks):
                stages.append(Block(channels, width, 2 if stage > 0 and index == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu(self.norm(self.conv(x))))
        return self.classifier(self.flatten(self.pool(x)))


FEATURES = ("relu", *(f"blocks.{index}" for index in range(9)))
"""Feature maps that AZ-NAS reads: after the stem and after each block, where ours finds them by itself."""


@dataclass(frozen=True)
class Case:
    """A proxy, and what is asked of its speed.

    Attributes:
        options: With which ours is the number that the plain function gives.
        faster: Plain time over ours, at least.
        passes: Plain forward passes that ours costs at most: what the field's reference code costs.
        tolerance: Relative difference in float32, at most; that of golden values for such a proxy.
        plain: What the plain value must go through to be ours.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    faster: float = 1
    passes: float | None = None
    tolerance: float = 1e-5
    plain: Callable[[float], float] = float


CASES = {
    "zen": Case(passes=1.7),
    "naswot": Case(faster=2, passes=1.8),
    "synflow": Case(faster=2, passes=1.5, plain=math.log),
    "snip": Case(passes=3.0),
    "grasp": Case(passes=9.7, tolerance=1e-4),
    "fisher": Case({"variant": "zerocost"}, passes=3.3),
    "grad_norm": Case(passes=3.0),
    "l2_norm": Case(),
    "plain": Case(tolerance=1e-4),
    "jacob_cov": Case(faster=2, passes=3.5),
    "epe_nas": Case(),
    "zico": Case({"variant": "authors"}, faster=2, passes=3.6, tolerance=0.1),
    "gradsign": Case(passes=5.0, tolerance=0),
    "ntk_cond": Case(faster=2, passes=17, tolerance=1e-3),
    "linear_regions": Case(tolerance=0),
    "swap": Case(faster=2, passes=11.8, tolerance=0),
    "meco": Case(passes=2.3, tolerance=1e-4),
    "vkdnw": Case({"variant": "authors"}, faster=2, passes=27, tolerance=1e-2),
    "az_expressivity": Case(),
    "az_progressivity": Case(tolerance=1e-3),
    "az_trainability": Case(),
}
AZ = ("az_expressivity", "az_progressivity", "az_trainability")
"""One score of the field; its reference computes all three from the same pass."""
AZ_PASSES = 1.7

TOGETHER = (
    "naswot",
    "swap",
    "linear_regions",
    "meco",
    *AZ,
    "snip",
    "grad_norm",
    "fisher",
    "plain",
    "zico",
    "jacob_cov",
    "epe_nas",
    "l2_norm",
)
"""Proxies that read the same passes of the same weights on the same batch."""


class Subject:
    """The network and its batch twice: as a user has them, and as `score` prepares them.

    Args:
        name: The proxy, whose initialisation it has.
        dtype: Of weights and batch.
        channels_last: Whether ours is laid out as `score` lays out float32.
    """

    def __init__(self, name: str, dtype: torch.dtype = torch.float32, channels_last: bool = True) -> None:
        self.name = name
        self.proxy = zs.get_proxy(name, **CASES[name].options)
        self.plain_network = ResNet20()
        with torch.no_grad():
            initialize(self.plain_network, self.proxy.info.init, torch_generator(0, 0))
        self.plain_network.to(dtype).train()
        self.plain_batch = _batch(self.plain_network, dtype)
        self.state = copy.deepcopy(self.plain_network.state_dict())
        self.network = copy.deepcopy(self.plain_network)
        self.batch = self.plain_batch
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
            self.batch = _channels_last(self.plain_batch)

    def ours(self) -> tuple[float, float]:
        """Value and seconds of the registered function, as `score` calls it."""
        with _as_scored(self.network, self.batch, [self.proxy]) as batch:
            return _timed(lambda: self.proxy(self.network, batch))

    def kernels(self) -> float:
        """Seconds of the convolution kernels in ours."""
        with _Convolutions() as convolutions:
            self.ours()
        return convolutions.seconds

    def plain(self) -> tuple[float, float]:
        """Value and seconds of the plain function; the network's buffers are as new."""
        self.plain_network.load_state_dict(self.state)
        features = (FEATURES,) if self.name in AZ else ()
        value, seconds = _timed(lambda: PLAIN[self.name](self.plain_network, self.plain_batch, *features))
        return CASES[self.name].plain(value), seconds

    def whole(self) -> float:
        """Seconds of a call of `score`."""
        return cpu_seconds_of(lambda: _score(self.plain_network, [self.proxy]))


@contextmanager
def _as_scored(network: nn.Module, batch: zs.Batch, proxies: Sequence[Proxy]) -> Iterator[zs.Batch]:
    """What surrounds a proxy within `score`, and the batch that it gets; passes are shared within."""
    infos = [proxy.info for proxy in proxies]
    with batch_statistics(network), torch.set_grad_enabled(any(info.needs_gradients for info in infos)):
        yield with_shared_passes(batch, infos)


def _batch(network: nn.Module, dtype: torch.dtype) -> zs.Batch:
    generator = torch_generator(0, 1)

    def images() -> Tensor:
        return torch.randn((BATCH_SIZE, *INPUT_SIZE), generator=generator).to(dtype)

    def labels() -> Tensor:
        return torch.randint(CLASSES, (BATCH_SIZE,), generator=generator)

    inputs = images()
    parts = dict(network.named_modules())
    with torch.no_grad():
        _, maps = outputs_of(network, [parts[name] for name in FEATURES], inputs)
    noise = [torch.randint(2, each.shape, generator=generator).to(dtype) * 2 - 1 for _, each in maps[1:]]
    return zs.Batch(inputs, labels(), images(), (zs.Batch(images(), labels()),), tuple(noise), seed=0)


def _channels_last(batch: zs.Batch) -> zs.Batch:
    """The same numbers in the layout in which `score` draws images; noise is laid out by its proxy."""
    inputs, perturbation = (
        None if each is None else each.contiguous(memory_format=torch.channels_last)
        for each in (batch.inputs, batch.perturbation)
    )
    further = tuple(_channels_last(each) for each in batch.further)
    return batch._replace(inputs=inputs, perturbation=perturbation, further=further)


class _Convolutions(TorchDispatchMode):
    """While open, adds up the seconds of all convolution kernels, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results: list[Any] = []
        seconds = cpu_seconds_of(lambda: results.append(func(*args, **(kwargs or {}))))
        if "convolution" in func.__name__:
            self.seconds += seconds
        return results[0]


def _timed(function: Callable[[], float]) -> tuple[float, float]:
    values: list[float] = []
    seconds = cpu_seconds_of(lambda: values.append(function()))
    return values[0], seconds


def _score(network: nn.Module, proxies: Sequence[Proxy]) -> dict[str, zs.Score]:
    return zs.score(network, list(proxies), input_size=INPUT_SIZE, batch_size=BATCH_SIZE, repeats=1)


def alone(quick: bool) -> Part:
    """Each proxy against the plain function, in time and in value."""
    runs, calls = (1, 1) if quick else (3, 5)
    subjects = {name: Subject(name) for name in CASES}
    differences = {name: _differences(subject) for name, subject in subjects.items()}
    az = [subjects[name] for name in AZ]
    network, images = ResNet20().train(), torch.randn(BATCH_SIZE, *INPUT_SIZE)

    @torch.no_grad()
    def forward() -> float:
        return cpu_seconds_of(lambda: network(images))

    figures, forwards = [], []
    for name, subject in subjects.items():
        case = CASES[name]
        timers = {
            "forward": forward,
            "ours": lambda subject=subject: subject.ours()[1],
            "plain": lambda subject=subject: subject.plain()[1],
            "whole": subject.whole,
            "kernels": subject.kernels,
        }
        times = _alternating(timers, runs, calls)
        figures += _figures(name, times, case.faster, case.passes)
        if all(times["kernels"]):
            figures += _limit(name, times)
        forwards.append(times["forward"])
    timers = {
        "forward": forward,
        "ours": lambda: _together_seconds(az),
        "plain": lambda: sum(subject.plain()[1] for subject in az),
        "whole": lambda: cpu_seconds_of(lambda: _score(network, [subject.proxy for subject in az])),
    }
    figures += _figures("AZ-NAS, all three", _alternating(timers, runs, calls), 1, AZ_PASSES)
    forward_ms = [statistics.median(run) for run in zip(*forwards, strict=True)]
    figures.append(
        Figure("one plain forward pass without gradients, median over the proxies' measurements", forward_ms, "ms")
    )
    return Part(
        figures,
        {
            "relative difference of ours from the plain value": differences,
            "plain forward pass measured in between, ms": dict(zip(CASES, forwards, strict=True)),
        },
    )


def _together_seconds(subjects: Sequence[Subject]) -> float:
    """Seconds of several proxies on shared passes."""
    network = subjects[0].network
    with _as_scored(network, subjects[0].batch, [subject.proxy for subject in subjects]) as batch:
        return cpu_seconds_of(lambda: [subject.proxy(network, batch) for subject in subjects])


def _differences(subject: Subject) -> dict[str, float]:
    """Relative difference of ours from the plain value.

    It is checked with equal layouts in memory. With channels last batch norms round otherwise, and one ReLU near the
    output that then turns on moves every gradient before it by nearly a hundredth: that difference is only told.

    Raises:
        AssertionError: They are not the same number.
    """
    name, case = subject.name, CASES[subject.name]
    differences = {}
    for what, tolerance, each in (
        ("float64", SAME, Subject(name, torch.float64, channels_last=False)),
        ("float32", case.tolerance, Subject(name, channels_last=False)),
        ("float32, ours with channels last", math.inf, subject),
    ):
        ours, plain = each.ours()[0], each.plain()[0]
        differences[what] = abs(ours - plain) / max(1, abs(plain))
        assert differences[what] <= tolerance, f"{name}, {what}: ours {ours}, plain {plain}, tolerance {tolerance}"
    return differences


def _alternating(timers: Mapping[str, Callable[[], float]], runs: int, calls: int) -> dict[str, list[float]]:
    """Milliseconds: for each run the median of several calls, the timers in turn."""
    milliseconds: dict[str, list[float]] = {key: [] for key in timers}
    for _ in range(runs):
        rounds = [{key: timer() for key, timer in timers.items()} for _ in range(calls)]
        for key in timers:
            milliseconds[key].append(1e3 * statistics.median(each[key] for each in rounds))
    return milliseconds


def _figures(name: str, times: Mapping[str, Sequence[float]], faster: float, passes: float | None) -> list[Figure]:
    forward, ours, plain = times["forward"], times["ours"], times["plain"]
    return [
        Figure(f"{name}: ours", ours, "ms"),
        Figure(f"{name}: plain", plain, "ms"),
        Figure(f"{name}: plain / ours", _ratios(plain, ours), "x", at_least=faster),
        Figure(f"{name}: ours, in plain forward passes", _ratios(ours, forward), "x", at_most=passes),
        Figure(f"{name}: plain, in plain forward passes", _ratios(plain, forward), "x"),
        Figure(f"{name}: whole call of score, one repeat", times["whole"], "ms"),
    ]


def _limit(name: str, times: Mapping[str, Sequence[float]]) -> list[Figure]:
    """What convolutions leave to be gained."""
    ours, plain, kernels = times["ours"], times["plain"], times["kernels"]
    return [
        Figure(f"{name}: convolution kernels in ours", kernels, "ms"),
        Figure(f"{name}: limit of plain / ours, those kernels alone", _ratios(plain, kernels), "x"),
        Figure(f"{name}: share of those kernels in ours, and of the limit that is reached", _ratios(kernels, ours)),
    ]


def together(quick: bool) -> Part:
    """All proxies that share their passes in one call of `score`, against one call each."""
    runs, calls = (1, 1) if quick else (3, 5)
    network = ResNet20()
    proxies = {name: zs.get_proxy(name) for name in TOGETHER}
    scores = _score(network, list(proxies.values()))
    failed = [str(score) for score in scores.values() if not score.ok]
    assert not failed, failed
    differences = {name: _score(network, [proxy])[name].value - scores[name].value for name, proxy in proxies.items()}
    assert not any(differences.values()), differences
    timers: dict[str, Callable[[], float]] = {
        name: lambda proxy=proxy: cpu_seconds_of(lambda: _score(network, [proxy])) for name, proxy in proxies.items()
    }
    timers["together"] = lambda: cpu_seconds_of(lambda: _score(network, list(proxies.values())))
    times = _alternating(timers, runs, calls)
    shared = times.pop("together")
    total = [sum(run) for run in zip(*times.values(), strict=True)]
    count = f"{len(TOGETHER)} proxies"
    return Part(
        [
            *(Figure(f"score of {name} alone", values, "ms") for name, values in times.items()),
            Figure(f"{count}, one call each", total, "ms"),
            Figure(f"{count} in one call", shared, "ms"),
            Figure(f"{count}: one call / one call each", _ratios(shared, total), "x", at_most=1 / 3),
        ]
    )


def _ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


if __name__ == "__main__":
    assert __doc__ is not None
    main("proxy_speed", {"alone": alone, "together": together}, __doc__)
