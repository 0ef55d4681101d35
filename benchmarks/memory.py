"""Peak RAM and weights against TensorFlow Lite Micro and its files; what a search under such a budget costs.

    python benchmarks/memory.py                   # all parts, some minutes on one core; needs the extra tflite
    python benchmarks/memory.py --only arena
    python benchmarks/memory.py --quick           # few networks: shows that it runs

Parts: ``arena`` draws 50 networks of each of ``resnet`` and ``mobilenet`` within 300 kB of peak memory, exports each
untrained as a full-integer file, and runs it in TensorFlow Lite Micro, which reports the arena that it used; for a few
the smallest arena in which it still runs is found by bisection too. The same file without its plan of the arena shows
what the runtime's own planner takes. ``cells`` does the same for a few networks of every other space, ``bits`` for
networks with weights of 4 and 8 bits. ``speed`` is the CPU time of the cost, and of a search with a budget on it
against one with a budget on parameters alone. Torch runs on one thread. Results go to
``benchmarks/results/memory.json``, a table to the screen.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import Figure, Part, main
from scipy import stats

import zeroshot_nas as zs
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.export import tflite_writer
from zeroshot_nas.micro import memory as model
from zeroshot_nas.quantization.int8_network import Int8Network, quantize
from zeroshot_nas.training.checkpoint import TrainedNetwork

BUDGET = zs.Budget(peak_memory="300kB", weights="1MB")
"""What boards that run such networks have."""

ROOM = 8_000_000
"""Bytes of an arena in which everything here runs."""


def arena(quick: bool) -> Part:
    """Chains: our figures against the runtime's."""
    figures, details = [], {}
    for name in ("resnet", "mobilenet"):
        rows = [_measured(each, index < 3) for index, each in enumerate(_drawn(name, 4 if quick else 50))]
        figures += _figures(name, rows)
        details[name] = rows
    return Part(figures, details)


def cells(quick: bool) -> Part:
    """A few networks of every other space, however much they need."""
    rng, rows = python_rng(0), []
    for name in zs.list_spaces():
        if name not in ("resnet", "mobilenet"):
            space = zs.get_space(name)
            rows += [{"space": name, **_measured(space.sample(rng), False)} for _ in range(1 if quick else 3)]
    return Part(_figures("other spaces", rows), {"rows": rows})


def bits(quick: bool) -> Part:
    """Chains with the bits of weights that fit 70 % of the flash that 8 bits take."""
    figures, details = [], {}
    for name in ("resnet", "mobilenet"):
        found = _drawn(name, 3 if quick else 20)
        rows = [_measured(zs.allocate_bits(each, 0.7 * zs.cost(each)["weights"]), False) for each in found]
        figures += _figures(f"{name}, 4 and 8 bits", rows)
        details[name] = rows
    return Part(figures, details)


def _drawn(name: str, count: int) -> list[zs.Architecture]:
    """Random networks of a space within the budget."""
    space, rng = zs.get_space(name), python_rng(0)
    found: list[zs.Architecture] = []
    while len(found) < count:
        architecture = space.sample(rng)
        if not BUDGET.violations(zs.cost(architecture)):
            found.append(architecture)
    return found


def _figures(name: str, rows: list[dict[str, Any]]) -> list[Figure]:
    ours = [row["peak_memory"] for row in rows]
    figures = []
    for what, mine, theirs in (
        ("peak memory / arena", ours, [row["arena"] for row in rows]),
        ("weights / the file's", [row["weights"] for row in rows], [row["weights_in_file"] for row in rows]),
    ):
        errors = [100 * abs(a / b - 1) for a, b in zip(mine, theirs, strict=True)]
        figures += [
            Figure(f"{name}: error of {what}, median", [statistics.median(errors)], "%", at_most=5),
            Figure(f"{name}: error of {what}, worst", [max(errors)], "%", at_most=15),
            Figure(f"{name}: Spearman, {what}", [float(stats.spearmanr(mine, theirs)[0])], at_least=0.99),
        ]
    planned = [row["tensors in the arena"] / row["tensors"] for row in rows]
    unplanned = [row["tensors in the arena without a plan"] / row["tensors"] for row in rows]
    return [
        *figures,
        Figure(f"{name}: tensors in the arena over the optimum, with the file's plan, worst", [max(planned)], "x"),
        Figure(f"{name}: the same without a plan, median", [statistics.median(unplanned)], "x"),
        Figure(f"{name}: the same without a plan, worst", [max(unplanned)], "x"),
        Figure(f"{name}: file over weights, median", [statistics.median(r["file"] / r["weights"] for r in rows)], "x"),
    ]


def _measured(architecture: zs.Architecture, bisect: bool) -> dict[str, Any]:
    """Our figures of a network, and the runtime's."""
    need, network = zs.memory(architecture), _int8(architecture)
    content = tflite_writer.tflite_bytes(network, "", {})
    with mock.patch.object(tflite_writer, "_PLAN", "left out"):
        unplanned = tflite_writer.tflite_bytes(network, "", {})
    total, tensors = _allocated(content)
    own_planner = _allocated(unplanned)[1]
    assert own_planner == need.unplanned, f"the planner is modelled as {need.unplanned}, it takes {own_planner}"
    row = {
        "peak_memory": need.peak_memory,
        "arena": total,
        "tensors": need.tensors,
        "tensors in the arena": tensors,
        "tensors in the arena without a plan": own_planner,
        "weights": need.weights,
        "weights_in_file": _weights_in(content),
        "file": len(content),
        "operators": len(network.operators),
    }
    return {**row, "smallest arena by bisection": _bisected(content, total)} if bisect else row


def _int8(architecture: zs.Architecture) -> Int8Network:
    """Untrained, its batch norms with the statistics of noise: what a network needs does not hang on its weights."""
    built = zs.build(architecture, seed=0)
    images = torch.rand(16, *architecture.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        built(images)
    names = list(map(str, range(architecture.num_classes)))
    channels = architecture.input_size[0]
    trained = TrainedNetwork(architecture, [0.5] * channels, [0.25] * channels, names)
    trained.load_state_dict(built.state_dict())
    return quantize(trained.eval(), images)


def _run(content: bytes, room: int) -> Any:
    """The file in TensorFlow Lite Micro, run once."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=room)
    shape = interpreter.get_input_details(0)["shape"]
    interpreter.set_input(np.zeros(shape, np.int8), 0)
    interpreter.invoke()
    return interpreter


def _allocated(content: bytes) -> tuple[int, int]:
    """The arena that the runtime reports, in bytes, and what tensors take of it."""
    interpreter = _run(content, ROOM)
    with _standard_error() as lines:
        interpreter.print_allocations()
    text = "".join(lines)
    total, tensors = (re.search(rf"Arena allocation {what} (\d+) bytes", text) for what in ("total", "head"))
    assert total is not None, text
    assert tensors is not None, text
    return int(total[1]), int(tensors[1])


@contextlib.contextmanager
def _standard_error() -> Iterator[list[str]]:
    """What native code writes to standard error, once it is through."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        lines += file.readlines()


def _bisected(content: bytes, reported: int) -> int:
    """The smallest arena, in steps of 16 bytes, in which the file still runs."""
    least, most = 0, reported // 16 + 64
    with _standard_error():
        while most - least > 1:
            middle = (least + most) // 2
            try:
                _run(content, 16 * middle)
                most = middle
            except RuntimeError:
                least = middle
    return 16 * most


def _weights_in(content: bytes) -> int:
    """Bytes of constants that operators multiply and add in a file, and of their scales and zero points."""
    from ai_edge_litert import schema_py_generated as schema

    found = schema.ModelT.InitFromPackedBuf(content, 0)
    total = 0
    for tensor in found.subgraphs[0].tensors:
        values = found.buffers[tensor.buffer].data
        if values is not None and tensor.quantization is not None and tensor.quantization.scale is not None:
            scales = tensor.quantization
            total += len(values) + 4 * len(scales.scale) + 8 * len(scales.zeroPoint)
    return total


def speed(quick: bool) -> Part:
    """Microseconds of the cost, and searches with and without it."""
    space, rng = zs.get_space("resnet"), python_rng(0)
    architectures, architecture = [], space.initial()
    for _ in range(300 if quick else 5_000):
        architecture = space.mutate(architecture, rng)
        if len(architecture.blocks) > 12:
            architecture = space.initial()
        architectures.append(architecture)
    times: dict[str, list[float]] = {"in a walk of mutations": [], "again": []}
    for what, seconds in times.items():
        for _ in range(1 if what != "again" else 3):
            model._need_of_network.cache_clear()
            start = time.process_time()
            for each in architectures:
                model.peak_memory(each)
            seconds.append(1e6 * (time.process_time() - start) / len(architectures))
    figures = [Figure(f"peak memory of a network, {what}", values, "us") for what, values in times.items()]
    proposals = 2_000 if quick else 30_000
    budgets = {"parameters": zs.Budget(params=2e5), "memory too": zs.Budget(2e5, peak_memory="80kB", weights="250kB")}
    for what, budget in budgets.items():
        values = []
        for seed in range(1 if quick else 3):
            start = time.process_time()
            zs.search("resnet", "cet", budget, proposals=proposals, progress=False, seed=seed)
            values.append(1e6 * (time.process_time() - start) / proposals)
        figures.append(Figure(f"search with a budget on {what}, a proposal", values, "us"))
    return Part(figures)


if __name__ == "__main__":
    assert __doc__ is not None
    main("memory", {"arena": arena, "cells": cells, "bits": bits, "speed": speed}, __doc__)
