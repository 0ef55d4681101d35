"""What the benchmark scripts share: figures with their targets, where and with what they were measured, JSON, a table.

A script names its parts and calls `main`; every part is a function of ``quick`` that returns a `Part`. Results are
merged into ``benchmarks/results/<name>.json`` part by part; ``--quick`` writes only where ``--out`` says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from zeroshot_nas.core.provenance import cpu_model

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number: several runs, of which the median counts.

    Attributes:
        what: What was measured, in words.
        runs: One value a run.
        unit: Unit of the values.
        at_least: Target, where more is better.
        at_most: Target, where less is better.
    """

    what: str
    runs: Sequence[float]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def value(self) -> float:
        return statistics.median(self.runs)

    @property
    def target(self) -> str | None:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return f"≤ {self.at_most:g}" if self.at_most is not None else None

    @property
    def met(self) -> bool | None:
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.value <= self.at_most if self.at_most is not None else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "figure": rounded(self.value),
            "unit": self.unit,
            "target": self.target,
            "met": self.met,
            "runs": rounded(list(self.runs)),
        }


@dataclass(frozen=True)
class Part:
    """Outcome of one part of a benchmark: its figures, and whatever explains them."""

    figures: Sequence[Figure]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Process:
    """A finished process: wall seconds, seconds of CPU (user and system), peak memory, what it printed."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    printed: str


_LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True)
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_gb": peak / 1e9, "printed": done.stdout}))
"""


def run_process(command: Sequence[str]) -> Process:
    """Runs a command and measures it.

    A small process launches it: a child's peak memory starts at that of the process that launched it.
    """
    launched = [sys.executable, "-c", _LAUNCHER, *command]
    return Process(**json.loads(subprocess.run(launched, check=True, stdout=subprocess.PIPE, text=True).stdout))


def seconds_of(function: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def cpu_seconds_of(function: Callable[[], object]) -> float:
    """Seconds of CPU of one call: those of the clock on an idle core, and hardly more where others use the machine."""
    start = time.process_time()
    function()
    return time.process_time() - start


def problems_parser(
    doc: str | None, name: str, problems: Mapping[str, Any], data: str = "folder of CIFAR-10 in its official layout"
) -> argparse.ArgumentParser:
    """The command line of a benchmark that trains on several problems, one line of a file of runs a training."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few images and proposals: shows that it runs")
    parser.add_argument("--data", help=data)
    parser.add_argument("--only", nargs="+", choices=problems, default=list(problems), metavar="PROBLEM")
    parser.add_argument("--runs", type=Path, default=RESULTS / f"{name}.jsonl", help="file of runs")
    parser.add_argument("--out", type=Path, help=f"summary, default benchmarks/results/{name}.json")
    parser.add_argument("--summary", action="store_true", help="run nothing, summarize the file of runs")
    return parser


def summarize_problems(arguments: argparse.Namespace, name: str, summarize: Callable[[str], Part | None]) -> None:
    """What there is of the problems that the command line names: into the summary, and as a table."""
    out = arguments.out or (None if arguments.quick else RESULTS / f"{name}.json")
    figures: list[Figure] = []
    for problem in arguments.only:
        part = summarize(problem)
        if part is None:
            continue
        figures += part.figures
        if out is not None:
            merge(out, problem, part, {"quick": arguments.quick})
    print_table(figures)


def rounded(value: Any) -> Any:
    """Numbers to six significant digits, in lists and dicts too."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def circumstances() -> dict[str, Any]:
    """When, with which code and versions, and on which machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "package_changed_since_commit": bool(_git("status", "--porcelain", "--", "zeroshot_nas")),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "zeroshot_nas")},
        },
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.system()},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # above 1: others used the machine
    }


def main(name: str, parts: Mapping[str, Callable[[bool], Part]], description: str) -> None:
    """Runs the parts asked for, writes each as soon as it is measured, prints a Markdown table."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART", help=", ".join(parts))
    parser.add_argument("--out", type=Path, help=f"JSON file, default benchmarks/results/{name}.json")
    arguments = parser.parse_args()
    out = arguments.out or (None if arguments.quick else RESULTS / f"{name}.json")
    torch.set_num_threads(1)
    figures: list[Figure] = []
    for part in arguments.only:
        start = time.perf_counter()
        outcome = parts[part](arguments.quick)
        seconds = time.perf_counter() - start
        print(f"{part}: {seconds:.0f} s", file=sys.stderr)
        figures += outcome.figures
        if out is not None:
            merge(out, part, outcome, {"quick": arguments.quick, "seconds": rounded(seconds)})
    print_table(figures)


def read_runs(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of one JSON object a line; a last line that was cut short is taken off the file, too."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def append_run(file: Path, run: Mapping[str, Any]) -> None:
    """Adds an object to a file that `read_runs` reads, so that it is there whatever happens next."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(run) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def print_table(figures: Sequence[Figure]) -> None:
    """A Markdown table: what, measured, target."""
    print("| what | measured | runs | target | met |\n|---|---|---|---|---|")
    for figure in figures:
        runs = ", ".join(f"{run:.4g}" for run in figure.runs)
        met = {True: "yes", False: "no", None: ""}[figure.met]
        print(f"| {figure.what} | {figure.value:.4g} {figure.unit} | {runs} | {figure.target or ''} | {met} |")


def merge(out: Path, part: str, outcome: Part, settings: dict[str, Any]) -> None:
    """Replaces one part in a file of results and keeps the others."""
    results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    figures = [figure.to_dict() for figure in outcome.figures]
    results[part] = {"figures": figures, **settings, **circumstances(), "details": rounded(outcome.details)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # not a repository, or no git
