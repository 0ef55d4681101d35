"""`compare`: what was found beside what is made by hand, all trained by one recipe."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeAlias

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.comparing.comparison import Compared, Comparison, with_latency, with_training
from zeroshot_nas.comparing.plot import PLOT, write_comparison_plot
from zeroshot_nas.core.checks import check_counts
from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.progress import note, progress_bar
from zeroshot_nas.core.seeding import derive_seed
from zeroshot_nas.core.state import RunState
from zeroshot_nas.costs.budget import Budget
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import (
    ArchitectureError,
    BudgetError,
    DataError,
    InfeasibleBudgetError,
    LatencyError,
    MissingExtraError,
    TrainingError,
)
from zeroshot_nas.latency.base import BACKENDS, measure
from zeroshot_nas.references.base import reference
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.runs.session import RunSession
from zeroshot_nas.searchers.base import SearchResult
from zeroshot_nas.training.base import ImageData, Split, absolute, fit_to, load_data
from zeroshot_nas.training.recipe import Recipe, get_recipe
from zeroshot_nas.training.several import STOP, Task, Trainings

REFERENCES = ("resnet8", "resnet20", "mobilenet_v2")
"""What a network is compared with unless others are named."""

FOLDER = "trainings"
"""Folder of a run in which each training has its own."""

RESULT_FILE = "comparison.json"
FILES = (RESULT_FILE, f"{PLOT}.png", f"{PLOT}.svg")
"""What a comparison leaves, beside its store and trainings; the first says that it is finished."""

_MOST_SEEDS = 1_000

_LONGEST = 60
"""Characters of a network's name in its trainings' folders."""

SECONDS = 1.0
"""How long each latency is measured."""

Model: TypeAlias = Architecture | HasArchitecture | SearchResult


def compare(
    models: Model | Sequence[Model] | Mapping[str, Model],
    references: str | Sequence[str] | Mapping[str, Architecture] = REFERENCES,
    data: str | ImageData = "digits",
    recipe: Recipe | str = "standard",
    run: RunOptions | None = None,
    *,
    budget: Budget | None = None,
    seeds: int = 3,
    seed: int = 0,
    device: str | None = None,
    backend: str | None = "onnxruntime",
    threads: int = 1,
    **options: Any,
) -> Comparison:
    """Trains networks and hand-made ones by one recipe, and sets accuracies with their intervals beside costs.

    The question of every search: is what it found better than what everybody has? Hand-made networks are made as wide
    as the budget lets them be, so that all have the same means; every network is trained from several seeds, whose
    weights and order of images differ, on the same images. Each training has a folder of its own in the run's, which
    `export_network` and `load` take.

    The result is a function of these arguments alone (measured latencies apart): it does not depend on the executor, on
    the number of workers, or on how often the run was killed and resumed.

    Args:
        models: Architectures, candidates or results of searches; as a mapping each has its name. The first is the one
            that verdicts are about.
        references: Hand-made networks by name, with options as in ``"resnet8:strides=222"``; see `list_references`. Or
            architectures of your own by name, which no budget changes. Those by name take images of the first model's
            size.
        data: What all are trained and tested on: a name (`load_data`), or images of your own, resized to what each
            network takes.
        recipe: Hyper-parameters, or the name of a recipe.
        run: Where the run is written and by what trainings are done; see `RunOptions`. ``out`` holds its store,
            ``comparison.json``, where matplotlib is installed the picture, and below ``trainings`` each training.
        budget: What hand-made networks may cost; ``Budget()`` leaves them as published. Default: what the search of the
            first model was limited to, where that is its result, or else the first model's parameters and FLOPs.
        seeds: Trainings of each network.
        seed: Seed of the first; the others are counted on from it.
        device: Where to train.
        backend: Engine that latency is measured on, on this machine; None measures none.
        threads: Threads of that engine. A training runs on one, several at once where the executor has several workers.
        options: Run options one by one, which win over ``run``.

    Returns:
        The networks with accuracies and costs. Stopped by Ctrl-C it returns what is done, in state ``"interrupted"``.

    Raises:
        ArchitectureError: There are no models, or one is none, or takes images of other channels than the first.
        UnknownNameError: No hand-made network, data set or recipe has that name.
        BudgetError: The budget limits latency, which is measured.
        InfeasibleBudgetError: A hand-made network does not fit the budget however narrow.
        DataError: The data are not there, or have another number of classes.
        OutputExistsError: ``out`` holds a run, and ``resume`` is not set.
        SettingsChangedError: The run to resume has other settings.

    Example:
        >>> net = Architecture.from_string("SuperConvK3BNRELU(1,16,1,1)SuperConvK3BNRELU(16,32,2,1)", (1, 8, 8))
        >>> found = compare(net, ["resnet8"], "digits", Recipe(epochs=1, batch_size=512), seeds=1, backend=None,
        ...                 progress=False)
        >>> [each.name for each in found.networks], found["resnet8"].costs.params <= found["network"].costs.params
        (['network', 'resnet8'], True)
    """
    run = run_options(run, options, "compare")
    check_counts(seeds=seeds, threads=threads)
    if seeds > _MOST_SEEDS:
        raise ValueError(f"seeds must be {_MOST_SEEDS:,} or fewer, got {seeds:,}")
    derive_seed(seed)
    named = _named(models)
    by_hand = _hand_made(references, named, budget, _limits(models))
    networks = tuple(_unmeasured(name, each, name in by_hand) for name, each in {**named, **by_hand}.items())
    chosen = get_recipe(recipe).for_new_weights()
    if backend is not None:
        BACKENDS[backend]  # refuses an unknown name
    asked = _Asked(networks, data, chosen, tuple(range(seed, seed + seeds)), device, backend, threads)
    if not run.resume:  # a run that goes on has read them before
        asked.load(None)
    with ExitStack() as stack:
        session = RunSession(stack, run, "comparison", asked.filed_under, FILES, {"call": asked.call})
        executor = stack.enter_context(run.open_executor())
        work = stack.enter_context(tempfile.TemporaryDirectory()) if run.folder is None else run.folder
        comparison = _Work(asked, session, Path(work) / FOLDER, run.progress).done(executor)
        _finish(comparison, session)
    return comparison


def train_one(
    architecture: Architecture, images: ImageData, recipe: Recipe, folder: Path, seed: int, device: str | None
) -> tuple[dict[str, Any], str]:
    """What a worker does: goes on with a training to its end; what came of it, or why it can't be trained."""
    from zeroshot_nas.training.trainer import train, train_until

    run = RunOptions(out=folder, resume=True, progress=False)
    # one thread wherever it is: other numbers give slightly other weights
    how: dict[str, Any] = {"seed": seed, "device": device, "threads": 1}
    try:
        train_until(recipe.epochs, architecture, images, recipe, run, **how, stops=(folder.parent / STOP).exists)
        result = train(architecture, images, recipe, run, **how)
    except TrainingError as error:
        return {}, str(error)
    right = sum(row[index] for index, row in enumerate(result.confusion or ()))
    return {"right": right, "images": result.images["test"], "seconds": result.seconds}, ""


@dataclass(frozen=True)
class _Asked:
    """What is compared, by what."""

    networks: tuple[Compared, ...]
    data: str | ImageData
    recipe: Recipe
    seeds: tuple[int, ...]
    device: str | None
    backend: str | None
    threads: int

    @property
    def filed_under(self) -> dict[str, Any]:
        """What the result depends on, JSON-ready; wherever the data lie, trainings compare their content."""
        name = self.data.name if isinstance(self.data, ImageData) else self.data
        return {
            "networks": {each.name: each.string for each in self.networks},
            "data": name.partition(":")[0],
            "recipe": self.recipe.to_dict(),
            "seeds": list(self.seeds),
            "device": self.device,
            "backend": self.backend,
            "threads": self.threads,
        }

    @property
    def call(self) -> dict[str, Any]:
        """The arguments as JSON, to ask for the same again; None stands for an object that only the caller can give."""
        return {
            "models": {each.name: each.architecture.to_dict() for each in self.networks if not each.by_hand},
            "by_hand": {each.name: each.architecture.to_dict() for each in self.networks if each.by_hand},
            "data": self.data.loaded_by if isinstance(self.data, ImageData) else absolute(self.data),
            "recipe": self.recipe.to_dict(),
            "seeds": len(self.seeds),
            "seed": self.seeds[0],
            "device": self.device,
            "backend": self.backend,
            "threads": self.threads,
        }

    def load(self, split: Split | None) -> ImageData:
        """The images.

        Raises:
            DataError: They are not there, or of another number of classes than the networks.
        """
        sizes = {each.architecture.input_size for each in self.networks}
        images = load_data(self.data, max(sizes), split)
        if len(sizes) == 1:  # else each training takes its own from the images as they are
            images = fit_to(images, *sizes)
        classes = len(images.class_names)
        for each in self.networks:
            if each.architecture.num_classes != classes:
                raise DataError(
                    f"{each.name} has num_classes={each.architecture.num_classes}, but {images.name!r} has {classes} "
                    f"classes; use dataclasses.replace(architecture, num_classes={classes}), on the command line "
                    "--new-head"
                )
        return images


class _Work:
    """The trainings of a comparison, on their way."""

    def __init__(self, asked: _Asked, session: RunSession, folder: Path, progress: bool) -> None:
        self.asked, self.session, self.progress = asked, session, progress
        self.networks = {each.name: each for each in asked.networks}
        self.trainings = Trainings(folder, session, "training", asked.load)
        self.latency = "not measured"

    def done(self, executor: Any) -> Comparison:
        """Measures, trains, and gives what came of it; Ctrl-C cuts it short."""
        state: RunState = "done"
        try:
            self._measure()
            self._train(executor)
        except KeyboardInterrupt:
            self.trainings.stop()
            if not any(each.trainings for each in self.networks.values()):
                raise
            state = "interrupted"
        asked = self.asked
        name = self.asked.filed_under["data"]
        return Comparison(tuple(self.networks.values()), name, asked.recipe, asked.seeds, self.latency, state)

    def _measure(self) -> None:
        """Latencies, before anything else keeps the machine busy; those of an earlier process are kept."""
        backend, threads = self.asked.backend, self.asked.threads
        if backend is None:
            return
        known = {body["name"]: body for body in self.session.journal("latency")}
        for number, (name, network) in enumerate(self.networks.items(), start=1):
            body = known.get(name)
            if body is None:
                try:
                    found = measure(network.architecture, backend, threads=threads, seconds=SECONDS)
                    body = {"name": name, "latency_ms": found.latency_ms, "measured": str(found)}
                except MissingExtraError as error:
                    self.latency = f"not measured: {error}"
                    return
                except LatencyError as error:
                    body = {"name": name, "latency_ms": None, "measured": str(error)}
                self.session.log("latency", body)
            if body["latency_ms"] is not None:
                self.networks[name], self.latency = with_latency(network, body)
            values = {"latency_ms": body["latency_ms"]}
            self.session.hooks.tell("latency", number, values, {"name": name}, known=name in known)

    def _train(self, executor: Any) -> None:
        """All networks from the first seed, then from the next."""
        asked, trainings = self.asked, self.trainings
        folders = dict(zip(self.networks, _file_names(self.networks), strict=True))
        tasks = [self._task(network, seed, folders[network.name]) for seed in asked.seeds for network in asked.networks]
        known = trainings.begin((str(task.key["folder"]) for task in tasks), {"trainings": len(tasks)})
        with progress_bar(what="trainings", unit="net", shown=self.progress, total=len(tasks)) as bar:
            if self.progress or self.session.hooks:
                plan = self._plan(tasks)
                self.session.hooks.tell("plan", values={"trainings": len(tasks)}, about={"plan": plan}, known=known)
            if self.progress:
                note(bar, plan)
            for number, (body, known) in enumerate(trainings.run(executor, train_one, tasks), start=1):
                network = with_training(self.networks[body["name"]], body)
                self.networks[body["name"]] = network
                bar.set_postfix_str(f"{body['folder']} {_percent(network)}", refresh=False)
                bar.update()
                values = {"test_accuracy": None if body.get("right") is None else network.accuracies[-1]}
                about = {"name": body["name"], "failure": body["failure"]}
                self.session.hooks.tell("training", number, {**values, "seed": body["seed"]}, about, known=known)

    def _task(self, network: Compared, seed: int, file_name: str) -> Task:
        asked, trainings = self.asked, self.trainings
        folder = f"{file_name}-seed{seed}"
        how = (asked.recipe, trainings.folder / folder, seed, asked.device)
        key = {"name": network.name, "seed": seed, "folder": folder}
        return Task(key, lambda: (network.architecture, trainings.images, *how))

    def _plan(self, tasks: Sequence[Task]) -> str:
        """What is left to be trained and what it costs, in words."""
        asked = self.asked
        left = [task.key["name"] for task in tasks if self.trainings.known(task.key) is None]
        text = f"{len(asked.networks)} networks x {len(asked.seeds)} seeds: {len(left)} trainings"
        if not left:
            return f"{text} are left"
        from zeroshot_nas.training.speed import training_seconds

        images = len(self.trainings.images.train_labels)
        epochs, seconds = asked.recipe.epochs, 0.0
        work = 0
        for network in asked.networks:
            times = left.count(network.name)
            if times:
                seconds += times * training_seconds(network.architecture, asked.recipe, images, asked.device)
                work += times * 3 * network.costs.flops * images * epochs  # forward, and twice that backward
        return (
            f"{text} of {epochs} epochs of {images:,} images, {work / 1e12:,.3g} tera-multiply-adds in all, about "
            f"{_duration(seconds)} of one idle core"
        )


def _finish(comparison: Comparison, session: RunSession) -> None:
    """Writes the result's files."""
    accuracies = {each.name: each.accuracy.value for each in comparison.networks if each.accuracy}
    session.hooks.will_end(accuracies, {"state": comparison.state})
    if session.folder is None:
        return
    if any(each.accuracy for each in comparison.networks):
        with suppress(MissingExtraError):  # the figures are in the file
            write_comparison_plot(comparison, session.folder)
    write_text(session.folder / RESULT_FILE, comparison.to_json())
    session.log(comparison.state, {"accuracies": accuracies})


def _named(models: Model | Sequence[Model] | Mapping[str, Model]) -> dict[str, Architecture]:
    """The models by name.

    Raises:
        ArchitectureError: There are none, or one is none, or takes images of other channels than the first.
    """
    if isinstance(models, Mapping):
        given = dict(models)
    else:
        several = models if isinstance(models, Sequence) else [models]
        single = len(several) == 1
        given = {"network" if single else f"network-{place}": each for place, each in enumerate(several, start=1)}
    named = {str(name): _architecture(each) for name, each in given.items()}
    if not named:
        raise ArchitectureError("there is nothing to compare: give one network or more")
    channels = {each.input_size[0] for each in named.values()}
    if len(channels) > 1:
        raise ArchitectureError(f"networks that are compared take images of as many channels, got {sorted(channels)}")
    return named


def _architecture(model: object) -> Architecture:
    found = architecture_of(model.best if isinstance(model, SearchResult) else model)
    if found is None:
        raise ArchitectureError(
            f"compare takes architectures, candidates and results of searches, got {type(model).__name__}"
        )
    return found


def _limits(models: object) -> Budget | None:
    """What the first model's search was limited to; None where it was no search's, or one's with a limit on latency."""
    several = [*models.values()] if isinstance(models, Mapping) else models
    first = several[0] if isinstance(several, Sequence) and several else several
    return limits_of(first) if isinstance(first, SearchResult) else None


def limits_of(result: SearchResult) -> Budget | None:
    """What a search was limited to, for a hand-made network: None where that is nothing, or latency, which is measured.

    Bounds on structure and layers are left out: they are what a proxy needs, not what a network costs.
    """
    told = result.settings.get("budget") or {}
    limits = {name: limit for name, limit in told.items() if name not in ("structure", "layers")}
    return Budget(further=limits) if limits and "latency_ms" not in limits else None


def _hand_made(
    references: str | Sequence[str] | Mapping[str, Architecture],
    named: Mapping[str, Architecture],
    budget: Budget | None,
    searched: Budget | None,
) -> dict[str, Architecture]:
    """The hand-made networks by name, within the budget.

    Raises:
        ArchitectureError: One is given twice, or takes images of other channels than the others.
    """
    first = next(iter(named.values()))
    if isinstance(references, Mapping):
        for name, each in references.items():
            channels, own = first.input_size[0], _architecture(each).input_size[0]
            if own != channels:
                raise ArchitectureError(
                    f"networks that are compared take images of as many channels, {channels}; {name!r} takes {own}"
                )
        return {_by_hand(name, named): _architecture(each) for name, each in references.items()}
    texts = [references] if isinstance(references, str) else references
    costs = complexity(first)
    if budget is not None and budget.latency_ms is not None:
        raise BudgetError("hand-made networks are scaled by what is counted; give a limit on params, FLOPs or layers")
    limits = budget or searched or Budget(params=costs.params, flops=costs.flops)
    made = {}
    for text in texts:
        name = _by_hand(text, named)
        if name in made:
            raise ArchitectureError(f"the hand-made networks must differ, got {text} twice")
        try:
            made[name] = reference(text, limits, first.input_size, first.num_classes)
        except InfeasibleBudgetError as error:
            raise InfeasibleBudgetError(
                f"{error}. Leave it out, give another budget, or take hand-made ones as published (budget=Budget(), "
                "--published)"
            ) from None
    return made


def _by_hand(name: str, named: Mapping[str, Architecture]) -> str:
    """A hand-made network's name beside those that were given."""
    return name if name not in named else f"{name} by hand"


def _unmeasured(name: str, architecture: Architecture, by_hand: bool) -> Compared:
    return Compared(name, architecture, str(architecture), by_hand, complexity(architecture), 0)


def _file_names(names: Iterable[str]) -> list[str]:
    """Names as parts of folders' names, each its own on any file system."""
    files: list[str] = []
    taken: set[str] = set()
    for name in names:
        file = re.sub(r"[^\w.=-]+", "-", name).strip(".-")[:_LONGEST] or "network"
        numbered = chain([file], (f"{file}-{place}" for place in count(2)))
        different = next(each for each in numbered if each.casefold() not in taken)
        taken.add(different.casefold())
        files.append(different)
    return files


def _percent(network: Compared) -> str:
    return f"{network.accuracies[-1]:.2%}" if network.accuracies else "failed"


def _duration(seconds: float) -> str:
    for limit, unit, each in ((120, "s", 1), (7200, "min", 60), (math.inf, "h", 3600)):
        if seconds < limit:
            return f"{seconds / each:.3g} {unit}"
    raise AssertionError("infinity is above all")
