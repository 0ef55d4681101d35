"""The capacities that CET can be made of, by name; see `zeroshot_nas.closed_form.cet.score.cet`."""

from __future__ import annotations

from typing import Literal, TypeAlias

Variant: TypeAlias = Literal["u", "g", "p", "pf", "gm"]
