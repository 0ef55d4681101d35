"""Training and export: accuracy of small networks, images a second, and what exported files compute.

python benchmarks/training.py
python benchmarks/training.py --quick --only throughput --out /tmp/training.json
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import Figure, Part, main
from torch.utils.data import DataLoader, Dataset

import zeroshot_nas as zs
from zeroshot_nas.architecture import Architecture
from zeroshot_nas.export.exporting import export_network
from zeroshot_nas.export.onnx_file import export_onnx
from zeroshot_nas.training.checkpoint import TrainedNetwork

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


class Shifted(Dataset[Any]):
    """Images one by one, as the straightforward loop has them."""

    def __init__(self, data: zs.ImageData) -> None:
        self.images, self.labels = data.train_images, data.train_labels
        self.mean, self.std = self.images.mean(), self.images.std()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row, column = random.randrange(3), random.randrange(3)
        height, width = self.images.shape[2:]
        image = F.pad(self.images[index], (1, 1, 1, 1))[:, row : row + height, column : column + width]
        return (image - self.mean) / self.std, int(self.labels[index])


def straightforward(architecture: Architecture, data: zs.ImageData, epochs: int, workers: int) -> float:
    """Images a second of a plain loop: a DataLoader with workers, SGD, nothing tuned."""
    network = zs.build(architecture).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loader = DataLoader(Shifted(data), batch_size=32, shuffle=True, num_workers=workers, drop_last=True)
    start = time.perf_counter()
    for _ in range(epochs):
        for images, labels in loader:
            loss = F.cross_entropy(network(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return epochs * len(data.train_labels) / (time.perf_counter() - start)


def throughput(quick: bool) -> Part:
    """Images a second on data in memory, against the straightforward loop with two workers on two cores."""
    figures, details = [], {}
    for name, architecture in NETWORKS.items():
        data = zs.load_data(name)
        if data.image_shape != architecture.input_size:
            from zeroshot_nas.training.base import fit_to

            data = fit_to(data, architecture.input_size)
        epochs = 1 if quick or name == "mnist5k" else 2
        recipe = zs.get_recipe("quick", epochs=epochs, validation_fraction=0.0)
        ours, plain = [], []
        for seed in range(1 if quick else 3):  # in turns: what else the machine does hits both
            history = zs.train(architecture, data, recipe, seed=seed, progress=False).history
            ours.append(epochs * len(data.train_labels) / sum(each.seconds for each in history))
            torch.set_num_threads(2)
            plain.append(straightforward(architecture, data, epochs, 2))
            torch.set_num_threads(1)
        ratios = [one / other for one, other in zip(ours, plain, strict=True)]
        details[name] = {"ours": ours, "plain loop, 2 threads and 2 workers": plain}
        figures.append(Figure(f"{name}: ours over the plain loop, images a second", ratios, "times", at_least=2))
        figures.append(Figure(f"{name}: ours", ours, "images/s"))
    return Part(figures, details)


def onnx(quick: bool) -> Part:
    """Largest float difference in ONNX Runtime over random networks of two spaces."""
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(4 if quick else 50):
            space = zs.get_space(("resnet", "mobilenet")[index % 2], input_size=(3, 16, 16))
            architecture = space.sample(random.Random(index))
            while zs.cost(architecture).params > 1e6:
                architecture = space.sample(random.Random(architecture.key))
            network = TrainedNetwork(architecture, [0.5] * 3, [0.25] * 3, list("0123456789"))
            network.load_state_dict(zs.build(architecture, seed=index).state_dict())
            network(torch.rand(32, 3, 16, 16))
            differences.append(export_onnx(network.eval(), Path(folder) / "model.onnx").max_difference)
    what = f"largest difference of logits, float ONNX, {len(differences)} networks"
    return Part([Figure(what, [max(differences)], at_most=1e-4)], {"differences": differences})


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
                lost.setdefault(f"{name}: time over float", []).append(file.latency_ms / floats.latency_ms)
                lost.setdefault(f"{name}: size over float", []).append(file.size_kb / floats.size_kb)
                lost.setdefault(f"{name}: rms error of logits", []).append(file.rms_error)
    limits = {"int8: accuracy lost, points": 1.0, "int8: time over float": 1.0}
    figures = [Figure(f"mnist5k, {what}", runs, at_most=limits.get(what)) for what, runs in lost.items()]
    return Part(figures, {"median": {what: statistics.median(runs) for what, runs in lost.items()}})


PARTS = {"accuracy": accuracy, "throughput": throughput, "onnx": onnx, "int8": int8}

if __name__ == "__main__":
    main("training", PARTS, __doc__ or "")
