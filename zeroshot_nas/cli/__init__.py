"""The command line: a thin shell over the Python API. A module of this package registers its commands on import."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

import zeroshot_nas

# isort: off
from zeroshot_nas.cli import search, correlate, score, scale, family, train, prune  # noqa: F401  # the help's order
from zeroshot_nas.cli import compare, resume, latency, runs, report, names  # noqa: F401

# isort: on
from zeroshot_nas.cli.base import app
from zeroshot_nas.cli.completion import InstallCompletion, ShowCompletion, prepare
from zeroshot_nas.core.plugins import load_plugin
from zeroshot_nas.core.text import printable
from zeroshot_nas.errors import ZeroShotNASError

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C stopped."""


def main() -> None:
    """Entry point: one line and exit code 2 for whatever goes wrong, a traceback with ``--debug``."""
    debug = "--debug" in sys.argv
    warnings.showwarning = _show_warning
    prepare()
    try:
        arguments, plugins = _without_plugins([argument for argument in sys.argv[1:] if argument != "--debug"])
        for plugin in plugins:
            load_plugin(plugin)
        code = app(arguments, prog_name="zeroshot-nas", standalone_mode=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a closed pager is no error
        code = 0
    except Exception as error:  # the last line of defence: everything becomes one line here
        if debug:
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)  # noqa: T201
        code = 2
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)  # noqa: T201
    sys.exit(code or 0)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"zeroshot-nas {zeroshot_nas.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option("--plugin", metavar="FILE", help="A Python file that registers proxies, spaces and so on."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
    show_completion: ShowCompletion = None,
    install_completion: InstallCompletion = None,
) -> None:
    """Options of every command; `main` handles them, they stand here for the help text."""


def _without_plugins(arguments: list[str]) -> tuple[list[str], list[str]]:
    """A command line without its ``--plugin`` options, which may stand anywhere, and their files."""
    rest: list[str] = []
    plugins: list[str] = []
    place = iter(arguments)
    for argument in place:
        name, equals, file = argument.partition("=")
        if argument == "--":
            rest += [argument, *place]
        elif name != "--plugin":
            rest.append(argument)
        else:
            plugins.append(file if equals else next(place, ""))
    return rest, plugins


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning of ours on one line; others are for developers."""
    if category.__module__.startswith("zeroshot_nas"):
        print(f"warning: {printable(str(message))}", file=sys.stderr)  # noqa: T201


def _one_line(error: Exception) -> str:
    """What went wrong, on one line; a kind of error that is not ours is named."""
    said = str(error.format_message() if isinstance(error, typer.TyperException) else error)
    text = printable(" ".join(said.split()))
    expected = isinstance(error, ZeroShotNASError | typer.TyperException | ValueError | OSError)
    return text if expected and text else f"{type(error).__name__}: {text} (run again with --debug for the traceback)"
