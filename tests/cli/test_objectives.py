"""Fronts and rewards on the command line."""

import json

import pytest

import zeroshot_nas as zs

SEARCH = ("search", "--input", "1x8x8", "--max-params", "40k", "--max-layers", 10, "--proposals", 200, "--quiet")


@pytest.mark.slow
def test_a_front_is_searched_for_shown_drawn_and_gone_on_with(run, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "run"
    asked = ("--objectives", "cet,flops,activations", "--finalists", 12, "--out", out)
    code, printed, _ = run(*SEARCH, *asked)
    assert code == 0
    result = zs.SearchResult.from_json((out / "result.json").read_text())
    assert f"{len(result.front)} networks" in printed
    assert f"hypervolume            {result.hypervolume()}\n" in printed
    shown = [line.strip() for line in printed.splitlines() if line.strip().startswith("cet ")]
    assert len(shown) == min(8, len(result.front))
    assert shown == sorted(shown, key=lambda line: -float(line.split()[1].rstrip(",")))
    assert run("resume", out, "--quiet")[1].splitlines()[:4] == printed.splitlines()[:4]
    assert str(result.hypervolume()) in run("runs", "show", out)[1]
    assert json.loads(run("runs", "best", out, "--json")[1])["fitness"] == result.best.fitness
    assert run("runs", "plot", out)[0] == 0
    (out / "result.json").unlink()
    assert json.loads(run("runs", "best", out, "--json")[1])["score"]["value"] == result.best.fitness
    assert run(*SEARCH[:1], "--resume", "--out", out, "--quiet")[0] == 0
    code, _, error = run(*SEARCH[:1], "--resume", "--out", out, "--quiet", "--objectives", "cet,params")
    assert code == 2
    assert "objectives" in error


def test_a_volume_of_many_objectives_is_left_to_who_wants_to_wait(run, monkeypatch):
    monkeypatch.setattr("zeroshot_nas.cli.search.MEASURED", 1)
    code, printed, _ = run(*SEARCH, "--objectives", "cet,flops")
    assert code == 0
    assert "hypervolume            takes minutes of so many objectives; result.hypervolume() has it" in printed


def test_a_reward_is_maximised_and_shown(run, tmp_path):
    asked = ("--reward", "flops:target=200k:exponent=-3:form=sum", "--finalists", 5, "--out", tmp_path / "run")
    code, printed, _ = run(*SEARCH, *asked)
    assert code == 0
    result = zs.SearchResult.from_json((tmp_path / "run/result.json").read_text())
    assert f"reward                 {result.best.fitness:.6g}, by -3 log(flops / 200000)\n" in printed
    assert "front" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--objectives", "cet,zen"), "cet and zen are proxies"),
        (("--objectives", "cet,flosp"), "Did you mean 'flops'"),
        (("--objectives", "cet"), "a proxy and one cost or more"),
        (("--objectives", "zen,flops", "--proxy", "cet"), "the proxy is cet"),
        (("--objectives", "cet,monotone_widths"), "without a direction"),
        (("--reward", "flops:target=1M"), "take form='sum'"),
        (("--reward", "flops"), "needs the target"),
        (("--reward", "flops:form=sum", "--objectives", "cet,flops"), "give one"),
    ],
)
def test_what_no_search_can_begin_with_is_said_before_a_folder_is_touched(run, tmp_path, options, message):
    code, printed, error = run(*SEARCH, *options, "--out", tmp_path / "run")
    assert (code, printed) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
