"""How a run ended."""

from __future__ import annotations

from typing import Literal, TypeAlias

RunState: TypeAlias = Literal["done", "interrupted"]
"""``"done"``, or ``"interrupted"`` where the keyboard stopped a run, which then has what it has."""
