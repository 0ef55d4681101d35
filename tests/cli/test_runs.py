"""Runs on the command line: resume, a look inside, recovery; correlation and the look-up of a winner."""

import csv
import io
import json
import re

import pytest

import zeroshot_nas as zs
from zeroshot_nas.runs import evaluate as evaluating

SEARCH = [
    *("search", "--input", "1x8x8", "--max-params", "20k", "--max-layers", "6", "--proposals", "300"),
    *("--repeats", "1", "--finalists", "6", "--quiet"),
]
CELLS = {
    "|none~0|+|none~0|nor_conv_3x3~1|+|nor_conv_3x3~0|skip_connect~1|nor_conv_1x1~2|": 88.5,
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|": 94.37,
    "|nor_conv_1x1~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|none~1|none~2|": 80.25,
    "|skip_connect~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|none~2|": 60.0,
}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("cell,top1\n" + "".join(f"{cell},{accuracy}\n" for cell, accuracy in CELLS.items()))
    return path


def test_legs_of_islands_are_one_event_of_a_run(run, tmp_path):
    run(*SEARCH, "--islands", 2, "--exchanges", 3, "--proxy", "cet", "--out", tmp_path)
    (islands,) = (line.split() for line in run("runs", "show", tmp_path)[1].splitlines() if "island," in line)
    assert islands[1:5] == ["island,", "8", "times", "until"]
    shown = json.loads(run("runs", "show", tmp_path, "--json")[1])
    assert [kind for _, kind in shown["journal"]].count("island") == 8


def die_at_the_fourth(monkeypatch):
    """The process ends when the fourth scores are to be computed."""
    calls = []

    def dying(jobs):
        calls.append(jobs)
        if len(calls) == 4:
            raise SystemExit(9)
        return compute(jobs)

    compute = evaluating.compute
    monkeypatch.setattr(evaluating, "compute", dying)


@pytest.mark.slow
def test_a_run_that_died_is_resumed_by_its_folder_alone(run, tmp_path, monkeypatch):
    run(*SEARCH, "--proxy", "zen", "--out", tmp_path / "whole")
    die_at_the_fourth(monkeypatch)
    assert run(*SEARCH, "--proxy", "zen", "--out", tmp_path / "run")[0] == 9
    assert "unfinished" in run("runs", "list", tmp_path)[1]
    assert json.loads(run("runs", "best", tmp_path / "run", "--json")[1])["score"]["state"] == "ok"
    monkeypatch.undo()
    code, _, err = run("search", "--resume", tmp_path / "run", "--quiet")
    assert (code, err) == (0, "")
    results = [zs.SearchResult.from_json((tmp_path / name / "result.json").read_text()) for name in ("whole", "run")]
    assert results[0].best.architecture == results[1].best.architecture
    assert [each.fitness for each in results[0].history] == [each.fitness for each in results[1].history]
    assert results[0].counts == results[1].counts


def test_another_option_on_resume_is_refused_with_the_difference(run, tmp_path):
    run(*SEARCH, "--out", tmp_path / "run")
    code, _, err = run("search", "--resume", tmp_path / "run", "--seed", "4", "--max-params", "20k")
    assert code == 2
    assert "seed: 0 in the run, 4 asked for" in err
    assert "max_params" not in err
    code, _, err = run(*SEARCH, "--out", tmp_path / "run")
    assert code == 2
    assert "go on with it (resume=True, --resume), replace it (force=True, --force)" in err
    assert run(*SEARCH, "--out", tmp_path / "run", "--force")[0] == 0


@pytest.mark.parametrize(
    "wrong", [("--space-option", "width_step=0"), ("--max-params", "lots"), ("--proxy", "zem"), ("--max-params", "50")]
)
def test_a_search_that_cannot_begin_touches_no_folder(run, tmp_path, wrong):
    out = tmp_path / "run"
    assert run(*SEARCH, *wrong, "--out", out)[0] == 2
    assert not out.exists()
    assert run(*SEARCH, "--out", out)[0] == 0
    before = (out / "result.json").read_text()
    assert run(*SEARCH, *wrong, "--out", out, "--force")[0] == 2
    assert (out / "result.json").read_text() == before


@pytest.mark.slow
def test_runs_show_best_and_export(run, tmp_path):
    run(*SEARCH, "--out", tmp_path / "run")
    shown = json.loads(run("runs", "show", tmp_path / "run", "--json")[1])
    assert (shown["kind"], shown["state"], shown["settings"]["seed"]) == ("search", "done", 0)
    assert shown["begun_with"]["versions"]["python"]
    assert "finalists" in run("runs", "show", tmp_path / "run")[1]
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert json.loads(run("runs", "best", tmp_path / "run", "--json")[1])["architecture"] == best["architecture"]
    rows = list(csv.DictReader(io.StringIO(run("runs", "export", tmp_path / "run")[1])))
    assert max(float(row["value"]) for row in rows) == best["fitness"]
    assert zs.Architecture.from_dict(json.loads(rows[0]["architecture"]))
    run("runs", "export", tmp_path / "run", "--format", "json", "--out", tmp_path / "scores.json")
    assert len(json.loads((tmp_path / "scores.json").read_text())) == len(rows)
    assert run("runs", "export", tmp_path / "run", "--format", "xml")[0] == 2


@pytest.mark.slow
def test_a_finished_search_is_drawn(run, tmp_path):
    folder, drawing = tmp_path / "run", tmp_path / "drawing.svg"
    run(*SEARCH, "--proxy", "zen_closed_form", "--out", folder)
    assert run("runs", "plot", folder)[:2] == (0, f"written to  {folder / 'search.png'}\n")
    assert (folder / "search.png").read_bytes().startswith(b"\x89PNG")
    assert run("runs", "plot", folder, "--out", drawing)[:2] == (0, f"written to  {drawing}\n")
    assert "<svg" in drawing.read_text()
    code, _, err = run("runs", "plot", tmp_path)
    assert (code, err.count("\n")) == (2, 1)


def test_a_damaged_run_is_named_and_recovered(run, tmp_path):
    run(*SEARCH, "--out", tmp_path / "run")
    path = tmp_path / "run" / "run.db"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    code, _, err = run("runs", "show", tmp_path / "run")
    assert code == 2
    assert "is damaged" in err
    assert run("runs", "recover", tmp_path / "run", "--out", tmp_path / "saved")[0] == 0
    assert (tmp_path / "saved" / "run.db").exists()
    assert run("runs", "show", tmp_path / "nowhere")[0] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("no_plots")
def test_correlate_with_a_table_of_ones_own(run, table, tmp_path):
    arguments = [
        *(
            "correlate",
            "--table",
            table,
            "--space",
            "nasbench201",
            "--arch-column",
            "cell",
            "--accuracy-column",
            "top1",
        ),
        *("--dataset", "cifar10", "--proxies", "naswot,params", "--space-option", "num_cells=1", "--batch-size", "4"),
        *("--space-option", "channels=4", "--executor", "serial", "--quiet"),
    ]
    code, out, err = run(*arguments, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "| `naswot` |" in out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {each["proxy"] for each in report["proxies"]} >= {"naswot", "params", "flops", "layers"}
    assert (tmp_path / "run" / "scores.csv").exists()
    code, again, _ = run(*arguments, "--out", tmp_path / "run", "--resume")
    assert code == 0
    assert again.splitlines()[:8] == out.splitlines()[:8]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give either --benchmark"),
        (["--table", "none.csv"], "none.csv"),
        (["--benchmark", "nasbench20"], "Did you mean 'nasbench201'"),
        (["--table", "TABLE", "--accuracy-column", "top2"], "top2"),
        (["--table", "TABLE", "--split", "train"], "--split must be test or valid"),
        (["--table", "TABLE", "--space-option", "num_cells"], "an option is name=value"),
        (["--table", "TABLE", "--proxies", "zem"], "Did you mean 'zen'"),
    ],
)
def test_bad_correlations_are_one_line_and_exit_code_2(run, table, arguments, expected):
    given = [table if each == "TABLE" else each for each in arguments]
    columns = ["--space", "nasbench201", "--arch-column", "cell", "--dataset", "cifar10", "--executor", "serial"]
    if "--accuracy-column" not in given:
        columns += ["--accuracy-column", "top1"]
    code, _, err = run("correlate", *given, *(columns if table in given else []))
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


def test_a_winner_is_looked_up(run, table, monkeypatch):
    wanted = zs.get_space("nasbench201").from_string(list(CELLS)[2])
    monkeypatch.setattr(type(zs.get_space("nasbench201")), "initial", lambda self: wanted)
    code, out, _ = run(
        *("search", "--space", "nasbench201", "--proxy", "params", "--proposals", "1", "--quiet"),
        *("--benchmark", table, "--dataset", "cifar10", "--arch-column", "cell", "--accuracy-column", "top1"),
    )
    assert code == 0
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith(("regret", "rank")))
    assert rows["regret"].startswith("14.12 points below the best, 94.37%")
    assert rows["rank"] == "3 of 4"
    assert "80.25%" in out


def test_a_table_is_converted_once_and_read_again(run, tmp_path):
    rows = {"02012100": {"test_acc": [91.0, 92.0, 93.0], "mean_acc": 92.0, "std": 0.8, "params": 5, "flops": 7}}
    (tmp_path / "nas-bench-macro_cifar10.json").write_text(json.dumps(rows))
    code, out, _ = run("convert", tmp_path / "nas-bench-macro_cifar10.json", "--out", tmp_path / "macro.npz")
    assert code == 0
    assert "architectures" in out
    assert zs.load_table(tmp_path / "macro.npz").accuracy_of("02012100") == 92.0
    code, _, err = run("convert", tmp_path / "nas-bench-macro_cifar10.json", "--out", tmp_path / "macro.npz")
    assert code == 2
    assert "overwrite it with --force" in err


def test_a_damaged_run_is_a_line_of_the_list(run, tmp_path):
    run(*SEARCH, "--out", tmp_path / "good")
    for name, content in (("broken", b"no store"), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.db").write_bytes(content)
    code, out, _ = run("runs", "list", tmp_path)
    assert code == 0
    broken, empty, good = out.splitlines()
    assert "damaged: " in broken
    assert "first bytes are not SQLite's" in broken
    assert "unknown, empty, 0 scores" in empty
    assert "search, done" in good
    states = [each["state"] for each in json.loads(run("runs", "list", tmp_path, "--json")[1])]
    assert states == ["damaged", "empty", "done"]
    (tmp_path / "none").mkdir()
    assert run("runs", "list", tmp_path / "none")[:2] == (0, f"no runs in {tmp_path / 'none'}\n")
    assert run("runs", "list", tmp_path / "nowhere")[:2] == (2, "")


def test_recovery_of_no_run_makes_none(run, tmp_path):
    code, _, err = run("runs", "recover", tmp_path / "nowhere", "--out", tmp_path / "saved")
    assert (code, "holds no run" in err) == (2, True)
    assert not (tmp_path / "saved").exists()


@pytest.mark.usefixtures("no_plots")
def test_both_files_of_scores_name_cells_by_the_benchmarks_string(run, tmp_path):
    path = tmp_path / "codes.csv"
    cells = [zs.get_space("nasbench201").from_string(cell) for cell in CELLS]
    codes = [zs.get_space("nasbench201").to_string(cell, "op_code") for cell in cells]
    path.write_text("op_code,top1\n" + "".join(f"{code},{80 + place}\n" for place, code in enumerate(codes)))
    options = (
        "--arch-column",
        "op_code",
        "--accuracy-column",
        "top1",
        "--space",
        "nasbench201",
        "--dataset",
        "cifar10",
    )
    small = ("--input", "3x8x8", "--space-option", "num_cells=1", "--space-option", "channels=4")
    proxies = ("--proxies", "zen,zen_closed_form", "--executor", "serial")
    code, _, err = run(
        "correlate", "--benchmark", path, *options, *small, *proxies, "--out", tmp_path / "run", "--quiet"
    )
    assert code == 0, err
    with (tmp_path / "run" / "scores.csv").open() as file:
        scores = {row["string"]: row for row in csv.DictReader(file)}
    exported = list(csv.DictReader(io.StringIO(run("runs", "export", tmp_path / "run")[1])))
    assert set(scores) == {row["string"] for row in exported} == set(CELLS)
    for row in exported:
        joined = scores[row["string"]]
        assert joined["architecture"] in codes
        assert joined[row["proxy"]] == row["value"]
        if row["state"] == "failed":
            assert joined["state"] == "failed"
            assert f"{row['proxy']}: {row['reason']}" in joined["reason"]
    assert "failed" in {row["state"] for row in exported}, "the closed form has no rule for cells"


@pytest.mark.slow
@pytest.mark.usefixtures("no_plots")
def test_a_correlation_goes_on_as_the_run_has_it(run, tmp_path, table):
    columns = ("--space", "nasbench201", "--dataset", "cifar10", "--arch-column", "cell", "--accuracy-column", "top1")
    how = ("--proxies", "params,cet", "--executor", "serial", "--out", tmp_path / "run")
    _, report, _ = run("correlate", "--table", table, *columns, *how)
    assert run("correlate", "--out", tmp_path / "run", "--resume", "--executor", "serial") == (0, report, "")
    found = zs.Correlation.from_json((tmp_path / "run" / "report.json").read_text())
    shown = run("runs", "show", tmp_path / "run")[1]
    for entry in found.proxies:
        said = "tau undefined" if entry.kendall is None else f"tau {entry.kendall:+.3f}"
        assert re.search(rf"^{re.escape(entry.proxy)} +{re.escape(said)}", shown, re.MULTILINE)
    code, out, err = run("correlate", "--out", tmp_path / "run", "--resume", "--seed", 4, "--executor", "serial")
    assert (code, out) == (2, "")
    assert "seed: 0 in the run, 4 asked for" in err


@pytest.mark.slow
def test_the_best_of_an_unfinished_run_is_written_as_people_write_it(run, tmp_path, monkeypatch):
    die_at_the_fourth(monkeypatch)
    how = ("--space", "nasbench201", "--proxy", "naswot", "--proposals", "9", "--input", "3x8x8", "--repeats", "1")
    assert run("search", *how, "--out", tmp_path)[0] == 9
    code, out, err = run("runs", "best", tmp_path)
    assert (code, err) == (0, "")
    assert "{" not in out
    string = out.splitlines()[0].split()[-1]
    assert json.loads(run("runs", "best", tmp_path, "--json")[1])["string"] == string
    assert zs.get_space("nasbench201", input_size=(3, 8, 8)).from_string(string)
    assert out.splitlines()[-1].endswith(f"zeroshot-nas resume {tmp_path}")


def test_events_of_a_run_are_logged_by_name(run, tmp_path):
    code, _, err = run(*SEARCH, "--proxy", "cet", "--out", tmp_path / "run", "--log", "csv")
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run" / "log" / "end.csv").read_text())))
    assert rows[0]["state"] == "done"
    for log, said in (("csvv", "Did you mean 'csv'?"), ("csv:x=1", "no option 'x'")):
        code, _, err = run(*SEARCH, "--proxy", "cet", "--log", log)
        assert code == 2
        assert said in err
    code, _, err = run(*SEARCH, "--proxy", "cet", "--log", "csv")
    assert code == 2
    assert "--out" in err


@pytest.mark.slow
def test_a_damaged_file_is_named(run, tmp_path):
    """Of a folder with many files the message says which one."""
    zs.search(
        "resnet", "cet", zs.Budget(params=1e4), input_size=(1, 8, 8), proposals=20, progress=False, out=tmp_path / "run"
    )
    for name, commands in {
        "result.json": [("runs", "show"), ("runs", "best"), ("runs", "plot"), ("report",), ("compare",)],
        "best.json": [("train",), ("scale",), ("score",)],
    }.items():
        whole = (tmp_path / "run" / name).read_bytes()
        for damaged in (whole[:100], b"", b"\xff\xfe"):
            (tmp_path / "run" / name).write_bytes(damaged)
            for command in commands:
                code, out, err = run(*command, tmp_path / "run")
                assert (code, out, err.count("\n")) == (2, "", 1), (command, err)
                assert damaged == b"" or name in err, (command, err)
        (tmp_path / "run" / name).write_bytes(whole)


def test_scale_says_what_is_wrong_in_a_line(run, tmp_path):
    (tmp_path / "file").touch()
    for options, message in {
        ("--out", tmp_path / "file"): "can't be written to (file exists); name another folder",
        ("--factors", "1e308,1e308,1e308"): "factors must about double the FLOPs",
        ("--width-step", 10**20): "error: SuperConv.out_channels must be a whole number",
        ("--proxy", "naswot"): "naswot has no closed form",
    }.items():
        code, out, err = run("scale", "reference:resnet8", "--factors", "width", *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
