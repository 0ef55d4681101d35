"""What a cold process takes where no torch is needed, beside one that only imports torch.

    python benchmarks/startup.py            # about a minute on an idle core
    python benchmarks/startup.py --quick    # few runs: shows that it runs

Every program is a process of its own, started in turn, round by round, so that what else the machine does meets all of
them alike. Figures are seconds of CPU, user and system, which is what a process takes on an idle core: it starts on one
thread. Wall times are in the details. Results go to ``benchmarks/results/startup.json``, a table to the screen.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping

from common import Figure, Part, Process, main, run_process

NETWORK = "SuperConvK3BNRELU(3,8,1,1)SuperResIDWE2K3(8,16,2,8,1)SuperConvK1BNRELU(16,64,1,1)"
BASELINE = "import torch"
SEARCH = 'zs.search("resnet", "cet", proposals=200)'

COMMANDS: Mapping[str, tuple[list[str], float | None]] = {
    BASELINE: (["-c", "import torch"], None),
    "import numpy": (["-c", "import numpy"], None),
    SEARCH: (["-c", f"import zeroshot_nas as zs\n{SEARCH[:-1]}, progress=False)"], 0.9),
    "zeroshot-nas cost of a network": (["-m", "zeroshot_nas", "cost", NETWORK], 0.4),
    "zeroshot-nas list": (["-m", "zeroshot_nas", "list"], 0.4),
    "zeroshot-nas --help": (["-m", "zeroshot_nas", "--help"], 0.4),
    "zs.list_searchers()": (["-c", "import zeroshot_nas as zs; zs.list_searchers()"], None),
}
"""Arguments of the interpreter, and the most seconds that it should take."""


def cold_process(quick: bool) -> Part:
    """Seconds of a cold process, and how many times as long an import of torch takes."""
    rounds = [run_all() for _ in range(1 if quick else 8)]
    rounds = rounds[1:] or rounds  # the first fills the disk's cache
    figures = []
    for name, (_, at_most) in COMMANDS.items():
        seconds = [each[name].cpu_seconds for each in rounds]
        figures.append(Figure(f"{name}: CPU time of a cold process", seconds, "s", at_most=at_most))
        if name != BASELINE:
            ratios = [each[BASELINE].cpu_seconds / each[name].cpu_seconds for each in rounds]
            figures.append(Figure(f"{BASELINE} / {name}", ratios, "times"))
    wall = {name: statistics.median(each[name].seconds for each in rounds) for name in COMMANDS}
    return Part(figures, {"wall seconds, medians": wall})


def run_all() -> dict[str, Process]:
    """One cold process of each kind."""
    return {name: run_process([sys.executable, *arguments]) for name, (arguments, _) in COMMANDS.items()}


if __name__ == "__main__":
    main("startup", {"cold_process": cold_process}, __doc__)
