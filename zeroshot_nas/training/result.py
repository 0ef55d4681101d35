"""What came of training: one result, with a record of every epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from zeroshot_nas.core.frames import data_frame
from zeroshot_nas.core.html import html_table

if TYPE_CHECKING:
    import pandas

    from zeroshot_nas.training.checkpoint import Trained
    from zeroshot_nas.training.recipe import Recipe

State: TypeAlias = Literal["running", "done", "interrupted"]
Confusion: TypeAlias = tuple[tuple[int, ...], ...]

_SHOWN = 10
"""Classes that are shown one by one."""

_Z95 = 1.959963984540054
"""Standard normal deviate that 95 % lie within."""


def wilson_interval(right: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a fraction ``p = right / count`` (Wilson, 1927), which holds near 0 and 1 and for few, too.

    ``(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)`` with ``z = 1.96``.

    Args:
        right: How many of them; of several samples of one size the mean.
        count: How many in all, 1 or more.

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(8, 10)]
        [0.4902, 0.9433]
    """
    share, z2 = right / count, _Z95**2 / count
    middle, half = share + z2 / 2, _Z95 * math.sqrt(share * (1 - share) / count + z2 / count / 4)
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to.

    Attributes:
        epoch: Number of the epoch, from 1.
        learning_rate: Learning rate of its last step.
        train_loss: Mean loss over its augmented images, while the weights changed.
        validation_accuracy: Fraction of validation images classified right after it; None without such images.
        seconds: Wall time.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_accuracy: float | None
    seconds: float

    def row(self) -> str:
        """A line of the table that `HEADER` heads."""
        accuracy = "" if self.validation_accuracy is None else f"{self.validation_accuracy:.2%}"
        return (
            f"{self.epoch:>5} {self.learning_rate:>13.5f} {self.train_loss:>10.4f} {accuracy:>10} {self.seconds:>7.1f}"
        )


HEADER = f"{'epoch':>5} {'learning rate':>13} {'train loss':>10} {'validation':>10} {'seconds':>7}"


@dataclass(frozen=True)
class TrainResult:
    """What came of training.

    Attributes:
        test_accuracy: Fraction of test images that the best weights classify right; NaN as long as these were not
            looked at, which is the case while a run in a folder is not at its end.
        validation_accuracy: Fraction of validation images that they classify right; None without such images.
        best_epoch: Epoch of the best weights, from 1.
        epochs: Epochs done; fewer than the recipe's where it has patience, or after Ctrl-C.
        seconds: Wall time of the whole run, of all its pieces if it was resumed.
        params: Trainable values of the network.
        images: How many images were learned from, chose the best epoch, and were tested on, under ``"train"``,
            ``"validation"`` and ``"test"``.
        confusion: Numbers of test images: row i, column j has those of class i that were taken for class j; None as
            long as the test images were not looked at.
        class_names: The classes, in the order of rows and columns.
        state: ``"done"``, ``"interrupted"`` (by Ctrl-C), or in a run's file also ``"running"``.
        weights: File of the best weights; None where no folder was given.
        history: One record an epoch.
        recipe: The recipe.
        precision: ``"float32"`` or ``"bfloat16"``, in which it was trained; weights are float32 either way.
        data: Name of the data.
        seed: The seed.
        network: The network with the best weights, as ``zeroshot_nas.load`` would give it.
    """

    test_accuracy: float
    validation_accuracy: float | None
    best_epoch: int
    epochs: int
    seconds: float
    params: int
    images: Mapping[str, int]
    confusion: Confusion | None = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    state: State
    weights: Path | None
    history: tuple[EpochRecord, ...] = field(repr=False)
    recipe: Recipe
    precision: str
    data: str
    seed: int
    network: Trained = field(repr=False, compare=False)

    def __repr__(self) -> str:
        low, high = self.test_interval
        known = f"test accuracy {self.test_accuracy:.2%} ({low:.1%} to {high:.1%})" if self.confusion else "not tested"
        done = f"epoch {self.best_epoch} of {self.epochs}, {self.params:,} params, data {self.data}, seed {self.seed}"
        return f"TrainResult({self.state}, {known}, {done}, weights {self.weights})"

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return html_table(f"Training on {self.data}, {self.state}", self.rows())

    def to_pandas(self) -> pandas.DataFrame:
        """The history: a row an epoch.

        Raises:
            MissingExtraError: The extra ``pandas`` is not installed.
        """
        return data_frame(map(asdict, self.history), [each.name for each in fields(EpochRecord)])

    @property
    def test_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the test accuracy; NaN as long as that is."""
        if self.confusion is None:
            return math.nan, math.nan
        right = sum(row[index] for index, row in enumerate(self.confusion))
        return wilson_interval(right, sum(map(sum, self.confusion)))

    @property
    def class_accuracy(self) -> dict[str, float]:
        """Fraction of the test images of each class that are classified right, NaN for a class that has none."""
        rows = self.confusion or ()
        return {
            name: row[index] / sum(row) if sum(row) else math.nan
            for index, (name, row) in enumerate(zip(self.class_names, rows, strict=False))
        }

    def rows(self) -> list[tuple[str, str]]:
        """What came of it as names and values to print."""
        left = self.images["test"]
        if self.confusion is None:
            tested = [("test accuracy", f"not known: the {left:,} test images are looked at once, at the end")]
        else:
            low, high = self.test_interval
            said = f"{self.test_accuracy:.2%} of {left:,} images (95 % interval {low:.1%} to {high:.1%})"
            tested = [("test accuracy", said), ("by class", self._by_class())]
            tested += [("most confused", text) for text in [self._most_confused()] if text]
        accuracy = self.validation_accuracy
        by = "the last" if accuracy is None else f"by validation accuracy {accuracy:.2%}"
        rounded = self.recipe.quantization
        seen = f"{self.images['train']:,} to learn from, {self.images['validation']:,} to choose the epoch"
        rows = [
            *tested,
            ("best epoch", f"{self.best_epoch} of {self.epochs}, {by}"),
            ("images", f"{seen}, {left:,} to test"),
            *(
                []
                if rounded is None
                else [("values", f"rounded to {rounded.replace('_power_of_two', ', scales powers of two')}")]
            ),
            ("time", f"{self.seconds:.1f} s, trained in {self.precision}"),
        ]
        if self.state == "interrupted":
            way_on = "" if self.weights is None else f"; go on with: zeroshot-nas resume {self.weights.parent}"
            rows.append(("state", f"interrupted after {self.epochs} of {self.recipe.epochs} epochs{way_on}"))
        return [*rows, ("weights", str(self.weights))] if self.weights else rows

    def _by_class(self) -> str:
        accuracies = {name: value for name, value in self.class_accuracy.items() if not math.isnan(value)}
        worst = sorted(accuracies, key=lambda name: accuracies[name])
        shown = [f"{name} {accuracies[name]:.1%}" for name in (accuracies if len(accuracies) <= _SHOWN else worst)]
        more = f", … ({len(shown)} classes, the worst first)" if len(shown) > _SHOWN else ""
        return ", ".join(shown[:_SHOWN]) + more

    def _most_confused(self) -> str:
        pairs = [
            (count, self.class_names[actual], self.class_names[said])
            for actual, row in enumerate(self.confusion or ())
            for said, count in enumerate(row)
            if count and actual != said
        ]
        pairs.sort(key=lambda pair: -pair[0])
        return ", ".join(f"{actual} taken for {said} ({count})" for count, actual, said in pairs[:3])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the network."""
        values = {name: value for name, value in vars(self).items() if name != "network"}
        known = self.confusion is not None
        return {
            **values,
            "test_accuracy": None if math.isnan(self.test_accuracy) else self.test_accuracy,
            "test_interval": list(self.test_interval) if known else None,
            "class_accuracy": {
                name: None if math.isnan(value) else value for name, value in self.class_accuracy.items()
            }
            if known
            else None,
            "images": dict(self.images),
            "confusion": None if self.confusion is None else [list(row) for row in self.confusion],
            "class_names": list(self.class_names),
            "weights": None if self.weights is None else str(self.weights),
            "history": [asdict(record) for record in self.history],
            "recipe": self.recipe.to_dict(),
        }
