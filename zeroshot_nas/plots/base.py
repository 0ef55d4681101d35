"""What reports share: matplotlib's figure, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.core.files import write_atomically
from zeroshot_nas.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("png", "svg")

_DOTS = 100  # points an inch of the PNG files


def figure_class() -> type[Figure]:
    """The figure of matplotlib, which needs no screen and no global state.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "report") from None
    return Figure


def save_plot(figure: Figure, path: Path, kinds: Sequence[str] = KINDS) -> None:
    """Writes a figure as ``.png`` and ``.svg``, or one of them; the same figure gives the same files.

    Args:
        figure: The figure.
        path: The files' name without an ending.
        kinds: Which of `KINDS` to write.
    """
    import matplotlib

    metadata: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
    with matplotlib.rc_context({"svg.hashsalt": "zeroshot_nas"}):
        for kind in kinds:
            facts = metadata[kind]

            def draw(draft: Path, kind: str = kind, facts: dict[str, Any] = facts) -> None:
                figure.savefig(draft, format=kind, dpi=_DOTS, metadata=facts)

            write_atomically(path.with_name(f"{path.name}.{kind}"), draw)
