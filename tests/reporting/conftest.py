"""Runs that tests of pages share."""

import warnings

import pytest

from tests.reporting.runs import made


@pytest.fixture(scope="package")
def runs(tmp_path_factory):
    """The path of a run of a kind, which is made when it is first asked for."""
    known = {}

    def run(kind):
        if kind not in known:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known[kind] = made(kind, tmp_path_factory.mktemp("runs") / "run")
        return known[kind]

    return run
