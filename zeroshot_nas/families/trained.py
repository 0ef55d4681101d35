"""What came of the trainings of a family. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from zeroshot_nas.comparing.comparison import Estimate
from zeroshot_nas.core.checks import parsed
from zeroshot_nas.core.frames import data_frame
from zeroshot_nas.core.html import html_table
from zeroshot_nas.core.state import RunState
from zeroshot_nas.errors import FileFormatError, UnknownNameError
from zeroshot_nas.families.family import Member
from zeroshot_nas.training.recipe import Recipe
from zeroshot_nas.training.result import wilson_interval

if TYPE_CHECKING:
    import pandas

RESULT_FILE = "trained.json"
"""What a finished run holds."""

_FORMAT = "zeroshot_nas.trained_family"
_VERSION = 1
_HEADS = ("test accuracy", "epochs", "params", "FLOPs", "ms", "begun")


@dataclass(frozen=True)
class TrainedMember:
    """One trained network of a family.

    Attributes:
        name: The member.
        begun: Where its first weights were from: ``"scratch"``, ``"sliced from NAME"``, ``"grown from NAME"``.
        epochs: Epochs of its own.
        right: Test images that it classifies right.
        images: Test images.
        seconds: Wall time of its training.
        params: Trainable values.
        flops: FLOPs (multiply-adds) for one image.
        latency_ms: Its latency, measured or predicted; None where no budget was on latency.
        device: The device of that latency.
    """

    name: str
    begun: str
    epochs: int
    right: int
    images: int
    seconds: float = field(compare=False)
    params: int
    flops: int
    latency_ms: float | None
    device: str

    @classmethod
    def of(cls, member: Member, body: Mapping[str, Any]) -> TrainedMember:
        """A member with what a run's journal keeps of its training."""
        own = {name: body[name] for name in ("begun", "epochs", "right", "images", "seconds")}
        costs = member.candidate.costs
        about: dict[str, Any] = {"latency_ms": member.latency_ms, "device": member.device}
        return cls(name=member.name, params=costs.params, flops=costs.flops, **about, **own)

    @property
    def accuracy(self) -> Estimate:
        """Test accuracy with Wilson's 95 % interval."""
        return Estimate(self.right / self.images, *wilson_interval(self.right, self.images))


@dataclass(frozen=True)
class TrainedFamily:
    """A family that was trained, the largest member first.

    Attributes:
        members: The members.
        data: Name of the data.
        recipe: Of the member that began.
        way: ``"slice"``, ``"grow"`` or ``"scratch"``.
        share: Of the recipe's epochs for members that inherited.
        distill: Whether the others learned from the largest.
        seed: Of all trainings.
        state: ``"done"``, or ``"interrupted"``.
    """

    members: tuple[TrainedMember, ...]
    data: str
    recipe: Recipe
    way: str
    share: float
    distill: bool
    seed: int
    state: RunState = "done"

    def __getitem__(self, name: str) -> TrainedMember:
        found = next((each for each in self.members if each.name == name), None)
        if found is None:
            raise UnknownNameError("member", name, [each.name for each in self.members])
        return found

    def __repr__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(["TrainedFamily", *(f"{name:<{width}}{text}" for name, text in rows)])

    def _repr_html_(self) -> str:
        """For notebooks: the table that `rows` prints."""
        rows = [[each.name, *_cells(each)] for each in self.members]
        return html_table(f"Family on {self.data}, {self.state}", rows, ["member", *_HEADS])

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each member.

        Raises:
            MissingExtraError: The extra ``pandas`` is not installed.
        """
        return data_frame([{**asdict(each), "accuracy": each.accuracy.value} for each in self.members])

    def rows(self) -> list[tuple[str, str]]:
        """A table to print, the largest member first."""
        cells = [list(_HEADS), *map(_cells, self.members)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        texts = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        rows = list(zip(["member", *(each.name for each in self.members)], texts, strict=True))
        total, alone = sum(each.epochs for each in self.members), self.recipe.epochs * len(self.members)
        taught = ", learning from the largest" if self.distill else ""
        rows.append(("trained", f"{total} epochs on {self.data}{taught}; each for itself would be {alone}"))
        rows.append(("time", f"{sum(each.seconds for each in self.members):.1f} s"))
        return [*rows, ("state", "interrupted; these are the members that are done")] if self.state != "done" else rows

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        members = [{**asdict(each), "accuracy": list(each.accuracy)} for each in self.members]
        return {
            "format": _FORMAT,
            "version": _VERSION,
            **vars(self),
            "members": members,
            "recipe": self.recipe.to_dict(),
        }

    def to_json(self) -> str:
        """JSON text; `from_json` reads it back."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainedFamily:
        """Reads what `to_json` gives.

        Raises:
            FileFormatError: The text is no trained family.
        """
        data = parsed(text, _FORMAT, _VERSION, "a trained family")
        try:
            members = [{name: value for name, value in each.items() if name != "accuracy"} for each in data["members"]]
            found = cls(
                members=tuple(TrainedMember(**each) for each in members),
                recipe=Recipe(**data["recipe"]),
                **{name: data[name] for name in ("data", "way", "share", "distill", "seed", "state")},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"not a valid trained family: {type(error).__name__}: {error}") from error
        if not found.members:
            raise FileFormatError("not a valid trained family: it has no members")
        return found


def _cells(member: TrainedMember) -> list[str]:
    latency = "-" if member.latency_ms is None else f"{member.latency_ms:.3g}"
    return [str(member.accuracy), str(member.epochs), f"{member.params:,}", f"{member.flops:,}", latency, member.begun]
