"""Exceptions of the package.

Each is also a builtin's subclass, so that ``except ValueError`` keeps working, and each message says what was
expected, what came, and what to do.
"""

from __future__ import annotations

import difflib
import itertools
import pickle
import signal
from collections.abc import Iterable


class ZeroShotNASError(Exception):
    """Base of every error that the package raises on purpose."""


class UnknownNameError(ZeroShotNASError, KeyError):
    """A name that no registry entry has.

    Example:
        >>> str(UnknownNameError("proxy", "zem", ["zen", "naswot"]))
        "unknown proxy 'zem'. Did you mean 'zen'? Known: naswot, zen"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(kind, name, self.known)

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return f"unknown {self.kind} {self.name!r}.{did_you_mean(self.name, self.known)} Known: {', '.join(self.known)}"

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.known)


class PluginError(ZeroShotNASError, ImportError):
    """A plug-in's file can't be loaded."""


class ArchitectureError(ZeroShotNASError, ValueError):
    """An architecture that is malformed, does not fit together, or is too large to build."""


class BudgetError(ZeroShotNASError, ValueError):
    """A budget that is malformed."""


class ObjectiveError(ZeroShotNASError, ValueError):
    """Objectives, or a reward, that a search can't be asked for."""


class InfeasibleBudgetError(BudgetError):
    """No network of the search space fits the budget."""


class ProxyError(ZeroShotNASError, ValueError):
    """A proxy can't be computed for this kind of module, input or setting."""


class SearcherError(ZeroShotNASError, ValueError):
    """A strategy can't search such a space, or not for what is asked."""


class NothingFitsError(SearcherError):
    """A network that is being written leaves no room within the budget for its next token; it is begun again."""


class UndefinedScoreError(ZeroShotNASError, ArithmeticError):
    """A proxy is undefined for a network's numbers (a dead layer, a NaN weight); ``score`` makes a state of it."""


class DataError(ZeroShotNASError, ValueError):
    """Training data that is missing, malformed, or does not fit the network."""


class ExportError(ZeroShotNASError, RuntimeError):
    """A module can't be exported to another format."""


class ReportError(ZeroShotNASError, ValueError):
    """There is nothing to report, or no way to write it."""


class LatencyError(ZeroShotNASError, RuntimeError):
    """Latency can't be measured or predicted: the engine refuses the network, or the table is another device's."""


class FileFormatError(ZeroShotNASError, ValueError):
    """A file that is damaged, or not of the format that it should be."""


class RunOptionsError(ZeroShotNASError, ValueError):
    """Options of a run that contradict each other."""


class OutputExistsError(ZeroShotNASError, FileExistsError):
    """An output folder that already holds a run."""


class CallbackError(ZeroShotNASError, ValueError):
    """A callback that can't be called, or can't write where it should."""


class StoreError(ZeroShotNASError, RuntimeError):
    """A run's store can't be opened, read or written."""


class CorruptStoreError(StoreError):
    """A store is damaged; it is left as it is."""


class RunInUseError(StoreError):
    """Another process works in the run's folder."""


class SettingsChangedError(ZeroShotNASError, ValueError):
    """A run is resumed with settings other than its own."""


class RecipeError(ZeroShotNASError, ValueError):
    """A training recipe that is malformed."""


class TrainingError(ZeroShotNASError, ArithmeticError):
    """Training that can't go on: the loss is not finite."""


class WorkerDiedError(ZeroShotNASError, RuntimeError):
    """A worker process ended before it answered: killed, out of memory, crashed."""

    @classmethod
    def from_exit_code(cls, code: int) -> WorkerDiedError:
        """The error for a process's exit code, negative where a signal killed it.

        Example:
            >>> WorkerDiedError.from_exit_code(-9)
            WorkerDiedError('a worker process was killed by SIGKILL before it answered; is memory short?')
        """
        if code >= 0:
            return cls(f"a worker process exited with code {code} before it answered")
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal has no name
            name = f"signal {-code}"
        hint = "; is memory short?" if name == "SIGKILL" else ""
        return cls(f"a worker process was killed by {name} before it answered{hint}")


class TaskTimeoutError(ZeroShotNASError, TimeoutError):
    """A task ran longer than the executor's time limit; its process was killed.

    Example:
        >>> str(TaskTimeoutError(0.5))
        'a task ran longer than its limit of 0.5 s; its worker process was killed'
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"a task ran longer than its limit of {seconds:g} s; its worker process was killed")

    def __reduce__(self) -> tuple[type[TaskTimeoutError], tuple[float]]:
        return type(self), (self.seconds,)


class TransferError(ZeroShotNASError, pickle.PickleError):
    """A task, its result or its exception can't travel between processes."""


class ClusterError(ZeroShotNASError, ConnectionError):
    """A cluster can't be reached or started, or its workers have another release."""


class MissingExtraError(ZeroShotNASError, ImportError):
    """An optional dependency is not installed.

    Example:
        >>> str(MissingExtraError("scikit-learn", "data"))
        'scikit-learn is not installed. Install it with: pip install "zeroshot-nas[data]"'
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f'{package} is not installed. Install it with: pip install "zeroshot-nas[{extra}]"')

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.package, self.extra)


class DepthWarning(UserWarning):
    """A search by a score that grows with depth has no limit on depth."""


class FamilyWarning(UserWarning):
    """Budgets of a family were given in no order."""


class ProposalsWarning(UserWarning):
    """Proposals are wasted: a strategy has more than a search may make, or what comes first is over the budget."""


class LatencyWarning(UserWarning):
    """What a latency budget rests on is weaker than it should be."""


class HypervolumeWarning(UserWarning):
    """A reference point that no network of a front dominates, so that the hypervolume is 0."""


class UncountedOperatorWarning(UserWarning):
    """A module uses operators whose multiply-adds are not counted."""


class PluginWarning(RuntimeWarning):
    """A plug-in of another distribution failed to load and is skipped."""


class ClusterWarning(UserWarning):
    """A cluster has no workers yet; tasks wait for them."""


class DataWarning(UserWarning):
    """Some files of a data set are left out."""


class CallbackWarning(UserWarning):
    """A callback failed and is told no more; its run goes on."""


class PrecisionWarning(UserWarning):
    """Training in a precision that the processor is slow in."""


class TrialsWarning(UserWarning):
    """Trials are dropped before their warm-up ends, when accuracies tell little."""


class WeightBitsWarning(UserWarning):
    """A network that is made of another one does not take its bits of weights over."""


class UnfinishedRunWarning(UserWarning):
    """A run is exported whose training was not at its end."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest known name, or an empty string."""
    few = (
        candidate for candidate in itertools.islice(known, 1_000) if len(candidate) < 200
    )  # a file may hold millions
    lowered = {candidate.lower(): candidate for candidate in few}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean {lowered[near[0]]!r}?" if near else ""
