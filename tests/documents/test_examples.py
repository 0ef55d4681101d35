"""Every example runs as its docstring says, on small settings."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_search_and_train(tmp_path):
    printed = run("search_and_train.py", "--proposals", 15, "--epochs", 1, "--out", tmp_path / "run")
    for word in ("architecture", "params", "FLOPs (multiply-adds)", "score", "test accuracy", "time", "weights"):
        assert f"\n{word}" in f"\n{printed}"
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_score_a_module():
    printed = run("score_a_module.py").splitlines()
    assert len(printed) == 4
    assert all("zen: " in line for line in printed)


def test_add_a_proxy():
    printed = run("add_a_proxy.py")
    for word in ("relu_balance: ", "naswot: ", "synflow: ", "most balanced of"):
        assert word in printed


def test_optuna_search():
    printed = run("optuna_search.py", "--trials", 12)
    assert printed.startswith("TPE: cet ")
    assert "NSGA-II: the front\n  cet" in printed


def test_add_a_callback():
    assert run("add_a_callback.py") == ""  # it registers two; what they write, tests/callbacks has


def test_every_example_has_a_test_or_is_run_by_a_page():
    tested = {name.removeprefix("test_") + ".py" for name in globals() if name.startswith("test_")}
    pages = "".join(page.read_text(encoding="utf-8") for page in (EXAMPLES.parent / "docs").rglob("*.md"))
    tested |= set(re.findall(r"^\$ python (\w+\.py)", pages, re.MULTILINE))
    assert {path.name for path in EXAMPLES.glob("*.py")} <= tested
