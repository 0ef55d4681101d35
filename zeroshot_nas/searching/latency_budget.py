"""A latency budget within a search: predictions guide it, measurements decide."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.errors import BudgetError, InfeasibleBudgetError
from zeroshot_nas.latency.base import measure
from zeroshot_nas.latency.calibrate import find_table, is_here
from zeroshot_nas.latency.device_table import DeviceTable, LatencyTable
from zeroshot_nas.runs.session import RunSession
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


class Measurement(NamedTuple):
    """What a network took on this machine.

    Attributes:
        architecture: The network's `Architecture.key`.
        predicted_ms: What the table predicted.
        measured_ms: What it took.
        spread: Relative spread of the measurement.
        stable: Whether the measurement settled.
    """

    architecture: str
    predicted_ms: float
    measured_ms: float
    spread: float
    stable: bool


class LatencyBudget:
    """A limit on latency, the table that predicts it, and what was measured.

    Args:
        limit_ms: What the winner may take.
        table: Predicts.
        here: Whether the table's device is this one, so that finalists can be measured.

    Attributes:
        limits_ms: What predictions had to keep to, round by round.
        measurements: Of all rounds, in order.
    """

    def __init__(self, limit_ms: float, table: LatencyTable, *, here: bool) -> None:
        self.limit_ms = limit_ms
        self.table = table
        self.here = here
        self.limits_ms = [limit_ms]
        self.measurements: list[Measurement] = []
        self._earlier_rounds = 0  # measurements of these
        self._session: RunSession | None = None
        self._remembered: dict[str, Measurement] = {}

    @property
    def of_round(self) -> list[Measurement]:
        """Measurements of this round."""
        return self.measurements[self._earlier_rounds :]

    def follow(self, session: RunSession) -> None:
        """Takes over what a run's journal holds, so that a resumed run goes the same way; the rest is kept there."""
        self._session = session
        measurements = [Measurement(**body) for body in session.journal("latency")]
        self._remembered = {measurement.architecture: measurement for measurement in measurements}

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
        alive = [candidate for candidate in candidates if math.isfinite(candidate.fitness)]
        measured = {measurement.architecture: measurement for measurement in self.measurements}
        for candidate in sorted(alive, key=lambda candidate: candidate.fitness, reverse=True):
            predicted = candidate.costs.latency_ms
            assert predicted is not None, "a search under a latency budget predicts every network"
            measurement = measured.get(candidate.architecture.key)
            if predicted > self.limits_ms[-1] and measurement is None:
                continue
            if not self.here:
                return candidate
            if measurement is None:
                if not measures:
                    continue
                if len(self.of_round) == MEASURED_A_ROUND or self._is_hopeless():
                    return None
                measurement = self._measure(candidate.architecture, predicted)
            if measurement.measured_ms <= self.limit_ms:
                return candidate
        return None

    def keeps(self, candidate: Candidate) -> bool:
        """Whether a network keeps to the budget: by its measurement, or on another device by its prediction."""
        predicted = candidate.costs.latency_ms
        assert predicted is not None, "a search under a latency budget predicts every network"
        measurement = next(
            (each for each in self.measurements if each.architecture == candidate.architecture.key), None
        )
        if measurement is None:
            if predicted > self.limits_ms[-1] or not self.here:
                return predicted <= self.limits_ms[-1]
            measurement = self._measure(candidate.architecture, predicted)
        return measurement.measured_ms <= self.limit_ms

    def tighten(self) -> None:
        """Lowers the prediction's limit by the ratio that measurements have to predictions.

        Raises:
            InfeasibleBudgetError: It was lowered often enough.
        """
        ratios = [measurement.measured_ms / measurement.predicted_ms for measurement in self.of_round]
        ratio = statistics.median(ratios) if ratios else 1.0
        if len(self.limits_ms) >= MAX_ROUNDS:
            raise self.infeasible_error()
        self._earlier_rounds = len(self.measurements)
        self.limits_ms.append(min(self.limit_ms / ratio, self.limits_ms[-1] * _LEAST_STEP))

    def infeasible_error(self) -> InfeasibleBudgetError:
        """The error of a search that found no network within the limit."""
        nearest = min((measurement.measured_ms for measurement in self.measurements), default=math.nan)
        return InfeasibleBudgetError(
            f"no network was measured within {self.limit_ms:g} ms on {self.table.fingerprint.backend}: "
            f"{len(self.measurements)} finalists of {len(self.limits_ms)} rounds were over it, the nearest at "
            f"{nearest:.3g} ms. Measure when the machine is idle, calibrate anew, or raise the limit"
        )

    def outcome(self, winner: Candidate) -> dict[str, Any]:
        """How the budget was kept: `SearchResult.latency`."""
        of_winner = [each for each in self.measurements if each.architecture == winner.architecture.key]
        measurement = of_winner[0] if of_winner else None
        fingerprint = self.table.fingerprint
        return {
            "limit_ms": self.limit_ms,
            "predicted_ms": winner.costs.latency_ms,
            "measured_ms": measurement and measurement.measured_ms,
            "spread": measurement and measurement.spread,
            "device": fingerprint.device,
            "backend": f"{fingerprint.backend} {fingerprint.backend_version}",
            "batch_size": fingerprint.batch_size,
            "threads": fingerprint.threads,
            "prediction_limits_ms": self.limits_ms,
            "measurements": [measurement._asdict() for measurement in self.measurements],
        }

    def _is_hopeless(self) -> bool:
        """Whether what was measured in this round is so slow that the rest will be."""
        measured = [measurement.measured_ms for measurement in self.of_round]
        return len(measured) >= _ENOUGH and min(measured) > HOPELESS * self.limit_ms

    def _measure(self, architecture: Architecture, predicted_ms: float) -> Measurement:
        measurement = self._remembered.get(architecture.key)
        if measurement is None:
            at = self.table.fingerprint
            timed = measure(architecture, at.backend, batch_size=at.batch_size, threads=at.threads)
            measurement = Measurement(
                architecture.key, predicted_ms, timed.latency_ms, timed.spread, stable=timed.is_stable
            )
            if self._session is not None:
                self._session.log("latency", measurement._asdict())
        self.measurements.append(measurement)
        return measurement


def latency_table(
    needed: bool, space: SearchSpace, table: LatencyTable | str | Path | None, backend: str
) -> LatencyTable | None:
    """What predicts a search's latencies; None where it has no use for them.

    Args:
        needed: Whether a limit, an objective or a reward reads latency.
        space: Where to search.
        table: A device table or its file; None looks for this machine's.
        backend: Which of this machine's tables.

    Raises:
        BudgetError: A table is given, but nothing reads latency.
        LatencyError: There is no table for this machine, or it is another machine's.
        FileFormatError: The table's file can't be read.
    """
    if not needed:
        if table is not None:
            raise BudgetError(
                "a device table needs a limit on latency: Budget(latency_ms=...), or --max-latency; or latency_ms "
                "among the objectives, or rewarded"
            )
        return None
    if table is None:
        return find_table(space, backend)
    return DeviceTable.load(table) if isinstance(table, str | Path) else table


def latency_budget_of(budget: Budget, table: LatencyTable | None) -> LatencyBudget | None:
    """The latency budget that a budget's limit makes; None where it has none."""
    if budget.latency_ms is None:
        return None
    assert table is not None, "found where there is a limit"
    return LatencyBudget(budget.latency_ms, table, here=is_here(table.fingerprint))


def _sizes(sizes: Iterable[tuple[int, ...]]) -> str:
    """Input sizes in words."""
    return ", ".join(map(str, sorted(sizes)))


def caveats(table: LatencyTable, space: SearchSpace, limit_ms: float | None) -> list[str]:
    """What a user should know of a table before trusting it."""
    texts = []
    if not is_here(table.fingerprint):
        texts.append(
            f"the device table is of {table.fingerprint.device} with {table.fingerprint.backend} "
            f"{table.fingerprint.backend_version}, not of this machine: the winner's latency is predicted, not measured"
        )
    measured = {tuple(size) for size in getattr(table, "details", {}).get("input_sizes", [table.input_size])}
    if table.space != space.name or not measured.issuperset(space.input_sizes):
        texts.append(
            f"the device table was measured on networks of {table.space} for {_sizes(measured)}, not of {space.name} "
            f"for {_sizes(space.input_sizes)}; predictions may be off"
        )
    if limit_ms is not None and limit_ms > table.largest_ms:
        texts.append(
            f"the slowest network of the device table took {table.largest_ms:.3g} ms, so predictions up to "
            f"{limit_ms:g} ms are extrapolated; calibrate with a larger --max-flops"
        )
    return texts
