"""Names of the ways to draw a network's weights."""

from __future__ import annotations

from typing import Literal, TypeAlias

Init: TypeAlias = Literal["kaiming", "gaussian", "keep"]
"""``kaiming``: for training; ``gaussian``: weights N(0, 1), for Zen-score; ``keep``: as they are."""
