"""What a search by closed form costs as it grows, and beside the release in which networks were scored one by one.

    python benchmarks/scale.py            # about an hour on two idle cores, most of it for the part `most`
    python benchmarks/scale.py --quick    # few proposals: shows that it runs

Parts:
before      the same searches with the commit ``BEFORE``, checked out beside this one: CPU time, ratio round by round,
            peak memory, and the best closed form that each finds
proposals   seconds and memory for 10,000 to 10,000,000 proposals
most        the same for 100,000,000; a quarter of an hour to an hour
shape       microseconds a proposal by limit on depth, and by population and generation
workers     two worker processes over one
command     the whole process of ``zeroshot-nas search`` with its default settings
picture     ``docs/scale.png`` of the parts that were measured before

Every search is a process of its own. Figures of one core are seconds of CPU, user and system.
"""

from __future__ import annotations

import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, Figure, Part, main, run_process

from zeroshot_nas.plots.base import figure_class

BEFORE = "5ed7c64"
"""The last commit in which a search made, costed and scored its networks one by one."""

SMALL = {"params": 100e3, "flops": 4e6, "layers": 20}

PROGRAM = """
import json, sys, time
import zeroshot_nas as zs
how = json.loads(sys.argv[1])
space = zs.get_space(how.pop("space"), input_size=(3, 32, 32))
proxy, budget = how.pop("proxy"), zs.Budget(**how.pop("budget"))
start = time.perf_counter()
found = zs.search(space, proxy, budget, progress=False, **how)
seconds = time.perf_counter() - start
print(json.dumps({"best": max(point.fitness for point in found.trajectory), "seconds": seconds}))
"""

WHAT: dict[str, tuple[dict[str, Any], float | None]] = {
    "480,000 proposals, zen, resnet": ({"space": "resnet", "proxy": "zen_closed_form", "proposals": 480_000}, 4.0),
    "100,000 proposals, cet, resnet": ({"space": "resnet", "proxy": "cet", "proposals": 100_000}, 5.0),
    "100,000 proposals, ceres, resnet": ({"space": "resnet", "proxy": "ceres", "proposals": 100_000}, None),
    "100,000 proposals, ceres, vanilla": ({"space": "vanilla", "proxy": "ceres", "proposals": 100_000}, None),
}
"""Searches, and the least ratio of times that is wanted."""


def searched(where: Path = ROOT, **how: Any) -> dict[str, float]:
    """A search in a process of its own, by the package in that folder."""
    os.environ["PYTHONPATH"] = str(where)
    process = run_process([sys.executable, "-P", "-c", PROGRAM, json.dumps({"budget": SMALL, "finalists": 20, **how})])
    return {"cpu": process.cpu_seconds, "gb": process.peak_gb, **json.loads(process.printed)}


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """An earlier commit in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


def before(quick: bool) -> Part:
    figures, details = [], {}
    with checked_out(BEFORE) as earlier:
        for name, (how, at_least) in WHAT.items():
            asked = how if not quick else {**how, "proposals": 2_000}
            seeds = range(1 if quick else 5)
            rounds = [(searched(earlier, seed=seed, **asked), searched(seed=seed, **asked)) for seed in seeds]
            ratios = [then["cpu"] / now["cpu"] for then, now in rounds]
            memory = [now["gb"] / then["gb"] for then, now in rounds]
            figures += [
                Figure(f"{name}: CPU time before over now", ratios, "times", at_least=at_least),
                Figure(f"{name}: CPU time", [now["cpu"] for _, now in rounds], "s"),
                Figure(f"{name}: peak memory over before", memory, "times", at_most=1.1),
            ]
            then, now = zip(*rounds, strict=True)
            details[name] = {"best before": [each["best"] for each in then], "best": [each["best"] for each in now]}
    return Part(figures, details)


def grown(space: str, proxy: str, count: int) -> list[Figure]:
    """What a search of so many proposals takes."""
    found = searched(space=space, proxy=proxy, proposals=count)
    return [
        Figure(f"{space}, {proxy}, {count:,} proposals: CPU time", [found["cpu"]], "s"),
        Figure(f"{space}, {proxy}, {count:,} proposals: peak memory", [found["gb"]], "GB"),
    ]


def proposals(quick: bool) -> Part:
    pairs = ("resnet", "zen_closed_form"), ("resnet", "cet"), ("vanilla", "ceres")
    counts = (1_000, 2_000) if quick else (10_000, 100_000, 1_000_000, 10_000_000)
    return Part([figure for pair in pairs for count in counts for figure in grown(*pair, count)])


def most(quick: bool) -> Part:
    return Part(grown("resnet", "cet", 4_000 if quick else 100_000_000))


def shape(quick: bool) -> Part:
    count = 2_000 if quick else 50_000
    figures = []

    def add(name: str, **how: Any) -> None:
        few, many = (searched(proposals=each, **how)["cpu"] for each in (count, 3 * count))
        figures.append(Figure(f"{name}: a proposal", [1e6 * (many - few) / (2 * count)], "us"))

    for layers in (10, 20, 40, 80):
        budget = {"params": 50e3 * layers, "flops": 3e6 * layers, "layers": layers}
        add(f"vanilla, ceres, {layers} layers at most", space="vanilla", proxy="ceres", budget=budget)
    for generation, population in ((1, 64), (16, 64), (64, 64), (64, 128), (256, 256)):
        options = {"population_size": population, "generation_size": generation}
        name = f"resnet, cet, population {population}, generation {generation}"
        add(name, space="resnet", proxy="cet", searcher_options=options)
    return Part(figures)


def workers(quick: bool) -> Part:
    count = 4_000 if quick else 1_000_000
    how = {"space": "vanilla", "proxy": "ceres", "proposals": count, "islands": 8, "exchanges": 2}
    ratios: dict[str, list[float]] = {"process": [], "dask": []}
    for seed in range(1 if quick else 3):
        one = searched(seed=seed, executor="process", workers=1, **how)
        for executor, found in ratios.items():
            two = searched(seed=seed, executor=executor, workers=2, **how)
            assert one["best"] == two["best"], "any number of workers finds the same"
            found.append(one["seconds"] / two["seconds"])
    name = "two workers over one process: wall time"
    return Part([Figure(f"{name}, {executor}", found, "times", at_least=1.9) for executor, found in ratios.items()])


def command(quick: bool) -> Part:
    asked = [sys.executable, "-m", "zeroshot_nas", "search", "--max-params", "100k", "--max-flops", "4M"]
    runs = [run_process(asked) for _ in range(1 if quick else 5)]
    wall = statistics.median(run.seconds for run in runs)
    name = "zeroshot-nas search, the whole process: CPU time"
    return Part([Figure(name, [run.cpu_seconds for run in runs], "s", at_most=4.0)], {"wall seconds, median": wall})


def picture(quick: bool) -> Part:
    """Times by proposals, beside a line of ten microseconds each, and by what a generation holds."""
    results = json.loads((RESULTS / "scale.json").read_text())
    drawing = figure_class()(figsize=(9, 3.6), layout="constrained")
    left, right = drawing.subplots(1, 2)
    grown: dict[str, list[tuple[float, float]]] = {}
    for figure in chain(results["proposals"]["figures"], results.get("most", {}).get("figures", [])):
        if "CPU time" in figure["what"]:
            space, proxy, rest = figure["what"].split(", ", 2)
            count = float(rest.split(" ")[0].replace(",", ""))
            grown.setdefault(f"{proxy} in {space}", []).append((count, figure["figure"]))
    for name, points in grown.items():
        left.loglog(*zip(*points, strict=True), marker="o", label=name)
    left.loglog((1e4, 1e8), (0.1, 1e3), color="grey", linestyle=":", label="10 us each")
    left.set(xlabel="proposals", ylabel="seconds of CPU, whole process")
    left.legend(frameon=False)
    shapes = {figure["what"]: figure["figure"] for figure in results["shape"]["figures"]}
    generation = {name: re.search(r"generation (\d+)", name) for name in shapes}
    by_generation = [(int(found[1]), shapes[name]) for name, found in generation.items() if found]
    right.loglog(*zip(*sorted(by_generation), strict=True), marker="o", label="cet in resnet")
    right.set(xlabel="networks of a generation, of each of four islands", ylabel="microseconds a proposal")
    right.legend(frameon=False)
    drawing.savefig(ROOT / "docs" / "scale.png" if not quick else io.BytesIO(), dpi=110)
    return Part([])


if __name__ == "__main__":
    main(
        "scale", {each.__name__: each for each in (before, proposals, most, shape, workers, command, picture)}, __doc__
    )
