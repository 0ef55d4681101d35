"""`latency`: measuring this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    MODEL_HELP,
    AsJson,
    Backend,
    Classes,
    ImagesPerRun,
    Input,
    InSpace,
    Quiet,
    Resolutions,
    Seed,
    SpaceOption,
    SqueezeExcite,
    Threads,
    app,
    is_given,
    parse_quantity,
    parse_shape,
    print_json,
    print_result,
    read_architecture,
    shows_progress,
    space_of,
)
from zeroshot_nas.cli.help import Application, completes_public

if TYPE_CHECKING:
    from zeroshot_nas.architecture.architecture import Architecture

latency_app = Application(help="Measure this machine.")
app.add_typer(latency_app, name="latency")


@latency_app.command("calibrate")
def latency_calibrate_command(
    space: Annotated[
        str | None,
        typer.Option(
            help="Search space whose networks are to be predicted; default: as `search`.",
            autocompletion=completes_public("list_spaces"),
        ),
    ] = None,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    space_option: SpaceOption = None,
    resolutions: Resolutions = None,
    backend: Backend = "onnxruntime",
    threads: Threads = 1,
    batch_size: ImagesPerRun = 1,
    networks: Annotated[int, typer.Option(help="Networks to measure.")] = 160,
    max_flops: Annotated[str, typer.Option(help="FLOPs (multiply-adds) of the largest of them.")] = "300M",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="The table's file; default: where `search` looks for it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a table that is there.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure this machine once, so that a search can predict latency; goes on where it was killed."""
    from zeroshot_nas.latency.calibrate import calibrate, table_file

    shape = {"image": image, "classes": classes, "dataset": None}
    own = {"squeeze_excite": squeeze_excite, "space_option": space_option, "resolutions": resolutions}
    where = space_of({"space": space, **own, **shape})
    file = out or table_file(backend, where.name, where.input_size, batch_size=batch_size, threads=threads)
    try:
        table = calibrate(
            where,
            backend,
            threads=threads,
            batch_size=batch_size,
            networks=networks,
            max_flops=parse_quantity(max_flops, "--max-flops"),
            seed=seed,
            out=file,
            force=force,
            progress=shows_progress(quiet),
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
    print_result(
        as_json,
        lambda: {"table": file, "fingerprint": asdict(at), "largest_ms": table.largest_ms, **table.details},
        lambda: rows,
    )


@latency_app.command("measure")
def latency_measure_command(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help=f"{MODEL_HELP} An .onnx file of any origin is timed as it is.")],
    backend: Annotated[
        str,
        typer.Option(
            help="Engines, separated by commas; see `list`.", autocompletion=completes_public("list_backends")
        ),
    ] = "onnxruntime",
    threads: Threads = 1,
    batch_size: ImagesPerRun = 1,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    space: InSpace = None,
    seconds: Annotated[float, typer.Option(help="How long to measure on each.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """How long a network takes on this machine."""
    from zeroshot_nas.latency.base import measure
    from zeroshot_nas.latency.onnx_file import is_onnx_file

    how: dict[str, Any] = {"batch_size": batch_size, "threads": threads, "seconds": seconds}
    target: Architecture | str = model
    if not is_onnx_file(model):
        target = read_architecture(model, image, classes, squeeze_excite, space)
    elif is_given(ctx, "image"):
        how["input_size"] = parse_shape(image)
    found = [measure(target, name.strip(), **how) for name in backend.split(",")]
    if as_json:
        print_json([each.to_dict() for each in found])
        return
    for each in found:
        typer.echo(str(each))
