"""Space x out x resume x executor: a search of every registered space leaves a folder that all readers take."""

import json
import sys

import pytest

import zeroshot_nas as zs
from zeroshot_nas import cli
from zeroshot_nas.runs import evaluate as evaluating
from zeroshot_nas.spaces.nats_sss import NATSSize

SMALL = {
    "nasbench101": {"num_cells": 1, "channels": 8},
    "nasbench201": {"num_cells": 1, "channels": 4},
    "nasbench301": {"num_cells": 3, "channels": 4},
    "transnas_macro": {"channels": 4},
    "transnas_micro": {"channels": 4},
}
"""Options that make a space's networks quick to score."""


BUDGET = zs.Budget(layers=30)


def search(space, **how):
    return zs.search(space, "naswot", BUDGET, proposals=6, screen=None, repeats=1, seed=3, progress=False, **how)


def outcome(result):
    """All of a result but wall times."""
    return [(each.architecture, each.string, each.costs, each.fitness) for each in (result.best, *result.history)]


@pytest.fixture(scope="module", params=zs.list_spaces())
def space(request):
    return zs.get_space(request.param, input_size=(1, 16, 16), num_classes=3, **SMALL.get(request.param, {}))


@pytest.fixture(scope="module")
def unbroken(space):
    return outcome(search(space))


@pytest.fixture(params=["serial", "processes"])
def executor(request):
    return request.getfixturevalue("processes") if request.param == "processes" else "serial"


def test_a_search_with_out_ends_as_one_without(tmp_path, space, unbroken, executor):
    result = search(space, out=tmp_path, executor=executor)
    assert outcome(result) == unbroken
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()) == result
    assert result.best.string == space.to_string(result.best.architecture) != ""
    assert outcome(search(space, out=tmp_path, resume=True, executor=executor)) == unbroken


def test_a_search_that_died_is_resumed(tmp_path, space, unbroken, executor, monkeypatch):
    calls = []

    def dying(jobs):
        calls.append(jobs)
        if len(calls) == 3:
            raise SystemExit("power cut")
        return compute(jobs)

    compute = evaluating.compute
    monkeypatch.setattr(evaluating, "compute", dying)
    with pytest.raises(SystemExit):
        search(space, out=tmp_path)
    monkeypatch.setattr(evaluating, "compute", compute)
    assert outcome(search(space, out=tmp_path, resume=True, executor=executor)) == unbroken
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()).history


def test_the_command_line_writes_and_reads_a_run(tmp_path, space, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert (stop.value.code, captured.err) == (0, "")
        return captured.out

    options = [f"--space-option={name}={value}" for name, value in SMALL.get(space.name, {}).items()]
    small = ["--input", "1x16x16", "--proposals", "5", "--proxy", "params", "--max-layers", "20", "--finalists", "3"]
    printed = run("search", "--space", space.name, *options, *small, "--quiet", "--out", tmp_path)
    best = zs.SearchResult.from_json((tmp_path / "result.json").read_text()).best
    assert best.string in printed
    assert json.loads(run("runs", "best", tmp_path, "--json")) == best.to_dict()
    assert json.loads((tmp_path / "best.json").read_text()) == best.to_dict()
    assert "done" in run("runs", "show", tmp_path)
    rows = json.loads(run("runs", "export", tmp_path, "--format", "json"))
    assert best.architecture in [zs.Architecture.from_dict(row["architecture"]) for row in rows]
    assert f"{best.costs.params:,}" in run("cost", tmp_path / "best.json")
    (tmp_path / "result.json").unlink()
    run("search", "--resume", tmp_path, "--quiet")
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()).best == best


def test_a_space_without_a_notation_is_searched_as_well(tmp_path):
    class Unwritten(NATSSize):
        def to_string(self, architecture, *notation):
            return architecture.to_string()  # PlainNet, which its blocks have no form in

    result = search(Unwritten(input_size=(1, 16, 16)), out=tmp_path)
    assert {candidate.string for candidate in result.history} == {""}
    assert zs.SearchResult.from_json((tmp_path / "result.json").read_text()) == result


def test_a_candidate_of_an_earlier_release_is_read():
    candidate = search("resnet", input_size=(1, 8, 8)).best
    data = candidate.to_dict()
    assert zs.Candidate.from_dict({**data, "plainnet": data.pop("string")}) == candidate
