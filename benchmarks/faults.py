"""What runs survive: SIGKILL at random moments, dead workers, damaged files; and what the store and workers cost.

python benchmarks/faults.py
python benchmarks/faults.py --quick --only kills throughput --out /tmp/faults.json
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Figure, Part, main, run_process

import zeroshot_nas as zs
from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ZeroShotNASError
from zeroshot_nas.execution import get_executor, run_all
from zeroshot_nas.runs.evaluate import Job, compute, evaluate
from zeroshot_nas.runs.store import Store, recover

SEARCH = """
import sys, zeroshot_nas as zs
found = zs.search("resnet", "zen", zs.Budget(params=100_000, layers=8), input_size=(3, 12, 12), proposals=8_000,
                  islands=4, finalists=30, seed=3, progress=False, out=sys.argv[1], resume=True)
"""

SCORES = """
import sys
from faults import score_list
score_list(sys.argv[1], int(sys.argv[2]))
"""


def score_list(folder: str, count: int, workers: int = 2) -> list[float]:
    """Scores a list of networks with worker processes, keeping each in a store as it comes."""
    jobs = [Job(each, (zs.get_proxy("zen"),), 0, {"repeats": 4}) for each in networks(count)]
    with Store(Path(folder) / "scores.db") as store, get_executor("process", workers=workers) as executor:
        return [scores["zen"].value for scores in evaluate(jobs, executor, [store])]


def networks(count: int) -> list[Architecture]:
    """Random networks, different ones."""
    space, found, stream = zs.get_space("resnet", input_size=(3, 16, 16)), {}, 0
    while len(found) < count:
        each = space.sample(python_rng(7, stream))
        stream += 1
        if zs.cost(each).params < 300_000:
            found[each.key] = each
    return list(found.values())


def outcome(folder: str) -> Any:
    """A search's result without its wall times."""
    data = json.loads((Path(folder) / "result.json").read_text())
    for each in [data["best"], *data["history"]]:
        for score in each["scores"].values():
            del score["seconds"]
    del data["seconds"]
    return data


def killed(command: list[str], after: float) -> bool:
    """Starts a command and kills its whole process group; whether it was still running then."""
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    time.sleep(after)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def kills(quick: bool) -> Part:
    """A search killed at a random moment and resumed ends as the one that never was."""
    rounds, rng = (2, random.Random(0)) if quick else (100, random.Random(0))
    with tempfile.TemporaryDirectory() as folder:
        unbroken = f"{folder}/unbroken"
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", SEARCH, unbroken], check=True)
        seconds = time.perf_counter() - start
        wanted, same, hit, moments = outcome(unbroken), 0, 0, []
        for number in range(rounds):
            run = f"{folder}/{number}"
            moments.append(rng.uniform(0.2, 1.0) * seconds)
            hit += killed([sys.executable, "-c", SEARCH, run], moments[-1])
            subprocess.run([sys.executable, "-c", SEARCH, run], check=True)
            same += outcome(run) == wanted
    what = "searches killed at a random moment and resumed: identical to the unbroken one"
    return Part(
        [Figure(f"{what}, of {rounds}", [same], at_least=rounds)], {"killed while running": hit, "moments": moments}
    )


def kills_of_scores(quick: bool) -> Part:
    """The same for a long list of scores with two workers, the whole process group killed."""
    rounds, count = (1, 20) if quick else (30, 60)
    rng = random.Random(1)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "unbroken").mkdir()
        start = time.perf_counter()
        wanted = score_list(f"{folder}/unbroken", count)
        seconds, same, hit = time.perf_counter() - start, 0, 0
        for number in range(rounds):
            run = Path(folder) / str(number)
            run.mkdir()
            hit += killed([sys.executable, "-c", SCORES, str(run), str(count)], rng.uniform(0.3, 1.2) * (seconds + 1.5))
            same += score_list(str(run), count) == wanted
    what = f"lists of {count} scores, 2 workers, killed at a random moment and resumed: identical"
    return Part([Figure(f"{what}, of {rounds}", [same], at_least=rounds)], {"killed while running": hit})


CORRELATION = """
import sys, numpy as np, zeroshot_nas as zs
from zeroshot_nas.nasbench.table import BenchmarkTable
from zeroshot_nas.core.seeding import python_rng
space, rng, rows = zs.get_space("nasbench201"), python_rng(5), {}
while len(rows) < 500:
    rows[space.to_string(space.sample(rng))] = None
accuracy = np.random.default_rng(0).uniform(10, 94, 500)
table = BenchmarkTable(name="made up", space="nasbench201", dataset="cifar10", rows=list(rows), accuracy=accuracy)
zs.correlate(["naswot", "synflow"], table, batch_size=4, executor="process", workers=2, out=sys.argv[1], resume=True,
             progress=False, space_options={"num_cells": 1, "channels": 4}, input_size=(3, 16, 16), num_classes=10)
"""


def kills_of_correlations(quick: bool) -> Part:
    """A correlation over 500 cells with two workers, its process group killed, resumed: the same scores and figures."""
    rounds, rng = (1, random.Random(6)) if quick else (30, random.Random(6))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", CORRELATION, f"{folder}/unbroken"], check=True)
        seconds, same, hit = time.perf_counter() - start, 0, 0
        wanted = _report(f"{folder}/unbroken")
        for number in range(rounds):
            run = f"{folder}/{number}"
            hit += killed([sys.executable, "-c", CORRELATION, run], rng.uniform(0.2, 1.0) * seconds)
            subprocess.run([sys.executable, "-c", CORRELATION, run], check=True)
            same += _report(run) == wanted
    what = f"correlations over 500 cells, 2 workers, killed at a random moment and resumed: identical, of {rounds}"
    return Part([Figure(what, [same], at_least=rounds)], {"killed while running": hit})


def _report(folder: str) -> Any:
    """A correlation's scores and figures without its wall times."""
    data = json.loads((Path(folder) / "report.json").read_text())
    for each in data["proxies"]:
        del each["milliseconds"]
    return data, (Path(folder) / "scores.csv").read_text()


def dask_kills(quick: bool) -> Part:
    """Workers of a Dask run killed while they score: every score is there, and is what one process gives."""
    from distributed import Client, LocalCluster

    count, rng = (20, random.Random(2)) if quick else (200, random.Random(2))
    jobs = [Job(each, (zs.get_proxy("zen"),), 0, {"repeats": 2}) for each in networks(count)]
    expected = [scores["zen"].value for scores in compute(jobs)]
    died = 0
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
        get_executor("dask", scheduler=cluster.scheduler_address) as executor,
    ):
        values = []
        for index, found in enumerate(run_all(executor, compute, [([job],) for job in jobs], retries=3)):
            values.append(found.value[0]["zen"].value if found.value is not None else None)
            if index % (count // 5) == count // 10:
                pids = list(client.run(os.getpid).values())
                os.kill(rng.choice(pids), signal.SIGKILL)
                died += 1
    same = sum(a == b for a, b in zip(values, expected, strict=True))
    what = f"scores of a Dask run on 3 workers, {died} of them killed: identical to serial, of {count}"
    return Part([Figure(what, [same], at_least=count)])


def throughput(quick: bool) -> Part:
    """Scores a second with two worker processes over one."""
    count, runs = (30, 1) if quick else (240, 5)
    jobs = [([Job(each, (zs.get_proxy("zen"),), 0, {"repeats": 8})],) for each in networks(count)]
    times: dict[int, list[float]] = {1: [], 2: []}
    for workers in (1, 2):
        with get_executor("process", workers=workers) as executor:
            list(run_all(executor, compute, jobs[: 4 * workers]))  # started, and torch imported
            for _ in range(runs):
                start = time.perf_counter()
                list(run_all(executor, compute, jobs))
                times[workers].append(time.perf_counter() - start)
    ratios = [one / two for one, two in zip(times[1], times[2], strict=True)]
    return Part([Figure("scores a second, 2 worker processes over 1", ratios, "x", at_least=1.85)], {"seconds": times})


def islands(quick: bool) -> Part:
    """A search by closed form on four islands: by worker processes over in this one."""
    proposals, runs = (20_000, 1) if quick else (480_000, 3)
    times: dict[str, list[float]] = {"serial": [], "1 process": [], "2 processes": []}
    for _ in range(runs):
        for name, how in zip(times, ({}, {"workers": 1}, {"workers": 2}), strict=True):
            process = run_process([sys.executable, "-c", _ISLANDS, str(proposals), json.dumps(how)])
            times[name].append(float(process.printed))
    overhead = [100 * (one / serial - 1) for one, serial in zip(times["1 process"], times["serial"], strict=True)]
    speedup = [serial / two for two, serial in zip(times["2 processes"], times["serial"], strict=True)]
    what = f"closed-form search of {proposals:,} proposals on four islands"
    return Part(
        [
            Figure(f"{what}: one worker process, more than serial", overhead, "%", at_most=5),
            Figure(f"{what}: two worker processes over serial", speedup, "x"),
        ],
        {"seconds": times},
    )


_ISLANDS = """
import json, sys, time, torch, zeroshot_nas as zs
how = json.loads(sys.argv[2])
start = time.perf_counter()
zs.search("resnet", "zen_closed_form", zs.Budget(params=1e6, layers=18), proposals=int(sys.argv[1]), islands=4,
          progress=False, executor="process" if how else "serial", **how)
print(time.perf_counter() - start)
"""

_CLOSED = """
import sys, time, zeroshot_nas as zs
start = time.perf_counter()
out = {"out": sys.argv[2], "cache": sys.argv[2] + "/cache.db"} if len(sys.argv) > 2 else {}
budget = zs.Budget(params=1e6, layers=18)
zs.search("resnet", "zen_closed_form", budget, proposals=int(sys.argv[1]), progress=False, **out)
print(time.perf_counter() - start)
"""


def journal(quick: bool) -> Part:
    """What journal and cache cost a search by closed form."""
    proposals, runs = (20_000, 1) if quick else (480_000, 3)
    costs, pairs = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            bare = float(run_process([sys.executable, "-c", _CLOSED, str(proposals)]).printed)
            kept = float(run_process([sys.executable, "-c", _CLOSED, str(proposals), f"{folder}/run"]).printed)
        pairs.append((bare, kept))
        costs.append(100 * (kept / bare - 1))
    what = f"journal and cache, of a closed-form search of {proposals:,} proposals"
    return Part([Figure(what, costs, "%", at_most=10)], {"seconds without and with": pairs})


_MEMORY = """
import json, resource, sys, threading, time, zeroshot_nas as zs
seen = []
def watch():
    while True:
        pages = int(open("/proc/self/statm").read().split()[1])
        seen.append((time.perf_counter(), pages * resource.getpagesize() / 1e6))
        time.sleep(1)
threading.Thread(target=watch, daemon=True).start()
zs.search("resnet", "zen_closed_form", zs.Budget(params=1e6, layers=18), proposals=int(sys.argv[1]), islands=1,
          progress=False)
print(json.dumps(seen))
"""


def memory(quick: bool) -> Part:
    """Resident memory of one island of ten million proposals after its first million."""
    proposals = 200_000 if quick else 10_000_000
    seen = json.loads(run_process([sys.executable, "-c", _MEMORY, str(proposals)]).printed)
    begin, end = seen[0][0], seen[-1][0]
    first = max(size for when, size in seen if when <= begin + 0.1 * (end - begin))
    later = max(size for when, size in seen if when > begin + 0.1 * (end - begin))
    what = f"{proposals:,} proposals: most memory after the first tenth over most within it"
    return Part([Figure(what, [later / first], "x", at_most=1.25)], {"MB, first tenth": first, "MB, later": later})


def fuzz(quick: bool) -> Part:
    """Mutated valid inputs to every parser: a message of ours or a value, nothing else."""
    total = 400 if quick else 20_000
    rng = random.Random(4)
    net = Architecture.from_string("SuperConvK3BNRELU(3,8,1,1)SuperResK1K5K1(8,16,2,8,3)", (3, 16, 16))
    found = zs.search("resnet", "zen_closed_form", zs.Budget(layers=6), input_size=(3, 8, 8), proposals=40, finalists=2,
                      progress=False)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        zs.search("resnet", "zen_closed_form", zs.Budget(layers=6), input_size=(3, 8, 8), proposals=40, finalists=2,
                  progress=False, out=path / "run")  # fmt: skip
        with Store(path / "run" / "run.db") as store:
            store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        parsers: dict[str, tuple[bytes, Callable[[bytes], object], int]] = {
            "architecture string": (net.to_string().encode(), lambda d: Architecture.from_string(_text(d)), 8),
            "architecture JSON": (net.to_json().encode(), lambda d: Architecture.from_json(_text(d)), 8),
            "search result": (found.to_json().encode(), lambda d: zs.SearchResult.from_json(_text(d)), 2),
            "run store": ((path / "run" / "run.db").read_bytes(), lambda d: _store(path, d), 2),
            **_tables(path),
        }
        weight = sum(share for _, _, share in parsers.values())
        counts = dict.fromkeys(parsers, 0)
        uncaught: list[str] = []
        slowest = 0.0
        for name, (valid, parse, share) in parsers.items():
            for _ in range(-(-total * share // weight)):
                data = mutated(valid, rng)
                start = time.perf_counter()
                try:
                    parse(data)
                except ZeroShotNASError:
                    pass
                except Exception as error:  # what the figure counts
                    uncaught.append(f"{name}: {type(error).__name__}: {error}"[:200])
                slowest = max(slowest, time.perf_counter() - start)
                counts[name] += 1
    figures = [
        Figure("fuzzed inputs", [sum(counts.values())], at_least=total),
        Figure("of them not caught", [len(uncaught)], at_most=0),
        Figure("slowest of them", [slowest], "s"),
        Figure("peak memory", [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6], "GB"),
    ]
    return Part(figures, {"by parser": counts, "uncaught": uncaught[:20]})


def _tables(path: Path) -> dict[str, tuple[bytes, Callable[[bytes], object], int]]:
    from zeroshot_nas.nasbench.base import load_table

    def table(name: str, **options: Any) -> Callable[[bytes], object]:
        def parse(data: bytes) -> object:
            (path / name).write_bytes(data)
            return load_table(path / name, **options)

        return parse

    csv = b"arch,test_acc,params\n000000,10.0,5\n111111,91.5,7\n222222,93.0,9\n"
    macro = json.dumps(
        {"02012100": {"test_acc": [91.0, 92.0, 93.0], "mean_acc": 92.0, "std": 0.8, "params": 5, "flops": 7}}
    )
    columns = {"arch_column": "arch", "accuracy_column": "test_acc"}
    return {
        "CSV table": (csv, table("t.csv", format="csv", **columns), 4),
        "NAS-Bench-Macro": (macro.encode(), table("nas-bench-macro_cifar10.json"), 4),
    }


def mutated(valid: bytes, rng: random.Random) -> bytes:
    """A valid input with bytes changed, cut out, repeated, or its numbers replaced by odd ones."""
    data = bytearray(valid)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 3, 10, 50])
        what = rng.randrange(5)
        if what == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif what == 1:
            del data[at : at + length]
        elif what == 2:
            data[at:at] = data[at : at + length]
        elif what == 3:
            data[at:at] = rng.choice(
                [b"-1", b"0", b"1e400", b"NaN", b"null", b"[[", b"{", b'"', b"999999999999", b"\xff", b","]
            )
        else:
            del data[at:]
        if not data:
            data = bytearray(b" ")
    return bytes(data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _store(path: Path, data: bytes) -> None:
    for old in path.glob("fuzzed*"):
        old.unlink()
    (path / "fuzzed.db").write_bytes(data)
    try:
        with Store(path / "fuzzed.db") as store:
            list(store.journal())
            list(store.scores())
            store.fact("settings")
    except ZeroShotNASError:
        recover(path / "fuzzed.db", path / "fuzzed-saved.db")


if __name__ == "__main__":
    main(
        "faults",
        {
            "kills": kills,
            "kills_of_scores": kills_of_scores,
            "kills_of_correlations": kills_of_correlations,
            "dask_kills": dask_kills,
            "throughput": throughput,
            "islands": islands,
            "journal": journal,
            "memory": memory,
            "fuzz": fuzz,
        },
        __doc__,
    )
