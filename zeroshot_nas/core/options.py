"""Options of a function, read from its annotations: text is turned into their types, and a value of none is refused."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Sequence
from functools import partial
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from zeroshot_nas.errors import did_you_mean

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "none"}
_WORDS = {"true": True, "false": False, "none": None}


def option_types(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only options of a function and their types; ``Any`` where none is stated or it can't be resolved.

    Example:
        >>> def proxy(network, batch, /, *, variant: Literal["paper", "l1"] = "paper", scale=1.0): ...
        >>> option_types(proxy)
        {'variant': typing.Literal['paper', 'l1'], 'scale': typing.Any}
    """
    parameters = inspect.signature(function).parameters.values()
    return _types([each for each in parameters if each.kind is each.KEYWORD_ONLY], function)


def keyword_types(cls: type) -> dict[str, Any]:
    """The parameters that a class can be given by keyword and their types, as `option_types` has those of a function.

    Example:
        >>> class Strategy:
        ...     def __init__(self, space, size: int = 64) -> None: ...
        >>> keyword_types(Strategy)
        {'space': typing.Any, 'size': <class 'int'>}
    """
    keywords = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(cls).parameters.values()
    return _types([each for each in parameters if each.kind in keywords], cls.__init__)  # type: ignore[misc]


def _types(parameters: Sequence[inspect.Parameter], function: Callable[..., Any]) -> dict[str, Any]:
    scope = _scope(function)
    return {each.name: _resolved(each.annotation, scope) for each in parameters}


def parsed_option(text: str, annotation: Any) -> Any:
    """What a text stands for in the annotated type; the text itself where it stands for nothing there.

    Without a type that says more, a number where it is one. Of a sequence the items are parted by commas.

    Example:
        >>> parsed_option("8", int | None), parsed_option("none", int | None), parsed_option("1", bool)
        (8, None, True)
        >>> parsed_option("3", str), parsed_option("3", Any)
        ('3', 3.0)
        >>> parsed_option("0.5, 1", Sequence[float])
        (0.5, 1.0)
    """
    word = [_WORDS[text.lower()]] if text.lower() in _WORDS else []
    numbers_read, kinds = _numbers(text), _kinds(annotation)
    items = [_item(kind) for kind in kinds if _item(kind) and str not in kinds]
    parted = [tuple(parsed_option(part.strip(), item) for part in text.split(",")) for item in items]
    for value in (*word, *numbers_read, *parted, text):
        fits, converted = _fitted(value, kinds)
        if fits:
            return converted
    return numbers_read[-1] if numbers_read and _is_open(annotation) else text


def checked_option(name: str, value: Any, annotation: Any) -> Any:
    """The value in the annotated type: an integer where a float is asked for becomes one, 1 becomes true.

    ``Literal``, ``bool``, ``int``, ``float``, ``str``, ``None``, sequences and unions of these are checked; a value of
    any other type is passed on. A value alone is a sequence of one.

    Args:
        name: What the message calls the value.
        value: The value.
        annotation: Its type.

    Raises:
        ValueError: The value is of none of the types; the message names them.

    Example:
        >>> checked_option("x", 1, float)
        1.0
        >>> checked_option("widths", 1, Sequence[float])
        (1.0,)
        >>> checked_option("zen's variant", "papre", Literal["paper", "l1"])
        Traceback (most recent call last):
        ValueError: zen's variant must be 'paper' or 'l1', got 'papre'. Did you mean 'paper'?
    """
    kinds = _kinds(annotation)
    fits, converted = _fitted(value, kinds)
    if fits:
        return converted
    if _is_open(annotation):
        return value
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    hint = did_you_mean(value, map(str, choices)) if isinstance(value, str) else ""
    raise ValueError(f"{name} must be {_expected(kinds)}, got {value!r}{'.' if hint else ''}{hint}")


def _kinds(annotation: Any) -> Sequence[Any]:
    """The members of a union; of any other type, itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_open(annotation: Any) -> bool:
    """Whether there are values that the type allows and that are not told apart here."""
    return any(
        kind not in _NAMES and get_origin(kind) is not Literal and not _item(kind) for kind in _kinds(annotation)
    )


def _item(kind: Any) -> Any:
    """The type of a sequence's items, where values of it are told apart here; else None."""
    (item, *_) = (*get_args(kind), None)
    return item if get_origin(kind) is Sequence and item in _NAMES else None


def _fitted(value: Any, kinds: Sequence[Any]) -> tuple[bool, Any]:
    """Whether a value is of one of the types, and what it is there."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    for kind in kinds:
        if get_origin(kind) is Literal:
            if any(type(choice) is type(value) and choice == value for choice in get_args(kind)):
                return True, value
        elif kind is bool and (isinstance(value, bool) or (number and value in (0, 1))):
            return True, bool(value)
        elif kind is int and number and value % 1 == 0:
            return True, int(value)
        elif kind is float and number:
            return True, float(value)
        elif kind in (str, NoneType) and isinstance(value, kind):
            return True, value
        elif item := _item(kind):
            parts = [_fitted(part, (item,)) for part in (value if isinstance(value, list | tuple) else (value,))]
            if all(fits for fits, _ in parts):
                return True, (list if isinstance(value, list) else tuple)(converted for _, converted in parts)
    return False, value


def _numbers(text: str) -> list[float]:
    """The number that a text is, or none: an int first, then a float."""
    values: list[float] = []
    for kind in (int, float):
        try:
            values.append(kind(text))
        except ValueError:
            continue
    return values


def _expected(kinds: Sequence[Any]) -> str:
    names: list[str] = []
    for kind in kinds:
        if item := _item(kind):
            names += [_NAMES[item], "a list of such"]
        else:
            names += map(repr, get_args(kind)) if get_origin(kind) is Literal else _NAMES[kind].split(" or ")
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _scope(function: Callable[..., Any]) -> dict[str, Any]:
    """The names that a function's annotations are written in."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__globals__"):  # an object that is called
        function = inspect.unwrap(type(function).__call__)
    return getattr(function, "__globals__", {})


def _resolved(annotation: Any, scope: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    try:
        return get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), scope)["it"]
    except (NameError, AttributeError, SyntaxError, TypeError):  # of a type checker alone, or of a local scope
        return Any
