"""Going on with a run from its folder alone, whatever kind of run it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshot_nas.errors import SettingsChangedError, StoreError
from zeroshot_nas.runs.inspect import stored_kind
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.runs.store import FILE_NAME, Store

if TYPE_CHECKING:
    from zeroshot_nas.comparing.comparison import Comparison
    from zeroshot_nas.families.family import Family
    from zeroshot_nas.families.trained import TrainedFamily
    from zeroshot_nas.nasbench.correlation import Correlation
    from zeroshot_nas.searchers.base import SearchResult
    from zeroshot_nas.searching.study import Study
    from zeroshot_nas.training.result import TrainResult

CALL = "call"
"""Name under which a run's store keeps how it was asked for."""


def resume(
    folder: str | Path, run: RunOptions | None = None, **given: Any
) -> SearchResult | Correlation | TrainResult | Study | Comparison | Family | TrainedFamily:
    """Goes on with a run of any kind where it was stopped; of a finished one it gives the result.

    A study is opened again, for its caller to drive.

    Args:
        folder: The run's folder.
        run: By what it is computed and what it shows; ``out`` and ``resume`` are set here.
        given: Run options one by one, such as ``executor="process"``, and objects that a file can't hold where the run
            was begun with such: ``space``, ``proxy``, ``settings``, ``device_table`` of a search, ``table``, ``space``
            and ``proxies`` of a correlation, ``data`` and ``teacher`` of a training, ``data`` of a comparison or
            of a family's training.

    Returns:
        What the run's own function returns; of a study the `Study`.

    Raises:
        StoreError: The folder holds no run.
        SettingsChangedError: It was begun with an object that only the caller can give again, or by a release that did
            not keep how it was asked for.

    Example:
        >>> import tempfile, zeroshot_nas as zs
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = zs.search("resnet", budget=zs.Budget(params=1e4), input_size=(1, 8, 8), proposals=50,
        ...                       progress=False, out=folder)
        ...     zs.resume(folder, progress=False).best == first.best
        True
    """
    folder = Path(folder)
    options, objects = (run or RunOptions()).updated({**given, "out": folder, "resume": True, "force": False})
    kind = kind_of(folder)
    if kind is None:
        raise StoreError(f"{folder} holds no run that could go on: neither {FILE_NAME} nor state.pt is there")
    result: SearchResult | Correlation | TrainResult | Study | Comparison | Family | TrainedFamily = _RESUME[kind](
        folder, options, objects
    )
    return result


def kind_of(folder: Path) -> str | None:
    """One of the kinds of `_RESUME`, or None where no run has begun."""
    if (folder / FILE_NAME).exists():
        return stored_kind(folder)
    return "training" if (folder / "state.pt").exists() else None


def read_call(folder: Path, kind: str) -> dict[str, Any] | None:
    """How a run with a store was asked for; None where the release that began it kept none.

    Raises:
        StoreError: The folder holds a run of another kind.
    """
    with Store(folder / FILE_NAME, read_only=True) as store:
        if (stored := store.fact("kind")) != kind:
            raise StoreError(f"{folder} holds a {stored}, no {kind}; go on with it: zeroshot-nas resume {folder}")
        call: dict[str, Any] | None = store.fact(CALL)
    return call


def search_arguments(call: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What `zeroshot_nas.search` is called with to ask for a stored search again."""
    from zeroshot_nas.searching.call import arguments_of

    return arguments_of({**call, "device_table": _device_table(call["device_table"])}, given, folder)


def _call(folder: Path, kind: str) -> dict[str, Any]:
    call = read_call(folder, kind)
    if call is None:
        raise SettingsChangedError(
            f"{folder} was begun by a release that did not keep how it was asked for; ask for the same {kind} again "
            "with out and resume"
        )
    return call


def _device_table(stored: Any) -> Any:
    """A device table as a search takes it: a file, or what HW-NAS-Bench measured."""
    if not isinstance(stored, Mapping):
        return stored
    from zeroshot_nas.nasbench.hardware import device_costs

    return device_costs(**stored)


def _search(folder: Path, run: RunOptions, given: Mapping[str, Any]) -> SearchResult:
    from zeroshot_nas.searching.loop import search

    return search(**search_arguments(_call(folder, "search"), given, folder), run=run)


def _study(folder: Path, run: RunOptions, given: Mapping[str, Any]) -> Study:
    from zeroshot_nas.scoring.told import TOLD
    from zeroshot_nas.searching.study import Study

    arguments = search_arguments(_call(folder, "study"), given, folder)
    told = arguments["proxy"] == TOLD.key
    return Study(**{**arguments, "proxy": None if told else arguments["proxy"]}, run=run)


def _correlation(folder: Path, run: RunOptions, given: Mapping[str, Any]) -> Correlation:
    from zeroshot_nas.nasbench.base import load_table
    from zeroshot_nas.nasbench.correlate import correlate
    from zeroshot_nas.spaces.base import SpaceCall

    call = _call(folder, "correlation")
    table, space = call.pop("table"), call.pop("space")
    made = {
        "table": table if table is None or "table" in given else load_table(**table),
        "space": None if space is None else SpaceCall(**space).make(),
    }
    arguments = {**call, **made, **given}
    _refuse_missing(folder, arguments, ("table", "space", "proxies"))
    return correlate(**arguments, run=run)


def _comparison(folder: Path, run: RunOptions, given: Mapping[str, Any]) -> Comparison:
    from zeroshot_nas.architecture.architecture import Architecture
    from zeroshot_nas.comparing.compare import compare
    from zeroshot_nas.training.recipe import Recipe

    call = _call(folder, "comparison")
    models, by_hand = (
        {name: Architecture.from_dict(each) for name, each in call.pop(part).items()} for part in ("models", "by_hand")
    )
    arguments = {**call, "recipe": Recipe(**call["recipe"]), **given}
    _refuse_missing(folder, arguments, ["data"])
    return compare(models, by_hand, **arguments, run=run)


def _family(folder: Path, run: RunOptions, given: Mapping[str, Any]) -> Family:
    from zeroshot_nas.families.finding import arguments_of, family

    return family(**arguments_of(_call(folder, "family"), given, folder), run=run)


def _family_training(folder: Path, run: RunOptions, given: Mapping[str, Any]) -> TrainedFamily:
    from zeroshot_nas.families.training import arguments_of, train_family

    arguments = {**arguments_of(_call(folder, "family training")), **given}
    _refuse_missing(folder, arguments, ["data"])
    own = RunOptions(out=folder, resume=True, progress=run.progress, callbacks=run.callbacks)
    return train_family(**arguments, run=own)


def _training(folder: Path, run: RunOptions, given: Mapping[str, Any]) -> TrainResult:
    from zeroshot_nas.architecture.architecture import Architecture
    from zeroshot_nas.training.checkpoint import read_call as read_training
    from zeroshot_nas.training.recipe import Recipe
    from zeroshot_nas.training.trainer import train

    call = read_training(folder)
    supernet = call.pop("supernet", None)
    model = call.pop("weights", None)
    if model is None and call["model"] is not None:
        model = Architecture.from_dict(call["model"])
    made = {"model": model, "recipe": Recipe(**call["recipe"])}
    arguments = {**call, **made, **given}
    needed = ("model", "data", *(["teacher"] if arguments.pop("needs_teacher") else []))
    _refuse_missing(folder, arguments, needed)
    options = RunOptions(out=folder, resume=True, progress=run.progress, callbacks=run.callbacks)
    if supernet is None:
        return train(**arguments, run=options)
    from zeroshot_nas.costs.budget import Budget
    from zeroshot_nas.training.supernet import train_supernet

    del arguments["teacher"]
    limits = supernet.pop("budget")
    budget = None if limits is None else Budget(**limits)
    return train_supernet(arguments.pop("model"), run=options, budget=budget, **arguments, **supernet)


def _refuse_missing(folder: Path, arguments: Mapping[str, Any], needed: Sequence[str]) -> None:
    for name in needed:
        if arguments[name] is None:
            raise SettingsChangedError(
                f"{folder} was begun with a {name} that is an object of the caller's, which no file holds; give it "
                f"again: resume(folder, {name}=...)"
            )


_RESUME: dict[str, Callable[[Path, RunOptions, Mapping[str, Any]], Any]] = {
    "search": _search,
    "study": _study,
    "correlation": _correlation,
    "training": _training,
    "comparison": _comparison,
    "family": _family,
    "family training": _family_training,
}
