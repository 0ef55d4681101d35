"""The checks that many share: what passes, and the words of what does not."""

import pytest

from zeroshot_nas.core.checks import as_shape, check_counts, check_format
from zeroshot_nas.errors import DataError, FileFormatError


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None, [1]])
def test_what_is_no_count_is_refused_by_its_name(value):
    check_counts(others=1, repeats=10**30)
    with pytest.raises(ValueError, match="repeats must be a whole number of 1 or more, got"):
        check_counts(others=1, repeats=value)


def test_the_least_number_and_the_error_are_the_callers():
    check_counts(8, DataError, least=8, error=9)  # also where a number is called as the arguments are
    with pytest.raises(DataError, match="error must be a whole number of 8 or more, got 7"):
        check_counts(8, DataError, error=7)


@pytest.mark.parametrize("data", [None, [], "demo", {}, {"format": "demos", "version": 1}, {"version": 1}])
def test_another_format_is_told(data):
    check_format({"format": "demo", "version": 1}, "demo", 1, "a demo")
    with pytest.raises(FileFormatError, match="not a demo: expected a JSON object with format 'demo'"):
        check_format(data, "demo", 1, "a demo")


@pytest.mark.parametrize("version", [None, 0, 2, "1", [1]])
def test_another_version_is_told(version):
    with pytest.raises(DataError, match=r"a.json: a demo of version .*; this release reads version 1"):
        check_format({"format": "demo", "version": version}, "demo", 1, "a demo", file="a.json", error=DataError)


@pytest.mark.parametrize("size", [(), (32, 32), (1, 3, 32, 32)])
def test_a_shape_has_three_sides(size):
    assert as_shape([1, 2, 3], DataError) == (1, 2, 3)
    with pytest.raises(DataError, match=r"expected input_size \(C, H, W\), got"):
        as_shape(size, DataError)
