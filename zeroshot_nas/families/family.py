"""A family of networks: one for each budget, with what they cost and how they score. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import parsed
from zeroshot_nas.core.frames import data_frame
from zeroshot_nas.core.html import html_table
from zeroshot_nas.core.state import RunState
from zeroshot_nas.errors import FileFormatError, UnknownNameError
from zeroshot_nas.searchers.base import Candidate

if TYPE_CHECKING:
    import pandas

RESULT_FILE = "family.json"
"""What a finished run holds."""

FREE, NESTED = "searches", "nested"
"""Folders of a run that hold its searches, and those of networks that the next larger member contains."""

_FORMAT = "zeroshot_nas.family"
_VERSION = 1


@dataclass(frozen=True)
class Member:
    """One network of a family.

    Attributes:
        name: What it is called, and its files are.
        limits: What it must keep to, by cost.
        device: The device that its latency is of; empty where nothing limits it.
        candidate: The network with costs and scores.
        measured_ms: Its latency as it was measured; None where it was not.
        free_score: Of a nested family the score of the network that was found without nesting; else None.
    """

    name: str
    limits: Mapping[str, float]
    device: str
    candidate: Candidate
    measured_ms: float | None = None
    free_score: float | None = None

    @property
    def architecture(self) -> Architecture:
        """The network."""
        return self.candidate.architecture

    @property
    def score(self) -> float:
        """What its search ranked by."""
        return next(iter(self.candidate.scores.values())).value

    @property
    def latency_ms(self) -> float | None:
        """Its latency: measured, or else predicted."""
        return self.candidate.costs.latency_ms if self.measured_ms is None else self.measured_ms

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "limits": dict(self.limits), "candidate": self.candidate.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Member:
        """Reads what `to_dict` gives."""
        return cls(**{**data, "candidate": Candidate.from_dict(data["candidate"])})


@dataclass(frozen=True)
class Family:
    """One network for each budget, the largest budget first.

    Attributes:
        members: The networks.
        proxy: Key of what they were ranked by.
        nested: Whether each contains the next one.
        proposals: Networks that were proposed in all.
        seconds: Wall time of the searches.
        settings: What the family was asked for.
        state: ``"done"``, or ``"interrupted"`` where some budgets have no network yet.

    Example:
        >>> import zeroshot_nas as zs
        >>> from zeroshot_nas.families.nesting import contains
        >>> budgets = [zs.Budget(params=20e3), zs.Budget(params=10e3)]
        >>> found = zs.family("vanilla", "ceres", budgets, input_size=(1, 8, 8), nested=True, proposals=400,
        ...                   progress=False)
        >>> [member.name for member in found.members], found["10k-params"].candidate.costs.params <= 10_000
        (['20k-params', '10k-params'], True)
        >>> contains(found.members[0].architecture, found.members[1].architecture)
        True
    """

    members: tuple[Member, ...]
    proxy: str
    nested: bool
    proposals: int
    seconds: float = field(compare=False)
    settings: Mapping[str, Any]
    state: RunState = "done"

    def __getitem__(self, name: str) -> Member:
        found = next((each for each in self.members if each.name == name), None)
        if found is None:
            raise UnknownNameError("member", name, [each.name for each in self.members])
        return found

    def __repr__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(["Family", *(f"{name:<{width}}{text}" for name, text in rows)])

    def _repr_html_(self) -> str:
        """For notebooks: the table that `rows` prints."""
        title = f"Family by {self.proxy}, {self.state}"
        return html_table(title, [[each.name, *self._cells(each)] for each in self.members], ["member", *self._heads])

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each member: its costs, its score, its network.

        Raises:
            MissingExtraError: The extra ``pandas`` is not installed.
        """
        rows = [
            {
                "member": each.name,
                "score": each.score,
                "free_score": each.free_score,
                "device": each.device,
                **each.candidate.costs.to_dict(),
                "measured_ms": each.measured_ms,
                "string": each.candidate.string,
            }
            for each in self.members
        ]
        return data_frame(rows)

    def rows(self) -> list[tuple[str, str]]:
        """A table to print: a line for each member, what nesting costs, the networks."""
        cells = [self._heads, *map(self._cells, self.members)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        texts = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        rows = list(zip(["member", *(each.name for each in self.members)], texts, strict=True))
        if self.nested:
            rows.append(("nesting", self._price()))
        rows += [(each.name, each.candidate.string or str(each.architecture)) for each in self.members]
        rows.append(("searched", f"{self.proposals:,} proposals in {self.seconds:.1f} s"))
        return [*rows, ("state", "interrupted; these are the members that are done")] if self.state != "done" else rows

    def nesting_costs(self) -> dict[str, float]:
        """By member, what nesting costs: the part of the free network's score that the nested one lacks.

        Negative where the nested one is better, which a search can always be by chance.
        """
        sign = -1 if self.settings.get("lower_is_better") else 1
        return {
            each.name: sign * (each.free_score - each.score) / max(abs(each.free_score), 1e-12)
            for each in self.members
            if each.free_score is not None
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            **vars(self),
            "members": [each.to_dict() for each in self.members],
            "nesting_costs": self.nesting_costs(),
        }

    def to_json(self) -> str:
        """JSON text; `from_json` reads it back."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Family:
        """Reads what `to_json` gives.

        Raises:
            FileFormatError: The text is no family.
        """
        data = parsed(text, _FORMAT, _VERSION, "a family")
        try:
            found = cls(
                members=tuple(map(Member.from_dict, data["members"])),
                **{name: data[name] for name in ("proxy", "nested", "proposals", "seconds", "settings", "state")},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"not a valid family: {type(error).__name__}: {error}") from error
        if not found.members:
            raise FileFormatError("not a valid family: it has no members")
        return found

    @property
    def _heads(self) -> list[str]:
        timed = any(each.latency_ms is not None for each in self.members)
        return [*(["ms"] if timed else []), "params", "FLOPs", "layers", self.proxy, *(["free"] if self.nested else [])]

    def _cells(self, member: Member) -> list[str]:
        costs, latency = member.candidate.costs, member.latency_ms
        timed = any(each.latency_ms is not None for each in self.members)
        cells = [f"{costs.params:,}", f"{costs.flops:,}", str(costs.layers), f"{member.score:.6g}"]
        free = member.free_score
        return [
            *([f"{latency:.3g}" if latency is not None else "-"] if timed else []),
            *cells,
            *(["-" if free is None else f"{free:.6g}"] if self.nested else []),
        ]

    def _price(self) -> str:
        costs = self.nesting_costs()
        worst = max(costs, key=lambda name: costs[name])
        mean = math.fsum(costs.values()) / len(costs)
        return f"costs {mean:+.2%} of the score in the mean, {costs[worst]:+.2%} at worst ({worst})"
