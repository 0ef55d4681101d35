"""What trials of a search came to: the networks that were trained for a short while, and which of them went on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.complexity import Costs


class Round(NamedTuple):
    """A round of trials.

    Attributes:
        networks: How many are in it.
        until: Epoch of the recipe at whose end it ends, for each of them.
    """

    networks: int
    until: int


@dataclass(frozen=True)
class Trial:
    """One network that was tried.

    Attributes:
        name: Its folder's name among the run's trials: ``found-3`` for the third of the search's ranking, else a
            hand-made network's name.
        architecture: The network.
        costs: Its costs.
        score: What the search ranked by; None where that failed.
        place: Where it stands by score among the networks that the search ranked, from 1.
        accuracies: Validation accuracy of the best epoch up to the end of each round that it was in.
        dropped: Round, from 1, after which it did not go on; None for the winner, and while it is not decided.
        failure: Why it could not be trained on.
    """

    name: str
    architecture: Architecture
    costs: Costs
    score: float | None
    place: int
    accuracies: tuple[float, ...] = ()
    dropped: int | None = None
    failure: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        own = {"architecture": self.architecture.to_dict(), "costs": self.costs.to_dict()}
        return {**vars(self), **own, "accuracies": list(self.accuracies)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """Reads what `to_dict` gives."""
        own = {"architecture": Architecture.from_dict(data["architecture"]), "costs": Costs(**data["costs"])}
        return cls(**{**data, **own, "accuracies": tuple(data["accuracies"])})


@dataclass(frozen=True)
class Trials:
    """What was tried, round by round.

    Attributes:
        trials: The networks, in the order in which they were chosen.
        rounds: The rounds as planned.
        recipe_epochs: Epochs of the whole recipe, which one full training has.
        data: What they were trained on.
    """

    trials: tuple[Trial, ...]
    rounds: tuple[Round, ...]
    recipe_epochs: int
    data: str

    @property
    def epochs(self) -> int:
        """Epochs of all trials together, as planned."""
        return planned_epochs(self.rounds)

    @property
    def winner(self) -> Trial | None:
        """The trial that was never dropped; None as long as it is not decided."""
        left = [trial for trial in self.trials if trial.dropped is None]
        return left[0] if len(left) == 1 else None

    def plan(self) -> str:
        """The rounds and what they cost, in words."""
        rounds = ", ".join(f"{each.networks} to epoch {each.until}" for each in self.rounds) or "nothing to decide"
        return (
            f"{len(self.trials)} networks on {self.data}: {rounds}; {self.epochs} epochs in all, one full training has "
            f"{self.recipe_epochs}"
        )

    def rows(self) -> list[tuple[str, str]]:
        """A table to print, the winner first."""
        heads = [*(f"epoch {each.until}" for each in self.rounds), "dropped", "score", "place", "params", "FLOPs"]
        rows = [heads, *map(self._cells, sorted(self.trials, key=_standing))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        texts = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        names = ["trial", *(trial.name for trial in sorted(self.trials, key=_standing))]
        failures = [(trial.name, trial.failure) for trial in self.trials if trial.failure]
        return [("trials", self.plan()), *zip(names, texts, strict=True), *failures]

    def _cells(self, trial: Trial) -> list[str]:
        accuracies = [f"{accuracy:.2%}" for accuracy in trial.accuracies]
        became = "winner" if trial is self.winner else "" if trial.dropped is None else f"round {trial.dropped}"
        score = "failed" if trial.score is None else f"{trial.score:.6g}"
        costs = (f"{trial.costs.params:,}", f"{trial.costs.flops:,}")
        return [*accuracies, *[""] * (len(self.rounds) - len(accuracies)), became, score, str(trial.place), *costs]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        trials = [trial.to_dict() for trial in self.trials]
        return {**vars(self), "trials": trials, "rounds": [each._asdict() for each in self.rounds]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trials:
        """Reads what `to_dict` gives."""
        trials = tuple(map(Trial.from_dict, data["trials"]))
        return cls(**{**data, "trials": trials, "rounds": tuple(Round(**each) for each in data["rounds"])})


def planned_epochs(rounds: tuple[Round, ...]) -> int:
    """Epochs of all trials together.

    Example:
        >>> planned_epochs((Round(4, 2), Round(2, 5)))
        14
    """
    starts = (0, *(each.until for each in rounds))
    return sum(each.networks * (each.until - start) for each, start in zip(rounds, starts, strict=False))


def _standing(trial: Trial) -> tuple[float, float]:
    """The further it came the smaller, then the more accurate."""
    came = float("inf") if trial.dropped is None else trial.dropped
    return -came, -(trial.accuracies[-1] if trial.accuracies else 0.0)
