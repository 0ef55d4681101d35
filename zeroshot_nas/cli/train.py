"""`train`, `qat`, `export` and `predict`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    AsJson,
    Changes,
    Classes,
    Device,
    Epochs,
    Force,
    ImagesPerStep,
    Input,
    InSpace,
    Log,
    Model,
    NewHead,
    Precision,
    Quiet,
    RecipeName,
    Seed,
    SqueezeExcite,
    TrainingData,
    app,
    callbacks_of,
    print_json,
    print_result,
    print_rows,
    read_architecture,
    recipe_changes,
    recipe_of,
    shows_progress,
)
from zeroshot_nas.cli.help import completes_public
from zeroshot_nas.export.base import OPSET, list_export_formats

Teacher = Annotated[Path | None, typer.Option(help="Folder of a trained run to learn from.")]
TorchThreads = Annotated[
    int | None, typer.Option(help="Threads of torch; default: one for a small network. More need idle cores.")
]
GoOn = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]


@app.command("train")
def train_command(
    model: Model,
    data: TrainingData = "digits",
    recipe: RecipeName = "standard",
    epochs: Epochs = None,
    batch_size: ImagesPerStep = None,
    precision: Precision = None,
    changes: Changes = None,
    teacher: Teacher = None,
    new_head: NewHead = False,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    space: InSpace = None,
    seed: Seed = 0,
    device: Device = None,
    threads: TorchThreads = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: runs/train-..., the same for the same training.")
    ] = None,
    resume: GoOn = False,
    log: Log = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a network end to end and keep its weights."""
    from zeroshot_nas import load_data, train
    from zeroshot_nas.training.base import read_split
    from zeroshot_nas.training.checkpoint import SPLIT
    from zeroshot_nas.training.trainer import default_folder

    chosen = recipe_of(recipe, epochs, batch_size, precision, changes)
    architecture = read_architecture(model, image, classes, squeeze_excite, space)
    images: Any = data
    if new_head:
        images = load_data(data, architecture.input_size, read_split(out / SPLIT) if resume and out else None)
        architecture = replace(architecture, num_classes=len(images.class_names))
    out = out or default_folder(architecture, data, chosen, teacher, seed)
    how: dict[str, Any] = {"out": out, "resume": resume, "seed": seed, "device": device, "threads": threads}
    how |= {"progress": shows_progress(quiet), "force": force, "callbacks": callbacks_of(log)}
    result = train(architecture, images, chosen, teacher=teacher, **how)
    print_result(as_json, result.to_dict, result.rows)
    if result.state == "interrupted":
        raise typer.Exit(130)


@app.command("qat")
def qat_command(
    weights: Annotated[Path, typer.Argument(metavar="RUN", help="A trained run's folder, or its file of weights.")],
    data: Annotated[
        str | None,
        typer.Option(help="Data set; default: the run's.", autocompletion=completes_public("list_data")),
    ] = None,
    recipe: RecipeName = "qat",
    epochs: Epochs = None,
    batch_size: ImagesPerStep = None,
    changes: Changes = None,
    power_of_two: Annotated[
        bool, typer.Option("--power-of-two", help="Scales that are powers of two, for devices that shift.")
    ] = False,
    teacher: Teacher = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness; default: the run's.")] = None,
    device: Device = None,
    threads: TorchThreads = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the int8 run; default: RUN-int8, beside the run.")] = None,
    resume: GoOn = False,
    log: Log = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a run's network further with its values rounded to int8, for a file that needs no calibration."""
    from zeroshot_nas import quantize_aware
    from zeroshot_nas.training.qat import default_int8_folder, rounding_recipe

    changed = recipe_changes(epochs, batch_size, changes)
    chosen = rounding_recipe(weights, recipe, power_of_two=power_of_two, **changed)
    out = out or default_int8_folder(weights, chosen)
    how: dict[str, Any] = {"out": out, "resume": resume, "seed": seed, "device": device, "threads": threads}
    how |= {"progress": shows_progress(quiet), "force": force, "callbacks": callbacks_of(log)}
    result = quantize_aware(weights, data, chosen, teacher=teacher, **how)
    print_result(as_json, result.to_dict, result.rows)
    if result.state == "interrupted":
        raise typer.Exit(130)


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(help="A trained run's folder, or its file of weights.")],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"Separated by commas: {', '.join(list_export_formats())}.",
            autocompletion=completes_public("list_export_formats"),
        ),
    ] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Also an int8 ONNX file; tflite is int8 anyhow.")] = False,
    power_of_two: Annotated[
        bool, typer.Option("--power-of-two", help="Also an int8 ONNX file whose scales are powers of two.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Data for calibration and accuracy; default: the run's.")] = None,
    opset: Annotated[int, typer.Option(help="Version of ONNX's operator set, 13 or later.")] = OPSET,
    search: Annotated[
        Path | None, typer.Option(help="Folder of the search that found the network, for the Hub's model card.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence of the weights for that card, e.g. apache-2.0.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: the run's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained network to files that ship, and compare them with it."""
    from zeroshot_nas.export.exporting import export_network

    how: dict[str, Any] = {"int8": int8, "power_of_two": power_of_two, "data": data, "opset": opset}
    report = export_network(run, out, formats=formats.split(","), search=search, license=licence, **how)
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
        parts += [] if each.ranges is None else [f"ranges {each.ranges}"]
        rows.append((f"{each.kind}", f"{each.file}: {', '.join(parts)}"))
    print_rows([*rows, ("opset", str(report.opset))])


@app.command("predict")
def predict_command(
    run: Annotated[
        Path,
        typer.Argument(
            help="A trained run's folder or file of weights, a folder for the Hub, or an exported .onnx file."
        ),
    ],
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
