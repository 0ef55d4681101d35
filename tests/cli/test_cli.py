"""The command line as a user meets it: in a process of its own where exit codes and streams matter."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import termios
import time
import warnings

import pytest
import torch
from PIL import Image

import zeroshot_nas as zs
from zeroshot_nas.costs.base import COSTS
from zeroshot_nas.export.base import FORMATS, list_export_formats
from zeroshot_nas.latency.base import BACKENDS

NET = "SuperConvK3BNRELU(1,8,1,1)SuperResK3K3(8,16,2,8,1)"
SMALL_SEARCH = [
    *("search", "--input", "1x8x8", "--max-params", "20k", "--max-layers", "6"),
    *("--repeats", "1", "--finalists", "5", "--quiet"),
]


@pytest.mark.parametrize("group", [(), ("runs",), ("latency",)])
def test_a_group_without_a_command_prints_its_help_alone_and_exits_with_0(run, group):
    helped = run(*group, "--help")
    assert helped[0] == 0
    assert run(*group) == (0, helped[1], "")


def test_the_help_says_of_every_command_its_first_paragraph_in_full(run):
    text = " ".join(run("--help")[1].split())
    assert "search Search a space for the best network within a budget; trains nothing." in text
    for line in run("--help")[1].splitlines():
        assert len(line) <= 80
        assert not line.endswith("...") or line.startswith("Usage: ")


def test_cost_of_a_string(run):
    code, out, err = run("cost", NET, "--input", "1x8x8", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == zs.cost(zs.Architecture.from_string(NET, (1, 8, 8))).to_dict()
    assert "FLOPs (multiply-adds)" in run("cost", NET, "--input", "1x8x8")[1]


def test_score_of_a_string_equals_the_api(run):
    code, out, _ = run("score", NET, "--input", "1x8x8", "--proxy", "zen,zen:variant=zennas", "--json")
    scores = zs.score(zs.Architecture.from_string(NET, (1, 8, 8)), ["zen", "zen:variant=zennas"])
    assert code == 0
    assert {key: value["value"] for key, value in json.loads(out).items()} == {
        key: score.value for key, score in scores.items()
    }


@pytest.mark.slow
def test_search_then_score_cost_and_train_what_it_wrote(run, tmp_path):
    out = tmp_path / "run"
    code, text, err = run(*SMALL_SEARCH, "--proposals", 12, "--seed", 3, "--out", out)
    assert (code, err) == (0, "")
    result = zs.SearchResult.from_json((out / "result.json").read_text())
    assert result.counts.proposed == 12
    assert result.best.architecture.to_string() in text
    best = json.loads((out / "best.json").read_text())
    assert zs.Architecture.from_dict(best["architecture"]) == result.best.architecture

    assert json.loads(run("cost", out / "best.json", "--json")[1]) == result.best.costs.to_dict()
    scores = json.loads(run("score", out / "best.json", "--proxy", "zen", "--repeats", 2, "--json")[1])
    assert scores["zen"]["value"] == zs.score(result.best.architecture, "zen", repeats=2).value

    code, text, _ = run("train", out / "best.json", "--epochs", 1, "--out", out / "trained", "--quiet")
    assert code == 0
    assert "test accuracy" in text
    assert zs.load(out / "trained").architecture == result.best.architecture

    for command in (
        [*SMALL_SEARCH, "--proposals", 2, "--out", out],
        ["train", out / "best.json", "--out", out / "trained"],
    ):
        code, _, err = run(*command)
        assert code == 2
        assert "--force" in err or "force" in err
    assert zs.SearchResult.from_json((out / "result.json").read_text()) == result
    assert run(*SMALL_SEARCH, "--proposals", 2, "--out", out, "--force")[0] == 0


def test_a_screened_and_an_unscreened_search_with_shape_bounds(run, tmp_path):
    bounds = ["--monotone-widths", "--max-bottleneck-ratio", "4", "--max-depth-to-width", "0.9"]
    for screen, expected in (([], "closed_form"), (["--no-screen"], None)):
        out = tmp_path / str(expected)
        assert run(*SMALL_SEARCH, "--proxy", "zen", *bounds, *screen, "--proposals", 40, "--out", out)[0] == 0
        result = zs.SearchResult.from_json((out / "result.json").read_text())
        assert result.settings["screen"] == expected
        assert result.settings["budget"]["structure"] == {
            "depth_to_width": 0.9,
            "monotone_widths": True,
            "bottleneck_ratio": 4.0,
        }
        assert not zs.StructureBounds(0.9, True, 4).violations(result.best.architecture)


def test_a_space_takes_its_options(run, tmp_path):
    options = [
        "--space",
        "resnet",
        "--space-option",
        "width_step=2",
        "--space-option",
        "max_width=14",
        "--out",
        tmp_path,
    ]
    code, out, err = run(*SMALL_SEARCH, "--proposals", 200, *options)
    assert code == 0, err
    best = zs.SearchResult.from_json((tmp_path / "result.json").read_text()).best.architecture
    assert best in zs.get_space("resnet", input_size=best.input_size, width_step=2, max_width=14)
    assert best not in zs.get_space("resnet", input_size=best.input_size)
    assert best.to_string() in out
    code, _, err = run("search", "--resume", tmp_path, "--space-option", "width_step=4")
    assert code == 2
    assert "space_options: " in err
    assert "'width_step': 2" in err.partition(" in the run, ")[0]
    assert "'width_step': 4" in err.partition(" in the run, ")[2]


def test_a_search_without_a_limit_on_depth_warns_on_one_line(run):
    with warnings.catch_warnings():  # the command line shows warnings its own way
        warnings.simplefilter("default")
        code, _, err = run(
            *("search", "--proxy", "zen", "--input", "1x8x8", "--max-params", "20k"),
            *("--proposals", 5, "--repeats", 1, "--quiet"),
        )
    assert code == 0
    assert err.startswith("warning: zen grows without limit in depth")
    assert err.count("\n") == 1


def test_a_search_ranks_by_ceres_unless_told_otherwise_and_needs_no_limit_on_depth(run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = ("--input", "1x8x8", "--max-params", "20k", "--proposals", 20, "--quiet", "--out", tmp_path / "run")
        assert run("search", *options)[0] == 0
    result = zs.SearchResult.from_json((tmp_path / "run" / "result.json").read_text())
    assert list(result.best.scores) == ["ceres:images=10000:steps=1250"]


def test_list_names_what_is_registered(run):
    names = json.loads(run("list", "--json")[1])
    assert names["proxies"] == zs.list_proxies()
    assert names["spaces"] == zs.list_spaces()
    assert "SuperResK1K7K1" in names["blocks"]


def test_text_files_and_architecture_files_are_read(run, tmp_path):
    architecture = zs.Architecture.from_string(NET, (1, 8, 8))
    (tmp_path / "net.txt").write_text(NET + "\n")
    (tmp_path / "net.json").write_text(architecture.to_json())
    for name in ("net.txt", "net.json"):
        assert (
            json.loads(run("cost", tmp_path / name, "--input", "1x8x8", "--json")[1]) == zs.cost(architecture).to_dict()
        )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["cost", "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(9,16,2,8,1)"],
            "gives 8, but SuperResK3K3 at position 26 takes 9",
        ),
        (["cost", "SuperConvK3BNRELU(3,8,1,x)"], "position 18: expected whole numbers, got 'x'"),
        (["cost", "SuperConvK3BNRELU(3,8,1,1"], "position 0"),
        (["cost", "SuperKonvK3BNRELU(3,8,1,1)"], "Did you mean 'SuperConvK3BNRELU'"),
        (["cost", "missing.json"], "neither a file nor a PlainNet string"),
        (["cost", NET, "--input", "3x32"], "CxHxW"),
        (["score", NET, "--proxy", "zem", "--input", "1x8x8"], "Did you mean 'zen'"),
        (["score", NET, "--proxy", "zen:varaint=zennas", "--input", "1x8x8"], "Did you mean 'variant'"),
        (
            [
                "score",
                "SuperConvK3BNRELU(3,10000000,1,1)SuperResK3K3(10000000,10000000,1,10000000,1)",
                "--proxy",
                "zen",
            ],
            "are not built",
        ),
        (["score", NET, "--input", "1x8x8", "--repeats", "0"], "repeats must be"),
        (["score", NET, "--input", "1x8x8", "--seed", "-1"], "seed is an integer of 0 or more"),
        (["search", "--space", "resnet", "--max-params", "1k"], "the smallest has 5,458 params; the budget is 1,000"),
        (["search", "--max-params", "lots"], "a number with an optional k, M or G"),
        (["search", "--max-params", "0"], "must be a number above 0"),
        (["search", "--space", "resnets"], "Did you mean 'resnet'"),
        (["search", "--space-option", "width_stpe=4"], "Did you mean 'width_step'"),
        (["search", "--space-option", "width_step"], "an option is name=value, got 'width_step'"),
        (["search", "--space-option", "width_step=0"], "width_step must be a whole number of 1 or more, got 0"),
        (["search", "--classes", "0"], "whole numbers of 1 or more"),
        (["train", NET, "--input", "1x8x8", "--data", "digit"], "Did you mean 'digits'"),
        (["train", NET, "--input", "1x8x8", "--classes", "3"], "3"),
        (["sreach"], "Did you mean 'search'"),
        (["cost"], "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, expected):
    code, out, err = run(*arguments)
    assert code == 2
    assert expected in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{", b"[]", b"{}", b'{"architecture": 3}', b"[" * 100_000, b""])
def test_damaged_files_are_one_line_and_exit_code_2(run, tmp_path, content):
    path = tmp_path / "best.json"
    path.write_bytes(content)
    code, _, err = run("cost", path)
    assert code == 2
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "--debug" not in err, "an error that was not foreseen"


def test_debug_shows_the_traceback(run):
    _, _, err = run("cost", "missing.json", "--debug")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_cost_needs_no_torch():
    script = (
        f"import sys; sys.argv = ['zeroshot-nas', 'cost', {NET!r}, '--input', '1x8x8']\n"
        "from zeroshot_nas import cli\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_leaves_a_valid_result(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "zeroshot_nas", *SMALL_SEARCH, "--proposals", "100000000", "--out", str(out)]
    command.remove("--quiet")
    terminal, slave = os.openpty()  # bars are for people
    termios.tcsetwinsize(slave, (24, 120))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        try:
            seen = _read_until_scoring(terminal)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # its end
                while more := os.read(terminal, 1_000):
                    seen += more.decode(errors="replace")
            text, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    os.close(terminal)
    assert process.returncode == 130
    assert "Traceback" not in seen
    assert "interrupted" in text
    result = zs.SearchResult.from_json((out / "result.json").read_text())
    assert result.state == "interrupted"
    assert 0 < len(result.history) <= 5


def _read_until_scoring(terminal):
    """Reads the bar until it shows a best score."""
    seen, deadline = "", time.monotonic() + 60
    while "best " not in seen or "none yet" in seen.rsplit("best ", 1)[-1][:8]:
        assert time.monotonic() < deadline, seen
        seen += os.read(terminal, 1).decode(errors="replace")
    return seen


@pytest.mark.slow
def test_without_a_terminal_no_bar_fills_a_log(tmp_path):
    command = [sys.executable, "-m", "zeroshot_nas", *SMALL_SEARCH, "--proposals", "30", "--out", str(tmp_path / "run")]
    command.remove("--quiet")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""


@pytest.mark.slow
def test_cet_is_explained(run, tmp_path):
    score = zs.score(zs.Architecture.from_string(NET, (1, 8, 8)), "cet")
    code, out, _ = run("score", NET, "--input", "1x8x8", "--proxy", "cet")
    assert code == 0
    assert out.count("\n") == 1  # its parts are said where they are asked for
    code, out, _ = run("score", NET, "--input", "1x8x8", "--proxy", "cet", "--explain", "--plot", tmp_path / "net.svg")
    assert code == 0
    assert f"  W     {score.details['W']:,.6g}" in out
    assert "3x3 8->8 /2" in out
    assert (tmp_path / "net.svg").stat().st_size > 1000
    found = json.loads(run("score", NET, "--input", "1x8x8", "--proxy", "cet", "--explain", "--json")[1])["cet"]
    assert found["details"] == dict(score.details)
    assert sum(row["effective_weights"] for row in found["layers"]) == pytest.approx(score.details["W"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proxy", "zen", "--explain"], "use --proxy cet"),
        (["--proxy", "cet,zen", "--explain"], "use --proxy cet"),
        (["--proxy", "cet", "--plot", "net.png"], "give both"),
        (["--proxy", "cet", "--explain", "--plot", "net.pdf"], ".png or .svg"),
    ],
)
def test_what_is_not_explained(run, arguments, message):
    code, _, err = run("score", NET, "--input", "1x8x8", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("4ms", 4.0), ("0.5ms", 0.5), (".5 ms", 0.5), ("1s", 1_000.0), ("300us", 0.3), ("2MS", 2.0)],
)
def test_latencies_are_read_with_their_unit(text, milliseconds):
    assert COSTS["latency_ms"].parse(text) == pytest.approx(milliseconds)


@pytest.mark.parametrize("text", ["4", "ms", "-1ms", "1m", "1e3ms", "nan ms", ""])
def test_a_latency_without_a_number_or_unit_is_one_line(run, text):
    code, out, err = run("search", "--max-latency", text, "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("error: Invalid value: --max-latency must be a number with us, ms or s")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default::zeroshot_nas.errors.LatencyWarning")
@pytest.mark.parametrize("backend", ["torch", "onnxruntime_int8"])
def test_calibrate_search_and_measure(run, tmp_path, monkeypatch, backend):
    monkeypatch.setenv("ZEROSHOT_NAS_TABLES", str(tmp_path / "tables"))
    options = ("--space", "resnet", "--input", "3x8x8", "--backend", backend, "--quiet")
    search = ("search", *options, "--max-latency", "1s", "--max-layers", "6", "--proposals", "60", "--finalists", "3")
    code, _, err = run(*search)
    assert code == 2
    assert f"zeroshot-nas latency calibrate --backend {backend} --space resnet --input 3x8x8" in err
    code, out, _ = run("latency", "calibrate", *options, "--networks", "8", "--max-flops", "300k")
    assert code == 0
    assert "measured in 8 networks" in out
    code, _, err = run("latency", "calibrate", *options)
    assert code == 2
    assert "--force" in err
    code, out, err = run(*search, "--repeats", "1", "--out", tmp_path / "run")
    assert code == 0
    assert f"ms measured on {backend}" in out
    assert "the budget is 1000 ms" in out
    assert "are extrapolated" in err
    result = zs.SearchResult.from_json((tmp_path / "run" / "result.json").read_text())
    assert result.latency["measured_ms"] <= 1_000
    code, out, _ = run(
        *("latency", "measure", tmp_path / "run" / "best.json", "--backend", f"{backend},onnxruntime"),
        *("--seconds", "0.01", "--json"),
    )
    assert code == 0
    assert [each["backend"] for each in json.loads(out)] == [backend, "onnxruntime"]
    assert [each["dtype"] for each in json.loads(out)] == [BACKENDS[backend].dtype, "float32"]
    for option in ("--batch-size", "--batch"):  # the second is the name of earlier releases
        measured = run("latency", "measure", NET, "--input", "1x8x8", "--seconds", "0.01", option, 3, "--json")[1]
        assert json.loads(measured)[0]["batch_size"] == 3


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with one network in every format."""
    folder = tmp_path_factory.mktemp("exported")
    network = zs.build(zs.Architecture.from_string(NET, (1, 8, 8), num_classes=3))
    noise, labels = torch.rand(18, 1, 8, 8), torch.arange(18) % 3
    data = zs.ImageData(noise, labels, noise, labels, ("ant", "bee", "cat"), "noise")
    zs.export_network(network, folder, formats=list_export_formats(), data=data)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", list_export_formats())
def test_an_exported_file_is_used_and_timed_or_refused_in_a_line(run, tmp_path, exported, name):
    Image.new("L", (12, 9), 90).save(tmp_path / "a.png")
    file = exported / FORMATS[name].file
    code, out, err = run("predict", file, tmp_path / "a.png", "--json")
    timed, shown, said = run("latency", "measure", file, "--seconds", "0.01", "--json")
    if file.suffix == ".onnx":
        assert (code, err) == (timed, said) == (0, "")
        assert set(json.loads(out)[str(tmp_path / "a.png")]) == {"ant", "bee", "cat"}
        (record,) = json.loads(shown)
        assert (record["backend"], record["dtype"]) == ("onnxruntime", "int8" if "int8" in name else "float32")
        code, _, err = run("latency", "measure", file, "--backend", "onnxruntime_int8")
        assert (code, err.count("\n"), "takes no files" in err) == (2, 1, True)
        code, _, err = run("latency", "measure", file, "--input", "3x8x8")
        assert (code, err.count("\n"), "takes images (1, 8, 8), got input_size (3, 8, 8)" in err) == (2, 1, True)
    elif name == "hub":
        assert (code, err) == (timed, said) == (0, "")
        assert set(json.loads(out)[str(tmp_path / "a.png")]) == {"ant", "bee", "cat"}
        assert json.loads(run("cost", file, "--json")[1])["params"] == zs.cost(zs.load(file).architecture).params
    else:
        for lines in (err, said):
            assert (code, timed, lines.count("\n"), ".onnx" in lines) == (2, 2, 1, True)


@pytest.mark.parametrize("command", [("predict", "gone.onnx", "a.png"), ("latency", "measure", "gone.onnx")])
def test_a_file_that_is_not_there_is_one_line(run, command):
    code, _, err = run(*command)
    assert (code, err) == (2, "error: gone.onnx is not there; expected an exported .onnx file\n")


@pytest.mark.filterwarnings("default::zeroshot_nas.errors.LatencyWarning")
def test_a_device_of_hw_nas_bench_is_named_behind_its_table(run, tmp_path):
    rows = [f"{index},{1 + index % 5},3" for index in range(15_625)]
    file = tmp_path / "hardware.csv"
    file.write_text("\n".join(["index,c10_edgegpu_latency,c10_raspi4_latency", *rows]))
    search = ("search", "--space", "nasbench201", "--proxy", "flops", "--proposals", "200", "--quiet")
    code, out, err = run(*search, "--max-latency", "2ms", "--device-table", f"{file}:edgegpu")
    assert code == 0
    assert "ms predicted for NVIDIA Jetson TX2" in out
    assert "is predicted, not measured" in err
    code, _, err = run(*search, "--max-latency", "2ms", "--device-table", f"{file}:raspi4")
    assert (code, err.count("\n")) == (2, 1)
    assert "the smallest has 3 latency_ms" in err
    code, _, err = run(*search, "--max-latency", "2ms", "--device-table", f"{file}:raspi")
    assert (code, err.count("\n")) == (2, 1)
    assert "Did you mean 'raspi4'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("latency", "measure", "none.json"), "neither a file nor a PlainNet string"),
        (("latency", "measure", NET, "--input", "1x8x8", "--backend", "torhc"), "Did you mean 'torch'"),
        (("latency", "measure", NET, "--input", "1x8x8", "--threads", "0"), "threads must be a whole number"),
        (("search", "--max-latency", "1ms", "--backend", "torhc"), "Did you mean 'torch'"),
        (("search", "--device-table", "none.json"), "a device table needs a limit on latency"),
        (("search", "--max-latency", "1ms", "--device-table", "none.json"), "can't be read as a device table"),
        (("search", "--max-latency", "1ms", "--device-table", "none.csv:raspi4"), "no such benchmark file: 'none.csv'"),
        (("latency", "calibrate", "--max-flops", "10"), "max_flops must be at least"),
        (("latency", "calibrate", "--threads", "0"), "threads must be a whole number of 1 or more"),
        (("latency", "calibrate", "--networks", "7"), "networks must be a whole number of 8 or more"),
    ],
)
def test_what_is_wrong_with_latency_is_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("ZEROSHOT_NAS_TABLES", str(tmp_path))
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_files_name_may_hold_a_parenthesis_and_its_text_a_mark(run, tmp_path):
    architecture = zs.Architecture.from_string(NET, (1, 8, 8))
    (tmp_path / "run (1)").mkdir()
    for name, text in (("net.json", architecture.to_json()), ("net.txt", NET)):
        for mark in ("", "\ufeff"):
            (tmp_path / "run (1)" / name).write_text(mark + text, encoding="utf-8")
            code, out, err = run("cost", tmp_path / "run (1)" / name, "--input", "1x8x8", "--json")
            assert (code, err) == (0, "")
            assert json.loads(out) == zs.cost(architecture).to_dict()
    code, _, err = run("cost", "SuperConvK3BNRELU(3,8,1,1)" * 400)
    assert (code, "channels do not match" in err) == (2, True)


@pytest.mark.parametrize("key", ["num_classes", "type", "blocks"])
def test_a_key_twice_in_an_architecture_is_told(run, tmp_path, key):
    text = zs.Architecture.from_string(NET, (1, 8, 8)).to_json()
    (tmp_path / "net.json").write_text(text.replace(f'"{key}":', f'"{key}": 1, "{key}":', 1))
    code, _, err = run("cost", tmp_path / "net.json")
    assert (code, f"the key '{key}' occurs twice" in err) == (2, True)


@pytest.mark.slow
def test_names_of_files_can_not_reach_the_terminal(run, tmp_path):
    name = "\x1b]0;owned\x07\nclean $ \u202e"
    (tmp_path / "table.csv").write_text(
        "#zeroshot_nas.table "
        + json.dumps({"name": name, "space": "nasbench201", "dataset": name, "code": "op_code", "source": name})
        + "\narch,accuracy\n421211,1\n333333,2\n303101,3\n"
    )
    small = (
        "--executor",
        "serial",
        "--input",
        "3x8x8",
        "--classes",
        "3",
        "--space-option",
        "num_cells=1",
        "--space-option",
        "channels=4",
    )
    out = tmp_path / "run"
    code, shown, err = run(
        "correlate", "--benchmark", tmp_path / "table.csv", "--proxies", "params", *small, "--out", out
    )
    assert code == 0, err
    for text in (shown, (out / "report.md").read_text(), run("runs", "show", out)[1]):
        assert all(line.isprintable() for line in text.splitlines())
        assert r"\x1b]0;owned\x07" in text
    code, _, err = run("cost", tmp_path / "\x1b[31m.json")
    assert (code, r"\x1b[31m" in err, err.strip().isprintable()) == (2, True, True)


@pytest.mark.slow
def test_a_training_without_a_folder_keeps_its_weights_in_one_of_its_own(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["train", NET, "--input", "1x8x8", "--recipe", "quick", "--epochs", 1, "--batch-size", 256, "--quiet"]
    code, out, err = run(*options)
    assert (code, err) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("train-digits-")
    assert f"runs/{folder.name}/best.safetensors" in out
    assert "95 % interval" in out
    code, _, err = run(*options)
    assert (code, "already holds a run" in err) == (2, True)
    code, again, _ = run(*options, "--resume")
    assert (code, again.partition("time")[0]) == (0, out.partition("time")[0])
    assert run(*options, "--seed", 1)[0] == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.slow
def test_predictions_of_a_folder_and_class_names_that_a_terminal_would_obey(run, tmp_path):
    images = torch.rand(8, 1, 8, 8)
    labels = torch.arange(8) % 2
    data = zs.ImageData(images, labels, images, labels, ("cat\x1b[31m\n", "dog"), "pets")
    architecture = zs.Architecture.from_string(NET, (1, 8, 8), num_classes=2)
    zs.train(
        architecture,
        data,
        zs.Recipe(epochs=1, batch_size=4, validation_fraction=0),
        out=tmp_path / "run",
        progress=False,
    )
    for name in ("a.png", "b.pgm", ".hidden.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("L", (12, 9), 90).save(tmp_path / "photos" / name)
    code, out, err = run("predict", tmp_path / "run", tmp_path / "photos")
    assert (code, err, len(out.splitlines())) == (0, "", 2)
    assert r"cat\x1b[31m\n" in out
    assert "\x1b" not in out
    assert run("export", tmp_path / "run")[0] == 0
    assert run("predict", tmp_path / "run" / "model.onnx", tmp_path / "photos") == (0, out, "")
    said = json.loads(run("predict", tmp_path / "run", tmp_path / "photos", "--json", "--top", 1)[1])
    assert list(said) == [str(tmp_path / "photos" / name) for name in ("a.png", "b.pgm")]
    code, _, err = run("predict", tmp_path / "run", tmp_path / "gone.png")
    assert (code, err) == (2, f"error: {tmp_path / 'gone.png'} is not there; expected an image file\n")
    code, _, err = run("export", tmp_path / "nowhere")
    assert (code, "[Errno" in err) == (2, False)


@pytest.mark.slow
def test_search_prints_what_is_proved(run):
    small = (
        "--space",
        "resnet",
        "--input",
        "3x8x8",
        "--space-option",
        "max_width=16",
        "--max-params",
        "20k",
        "--max-layers",
        "4",
        "--quiet",
    )
    code, out, _ = run("search", "--searcher", "exact", "--proxy", "zen_closed_form", *small)
    assert code == 0
    assert "is the optimum of zen_closed_form within the budget, gap 0" in out
    assert "blocks evaluated" in out
    code, out, _ = run("search", "--proposals", "50", "--finalists", "2", *small)
    assert code == 0
    assert "no network within the budget has ceres:images=10000:steps=1250 beyond" in out
