"""The benchmark scripts run and write what their results are read for; figures of ``--quick`` mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


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


def test_latency(tmp_path):
    out = tmp_path / "results.json"
    printed = run("latency.py", "--quick", "--only", "prediction", "--out", out)
    (part,) = json.loads(out.read_text()).values()
    assert all(each["what"] in printed for each in part["figures"])
    for space in ("resnet", "mobilenet"):
        rows = part["details"][space]
        assert len(rows["predicted_ms"]) == len(rows["measured_ms"]) == len(rows["flops"]) == 4
        assert min(rows["predicted_ms"]) > 0
