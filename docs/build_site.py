"""Builds the site into site/: first the pages that nobody writes, the command line's options and the notebooks.

python docs/build_site.py
"""

from __future__ import annotations

import base64
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from zeroshot_nas.cli import app

DOCS = Path(__file__).resolve().parent
NOTEBOOKS = DOCS.parent / "examples" / "notebooks"

ABOUT_CLI = """# Command line

What `zeroshot-nas COMMAND --help` says. Numbers take `k`, `M`, `G` (`--max-params 100k`), shapes are `CxHxW`. `--plugin
FILE.py`, before or behind a command, loads a file of your own first; `--debug` shows a traceback. The exit code is 0, 2
where something was wrong (one line on the standard error says what), and 130 after Ctrl-C."""


def write_pages() -> None:
    """Writes the pages that are made here; git ignores them."""
    (DOCS / "reference" / "cli.md").write_text(command_line_page(), encoding="utf-8")
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        page, pictures = notebook_page(notebook)
        (DOCS / "notebooks" / f"{notebook.stem}.md").write_text(page, encoding="utf-8")
        for name, picture in pictures.items():
            (DOCS / "notebooks" / name).write_bytes(picture)


def command_line_page() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join([ABOUT_CLI, *_commands(typer.main.get_command(app), "zeroshot-nas", None)]) + "\n"


def _commands(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name.split()[-1], parent=parent)
    if parent is not None:
        yield f"## `{name}`"
        yield inspect.cleandoc(command.help or "")
    yield f"```text\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```"
    records = [each.get_help_record(context) for each in command.get_params(context)]
    rows = [f"| `{_cell(what)}` | {_cell(told)} |" for what, told in filter(None, records)]
    yield "\n".join(["| argument or option | meaning |", "|---|---|", *rows])
    for each in getattr(command, "commands", {}).values():
        yield from _commands(each, f"{name} {each.name}", context)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def notebook_page(file: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook with its outputs as a page, and the page's pictures by name."""
    lines: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            if number == 0:
                where = f"examples/notebooks/{file.name}"
                lines += [f"This page is the notebook `{where}` with its outputs; open that to run it.", ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in _joined(cell["outputs"]):
            lines += [*_shown(output, f"{file.stem}_{number}.png", pictures), ""]
    return "\n".join(lines), pictures


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs, with what was printed in a row as one; what was written to the standard error is left out."""
    joined: list[dict[str, Any]] = []
    for output in outputs:
        if output["output_type"] != "stream":
            joined.append(output)
        elif output["name"] == "stdout":
            if not joined or joined[-1]["output_type"] != "stream":
                joined.append({**output, "text": []})
            joined[-1]["text"] += output["text"]
    return joined


def _shown(output: dict[str, Any], picture: str, pictures: dict[str, bytes]) -> list[str]:
    """One output of a cell."""
    if output["output_type"] == "stream":
        return ["```text", "".join(output["text"]).rstrip(), "```"]
    data = output.get("data", {})
    if "text/html" in data:
        return ['<div class="notebook-output" markdown="0">', "".join(data["text/html"]), "</div>"]
    if "image/png" in data:
        pictures[picture] = base64.b64decode("".join(data["image/png"]))
        return [f"![Output of the cell above]({picture})"]
    return ["```text", "".join(data.get("text/plain", "")).rstrip(), "```"]


if __name__ == "__main__":
    write_pages()
    sys.exit(subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=DOCS.parent).returncode)
