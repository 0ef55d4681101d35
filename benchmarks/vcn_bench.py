"""VCN-Bench: vanilla convolutional networks trained on CIFAR-10 at equal budgets, one recipe for all.

    python benchmarks/vcn_bench.py --data cifar10-20k --long-data cifar10-50k        # goes on where it was stopped
    python benchmarks/vcn_bench.py --data cifar10-20k --only B C
    python benchmarks/vcn_bench.py --summary
    python benchmarks/vcn_bench.py --data cifar10-20k --quick --runs /tmp/runs.jsonl --plan /tmp/plan.csv
    python benchmarks/vcn_bench.py --make-plan                                       # about half an hour
    python benchmarks/vcn_bench.py --make-table              # the table of the package, of all that is trained so far

A search compares networks that fill the same budget; this table says which of them are good. The networks are drawn
once, into a plan file: hand-made ones, winners of searches, and random ones that fill their budget. Every training is
one line of the file of runs, written as it ends, and is not done again: the script can be killed at any moment.
Training compiles ``vcn_kernels.cpp``, for which it needs ninja and a C++ compiler; it is of one thread.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import itertools
import math
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import RESULTS, append_run, circumstances, read_runs
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.utils.cpp_extension import load

import zeroshot_nas as zs
from zeroshot_nas.errors import InfeasibleBudgetError
from zeroshot_nas.nasbench.readers.vcn import TABLE
from zeroshot_nas.network.module import Residual
from zeroshot_nas.references.base import whole_width, widest

BUDGETS = {
    "A": zs.Budget(params=100e3, flops=4e6),
    "B": zs.Budget(params=80e3, flops=12.5e6),  # that of MLPerf Tiny's ResNet-8
    "C": zs.Budget(params=300e3, flops=30e6),
}
MAX_LAYERS = 20
"""Depth of networks that are searched or drawn; hand-made depth is what it is."""

FILLED = 0.8
"""What a random network uses of its budget at least: the larger of its shares of params and FLOPs."""

RANDOM = {"A": 96, "B": 48, "C": 18}
"""Random networks: a third of ``resnet``, a sixth of ``mobilenet``, the others of `free_network`."""

LONG_NETWORKS = 20
"""Networks of budget A that are trained by the long protocol, evenly over the ranking by the short one."""

INPUT, CLASSES = (3, 32, 32), 10
SEED = 0


@dataclass(frozen=True)
class Protocol:
    """How networks are trained; the last epoch counts, and the test images are looked at once.

    Attributes:
        images: Training images.
        recipe: Training; without a validation part.
    """

    images: int
    recipe: zs.Recipe


_RECIPE = zs.get_recipe("quick", epochs=12, batch_size=64, flip=True, shift=4, validation_fraction=0.0)
PROTOCOLS = {
    "short": Protocol(20_000, _RECIPE),
    "long": Protocol(50_000, replace(_RECIPE, epochs=40)),
    "quick": Protocol(256, replace(_RECIPE, epochs=1)),
}


# The plan: which networks


@dataclass(frozen=True)
class Entry:
    """One network of the plan."""

    name: str
    budget: str
    kind: str
    architecture: str
    params: int
    flops: int
    layers: int


Render = Callable[[float], str]
"""The PlainNet string of a structure whose widths are multiplied by a number."""


def architecture(text: str) -> zs.Architecture:
    return zs.Architecture.from_string(text, INPUT, CLASSES)


def filled(costs: Any, budget: zs.Budget) -> float:
    """The share of params or of FLOPs that a network uses, the larger."""
    return max(getattr(costs, name) / limit for name, limit in budget.limits().items())


def largest(render: Render, budget: zs.Budget) -> str | None:
    """The widest network of a structure that fits; None where none does."""
    network = widest(lambda multiplier: architecture(render(multiplier)), budget)
    return None if network is None else network.to_string()


class Chain:
    """Writes a PlainNet string block by block."""

    def __init__(self) -> None:
        self.channels, self.text = INPUT[0], ""

    def add(self, name: str, out: int, stride: int, *numbers: int) -> Chain:
        self.text += f"{name}({','.join(map(str, (self.channels, out, stride, *numbers)))})"
        self.channels = out
        return self


STRIDES = ("122", "222")
"""Strides of the three stages of hand-made networks."""


def hand_made(budget: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Names, families and options, the `PLAIN` ones first."""
    plain = [("basic", 3, False), ("basic", 3, True), ("bottleneck", 3, False), ("basic", 5, False)]
    further = [("bottleneck", 3, True), ("basic", 5, True), ("bottleneck", 5, False), ("bottleneck", 5, True)]
    yield from resnets(plain[:1] if budget == "C" else plain)
    yield from mobilenets(4, ["111"] if budget == "C" else ["111", "122"])
    if budget == "A":
        yield from resnets(further)
        yield from mobilenets(6, ["111", "122"])


PLAIN = 28
"""Hand-made networks of a budget that come before all others."""


def resnets(variants: Iterable[tuple[str, int, bool]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for block, kernel, last in variants:
        for depth in (8, 14, 20):
            for strides in STRIDES:
                name = f"resnet{depth}-{strides}-{block}-k{kernel}" + ("-last" if last else "")
                yield name, f"resnet{depth}", {"strides": strides, "block": block, "kernel": kernel, "last": last}


def mobilenets(expansion: int, depths: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for strides in STRIDES:
        for repeats in depths:
            options = {"strides": strides, "expansion": expansion, "repeats": repeats}
            yield f"mobilenet-{strides}-e{expansion}-{repeats}", "mobilenet_3stage", options


SEARCHED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "resnet": ("resnet", {}),
    "basic": ("resnet", {"blocks": "basic"}),
    "fine": ("resnet", {"width_step": 2}),
    "mobilenet": ("mobilenet", {}),
}
"""Spaces that are searched, by what names call them."""


def searches(budget: str) -> Iterator[tuple[str, str, int, int | None]]:
    """Proxy, space, seed and proposals of every search; None is the default."""
    seeds = {"A": 2, "B": 2, "C": 1}[budget]
    for space in SEARCHED:
        yield from (("cet", space, seed, None) for seed in range(seeds))
    for space in ("resnet", "basic", "mobilenet")[: seeds + 1]:
        yield "zen", space, 0, None
        yield "params", space, 0, None
    if budget == "A":
        yield from ((proxy, "resnet", 1, None) for proxy in ("zen", "params"))
    if budget != "C":
        yield from (("az_nas", space, 0, 1_500) for space in ("resnet", "mobilenet"))


def found(budget: zs.Budget, proxy: str, space: str, seed: int, proposals: int | None) -> str:
    """The winner of a search."""
    name, options = SEARCHED[space]
    limits = replace(budget, layers=MAX_LAYERS)
    where = zs.get_space(name, input_size=INPUT, num_classes=CLASSES, **options)
    result = zs.search(where, proxy, limits, proposals=proposals, seed=seed, progress=False)
    return result.best.architecture.to_string()


def walked(budget: zs.Budget, space: str, rng: random.Random, steps: int = 500) -> str:
    """The end of a random walk within the budget, the first network after so many steps that fills it."""
    name, options = SEARCHED[space]
    where = zs.get_space(name, input_size=INPUT, num_classes=CLASSES, **options)
    limits = replace(budget, layers=MAX_LAYERS)
    network, done = where.initial(), 0
    while done < steps or filled(zs.cost(network), budget) < FILLED or limits.violations(zs.cost(network)):
        mutant = where.mutate(network, rng)
        smaller = filled(zs.cost(mutant), budget) < filled(zs.cost(network), budget)
        if smaller or not limits.violations(zs.cost(mutant)):
            network = mutant
        done += 1
    return network.to_string()


@dataclass(frozen=True)
class Piece:
    """A block of a free network before its widths are scaled.

    Attributes:
        kind: ``"basic"``, ``"bottleneck"`` or ``"inverted"``.
        kernel: Kernel size.
        stride: 1 or 2.
        channels: Relative output width.
        inner: Width inside the block over the output width.
        repeats: How often the block is repeated.
        expansion: Of an inverted residual.
    """

    kind: str
    kernel: int
    stride: int
    channels: float
    inner: float
    repeats: int
    expansion: int

    def add(self, chain: Chain, multiplier: float, step: int) -> None:
        out, inner = (
            whole_width(self.channels * multiplier, step),
            whole_width(self.channels * self.inner * multiplier, step),
        )
        k = self.kernel
        names = {
            "basic": f"SuperResK{k}K{k}",
            "bottleneck": f"SuperResK1K{k}K1",
            "inverted": f"SuperResIDWE{self.expansion}K{k}",
        }
        chain.add(names[self.kind], out, self.stride, inner, self.repeats)


def free_structure(rng: random.Random) -> Render:
    """A random structure: strides anywhere, bodies of any width, mixed kernels; half of them as one would design."""
    designed = rng.random() < 0.5
    halvings = rng.choices((1, 2, 3, 4), (1, 3, 4, 2))[0]
    stem_stride = 2 if rng.random() < 0.3 else 1
    in_body = halvings - (stem_stride == 2)
    count = max(1, in_body + rng.choice((0, 0, 1) if designed else (0, 1, 2, 3)))
    strided = set(rng.sample(range(count), in_body))
    kinds = rng.choice(
        (("basic",), ("basic",), ("basic",), ("bottleneck",), ("inverted",), ("inverted",))
        + (() if designed else (("basic", "bottleneck"), ("basic", "inverted"), ("basic", "bottleneck", "inverted")))
    )
    kernels = (3, 3, 3, 3, 5) if designed or rng.random() < 0.5 else (3, 3, 5, 7)
    one_kernel = rng.choice(kernels) if rng.random() < 0.6 else None
    deepest = rng.choice((1, 1, 2, 3) if designed else (1, 2, 3, 4, 5))
    monotone = designed or rng.random() < 0.6
    wide = rng.choice((0.5, 1.0, 1.0, 1.0, 1.5)) if designed else None
    expansion = rng.choice((2, 4, 4, 6) if designed else (1, 2, 4, 6))
    channels, pieces = rng.choice((1.0, 1.0, 1.5, 2.0)), []
    stem = 1.0
    for index in range(count):
        stride = 1 + (index in strided)
        if designed:
            channels *= rng.choice((1.5, 2, 2, 2, 2.5)) if stride == 2 and index else rng.choice((1, 1, 1.25))
        elif monotone:
            channels *= rng.choice((1, 1.25, 1.5, 2, 3)) if stride == 2 else rng.choice((1, 1, 1.25, 1.5))
        else:
            channels *= rng.choice((0.5, 0.75, 1, 1.5, 2, 2.5))
        kind = rng.choice(kinds)
        usual = {"basic": (0.4, 0.7, 1, 1, 1.5, 2), "bottleneck": (0.25, 0.5, 0.5, 1), "inverted": (0.5, 1, 1, 1.5)}
        narrower = {"basic": 1.0, "bottleneck": 0.5, "inverted": 1.0}[kind]
        inner = wide * narrower if wide is not None else rng.choice(usual[kind])
        repeats = rng.randint(1, deepest)
        kernel = one_kernel or rng.choice(kernels)
        pieces.append(Piece(kind, kernel, stride, channels, inner, repeats, expansion))
    last = rng.choice((1, 1.5, 2, 4)) * channels if rng.random() < 0.4 else None
    step, stem_kernel = rng.choice((1, 2, 3, 4)), rng.choice((3, 3, 3, 5, 7))

    def render(multiplier: float) -> str:
        chain = Chain().add(f"SuperConvK{stem_kernel}BNRELU", whole_width(stem * multiplier, step), stem_stride, 1)
        for piece in pieces:
            piece.add(chain, multiplier, step)
        if last is not None:
            chain.add("SuperConvK1BNRELU", whole_width(last * multiplier, step), 1, 1)
        return chain.text

    return render


def free_network(budget: zs.Budget, rng: random.Random) -> str:
    """A random structure with the largest widths that fit, if they fill the budget; else the next one."""
    while True:
        text = largest(free_structure(rng), budget)
        if text is None or architecture(text).layers > MAX_LAYERS:
            continue
        if filled(zs.cost(architecture(text)), budget) >= FILLED:
            return text


def make_plan(budgets: Iterable[str] = BUDGETS) -> Iterator[Entry]:
    """Every network; a function of the code alone."""
    for budget in budgets:
        limits, seen = BUDGETS[budget], set[str]()

        def entry(name: str, kind: str, text: str, budget: str = budget, seen: set[str] = seen) -> Entry:
            costs = zs.cost(architecture(text))
            seen.add(text)
            print(f"{budget}-{name}: {costs.params:,} params, {costs.flops / 1e6:.2f}M FLOPs", file=sys.stderr)
            return Entry(f"{budget}-{name}", budget, kind, text, costs.params, costs.flops, costs.layers)

        for name, family, options in hand_made(budget):
            try:
                text = zs.reference(family, limits, INPUT, CLASSES, **options).to_string()
            except InfeasibleBudgetError:
                continue
            if text not in seen:
                yield entry(name, "hand-made", text)
        for proxy, space, seed, proposals in searches(budget):
            text = found(limits, proxy, space, seed, proposals)
            if text not in seen:
                yield entry(f"{proxy}-{space}-{seed}", "winner", text)
        made: Counter[str] = Counter()
        for number in range(RANDOM[budget]):
            kind = ("free", "resnet", "free", "mobilenet", "free", "resnet")[number % 6]
            rng = random.Random(f"{SEED} {budget} {number}")
            space = kind if kind != "resnet" else ("resnet", "fine", "basic")[made[kind] % 3]
            text = ""
            while not text or text in seen:
                text = free_network(limits, rng) if kind == "free" else walked(limits, space, rng)
            yield entry(f"random-{space}-{made[kind]:02}", f"random {kind}", text)
            made[kind] += 1


def in_order(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The order of work within a budget: plain hand-made networks, winners, then random ones and other hand-made."""
    for _, group in itertools.groupby(entries, key=lambda entry: entry.budget):
        kinds: dict[str, list[Entry]] = defaultdict(list)
        for each in group:
            kinds[each.kind.split()[0]].append(each)
        yield from [*kinds["hand-made"][:PLAIN], *kinds["winner"]]
        further = iter(kinds["hand-made"][PLAIN:])
        for number, each in enumerate(kinds["random"], start=1):
            yield each
            if number % 3 == 0:
                yield from itertools.islice(further, 1)
        yield from further


def write_plan(file: Path, entries: Iterable[Entry]) -> None:
    rows = [asdict(each) for each in entries]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(Entry.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_plan(file: Path) -> list[Entry]:
    with file.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        return [
            Entry(
                row["name"],
                row["budget"],
                row["kind"],
                row["architecture"],
                *(int(row[name]) for name in ("params", "flops", "layers")),
            )
            for row in rows
        ]


# Training


@dataclass(frozen=True)
class Images:
    """Training and test images as bytes, height and width before channels; the training images with a black margin.

    Attributes:
        scale: What bytes are multiplied by, of each channel, and
        shift: what is then added, so that the training images have mean 0 and deviation 1.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    scale: Tensor
    shift: Tensor
    margin: int

    @classmethod
    def of(cls, data: zs.ImageData, protocol: Protocol) -> Images:
        if len(data.train_images) != protocol.images:
            sys.exit(f"{data.name} has {len(data.train_images):,} training images, the protocol {protocol.images:,}")
        values = data.train_images.float()
        mean, deviation = values.mean((0, 2, 3)), values.std((0, 2, 3))
        margin = protocol.recipe.shift
        train = F.pad(data.train_images, (margin,) * 4).permute(0, 2, 3, 1).contiguous()
        test = data.test_images.permute(0, 2, 3, 1).contiguous()
        return cls(train, data.train_labels, test, data.test_labels, 1 / deviation, -mean / deviation, margin)

    def floats(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) whose memory has the channels last."""
        return torch.addcmul(self.shift, images.float(), self.scale).permute(0, 3, 1, 2)

    def batch(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images at random places of their margin, half of them mirrored, and their classes."""
        count, side = len(chosen), self.test.shape[1]
        corners = torch.randint(0, 2 * self.margin + 1, (2, count, 1), generator=generator)
        rows, columns = corners + torch.arange(side)
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
        images = self.train[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        return self.floats(images), self.train_labels[chosen]


@cache
def kernels() -> Any:
    """The compiled kernels of batch norm: faster for few channels than torch's, and nearer to exact sums."""
    flags = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"]
    return load("vcn_kernels", [str(Path(__file__).with_name("vcn_kernels.cpp"))], extra_cflags=flags)


class NormFunction(torch.autograd.Function):
    """Batch norm of a training step, the sum with ``added`` if there is one, and ReLU if wanted."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, relu: bool
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        more = torch.empty(0) if added is None else added.contiguous(memory_format=torch.channels_last)
        running = norm.running_mean, norm.running_var
        y, mean, inverse = kernels().forward(x, more, weight, bias, *running, relu, norm.momentum, norm.eps)
        ctx.save_for_backward(x, y if relu else x, weight, mean, inverse)
        ctx.relu, ctx.added = relu, added is not None
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (*kernels().backward(gradient, *ctx.saved_tensors, ctx.relu, ctx.added), None, None)


class Norm(nn.Module):
    """A batch norm with what follows it."""

    def __init__(self, norm: nn.BatchNorm2d, relu: bool) -> None:
        super().__init__()
        self.norm, self.relu = norm, relu

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        if self.training:
            return NormFunction.apply(x, added, self.norm.weight, self.norm.bias, self.norm, self.relu)
        y = self.norm(x) if added is None else self.norm(x) + added
        return y.relu() if self.relu else y


class NormedSum(nn.Module):
    """A residual unit with the ReLU behind it; its body ends in a batch norm."""

    def __init__(self, residual: nn.Module) -> None:
        super().__init__()
        *body, last = residual.body
        self.body, self.last, self.shortcut = nn.Sequential(*body), Norm(last.norm, relu=True), residual.shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x), self.shortcut(x))


def fuse(module: nn.Module) -> None:
    """Puts `Norm` and `NormedSum` in the place of batch norms, residual units, and the ReLUs behind them."""
    for child in module.children():
        fuse(child)
    if not isinstance(module, nn.Sequential):
        return
    parts: list[nn.Module] = []
    for part, behind in itertools.zip_longest([*module], [*module][1:]):
        relu, before = isinstance(behind, nn.ReLU), parts[-1] if parts else None
        if isinstance(part, nn.BatchNorm2d):
            parts.append(Norm(part, relu))
        elif isinstance(part, Residual) and relu:
            parts.append(NormedSum(part))
        elif not (isinstance(part, nn.ReLU) and isinstance(before, Norm | NormedSum)):
            parts.append(part)
    module._modules.clear()
    module.extend(parts)


def prepared(network: nn.Module) -> nn.Module:
    """The same function, cheaper: channels last, our own batch norms, and no 1x1 convolution with a stride.

    A strided 1x1 convolution reads every other pixel, which a pooling of one pixel gives. The weight gradient of one
    from fewer than 8 channels writes past its buffer, channels last on a CPU with AVX2 (torch 2.13).
    """
    for part in network.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.stride != (1, 1):
            (stride, _), part.stride = part.stride, (1, 1)
            part.register_forward_pre_hook(lambda _, inputs, stride=stride: F.avg_pool2d(inputs[0], 1, stride))
    fuse(network)
    return network.to(memory_format=torch.channels_last)


def optimizer(network: nn.Module, recipe: zs.Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, without a decay of biases and batch norms."""
    parameters = list(network.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True, fused=True)


def train(found: zs.Architecture, images: Images, recipe: zs.Recipe, seed: int) -> dict[str, Any]:
    """Trains a network and tests it."""
    start = time.process_time()
    network = prepared(zs.build(found, seed=seed))
    steps = optimizer(network, recipe)
    losses: list[float] = []
    for epoch in range(recipe.epochs):
        generator = torch.Generator().manual_seed(1_000 * seed + epoch)
        batches = torch.randperm(len(images.train), generator=generator).split(recipe.batch_size)
        total = torch.zeros(())
        network.train()
        for step, chosen in enumerate(batches, start=epoch * len(batches)):
            for group in steps.param_groups:
                group["lr"] = recipe.learning_rate(step, len(batches))
            inputs, classes = images.batch(chosen, generator)
            loss = F.cross_entropy(network(inputs), classes, label_smoothing=recipe.label_smoothing)
            steps.zero_grad()
            loss.backward()
            steps.step()
            total += loss.detach() * len(chosen)
        losses.append(round(total.item() / len(images.train), 5))
    accuracy, loss = tested(network, images)
    return {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "train_loss": losses[-1],
        "train_losses": losses,
        "cpu_seconds": round(time.process_time() - start, 1),
    }


@torch.no_grad()
def tested(network: nn.Module, images: Images) -> tuple[float, float]:
    """Fraction of test images classified right, and their mean cross entropy."""
    network.eval()
    logits = torch.cat([network(images.floats(part)) for part in images.test.split(500)])
    right = (logits.argmax(1) == images.test_labels).double().mean().item()
    return right, round(F.cross_entropy(logits, images.test_labels).item(), 5)


# The order of work, and its record


@dataclass(frozen=True)
class Task:
    """One training."""

    name: str
    seed: int
    protocol: str


class Runs:
    """The file of runs: one JSON object a line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.done: dict[Task, dict[str, Any]] = {}
        for line in read_runs(file):
            self.done[Task(line["name"], line["seed"], line["protocol"])] = line

    def add(self, task: Task, line: dict[str, Any]) -> None:
        append_run(self.file, line)
        self.done[task] = line


def side_by_side(entries: Iterable[Entry]) -> list[Entry]:
    """All kinds advance evenly, so that the networks which are trained at any time are a fair sample of the plan."""
    kinds = by_kind_of(entries)
    place = {
        entry.name: (number + 0.5) / len(members) for members in kinds.values() for number, entry in enumerate(members)
    }
    return sorted(itertools.chain(*kinds.values()), key=lambda entry: place[entry.name])


def short_tasks(plan: Sequence[Entry], budget: str) -> list[Task]:
    """Every network of a budget once, then every third a second time."""
    own = [entry for entry in plan if entry.budget == budget]
    again = [entry for index, entry in enumerate(own) if index % 3 == 0]
    return [Task(entry.name, seed, "short") for seed, part in enumerate((own, again)) for entry in side_by_side(part)]


def long_tasks(plan: Sequence[Entry], runs: Runs) -> list[Task]:
    """Networks of budget A evenly over the ranking by the short protocol's first seed, the best and the worst too."""
    tasks = [Task(entry.name, 0, "short") for entry in plan if entry.budget == "A"]
    if missing := [task for task in tasks if task not in runs.done]:
        print(f"long: waits for {len(missing)} short trainings of budget A", file=sys.stderr)
        return []
    ranked = sorted(tasks, key=lambda task: (-runs.done[task]["test_accuracy"], task.name))
    places = [round(place * (len(ranked) - 1) / (LONG_NETWORKS - 1)) for place in range(LONG_NETWORKS)]
    return [replace(ranked[place], protocol="long") for place in places]


def estimate(flops: float, protocol: Protocol) -> float:
    """CPU seconds of a training, roughly: one core, 11 GFLOPs a second forward and backward."""
    return 3 * flops * protocol.images * protocol.recipe.epochs / 11e9


def work(parts: Sequence[str], plan: Sequence[Entry], runs: Runs, data: Mapping[str, Path | None]) -> None:
    """Trains what is missing, a part after the other."""
    entries = {entry.name: entry for entry in plan}
    where = circumstances()
    about = {"commit": where["commit"], "torch": where["versions"]["torch"], "machine": where["machine"]}

    @cache
    def images(protocol: str) -> Images:
        folder = data[protocol]
        if folder is None:
            sys.exit(f"the {protocol} protocol needs a folder of images, see --help")
        found = zs.load_data(f"cifar10:{folder}")
        if protocol == "quick":
            few = PROTOCOLS[protocol].images
            found = replace(found, train_images=found.train_images[:few], train_labels=found.train_labels[:few])
            found = replace(found, test_images=found.test_images[:few], test_labels=found.test_labels[:few])
        return Images.of(found, PROTOCOLS[protocol])

    for part in parts:
        tasks = long_tasks(plan, runs) if part == "long" else short_tasks(plan, part)
        if part == "quick":
            tasks = [Task(entry.name, 0, "quick") for entry in plan[:3]]
        missing = [task for task in tasks if task not in runs.done]
        hours = sum(estimate(entries[task.name].flops, PROTOCOLS[task.protocol]) for task in missing) / 3600
        print(f"{part}: {len(missing)} of {len(tasks)} trainings, about {hours:.1f} hours", file=sys.stderr, flush=True)
        for count, task in enumerate(missing, start=1):
            entry, start = entries[task.name], time.perf_counter()
            line = asdict(task) | {"budget": entry.budget, "kind": entry.kind, "architecture": entry.architecture}
            line |= train(
                architecture(entry.architecture), images(task.protocol), PROTOCOLS[task.protocol].recipe, task.seed
            )
            line |= {"seconds": round(time.perf_counter() - start, 1), **about}
            runs.add(task, line)
            print(
                f"{time.strftime('%H:%M:%S')} {part} {count}/{len(missing)} {task.name} {task.seed} {task.protocol}: "
                f"{line['test_accuracy']:.2%}, loss {line['train_loss']:.3f}, {line['cpu_seconds']:.0f} s of CPU, "
                f"{line['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )


# What there is


def table_rows(plan: Sequence[Entry], runs: Runs) -> Iterator[dict[str, object]]:
    """A row for each network that the short protocol has trained; accuracies in percent.

    A network that is in the plan of two budgets has the same trainings in both.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for entry in plan:
        names[entry.architecture].append(entry.name)

    def accuracy(entry: Entry, seed: int, protocol: str) -> float | str:
        tasks = (Task(name, seed, protocol) for name in names[entry.architecture])
        values = [100 * runs.done[task]["test_accuracy"] for task in tasks if task in runs.done]
        return round(values[0], 4) if values else ""

    for entry in plan:
        trained = [accuracy(entry, seed, "short") for seed in (0, 1)]
        if values := [value for value in trained if not isinstance(value, str)]:
            yield {
                **asdict(entry),
                "accuracy": round(statistics.mean(values), 4),
                **{f"accuracy_run{seed}": value for seed, value in enumerate(trained)},
                "accuracy_long": accuracy(entry, 0, "long"),
            }


def write_table(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A compressed file, the same bytes for the same rows."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    file.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    print(f"{file}: {len(rows)} networks", file=sys.stderr)


def closed_forms(text: str) -> dict[str, float | None]:
    scores = zs.score(architecture(text), ["cet", "zen_closed_form"])
    return {name: score.value if math.isfinite(score.value) else None for name, score in scores.items()}


def summarize(plan: Sequence[Entry], runs: Runs) -> None:
    """Prints counts, the best, kinds side by side, noise, and how scores rank."""
    entries = {entry.name: entry for entry in plan}
    for budget, protocol in [*((budget, "short") for budget in BUDGETS), ("A", "long")]:
        values: dict[str, list[float]] = defaultdict(list)
        for task, line in runs.done.items():
            if task.protocol == protocol and task.name in entries and entries[task.name].budget == budget:
                values[task.name].append(100 * line["test_accuracy"])
        if not values:
            continue
        mean = {name: statistics.mean(each) for name, each in values.items()}
        ranked = sorted(mean, key=lambda name: -mean[name])
        print(f"\n## {budget}, {protocol}: {len(mean)} networks, {sum(map(len, values.values()))} trainings\n")
        print("| kind | networks | mean | best | median |\n|---|---|---|---|---|")
        for kind, members in by_kind_of(entries[name] for name in ranked).items():
            each = [mean[entry.name] for entry in members]
            print(
                f"| {kind} | {len(each)} | {statistics.mean(each):.2f} | {max(each):.2f} | {each[len(each) // 2]:.2f} |"
            )
        twice = [statistics.variance(each) for each in values.values() if len(each) > 1]
        if twice:
            print(f"\ndeviation between seeds: {statistics.mean(twice) ** 0.5:.2f} points, of {len(twice)} networks")
        print("\n| network | accuracy | params | FLOPs | layers | architecture |\n|---|---|---|---|---|---|")
        for name in ranked[:12]:
            entry = entries[name]
            costs = f"{entry.params:,} | {entry.flops / 1e6:.2f}M | {entry.layers}"
            print(f"| {name} | {mean[name]:.2f} | {costs} | `{entry.architecture}` |")
        print_taus(ranked, mean, entries)


def by_kind_of(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    kinds: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        kinds[entry.kind].append(entry)
    return dict(sorted(kinds.items()))


def print_taus(names: Sequence[str], mean: Mapping[str, float], entries: Mapping[str, Entry]) -> None:
    """Kendall's tau-b with the accuracy, over all networks, without winners, and among the best third."""
    if len(names) < 6:
        return
    scores = {
        name: {
            **{cost: getattr(entries[name], cost) for cost in ("params", "flops", "layers")},
            **closed_forms(entries[name].architecture),
        }
        for name in names
    }
    groups = {
        "all": list(names),
        "random": [name for name in names if entries[name].kind.startswith("random")],
        "best third": list(names[: len(names) // 3]),
    }
    print("\n| Kendall's tau with | " + " | ".join(f"{group}, {len(of)}" for group, of in groups.items()) + " |")
    print("|---|" + "---|" * len(groups))
    for score in scores[names[0]]:
        row = []
        for members in groups.values():
            known = [name for name in members if scores[name][score] is not None]
            pairs = [scores[name][score] for name in known], [mean[name] for name in known]
            row.append(f"{kendalltau(*pairs).statistic:.3f}" if len(known) > 2 else "")
        print(f"| {score} | {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="CIFAR-10 with 20,000 training images")
    parser.add_argument("--long-data", type=Path, metavar="FOLDER", help="CIFAR-10 with all, for the long protocol")
    parser.add_argument("--only", nargs="+", choices=[*BUDGETS, "long"], help="parts; default: all")
    parser.add_argument("--quick", action="store_true", help="three networks, few images: shows that it runs")
    parser.add_argument("--summary", action="store_true", help="train nothing, print what there is")
    parser.add_argument("--make-plan", action="store_true", help="draw the networks and write the plan file")
    parser.add_argument("--make-table", action="store_true", help="write the table that the package holds")
    parser.add_argument("--table", type=Path, default=TABLE, help="where to; default: in the package")
    parser.add_argument("--plan", type=Path, help="default benchmarks/vcn_plan.csv")
    parser.add_argument("--runs", type=Path, help="default benchmarks/results/vcn_bench.jsonl")
    given = parser.parse_args()
    if given.quick and (given.plan is None or given.runs is None):
        parser.error("--quick writes to other files: give --plan and --runs")
    plan_file = given.plan or Path(__file__).with_name("vcn_plan.csv")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if given.quick:
        write_plan(plan_file, itertools.islice(make_plan("A"), 3))
    if given.make_plan:
        write_plan(plan_file, in_order(make_plan()))
        return
    plan, runs = read_plan(plan_file), Runs(given.runs or RESULTS / "vcn_bench.jsonl")
    if given.make_table:
        write_table(given.table, list(table_rows(plan, runs)))
        return
    if not given.summary:
        parts = ["quick"] if given.quick else given.only or [*BUDGETS, "long"]
        work(parts, plan, runs, {"short": given.data, "quick": given.data, "long": given.long_data})
    if given.summary or given.quick:
        summarize(plan, runs)


if __name__ == "__main__":
    main()
