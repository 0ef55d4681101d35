"""The plan of `benchmarks/vcn_bench.py`, and what the script prints of a file of runs."""

import csv
import gzip
import json
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import zeroshot_nas as zs
from zeroshot_nas.nasbench.readers.vcn import TABLE

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "vcn_bench.py"
LIMITS = {"A": (100e3, 4e6), "B": (80e3, 12.5e6), "C": (300e3, 30e6)}


@pytest.fixture(scope="module")
def plan():
    with SCRIPT.with_name("vcn_plan.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_network_of_the_plan_is_what_it_says_and_keeps_its_budget(plan):
    for row in plan:
        costs = zs.cost(zs.Architecture.from_string(row["architecture"]))
        assert {name: str(getattr(costs, name)) for name in ("params", "flops", "layers")}.items() <= row.items()
        params, flops = LIMITS[row["budget"]]
        assert costs.params <= params
        assert costs.flops <= flops
        if row["kind"].startswith("random"):
            assert max(costs.params / params, costs.flops / flops) >= 0.8
            assert costs.layers <= 20


def test_every_hand_made_network_of_the_plan_is_a_reference(plan):
    hand_made = [row for row in plan if row["kind"] == "hand-made"]
    for row in hand_made:
        family, *marks = row["name"].split("-")[1:]
        if family == "mobilenet":
            strides, expansion, repeats = marks
            family, options = "mobilenet_3stage", {"expansion": int(expansion[1:]), "repeats": repeats}
        else:
            strides, block, kernel, *last = marks
            options = {"block": block, "kernel": int(kernel[1:]), "last": last == ["last"]}
        budget = zs.Budget(**dict(zip(("params", "flops"), LIMITS[row["budget"]], strict=True)))
        assert zs.reference(family, budget, strides=strides, **options).to_string() == row["architecture"]
    assert len(hand_made) == 92


def test_no_network_of_the_plan_is_there_twice(plan):
    assert len({row["name"] for row in plan}) == len(plan)
    assert len({(row["budget"], row["architecture"]) for row in plan}) == len(plan)
    counts = Counter(row["budget"] for row in plan)
    assert counts["A"] >= 160
    assert counts["B"] >= 80
    assert counts["C"] >= 24


def test_summary_leaves_out_a_line_that_was_cut_short(plan, tmp_path):
    lines = [
        json.dumps({"name": row["name"], "seed": seed, "protocol": "short", "test_accuracy": 0.7 - place / 100})
        for place, row in enumerate(plan[:8])
        for seed in range(2 if place == 0 else 1)
    ]
    runs = tmp_path / "runs.jsonl"
    runs.write_text("\n".join(lines) + "\n" + lines[0][:20])
    command = [sys.executable, str(SCRIPT), "--summary", "--runs", str(runs)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "A, short: 8 networks, 9 trainings" in printed
    assert f"| {plan[0]['name']} | 70.00 |" in printed
    assert "| zen_closed_form |" in printed


def test_the_table_of_the_package_is_of_the_runs(plan):
    """Every network of the table is in the plan, with the accuracies of the file of runs, which may have more."""
    planned = {row["name"]: row for row in plan}
    runs = defaultdict(dict)
    with (SCRIPT.parent / "results" / "vcn_bench.jsonl").open(encoding="utf-8") as file:
        for run in map(json.loads, file):
            runs[run["architecture"], run["protocol"]][run["seed"]] = 100 * run["test_accuracy"]
    with gzip.open(TABLE, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert planned[row["name"]].items() <= row.items()
        short = runs[row["architecture"], "short"]
        held = {seed: float(row[f"accuracy_run{seed}"]) for seed in (0, 1) if row[f"accuracy_run{seed}"]}
        assert held == pytest.approx({seed: short[seed] for seed in held}, abs=1e-3)
        assert float(row["accuracy"]) == pytest.approx(statistics.mean(held.values()), abs=1e-3)
        if row["accuracy_long"]:
            assert float(row["accuracy_long"]) == pytest.approx(runs[row["architecture"], "long"][0], abs=1e-3)
    assert len(zs.load_table("vcn", budget="A")) == sum(row["budget"] == "A" for row in rows) >= 16
    assert set(zs.load_table("vcn").rows) == {row["architecture"] for row in rows}


def test_a_table_is_made_of_a_file_of_runs(plan, tmp_path):
    shared = "A-resnet8-222-bottleneck-k3"  # of budget B too
    trained = [(plan[1]["name"], 0, "short", 0.5), (plan[1]["name"], 0, "long", 0.8), (shared, 0, "short", 0.6)]
    trained += [(shared, 1, "short", 0.7), (plan[2]["name"], 0, "quick", 0.9)]
    names = ("name", "seed", "protocol", "test_accuracy")
    (tmp_path / "runs.jsonl").write_text(
        "".join(json.dumps(dict(zip(names, run, strict=True))) + "\n" for run in trained)
    )
    made = [tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"]
    for file in made:
        command = [sys.executable, str(SCRIPT), "--make-table", "--runs", str(tmp_path / "runs.jsonl")]
        subprocess.run([*command, "--table", str(file)], check=True, capture_output=True)
    assert made[0].read_bytes() == made[1].read_bytes()
    table = zs.load_table(made[0], budget="A")
    assert table.accuracy.tolist() == [50, 65]
    assert table.runs == [(50,), (60, 70)]
    assert table.columns["long_accuracy"].tolist()[0] == 80
    assert zs.load_table(made[0], budget="B").accuracy.tolist() == [65]
