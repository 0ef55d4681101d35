"""int8 files by calibration and by training with rounded values, against the float network.

    python benchmarks/qat.py --cifar10 cifar-10-batches-py      # goes on where it was stopped; needs the extra tflite
    python benchmarks/qat.py --only digits mnist5k
    python benchmarks/qat.py --quick                            # a network, a seed, an epoch: shows that it runs

Two networks that `search` found and a hand-made one on each data set are trained, then each is made int8: by
calibration on 256 training images, and by the recipe ``qat`` from the trained weights; both with ordinary scales and
with powers of two. ``further`` is the control: the same recipe from the same weights without rounding. Accuracies are
those of test images that no choice saw, of the int8 networks those of the exported file in LiteRT. Torch runs on one
thread. Results go to ``benchmarks/results/qat.json``, a table to the screen; trainings stay in ``--runs``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import RESULTS, Figure, Part, merge, print_table, rounded

import zeroshot_nas as zs
from zeroshot_nas.export.exporting import export_network
from zeroshot_nas.export.formats.tflite_file import Interpreter
from zeroshot_nas.export.tflite_writer import tflite_bytes
from zeroshot_nas.quantization.int8_network import quantize
from zeroshot_nas.training.base import as_float
from zeroshot_nas.training.checkpoint import RESULT, read_result
from zeroshot_nas.training.qat import rounding_recipe
from zeroshot_nas.training.recipe import get_recipe

MOST_LOST = 0.3
"""Points of accuracy that eight bits may cost."""


class Setting(NamedTuple):
    """What is trained on a data set.

    Attributes:
        input_size: Shape of an image.
        recipe: Of the float training.
        networks: Strings by name.
        seeds: How many.
        control: Whether ``further`` is trained.
        epochs: Of the recipe ``qat``.
    """

    input_size: tuple[int, int, int]
    recipe: zs.Recipe
    networks: Mapping[str, str]
    seeds: int
    control: bool = True
    epochs: int = 3


SMALL = {
    "resnet": (
        "SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,8,2,8,1)SuperResK3K3(8,8,2,32,1)"
        "SuperConvK1BNRELU(8,24,1,1)"
    ),
    "mobilenet": (
        "SuperConvK3BNRELU(1,8,1,1)SuperResIDWE1K3(8,8,1,8,1)SuperResIDWE1K3(8,16,2,16,1)"
        "SuperResIDWE2K5(16,16,2,40,1)SuperConvK1BNRELU(16,40,1,1)"
    ),
    "resnet8": ("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,16,2,16,1)SuperResK3K3(16,32,2,32,1)"),
}
"""The first two: ``search SPACE --input 1x28x28 --max-params 30k --max-flops 1.5M --proposals 3000``."""

LARGE = {
    "resnet": (
        "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,24,2,8,1)SuperResK3K3(24,32,2,24,3)"
        "SuperResK3K3(32,24,2,24,1)SuperConvK1BNRELU(24,16,1,1)"
    ),
    "mobilenet": (
        "SuperConvK3BNRELU(3,16,1,1)SuperResIDWE2K3(16,8,1,8,1)SuperResIDWE1K3(8,32,2,24,1)"
        "SuperResIDWE2K7(32,24,2,40,1)SuperResIDWE4K7(24,8,2,48,1)SuperConvK1BNRELU(8,32,1,1)"
    ),
    "resnet8": (
        "SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,1,16,1)SuperResK3K3(16,32,2,32,1)SuperResK3K3(32,64,2,64,1)"
    ),
}
"""The first two: ``search SPACE --max-params 60k --max-flops 5M --max-peak-memory 64kB --proposals 3000``."""

SETTINGS = {
    "digits": Setting((1, 8, 8), get_recipe("standard", epochs=20), SMALL, 3),
    "mnist5k": Setting((1, 28, 28), get_recipe("standard", epochs=10), SMALL, 1),
    "cifar10": Setting(
        (3, 32, 32), get_recipe("photos", epochs=10, warmup_epochs=2), LARGE, 1, control=False, epochs=1
    ),
}


def measured(name: str, data: str, runs: Path, quick: bool, only: Sequence[str]) -> Part:
    """Every network of a setting, with every seed."""
    setting = SETTINGS[name]
    networks = {network: setting.networks[network] for network in (only[:1] if quick else only)}
    rows = [
        {
            "network": network,
            "seed": seed,
            **_row(setting, string, data, runs / f"{name}-{network}-{seed}", seed, quick),
        }
        for network, string in networks.items()
        for seed in range(1 if quick else setting.seeds)
    ]
    return Part([*_figures(name, rows)], {"rows": rows, "networks": dict(networks)})


def _row(setting: Setting, string: str, data: str, folder: Path, seed: int, quick: bool) -> dict[str, Any]:
    """The accuracies of one network."""
    short: dict[str, Any] = {"epochs": 1, "batch_size": 256} if quick else {}
    few = {"epochs": setting.epochs, **short}
    architecture = zs.Architecture.from_string(string, setting.input_size, 10)
    recipe = get_recipe(setting.recipe, **short)
    _once(folder, lambda: zs.train(architecture, data, recipe, seed=seed, **_how(folder)))
    row = {"float": read_result(folder)["test_accuracy"]}
    images = zs.load_data(data, setting.input_size)
    with tempfile.TemporaryDirectory() as work:
        row["calibrated"] = _exported(folder, Path(work), images)[0]
    row["calibrated, powers of two"] = _calibrated_to_powers_of_two(folder, images)
    for what, power_of_two in (("qat", False), ("qat, powers of two", True)):
        place = Path(f"{folder}-{'int8-power-of-two' if power_of_two else 'int8'}")
        chosen = rounding_recipe(folder, power_of_two=power_of_two, **few)
        _once(place, lambda place=place, chosen=chosen: zs.quantize_aware(folder, data, chosen, **_how(place)))
        row[what], row[f"{what}: rounded in torch"] = _exported(place, place, images)
    if setting.control:
        place, chosen = Path(f"{folder}-further"), replace(rounding_recipe(folder, **few), quantization=None)
        _once(place, lambda: zs.train(folder, data, chosen, seed=seed, **_how(place)))
        row["further"] = read_result(place)["test_accuracy"]
    return row


def _how(folder: Path) -> dict[str, Any]:
    return {"out": folder, "resume": True, "threads": 1, "progress": False}


def _once(folder: Path, train: Callable[[], object]) -> None:
    """Trains what no earlier process of the benchmark has trained to its end."""
    if read_result(folder / RESULT).get("state") != "done":
        start = time.perf_counter()
        train()
        print(f"{folder.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def _exported(run: Path, out: Path, images: zs.ImageData) -> tuple[float, float]:
    """The accuracy of a run's file in LiteRT, and of its network in torch."""
    report = export_network(run, out, formats=("tflite",), data=images)
    assert report.accuracy is not None
    assert report.files[0].accuracy is not None
    return report.files[0].accuracy, report.accuracy


def _calibrated_to_powers_of_two(run: Path, images: zs.ImageData) -> float:
    network = quantize(zs.load(run), as_float(images.train_images[:256]), power_of_two=True)
    logits = Interpreter(tflite_bytes(network, "", {})).logits(as_float(images.test_images))
    return (logits.argmax(1) == images.test_labels).double().mean().item()


def _figures(name: str, rows: Sequence[dict[str, Any]]) -> list[Figure]:
    """Accuracies of each network in percent, and what eight bits cost over all, in points."""
    figures = []
    kinds = [kind for kind in rows[0] if kind not in ("network", "seed")]
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        figures += [Figure(f"{name}, {network}: {kind}", [100 * row[kind] for row in own], "%") for kind in kinds]
    for kind in kinds:
        lost = [100 * (row["float"] - row[kind]) for row in rows]
        if kind != "float" and "torch" not in kind:
            most = MOST_LOST if kind == "qat" else None
            figures.append(Figure(f"{name}: float less {kind}, mean", [statistics.mean(lost)], "points", at_most=most))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one network, seed and epoch: shows that it runs")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, metavar="DATA", help=", ".join(SETTINGS))
    parser.add_argument("--networks", nargs="+", choices=SMALL, default=list(SMALL), help="default: all three")
    parser.add_argument("--cifar10", help="folder of CIFAR-10; without it cifar10 is left out")
    parser.add_argument("--runs", type=Path, default=Path("runs/qat"), help="folder of the trainings, runs/qat")
    parser.add_argument("--out", type=Path, help="JSON file, default benchmarks/results/qat.json")
    arguments = parser.parse_args()
    out = arguments.out or (None if arguments.quick else RESULTS / "qat.json")
    torch.set_num_threads(1)
    figures: list[Figure] = []
    for name in arguments.only or SETTINGS:
        if name == "cifar10" and arguments.cifar10 is None:
            print("cifar10 is left out: no --cifar10 FOLDER", file=sys.stderr)
            continue
        start = time.perf_counter()
        data = f"cifar10:{arguments.cifar10}" if name == "cifar10" else name
        part = measured(name, data, arguments.runs, arguments.quick, arguments.networks)
        if out is not None:
            merge(out, name, part, {"quick": arguments.quick, "seconds": rounded(time.perf_counter() - start)})
        figures += part.figures
    print_table(figures)


if __name__ == "__main__":
    main()
