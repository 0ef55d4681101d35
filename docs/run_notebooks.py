"""Runs the notebooks in examples/notebooks and keeps their outputs in them.

python docs/run_notebooks.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "examples" / "notebooks"


def executed(file: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run in a folder; a cell that fails raises."""
    notebook = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=resources, store_widget_state=False).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran, which is another time each time
    return notebook


def main() -> None:
    """Runs all notebooks, or those named, each in an empty folder."""
    for file in [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(file, Path(folder))
        for cell in notebook.cells:
            if "outputs" in cell:
                cell.outputs = [each for each in cell.outputs if not _is_widget(each) and each.get("name") != "stderr"]
        nbformat.write(notebook, file)


def _is_widget(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a bar: without a kernel nothing of it is left to see."""
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


if __name__ == "__main__":
    main()
