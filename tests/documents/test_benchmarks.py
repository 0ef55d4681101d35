"""The benchmark scripts run and write what their results are read for; figures of ``--quick`` mean nothing."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TABLES = BENCHMARKS.parent / "../shared/data/nasbench"
"""Real tables, where they stand beside the checkout."""


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """A folder in CIFAR-10's official layout, with hundreds of images of noise."""
    folder, rng = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        images = rng.integers(0, 256, (60, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": images, b"labels": [place % 10 for place in range(60)]}))
    names = [f"class {number}".encode() for number in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}))
    return folder


def run(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_closed_form(tmp_path):
    out = tmp_path / "results.json"
    out.write_text(json.dumps({"agreement": "replaced", "winner": "kept"}))
    printed = run("closed_form.py", "--quick", "--only", "agreement", "search_480k", "--out", out)
    results = json.loads(out.read_text())
    assert results.pop("winner") == "kept"
    assert list(results) == ["agreement", "search_480k"]
    for part in results.values():
        assert part["quick"] is True
        assert part["date"]
        assert "commit" in part  # None outside of a repository
        assert set(part["versions"]) == {"python", "torch", "numpy", "zeroshot_nas"}
        assert part["machine"]["cpu"]
        assert part["machine"]["cores"] >= 1
        for figure in part["figures"]:
            assert min(figure["runs"]) <= figure["figure"] <= max(figure["runs"])
            assert figure["what"] in printed
        assert any(figure["target"] for figure in part["figures"])
    assert results["agreement"]["figures"][0]["figure"] > 0.9
    assert len(results["search_480k"]["details"]["cProfile, 12 by own time"]) == 12


def test_strategies_go_on_where_they_were_stopped(tmp_path):
    runs, out, picture = tmp_path / "runs.jsonl", tmp_path / "results.json", tmp_path / "strategies.png"
    how = ["--quick", "--runs", runs, "--out", out]
    printed = run("strategies.py", *how, "--plot", picture)
    lines = runs.read_text().splitlines()
    found = [json.loads(line) for line in lines]
    strategies = {"grid", "random", "evolution", "regularized_evolution", "reinforce", "gradient", "exact"}
    assert {each["searcher"] for each in found if each["proxy"] == "zen"} == strategies
    assert {each["searcher"] for each in found if each["space"] == "nasbench201"} == strategies - {"gradient", "exact"}
    assert all(each["way"][-1][1] == each["best"] for each in found)
    (proof,) = (each for each in found if each["searcher"] == "exact")
    assert proof["certificate"]["finished"]
    assert all(each["best"] <= proof["best"] * (1 + 1e-9) for each in found if each["proxy"] == "zen")
    assert "| resnet | zen | 100k params | exact | 100.00 | exact |" in printed
    assert picture.stat().st_size > 10_000
    runs.write_text("\n".join([*lines[:-2], lines[-2][:40]]))  # two lines are lost, one of them cut short
    run("strategies.py", *how)
    again = [json.loads(line) for line in runs.read_text().splitlines()]
    assert [each["key"] for each in again] == [each["key"] for each in found]
    assert len(json.loads(out.read_text())["chains"]["details"]["medians"]) == 9


def test_found_vs_hand_on_cifar10_takes_the_trainings_of_vcn_bench(tmp_path):
    runs, out = tmp_path / "runs.jsonl", tmp_path / "results.json"
    made = "SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,16,2,16,1)SuperResK3K3(16,32,2,32,1)"
    where = {"budget": "A", "protocol": "short"}
    by_hand = (
        "SuperConvK3BNRELU(3,17,1,1)SuperResK3K3(17,17,2,17,1)SuperResK3K3(17,34,2,34,1)SuperResK3K3(34,69,2,69,1)"
    )
    found = [{"row": "ceres", "seed": seed, "architecture": made.replace("32", f"3{seed}")} for seed in (1, 2)]
    trained = [{**each, "training_seed": 0, "test_accuracy": 0.7 + each["seed"] / 100} for each in found]
    rows = [*found, *trained, {"row": "resnet8-222", "seed": 0, "architecture": by_hand}]
    runs.write_text("".join(json.dumps({**where, **each}) + "\n" for each in rows))
    printed = run("found_vs_hand_cifar10.py", "--summary", "--only", "A", "--runs", runs, "--out", out)
    accuracy = {name: about["mean"] for name, about in json.loads(out.read_text())["A"]["details"]["rows"].items()}
    assert accuracy["ceres"] == pytest.approx(71.5)
    assert 70 < accuracy["resnet8-222"] < 80, "trained by VCN-Bench, whose file of runs is shipped"
    assert "ceres - resnet8-222: " in printed


def test_found_vs_hand_on_photos(tmp_path):
    rng = np.random.default_rng(0)
    for name, classes, size in (("signdigits", 10, (64, 64, 3)), ("trashnet", 6, (128, 96, 3))):
        for number in range(classes):
            folder = tmp_path / name / str(number)
            folder.mkdir(parents=True)
            for place in range(5):
                Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{place}.png")
    runs, out = tmp_path / "runs.jsonl", tmp_path / "results.json"
    how = ["--quick", "--data", tmp_path, "--runs", runs, "--out", out, "--rows", "default", "resnet8-222"]
    run("found_vs_hand_photos.py", *how)
    before = runs.read_text()
    run("found_vs_hand_photos.py", *how)
    assert runs.read_text() == before, "nothing is done twice"
    results = json.loads(out.read_text())
    for name in ("signdigits", "trashnet"):
        rows = results[name]["details"]["rows"]
        assert set(rows) == {"default", "resnet8-222"}
        for row in rows.values():
            (network,) = row["networks"]
            assert all(network[cost] <= limit for cost, limit in results[name]["details"]["budget"].items())
        assert list(results[name]["details"]["comparisons (Welch's test)"]) == ["default - resnet8-222"]


def test_startup(tmp_path):
    out = tmp_path / "results.json"
    printed = run("startup.py", "--quick", "--out", out)
    part = json.loads(out.read_text())["cold_process"]
    assert "zeroshot-nas --help" in printed
    ratios = {figure["what"]: figure["figure"] for figure in part["figures"] if figure["unit"] == "times"}
    assert all(ratio > 1 for ratio in ratios.values())  # whatever the machine: none of them loads torch
    assert set(part["details"]["wall seconds, medians"]) > {"import torch", "zeroshot-nas list"}


def test_cet(tmp_path):
    out = tmp_path / "results.json"
    run("cet.py", "--quick", "--only", "measured", "measured_cost", "--out", out)
    results = json.loads(out.read_text())
    assert list(results) == ["measured", "measured_cost"]
    assert results["measured"]["details"]["cells"] == 12
    assert results["measured"]["details"]["measured alone"] == 0
    assert all(figure["figure"] > 0 for part in results.values() for figure in part["figures"])


def test_pareto(tmp_path):
    out = tmp_path / "results.json"
    printed = run("pareto.py", "--quick", "--only", "compare", "--out", out)
    part = json.loads(out.read_text())["compare"]
    runs = part["details"]["runs"]
    assert {"nsga2", "random", "regularized_evolution"} <= set(runs)
    for rows in runs.values():
        assert all(0 < row["front"] <= row["all"] < 1 and row["evaluations"] > 0 for row in rows)
    rival = runs[part["details"]["rival"]]
    ratio = next(figure for figure in part["figures"] if "over that of" in figure["what"])
    assert ratio["runs"] == [pytest.approx(runs["nsga2"][0]["front"] / rival[0]["front"], rel=1e-4)]
    assert ratio["what"] in printed


def test_found_vs_hand_goes_on_where_it_was_stopped(tmp_path):
    runs, out = tmp_path / "runs.jsonl", tmp_path / "results.json"
    command = ["found_vs_hand.py", "--quick", "--only", "cet", "resnet8", "--runs", runs, "--out", out, "--workers", 1]
    run(*command)
    lines = runs.read_text().splitlines(keepends=True)
    assert len(lines) == 3 + 3 * 2  # two searches and one hand-made network, each trained twice
    runs.write_text("".join(lines[:-2]) + lines[-2][:20])  # killed while it wrote
    printed = run(*command)
    again = runs.read_text().splitlines(keepends=True)
    assert again[:-2] == lines[:-2]
    accuracies = [{json.loads(line).get("test_accuracy") for line in part} for part in (lines, again)]
    assert accuracies[0] == accuracies[1]
    assert len(again) == len(lines)
    results = json.loads(out.read_text())["digits"]
    found, hand = (results["details"]["rows"][row] for row in ("cet", "resnet8"))
    assert (len(found["networks"]), len(hand["networks"]), found["trainings"], hand["trainings"]) == (2, 1, 4, 2)
    assert found["mean"] == pytest.approx(sum(sum(n["test_accuracies"]) for n in found["networks"]) / 4, rel=1e-5)
    assert all(n["params"] <= 20e3 and n["flops"] <= 5e5 for n in [*found["networks"], *hand["networks"]])
    assert all(n["latency_ms"] > 0 for n in [*found["networks"], *hand["networks"]])
    assert "cet - resnet8" in results["details"]["comparisons (Welch's test)"]
    assert "cet - resnet8" in printed


def test_latency(tmp_path):
    out = tmp_path / "results.json"
    printed = run("latency.py", "--quick", "--only", "prediction", "--out", out)
    (part,) = json.loads(out.read_text()).values()
    assert all(each["what"] in printed for each in part["figures"])
    for space in ("resnet", "mobilenet"):
        rows = part["details"][space]
        assert len(rows["predicted_ms"]) == len(rows["measured_ms"]) == len(rows["flops"]) == 4
        assert min(rows["predicted_ms"]) > 0


def test_training(tmp_path):
    out = tmp_path / "results.json"
    printed = run("training.py", "--quick", "--only", "onnx", "--out", out)
    (figure,) = json.loads(out.read_text())["onnx"]["figures"]
    assert figure["met"] is True
    assert figure["what"] in printed


def test_vcn_proxies(tmp_path):
    out = tmp_path / "results.json"
    printed = run("vcn_proxies.py", "--quick", "--only", "A held out", "B", "--out", out)
    results = json.loads(out.read_text())
    assert tuple(results) == ("A held out", "B")
    for part in results.values():
        scores = part["details"]["scores"]
        assert scores["fewest layers"]["tau"] == -scores["layers"]["tau"]
        for row in scores.values():
            low, high = row["interval"]
            assert low <= row["tau"] <= high
            assert row["failed"] == 0
        assert all(figure["what"] in printed for figure in part["figures"])


@pytest.mark.skipif(not TABLES.exists(), reason="the real tables are not here")
def test_equal_budget(tmp_path):
    out = tmp_path / "results.json"
    parts = ("macro", "nasbench101", "transnas_macro")
    printed = run("equal_budget.py", "--quick", "--tables", TABLES, "--only", *parts, "--out", out)
    results = json.loads(out.read_text())
    assert tuple(results) == parts
    for part in results.values():
        assert "\n".join(part["details"]["table"]) in printed
        assert any(line.startswith("| `cet` |") for line in part["details"]["table"])
        assert all(figure["what"] in printed for figure in part["figures"])
    assert "*synflow*" in "".join(results["nasbench101"]["details"]["table"])
    assert len(results["transnas_macro"]["details"]["tasks"]) == 7


def test_timm_families(tmp_path):
    pytest.importorskip("timm", reason="timm, or the torchvision that it imports, is not installed")
    out = tmp_path / "results.json"
    printed = run("timm_families.py", "--quick", "--out", out)
    (part,) = json.loads(out.read_text()).values()
    crashes, *_ = part["figures"]
    assert crashes["met"]
    assert crashes["what"] in printed
    families = part["details"]["families"]
    assert families["ResNet"]["scores"]["params"]["value"] == families["ResNet"]["params"]
    assert "batch norm" in families["ViT"]["scores"]["zen"]["reason"]


def test_ceres(tmp_path):
    printed = run("ceres.py", "--quick", "--tables", tmp_path, "--cache", tmp_path)
    taus = dict(line.strip("| ").rsplit(" | ", 1) for line in printed.splitlines()[2:])
    assert {"ceres", "cet", "params", "layers"} < set(taus)
    assert float(taus["ceres"]) > float(taus["cet"])


def test_memory_of_microcontrollers(tmp_path):
    pytest.importorskip("tflite_micro")
    out = tmp_path / "results.json"
    run("memory.py", "--quick", "--only", "arena", "--out", out)
    figures = json.loads(out.read_text())["arena"]["figures"]
    assert all(figure["met"] for figure in figures if figure["target"])


def test_scale(tmp_path):
    out = tmp_path / "results.json"
    printed = run("scale.py", "--quick", "--only", "proposals", "command", "--out", out)
    figures = [figure for part in json.loads(out.read_text()).values() for figure in part["figures"]]
    assert len(figures) == 13
    assert all(figure["figure"] > 0 and figure["what"] in printed for figure in figures)


def test_qat_goes_on_where_it_was_stopped(tmp_path):
    pytest.importorskip("ai_edge_litert")
    out = tmp_path / "results.json"
    how = ["--quick", "--only", "digits", "--runs", tmp_path / "runs", "--out", out]
    printed = run("qat.py", *how)
    (row,) = json.loads(out.read_text())["digits"]["details"]["rows"]
    assert row["qat, powers of two"] == row["qat, powers of two: rounded in torch"]
    assert set(row) >= {"network", "seed", "float", "calibrated", "calibrated, powers of two", "qat", "further"}
    assert "| digits: float less qat, mean |" in printed
    assert run("qat.py", *how) == printed


def test_mixed_precision_sums_up_what_is_there(tmp_path):
    runs, out = tmp_path / "runs.jsonl", tmp_path / "results.json"
    task = {"problem": "mnist5k", "seed": 0}
    costs = {"string": "a", "score": 1.0, "weights": 5, "params": 10, "flops": 20, "cpu_seconds": 1.0}
    accuracies = {"8": 0.9, "4 and 8": 0.95}
    lines = [{**task, **costs, "arm": arm, "architecture": {"weight_bits": [4, 8]}} for arm in (*accuracies, "4")]
    for arm, accuracy in accuracies.items():
        noise = {"noise": 0.1, "predicted_noise": 0.4}
        lines.append(
            {**task, **noise, "arm": arm, "training_seed": 0, "float_accuracy": 1.0, "rounded_accuracy": accuracy}
        )
    runs.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    printed = run("mixed_precision.py", "--summary", "--runs", runs, "--out", out)
    assert "| mnist5k, 4 and 8 bits: noise of the logits over what was predicted | 0.25  | 0.25 |" in printed
    found = json.loads(out.read_text())
    assert set(found) == {"mnist5k"}, "and nothing of what has no training"
    assert found["mnist5k"]["details"]["mean rounded accuracy"] == {"8": 90.0, "4 and 8": 95.0}


def test_pruning_sums_up_what_is_there(tmp_path):
    runs, out = tmp_path / "runs.jsonl", tmp_path / "results.json"
    about = {"architecture": "a", "params": 1, "flops": 2, "epochs": 8, "cpu_seconds": 3.0}
    rows = {"searched": 0.4, "pruned from 4x": 0.5}
    lines = [
        {"key": f"vanilla, {row}, {seed}", "accuracy": value + seed / 100, **about}
        for row, value in rows.items()
        for seed in (0, 1)
    ]
    lines += [{"key": "vanilla, search at 1x, 0", "architecture": "a"}]
    lines += [
        {"key": f"digits, resnet, {what}, 0", "accuracy": value, **about}
        for what, value in (("whole", 0.9), ("1/2 by norm at 1", 0.8))
    ]
    runs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    printed = run("pruning.py", "--summary", "--only", "vanilla", "importance", "--runs", runs, "--out", out)
    results = json.loads(out.read_text())
    details = results["vanilla"]["details"]
    assert details["rows"]["searched"]["mean"] == pytest.approx(40.5)
    pair = details["comparisons (Welch's test)"]["pruned from 4x - searched"]
    assert pair["difference"] == pytest.approx(10)
    (lost,) = results["importance"]["details"]["points lost"].values()
    assert lost == [pytest.approx(10)]
    assert "| vanilla, searched: test accuracy | 40.5 % | 40, 41 |" in printed


def test_family_summarizes_the_trainings_that_are_there(tmp_path):
    out = tmp_path / "results.json"
    printed = run("family.py", "--summary", "--only", "digits", "--weights", tmp_path / "weights", "--out", out)
    part = json.loads(out.read_text())["digits"]
    assert part["details"]["seeds"] >= 1
    rows = part["details"]["rows"]
    assert {"scratch, 1 of the epochs", "slice, 0.5 of the epochs", "grow, 0.25 of the epochs"} <= set(rows)
    assert all(0 < figure["figure"] <= 1 and figure["what"] in printed for figure in part["figures"])


def test_the_supernets_rivals_are_trained_once(tmp_path, cifar10):
    runs = tmp_path / "runs.jsonl"
    how = ("--quick", "--data", cifar10, "--runs", runs, "--supernet", tmp_path / "supernet", "--only", "scratch")
    run("supernet.py", *how)
    lines = [json.loads(line) for line in runs.read_text().splitlines()]
    assert len({line["architecture"] for line in lines if line["what"] == "scratch"}) == len(lines) == 3
    assert all(0 <= line["test_accuracy"] <= 1 for line in lines)
    run("supernet.py", *how)
    assert len(runs.read_text().splitlines()) == 3


@pytest.mark.parametrize("script", ["scaling.py", "resolutions.py"])
def test_scaling_and_resolutions_go_on_where_they_were_stopped(tmp_path, cifar10, script):
    runs, out = tmp_path / "runs.jsonl", tmp_path / "results.json"
    how = ["--quick", "--data", cifar10, "--runs", runs, "--out", out]
    printed = run(script, *how, *(["--only", "cifar10"] if script == "resolutions.py" else []))
    (part,) = json.loads(out.read_text()).values()
    assert any("test accuracy" in figure["what"] for figure in part["figures"])
    assert all(figure["what"] in printed for figure in part["figures"])
    lines = runs.read_text().splitlines()
    runs.write_text("\n".join([*lines[:-1], lines[-1][:40]]))  # the last training is lost, cut short
    run(script, *how, *(["--only", "cifar10"] if script == "resolutions.py" else []))
    again = [json.loads(line) for line in runs.read_text().splitlines()]
    assert [line["architecture"] for line in again] == [json.loads(line)["architecture"] for line in lines]
