import sys

import pytest

from zeroshot_nas import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process; gives exit code, output and error output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["zeroshot-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call
