"""What came of training: one result, with a record of every epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from zeroshot_nas.training.checkpoint import TrainedNetwork
    from zeroshot_nas.training.recipe import Recipe

State: TypeAlias = Literal["running", "done", "interrupted"]


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
        test_accuracy: Fraction of test images that the best weights classify right; NaN in state ``"running"``.
        validation_accuracy: Fraction of validation images that they classify right; None without such images.
        best_epoch: Epoch of the best weights, from 1.
        epochs: Epochs done; fewer than the recipe's where it has patience, or after Ctrl-C.
        seconds: Wall time of the whole run, of all its pieces if it was resumed.
        params: Trainable values of the network.
        state: ``"done"``, ``"interrupted"`` (by Ctrl-C), or in a run's file also ``"running"``.
        weights: File of the best weights; None where no folder was given.
        history: One record an epoch.
        recipe: The recipe.
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
    state: State
    weights: Path | None
    history: tuple[EpochRecord, ...] = field(repr=False)
    recipe: Recipe
    data: str
    seed: int
    network: TrainedNetwork = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the network."""
        values = {name: value for name, value in vars(self).items() if name != "network"}
        return {
            **values,
            "test_accuracy": None if math.isnan(self.test_accuracy) else self.test_accuracy,
            "weights": None if self.weights is None else str(self.weights),
            "history": [asdict(record) for record in self.history],
            "recipe": self.recipe.to_dict(),
        }
