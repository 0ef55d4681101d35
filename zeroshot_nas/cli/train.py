"""`train`, `export` and `predict`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    AsJson,
    Classes,
    Device,
    Force,
    Input,
    InSpace,
    Model,
    Quiet,
    Seed,
    SqueezeExcite,
    app,
    print_json,
    print_rows,
    read_architecture,
)
from zeroshot_nas.export.base import OPSET, list_export_formats
from zeroshot_nas.training.recipe import list_recipes

if TYPE_CHECKING:
    from zeroshot_nas.training.result import TrainResult


@app.command("train")
def train_command(
    model: Model,
    data: Annotated[str, typer.Option(help="Data set, see `list`; of data on disk NAME:PATH.")] = "digits",
    recipe: Annotated[str, typer.Option(help=f"{', '.join(list_recipes())}.")] = "standard",
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
    space: InSpace = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of torch; default: one for a small network. More need idle cores.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: runs/train-..., the same for the same training.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train a network end to end and keep its weights."""
    from zeroshot_nas import get_recipe, load_data, train
    from zeroshot_nas.training.base import read_split
    from zeroshot_nas.training.checkpoint import SPLIT
    from zeroshot_nas.training.trainer import default_folder

    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
    overrides = {name: value for name, value in given.items() if value is not None}
    chosen = get_recipe(recipe, **{**dict(map(_parse_change, changes or [])), **overrides})
    architecture = read_architecture(model, image, classes, squeeze_excite, space)
    images: Any = data
    if new_head:
        images = load_data(data, architecture.input_size, read_split(out / SPLIT) if resume and out else None)
        architecture = replace(architecture, num_classes=len(images.class_names))
    out = out or default_folder(architecture, data, chosen, teacher, seed)
    how: dict[str, Any] = {"out": out, "resume": resume, "seed": seed, "device": device, "threads": threads}
    result = train(architecture, images, chosen, teacher=teacher, progress=not quiet, force=force, **how)
    print_training(result)
    if result.state == "interrupted":
        raise typer.Exit(130)


def print_training(result: TrainResult) -> None:
    """What a training came to."""
    print_rows(result.rows())


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(help="A trained run's folder, or its .pt file.")],
    formats: Annotated[
        str, typer.Option("--format", help=f"Separated by commas: {', '.join(list_export_formats())}.")
    ] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Also an int8 ONNX file; tflite is int8 anyhow.")] = False,
    power_of_two: Annotated[
        bool, typer.Option("--power-of-two", help="Also an int8 ONNX file whose scales are powers of two.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Data for calibration and accuracy; default: the run's.")] = None,
    opset: Annotated[int, typer.Option(help="Version of ONNX's operator set, 13 or later.")] = OPSET,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: the run's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained network to files that ship, and compare them with it."""
    from zeroshot_nas.export.exporting import export_network

    report = export_network(
        run, out, formats=formats.split(","), int8=int8, power_of_two=power_of_two, data=data, opset=opset
    )
    if as_json:
        print_json(report.to_dict())
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
    print_rows([*rows, ("opset", str(report.opset))])


@app.command("predict")
def predict_command(
    run: Annotated[Path, typer.Argument(help="A trained run's folder, its .pt file, or an exported .onnx file.")],
    images: Annotated[
        list[Path],
        typer.Argument(help="Image files, or folders of them; each is scaled to cover the input, and cropped."),
    ],
    top: Annotated[int, typer.Option(help="Classes to print.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What a trained network, or its exported ONNX file in ONNX Runtime, says of image files."""
    from zeroshot_nas import load, load_onnx
    from zeroshot_nas.latency.onnx_file import is_onnx_file
    from zeroshot_nas.training.checkpoint import classify
    from zeroshot_nas.training.images import image_files

    network = load_onnx(run) if is_onnx_file(run) else load(run)
    said = {
        str(file): dict(list(classes.items())[: max(top, 1)])
        for file, classes in classify(network, image_files(images))
    }
    if as_json:
        print_json(said)
        return
    print_rows([(file, ", ".join(f"{name} {p:.1%}" for name, p in classes.items())) for file, classes in said.items()])


def _parse_change(text: str) -> tuple[str, Any]:
    """``name=value`` of a recipe: a number, true, false, none or a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set takes name=value, got {text!r}")
    try:
        return name, json.loads({"none": "null"}.get(value.lower(), value.lower()))
    except (ValueError, RecursionError):
        return name, value
