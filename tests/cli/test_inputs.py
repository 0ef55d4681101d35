"""A network as any command takes it: a string of any space, a file, a run's folder; and plug-ins from a file."""

import json
import subprocess
import sys

import pytest
import torch

import zeroshot_nas as zs
from zeroshot_nas.references.base import read_reference
from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.training.weights import weights_bytes

NET = "SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,16,2,8,1)"
PROXY = """
import zeroshot_nas as zs
from zeroshot_nas.references.base import read_reference

@zs.register_proxy("{name}", source="this test")
def widest(network, batch, /):
    return float(max(weight.shape[0] for weight in network.parameters()))
"""


@pytest.mark.parametrize("space", zs.list_spaces())
def test_a_string_of_every_space_is_taken(run, space):
    where = zs.get_space(space, input_size=(3, 16, 16), num_classes=5)
    network = where.initial()
    how = ("--space", space, "--input", "3x16x16", "--classes", 5, "--json")
    code, out, err = run("cost", where.to_string(network), *how)
    assert (code, err) == (0, "")
    assert json.loads(out) == zs.cost(network).to_dict()
    code, out, err = run("score", where.to_string(network), "--proxy", "params", *how)
    assert (code, err) == (0, "")
    assert json.loads(out)["params"]["value"] == zs.cost(network).params


@pytest.mark.parametrize("command", ["cost", "score", "latency measure"])
def test_a_runs_folder_is_its_network(run, tmp_path, command):
    budget, how = zs.Budget(params=20_000), {"input_size": (1, 8, 8), "proposals": 20, "progress": False}
    zs.search("resnet", "cet", budget, out=tmp_path / "search", **how)
    architecture = zs.Architecture.from_string(NET, (1, 8, 8))
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "architecture.json").write_text(architecture.to_json())
    extra = ("--backend", "torch", "--seconds", "0.01") if command.startswith("latency") else ()
    for folder in ("search", "training"):
        assert run(*command.split(), tmp_path / folder, *extra)[::2] == (0, "")
    (tmp_path / "empty").mkdir()
    code, out, err = run(*command.split(), tmp_path / "empty", *extra)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "holds no network" in err


def test_files_are_files_whatever_their_name_and_encoding(run, tmp_path):
    text, marked = tmp_path / "net(1).txt", tmp_path / "marked.json"
    text.write_text(NET + "\n")
    marked.write_text(zs.Architecture.from_string(NET, (1, 8, 8)).to_json(), encoding="utf-8-sig")
    wanted = run("cost", NET, "--input", "1x8x8")
    assert wanted[0] == 0
    assert run("cost", text, "--input", "1x8x8") == wanted
    assert run("cost", marked) == wanted


@pytest.mark.parametrize("text", ["none.json", "|nor_conv_3x3~0|", "x" * 5_000, ""])
def test_what_is_no_network_is_said_in_one_line(run, text):
    code, out, err = run("cost", text)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_the_version(run):
    assert run("--version") == (0, f"zeroshot-nas {zs.__version__}\n", "")


def program(*arguments):
    """The command line in a process of its own, whose registries a plug-in may change."""
    command = [sys.executable, "-m", "zeroshot_nas", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["serial", "process"])
def test_a_plug_in_from_a_file_meets_every_executor(run, tmp_path, executor):
    file = tmp_path / "my_proxy.py"
    file.write_text(PROXY.format(name="widest"))
    small = [
        "--space",
        "resnet",
        "--input",
        "1x8x8",
        "--max-params",
        "20k",
        "--proposals",
        12,
        "--quiet",
        "--executor",
        executor,
    ]
    done = program("search", "--plugin", file, "--proxy", "widest", *small, "--out", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best["fitness"] == max(block["out_channels"] for block in best["architecture"]["blocks"])
    again = program(f"--plugin={file}", "resume", tmp_path / "run", "--quiet")
    assert (again.returncode, again.stderr) == (0, "")
    code, _, err = run("resume", tmp_path / "run", "--quiet")  # no plug-in of this process
    assert (code, err.count("\n")) == (2, 1)
    assert "widest" in err


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("none.py", None, "a plug-in is a Python file"),
        ("my-proxy.py", "", "a plug-in is a Python file"),
        ("random.py", "", "the name of another module"),
        ("broken.py", "1 / 0", "ZeroDivisionError"),
        ("leaves.py", "raise SystemExit(4)", "SystemExit: 4"),
        ("twice.py", PROXY.format(name="zen"), "already registered"),
    ],
)
def test_a_plug_in_that_is_none_is_said_in_one_line(tmp_path, name, text, reason):
    if text is not None:
        (tmp_path / name).write_text(text)
    done = program("list", "--plugin", tmp_path / name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert reason in done.stderr


@pytest.mark.slow
def test_one_kind_of_name_is_listed_with_what_it_is(run):
    kinds = json.loads(run("list", "--json")[1])
    for kind, names in kinds.items():
        assert json.loads(run("list", kind, "--json")[1]) == names
        code, out, err = run("list", kind)
        assert (code, err) == (0, "")
        if kind != "recipes":
            listed = [line.split()[0] for line in out.splitlines()]
            assert listed[-len(names) :] == [name.split()[0] for name in names]
    head, epochs = run("list", "recipes")[1].splitlines()[:2]
    by_recipe = dict(zip(head.split()[1:], epochs.split()[1:], strict=True))
    assert by_recipe == {name: str(zs.get_recipe(name).epochs) for name in kinds["recipes"]}
    assert run("list", "export-formats")[0] == 0
    code, out, err = run("list", "recipe")
    assert (code, out) == (2, "")
    assert "Did you mean 'recipes'" in err


@pytest.mark.slow
@pytest.mark.parametrize("text", ["reference:resnet8:params=3k", "reference:mobilenet_v2:depth=0.5:params=20k"])
def test_a_hand_made_network_is_taken_by_name(run, tmp_path, text):
    network = read_reference(text, (1, 8, 8), 10)
    how = ("--input", "1x8x8")
    code, out, err = run("cost", text, *how, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == zs.cost(network).to_dict()
    (tmp_path / "net.txt").write_text(f"{text}\n")
    assert run("cost", tmp_path / "net.txt", *how, "--json") == (0, out, "")
    code, out, err = run("score", text, *how, "--proxy", "params", "--json")
    assert json.loads(out)["params"]["value"] == zs.cost(network).params
    assert run("latency", "measure", text, *how, "--backend", "torch", "--seconds", "0.01")[::2] == (0, "")
    code, out, err = run("train", text, *how, "--epochs", 1, "--quiet", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "run" / "architecture.json").read_text()) == network.to_dict()


def test_a_wrong_reference_is_one_line(run):
    for text in ("reference:", "reference:resnet9x", "reference:resnet8:stride=222", "reference:resnet8:params=x"):
        code, out, err = run("cost", text)
        assert (code, out, err.count("\n")) == (2, "", 1), text


def test_options_of_a_table_reach_its_reader(run, tmp_path):
    how = ("--proxies", "params", "--executor", "serial", "--quiet")
    code, out, err = run("correlate", "--benchmark", "vcn", "--table-option", "budget=A", *how)
    assert (code, err) == (0, "")
    assert "VCN-Bench A, cifar10" in out
    file = tmp_path / "vcn_a.csv"
    assert run("convert", "vcn", "--table-option", "budget=A", "--out", file)[::2] == (0, "")
    assert zs.load_table(file).rows == zs.load_table("vcn", budget="A").rows
    code, out, err = run("correlate", "--benchmark", "vcn", "--table-option", "budgt=A", *how)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Did you mean 'budget'" in err


@pytest.mark.slow
def test_a_runs_weights_are_its_network(run, tmp_path):
    network = zs.Architecture.from_string(NET, (1, 8, 8))
    zs.train(network, "digits", zs.get_recipe("quick", epochs=1), out=tmp_path / "run", progress=False)
    file = tmp_path / "run" / "best.safetensors"
    wanted = run("cost", tmp_path / "run")
    assert wanted[0] == 0
    assert run("cost", file) == wanted
    assert (
        json.loads(run("score", file, "--proxy", "params", "--json")[1])["params"]["value"] == zs.cost(network).params
    )
    whole, damaged = file.read_bytes(), tmp_path / "damaged.safetensors"
    cuts = [whole[:length] for length in (0, 2, 8, 300, len(whole) - 1)]
    flips = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in (0, 7, 9, 500, len(whole) - 1)]
    odd = [len(text).to_bytes(8, "little") + text for text in (b"[]", b"3", b'{"__metadata__": [1]}')]
    for content in (*cuts, *flips, *odd):
        damaged.write_bytes(content)
        code, out, err = run("cost", damaged)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "is damaged" in err
    damaged.write_bytes(weights_bytes({"a": torch.ones(2)}))
    code, out, err = run("cost", damaged)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "does not say of which architecture its weights are" in err


@pytest.mark.parametrize("space", ["nasbench201", "vanilla"])
def test_a_search_proposes_first_what_it_is_given(run, tmp_path, space):
    """Strings in the space's notation, files and runs; the run goes on with them."""
    where = zs.get_space(space, input_size=(3, 16, 16), num_classes=5)
    network, file = where.smallest("params"), tmp_path / "net.json"
    file.write_text(where.initial().to_json())
    of_space = ("--space", space, "--input", "3x16x16", "--classes", 5)
    how = ("search", *of_space, "--proxy", "params", "--proposals", 4, "--json")
    first = ("--first", where.to_string(network), "--first", file)
    code, out, err = run(*how, *first, "--out", tmp_path / "a")
    assert (code, err) == (0, "")
    proposed = {each.architecture for each in SearchResult.from_json((tmp_path / "a/result.json").read_text()).history}
    assert {network, where.initial()} <= proposed
    assert run(*how, "--first", tmp_path / "a", "--out", tmp_path / "b")[0] == 0
    assert zs.Architecture.from_dict(json.loads(out)["best"]["architecture"]) in {
        each.architecture for each in SearchResult.from_json((tmp_path / "b/result.json").read_text()).history
    }
    assert run(*how, "--out", tmp_path / "a", "--resume")[0] == 0
    assert run(*how, *first, "--out", tmp_path / "a", "--resume")[0] == 0
    code, out, err = run(*how, "--first", tmp_path / "nowhere")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"nor is there a file or folder '{tmp_path / 'nowhere'}'" in err
