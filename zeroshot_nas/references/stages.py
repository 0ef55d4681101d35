"""What networks of three stages share."""

from __future__ import annotations

import re
from typing import Literal

from zeroshot_nas.architecture.ops import Shape
from zeroshot_nas.errors import ArchitectureError

WIDTHS = (16, 32, 64)
"""Of the three stages of He et al.'s networks for small images, arXiv:1512.03385."""

LARGE = 64
"""Pixels on the shorter side from which on the first convolution has stride 2, unless that is asked for."""


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


def stem_stride_of(asked: Literal[1, 2] | None, input_size: Shape) -> int:
    """The stride of the first convolution.

    Args:
        asked: It, or None for what suits the images.
        input_size: Shape ``(C, H, W)`` of one image.

    Example:
        >>> stem_stride_of(None, (3, 32, 32)), stem_stride_of(None, (3, 128, 96)), stem_stride_of(1, (3, 128, 96))
        (1, 2, 1)
    """
    return asked or 1 + (min(input_size[1:]) >= LARGE)
