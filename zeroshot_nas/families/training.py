"""`train_family`: each member of a nested family begins with its neighbour's trained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, get_args

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.files import read_as, write_text
from zeroshot_nas.core.progress import note, progress_bar
from zeroshot_nas.core.seeding import derive_seed
from zeroshot_nas.core.state import RunState
from zeroshot_nas.errors import ArchitectureError, DataError, MissingExtraError, TrainingError
from zeroshot_nas.families.family import RESULT_FILE as FAMILY_FILE
from zeroshot_nas.families.family import Family, Member
from zeroshot_nas.families.nesting import why_not
from zeroshot_nas.families.plot import TRAINING_PLOT, write_training_plot
from zeroshot_nas.families.trained import RESULT_FILE, TrainedFamily, TrainedMember
from zeroshot_nas.network.inheritance import inherit
from zeroshot_nas.network.module import Network
from zeroshot_nas.network.slicing import shrink
from zeroshot_nas.runs.options import RunOptions, run_options
from zeroshot_nas.runs.session import RunSession
from zeroshot_nas.training.base import ImageData, Split, absolute, fit_to, load_data
from zeroshot_nas.training.checkpoint import load
from zeroshot_nas.training.recipe import Recipe, get_recipe
from zeroshot_nas.training.several import Trainings
from zeroshot_nas.training.trainer import train

Way: TypeAlias = Literal["slice", "grow", "scratch"]
"""Where the first weights of a member are from: sliced from the next larger one, grown from the next smaller, drawn."""

TUNING = 0.25
"""Share of the epochs that a member gets which begins with its neighbour's weights."""

FOLDER = "members"
"""Folder of a run in which each training has its own."""

FILES = (RESULT_FILE, f"{TRAINING_PLOT}.png", f"{TRAINING_PLOT}.svg")
"""What trainings of a family leave, beside their folders; the first says that they are finished."""


def train_family(
    family: Family | str | Path,
    data: str | ImageData = "digits",
    recipe: Recipe | str = "standard",
    run: RunOptions | None = None,
    *,
    way: Way = "slice",
    share: float = TUNING,
    distill: bool = False,
    seed: int = 0,
    device: str | None = None,
    **options: Any,
) -> TrainedFamily:
    """Trains all members of a nested family, all but one for a share of the epochs.

    ``"slice"`` trains the largest member by the whole recipe. Each smaller one begins with the most important channels
    of the next larger one (`zeroshot_nas.shrink`), and is tuned. ``"grow"`` trains the smallest by the whole recipe,
    and each larger one begins by computing what the next smaller one does (`zeroshot_nas.inherit`). ``"scratch"``
    trains each for itself, and takes families that are not nested.

    A tuned member has ``share`` of the recipe's epochs, at its learning rates, whose course is the shorter one.

    Args:
        family: A family, or the folder of its run.
        data: What is trained on: a name (`load_data`), or images of your own.
        recipe: Of the member that begins, or its name.
        run: Where the run is written and what it shows; see `RunOptions`. ``out`` holds ``trained.json``, where
            matplotlib is installed the picture, and below ``members`` the folder of each training, which `load`,
            `export_network` and all commands take.
        way: Where first weights are from.
        share: Of the recipe's epochs for a member that inherits, above 0 and at most 1.
        distill: Whether the others learn from the largest member's logits, too; not for ``"grow"``, whose largest is
            trained last.
        seed: Of all trainings.
        device: Where to train.
        options: ``out``, ``resume``, ``force``, ``progress``, ``callbacks`` one by one, which win over ``run``.

    Returns:
        The members with their accuracies. Stopped by Ctrl-C it returns those that are done, in state
        ``"interrupted"``.

    Raises:
        ArchitectureError: The family is not nested, and members are to inherit.
        ValueError: The way is none, ``share`` is out of range, or a grown family is to be distilled.
        DataError: The data are not there, or have another number of classes.
        RecipeError: The recipe takes trained weights.
        TrainingError: A loss is no longer finite.
        FileFormatError: The folder holds no family.
        OutputExistsError: ``out`` holds a run, and ``resume`` is not set.
        SettingsChangedError: The run to resume has other settings.

    Sources: sorted channels and kernels cut at their edges are Once-for-all's (arXiv:1908.09791), growth is Net2Net's
    (arXiv:1511.05641). Departure: the members are few and known, so that each is tuned alone, and no supernet is
    trained.

    Example:
        >>> import zeroshot_nas as zs
        >>> found = zs.family("vanilla", "ceres", [zs.Budget(params=4e3), zs.Budget(params=2e3)], input_size=(1, 8, 8),
        ...                   nested=True, proposals=300, progress=False)
        >>> trained = train_family(found, "digits", zs.Recipe(epochs=2, batch_size=256), share=0.5, progress=False)
        >>> [(each.name, each.begun, each.epochs) for each in trained.members]
        [('4k-params', 'scratch', 2), ('2k-params', 'sliced from 4k-params', 1)]
    """
    run = run_options(run, options, "train_family", takes=("out", "resume", "force", "progress", "callbacks"))
    found = read_family(family)
    asked = _Asked(found, data, get_recipe(recipe).for_new_weights(), way, share, distill, seed, device)
    asked.check()
    with ExitStack() as stack:
        session = RunSession(stack, run, "family training", asked.filed_under, FILES, {"call": asked.call})
        folder = Path(stack.enter_context(TemporaryDirectory())) if run.folder is None else run.folder
        trained = _Work(asked, session, folder / FOLDER, run.progress).done()
        _finish(trained, session)
    return trained


def read_family(family: Family | str | Path) -> Family:
    """A family, or that of a run's folder or file.

    Raises:
        FileFormatError: There is none.
        TypeError: It is neither.
    """
    if isinstance(family, Family):
        return family
    if not isinstance(family, str | Path):
        raise TypeError(f"expected a Family or the folder of its run, got {type(family).__name__}")
    path = Path(family)
    return read_as(path / FAMILY_FILE if path.is_dir() else path, Family.from_json)


def tuning_recipe(recipe: Recipe, share: float = TUNING) -> Recipe:
    """A recipe for weights that were inherited: itself with a share of the epochs.

    Example:
        >>> tuning_recipe(Recipe(epochs=30)).epochs
        8
    """
    return replace(recipe, epochs=max(1, round(share * recipe.epochs)))


def begun_with(network: Network, architecture: Architecture, *, seed: int = 0) -> Network:
    """A network that begins with a trained neighbour's weights: sliced from a larger one, grown from a smaller one.

    Raises:
        ArchitectureError: Neither contains the other.
    """
    if why_not(network.architecture, architecture) is None:
        return shrink(network, architecture)
    return inherit(network, architecture, seed=seed)


@dataclass(frozen=True)
class _Asked:
    """What is trained, by what."""

    family: Family
    data: str | ImageData
    recipe: Recipe
    way: Way
    share: float
    distill: bool
    seed: int
    device: str | None

    def check(self) -> None:
        """Refuses what can't work, before anything is written."""
        if self.way not in get_args(Way):
            raise ValueError(f"way must be one of {', '.join(get_args(Way))}, got {self.way!r}")
        number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not number or not 0 < self.share <= 1:
            raise ValueError(f"share must be a number above 0 and at most 1, got {self.share!r}")
        if self.distill and self.way == "grow":
            raise ValueError("a grown family has its largest member last, so that none can learn from it; use slice")
        derive_seed(self.seed)
        for large, small in zip(self.family.members, self.family.members[1:], strict=False):
            fault = None if self.way == "scratch" else why_not(large.architecture, small.architecture)
            if fault is not None:
                raise ArchitectureError(
                    f"{large.name} does not contain {small.name}, so that neither can inherit: {fault}. Search the "
                    'family with nested=True, or train it with way="scratch"'
                )

    @property
    def members(self) -> Sequence[Member]:
        """In the order of their trainings."""
        return self.family.members[::-1] if self.way == "grow" else self.family.members

    @property
    def filed_under(self) -> dict[str, Any]:
        """What the result depends on, JSON-ready; wherever the data lie, trainings compare their content."""
        name = self.data.name if isinstance(self.data, ImageData) else self.data
        return {
            "members": {each.name: each.architecture.key for each in self.members},
            "data": name.partition(":")[0],
            "recipe": self.recipe.to_dict(),
            **{each: getattr(self, each) for each in ("way", "share", "distill", "seed", "device")},
        }

    @property
    def call(self) -> dict[str, Any]:
        """The arguments as JSON, to ask for the same again; None stands for an object that only the caller can give."""
        return {
            "family": self.family.to_json(),
            "data": self.data.loaded_by if isinstance(self.data, ImageData) else absolute(self.data),
            "recipe": self.recipe.to_dict(),
            **{each: getattr(self, each) for each in ("way", "share", "distill", "seed", "device")},
        }

    def load(self, split: Split | None) -> ImageData:
        """The images, if their classes are the networks'."""
        architecture = self.members[0].architecture
        images = fit_to(load_data(self.data, architecture.input_size, split), architecture.input_size)
        if architecture.num_classes != len(images.class_names):
            raise DataError(
                f"the family has num_classes={architecture.num_classes}, but {images.name!r} has "
                f"{len(images.class_names)} classes; search it with num_classes={len(images.class_names)}"
            )
        return images


class _Work:
    """The trainings of a family, on their way."""

    def __init__(self, asked: _Asked, session: RunSession, folder: Path, progress: bool) -> None:
        self.asked, self.session, self.progress = asked, session, progress
        self.trainings = Trainings(folder, session, "training", asked.load)
        self.trained: dict[str, TrainedMember] = {}

    def done(self) -> TrainedFamily:
        """Trains, and gives what came of it; Ctrl-C cuts it short."""
        state: RunState = "done"
        asked = self.asked
        self.trainings.begin((each.name for each in asked.members), {"trainings": len(asked.members)})
        before: Member | None = None
        with progress_bar(what="family", unit="net", shown=self.progress, total=len(asked.members)) as bar:
            try:
                for member in asked.members:
                    self._train(member, before, bar)
                    before = member
            except KeyboardInterrupt:
                state = "interrupted"
                if not self.trained:
                    raise
        members = tuple(self.trained[each.name] for each in asked.family.members if each.name in self.trained)
        name = asked.filed_under["data"]
        return TrainedFamily(members, name, asked.recipe, asked.way, asked.share, asked.distill, asked.seed, state)

    def _train(self, member: Member, before: Member | None, bar: Any) -> None:
        key = {"name": member.name}
        known = self.trainings.known(key)
        body = known or {**key, **self._outcome(member, before)}
        if known is None:
            self.session.log("training", body)
        trained = TrainedMember.of(member, body)
        self.trained[member.name] = trained
        if self.progress:
            note(bar, f"{member.name}: {trained.accuracy}")
        bar.update()
        values = {"test_accuracy": trained.accuracy.value, "epochs": trained.epochs}
        step, about = len(self.trained), {"name": member.name, "begun": trained.begun}
        self.session.hooks.tell("training", step, values, about, known=known is not None)

    def _outcome(self, member: Member, before: Member | None) -> dict[str, Any]:
        """What came of a training, JSON-ready."""
        asked, recipe = self.asked, self.asked.recipe
        model: Architecture | Network = member.architecture
        begun, teacher = "scratch", None
        if before is not None and asked.way != "scratch":
            model = begun_with(load(self._folder(before)), member.architecture, seed=asked.seed)
            recipe = tuning_recipe(recipe, asked.share)
            begun = f"{'grown' if asked.way == 'grow' else 'sliced'} from {before.name}"
        if before is not None and asked.distill:
            teacher = self._folder(asked.family.members[0])
            recipe = replace(recipe, distill_features=0.0)
        run = RunOptions(out=self._folder(member), resume=True, progress=self.progress)
        # one thread wherever it is: other numbers give slightly other weights
        how: dict[str, Any] = {"seed": asked.seed, "device": asked.device, "threads": 1, "teacher": teacher}
        try:
            result = train(model, self.trainings.images, recipe, run, **how)
        except TrainingError as error:
            raise TrainingError(f"{member.name}: {error}") from error
        if result.state != "done":
            raise KeyboardInterrupt
        right = sum(row[index] for index, row in enumerate(result.confusion or ()))
        return {
            "begun": begun,
            "epochs": result.epochs,
            "right": right,
            "images": result.images["test"],
            "seconds": result.seconds,
        }

    def _folder(self, member: Member) -> Path:
        return self.trainings.folder / member.name


def _finish(trained: TrainedFamily, session: RunSession) -> None:
    """Writes the files of the trainings."""
    values = {f"{each.name} test_accuracy": each.accuracy.value for each in trained.members}
    session.hooks.will_end(values, {"state": trained.state})
    if session.folder is None:
        return
    with suppress(MissingExtraError):
        write_training_plot(trained, session.folder)
    write_text(session.folder / RESULT_FILE, trained.to_json())
    session.log(trained.state, {"members": len(trained.members)})


def arguments_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """What to call `train_family` with to ask for the same again."""
    return {**call, "family": Family.from_json(call["family"]), "recipe": Recipe(**call["recipe"])}
