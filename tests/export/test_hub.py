"""Folders for the Hub: what is in them, that they load with and without this package, and what is refused."""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import ClassVar

import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image

import zeroshot_nas as zs
from tests.export.test_export import trained_network
from zeroshot_nas import cli
from zeroshot_nas.core.provenance import cpu_model
from zeroshot_nas.core.seeding import python_rng
from zeroshot_nas.errors import ExportError, FileFormatError, MissingExtraError
from zeroshot_nas.training.checkpoint import load

pytestmark = pytest.mark.slow

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FILES = ["README.md", "config.json", "model.py", "model.safetensors"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A search's folder with its winner's training in it, exported."""
    folder = tmp_path_factory.mktemp("search")
    budget = zs.Budget(params=2e4, layers=4)
    found = zs.search("resnet", "cet", proposals=40, budget=budget, input_size=(1, 8, 8), out=folder, progress=False)
    zs.train(found.best, "digits", zs.get_recipe("quick", epochs=1), out=folder / "trained", progress=False)
    zs.export_network(folder / "trained", formats=("hub",), license="mit")
    return folder / "trained"


@pytest.fixture
def hub(run, tmp_path):
    """A copy of the exported folder, to be damaged."""
    for name in FILES:
        (tmp_path / name).write_bytes((run / "hub" / name).read_bytes())
    return tmp_path


def in_process(text, images, beside):
    """As `run_alone`, which takes seconds; that of the fixture above is the real one."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**beside, "network.py": text.encode()}.items():
            (Path(folder) / name).write_bytes(content)
        spec = importlib.util.spec_from_file_location("network", Path(folder) / "network.py")
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        return code.load()(images).detach()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("zeroshot_nas.export.formats.hub_folder.run_alone", in_process)


def card_of(folder):
    """The front matter and the table of a model card."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE)
    return yaml.safe_load(front), dict(rows), text


def test_the_folder_holds_the_network_and_loads(run):
    assert sorted(file.name for file in (run / "hub").iterdir()) == FILES
    network = zs.load(run)
    for path in (run / "hub", run / "hub" / "config.json", run / "hub" / "model.safetensors"):
        again = zs.load(path)
        assert torch.equal(again(IMAGES), network(IMAGES))
        assert (again.class_names, again.architecture) == (network.class_names, network.architecture)
    report = json.loads((run / "export.json").read_text())
    (entry,) = report["files"]
    assert entry["kind"] == "hub folder"
    assert entry["accuracy"] == pytest.approx(report["network"]["accuracy"])
    assert entry["size_kb"] == sum(file.stat().st_size for file in (run / "hub").iterdir()) / 1000


def test_the_folder_runs_without_this_package(run):
    program = f"""
import sys
sys.modules["zeroshot_nas"] = None
sys.path.insert(0, {str(run / "hub")!r})
import torch
from model import CLASS_NAMES, load
images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
print(CLASS_NAMES, load()(images).tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    network = zs.load(run)
    names, logits = done.stdout.split("] [", 1)
    assert json.loads((names + "]").replace("'", '"')) == list(network.class_names)
    torch.testing.assert_close(torch.tensor(json.loads("[" + logits)), network(IMAGES))


def test_the_weights_are_anyones_to_read(run):
    tensors = safetensors.torch.load_file(run / "hub" / "model.safetensors")
    assert set(tensors) == set(zs.load(run).state_dict())
    with safetensors.safe_open(run / "hub" / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
    zs.build(zs.load(run).architecture).load_state_dict(tensors)


def test_the_card_says_what_the_network_is(run):
    front, rows, text = card_of(run / "hub")
    result, network = json.loads((run / "train.json").read_text()), zs.load(run)
    assert (front["license"], front["library_name"]) == ("mit", "zeroshot-nas")
    assert front["pipeline_tag"] == "image-classification"
    (entry,) = front["model-index"][0]["results"]
    assert entry["metrics"][0]["value"] == pytest.approx(result["test_accuracy"], abs=1e-6)
    low, high = result["test_interval"]
    expected = f"{result['test_accuracy']:.2%} of 450 images (95 % interval {low:.1%} to {high:.1%})"
    assert rows["Test accuracy"] == expected
    assert rows["Data"] == "digits (1,213 train, 134 validation, 450 test images)"
    assert rows["Budget"] == "params at most 20,000, layers at most 4"
    assert re.match(r"cet [\d.]+ \(best of 40 proposals in the space resnet, seed 0\)", rows["Score"])
    assert f"params {zs.cost(network.architecture).params:,}" in rows["Costs"]
    assert cpu_model() in rows["Latency"]
    assert rows["Licence"] == "mit"
    three_lines = re.search(r"```python\n(.+?)```", text, re.DOTALL)[1].replace('"."', repr(str(run / "hub")))
    scope = {"images": IMAGES}
    exec(three_lines, scope)
    assert torch.equal(scope["probabilities"], zs.predict(network, IMAGES))


def test_the_hubs_own_reader_takes_the_card(run):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(run / "hub" / "README.md")
    assert card.data.license == "mit"
    accuracy = json.loads((run / "train.json").read_text())["test_accuracy"]
    assert card.data.eval_results[0].metric_value == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("space", zs.list_spaces())
def test_networks_of_every_space_are_written_and_loaded(space, tmp_path):
    where = zs.get_space(space, input_size=(3, 16, 16), num_classes=4)
    network = trained_network(
        min((where.sample(python_rng(seed)) for seed in range(9)), key=lambda a: zs.cost(a).flops)
    )
    images = torch.rand(2, 3, 16, 16)
    zs.export_network(network, tmp_path, formats=("hub",))
    assert torch.equal(zs.load(tmp_path / "hub")(images), network(images))
    front, rows, _ = card_of(tmp_path / "hub")
    assert front["license"] == "unknown"
    assert "model-index" not in front
    assert rows["Test accuracy"] == "not known"
    assert rows["Score"].startswith("cet ")


def test_the_command_line_writes_the_folder_and_classifies_with_it(run, tmp_path, monkeypatch, capsys):
    Image.new("L", (9, 12), 40).save(tmp_path / "grey.png")
    calls = [
        ("export", run, "--format", "hub", "--search", run.parent, "--license", "apache-2.0", "--out", tmp_path),
        ("predict", tmp_path / "hub", tmp_path / "grey.png", "--json"),
    ]
    for call in calls:
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, call)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
    assert card_of(tmp_path / "hub")[1]["Licence"] == "apache-2.0"
    out = capsys.readouterr().out
    assert f"hub folder  {tmp_path / 'hub'}: " in out
    assert len(json.loads(out[out.index("{") :])[str(tmp_path / "grey.png")]) == 3


def test_names_of_a_strangers_classes_do_no_harm(tmp_path):
    network = trained_network(zs.Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 8, 8), num_classes=3))
    network.class_names = ("a|b", "<script>", "c\n---\nlicense: mit")
    zs.export_network(network, tmp_path, formats=("hub",))
    front, rows, text = card_of(tmp_path / "hub")
    assert front["license"] == "unknown"
    assert "<script>" not in text
    assert rows["Classes"] == r"3: a\|b, &lt;script&gt;, c\n---\nlicense: mit"
    assert zs.load(tmp_path / "hub").class_names == network.class_names


def test_a_run_that_is_not_at_its_end_has_no_accuracy(run, tmp_path):
    for name in ("best.safetensors", "train.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    result = json.loads((tmp_path / "train.json").read_text())
    result |= {"state": "running", "test_accuracy": None, "test_interval": None, "epochs": 1}
    result["recipe"]["epochs"] = 9
    (tmp_path / "train.json").write_text(json.dumps(result))
    with pytest.warns(UserWarning, match="1 of 9 epochs are done"):
        zs.export_network(tmp_path, formats=("hub",))
    front, rows, _ = card_of(tmp_path / "hub")
    assert rows["Test accuracy"] == "not known: 1 of 9 epochs are done"
    assert "model-index" not in front
    assert rows["Budget"].startswith("none is known")


def test_the_search_is_named_or_found_and_must_be_of_this_network(run, tmp_path):
    zs.export_network(run, tmp_path / "named", formats=("hub",), search=run.parent / "result.json")
    assert card_of(tmp_path / "named" / "hub")[1]["Budget"].startswith("params at most")
    other = trained_network(zs.Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 8, 8)))
    with pytest.raises(ExportError, match="found another network"):
        zs.export_network(other, tmp_path, formats=("hub",), search=run.parent)
    with pytest.raises(FileNotFoundError):
        zs.export_network(run, tmp_path, formats=("hub",), search=tmp_path / "none")


def _change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_folder_cut_short_or_incomplete_is_refused(hub):
    weights = (hub / "model.safetensors").read_bytes()
    for length in (0, 7, 100, len(weights) // 2, len(weights) - 1):
        (hub / "model.safetensors").write_bytes(weights[:length])
        with pytest.raises(FileFormatError, match=r"model\.safetensors is not a checkpoint, or is damaged"):
            load(hub)
    (hub / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(FileFormatError, match="not as it was written"):
        load(hub)
    (hub / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safe.* is not there; expected a folder with config\.json"):
        load(hub)
    (hub / "model.safetensors").write_bytes(weights)
    (hub / "config.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"config\.json is damaged: not JSON"):
        load(hub)
    (hub / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is not there, which says what network"):
        load(hub)
    (hub / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a run's folder or one for the Hub"):
        load(hub)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "transformers"}, r"expected a JSON object with format 'zeroshot_nas\.hub'"),
        ({"version": 9}, "of version 9; this release reads version 1"),
        ({"num_classes": 3}, "classes do not match: the architecture has 10, num_classes is 3, and class_names has 10"),
        ({"class_names": ["a"]}, "classes do not match: .* class_names has 1 names"),
        ({"class_names": [1] * 10}, "class_names must be a list of texts"),
        ({"class_names": None}, "class_names must be a list of texts"),
        ({"architecture": {}}, "not an architecture"),
        ({"mean": [0.0] * 2}, "1 channels"),
        ({"mean": "grey"}, "do not fit together"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(hub, changes, message):
    _change_config(hub, **changes)
    with pytest.raises(FileFormatError, match=message):
        load(hub)


def test_a_config_that_lacks_a_part_is_refused(hub):
    config = json.loads((hub / "config.json").read_text())
    for name in ("architecture", "class_names", "mean", "std", "num_classes"):
        (hub / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != name}))
        with pytest.raises(FileFormatError, match=f"it lacks '{name}'"):
            load(hub)


def test_weights_of_another_shape_are_refused_and_named(hub):
    network = load(hub)
    other = zs.build(dataclasses.replace(network.architecture, num_classes=7))
    safetensors.torch.save_file(other.state_dict(), hub / "model.safetensors")
    with pytest.raises(FileFormatError, match=r"head\.1\.weight of shape \(7, \d+\), expected \(10, \d+\)"):
        load(hub)
    safetensors.torch.save_file(zs.build(network.architecture).state_dict(), hub / "model.safetensors")
    assert load(hub).class_names == network.class_names  # another's file without our digest will do


def test_what_is_not_trained_or_not_ours_is_not_published(tmp_path):
    architecture = zs.Architecture.from_string("SuperConvK3BNRELU(1,8,1,1)", (1, 8, 8))
    (tmp_path / "best.json").write_text(architecture.to_json())
    with pytest.raises(FileFormatError, match="an architecture is trained first"):
        zs.export_network(tmp_path / "best.json", formats=("hub",))
    with pytest.raises(FileNotFoundError, match="trained first: zeroshot-nas train"):
        zs.export_network(tmp_path, formats=("hub",))
    with pytest.raises(TypeError, match="got Architecture; an architecture is trained first"):
        zs.export_network(architecture, tmp_path, formats=("hub",))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    with pytest.raises(ExportError, match="a module of your own has no architecture"):
        zs.export_network(module, tmp_path, formats=("hub",), input_size=(1, 8, 8))
    assert not (tmp_path / "hub").exists()


class FakeApi:
    """What huggingface_hub's client is asked for; nothing is sent."""

    calls: ClassVar[list] = []

    def __init__(self, token=None):
        self.calls.append(("token", token))

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("create", repo_id, private, exist_ok))

    def upload_folder(self, *, folder_path, repo_id, commit_message, allow_patterns):
        self.calls.append(("upload", folder_path, repo_id, commit_message, sorted(allow_patterns)))
        return types.SimpleNamespace(commit_url=f"https://example.org/{repo_id}/commit/1")


def test_a_folder_is_pushed_by_the_hubs_own_client(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=FakeApi))
    FakeApi.calls.clear()
    assert zs.push_to_hub(hub, "me/digits", private=True, token="secret") == "https://example.org/me/digits/commit/1"
    assert FakeApi.calls == [
        ("token", "secret"),
        ("create", "me/digits", True, True),
        ("upload", hub, "me/digits", "A network of zeroshot-nas", FILES),
    ]
    FakeApi.calls.clear()
    weights = (hub / "model.safetensors").read_bytes()
    (hub / "model.safetensors").write_bytes(weights[:-3])
    with pytest.raises(FileFormatError):
        zs.push_to_hub(hub, "me/digits")
    (hub / "model.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.py is not there; expected a folder of `export --format hub`"):
        zs.push_to_hub(str(hub), "me/digits")
    assert FakeApi.calls == []


def test_the_client_is_an_extra(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"huggingface_hub .*zeroshot-nas\[hub\]"):
        zs.push_to_hub(hub, "me/digits")
