"""What needs no torch loads none: names, costs, closed forms, searches by them, stores and results."""

import ast
import json
import os
import subprocess
import sys

import pytest

from tests.layers import modules

LOADS_TORCH = {
    *("network.features", "network.module", "network.inheritance", "network.slicing", "network.to_onnx"),
    *("costs.module", "costs.operators", "scoring.double_backward", "scoring.forward", "testing"),
    *("export.checks", "export.exporting", "quantization.int8_network", "quantization.program"),
    *("quantization.rules", "pruning.channels", "pruning.prune", "families.training"),
    *("training.augment", "training.averaging", "training.checkpoint", "training.distillation"),
    *("training.learner", "training.narrow_norm", "training.precision", "training.qat"),
    *("training.supernet", "training.trainer"),
}
"""Modules that may load torch when they are imported: they hold, change, differentiate or train networks."""

LOADED_AT_ONCE = {
    "scipy": {"nasbench.agreement", "nasbench.equal_budget", "nasbench.report"},
    **dict.fromkeys(
        (
            *("sklearn", "matplotlib", "pandas", "fvcore", "PIL", "kornia", "mlxtend", "onnx", "onnxruntime"),
            *("distributed", "tqdm", "safetensors", "huggingface_hub", "torch_pruning"),
        ),
        frozenset[str](),
    ),
}
"""Modules that import a package at their head; all others import it where they use it, or not at all."""

HEAVY = (
    "torch",
    "scipy",
    "sklearn",
    "matplotlib",
    "pandas",
    "fvcore",
    "PIL",
    "onnx",
    "onnxruntime",
    "rich",
    "safetensors",
)

_IMPORT_WITHOUT_TORCH = """
import importlib, importlib.abc, json, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("torch is not to be loaded", name="torch")

sys.meta_path.insert(0, NoTorch())
refused = []
for name in json.load(sys.stdin):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        refused.append(name)
print(json.dumps(refused))
"""

_COMMAND_LINE = "import sys; sys.argv[1:] = {arguments}\nfrom zeroshot_nas.cli import main; main()"
NET = "SuperConvK3BNRELU(3,8,1,1)SuperResIDWE2K3(8,16,2,8,1)"

WITHOUT_NUMPY = {
    "the help": _COMMAND_LINE.format(arguments=["--help"]),
    "a command's help": _COMMAND_LINE.format(arguments=["search", "--help"]),
    "costs on the command line": _COMMAND_LINE.format(arguments=["cost", NET]),
    "costs": f"print(zs.cost(zs.Architecture.from_string({NET!r})), zs.Budget(params=1))",
    "a score read back": "score = zs.Score('zen', 1.0, None, 4, 0.1); print(zs.Score.from_dict(score.to_dict()))",
    "names of searchers": "print(zs.list_searchers(), zs.SearchResult, zs.Candidate)",
    "names of spaces": "print(zs.list_spaces(), zs.get_space('resnet'))",
    "names of data": "print(zs.list_data(), zs.get_recipe('quick'))",
    "names of costs and export formats": "print(zs.list_costs(), zs.list_export_formats())",
    "names of executors": "from zeroshot_nas.execution import list_executors; print(list_executors())",
    "list": _COMMAND_LINE.format(arguments=["list"]),
    "names of proxies": "print(zs.list_proxies(), zs.get_proxy('cet'), zs.get_proxy('zen'))",
    "names of backends": "from zeroshot_nas.latency.base import list_backends; print(list_backends())",
}
"""Programs that load none of the heavy packages, nor numpy."""

WITHOUT_TORCH = {
    **WITHOUT_NUMPY,
    "a closed form": f"print(zs.score(zs.Architecture.from_string({NET!r}), 'cet').value)",
    "several closed forms": f"""
net = zs.Architecture.from_string({NET!r})
print(zs.score(net, ["cet", "zen_closed_form", "entropy_deepmad", "nn_mass", "params", "flops"]))
print(zs.score_pool([net, net], ["cet", "params"]))
""",
    "a search, its store and its result": """
import json, sys, tempfile
from pathlib import Path
from zeroshot_nas.runs.inspect import best_so_far, export, summary
from zeroshot_nas.runs.store import FILE_NAME, Store
with tempfile.TemporaryDirectory() as folder:
    budget = zs.Budget(params=50e3, layers=8)
    result = zs.search("resnet", "cet", proposals=40, budget=budget, out=folder, progress=False)
    again = zs.search("resnet", "cet", proposals=40, budget=budget, out=folder, resume=True, progress=False)
    assert again.best.architecture == result.best.architecture
    assert zs.SearchResult.from_json((Path(folder) / "result.json").read_text()).best.architecture.key
    with Store(Path(folder) / FILE_NAME, read_only=True) as store:
        assert store.fact("settings") is not None
    print(summary(Path(folder)), best_so_far(Path(folder)), export(Path(folder), "csv"))
""",
}
"""Programs that load none of the heavy packages."""


@pytest.fixture(scope="module")
def modules_without_torch():
    """The modules that can't be imported where torch can't; one process tries them all."""
    names = [f"zeroshot_nas.{module.name}" for module in modules() if module.name not in ("__init__", "__main__")]
    program = [sys.executable, "-c", _IMPORT_WITHOUT_TORCH]
    result = subprocess.run(program, input=json.dumps(names), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return {name.removeprefix("zeroshot_nas.") for name in json.loads(result.stdout)}


@pytest.mark.slow
def test_the_modules_that_load_torch_when_imported_are_those_that_may(modules_without_torch):
    assert modules_without_torch == LOADS_TORCH


def imported_at_once(tree):
    """Packages that a file's import statements load when it is imported, as far as it says so at its head."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", LOADED_AT_ONCE)
def test_a_package_is_imported_at_the_head_of_those_modules_alone_that_always_use_it(package):
    found = {module.name for module in modules() if package in imported_at_once(module.tree)}
    assert found == set(LOADED_AT_ONCE[package])


def loaded_by(program, **environment):
    """Which heavy packages a program has loaded when it ends."""
    watch = "import atexit, sys; atexit.register(lambda: print('\\nLOADED', *sys.modules, file=sys.stderr))\n"
    code = f"{watch}import zeroshot_nas as zs\n{program}"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    errors, _, loaded = result.stderr.rpartition("LOADED")
    assert result.returncode == 0, errors
    assert result.stdout
    return set(loaded.split()) & {*HEAVY, "numpy"}


@pytest.mark.parametrize("what", WITHOUT_TORCH)
def test_what_needs_no_torch_loads_none(what):
    assert loaded_by(WITHOUT_TORCH[what]) <= (set() if what in WITHOUT_NUMPY else {"numpy"})


@pytest.mark.slow
def test_what_needs_torch_is_seen_to_load_it():
    program = f"print(zs.score(zs.Architecture.from_string({NET!r}, (3, 8, 8)), 'zen', repeats=1))"
    assert "torch" in loaded_by(program)


@pytest.mark.slow
def test_the_first_score_leaves_torchs_state_as_found_though_it_loads_torch():
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    # not always 2: MKL counts the machine's cores
    threads = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    alone = int(subprocess.run(threads, env=environment, capture_output=True, text=True, check=True).stdout)
    program = f"""
import sys
def drawn(network, batch):
    import torch
    return torch.rand(1).item()
net = zs.Architecture.from_string({NET!r}, (3, 8, 8))
assert "torch" not in sys.modules
print(zs.score(net, drawn, repeats=2))
import torch
assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(torch.initial_seed()).get_state())
assert torch.get_num_threads() == {alone}
"""
    assert "torch" in loaded_by(program, OMP_NUM_THREADS="2")
