"""What holds for every command: JSON alone where it is asked for, one name for one thing, panels, completion."""

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import typer
from PIL import Image

import zeroshot_nas as zs
from zeroshot_nas.cli import app
from zeroshot_nas.cli.completion import SHELLS
from zeroshot_nas.cli.help import PANELS, panel_of

NET = "SuperConvK3BNRELU(1,16,2,1)SuperResK3K3(16,32,2,16,1)"
CELLS = (
    "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
)


def walk(command, name=""):
    for below, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, f"{name} {below}".strip())
    if not hasattr(command, "commands"):
        yield name, command


COMMANDS = dict(walk(typer.main.get_command(app)))

CALLS = {
    "search": "--input 1x8x8 --max-params 20k --max-layers 6 --proposals 40 --proxy cet --objectives cet,flops",
    "correlate": "--table {table} --arch-column cell --accuracy-column top1 --space nasbench201 --dataset cifar10 "
    "--proxies params,cet --executor serial",
    "convert": "{table} --out {new}/c.csv --table-option arch_column=cell --table-option accuracy_column=top1 "
    "--table-option space=nasbench201 --dataset cifar10",
    "score": "{net} --input 1x8x8 --proxy zen,cet",
    "cost": "{net} --input 1x8x8",
    "scale": "{net} --input 1x8x8 --phi 1,2 --factors width --out {new}/s",
    "family": "--space vanilla --input 1x8x8 --max-params 4k,2k --proposals 60 --nested --out {new}/f",
    "train-family": "{family} --epochs 1 --batch-size 512 --out {new}/tf",
    "train": "{net} --input 1x8x8 --epochs 1 --batch-size 512 --out {new}/t",
    "qat": "{trained} --epochs 1 --batch-size 512 --out {new}/q",
    "prune": "{trained} --max-params 3k --epochs 1 --batch-size 512 --out {new}/p",
    "export": "{trained} --out {new}/e",
    "predict": "{trained} {image}",
    "compare": "{net} --input 1x8x8 --epochs 1 --batch-size 512 --seeds 1 --with resnet8 --backend torch --published "
    "--out {new}/c",
    "resume": "{trained}",
    "report": "{searched} --out {new}/r.html",
    "list": "",
    "latency calibrate": "--input 1x8x8 --backend torch --networks 8 --max-flops 300k --out {new}/table.json",
    "latency measure": "{net} --input 1x8x8 --backend torch --seconds 0.01",
    "runs list": "{searched}",
    "runs show": "{searched}",
    "runs best": "{searched}",
    "runs plot": "{searched} --out {new}/p.png",
    "runs export": "{searched}",
    "runs recover": "{searched} --out {new}/r",
}
"""A call of every command, which ends well."""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What the calls need."""
    folder = tmp_path_factory.mktemp("contract")
    names = ("searched", "trained", "new")
    places = {name: folder / name for name in names} | {"table": folder / "t.csv", "image": folder / "i.png"}
    places["net"], places["family"] = NET, folder / "family"
    budgets = [zs.Budget(params=4e3), zs.Budget(params=2e3)]
    how = {"input_size": (1, 8, 8), "nested": True, "proposals": 60, "progress": False}
    zs.family("vanilla", "ceres", budgets, **how, out=places["family"])
    zs.search(
        "resnet",
        "cet",
        zs.Budget(params=2e4, layers=6),
        proposals=40,
        input_size=(1, 8, 8),
        progress=False,
        out=places["searched"],
    )
    net, recipe = zs.Architecture.from_string(NET, (1, 8, 8)), zs.Recipe(epochs=1, batch_size=512)
    zs.train(net, "digits", recipe, progress=False, out=places["trained"])
    cells = [*CELLS, zs.get_space("nasbench201").to_string(zs.get_space("nasbench201").initial())]
    places["table"].write_text("cell,top1\n" + "".join(f"{cell},{80 + place}\n" for place, cell in enumerate(cells)))
    Image.new("L", (8, 8)).save(places["image"])
    return places


def test_every_command_has_its_call():
    assert set(CALLS) == set(COMMANDS)


@pytest.mark.slow
@pytest.mark.filterwarnings("default::zeroshot_nas.errors.LatencyWarning")  # where the machine is busy
@pytest.mark.parametrize("command", COMMANDS)
def test_with_json_a_command_prints_one_document_and_nothing_else(run, places, command, monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROSHOT_NAS_TABLES", str(tmp_path))
    places["new"] = tmp_path
    code, out, err = run(*command.split(), *CALLS[command].format(**places).split(), "--json")
    assert code == 0, err

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    assert json.loads(out, parse_constant=refuse) not in ({}, [], None)
    assert not [line for line in err.splitlines() if not line.startswith(("warning: ", "2 networks"))]


@pytest.mark.slow
def test_a_failure_prints_nothing_on_the_standard_output(run, tmp_path):
    for command in COMMANDS:
        code, out, err = run(*command.split(), "--nonsense", "--json")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
    code, out, err = run("runs", "list", tmp_path / "NOPE", "--json")
    assert (code, out) == (2, "")
    assert "is no folder" in err


def test_the_same_thing_has_the_same_name_and_help_everywhere():
    """Of options that several commands have: one spelling a parameter, and as many helps as there are meanings."""
    spellings, helps = defaultdict(set), defaultdict(set)
    for command in COMMANDS.values():
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                spellings[parameter.name].add(tuple(sorted(parameter.opts)))
                helps[parameter.name].add(parameter.help)
    assert {name: each for name, each in spellings.items() if len(each) > 1}.keys() <= {
        "proxy",  # one here, several there
        "batch_size",  # earlier releases called it --batch where a run's images are meant
    }
    several = {
        "benchmark",
        "dataset",
        "max_flops",  # a limit of what is found, of what is measured
        "out",  # a folder here, a file there
        "batch_size",  # images of a score, of a training's step, of a timed run
        "space",  # to search in, whose strings are read
        "backend",
        "resume",  # a search's takes what is not given from the run
        "force",
        "proxy",
        "data",
        "recipe",
        "device_table",  # of this machine where none is given, or what a limit needs
        "searcher",  # with objectives, without
        "power_of_two",  # a file of such scales, a training by them
        "image",
        "classes",
        "threads",
        "seed",
        "as_json",
    }
    assert {name for name, each in helps.items() if len(each) > 1} <= several


def test_options_stand_in_panels(run):
    out = run("search", "--help")[1]
    places = [out.index(f"\n{panel}:\n") for panel in PANELS if f"\n{panel}:\n" in out]
    assert places == sorted(places)
    assert len(places) == 7
    assert "\nOptions:\n  --help" in out
    for command in COMMANDS.values():
        options = [each for each in command.params if each.param_type_name == "option"]
        if len(options) > 12:
            assert {each.name for each in options if panel_of(each.name) == "Options"} <= {"help"}
    assert "\nOptions:\n  --top" in run("predict", "--help")[1]


PROGRAM = str(Path(sys.executable).parent / "zeroshot-nas")
ASKED = {
    ("search", "--space", "nas"): {"nasbench101", "nasbench201", "nasbench301", "nasbench_macro"},
    ("correlate", "--proxies", "zen,nasw"): {"zen,naswot"},
    ("train", "best.json", "--recipe", "sta"): {"standard"},
    ("list", "rec"): {"recipes"},
    ("runs", "be"): {"best"},
    ("compare", "x", "--with", "resnet8,all"): {"resnet8,all_cnn"},
}


@pytest.mark.slow
@pytest.mark.parametrize("words", ASKED)
@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_names(shell, words, tmp_path):
    """In the shell itself, where it is there."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = subprocess.run([PROGRAM, "--show-completion", shell], capture_output=True, text=True, check=True).stdout
    line = " ".join(["zeroshot-nas", *words])
    asks = {
        "bash": f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}\n_zeroshot_nas_completion zeroshot-nas\n"
        'printf "%s\\n" "${COMPREPLY[@]}"',
        "zsh": f"compdef() {{ :; }}\n_arguments() {{ print -l ${{=${{1//[^a-z0-9_,]/ }}}}; }}\n{script}\n"
        f"words=({line}); CURRENT={len(words) + 1}; _zeroshot_nas_completion",
        "fish": f"{script}\ncomplete -C '{line}' | cut -f 1",
    }
    file = tmp_path / "ask"
    file.write_text(asks[shell])
    environment = {**os.environ, "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
    done = subprocess.run([shell, str(file)], capture_output=True, text=True, env=environment, timeout=120, check=False)
    found = set(done.stdout.split())
    assert found == ASKED[words] or (shell == "zsh" and found > ASKED[words]), done.stderr  # with what they are


def test_completion_is_for_shells_that_are_known(run):
    code, out, err = run("--show-completion", "tcsh")
    assert (code, out) == (2, "")
    assert "bash, zsh, fish" in err
