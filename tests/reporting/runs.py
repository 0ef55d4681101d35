"""Runs of every kind, small enough to be made in a test."""

import json
import math
from dataclasses import asdict

import zeroshot_nas as zs
from tests.searching.test_every_strategy import SMALL
from zeroshot_nas.architecture.kernels import kernels
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.latency.calibrate import measured_log
from zeroshot_nas.latency.device_table import Fingerprint
from zeroshot_nas.latency.fit import Timed, fit_table

NET = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,8,2,8,2)", (1, 8, 8), num_classes=3)
HOSTILE = ("<script>alert(1)</script>", "a & \"b\" 'c'", "</script><img src=x onerror=alert(2)>")
"""Names of classes as nobody should have them."""

HERE = Fingerprint("a chip <b>", 2, "Linux", "onnxruntime", "1.32.0")


def space_named(name, size=(1, 8, 8)):
    return zs.get_space(name, input_size=size, num_classes=3, **SMALL.get(name, {}))


def search(folder, space="resnet", proxy="cet", budget=None, **how):
    where = space_named(space) if isinstance(space, str) else space
    how = {"proposals": 30, "finalists": 6, "repeats": 1, "progress": False, **how}
    return zs.search(where, proxy, budget or zs.Budget(params=3e4, layers=30), out=folder, **how)


def device_table(networks=12):
    """A table of made-up latencies, which no clock measured."""
    space = space_named("resnet")
    timed = []
    for place, network in zip(range(networks), _networks(space), strict=False):
        times = tuple(1e-6 * (each.in_channels * each.out_channels * each.height + 50) for each in kernels(network))
        timed.append(Timed(network, sum(times) * (1 + 0.02 * (place % 3)) + 0.01, 0.02, times))
    details = {"networks": networks, "median_spread": 0.02, "seconds": 12.0, "seed": 0}
    return fit_table(timed, HERE, space, details)


def _networks(space):
    from zeroshot_nas.core.seeding import python_rng

    rng = python_rng(0)
    while True:
        network = space.sample(rng)
        if complexity(network).params < 5e4:
            yield network


def calibration(folder):
    folder.mkdir(parents=True)
    device_table().save(folder / "table.json")
    return folder / "table.json"


def calibration_begun(folder):
    """The log of a calibration that was killed while it wrote a line."""
    folder.mkdir(parents=True)
    lines = [{"fingerprint": asdict(HERE), "space": "resnet", "networks": 8, "input_size": [1, 8, 8], "seed": 0}]
    entry = {"latency_ms": 0.5, "spread": 0.01, "kernels_ms": [0.1], "seconds": 1.0}
    lines += [{"pass": 0, "index": index, **entry} for index in range(5)]
    text = "\n".join(map(json.dumps, lines)) + '\n{"pass": 0, "ind'
    measured_log(folder / "table.json").write_text(text)
    return folder / "table.json"


def table(networks=12):
    """A benchmark of cells with made-up accuracies."""
    codes = [f"{i % 4}{(i // 4) % 4}{(3 * i) % 4}{(i + 2) % 4}{(7 * i) % 4}1" for i in range(networks)]
    values = [60 + 30 * math.sin(1 + index) ** 2 for index in range(networks)]
    return zs.BenchmarkTable(
        name="demo <i>", space="nasbench201", dataset="cifar10", code="op_code", rows=codes, accuracy=values
    )


def correlation(folder, proxies=("naswot", "cet")):
    how = {"space_options": {"num_cells": 1, "channels": 4}, "input_size": (3, 8, 8), "progress": False, "seed": 1}
    return zs.correlate(proxies, table(), out=folder, **how)


def training(folder, epochs=3, names=HOSTILE, **how):
    import torch

    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(90, 1, 8, 8, generator=generator), torch.arange(90) % 3
    images[:, 0, 0] = labels[:, None] / 2
    data = zs.ImageData(images[:60], labels[:60], images[60:], labels[60:], tuple(names), "three")
    return zs.train(NET, data, zs.Recipe(epochs=epochs, batch_size=20), out=folder, progress=False, **how)


def comparison(folder, **how):
    models = {"ours <b>": NET, "twice": NET.from_string("SuperConvK3BNRELU(1,16,1,1)", (1, 8, 8), num_classes=3)}
    how = {"backend": None, "seeds": 2, "progress": False, **how}
    return zs.compare(models, ["resnet8"], _digits(), zs.Recipe(epochs=1, batch_size=45), out=folder, **how)


def family(folder, **how):
    budgets = [zs.Budget(params=limit, layers=30) for limit in (6e3, 3e3)]
    how = {"nested": True, "proposals": 120, "progress": False, **how}
    return zs.family(space_named("vanilla"), "ceres", budgets, out=folder, **how)


def family_training(folder, **how):
    found = family(folder.with_name(f"{folder.name}-family"))
    recipe = zs.Recipe(epochs=2, batch_size=45)
    return zs.train_family(found, _digits(), recipe, share=0.5, out=folder, progress=False, **how)


def study(folder):
    with zs.Study(space_named("resnet"), "cet", zs.Budget(params=3e4, layers=30), out=folder, progress=False) as made:
        made.evaluate(made.ask(6))
        made.result()


def latency_search(folder):
    file = calibration(folder.with_name(f"{folder.name}-table"))
    with_latency = zs.Budget(latency_ms=1.0, layers=30, params=3e4)
    return search(folder, budget=with_latency, device_table=file)


KINDS = {
    "search": search,
    "screened": lambda folder: search(folder, proxy="zen", proposals=200),
    "front": lambda folder: search(folder, objectives=("cet", "flops", "params"), proposals=60),
    "reward": lambda folder: search(folder, reward="params:exponent=-1:form=sum"),
    "exact": lambda folder: search(folder, proxy="params", searcher="exact", budget=zs.Budget(params=4e3, layers=4)),
    "latency": latency_search,
    "aggregate": lambda folder: search(folder, proxy="az_nas", proposals=4, screen=False),
    "trials": lambda folder: search(
        folder, trials=3, data=_digits(), recipe=zs.Recipe(epochs=4, batch_size=60, warmup_epochs=1)
    ),
    "study": study,
    "correlation": correlation,
    "training": training,
    "comparison": comparison,
    "family": family,
    "family training": family_training,
    "calibration": calibration,
    "calibration begun": calibration_begun,
}
"""What makes a run of each kind in a folder; a calibration's gives its file."""


def _digits():
    import torch

    labels = torch.arange(60) % 3
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return zs.ImageData(images[:45], labels[:45], images[45:], labels[45:], ("a", "b", "c"), "three")


def made(kind, folder):
    """A run of a kind, and its path."""
    found = KINDS[kind](folder)
    return found if kind.startswith("calibration") else folder
