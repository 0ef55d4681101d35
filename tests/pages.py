"""Runs what a page of the documentation shows, and compares what is printed with what the page says.

    python -m tests.pages docs/tutorial.md            # what differs; nothing where the page is right
    python -m tests.pages --write docs/tutorial.md    # puts what is printed into the page

A page is run from top to bottom in an empty folder that has the examples in it, in one process:

- ``console`` blocks: each ``$ command``, whose output follows it;
- ``pycon`` blocks: as doctests;
- ``python`` blocks: run, all in one namespace; with ``title="name.py"`` they are written to that file.

Times are not compared. A comment on the line before a block changes what is done:

- ``<!-- not run: reason -->``;
- ``<!-- captured: reason -->``: run for ``--write`` alone;
- ``<!-- labels: reason -->``: of every line the first column alone is compared, without numbers, in any order;
- ``<!-- tested with: ARGUMENTS -->``: these are added to each command, which prints such lines, and maybe more.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

_BLOCK = re.compile(
    r"^(?:<!-- (?P<how>not run|captured|labels|tested with): (?P<more>.*?) -->\n)?"
    r"^```(?P<kind>console|pycon|python)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN = ("not run", "captured")
"""What a comment says of a block that the tests leave out."""

_TIME = re.compile(r"\d[\d.,e+-]* ?(ms|us|µs|s|min|h)\b|± \d+(\.\d+)?%|\d+ runs\b")
_BUSY = "; unstable: the machine was busy, measure again when it is not"
"""What a measurement says on a machine that does other work, too."""

_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        kind: ``console``, ``pycon`` or ``python``.
        body: What is between the fences.
        line: Where it begins.
        how: What the comment before it asks for, or nothing.
        more: What follows that.
        title: Name of the file that it is.
        span: First and last character of the body in the page.
    """

    kind: str
    body: str
    line: int
    how: str = ""
    more: str = ""
    title: str = ""
    span: tuple[int, int] = (0, 0)


def blocks(text: str) -> list[Block]:
    """The blocks of a page that can be run."""
    return [
        Block(
            found["kind"],
            found["body"],
            text.count("\n", 0, found.start("body")),
            found["how"] or "",
            found["more"] or "",
            found["title"] or "",
            found.span("body"),
        )
        for found in _BLOCK.finditer(text)
    ]


def commands(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    command, output = None, ""
    lines = iter(body.splitlines(keepends=True))
    for line in lines:
        if not line.startswith("$ "):
            output += line
            continue
        if command is not None:
            yield command, output
        while line.endswith("\\\n"):
            line += next(lines)
        command, output = line[2:], ""
    if command is not None:
        yield command, output


def run_command(command: str) -> str:
    """What a command prints; those of this package run in this process, which has torch already."""
    first, pipe, rest = command.replace("\\\n", " ").partition(" | ")
    words = shlex.split(first, comments=True)
    if words[0] != "zeroshot-nas":
        shell = command.replace("python ", f"{shlex.quote(sys.executable)} ", 1) if words[0] == "python" else command
        return subprocess.run(shell, shell=True, stdout=subprocess.PIPE, text=True, check=True).stdout
    from zeroshot_nas.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()) as errors:
        sys.argv = words
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                printed.write(errors.getvalue())
    if not pipe:
        return printed.getvalue()
    done = subprocess.run(rest, shell=True, input=printed.getvalue(), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def masked(text: str, labels_only: bool = False) -> list[str]:
    """The lines of an output without what differs from run to run."""
    lines = [line.replace(_BUSY, "") for line in text.strip().splitlines()]
    if labels_only:
        return sorted(_NUMBER.sub("#", line.split("  ")[0]).rstrip(" |") for line in lines)
    return [_NUMBER.sub("#", line) if line.startswith("time") else _TIME.sub("#", line.rstrip()) for line in lines]


def differences(page: Path, write: bool = False) -> list[str]:
    """What a page says that is not so; ``write`` mends the outputs of its commands in place."""
    text = page.read_text(encoding="utf-8")
    found: list[str] = []
    bodies: dict[tuple[int, int], str] = {}
    namespace: dict[str, Any] = {"__name__": "page"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for example in (ROOT / "examples").glob("*.py"):
            shutil.copy(example, folder)
        for block in blocks(text):
            where = f"{page.name}:{block.line}"
            if block.how == "not run" or (block.how == "captured" and not write):
                continue
            if block.kind == "console":
                bodies[block.span] = _run_console(block, where, write, found)
            elif block.kind == "pycon":
                _run_doctest(block, where, namespace, found)
            elif "--8<--" in block.body:
                continue  # a file of the examples, which is there
            elif block.title:
                Path(block.title).write_text(block.body, encoding="utf-8")
            else:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(block.body, where, "exec"), namespace)
    if write:
        for (start, end), body in sorted(bodies.items(), reverse=True):
            text = text[:start] + body + text[end:]
        page.write_text(text, encoding="utf-8")
    return found


def _run_console(block: Block, where: str, write: bool, found: list[str]) -> str:
    """The block with what its commands print; what differs is appended to ``found``."""
    lines = []
    for command, claimed in commands(block.body):
        more = f" {block.more}" if block.how == "tested with" and not write else ""
        printed = run_command(f"{command.rstrip()}{more}")
        labels_only = block.how in ("tested with", "labels")
        expected, got = masked(claimed, labels_only), masked(printed, labels_only)
        same = set(expected) <= set(got) if block.how == "tested with" else expected == got
        if claimed.strip() and not same:
            found.append(f"{where}: {command.strip()}\n  says    {expected}\n  prints  {got}")
        lines.append(f"$ {command}{printed.rstrip()}\n" if claimed.strip() or write else f"$ {command}")
    return "".join(lines).replace("\n\n$ ", "\n$ ")


def _run_doctest(block: Block, where: str, namespace: dict[str, Any], found: list[str]) -> None:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(block.body, namespace, where, where, block.line)
    test.globs = namespace  # the parser copies them, and a later block goes on with them
    printed: list[str] = []
    doctest.DocTestRunner(optionflags=options).run(test, out=printed.append, clear_globs=False)
    found += ["".join(printed)] if printed else []


def main() -> None:
    pages = [Path(each).resolve() for each in sys.argv[1:] if each != "--write"]
    found = [line for page in pages for line in differences(page, "--write" in sys.argv)]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(1 if found and "--write" not in sys.argv else 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
