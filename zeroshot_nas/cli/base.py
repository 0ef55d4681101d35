"""What commands share: the application, their common options, and how they read and print."""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from zeroshot_nas.cli.help import Application, completes, completes_public
from zeroshot_nas.core.text import printable, read_json
from zeroshot_nas.costs.base import COSTS, list_costs, parse_number
from zeroshot_nas.errors import ArchitectureError, FileFormatError
from zeroshot_nas.training.recipe import PRECISIONS

if TYPE_CHECKING:
    from zeroshot_nas.architecture.architecture import Architecture
    from zeroshot_nas.callbacks.base import Callback, Event
    from zeroshot_nas.costs.complexity import Costs
    from zeroshot_nas.nasbench.base import Split as SplitName
    from zeroshot_nas.nasbench.table import BenchmarkTable
    from zeroshot_nas.spaces.base import SearchSpace
    from zeroshot_nas.training.recipe import Recipe


app = Application(
    help="Training-free neural architecture search: score, search and train small convolutional networks.",
    epilog="Exit codes: 0 done; 2 not done, one line says why; 130 stopped by Ctrl-C, what was done is kept.",
)

Input = Annotated[str, typer.Option("--input", help="Shape of one image, CxHxW; an architecture file has its own.")]
Classes = Annotated[int, typer.Option(help="Outputs of the classifier; an architecture file has its own.")]
SqueezeExcite = Annotated[bool, typer.Option("--squeeze-excite", help="Give residual blocks squeeze-and-excitation.")]
MODEL_HELP = (
    "A run's folder, a best.json, architecture or .safetensors file, or a string: PlainNet, --space's, or a "
    "hand-made network's such as reference:resnet8 or reference:resnet8:strides=222:params=100k."
)
Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
InSpace = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="Search space whose notation the string is in, e.g. nasbench201.",
        autocompletion=completes_public("list_spaces"),
    ),
]
SpaceOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the space, name=value, e.g. width_step=4.")
]
Resolutions = Annotated[
    str | None,
    typer.Option(
        help="Resolutions in pixels that networks of a space of chains may have, e.g. 24,28,32; default: --input's."
    ),
]
TableOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the table, name=value, e.g. budget=A for vcn.")
]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]
Device = Annotated[str | None, typer.Option(help="Torch device, e.g. cuda.")]
Repeats = Annotated[int, typer.Option(help="Draws of weights and images a score.")]
BatchSize = Annotated[int | None, typer.Option(help="Gaussian images a draw.")]
Backend = Annotated[
    str,
    typer.Option(help="Engine that latency is of; see `list`.", autocompletion=completes_public("list_backends")),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document, and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is in --out.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out; what is not given is as the run has it.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; without a terminal there is none anyway.")]
Threads = Annotated[int, typer.Option(help="Threads of the engine.")]
ImagesPerRun = Annotated[int, typer.Option("--batch-size", "--batch", help="Images a run.")]
Dataset = Annotated[str | None, typer.Option(help="What the networks were trained on, e.g. cifar10.")]
ArchColumn = Annotated[str | None, typer.Option(help="Column of a CSV table's architectures.")]
AccuracyColumn = Annotated[str | None, typer.Option(help="Column of a CSV table's accuracies.")]
Split = Annotated[str | None, typer.Option(help="test or valid accuracy.")]
Cache = Annotated[Path | None, typer.Option(help="File of scores that several runs share.")]
Executor = Annotated[
    str, typer.Option(help="serial, process or dask.", autocompletion=completes_public("list_executors"))
]
Log = Annotated[
    str | None,
    typer.Option(
        "--log",
        help="Writers of the run's events, separated by commas: csv, tensorboard, or a plug-in's.",
        autocompletion=completes_public("list_callbacks"),
    ),
]
TimeLimit = Annotated[float | None, typer.Option(help="Seconds that a worker process may take for a network.")]
TrainingData = Annotated[
    str,
    typer.Option(
        "--data",
        help="Data set, see `list`; of data on disk NAME:PATH.",
        autocompletion=completes_public("list_data"),
    ),
]
RecipeName = Annotated[
    str,
    typer.Option("--recipe", help="Recipe; see `list recipes`.", autocompletion=completes_public("list_recipes")),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images; default: the recipe's.")]
ImagesPerStep = Annotated[int | None, typer.Option("--batch-size", help="Images a step; default: the recipe's.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Of the recipe, e.g. mixup=0.1.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Precision to train in: float32, bfloat16, or auto for the faster of both; default: the recipe's.",
        autocompletion=completes(lambda: PRECISIONS),
    ),
]
NewHead = Annotated[bool, typer.Option("--new-head", help="Give the network the data's number of classes.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; default: all cores.")]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler, tcp://host:port; see docs/clusters.md on who may connect."),
]


def shows_progress(quiet: bool) -> bool:
    """Whether bars are shown: to people, not to files and pipes, which they would fill."""
    return not quiet and sys.stderr.isatty()


def callbacks_of(log: str | None) -> list[str]:
    """The callbacks that ``--log`` names."""
    return [] if log is None else [name for name in log.split(",") if name]


def plan_sayers(quiet: bool) -> list[Callback]:
    """What says, where no bar does, what is about to be trained."""
    return [] if quiet or shows_progress(quiet) else [_say_plan]


def _say_plan(event: Event) -> None:
    if event.kind == "plan":
        print(event.about["plan"], file=sys.stderr)  # noqa: T201


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def stored_call(folder: Path, kind: str) -> dict[str, Any] | None:
    """How the run in a folder was asked for; None where none has begun or its release kept none.

    Raises:
        StoreError: The folder holds a run of another kind.
    """
    from zeroshot_nas.runs.resume import kind_of, read_call

    if kind_of(folder) is None:
        return None
    return read_call(folder, kind)


def read_architecture(
    model: str, image: str, classes: int, squeeze_excite: bool, space: str | SearchSpace | None = None
) -> Architecture:
    """An architecture from a run's folder, a file of ours, also one of weights, a text file, or a string.

    A string is PlainNet's, a structure list of TinyNAS, one in a notation of the space, or ``reference:`` and the name
    of a hand-made network (see `zeroshot_nas.references.base.read_reference`).

    Args:
        model: Which of these.
        image: Shape of one image, for a string.
        classes: Outputs of the classifier, for a string.
        squeeze_excite: Whether blocks of a PlainNet string have it.
        space: The space in whose notation a string is; None for PlainNet.

    Raises:
        FileFormatError: There is no such file, or it holds neither JSON of ours nor a string.
        ArchitectureError: The architecture is malformed.
        UnknownNameError: No space or hand-made network has that name.
    """
    from zeroshot_nas.architecture.architecture import Architecture
    from zeroshot_nas.architecture.structure_list import is_structure_list
    from zeroshot_nas.references.base import PREFIX, read_reference

    path = Path(model)
    file = _network_file(path) if _exists(path) else None
    text = model if file is None else _text(file)
    if text.lstrip().startswith(PREFIX):
        return read_reference(text, parse_shape(image), classes)
    if is_structure_list(text):
        return Architecture.from_string(text, parse_shape(image), classes)
    if text.lstrip().startswith("{") and (space is None or '"format"' in text):  # else it is a dict of a cell's edges
        try:
            data = read_json(text)
        except ValueError as error:
            raise FileFormatError(f"{file or model} is not valid JSON: {error}") from None
        return Architecture.from_dict(data.get("architecture", data))
    if space is not None:
        from zeroshot_nas import get_space

        if isinstance(space, str):
            extra = {"squeeze_excite": True} if squeeze_excite else {}
            space = get_space(space, input_size=parse_shape(image), num_classes=classes, **extra)
        try:
            return space.from_string(text.strip())
        except ArchitectureError as error:
            if file is not None or "(" in text:
                raise
            raise ArchitectureError(f"{error}; nor is there a file or folder {model!r}") from None
    if "(" not in text:
        raise FileFormatError(
            f"{model!r} is neither a file nor a PlainNet string such as 'SuperConvK3BNRELU(3,8,1,1)'; a benchmark's "
            "string needs its --space"
        )
    return Architecture.from_string(text, parse_shape(image), classes, squeeze_excite=squeeze_excite)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a string longer than any file's name
        return False


def _network_file(path: Path) -> Path:
    """The file that holds a network: of a folder the one that a search, a training or an export to the Hub wrote."""
    if not path.is_dir():
        return path
    for name in ("best.json", "architecture.json", "config.json"):
        if (path / name).is_file():
            return path / name
    raise FileFormatError(
        f"{path} holds no network, neither best.json of a search nor architecture.json of a training; finish the run, "
        "or see `zeroshot-nas runs best`"
    )


def _text(path: Path) -> str:
    from zeroshot_nas.training.weights import SUFFIX

    if path.suffix.lower() == SUFFIX:
        return _architecture_of_weights(path)
    try:
        if path.suffix.lower() in (".py", ".cc", ".h"):  # a network's export is text too, but no architecture
            raise UnicodeError
        return path.read_text(encoding="utf-8-sig")
    except UnicodeError:
        raise FileFormatError(
            f"{path} is not a text file with an architecture; expected that, a run's folder, or its best.json "
            "(`predict` and `latency measure` take exported .onnx files too)"
        ) from None


def _architecture_of_weights(path: Path) -> str:
    """The architecture's JSON that stands in a run's file of weights."""
    from zeroshot_nas.training.weights import read_about

    try:
        about = read_about(path.read_bytes())
    except ValueError as error:
        raise FileFormatError(f"{path} is damaged: {error}") from error
    architecture = about.get("architecture") if isinstance(about, dict) else None
    if not isinstance(architecture, str):
        raise FileFormatError(
            f"{path} does not say of which architecture its weights are; expected the weights of a training run, or "
            "its folder"
        )
    return architecture


def parse_shape(text: str) -> tuple[int, int, int]:
    """``CxHxW``."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", text)
    if match is None:
        raise typer.BadParameter(f"--input must be CxHxW, e.g. 3x32x32; got {text!r}")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def parse_quantity(text: str, option: str, parse: Callable[[str], float] = parse_number) -> float:
    """A number as a cost reads it, e.g. 1.5M or 4ms."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} must be {error}; got {text!r}") from None


def limit_parameters() -> dict[str, str]:
    """The parameter of ``search`` that limits a cost, by the cost: ``latency_ms`` to ``max_latency``."""
    return {name: COSTS[name].option.removeprefix("--").replace("-", "_") for name in list_costs()}


def cost_limits(options: Mapping[str, Any]) -> dict[str, Any]:
    """The limits on costs that options set, as `Budget` takes them."""
    return {
        name: parse_quantity(options[parameter], COSTS[name].option, COSTS[name].parse)
        for name, parameter in limit_parameters().items()
        if options.get(parameter) is not None
    }


def with_cost_limits(after: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command one option for each registered cost, behind the parameter ``after``."""

    def extend(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        parameters = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        place = 1 + next(index for index, each in enumerate(parameters) if each.name == after)
        for index, (name, parameter) in enumerate(limit_parameters().items(), start=place):
            option = Annotated[str | None, typer.Option(COSTS[name].option, help=COSTS[name].help)]
            parameters.insert(
                index, inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            )
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return extend


def parse_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """``name=value`` as a space or a table takes it."""
    options: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"an option is name=value, got {text!r}")
        options[name] = parse_resolutions(value) if name == "resolutions" else _value(value)
    return options


def _value(text: str) -> Any:
    """A whole number, several, e.g. ``5,7``, a truth value, or text."""
    parts = text.split(",")
    if all(part.isdecimal() for part in parts):
        return int(text) if len(parts) == 1 else tuple(map(int, parts))
    return {"true": True, "false": False}.get(text.lower(), text)


def parse_resolutions(text: str) -> tuple[int, ...]:
    """``24,28,32``."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 7 for part in parts):
        raise typer.BadParameter(f"resolutions are whole numbers, e.g. 24,28,32; got {text!r}")
    return tuple(map(int, parts))


def space_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The space's own options that options set."""
    extra = parse_options(options.get("space_option"))
    if options.get("resolutions") is not None:
        extra["resolutions"] = parse_resolutions(options["resolutions"])
    return extra


def space_of(options: Mapping[str, Any]) -> SearchSpace:
    """The space to search, for the images of the data set where one is named."""
    from zeroshot_nas import get_space
    from zeroshot_nas.nasbench.table import DATASET_IMAGES
    from zeroshot_nas.spaces.base import default_space

    image, classes = parse_shape(options["image"]), options["classes"]
    if options["dataset"] in DATASET_IMAGES:
        image, classes = DATASET_IMAGES[options["dataset"]]
    extra = space_options(options)
    if options["squeeze_excite"]:
        extra["squeeze_excite"] = True
    name = options["space"] or default_space(image)
    return get_space(name, input_size=image, num_classes=classes, **extra)


def recipe_of(
    name: str, epochs: int | None, batch_size: int | None, precision: str | None, changes: Sequence[str] | None
) -> Recipe:
    """A recipe with what options change of it."""
    from zeroshot_nas.training.recipe import get_recipe

    return get_recipe(name, **recipe_changes(epochs, batch_size, changes, precision))


def recipe_changes(
    epochs: int | None, batch_size: int | None, changes: Sequence[str] | None, precision: str | None = None
) -> dict[str, Any]:
    """Hyper-parameters that options set."""
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "precision": precision}
    overrides = {option: value for option, value in given.items() if value is not None}
    return {**dict(map(_parse_change, changes or [])), **overrides}


def _parse_change(text: str) -> tuple[str, Any]:
    """``name=value`` of a recipe: a number, true, false, none or a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set takes name=value, got {text!r}")
    try:
        return name, json.loads({"none": "null"}.get(value.lower(), value.lower()))
    except (ValueError, RecursionError):
        return name, value


def load_table(name: str, dataset: str | None, split: str | None, options: dict[str, Any]) -> BenchmarkTable:
    """A benchmark's table by its name, file or folder."""
    from zeroshot_nas.nasbench.base import load_table as load

    if split not in (None, "test", "valid"):
        raise typer.BadParameter(f"--split must be test or valid, got {split!r}")
    return load(name, dataset=dataset, split=cast("SplitName | None", split), **options)


def cost_rows(costs: Costs) -> list[tuple[str, str]]:
    """Costs as names and values to print."""
    known = {name: value for name, value in costs.to_dict().items() if value is not None and name != "latency_ms"}
    return [(COSTS[name].label, f"{value:,} {COSTS[name].unit}".rstrip()) for name, value in known.items()]


def print_result(as_json: bool, data: Callable[[], Any], rows: Callable[[], list[tuple[str, str]]]) -> None:
    """A result as JSON or as names and values, whichever was asked for."""
    if as_json:
        print_json(data())
    else:
        print_rows(rows())


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    shown = [(printable(name), printable(value)) for name, value in rows]  # names and reasons may be a stranger's
    width = max((len(name) for name, _ in shown), default=0) + 2
    for name, value in shown:
        typer.echo(f"{name:<{width}}{value}")


def print_json(data: Any) -> None:
    """JSON on the standard output; numbers that JSON has no word for are null."""
    typer.echo(json.dumps(_plain(data), indent=1, allow_nan=False))


def _plain(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(name): _plain(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return data if isinstance(data, str | int | None) else str(data)
