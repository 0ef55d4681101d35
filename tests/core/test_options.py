"""Options by annotation: what is read of a function, what text becomes, what is refused."""

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Optional

import numpy as np
import pytest

from zeroshot_nas.core.options import checked_option, option_types, parsed_option

if TYPE_CHECKING:
    from nowhere import Absent

Choice = Literal["paper", "l1"]


def annotated(network, /, positional: int = 0, *, choice: Choice = "paper", size: "int | None" = None, plain=1.0): ...


def for_checkers(network: "Absent", /, *, like: "Absent" = None, choice: "Choice" = "paper"): ...


class Called:
    def __call__(self, network, /, *, choice: "Choice" = "paper"): ...


def wrapped(function):
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    inner.__wrapped__ = function
    return inner


def test_the_types_of_a_function():
    assert option_types(annotated) == {"choice": Choice, "size": int | None, "plain": Any}


def test_types_that_only_a_type_checker_has_are_any():
    assert option_types(for_checkers) == {"like": Any, "choice": Choice}


@pytest.mark.parametrize("function", [Called(), wrapped(for_checkers), partial(for_checkers, like=1)])
def test_callables_that_are_no_plain_function(function):
    assert option_types(function)["choice"] == Choice


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("paper", Choice, "paper"),
        ("2", Literal[2, 4], 2),
        ("2", Literal["2", "4"], "2"),
        ("3", int, 3),
        ("3.0", int, 3),
        ("9007199254740993", int, 9007199254740993),
        ("3", float, 3.0),
        ("1e-3", float | None, 1e-3),
        ("None", float | None, None),
        ("none", Optional[str], None),  # noqa: UP045  the old spelling is another type
        ("none", str, "none"),
        ("3", str, "3"),
        ("true", str, "true"),
        ("True", bool, True),
        ("false", bool | None, False),
        ("1", bool, True),
        ("0.0", bool, False),
        ("3", str | Sequence[str], "3"),
        ("3", Any, 3.0),
        ("x", Any, "x"),
        ("true", Any, "true"),
    ],
)
def test_text_in_its_type(text, annotation, value):
    read = parsed_option(text, annotation)
    assert (read, type(read)) == (value, type(value))
    assert checked_option("it", read, annotation) == value


@pytest.mark.parametrize(
    ("given", "annotation", "value"),
    [
        (1, float, 1.0),
        (np.float32(0.5), float, 0.5),
        (np.int64(4), int, 4),
        (4.0, int, 4),
        (1, bool, True),
        (0.0, bool, False),
        (3, int | float, 3),
        (None, int | None, None),
        (("a", "b"), str | Sequence[str], ("a", "b")),
        (object, Any, object),
    ],
)
def test_values_in_their_type(given, annotation, value):
    checked = checked_option("it", given, annotation)
    assert (checked, type(checked)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("papre", Choice, "it must be 'paper' or 'l1', got 'papre'. Did you mean 'paper'?"),
        (None, Choice, "it must be 'paper' or 'l1', got None"),
        (["paper"], Choice, "it must be 'paper' or 'l1', got ['paper']"),
        (True, Literal[1, 2, 3], "it must be 1, 2 or 3, got True"),
        (3, Choice | None, "it must be 'paper', 'l1' or none, got 3"),
        ("8", int, "it must be a whole number, got '8'"),
        (2.5, int, "it must be a whole number, got 2.5"),
        (float("inf"), int, "it must be a whole number, got inf"),
        (True, int, "it must be a whole number, got True"),
        (False, float | None, "it must be a number or none, got False"),
        (2, bool, "it must be true or false, got 2"),
        ("true", bool | None, "it must be true, false or none, got 'true'"),
        (3, str, "it must be text, got 3"),
    ],
)
def test_values_of_no_type_are_refused(value, annotation, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checked_option("it", value, annotation)
