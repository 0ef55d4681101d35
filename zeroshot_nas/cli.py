"""The command line: a thin shell over the Python API."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from zeroshot_nas.errors import FileFormatError, OutputExistsError, SettingsChangedError, ZeroShotNASError
from zeroshot_nas.execution import get_executor
from zeroshot_nas.files import write_text
from zeroshot_nas.runs import best_so_far, export, summary
from zeroshot_nas.store import FILE_NAME, Store, open_run, recover, settings_difference

if TYPE_CHECKING:
    from zeroshot_nas.architecture import Architecture
    from zeroshot_nas.costs.complexity import Costs
    from zeroshot_nas.meanfield.explain import LayerShare
    from zeroshot_nas.nasbench.base import BenchmarkTable, Split
    from zeroshot_nas.nasbench.hardware import DeviceCosts
    from zeroshot_nas.searchers.base import SearchResult
    from zeroshot_nas.spaces.base import SearchSpace

app = typer.Typer(
    help="Training-free neural architecture search: score, search and train small convolutional networks.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}

Input = Annotated[str, typer.Option("--input", help="Shape of one image, CxHxW; an architecture file has its own.")]
Classes = Annotated[int, typer.Option(help="Outputs of the classifier; an architecture file has its own.")]
SqueezeExcite = Annotated[bool, typer.Option("--squeeze-excite", help="Give residual blocks squeeze-and-excitation.")]
Model = Annotated[str, typer.Argument(help="A best.json or architecture file, or a PlainNet string.")]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]
Device = Annotated[str | None, typer.Option(help="Torch device, e.g. cuda.")]
Repeats = Annotated[int, typer.Option(help="Draws of weights and images a score.")]
BatchSize = Annotated[int | None, typer.Option(help="Gaussian images a draw.")]
Backend = Annotated[str, typer.Option(help="Engine that latency is of; see `list`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a run that is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def main() -> None:
    """Entry point: one line and exit code 2 for whatever goes wrong, a traceback with ``--debug``."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    warnings.showwarning = _show_warning
    try:
        code = app(arguments, prog_name="zeroshot-nas", standalone_mode=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a closed pager is no error
        code = 0
    except Exception as error:  # the last line of defence: everything becomes one line here
        if debug:
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)  # noqa: T201
        code = 2
    sys.exit(code or 0)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
) -> None:
    """Options of every command; `main` handles them, they stand here for the help text."""


@app.command("search")
def search_command(
    ctx: typer.Context,
    space: Annotated[str, typer.Option(help="Search space; see `list`.")] = "resnet",
    proxy: Annotated[str, typer.Option(help="What to rank by, e.g. cet, zen or zen:variant=zennas.")] = "cet",
    image: Input = "3x32x32",
    classes: Classes = 10,
    max_params: Annotated[str | None, typer.Option(help="Upper limit on parameters, e.g. 1M.")] = None,
    max_flops: Annotated[str | None, typer.Option(help="Upper limit on FLOPs (multiply-adds), e.g. 160M.")] = None,
    max_layers: Annotated[str | None, typer.Option(help="Upper limit on layers, as Zen-NAS counts them.")] = None,
    max_activations: Annotated[str | None, typer.Option(help="Upper limit on activations, e.g. 500k.")] = None,
    max_latency: Annotated[
        str | None, typer.Option(help="Upper limit on latency on a device, e.g. 4ms; see `latency calibrate`.")
    ] = None,
    backend: Backend = "onnxruntime",
    device_table: Annotated[
        str | None,
        typer.Option(
            help="Table that predicts latency, or a table of HW-NAS-Bench and its device, "
            "nb201_hardware.csv.gz:raspi4; default: this machine's for --backend."
        ),
    ] = None,
    max_depth_to_width: Annotated[float | None, typer.Option(help="Upper bound on DeepMAD's depth over width.")] = None,
    monotone_widths: Annotated[bool, typer.Option("--monotone-widths", help="Widths never shrink.")] = False,
    max_bottleneck_ratio: Annotated[float | None, typer.Option(help="Upper bound on width over bottleneck.")] = None,
    squeeze_excite: SqueezeExcite = False,
    benchmark: Annotated[
        str | None, typer.Option(help="Table of trained accuracies to look the winner up in, e.g. nasbench201.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set of that table; sets --input and --classes.")] = None,
    arch_column: Annotated[str | None, typer.Option(help="That table's column of architectures, if a CSV.")] = None,
    accuracy_column: Annotated[str | None, typer.Option(help="That table's column of accuracies, if a CSV.")] = None,
    searcher: Annotated[str, typer.Option(help="Search strategy; see `list`.")] = "regularized_evolution",
    proposals: Annotated[
        int | None, typer.Option(help="Networks to propose; 100,000 with a screen, 2,000 without.")
    ] = None,
    finalists: Annotated[int, typer.Option(help="Networks that pass the closed form's screen.")] = 200,
    no_screen: Annotated[bool, typer.Option("--no-screen", help="Score every network by the forward pass.")] = False,
    repeats: Repeats = 2,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    islands: Annotated[int | None, typer.Option(help="Searches by closed form that share the proposals.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run: run.db, result.json and best.json.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    cache: Annotated[Path | None, typer.Option(help="File of scores that several runs share.")] = None,
    executor: Annotated[str, typer.Option(help="serial, process or dask.")] = "serial",
    workers: Annotated[int | None, typer.Option(help="Worker processes; default: all cores.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds a score may take in a worker process.")] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Search a space for the best network within a budget; trains nothing."""
    options = {name: value for name, value in ctx.params.items() if name not in _RUN_OPTIONS}
    folder = resume or out
    if resume is not None:
        given = {name: str(v) if isinstance(v, Path) else v for name, v in options.items() if _is_given(ctx, name)}
        options = _stored_options(resume, given)
    elif out is not None:
        _refuse_to_overwrite(out, force)
        with open_run(out) as run:
            run.store.set_fact("options", {name: str(v) if isinstance(v, Path) else v for name, v in options.items()})
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as workforce:
        result = _search(
            options, out=folder, resume=resume is not None, cache=cache, executor=workforce, progress=not quiet
        )
    _print_search(result, folder)
    if options["benchmark"] is not None:
        from zeroshot_nas.nasbench.lookup import look_up

        columns = {"arch_column": options["arch_column"], "accuracy_column": options["accuracy_column"]}
        named = {name: column for name, column in columns.items() if column is not None}
        rows = _load_table(options["benchmark"], options["dataset"], None, named)
        _print_rows(look_up(result.best.architecture, _space(options), rows).rows())
    if result.state == "interrupted":
        raise typer.Exit(130)


_RUN_OPTIONS = {"out", "resume", "cache", "executor", "workers", "scheduler", "time_limit", "force", "quiet"}
"""Options that say how a search is run, not what it finds."""


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _search(options: Mapping[str, Any], **how: Any) -> SearchResult:
    """A search by the options of the command line."""
    from zeroshot_nas import Budget, ShapeBounds, search

    numbers: dict[str, Any] = {
        name: _parse_number(options[f"max_{name}"], f"--max-{name}")
        for name in ("params", "flops", "layers", "activations")
        if options[f"max_{name}"] is not None
    }
    latency: dict[str, Any] = {}
    if options.get("max_latency") is not None:
        numbers["latency_ms"] = _parse_milliseconds(options["max_latency"], "--max-latency")
    if options.get("device_table") is not None or "latency_ms" in numbers:
        table = _device_table(options["device_table"], options["dataset"])
        latency = {"backend": options["backend"], "device_table": table}
    shape = ShapeBounds(options["max_depth_to_width"], options["monotone_widths"], options["max_bottleneck_ratio"])
    same = ("searcher", "proposals", "finalists", "islands", "seed", "batch_size", "repeats", "device")
    return search(
        _space(options),
        options["proxy"],
        Budget(**numbers, shape=shape if shape.limits() else None),
        screen=None if options["no_screen"] else "closed_form",
        **{name: options[name] for name in same},
        **latency,
        **how,
    )


def _device_table(text: str | None, dataset: str | None) -> str | DeviceCosts | None:
    """What predicts latency: a device table's file, or ``table:device`` of HW-NAS-Bench."""
    from zeroshot_nas.nasbench.hardware import device_costs

    file, colon, device = (text or "").rpartition(":")
    if not colon or not re.fullmatch(r"\w+", device) or Path(text or "").exists():
        return text
    return device_costs(file, device, dataset=dataset or "cifar10")


def _space(options: Mapping[str, Any]) -> SearchSpace:
    """The space to search, for the images of the data set where one is named."""
    from zeroshot_nas import get_space
    from zeroshot_nas.nasbench.base import DATASETS

    image, classes = _parse_shape(options["image"]), options["classes"]
    if options["dataset"] in DATASETS:
        image, classes = DATASETS[options["dataset"]]
    extra = {"squeeze_excite": True} if options["squeeze_excite"] else {}
    return get_space(options["space"], input_size=image, num_classes=classes, **extra)


def _stored_options(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run to be resumed.

    Raises:
        FileFormatError: The folder holds no run of the command line.
        SettingsChangedError: An option was given that differs.
    """
    with Store(folder / FILE_NAME, read_only=True) as store:
        options = store.fact("options")
    if not isinstance(options, dict):
        raise FileFormatError(f"{folder} holds no search that the command line began; resume it from Python")
    if difference := settings_difference({name: options.get(name) for name in given}, given):
        changes = "; ".join(difference)
        raise SettingsChangedError(f"{folder} was begun with other options, so it is not resumed. {changes}")
    return options


@app.command("correlate")
def correlate_command(
    proxies: Annotated[str, typer.Option(help="Proxies, separated by commas, or all.")] = "zen,naswot,synflow,az_nas",
    benchmark: Annotated[str | None, typer.Option(help="A table that a package holds, e.g. nasbench201.")] = None,
    table: Annotated[str | None, typer.Option(help="A file or folder of a benchmark, or a CSV file.")] = None,
    dataset: Annotated[str | None, typer.Option(help="What the networks were trained on, e.g. cifar10.")] = None,
    split: Annotated[str | None, typer.Option(help="test or valid accuracy.")] = None,
    space: Annotated[str | None, typer.Option(help="Space of a CSV file's architectures.")] = None,
    arch_column: Annotated[str | None, typer.Option(help="CSV column of the architectures.")] = None,
    accuracy_column: Annotated[str | None, typer.Option(help="CSV column of the accuracies.")] = None,
    image: Annotated[
        str | None, typer.Option("--input", help="Shape of one image, CxHxW; default: the data's.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs of the classifier; default: the data set's.")] = None,
    space_option: Annotated[list[str] | None, typer.Option(help="Option of the space, e.g. num_cells=1.")] = None,
    sample: Annotated[int | None, typer.Option(help="Architectures to score; default: all.")] = None,
    repeats: Repeats = 1,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run: run.db, report, scores and plots.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    cache: Annotated[Path | None, typer.Option(help="File of scores that several runs share.")] = None,
    executor: Annotated[str, typer.Option(help="serial, process or dask.")] = "process",
    workers: Annotated[int | None, typer.Option(help="Worker processes; default: all cores.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds a network may take in a worker process.")] = None,
    quiet: Quiet = False,
) -> None:
    """How well proxies order the architectures of a benchmark by their trained accuracy."""
    from zeroshot_nas.nasbench.correlate import correlate
    from zeroshot_nas.report.correlation import to_markdown

    if (benchmark is None) == (table is None):
        raise typer.BadParameter("give either --benchmark (a table in a package) or --table (a file)")
    columns = {"arch_column": arch_column, "accuracy_column": accuracy_column, "space": space}
    rows = _load_table(benchmark or table or "", dataset, split, {k: v for k, v in columns.items() if v is not None})
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as workforce:
        found = correlate(
            "all" if proxies == "all" else proxies.split(","),
            rows,
            sample=sample,
            seed=seed,
            batch_size=batch_size,
            repeats=repeats,
            out=out,
            resume=resume,
            cache=cache,
            executor=workforce,
            device=device,
            progress=not quiet,
            space_options=dict(map(_parse_option, space_option or [])),
            input_size=None if image is None else _parse_shape(image),
            num_classes=classes,
        )
    typer.echo(to_markdown(found))
    if found.state == "interrupted":
        raise typer.Exit(130)


@app.command("convert")
def convert_command(
    table: Annotated[str, typer.Argument(help="A file or folder of a benchmark.")],
    out: Annotated[Path, typer.Option(help="Compact copy to write, .npz or .csv.")],
    dataset: Annotated[str | None, typer.Option(help="What the networks were trained on, e.g. cifar10.")] = None,
    split: Annotated[str | None, typer.Option(help="test or valid accuracy.")] = None,
    force: Force = False,
) -> None:
    """Write a benchmark's accuracies once as a compact table, which later runs read in a moment."""
    from zeroshot_nas.nasbench.convert import convert

    if out.exists() and not force:
        raise OutputExistsError(f"{out} exists; choose another --out, or overwrite it with --force")
    rows = _load_table(table, dataset, split, {})
    _print_rows([("written to", str(convert(rows, out))), ("architectures", f"{len(rows):,}"), ("source", rows.source)])


def _load_table(name: str, dataset: str | None, split: str | None, options: dict[str, Any]) -> BenchmarkTable:
    from zeroshot_nas.nasbench.base import load_table

    if split not in (None, "test", "valid"):
        raise typer.BadParameter(f"--split must be test or valid, got {split!r}")
    return load_table(name, dataset=dataset, split=cast("Split | None", split), **options)


def _parse_option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"an option is name=value, got {text!r}")
    return name, int(value) if value.isdecimal() else value


@app.command("score")
def score_command(
    model: Model,
    proxy: Annotated[str, typer.Option(help="Proxies, separated by commas.")] = "zen",
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    repeats: Repeats = 4,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    explain: Annotated[bool, typer.Option("--explain", help="With cet: what each convolution adds.")] = False,
    plot: Annotated[Path | None, typer.Option(help="With --explain: bars as a .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a network with training-free proxies."""
    from zeroshot_nas import score

    if explain and ("," in proxy or proxy.partition(":")[0] != "cet"):
        raise typer.BadParameter(f"--explain tells what a network's cet is made of: use --proxy cet, not {proxy!r}")
    if plot is not None and not explain:
        raise typer.BadParameter("--plot draws what --explain tells: give both")
    architecture = read_architecture(model, image, classes, squeeze_excite)
    how: dict[str, Any] = {"batch_size": batch_size, "repeats": repeats, "seed": seed, "device": device}
    if "," in proxy:
        scores = score(architecture, proxy.split(","), **how)
    else:  # what one proxy can't do is an error, not one failed score among others
        alone = score(architecture, proxy, **how)
        scores = {alone.proxy: alone}
    data = {key: each.to_dict() for key, each in scores.items()}
    rows: list[LayerShare] = []
    if explain and all(each.ok for each in scores.values()):
        rows = _explained(architecture, next(f"{key} {each.value:.5g}" for key, each in scores.items()), plot)
        data[next(iter(data))]["layers"] = [asdict(row) for row in rows]
    if as_json:
        _print_json(data)
        return
    for each in scores.values():
        typer.echo(str(each))
        if each.details:
            _print_rows([(f"  {name}", f"{value:,.6g}") for name, value in each.details.items()])
    if rows:
        from zeroshot_nas.report.explanation import explanation_table

        typer.echo(f"\n{explanation_table(rows)}")
        if plot is not None:
            typer.echo(f"\nwritten to {plot}")


def _explained(architecture: Architecture, title: str, plot: Path | None) -> list[LayerShare]:
    """What each convolution adds to the network's CET; drawn too, where a file is named."""
    from zeroshot_nas.meanfield.explain import cet_explain
    from zeroshot_nas.report.explanation import write_explanation

    rows = cet_explain(architecture)
    if plot is not None:
        write_explanation(rows, title, plot)
    return rows


@app.command("cost")
def cost_command(
    model: Model,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    as_json: AsJson = False,
) -> None:
    """Parameters, FLOPs (multiply-adds), layers and activations of a network."""
    from zeroshot_nas import cost

    costs = cost(read_architecture(model, image, classes, squeeze_excite))
    if as_json:
        _print_json(costs.to_dict())
    else:
        _print_rows(_cost_rows(costs))


@app.command("train")
def train_command(
    model: Model,
    data: Annotated[str, typer.Option(help="Data set, see `list`; of data on disk NAME:PATH.")] = "digits",
    recipe: Annotated[str, typer.Option(help="quick, standard or zennas.")] = "standard",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Of the recipe, e.g. mixup=0.1.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Folder of a trained run to learn from.")] = None,
    new_head: Annotated[
        bool, typer.Option("--new-head", help="Give the network the data's number of classes.")
    ] = False,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    seed: Seed = 0,
    device: Device = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of torch; default: one for a small network. More need idle cores.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for weights, architecture, train.json and train.log.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train a network end to end and keep its weights."""
    from zeroshot_nas import get_recipe, load_data, train

    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
    overrides = {name: value for name, value in given.items() if value is not None}
    chosen = get_recipe(recipe, **{**dict(map(_parse_change, changes or [])), **overrides})
    architecture = read_architecture(model, image, classes, squeeze_excite)
    images: Any = data
    if new_head:
        images = load_data(data, architecture.input_size)
        architecture = replace(architecture, num_classes=len(images.class_names))
    how: dict[str, Any] = {"out": out, "resume": resume, "seed": seed, "device": device, "threads": threads}
    result = train(architecture, images, chosen, teacher=teacher, progress=not quiet, force=force, **how)
    by = (
        "the last" if result.validation_accuracy is None else f"by validation accuracy {result.validation_accuracy:.2%}"
    )
    rows = [
        ("test accuracy", f"{result.test_accuracy:.2%}"),
        ("best epoch", f"{result.best_epoch} of {result.epochs}, {by}"),
        ("time", f"{result.seconds:.1f} s"),
    ]
    _print_rows([*rows, ("weights", str(result.weights))] if result.weights else rows)
    if result.state == "interrupted":
        raise typer.Exit(130)


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(help="A trained run's folder, or its .pt file.")],
    formats: Annotated[str, typer.Option("--format", help="onnx, torch and python, separated by commas.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Also an int8 ONNX file.")] = False,
    power_of_two: Annotated[
        bool, typer.Option("--power-of-two", help="Also an int8 ONNX file whose scales are powers of two.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Data for calibration and accuracy; default: the run's.")] = None,
    opset: Annotated[int, typer.Option(help="Version of ONNX's operator set.")] = 18,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: the run's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained network to files that ship, and compare them with it."""
    from zeroshot_nas.export.exporting import export_network

    report = export_network(
        run, out, formats=formats.split(","), int8=int8, power_of_two=power_of_two, data=data, opset=opset
    )
    if as_json:
        _print_json(report.to_dict())
        return
    own = f"{report.size_kb:,.0f} kB of weights, {report.latency_ms:.3f} ms an image in torch"
    rows = [("network", own if report.accuracy is None else f"{own}, accuracy {report.accuracy:.2%}")]
    for each in report.files:
        parts = [
            f"{each.size_kb:,.0f} kB",
            f"largest difference {each.max_difference:.1e}",
            f"rms {each.rms_error:.1e}",
        ]
        parts += [] if each.latency_ms is None else [f"{each.latency_ms:.3f} ms an image"]
        parts += [] if each.accuracy is None else [f"accuracy {each.accuracy:.2%}"]
        rows.append((f"{each.kind}", f"{each.file}: {', '.join(parts)}"))
    _print_rows([*rows, ("opset", str(report.opset))])


@app.command("predict")
def predict_command(
    run: Annotated[Path, typer.Argument(help="A trained run's folder, or its .pt file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(help="Classes to print.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What a trained network says of image files."""
    from zeroshot_nas import load, predict
    from zeroshot_nas.training.images import read_image

    network = load(run)
    found = {}
    for file in images:
        probabilities = predict(network, read_image(file, network.architecture.input_size)[None])[0]
        best = probabilities.topk(min(max(top, 1), len(network.class_names)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found[str(file)] = {network.class_names[index]: value for index, value in pairs}
    if as_json:
        _print_json(found)
        return
    _print_rows([(file, ", ".join(f"{name} {p:.1%}" for name, p in said.items())) for file, said in found.items()])


def _parse_change(text: str) -> tuple[str, Any]:
    """``name=value`` of a recipe: a number, true, false, none or a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set takes name=value, got {text!r}")
    try:
        return name, json.loads({"none": "null"}.get(value.lower(), value.lower()))
    except ValueError:
        return name, value


latency_app = typer.Typer(help="Measure this machine.", no_args_is_help=True)
app.add_typer(latency_app, name="latency")
Threads = Annotated[int, typer.Option(help="Threads of the engine.")]
Batch = Annotated[int, typer.Option("--batch", help="Images a run.")]


@latency_app.command("calibrate")
def latency_calibrate_command(
    space: Annotated[str, typer.Option(help="Search space whose networks are to be predicted.")] = "resnet",
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    backend: Backend = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    networks: Annotated[int, typer.Option(help="Networks to measure.")] = 160,
    max_flops: Annotated[str, typer.Option(help="FLOPs (multiply-adds) of the largest of them.")] = "300M",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="The table's file; default: where `search` looks for it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a table that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure this machine once, so that a search can predict latency; goes on where it was killed."""
    from zeroshot_nas.latency.calibrate import calibrate, table_file

    options = {"image": image, "classes": classes, "squeeze_excite": squeeze_excite, "space": space, "dataset": None}
    where = _space(options)
    file = out or table_file(backend, where.name, where.input_size, batch_size=batch, threads=threads)
    try:
        table = calibrate(
            where,
            backend,
            threads=threads,
            batch_size=batch,
            networks=networks,
            max_flops=_parse_number(max_flops, "--max-flops"),
            seed=seed,
            out=file,
            force=force,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where this one stopped", err=True)
        raise typer.Exit(130) from None
    at = table.fingerprint
    rows = [
        ("device", f"{at.device}, {at.cores} cores, {at.system}"),
        ("backend", f"{at.backend} {at.backend_version}, batch {at.batch_size}, threads {at.threads}, {at.dtype}"),
        ("kernels", f"{len(table.kernels):,} measured in {table.details['networks']} networks"),
        ("slowest network", f"{table.largest_ms:.3g} ms"),
        ("fit", f"median error {table.details['median_error']:.1%} on networks left out of it"),
        ("spread", f"{table.details['median_spread']:.1%} of a network's runs, in the median"),
        ("time", f"{table.details['seconds']:.0f} s"),
        ("table", str(file)),
    ]
    _print_rows(rows)


@latency_app.command("measure")
def latency_measure_command(
    model: Model,
    backend: Annotated[str, typer.Option(help="Engines, separated by commas; see `list`.")] = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    seconds: Annotated[float, typer.Option(help="How long to measure on each.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """How long a network takes on this machine."""
    from zeroshot_nas.latency.base import measure

    architecture = read_architecture(model, image, classes, squeeze_excite)
    names = [name.strip() for name in backend.split(",")]
    found = [measure(architecture, name, batch_size=batch, threads=threads, seconds=seconds) for name in names]
    if as_json:
        _print_json([each.to_dict() for each in found])
        return
    for each in found:
        typer.echo(str(each))


runs_app = typer.Typer(help="Look into the folders of runs.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.")]


@runs_app.command("list")
def runs_list_command(
    folder: Annotated[Path, typer.Argument(help="Where runs are.")] = Path("runs"), as_json: AsJson = False
) -> None:
    """Every run in a folder, with its state."""
    found = [summary(path.parent) for path in sorted(folder.glob(f"**/{FILE_NAME}"))]
    if as_json:
        _print_json(found)
    else:
        _print_rows([(each["folder"], f"{each['kind']}, {each['state']}, {each['scores']:,} scores") for each in found])


@runs_app.command("show")
def runs_show_command(folder: RunFolder, as_json: AsJson = False) -> None:
    """A run's settings, versions, machine and journal."""
    about = summary(folder)
    if as_json:
        _print_json(about)
        return
    rows = [(name, str(value)) for name, value in about.items() if name not in ("settings", "journal")]
    rows += [(name, str(value)) for name, value in (about["settings"] or {}).items()]
    _print_rows([*rows, *((time, kind) for time, kind in about["journal"])])


@runs_app.command("best")
def runs_best_command(folder: RunFolder, as_json: AsJson = False) -> None:
    """The best network of a run: of a finished one the winner, else the best score so far."""
    from zeroshot_nas import SearchResult

    if (folder / "result.json").exists():
        best = SearchResult.from_json((folder / "result.json").read_text(encoding="utf-8")).best.to_dict()
    else:
        best = best_so_far(folder)
    if as_json:
        _print_json(best)
    else:
        _print_rows([(name, json.dumps(value)) for name, value in best.items() if name not in ("format", "version")])


@runs_app.command("export")
def runs_export_command(
    folder: RunFolder,
    as_format: Annotated[str, typer.Option("--format", help="csv or json.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="File to write; default: print.")] = None,
) -> None:
    """All scores of a run."""
    if as_format not in ("csv", "json"):
        raise typer.BadParameter(f"--format must be csv or json, got {as_format!r}")
    text = export(folder, as_format)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)


@runs_app.command("recover")
def runs_recover_command(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(help="Folder for what can be saved; it must hold no run.")],
) -> None:
    """Copy what can be read of a damaged run to a new folder."""
    out.mkdir(parents=True, exist_ok=True)
    saved = recover(folder / FILE_NAME, out / FILE_NAME)
    _print_rows([(name, f"{count:,} rows saved") for name, count in saved.items()])


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """The names that the other commands take."""
    from zeroshot_nas import list_data, list_proxies, list_searchers, list_spaces
    from zeroshot_nas.architecture import BLOCKS
    from zeroshot_nas.latency.base import list_backends
    from zeroshot_nas.training.recipe import RECIPES

    names = {
        "proxies": list_proxies(),
        "spaces": list_spaces(),
        "searchers": list_searchers(),
        "data": list_data(),
        "recipes": list(RECIPES),
        "backends": list_backends(),
        "blocks": list(BLOCKS),
    }
    if as_json:
        _print_json(names)
    else:
        _print_rows([(kind, ", ".join(entries)) for kind, entries in names.items()])


def read_architecture(model: str, image: str, classes: int, squeeze_excite: bool) -> Architecture:
    """An architecture from a file of ours, a text file with a PlainNet string, or the string itself.

    Raises:
        FileFormatError: There is no such file, or it holds neither JSON of ours nor a PlainNet string.
        ArchitectureError: The architecture is malformed.
    """
    from zeroshot_nas.architecture import Architecture

    text = model
    if "(" not in model:
        path = Path(model)
        if not path.is_file():
            raise FileFormatError(
                f"{model!r} is neither a file nor a PlainNet string such as 'SuperConvK3BNRELU(3,8,1,1)'"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise FileFormatError(f"{model} is not a text file") from None
    if not text.lstrip().startswith("{"):
        return Architecture.from_string(text, _parse_shape(image), classes, squeeze_excite)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{model} is not valid JSON: {error}") from None
    return Architecture.from_dict(data.get("architecture", data))


def _parse_shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", text)
    if match is None:
        raise typer.BadParameter(f"--input must be CxHxW, e.g. 3x32x32; got {text!r}")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def _parse_number(text: str, option: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)([kmgb]?)", text.strip(), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"{option} must be a number with an optional k, M or G, e.g. 1.5M; got {text!r}")
    return float(match[1]) * _SUFFIXES[match[2].lower()]


def _parse_milliseconds(text: str, option: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?|\.\d+)\s*(us|ms|s)", text.strip(), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"{option} must be a number with us, ms or s, e.g. 4ms or 0.5ms; got {text!r}")
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[match[2].lower()]


def _refuse_to_overwrite(folder: Path, force: bool) -> None:
    files = [folder / name for name in (FILE_NAME, "result.json", "best.json")]
    if any(file.exists() for file in files) and not force:
        raise OutputExistsError(
            f"{folder} already holds a run; go on with it by --resume, choose another --out, or overwrite it with "
            "--force"
        )
    with open_run(folder):  # not while another process works in it
        pass
    for file in [*files, *(folder / f"{FILE_NAME}{suffix}" for suffix in ("-wal", "-shm"))]:
        file.unlink(missing_ok=True)


def _cost_rows(costs: Costs) -> list[tuple[str, str]]:
    names = {"flops": "FLOPs (multiply-adds)"}
    values = {name: value for name, value in costs.to_dict().items() if value is not None and name != "latency_ms"}
    return [(names.get(name, name), f"{value:,}") for name, value in values.items()]


def _latency_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a latency budget was kept, in words."""
    predicted = f"{found['predicted_ms']:.3g} ms predicted"
    if found["measured_ms"] is None:
        text = f"{predicted} for {found['device']} with {found['backend']}, which is not here to be measured"
    else:
        text = f"{found['measured_ms']:.3g} ms measured on {found['backend']}, {predicted}"
    rows = [("latency", f"{text}; the budget is {found['limit_ms']:g} ms")]
    if found["measured_ms"] is not None:
        limits = [f"{limit:.3g}" for limit in found["prediction_limits_ms"]]
        count = len(found["measurements"])
        tightened = f"; predictions tightened to {', '.join(limits[1:])} ms" if len(limits) > 1 else ""
        rows.append(("finalists measured", f"{count}, {count - 1} of them over the budget{tightened}"))
    return rows


def _architecture_text(result: SearchResult) -> str:
    """The winner as its space writes it."""
    from zeroshot_nas import get_space

    best = result.best.architecture
    space = get_space(result.settings["space"], input_size=best.input_size, num_classes=best.num_classes)
    try:
        return space.to_string(best)
    except ZeroShotNASError:  # a space with options of its own
        return best.to_json()


def _print_search(result: SearchResult, out: Path | None) -> None:
    counts, seconds = result.counts, result.seconds
    rows = [
        ("architecture", _architecture_text(result)),
        *_cost_rows(result.best.costs),
        *(_latency_rows(result.latency) if result.latency else ()),
        *(("score", str(score)) for score in result.best.scores.values()),
        (
            "proposals",
            f"{counts.proposed:,}: {counts.over_budget:,} over budget, {counts.duplicate:,} duplicate, "
            f"{counts.screened:,} screened, {counts.ranked:,} ranked, {counts.failed:,} failed",
        ),
        (
            "time",
            f"{seconds['total']:.1f} s: {seconds['propose']:.1f} proposing, {seconds['cost']:.1f} counting costs, "
            f"{seconds['screen']:.1f} screening, {seconds['rank']:.1f} ranking"
            + (f", {seconds['measure']:.1f} measuring" if "measure" in seconds else ""),
        ),
        *((f"failed {count} times", reason) for reason, count in result.failures.items()),
    ]
    if result.state == "interrupted":
        rows.append(("state", "interrupted; this is the best so far"))
    _print_rows([*rows, ("written to", str(out))] if out else rows)


def _print_rows(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        typer.echo(f"{name:<{width}}{value}")


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=1))


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning of ours on one line; others are for developers."""
    if category.__module__.startswith("zeroshot_nas"):
        print(f"warning: {message}", file=sys.stderr)  # noqa: T201


def _one_line(error: Exception) -> str:
    """What went wrong, on one line; a kind of error that is not ours is named."""
    text = " ".join(str(error.format_message() if isinstance(error, typer.TyperException) else error).split())
    expected = isinstance(error, ZeroShotNASError | typer.TyperException | ValueError | OSError)
    return text if expected and text else f"{type(error).__name__}: {text} (run again with --debug for the traceback)"
