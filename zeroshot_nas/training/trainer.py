"""`train`: the one network that a search chose, on labelled images."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroshot_nas.architecture.architecture import Architecture, HasArchitecture, architecture_of
from zeroshot_nas.callbacks.base import Hooks
from zeroshot_nas.core.progress import note, progress_bar
from zeroshot_nas.core.seeding import one_torch_thread, preserved_rng, torch_generator, torch_threads
from zeroshot_nas.costs.complexity import complexity
from zeroshot_nas.errors import ArchitectureError, DataError, RecipeError, SettingsChangedError
from zeroshot_nas.network.module import Network, initialize
from zeroshot_nas.quantization.int8_network import ranges
from zeroshot_nas.quantization.program import ordered_operators
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.runs.store import settings_difference
from zeroshot_nas.training.base import (
    ImageData,
    Split,
    as_float,
    evenly,
    fit_to,
    learned_and_held_out,
    load_data,
    read_split,
)
from zeroshot_nas.training.checkpoint import (
    BEST,
    LAST,
    SPLIT,
    QuantizedNetwork,
    RunFolder,
    Trained,
    TrainedModule,
    TrainedNetwork,
    input_size_of,
    load,
    pack,
    quantized,
    read_state,
    unpack,
)
from zeroshot_nas.training.learner import Learner, confusion, zero_init_residual
from zeroshot_nas.training.precision import speed_up
from zeroshot_nas.training.recipe import QAT, Recipe, get_recipe
from zeroshot_nas.training.result import HEADER, Confusion, EpochRecord, State, TrainResult

DEFAULT_RECIPE = Recipe()

_SHOWN = 3
"""Settings that the refusal to resume names."""

_THREADS = "torch threads"
"""Name of the setting that has the number of threads that torch runs on."""

CALIBRATION_IMAGES = 256
"""Training images that ranges begin with."""

SMALL_STEP = 2_000_000_000
"""Multiply-adds of a training step below which it runs on one thread."""


def train(
    model: Architecture | HasArchitecture | nn.Module | str | Path,
    data: str | ImageData,
    recipe: Recipe | str = DEFAULT_RECIPE,
    run: RunOptions | None = None,
    *,
    input_size: Sequence[int] | None = None,
    teacher: nn.Module | str | Path | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    threads: int | None = None,
    **options: Any,
) -> TrainResult:
    """Trains a network and measures it on test images that had no part in any choice.

    A stratified part of the training images, or that which the data hold out, chooses the best epoch; the test images
    are looked at once, at the end. A run in a folder that Ctrl-C interrupts has not ended: it can be resumed.
    On one machine's CPU the same seed gives the same weights, whatever the global random state, which stays as it was,
    and however often the run was stopped and resumed. Ctrl-C after the first epoch stops with the best weights so far.

    Args:
        model: An architecture or a candidate of a search, which is built and initialised with ``seed``, or any module
            with one output a class, whose copy is trained on. It gets images that are normalised; the result's network
            normalises by itself. The folder of a run, or its file of weights, goes on from these.
        data: A name, with a path where it has one (`load_data`), or images of your own (`from_datasets`); they are
            fitted to the network's input size.
        recipe: Hyper-parameters, or the name of a recipe. One that quantises takes a trained network: see
            `quantize_aware`.
        run: Where the run is written, whether it goes on or replaces what is there, and whether it shows its progress:
            a bar and a table of epochs on standard error. ``out`` is a folder for ``best.safetensors``,
            ``last.safetensors``, ``architecture.json``, ``train.json``, ``train.log`` and ``state.pt``, and
            ``split.json`` where the test images were drawn, which are brought up to date every epoch; None writes
            nothing. A run that goes on keeps its images and number of threads.
        input_size: Shape ``(C, H, W)`` of the images that a module takes; default: that of the data. An architecture
            has its own.
        teacher: A module that takes images in [0, 1], or a finished run's folder, to learn from beside the labels.
        seed: Seed of weights, validation part, order and augmentation.
        device: Where to train; default: where the network is, and the CPU for an architecture.
        threads: Threads of torch. Default: one where a step of an architecture is small, torch's own number else. Where
            no other work waits for the cores two are faster for small steps too; where some does they are many times
            slower, since they wait for each other. Other numbers of threads give slightly other weights, so that a run
            goes on with its own.
        options: ``out``, ``resume``, ``force``, ``progress``, ``callbacks`` one by one, which win over ``run``.

    Raises:
        RunOptionsError: ``resume`` or ``force`` without ``out``, or both.
        TypeError: An option is none of these.
        UnknownNameError: No data set or recipe has that name.
        RecipeError: The recipe quantises, and the model is not trained, or is quantised already.
        ArchitectureError: ``model`` is none of what is taken.
        DataError: The data don't fit the network or the teacher, or are too few for the recipe, or the device is not
            there.
        RunInUseError: Another process trains in ``out``.
        StoreError: ``out`` can't be written to, or the disk is full; what was written before is intact.
        OutputExistsError: ``out`` holds a run, and neither ``resume`` nor ``force`` is set; or it can't go on.
        SettingsChangedError: The run to be resumed has other settings; the message names them.
        FileFormatError: The run to be resumed is damaged.
        TrainingError: The loss is no longer finite.
        KeyboardInterrupt: Ctrl-C before the end of the first epoch.

    Example:
        >>> architecture = Architecture.from_string("SuperConvK3BNRELU(1,8,2,1)", (1, 8, 8), num_classes=10)
        >>> result = train(architecture, "digits", Recipe(epochs=2, batch_size=256), progress=False)
        >>> result.state, result.epochs, result.params
        ('done', 2, 178)
    """
    run = run_options(run, options, "train", takes=("out", "resume", "force", "progress", "callbacks"))
    with preserved_rng(), ExitStack() as stack:
        training = opened(stack, model, data, recipe, run, input_size, teacher, seed, device, threads)
        return training.finish(training.train(run.progress))


def train_until(
    epoch: int,
    model: Architecture,
    data: str | ImageData,
    recipe: Recipe,
    run: RunOptions,
    *,
    seed: int,
    device: str | torch.device | None,
    threads: int | None,
    stops: Callable[[], bool] = lambda: False,
) -> float:
    """Goes on with a training to the end of an epoch of its recipe, and leaves it for `train` to go on with.

    The test images are not looked at. Ctrl-C is passed on; the epochs that were finished are kept.

    Args:
        epoch: Where to stop; what the run has already is not trained again.
        model: As in `train`, like all that follows.
        data: The images.
        recipe: The whole recipe, whose learning rate it follows.
        run: The run's folder.
        seed: The seed.
        device: Where to train.
        threads: Threads of torch.
        stops: Asked after every epoch: whether to stop there.

    Returns:
        Validation accuracy of the best epoch up to this one; NaN without validation images.

    Raises:
        KeyboardInterrupt: ``stops`` said so before the last epoch.
        TrainingError: The loss is no longer finite.
    """
    with preserved_rng(), ExitStack() as stack:
        training = opened(stack, model, data, recipe, run, None, None, seed, device, threads)
        return training.train_until(epoch, stops)


def opened(
    stack: ExitStack,
    model: Architecture | HasArchitecture | nn.Module | str | Path,
    data: str | ImageData,
    recipe: Recipe | str,
    run: RunOptions,
    input_size: Sequence[int] | None,
    teacher: nn.Module | str | Path | None,
    seed: int,
    device: str | torch.device | None,
    threads: int | None,
    learns: Callable[..., Learner] = Learner,
) -> Training:
    """A training where it begins, or where its folder's run is; the stack ends its hold on folder and threads.

    The arguments are those of `train`, and ``learns`` what trains the network, called as `Learner`.
    """
    out, resume = run.folder, run.resume
    hooks = run.hooks("training")  # refuses what can't be called before anything is written
    recipe = get_recipe(recipe)
    weights = model if isinstance(model, str | Path) else None
    model = load(model) if isinstance(model, str | Path) else model
    source = _trained(model, recipe) if recipe.quantization else _plain(model)
    if input_size is not None and isinstance(source, Architecture | Network):
        raise DataError("an architecture has its own input_size; use dataclasses.replace(architecture, input_size=...)")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise DataError(f"threads must be a whole number of 1 or more, got {threads!r}")
    begun = read_state(out) if resume and out is not None else None
    stack.enter_context(_threads_for(source, recipe, threads, begun))
    split = None if begun is None or out is None else read_split(out / SPLIT)
    images = fit_images(source, data, input_size, split)
    parts = learned_and_held_out(images, recipe.validation_fraction, seed)
    network = _starting_network(source, images, recipe, seed, device, parts[0])
    call = _call(model, weights, data, images, recipe, teacher, seed, device, threads)
    teacher = load(teacher) if isinstance(teacher, str | Path) else teacher
    learner = learns(network, images, parts, recipe, seed, teacher)
    folder = None if out is None else stack.enter_context(RunFolder(out, run.force, resume))
    training = Training(learner, images, folder, stack.enter_context(hooks))
    if resume:
        training.load()
    training.call = {**call, **({"supernet": learner.about()} if learner.about() else {})}
    training.begin()
    return training


def default_folder(model: Architecture, data: str, recipe: Recipe, teacher: Path | None, seed: int) -> Path:
    """Where the command line keeps a training that was given no folder: the same for the same training."""
    asked = [model.to_dict(), data, recipe.to_dict(), None if teacher is None else str(teacher.resolve()), seed]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    return Path("runs") / f"train-{data.partition(':')[0]}-{digest[:8]}"


def _call(
    model: Architecture | HasArchitecture | nn.Module,
    weights: str | Path | None,
    data: str | ImageData,
    images: ImageData,
    recipe: Recipe,
    teacher: nn.Module | str | Path | None,
    seed: int,
    device: str | torch.device | None,
    threads: int | None,
) -> dict[str, Any]:
    """The arguments as JSON, to ask for the same again; None stands for an object that only the caller can give."""
    path = str(Path(teacher).resolve()) if isinstance(teacher, str | Path) else None
    given = data if isinstance(data, ImageData) else images
    architecture = _plain(model)
    return {
        "model": architecture.to_dict() if isinstance(architecture, Architecture) else None,
        **({} if weights is None else {"weights": str(Path(weights).resolve())}),
        "data": given.loaded_by,
        "recipe": recipe.to_dict(),
        "teacher": path,
        "needs_teacher": teacher is not None and path is None,
        "seed": seed,
        "device": None if device is None else str(device),
        "threads": threads,
    }


def _threads_for(
    source: Architecture | nn.Module, recipe: Recipe, threads: int | None, begun: Mapping[str, Any] | None
) -> AbstractContextManager[None]:
    """The threads asked for, or those that a run was begun with, as another number gives other weights.

    By default one thread where a step is small: more would gain nothing, and wait for each other on a busy machine.
    """
    threads = begun["settings"].get(_THREADS) if threads is None and begun is not None else threads
    if threads is not None:
        return torch_threads(threads)
    architecture = source.architecture if isinstance(source, Network) else source
    if not isinstance(architecture, Architecture):
        return nullcontext()
    multiply_adds = 3 * recipe.batch_size * complexity(architecture).flops  # forward, and twice that backward
    return one_torch_thread() if multiply_adds < SMALL_STEP else nullcontext()


class Training:
    """A learner on its way through a recipe, and what came of it so far."""

    def __init__(self, learner: Learner, images: ImageData, folder: RunFolder | None, hooks: Hooks) -> None:
        self.start, self.hooks = time.perf_counter(), hooks
        self.learner, self.images, self.folder = learner, images, folder
        self.network, self.recipe = learner.network, learner.recipe
        self.history: tuple[EpochRecord, ...] = ()
        self.best: dict[str, Any] = {}
        self.call: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        # Now, before a step changes the weights.
        self.settings = {} if folder is None else _settings(learner, images)

    def load(self) -> None:
        """Goes on where the folder's run is, if it holds one."""
        state = None if self.folder is None else read_state(self.folder.path)
        if state is None:
            return
        if difference := settings_difference(*_comparable(state["settings"], self.settings)):
            more = f"; and {len(difference) - _SHOWN} more" if len(difference) > _SHOWN else ""
            raise SettingsChangedError(
                f"{self.folder.path if self.folder else ''} was begun with other settings, so it is not resumed. "
                f"{'; '.join(difference[:_SHOWN])}{more}. Give the run's settings to go on with it, another out for a "
                "run beside it, or force in place of resume to replace it"
            )
        self.learner.load_state(state["learner"])
        self.history = tuple(EpochRecord(**record) for record in state["history"])
        self.best, self.last = state["best"], self._packed(self.history[-1])
        self.start -= state["seconds"]

    def begin(self) -> None:
        """Tells callbacks of the beginning, and of the epochs that were done before."""
        self.hooks.tell("begin", about={"settings": {name: self.call[name] for name in ("data", "recipe", "seed")}})
        for record in self.history:
            self._tell(record, known=True)

    def _tell(self, record: EpochRecord, *, known: bool = False) -> None:
        values = {name: value for name, value in asdict(record).items() if name != "epoch"}
        self.hooks.tell("epoch", record.epoch, values, known=known)

    def train(self, progress: bool) -> State:
        """Runs the epochs and keeps the best; Ctrl-C cuts them short."""
        done = len(self.history)
        with progress_bar(what="training", unit="epoch", shown=progress, total=self.recipe.epochs, initial=done) as bar:
            if progress:
                note(bar, HEADER)
            try:
                for record in () if self._is_over() else self.learner.epochs(done):
                    self._take(record)
                    if progress:
                        note(bar, record.row())
                    self._tell(record)
                    bar.set_postfix_str(f"best epoch {self.best['epoch']}")
                    bar.update()
                    if self._is_over():
                        break
            except KeyboardInterrupt:
                if not self.history:
                    raise
                return "interrupted"
        return "done"

    def train_until(self, epoch: int, stops: Callable[[], bool]) -> float:
        """Runs the epochs up to one, and gives the best validation accuracy up to it; NaN without such images."""
        records = () if self._is_over() else self.learner.epochs(len(self.history))
        for record in itertools.islice(records, max(0, epoch - len(self.history))):
            self._take(record)
            if self._is_over():
                break
            if record.epoch < epoch and stops():
                raise KeyboardInterrupt
        accuracies = [record.validation_accuracy for record in self.history[:epoch]]
        return max((accuracy for accuracy in accuracies if accuracy is not None), default=math.nan)

    def finish(self, state: State) -> TrainResult:
        """Looks at the test images, with the best weights as they would be loaded, unless the run is to go on."""
        if self.learner.distillation is not None:
            self.learner.distillation.close()
        self.network = unpack(self.best, getattr(self.network, "module", None)).to(self.network.mean.device)
        is_over = state == "done" or self.folder is None
        tested = confusion(self.network, self.images.test_images, self.images.test_labels) if is_over else None
        result = self._result(state, tested)
        if self.folder is not None:
            self._write(self.folder)  # again: the process may have died, or Ctrl-C come, before all of it was written
            self.folder.save_result(result.to_dict())
        names = ("test_accuracy", "validation_accuracy", "best_epoch", "epochs", "params", "seconds")
        self.hooks.will_end({name: getattr(result, name) for name in names}, {"state": state})
        return result

    def _packed(self, record: EpochRecord) -> dict[str, Any]:
        return pack(self.learner.kept_network(), record.epoch, record.validation_accuracy)

    def _is_over(self) -> bool:
        """Whether there was no better epoch for as long as the recipe is patient."""
        return bool(self.recipe.patience and self.history) and (
            len(self.history) - self.best["epoch"] >= self.recipe.patience
        )

    def _take(self, record: EpochRecord) -> None:
        last = self._packed(record)
        found, best = record.validation_accuracy, self.best.get("validation_accuracy")
        improved = found is None or best is None or found >= best  # of equals the later, which saw more
        if improved:
            self.best = last
        self.last, self.history = last, (*self.history, record)
        if self.folder is None:
            return
        if self.images.split is not None:
            self.folder.save_split(self.images.split)  # first: a run that goes on reads its images again
        self.folder.save_state(self._state())  # the others follow from it
        self._write(self.folder, improved)
        self.folder.save_result(self._result("running", None).to_dict())

    def _write(self, folder: RunFolder, improved: bool = True) -> None:
        """Brings the log and the weights up to date, the best ones where they improved."""
        folder.save_call(self.call)
        if improved:
            folder.save_weights(BEST, self.best)
        folder.save_weights(LAST, self.last)
        folder.save_log("\n".join([HEADER, *(each.row() for each in self.history)]) + "\n")

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "learner": self.learner.state(),
            "history": [asdict(record) for record in self.history],
            "best": self.best,
            "seconds": time.perf_counter() - self.start,
        }

    def _result(self, state: State, tested: Confusion | None) -> TrainResult:
        counts = (len(self.learner.kept), len(self.learner.held_out), len(self.images.test_labels))
        right = sum(row[index] for index, row in enumerate(tested or ()))
        return TrainResult(
            test_accuracy=math.nan if tested is None else right / counts[2],
            validation_accuracy=self.best["validation_accuracy"],
            best_epoch=self.best["epoch"],
            epochs=len(self.history),
            seconds=time.perf_counter() - self.start,
            params=sum(value.numel() for value in self.network.parameters() if value.requires_grad),
            images=dict(zip(("train", "validation", "test"), counts, strict=True)),
            confusion=tested,
            class_names=self.images.class_names,
            state=state,
            weights=None if self.folder is None else self.folder.path / BEST,
            history=self.history,
            recipe=self.recipe,
            precision=self.learner.precision,
            data=self.images.name,
            seed=self.learner.seed,
            network=self.network,
        )


def _settings(learner: Learner, images: ImageData) -> dict[str, Any]:
    """What must be the same when a run goes on."""
    network, teacher = learner.network, learner.teacher
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    own = {"module": type(network.module).__name__} if isinstance(network, TrainedModule) else _blocks(network)
    return {
        "input size": list(input_size_of(network)),
        **own,
        "starting weights": tensors_digest(network.state_dict().values()),
        "teacher": None if teacher is None else tensors_digest(teacher.state_dict().values()),
        "data": images.name,
        "class names": list(images.class_names),
        **{name.replace("_", " "): tensors_digest([getattr(images, name)]) for name in parts},
        **({} if images.held_out is None else {"held out": tensors_digest([images.held_out])}),
        "seed": learner.seed,
        _THREADS: torch.get_num_threads(),
        **learner.recipe.to_dict(),
        **learner.about(),
    }


def _blocks(network: TrainedNetwork) -> dict[str, Any]:
    return {f"block {place}": repr(block) for place, block in enumerate(network.architecture.blocks, start=1)}


def _comparable(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings without what tells nothing: where data on disk lie, and what the release that began the run left out."""
    both = [{name: value for name, value in each.items() if name != "threads"} for each in (stored, asked)]
    for each in both:
        each["data"] = each["data"].partition(":")[0]  # their content is compared
    if _THREADS not in stored:
        del both[1][_THREADS]
    return both[0], both[1]


def tensors_digest(tensors: Iterable[Tensor]) -> str:
    """16 hexadecimal digits that differ where tensors do."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fit_images(
    model: Architecture | nn.Module, data: str | ImageData, input_size: Sequence[int] | None, split: Split | None
) -> ImageData:
    """The data at the size of the network's input, if their classes are the network's."""
    architecture = model.architecture if isinstance(model, Network) else model
    if not isinstance(architecture, Architecture):
        images = load_data(data, input_size, split)
        return images if input_size is None else fit_to(images, input_size)
    images = fit_to(load_data(data, architecture.input_size, split), architecture.input_size)
    classes = len(images.class_names)
    if architecture.num_classes != classes:
        raise DataError(
            f"the network has num_classes={architecture.num_classes}, but {images.name!r} has {classes} classes; "
            f"use dataclasses.replace(architecture, num_classes={classes}), on the command line --new-head"
        )
    return images


def _plain(model: object) -> Architecture | nn.Module:
    """An architecture or a module; of anything else its architecture."""
    if isinstance(model, nn.Module):
        model = model.module if isinstance(model, TrainedModule) else model
        model = model.plain() if isinstance(model, QuantizedNetwork) else model
        if isinstance(model, Network) and not model.num_classes:
            raise ArchitectureError("the network has no classifier to train; give it one: reset_classifier(classes)")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ArchitectureError(f"{type(model).__name__} has nothing to train: no parameter needs a gradient")
        return model
    architecture = architecture_of(model)
    if architecture is None:
        raise ArchitectureError(f"train takes an Architecture or an nn.Module, got {type(model).__name__}; see build()")
    return architecture


def _trained(model: object, recipe: Recipe) -> TrainedNetwork:
    """A network whose trained weights can be rounded.

    Raises:
        RecipeError: It is not trained, is rounded already, or has operators that int8 lacks.
    """
    if isinstance(model, TrainedModule) or (isinstance(model, nn.Module) and not isinstance(model, Network)):
        name = type(model.module if isinstance(model, TrainedModule) else model).__name__
        raise RecipeError(
            f"a {name} is a module of your own, whose operators int8 files do not know; quantise a network of this "
            "package"
        )
    if isinstance(model, QuantizedNetwork):
        raise RecipeError("the network is quantised already; start from the run that it was made of")
    if not isinstance(model, TrainedNetwork):
        recipe.for_new_weights()
        raise AssertionError("a recipe that quantises is none for new weights")
    ordered_operators(model.architecture)  # names what int8 lacks
    return model


def load_roundable(weights: str | Path) -> TrainedNetwork:
    """A run's network, if it can be trained with rounded values.

    Raises:
        RecipeError: They are rounded already, or of operators that int8 lacks.
        FileFormatError: They are damaged, or a module's of the caller's.
        FileNotFoundError: They are not there.
    """
    return _trained(load(weights), get_recipe(QAT))


def _starting_network(
    model: Architecture | nn.Module,
    images: ImageData,
    recipe: Recipe,
    seed: int,
    device: str | torch.device | None,
    kept: Tensor | None = None,
) -> Trained:
    """A network of our own with the model's weights, which normalises what the training images are like.

    Where the recipe rounds values, by their ranges on images of the training part, whose indices are ``kept``.
    """
    mean, std = (values.tolist() for values in channel_statistics(images.train_images))
    network: Trained
    if isinstance(model, nn.Module):
        device = next(model.parameters()).device if device is None else device
    if recipe.quantization and isinstance(model, TrainedNetwork) and kept is not None:
        network = _rounded(model, as_float(images.train_images[evenly(kept, CALIBRATION_IMAGES)]), recipe)
    elif isinstance(model, Architecture | Network):
        architecture = model if isinstance(model, Architecture) else model.architecture
        network = TrainedNetwork(architecture, mean, std, images.class_names)
        if isinstance(model, Network):
            network.load_state_dict(model.state_dict())
        else:
            initialize(network, "kaiming", torch_generator(seed))
    else:
        network = TrainedModule(_copied(model), images.image_shape, mean, std, images.class_names)
    if isinstance(model, Architecture) and recipe.zero_init_residual:
        zero_init_residual(network)
    try:
        network.to(device if device is not None else "cpu")
    except (RuntimeError, AssertionError) as error:  # torch's for an unknown device, and for one that is not there
        reason = str(error).splitlines()[0]
        raise DataError(
            f"device {str(device)!r} can't be used: {reason}; expected cpu or a device that is here"
        ) from error
    # a stranger's forward may use view, which other formats forbid
    if isinstance(network, TrainedNetwork) and not isinstance(network, QuantizedNetwork):
        speed_up(network)
    return network


def _rounded(model: TrainedNetwork, images: Tensor, recipe: Recipe) -> QuantizedNetwork:
    """The network with its values rounded, by the ranges that they have on some images to begin with."""
    lows, highs = ranges(copy.deepcopy(model).cpu().eval(), images.cpu())
    return quantized(model, lows, highs, recipe.quantization == "int8_power_of_two")


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # whatever a stranger's parts raise
        raise DataError(f"{type(module).__name__} can't be copied, and a copy is trained: {error}") from error


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, 1 for a channel of one colour."""
    if images.dtype == torch.uint8:  # exact, from counts, and without a copy in float
        values = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.stack([each.flatten().bincount(minlength=256) for each in images.unbind(1)]).double()
        shares = counts / counts.sum(1, keepdim=True)
        mean = shares @ values
        std = (shares @ values.square() - mean.square()).clamp(min=0).sqrt()
    else:
        mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3), correction=0)
    std[std == 0] = 1
    return mean, std
