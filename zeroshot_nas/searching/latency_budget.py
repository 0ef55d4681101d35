"""A latency budget within a search: predictions guide it, measurements decide."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import BudgetError, InfeasibleBudgetError
from zeroshot_nas.latency.base import measure
from zeroshot_nas.latency.calibrate import find_table, is_here
from zeroshot_nas.latency.device_table import DeviceTable, LatencyTable
from zeroshot_nas.searchers.base import Candidate
from zeroshot_nas.spaces.base import SearchSpace

MEASURED_A_ROUND = 8
"""Finalists that are measured, best first, before a round is given up."""

MAX_ROUNDS = 6
"""How often a search goes on with a tighter prediction at most, the first round among them."""

HOPELESS = 1.5
"""How far over the limit the fittest finalists must be, all measured so far, for a round to be given up at once."""

_ENOUGH = 2
"""Measurements that tell it."""

_LEAST_STEP = 0.98
"""What a tightened limit is multiplied by at most, so that every round asks for less."""


@dataclass
class Deadline:
    """A latency budget, the table that predicts it, and what was measured.

    Attributes:
        limit_ms: What the winner may take.
        table: Predicts.
        here: Whether the table's device is this one, so that finalists can be measured.
        limits_ms: What predictions had to keep to, round by round.
        measured: Measurements by architecture key, in order: predicted, measured, spread.
        remembered: Measurements of an earlier run, by architecture key.
        tried: Measurements of this round.
        keep: Is told of every new measurement.
    """

    limit_ms: float
    table: LatencyTable
    here: bool
    limits_ms: list[float] = field(default_factory=list)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    remembered: dict[str, dict[str, Any]] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)
    keep: Callable[[dict[str, Any]], object] = lambda _: None

    def budget(self, budget: Budget) -> Budget:
        """The budget with the limit that predictions must keep to in this round."""
        return replace(budget, latency_ms=self.limits_ms[-1])

    def first_within(self, candidates: Iterable[Candidate], *, measures: bool = True) -> Candidate | None:
        """The fittest candidate that keeps to the budget.

        Candidates of a network's prediction above the current limit are passed over: those like them were too slow.
        Where the device is another one, the prediction's word is taken.

        Args:
            candidates: Scored and predicted.
            measures: Whether to measure what was not.
        """
        alive = [each for each in candidates if math.isfinite(each.fitness)]
        for candidate in sorted(alive, key=lambda each: each.fitness, reverse=True):
            predicted = candidate.costs.latency_ms
            assert predicted is not None, "a search under a latency budget predicts every network"
            known = self.measured.get(candidate.architecture.key)
            if predicted > self.limits_ms[-1] and known is None:
                continue
            if not self.here:
                return candidate
            if known is None:
                if not measures:
                    continue
                if len(self.tried) == MEASURED_A_ROUND or self._is_hopeless():
                    return None
                known = self._measure(candidate.architecture, predicted)
            if known["measured_ms"] <= self.limit_ms:
                return candidate
        return None

    def _is_hopeless(self) -> bool:
        """Whether what was measured in this round is so slow that the rest will be."""
        measured = [each["measured_ms"] for each in self.tried]
        return len(measured) >= _ENOUGH and min(measured) > HOPELESS * self.limit_ms

    def tighten(self) -> None:
        """Lowers the prediction's limit by the ratio that measurements have to predictions.

        Raises:
            InfeasibleBudgetError: It was lowered often enough.
        """
        ratios = [each["measured_ms"] / each["predicted_ms"] for each in self.tried]
        ratio = statistics.median(ratios) if ratios else 1.0
        if len(self.limits_ms) >= MAX_ROUNDS:
            raise self.given_up()
        self.tried.clear()
        self.limits_ms.append(min(self.limit_ms / ratio, self.limits_ms[-1] * _LEAST_STEP))

    def given_up(self) -> InfeasibleBudgetError:
        """The error of a search that found no network within the limit."""
        nearest = min((each["measured_ms"] for each in self.measured.values()), default=math.nan)
        return InfeasibleBudgetError(
            f"no network was measured within {self.limit_ms:g} ms on {self.table.fingerprint.backend}: "
            f"{len(self.measured)} finalists of {len(self.limits_ms)} rounds were over it, the nearest at "
            f"{nearest:.3g} ms. Measure when the machine is idle, calibrate anew, or raise the limit"
        )

    def outcome(self, winner: Candidate) -> dict[str, Any]:
        """What a result says of the budget."""
        known = self.measured.get(winner.architecture.key)
        fingerprint = self.table.fingerprint
        return {
            "limit_ms": self.limit_ms,
            "predicted_ms": winner.costs.latency_ms,
            "measured_ms": known and known["measured_ms"],
            "spread": known and known["spread"],
            "device": fingerprint.device,
            "backend": f"{fingerprint.backend} {fingerprint.backend_version}",
            "batch_size": fingerprint.batch_size,
            "threads": fingerprint.threads,
            "prediction_limits_ms": self.limits_ms,
            "measurements": list(self.measured.values()),
        }

    def _measure(self, architecture: Architecture, predicted_ms: float) -> dict[str, Any]:
        entry = self.remembered.get(architecture.key)
        if entry is None:
            at = self.table.fingerprint
            found = measure(architecture, at.backend, batch_size=at.batch_size, threads=at.threads)
            entry = {
                "architecture": architecture.key,
                "predicted_ms": predicted_ms,
                "measured_ms": found.latency_ms,
                "spread": found.spread,
                "stable": found.is_stable,
            }
            self.keep(entry)
        self.measured[architecture.key] = entry
        self.tried.append(entry)
        return entry

    def remember(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Takes over what an earlier run measured, instead of measuring it again: a resumed run goes the same way."""
        self.remembered.update({entry["architecture"]: dict(entry) for entry in entries})


def deadline_of(
    budget: Budget, space: SearchSpace, table: LatencyTable | str | Path | None, backend: str
) -> Deadline | None:
    """What a budget's latency limit is kept by; None where it has none.

    Args:
        budget: The budget.
        space: Where to search.
        table: A device table or its file; None looks for this machine's.
        backend: Which of this machine's tables.

    Raises:
        BudgetError: A table is given, but no limit on latency.
        LatencyError: There is no table for this machine, or it is another machine's.
        FileFormatError: The table's file can't be read.
    """
    if budget.latency_ms is None:
        if table is not None:
            raise BudgetError("a device table needs a limit on latency: Budget(latency_ms=...), or --max-latency")
        return None
    if table is None:
        table = find_table(space, backend)
    elif isinstance(table, str | Path):
        table = DeviceTable.load(table)
    return Deadline(budget.latency_ms, table, is_here(table.fingerprint), [budget.latency_ms])


def doubts(deadline: Deadline, space: SearchSpace) -> list[str]:
    """What a user should know of the table before trusting it."""
    table = deadline.table
    found = []
    if not deadline.here:
        found.append(
            f"the device table is of {table.fingerprint.device} with {table.fingerprint.backend} "
            f"{table.fingerprint.backend_version}, not of this machine: the winner's latency is predicted, not measured"
        )
    if (table.space, table.input_size) != (space.name, space.input_size):
        found.append(
            f"the device table was measured on networks of {table.space} for {table.input_size}, not of {space.name} "
            f"for {space.input_size}; predictions may be off"
        )
    if deadline.limit_ms > table.largest_ms:
        found.append(
            f"the slowest network of the device table took {table.largest_ms:.3g} ms, so predictions up to "
            f"{deadline.limit_ms:g} ms are extrapolated; calibrate with a larger --max-flops"
        )
    return found
