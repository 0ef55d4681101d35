"""Memory budgets and boards on the command line."""

import re

import pytest

import zeroshot_nas as zs

SEARCH = ("search", "--proposals", 100, "--quiet")


@pytest.mark.slow
def test_a_board_sets_both_budgets_and_a_limit_takes_its_place(run):
    code, printed, _ = run(*SEARCH, "--board", "max78000", "--max-weights", "100 kB")
    assert code == 0
    peak, weights = (
        int(re.search(rf"{what} +([\d,]+) bytes", printed)[1].replace(",", "")) for what in ("peak memory", "weights")
    )
    assert peak <= zs.get_board("max78000").limits()["peak_memory"]
    assert weights <= 100_000


def test_an_unknown_board_is_suggested(run):
    code, _, err = run(*SEARCH, "--board", "max78001")
    assert code == 2
    assert "Did you mean 'max78000'?" in err
    assert err.count("\n") == 1


def test_an_ambiguous_unit_is_refused(run):
    code, _, err = run(*SEARCH, "--max-peak-memory", "256k")
    assert code == 2
    assert "--max-peak-memory must be a number of bytes with kB (1,000), KiB (1,024)" in err


def test_boards_are_listed_with_what_they_have(run):
    code, printed, _ = run("list", "boards")
    assert code == 0
    assert re.search(r"stm32f746 +320 KiB +1024 KiB +Cortex-M7, 216 MHz +ST STM32F746", printed)


@pytest.mark.slow
def test_bits_are_searched_and_shown(run, tmp_path):
    limits = ("--max-weights", "20kB", "--max-flops", "1M", "--input", "1x8x8", "--out", tmp_path / "run")
    code, printed, _ = run(*SEARCH, *limits, "--bits", "4,8")
    assert code == 0
    assert re.search(
        r"bits of weights +[48 ]+\|[48 |]+, layer by layer, a group a block and the classifier last", printed
    )
    code, shown, _ = run("runs", "best", tmp_path / "run")
    assert code == 0
    assert re.search(r"bits of weights .*", printed)[0] in shown
    code, again, _ = run("search", "--resume", "--out", tmp_path / "run", "--quiet")
    assert code == 0
    assert re.search(r"bits of weights .*", printed)[0] in again


def test_bits_that_can_not_be_are_one_line(run):
    for options, message in (
        (("--bits", "4,8"), "bits follow from a limit on the bytes of weights"),
        (("--bits", "3", "--max-weights", "20kB"), "bits are some of 2, 4 and 8, such as (4, 8); got (3,)"),
        (("--bits", "four", "--max-weights", "20kB"), "--bits are some of 2, 4 and 8, e.g. 4,8; got 'four'"),
    ):
        code, _, err = run(*SEARCH, *options)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
