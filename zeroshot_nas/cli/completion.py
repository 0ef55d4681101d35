"""Shell completion: typer's scripts for bash, zsh and fish, loaded when they are asked for."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

SHELLS = ("bash", "zsh", "fish")


def prepare() -> None:
    """Makes typer able to answer a shell that asks for completions, which it does by an environment variable."""
    if "_ZEROSHOT_NAS_COMPLETE" in os.environ:
        from typer.completion import get_completion_inspect_parameters

        get_completion_inspect_parameters()


def _of(shell: str) -> str:
    if shell not in SHELLS:
        raise typer.BadParameter(f"completion is for {', '.join(SHELLS)}, got {shell!r}")
    return shell


def _show(ctx: typer.Context, param: Any, shell: str | None) -> None:
    if shell is not None:
        from typer.completion import show_callback

        show_callback(ctx, param, _of(shell))


def _install(ctx: typer.Context, param: Any, shell: str | None) -> None:
    if shell is not None:
        from typer.completion import install_callback

        install_callback(ctx, param, _of(shell))


ShowCompletion = Annotated[
    str | None,
    typer.Option(
        "--show-completion",
        metavar="SHELL",
        is_eager=True,
        callback=_show,
        help=f"Show the script that completes names in {', '.join(SHELLS)}, and exit.",
    ),
]
InstallCompletion = Annotated[
    str | None,
    typer.Option(
        "--install-completion",
        metavar="SHELL",
        is_eager=True,
        callback=_install,
        help="Write that script where the shell reads it, and exit.",
    ),
]
