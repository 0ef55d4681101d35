"""Training and export: accuracy of small networks, images a second, and what exported files compute.

python benchmarks/training.py
python benchmarks/training.py --quick --only throughput --out /tmp/training.json
CIFAR10=cifar10-20k python benchmarks/training.py --only cifar10      # goes on where it was stopped
BEFORE=checkout python benchmarks/training.py --only before           # beside an earlier release, or another checkout
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import RESULTS, ROOT, Figure, Part, append_run, circumstances, main, read_runs, seconds_of
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

import zeroshot_nas as zs
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.export.base import ExportRequest
from zeroshot_nas.export.exporting import export_network
from zeroshot_nas.export.formats.onnx_file import export_onnx
from zeroshot_nas.export.formats.quantization import export_int8, export_int8_power_of_two
from zeroshot_nas.latency.ort_session import ort_session
from zeroshot_nas.network.module import initialize
from zeroshot_nas.training.base import as_float, fit_to
from zeroshot_nas.training.checkpoint import TrainedNetwork, predict
from zeroshot_nas.training.precision import multiplies_bfloat16, precision_of, speed_up

DIGITS = (
    "SuperConvK3BNRELU(1,48,1,1)SuperResK1K5K1(48,24,1,8,1)SuperResK1K7K1(24,112,2,8,4)SuperResK1K3K1(112,80,2,16,3)"
    "SuperConvK1BNRELU(80,104,1,1)"
)
MNIST = (
    "SuperConvK3BNRELU(1,16,1,1)SuperResK3K3(16,16,1,16,1)SuperResK3K3(16,24,2,24,1)SuperResK3K3(24,48,2,48,1)"
    "SuperConvK1BNRELU(48,96,1,1)"
)
NETWORKS = {
    "digits": Architecture.from_string(DIGITS, (1, 16, 16)),
    "mnist5k": Architecture.from_string(MNIST, (1, 28, 28)),
}
COLOUR = Architecture.from_string(
    "SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,1)SuperResK3K3(16,32,2,32,1)SuperResK3K3(32,64,2,64,1)",
    (3, 32, 32),
)
FOUND = Architecture.from_string(
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,16,2,8,1)SuperResK3K3(16,40,2,16,2)"
    "SuperResK3K3(40,24,2,80,1)SuperConvK1BNRELU(24,24,1,1)",
    (3, 32, 32),
)
"""What a default search finds at 100k parameters and 4M FLOPs."""

MOBILE = Architecture.from_string(
    "SuperConvK3BNRELU(3,16,1,1)SuperResIDWE4K3(16,24,2,16,1)SuperResIDWE4K3(24,32,2,24,1)SuperConvK1BNRELU(32,96,1,1)",
    (3, 32, 32),
)

CIFAR10_RUNS = RESULTS / "training_cifar10.jsonl"
"""The trainings of the part ``cifar10``, a line each."""

IMAGES = 640
"""Images of an epoch of the throughput part."""

TARGETS = {"digits": 99.0, "mnist5k": 98.5}


def accuracy(quick: bool) -> Part:
    """Test accuracy with the recipe ``quick``, and the CPU time it takes on one thread."""
    figures = []
    for name, architecture in NETWORKS.items():
        recipe = zs.get_recipe("quick", **({"epochs": 1} if quick else {}))
        runs, seconds = [], []
        for seed in range(1 if quick else 3):
            start = time.process_time()
            runs.append(zs.train(architecture, name, recipe, seed=seed, progress=False))
            seconds.append(time.process_time() - start)
        what = f"{name}, {runs[0].params:,} params: test accuracy"
        figures.append(Figure(what, [100 * each.test_accuracy for each in runs], "%", at_least=TARGETS[name]))
        figures.append(Figure(f"{name}: CPU time of training and test", seconds, "s", at_most=300))
    return Part(figures)


class OneByOne(Dataset[Any]):
    """Images one by one with the augmentation of `recipe`, as the straightforward loop has them."""

    def __init__(self, data: zs.ImageData, recipe: zs.Recipe) -> None:
        self.images, self.labels, self.recipe = data.train_images, data.train_labels, recipe
        values = as_float(self.images)
        self.mean, self.std = (each.view(-1, 1, 1) for each in (values.mean((0, 2, 3)), values.std((0, 2, 3))))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        most = self.recipe.shift
        row, column = random.randint(0, 2 * most), random.randint(0, 2 * most)
        height, width = self.images.shape[2:]
        image = F.pad(as_float(self.images[index]), (most,) * 4)[:, row : row + height, column : column + width]
        if self.recipe.flip and random.random() < 0.5:
            image = image.flip(2)
        return (image - self.mean) / self.std, int(self.labels[index])


def straightforward(architecture: Architecture, data: zs.ImageData, recipe: zs.Recipe, workers: int) -> float:
    """Images a second of one epoch of a plain loop: a DataLoader with workers, SGD, nothing tuned.

    The clock starts with the first batch: the workers' start would weigh too much on so short an epoch.
    """
    network = zs.build(architecture).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    dataset = OneByOne(data, recipe)
    loader = DataLoader(dataset, batch_size=recipe.batch_size, shuffle=True, num_workers=workers, drop_last=True)
    batches, count = iter(loader), 0
    first = next(batches)
    start = time.perf_counter()
    for images, labels in itertools.chain([first], batches):
        loss = F.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count += len(labels)
    return count / (time.perf_counter() - start)


def convolutions_share(architecture: Architecture, data: zs.ImageData) -> float:
    """Share of the operators' time of a training step of 32 images that convolutions take, on one thread."""
    network, images, labels = zs.build(architecture).train(), as_float(data.train_images[:32]), data.train_labels[:32]
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            F.cross_entropy(network(images), labels).backward()
    times = {each.key: each.self_cpu_time_total for each in profiler.key_averages()}
    return sum(time for name, time in times.items() if "convolution" in name) / sum(times.values())


def in_memory() -> Iterator[tuple[str, Architecture, zs.ImageData, zs.Recipe]]:
    """Small networks with some images in memory, and a recipe of one epoch that augments them."""
    noise = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(IMAGES) % 10
    cifar_like = zs.ImageData(noise, labels, noise[:9], labels[:9], tuple("0123456789"), "3x32x32")
    cases = {name: (NETWORKS[name], name, {}) for name in ("mnist5k", "digits")}
    cases |= {"3x32x32": (COLOUR, cifar_like, {"shift": 4, "flip": True})}
    for name, (architecture, source, augmentation) in cases.items():
        data = fit_to(zs.load_data(source), architecture.input_size)
        train = {"train_images": data.train_images[:IMAGES], "train_labels": data.train_labels[:IMAGES]}
        data = replace(data, **train, test_images=data.test_images[:9], test_labels=data.test_labels[:9])
        yield name, architecture, data, zs.get_recipe("quick", epochs=1, validation_fraction=0.0, **augmentation)


def cpu_time(quick: bool) -> Part:
    """CPU time an image, of the straightforward loop with its two workers over ours; one thread each.

    Where the cores have enough to do this is the ratio of images a second, and other work hardly changes it.
    """
    figures, details = [], {}
    for name, architecture, data, recipe in in_memory():
        ours, plain = [], []
        zs.train(architecture, data, recipe, threads=1, progress=False)  # what is done once, is done
        for seed in range(1 if quick else 5):
            start = sum(os.times()[:4])
            zs.train(architecture, data, recipe, seed=seed, threads=1, progress=False)
            middle = sum(os.times()[:4])
            straightforward(architecture, data, recipe, 2)
            ours.append(1000 * (middle - start) / len(data.train_labels))
            plain.append(1000 * (sum(os.times()[:4]) - middle) / len(data.train_labels))
        ratios = [theirs / own for own, theirs in zip(ours, plain, strict=True)]
        figures.append(Figure(f"{name}: CPU time of the plain loop over ours", ratios, "times", at_least=1))
        figures.append(Figure(f"{name}: ours", ours, "ms an image"))
        share = 100 * convolutions_share(architecture, data)
        figures.append(Figure(f"{name}: share of convolutions in a training step", [share], "%"))
        details[name] = {"ours": ours, "plain loop": plain}
    return Part(figures, details)


def throughput(quick: bool) -> Part:
    """Images a second against the straightforward loop on two threads with two workers; needs two cores to itself."""
    figures, details = [], {}
    for name, architecture, data, recipe in in_memory():
        speeds: dict[str, list[float]] = {"one thread": [], "two threads": [], "plain loop": []}
        for seed in range(1 if quick else 3):  # in turns: what else the machine does hits all
            for threads, kind in enumerate(list(speeds)[:2], start=1):
                (epoch,) = zs.train(architecture, data, recipe, seed=seed, threads=threads, progress=False).history
                speeds[kind].append(len(data.train_labels) / epoch.seconds)
            torch.set_num_threads(2)
            speeds["plain loop"].append(straightforward(architecture, data, recipe, 2))
            torch.set_num_threads(1)
        for kind in ("one thread", "two threads"):
            ratios = [own / theirs for own, theirs in zip(speeds[kind], speeds["plain loop"], strict=True)]
            figures.append(Figure(f"{name}: {kind} over the plain loop, images a second", ratios, "times", at_least=2))
        details[name] = speeds
    return Part(figures, details)


def _rows_first(_network: TrainedNetwork) -> None:
    return None


def _channels_last(network: TrainedNetwork) -> None:
    network.to(memory_format=torch.channels_last)


WAYS: dict[str, tuple[Callable[[TrainedNetwork], None], str]] = {
    "float32, rows first": (_rows_first, "float32"),
    "float32, channels last": (_channels_last, "float32"),
    "bfloat16, rows first": (_rows_first, "bfloat16"),
    "bfloat16, channels last": (_channels_last, "bfloat16"),
    "float32 as train does it": (speed_up, "float32"),
    "auto as train does it": (speed_up, "auto"),
}
"""Layout and precision of a training step."""


def _stepper(architecture: Architecture, way: str) -> Callable[[], None]:
    """A training step of 64 images: forward, backward, SGD."""
    prepare, asked = WAYS[way]
    channels = architecture.input_size[0]
    network = TrainedNetwork(architecture, [0.5] * channels, [0.3] * channels, list("0123456789")).train()
    initialize(network, "kaiming", torch.Generator().manual_seed(0))
    prepare(network)
    low = precision_of(network, asked) == "bfloat16"
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)
    images, labels = torch.rand(64, *architecture.input_size), torch.arange(64) % 10

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = F.cross_entropy(network(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def shares(step: Callable[[], None]) -> dict[str, float]:
    """Per cent of the operators' time of a step that kinds of operators take."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            step()
    found: Counter[str] = Counter()
    for each in profiler.key_averages():
        kinds = [kind for kind in ("convolution", "batch_norm", "Folded") if kind in each.key]
        found[{"Folded": "batch_norm"}.get(kinds[0], kinds[0]) if kinds else "other"] += each.self_cpu_time_total
    return {kind: 100 * time / found.total() for kind, time in found.items()}


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def precision(quick: bool) -> Part:
    """Images a second of CPU by precision and layout, all in turns: of a step, and of what judges an epoch.

    Before, networks of one channel were trained rows first, others with channels last, all in float32, and validation
    images went through the network in batches of 512.
    """
    figures, details = [], {}
    networks = {"mnist5k": NETWORKS["mnist5k"], "3x32x32": COLOUR, "found": FOUND, "mobilenet": MOBILE}
    for name, architecture in networks.items():
        steps = {way: _stepper(architecture, way) for way in WAYS}
        speeds: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(2 if quick else 31):
            for way, step in steps.items():
                seconds = _cpu_seconds(step)
                if number:  # the first is slower
                    speeds[way].append(64 / seconds)
        before = "float32, rows first" if architecture.input_size[0] == 1 else "float32, channels last"
        ratios = [new / old for new, old in zip(speeds["auto as train does it"], speeds[before], strict=True)]
        what = f"{name}, {zs.cost(architecture).flops / 1e6:.1f}M FLOPs: step by auto over {before}"
        figures.append(Figure(what, ratios, "times", at_least=1.4))
        figures += [Figure(f"{name}: {way}", runs, "images a second") for way, runs in speeds.items()]
        images, network = torch.rand(1024, *architecture.input_size), _judged(architecture)
        times = [
            [_cpu_seconds(lambda: predict(network, images, batch_size=size)) for size in (512, 64)]  # noqa: B023
            for _ in range(1 if quick else 7)
        ]
        figures.append(
            Figure(f"{name}: validation in batches of 64 over 512", [old / new for old, new in times], "times")
        )
        validation = 1024 / statistics.median(new for _, new in times)
        step_speed = statistics.median(speeds["auto as train does it"])
        share = 100 * (0.1 / validation) / (0.1 / validation + 0.9 / step_speed)
        figures.append(Figure(f"{name}: share of validation, a tenth of the images, in an epoch", [share], "%"))
        details[name] = {
            way: {kind: round(each, 1) for kind, each in shares(steps[way]).items()}
            for way in (before, "auto as train does it")
        }
    return Part(figures, {"shares of operators in a step, %": details, "processor has bfloat16": multiplies_bfloat16()})


def _judged(architecture: Architecture) -> TrainedNetwork:
    channels = architecture.input_size[0]
    network = TrainedNetwork(architecture, [0.5] * channels, [0.3] * channels, list("0123456789")).eval()
    initialize(network, "kaiming", torch.Generator().manual_seed(0))
    speed_up(network)
    return network


EPOCHS = """
import json, sys, time, torch, zeroshot_nas as zs
networks = json.loads(sys.argv[1])
torch.set_num_threads(1)
for line in sys.stdin:
    name, count = line.split()
    string, size = networks[name]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (int(count), *size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(len(images)) % 10
    data = zs.ImageData(images, labels, images[:9], labels[:9], tuple("0123456789"), "noise")
    recipe = zs.get_recipe("photos" if size[0] == 3 else "standard", epochs=2)
    ends = []
    note = lambda event: ends.append(time.process_time()) if event.kind == "epoch" else None
    zs.train(zs.Architecture.from_string(string, size), data, recipe, threads=1, progress=False, callbacks=[note])
    print(len(images) / (ends[1] - ends[0]), flush=True)
"""
"""A process that trains for every line that it is told; answers images a second of CPU of the second epoch, with all
that belongs to it: batches, steps, average, validation."""


def before(quick: bool) -> Part:
    """Images a second of CPU of whole epochs over those of another checkout, in turns; each is a process of its own.

    The checkout's folder is told by the environment variable BEFORE; without it this one is measured against itself.
    """
    places = {"before": os.environ.get("BEFORE", str(ROOT)), "now": str(ROOT)}
    networks = {"mnist5k": NETWORKS["mnist5k"], "3x32x32": COLOUR, "found": FOUND, "mobilenet": MOBILE}
    told = json.dumps({name: (str(each), each.input_size) for name, each in networks.items()})
    speeds: dict[str, dict[str, list[float]]] = {name: {place: [] for place in places} for name in networks}
    with ExitStack() as stack:
        processes = {}
        for place, folder in places.items():
            how: dict[str, Any] = {"cwd": folder, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "text": True}
            how |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            command = [sys.executable, "-c", EPOCHS, told]  # which imports from where it runs
            processes[place] = stack.enter_context(subprocess.Popen(command, **how))
        for number, name in itertools.product(range(2 if quick else 10), networks):
            for place, process in processes.items():
                assert process.stdin is not None, "a pipe"
                assert process.stdout is not None, "a pipe"
                process.stdin.write(f"{name} {140 if quick else 1280}\n")
                process.stdin.flush()
                speed = float(process.stdout.readline())
                if number:  # the first is slower
                    speeds[name][place].append(speed)
        for process in processes.values():
            process.communicate()
    figures = []
    for name, each in speeds.items():
        ratios = [now / old for old, now in zip(each["before"], each["now"], strict=True)]
        figures.append(Figure(f"{name}: images a second of an epoch, now over before", ratios, "times", at_least=1.4))
    return Part(figures, {"images a second": speeds})


def cifar10(quick: bool) -> Part:
    """Test accuracy in float32 and by auto, of five seeds: 20,000 images of CIFAR-10, 10 epochs of the recipe photos.

    The folder of the official files is told by the environment variable CIFAR10; without it nothing more is trained.
    """
    runs = [] if quick else read_runs(CIFAR10_RUNS)
    folder = os.environ.get("CIFAR10")
    data = zs.load_data(f"cifar10:{folder}") if folder else None
    for seed, asked in itertools.product(range(1 if quick else 5), ("float32", "auto")):
        if data is None or any((each["seed"], each["asked"]) == (seed, asked) for each in runs):
            continue
        recipe = zs.get_recipe("photos", epochs=1 if quick else 10, precision=asked)
        result = zs.train(FOUND, data, recipe, seed=seed, threads=1, progress=False)
        about = {name: circumstances()[name] for name in ("commit", "versions", "machine")}
        run = {"seed": seed, "asked": asked, "precision": result.precision, "test_accuracy": result.test_accuracy}
        runs.append({**run, "train_losses": [each.train_loss for each in result.history], **about})
        if not quick:
            append_run(CIFAR10_RUNS, runs[-1])
    found = {
        asked: [100 * each["test_accuracy"] for each in runs if each["asked"] == asked] for asked in ("float32", "auto")
    }
    figures = [Figure(f"CIFAR-10, found, {asked}: test accuracy", each, "%") for asked, each in found.items() if each]
    deviations = {asked: statistics.stdev(each) for asked, each in found.items() if len(each) > 1}
    return Part(
        figures,
        {"mean": {asked: statistics.mean(each) for asked, each in found.items() if each}, "deviation": deviations},
    )


def onnx(quick: bool) -> Part:
    """Largest float difference in ONNX Runtime over random networks of two spaces."""
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(2 if quick else 50):
            space = zs.get_space(("resnet", "mobilenet")[index % 2], input_size=(3, 16, 16))
            architecture = space.sample(random.Random(index))
            while zs.cost(architecture).params > (1e5 if quick else 1e6):
                architecture = space.sample(random.Random(architecture.key))
            network = TrainedNetwork(architecture, [0.5] * 3, [0.25] * 3, list("0123456789"))
            network.load_state_dict(zs.build(architecture, seed=index).state_dict())
            network(torch.rand(32, 3, 16, 16))
            differences.append(export_onnx(ExportRequest(network.eval(), Path(folder) / "model.onnx")).max_difference)
    what = f"largest difference of logits, float ONNX, {len(differences)} networks"
    return Part([Figure(what, [max(differences)], at_most=1e-4)], {"differences": differences})


def time_ratio(file: Path, other: Path) -> float:
    """Time for one image over another file's, on one thread: in turns, as what else the machine does hits both."""
    models, image = (ort_session(file), ort_session(other)), {"images": torch.rand(1, 1, 28, 28).numpy()}
    seconds: tuple[list[float], ...] = ([], [])
    for _ in range(300):
        for model, times in zip(models, seconds, strict=True):
            model.run(None, image)  # the other's weights have left the cache
            times.append(seconds_of(lambda model=model: model.run(None, image)))
    return statistics.median(seconds[0]) / statistics.median(seconds[1])


def int8(quick: bool) -> Part:
    """int8 against float on mnist5k: accuracy, milliseconds an image, size; and what power-of-two scales cost."""
    lost: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1 if quick else 3):
            recipe = zs.get_recipe("quick", **({"epochs": 1} if quick else {}))
            run = Path(folder) / str(seed)
            zs.train(NETWORKS["mnist5k"], "mnist5k", recipe, out=run, seed=seed, progress=False)
            floats, ordinary, shift = export_network(run, int8=True, power_of_two=True).files
            for name, file in (("int8", ordinary), ("int8, power-of-two scales", shift)):
                drop = 100 * ((floats.accuracy or 0) - (file.accuracy or 0))
                lost.setdefault(f"{name}: accuracy lost, points", []).append(drop)
                lost.setdefault(f"{name}: time over float", []).append(time_ratio(file.file, floats.file))
                lost.setdefault(f"{name}: size over float", []).append(file.size_kb / floats.size_kb)
                lost.setdefault(f"{name}: rms error of logits", []).append(file.rms_error)
    limits = {"int8: accuracy lost, points": 1.0, "int8: time over float": 1.0}
    figures = [Figure(f"mnist5k, {what}", runs, at_most=limits.get(what)) for what, runs in lost.items()]
    return Part(figures, {"median": {what: statistics.median(runs) for what, runs in lost.items()}})


def int8_time(quick: bool) -> Part:
    """Time of int8 over float alone, for a machine without other work; weights don't matter to it, so none is trained.

    Of an AMD EPYC without VNNI, whose two cores share one core's units: 0.85 with the other idle, 1.04 with it busy.
    """
    ratios: dict[str, list[float]] = {"int8": [], "int8, power-of-two scales": []}
    images = zs.load_data("mnist5k").train_images[:64]
    with tempfile.TemporaryDirectory() as folder:
        floats, file = Path(folder) / "model.onnx", Path(folder) / "model.int8.onnx"
        for seed in range(1 if quick else 5):
            network = TrainedNetwork(NETWORKS["mnist5k"], [0.5], [0.25], list("0123456789"))
            network.load_state_dict(zs.build(NETWORKS["mnist5k"], seed=seed).state_dict())
            network(images)
            export_onnx(ExportRequest(network.eval(), floats, images))
            for what, times in ratios.items():
                export = export_int8 if what == "int8" else export_int8_power_of_two
                export(ExportRequest(network, file, images, source=floats))
                times.append(time_ratio(file, floats))
    limits = {"int8": 1.0}
    return Part(
        [Figure(f"mnist5k, {what}: time over float", each, at_most=limits.get(what)) for what, each in ratios.items()]
    )


PARTS = {
    "accuracy": accuracy,
    "cpu_time": cpu_time,
    "throughput": throughput,
    "precision": precision,
    "before": before,
    "cifar10": cifar10,
    "onnx": onnx,
    "int8": int8,
    "int8_time": int8_time,
}

if __name__ == "__main__":
    main("training", PARTS, __doc__ or "")
