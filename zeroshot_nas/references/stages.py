"""What networks of three stages share."""

from __future__ import annotations

import re

from zeroshot_nas.errors import ArchitectureError

WIDTHS = (16, 32, 64)
"""Of the three stages of He et al.'s networks for small images, arXiv:1512.03385."""


def stage_strides(text: str) -> tuple[int, ...]:
    """The strides of three stages.

    Raises:
        ArchitectureError: The text is none of three digits 1 or 2.

    Example:
        >>> stage_strides("122")
        (1, 2, 2)
    """
    if not re.fullmatch("[12]{3}", text):
        raise ArchitectureError(f"strides must be three digits 1 or 2, one a stage, such as 122; got {text!r}")
    return tuple(map(int, text))
