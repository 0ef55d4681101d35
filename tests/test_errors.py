"""Each exception is a builtin's kind too, and crosses process borders."""

import inspect
import pickle
import re
from pathlib import Path

import pytest

from zeroshot_nas import errors

ALSO = {
    "ArchitectureError": ValueError,
    "BudgetError": ValueError,
    "InfeasibleBudgetError": ValueError,
    "ProxyError": ValueError,
    "DataError": ValueError,
    "FileFormatError": ValueError,
    "UnknownNameError": KeyError,
    "OutputExistsError": FileExistsError,
    "MissingExtraError": ImportError,
}
"""Which ``except`` of the standard library catches each."""

ARGUMENTS = {
    "UnknownNameError": ("proxy", "zem", ["zen", "naswot"]),
    "MissingExtraError": ("onnx", "onnx"),
    "TaskTimeoutError": (0.5,),
}
"""Constructor arguments where it is not one message."""

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.ZeroShotNASError) and cls is not errors.ZeroShotNASError
]


def test_no_other_module_defines_a_public_one():
    root = Path(errors.__file__).parent
    sources = {path.name: path.read_text() for path in root.rglob("*.py") if path != Path(errors.__file__)}
    elsewhere = {
        name: found
        for name, text in sources.items()
        if (found := re.findall(r"^class ([A-Z]\w*(?:Error|Warning))\b", text, flags=re.MULTILINE))
    }
    assert elsewhere == {}


@pytest.mark.parametrize("cls", CLASSES)
def test_is_also_a_builtin(cls):
    """Or of the standard library's, as pickle's."""
    known = {base for base in cls.__mro__ if base.__module__.lstrip("_") in {"builtins", "pickle"}}
    assert known - {Exception, BaseException, object}


@pytest.mark.parametrize(("name", "builtin"), ALSO.items())
def test_the_expected_builtin_catches_it(name, builtin):
    assert issubclass(getattr(errors, name), builtin)


@pytest.mark.parametrize("cls", CLASSES)
def test_pickle_round_trip(cls):
    error = cls(*ARGUMENTS.get(cls.__name__, ("expected a, got b; do c",)))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_unknown_name_reads_as_a_sentence():
    """KeyError would print the repr of its argument."""
    error = errors.UnknownNameError("proxy", "zem", ["zen", "naswot"])
    assert str(error) == "unknown proxy 'zem'. Did you mean 'zen'? Known: naswot, zen"
    assert (error.kind, error.name, error.known) == ("proxy", "zem", ["naswot", "zen"])


def test_unknown_name_far_from_all_makes_no_guess():
    assert "Did you mean" not in str(errors.UnknownNameError("proxy", "xxxxxxxx", ["zen", "naswot"]))


def test_missing_extra_says_how_to_install():
    error = errors.MissingExtraError("scikit-learn", "data")
    assert 'pip install "zeroshot-nas[data]"' in str(error)
    assert (error.package, error.extra) == ("scikit-learn", "data")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("ZEN", ["zen", "naswot"], " Did you mean 'zen'?"),  # case is no difference
        ("SuperResK3K", ["SuperResK3K3"], " Did you mean 'SuperResK3K3'?"),  # the known spelling comes back
        ("qqqq", ["zen"], ""),
        ("zen", [], ""),
    ],
)
def test_did_you_mean(name, known, expected):
    assert errors.did_you_mean(name, known) == expected
