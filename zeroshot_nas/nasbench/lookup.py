"""The trained accuracy of a network that a search found, from a benchmark's table."""

from __future__ import annotations

from typing import NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.errors import ArchitectureError, DataError, UnknownNameError
from zeroshot_nas.nasbench.table import BenchmarkTable
from zeroshot_nas.spaces.base import SearchSpace


class Lookup(NamedTuple):
    """What a benchmark knows of an architecture.

    Attributes:
        accuracy: Its trained accuracy in percent.
        best: The best in the table.
        rank: How many of the table are better, plus one.
        population: Architectures in the table.
        source: Which accuracies these are.
    """

    accuracy: float
    best: float
    rank: int
    population: int
    source: str

    @property
    def regret(self) -> float:
        """Percentage points below the best."""
        return self.best - self.accuracy

    def rows(self) -> list[tuple[str, str]]:
        """For a table on the screen."""
        return [
            ("trained accuracy", f"{self.accuracy:.2f}% ({self.source})"),
            ("regret", f"{self.regret:.2f} points below the best, {self.best:.2f}%"),
            ("rank", f"{self.rank:,} of {self.population:,}"),
        ]


def look_up(architecture: Architecture, space: SearchSpace, table: BenchmarkTable) -> Lookup:
    """Looks an architecture's trained accuracy up.

    Args:
        architecture: A network of the space.
        space: The space that writes it as the table does.
        table: The benchmark's.

    Raises:
        DataError: The table is of another space, or does not hold the architecture.
    """
    if table.space and table.space != space.name:
        raise DataError(f"{table.name} holds architectures of {table.space}, and this one is of {space.name}")
    try:
        text = space.to_string(architecture, table.code)
    except (ArchitectureError, UnknownNameError) as error:
        raise DataError(
            f"{space.name} can't write architectures as {table.name} does ({table.code}): {error}"
        ) from error
    accuracy = table.accuracy_of(text)
    better = int((table.accuracy > accuracy).sum())
    return Lookup(accuracy, float(table.accuracy.max()), better + 1, len(table), table.source)
