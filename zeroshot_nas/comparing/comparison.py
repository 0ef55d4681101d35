"""What came of a comparison: accuracies with intervals beside costs. No torch here."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.checks import parsed
from zeroshot_nas.core.frames import data_frame
from zeroshot_nas.core.html import html_table
from zeroshot_nas.core.state import RunState
from zeroshot_nas.costs.complexity import Costs
from zeroshot_nas.errors import FileFormatError, UnknownNameError
from zeroshot_nas.training.recipe import Recipe
from zeroshot_nas.training.result import wilson_interval

if TYPE_CHECKING:
    import pandas

_FORMAT = "zeroshot_nas.comparison"
_VERSION = 1
_HEADS = ("test accuracy", "params", "FLOPs", "ms")


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True)
class Training:
    """One training of a network.

    Attributes:
        seed: Its seed.
        right: Test images that it classifies right; None where it failed.
        seconds: Wall time.
        failure: Why it could not be trained.
    """

    seed: int
    right: int | None
    seconds: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class Compared:
    """One network of a comparison.

    Attributes:
        name: What it is called, and its trainings' folders begin with.
        architecture: The network.
        string: As people write it.
        by_hand: Whether it is one of the hand-made ones.
        costs: Its costs, with the latency that was measured.
        test_images: How many images each training was tested on.
        trainings: Its trainings, by seed; those that are done.
    """

    name: str
    architecture: Architecture
    string: str
    by_hand: bool
    costs: Costs
    test_images: int
    trainings: tuple[Training, ...] = ()

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Test accuracy of each training that did not fail."""
        return tuple(each.right / self.test_images for each in self.trainings if each.right is not None)

    @property
    def accuracy(self) -> Estimate | None:
        """Mean test accuracy of the trainings; None without any.

        The interval holds what another draw of test images and another draw of seeds would change: half of it is the
        square root of the sum of two squares, half of Wilson's interval at the mean accuracy, and of Student's interval
        of the mean over the seeds, where there are several.
        """
        found = self.accuracies
        if not found:
            return None
        mean = statistics.fmean(found)
        low, high = wilson_interval(mean * self.test_images, self.test_images)
        half = 0.0
        if len(found) > 1:
            half = _student(len(found) - 1) * statistics.stdev(found) / math.sqrt(len(found))
        return Estimate(
            mean, max(0.0, mean - math.hypot(mean - low, half)), min(1.0, mean + math.hypot(high - mean, half))
        )

    def ahead_of(self, other: Compared) -> Estimate | None:
        """By how much it is more accurate than another; None where either has no accuracy.

        The interval is as wide as if both had been tested on images of their own, which is wider than it need be.
        """
        mine, its = self.accuracy, other.accuracy
        if mine is None or its is None:
            return None
        below = math.hypot(mine.value - mine.low, its.high - its.value)
        above = math.hypot(mine.high - mine.value, its.value - its.low)
        difference = mine.value - its.value
        return Estimate(difference, difference - below, difference + above)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, what follows from the rest included."""
        accuracy = self.accuracy
        return {
            **vars(self),
            "architecture": self.architecture.to_dict(),
            "costs": self.costs.to_dict(),
            "trainings": [asdict(each) for each in self.trainings],
            "accuracy": None if accuracy is None else accuracy.value,
            "accuracy_interval": None if accuracy is None else [accuracy.low, accuracy.high],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Compared:
        """Reads what `to_dict` gives."""
        own = {name: data[name] for name in ("name", "string", "by_hand", "test_images")}
        return cls(
            **own,
            architecture=Architecture.from_dict(data["architecture"]),
            costs=Costs(**data["costs"]),
            trainings=tuple(Training(**each) for each in data["trainings"]),
        )


@dataclass(frozen=True)
class Comparison:
    """Networks that were trained by one recipe, the one in question first.

    Attributes:
        networks: The networks, in the order in which they were given.
        data: Name of the data.
        recipe: The recipe.
        seeds: Seeds of each network's trainings.
        latency: Where latencies were measured, in words; why not, where they were not.
        state: ``"done"``, or ``"interrupted"``.
    """

    networks: tuple[Compared, ...]
    data: str
    recipe: Recipe
    seeds: tuple[int, ...]
    latency: str
    state: RunState

    def __getitem__(self, name: str) -> Compared:
        found = next((each for each in self.networks if each.name == name), None)
        if found is None:
            raise UnknownNameError("network", name, [each.name for each in self.networks])
        return found

    def __repr__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(["Comparison", *(f"{name:<{width}}{text}" for name, text in rows)])

    def _repr_html_(self) -> str:
        """For notebooks: the table that `rows` prints, and its verdicts."""
        rows = [[each.name, *self._cells(each)] for each in self.by_accuracy()]
        verdicts = [("verdict", verdict) for verdict in self.verdicts()]
        title = f"Comparison on {self.data}, {self.state}"
        table = html_table(title, rows, ["network", *self._heads])
        return table + (html_table("Verdicts", verdicts) if verdicts else "")

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each training: network, seed, test accuracy, costs.

        Raises:
            MissingExtraError: The extra ``pandas`` is not installed.
        """
        costs = ("params", "flops", "latency_ms")
        rows = [
            {
                "network": each.name,
                "by_hand": each.by_hand,
                "seed": training.seed,
                "accuracy": None if training.right is None else training.right / each.test_images,
                "seconds": training.seconds,
                "failure": training.failure,
                **{name: getattr(each.costs, name) for name in costs},
                "string": each.string,
            }
            for each in self.networks
            for training in each.trainings
        ]
        head = ("network", "by_hand", "seed", "accuracy", "seconds", "failure", *costs, "string")
        return data_frame(rows, head)

    def by_accuracy(self) -> list[Compared]:
        """The networks, the most accurate first, those without an accuracy last."""
        return sorted(self.networks, key=lambda each: -(each.accuracy.value if each.accuracy else -1.0))

    def rows(self) -> list[tuple[str, str]]:
        """A table to print, the most accurate first, and what it says of the first network."""
        ordered = self.by_accuracy()
        cells = [self._heads, *map(self._cells, ordered)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        texts = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        rows = list(zip(["network", *(each.name for each in ordered)], texts, strict=True))
        rows += [(each.name, failure) for each in ordered for failure in _failures(each)]
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) != 1)}"
        rows.append(("trained", f"{self.recipe.epochs} epochs on {self.data}, {seeds}; 95 % intervals"))
        rows += [("verdict", verdict) for verdict in self.verdicts()]
        rows.append(("latency", self.latency))
        return (
            [*rows, ("state", "interrupted; these are the trainings that are done")] if self.state != "done" else rows
        )

    @property
    def differ_in_input(self) -> bool:
        """Whether the networks take images of several sizes."""
        return len({each.architecture.input_size for each in self.networks}) > 1

    @property
    def _heads(self) -> tuple[str, ...]:
        return (*_HEADS, "input") if self.differ_in_input else _HEADS

    def _cells(self, network: Compared) -> Sequence[str]:
        size = "x".join(map(str, network.architecture.input_size))
        return [*_cells(network), size] if self.differ_in_input else _cells(network)

    def verdicts(self) -> list[str]:
        """What the intervals say of the first network beside each other one."""
        first, *others = self.networks
        found = [(other, first.ahead_of(other)) for other in others]
        return [_verdict(first.name, other.name, ahead) for other, ahead in found if ahead is not None]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            **vars(self),
            "networks": [each.to_dict() for each in self.networks],
            "recipe": self.recipe.to_dict(),
            "seeds": list(self.seeds),
            "verdicts": self.verdicts(),
        }

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Reads what `to_json` gives.

        Raises:
            FileFormatError: The text is no comparison.
        """
        data = parsed(text, _FORMAT, _VERSION, "a comparison")
        try:
            found = cls(
                networks=tuple(map(Compared.from_dict, data["networks"])),
                recipe=Recipe(**data["recipe"]),
                seeds=tuple(data["seeds"]),
                **{name: data[name] for name in ("data", "latency", "state")},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"not a valid comparison: {type(error).__name__}: {error}") from error
        if not found.networks:
            raise FileFormatError("not a valid comparison: it has no networks")
        return found


def with_training(network: Compared, body: Mapping[str, Any]) -> Compared:
    """A network with one training more, as a run's journal keeps it."""
    training = Training(body["seed"], body.get("right"), body.get("seconds", 0.0), body["failure"])
    images = network.test_images if training.right is None else body["images"]
    return replace(network, trainings=(*network.trainings, training), test_images=images)


def with_latency(network: Compared, body: Mapping[str, Any]) -> tuple[Compared, str]:
    """A network with its latency, and where that was measured, as a run's journal keeps it."""
    where = str(body["measured"]).partition(" on ")[2].rpartition(", ")[0]
    return replace(network, costs=network.costs.with_latency(body["latency_ms"])), f"{where}, on this machine"


def _cells(network: Compared) -> Sequence[str]:
    costs = network.costs
    accuracy = "-" if network.accuracy is None else str(network.accuracy)
    latency = "-" if costs.latency_ms is None else f"{costs.latency_ms:.3g}"
    return [accuracy, f"{costs.params:,}", f"{costs.flops:,}", latency]


def _failures(network: Compared) -> list[str]:
    return [f"seed {each.seed}: {each.failure}" for each in network.trainings if each.failure]


def _verdict(name: str, other: str, ahead: Estimate) -> str:
    points = f"{100 * abs(ahead.value):.1f} points ({100 * ahead.low:+.1f} to {100 * ahead.high:+.1f})"
    side = "ahead of" if ahead.value >= 0 else "behind"
    within = ": within the noise" if ahead.low <= 0 <= ahead.high else ""
    return f"{name} is {points} {side} {other}{within}"


def _student(degrees: int) -> float:
    """Student's deviate that 95 % lie within."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))
