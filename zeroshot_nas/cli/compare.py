"""`compare`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    MODEL_HELP,
    AsJson,
    Changes,
    Classes,
    Device,
    Epochs,
    Executor,
    Force,
    ImagesPerStep,
    Input,
    InSpace,
    Log,
    NewHead,
    Precision,
    Quiet,
    RecipeName,
    Scheduler,
    Seed,
    SqueezeExcite,
    TimeLimit,
    TrainingData,
    Workers,
    app,
    callbacks_of,
    cost_limits,
    plan_sayers,
    print_result,
    read_architecture,
    recipe_of,
    shows_progress,
    with_cost_limits,
)
from zeroshot_nas.cli.help import completes_public
from zeroshot_nas.core.files import read_as

if TYPE_CHECKING:
    from zeroshot_nas.architecture.architecture import Architecture
    from zeroshot_nas.callbacks.base import Callback
    from zeroshot_nas.costs.budget import Budget

_OWN_NAMES = ("best", "architecture", "result")
"""Files that every run has, which are called by their folder."""


@app.command("compare")
@with_cost_limits(after="published")
def compare_command(
    ctx: typer.Context,
    models: Annotated[list[str], typer.Argument(help=f"The first is the one in question. {MODEL_HELP}")],
    references: Annotated[
        str,
        typer.Option(
            "--with",
            help="Hand-made networks, separated by commas; see `list references`.",
            autocompletion=completes_public("list_references"),
        ),
    ] = "resnet8,resnet20,mobilenet_v2",
    published: Annotated[
        bool,
        typer.Option("--published", help="Leave hand-made networks as published, whatever they cost."),
    ] = False,
    data: TrainingData = "digits",
    recipe: RecipeName = "standard",
    epochs: Epochs = None,
    batch_size: ImagesPerStep = None,
    precision: Precision = None,
    changes: Changes = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each network, of seeds counted on from --seed.")] = 3,
    seed: Seed = 0,
    new_head: NewHead = False,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    space: InSpace = None,
    device: Device = None,
    backend: Annotated[
        str,
        typer.Option(
            help="Engine that latency is measured on, or none.", autocompletion=completes_public("list_backends")
        ),
    ] = "onnxruntime",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: runs/compare-..., the same for the same question.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    executor: Executor = "serial",
    workers: Workers = None,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = None,
    log: Log = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **_limit_options: str | None,
) -> None:
    """Train networks and hand-made ones by one recipe, and set their accuracies beside what they cost.

    Hand-made networks are as wide as the budget lets them be: that of --max-params and so on, or else that of the
    search which found the first network, or what the first network costs.
    """
    from zeroshot_nas import compare
    from zeroshot_nas.execution import get_executor
    from zeroshot_nas.runs.options import RunOptions

    named = _named({name: read_architecture(name, image, classes, squeeze_excite, space) for name in models})
    if new_head:
        named = _with_classes_of(named, data)
    chosen = recipe_of(recipe, epochs, batch_size, precision, changes)
    by_hand = [name for name in references.split(",") if name]
    budget = _budget(ctx.params, models[0])
    asked = [[each.to_dict() for each in named.values()], by_hand, repr(budget), data, chosen.to_dict(), seeds, seed]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]
    out = out or Path("runs") / f"compare-{data.partition(':')[0]}-{digest}"
    progress = shows_progress(quiet)
    callbacks: list[str | Callback] = [*callbacks_of(log), *plan_sayers(quiet)]
    with get_executor(executor, workers=workers, time_limit=time_limit, scheduler=scheduler) as pool:
        run = RunOptions(out=out, resume=resume, force=force, executor=pool, progress=progress, callbacks=callbacks)
        how: dict[str, Any] = {"budget": budget, "seeds": seeds, "seed": seed, "device": device}
        found = compare(named, by_hand, data, chosen, run, backend=None if backend == "none" else backend, **how)
    print_result(as_json, lambda: {**found.to_dict(), "out": out}, lambda: [*found.rows(), ("written to", str(out))])
    if found.state == "interrupted":
        raise typer.Exit(130)


def _named(given: Mapping[str, Architecture]) -> dict[str, Architecture]:
    """Networks under short names, each its own: a run's folder, a file, or its place."""
    named: dict[str, Architecture] = {}
    for place, (text, architecture) in enumerate(given.items(), start=1):
        name = _short_name(text) or ("network" if len(given) == 1 else f"network-{place}")
        named[name if name not in named else f"{name}-{place}"] = architecture
    return named


def _short_name(text: str) -> str:
    if text.startswith("reference:"):
        return text.removeprefix("reference:")
    if "(" in text or "|" in text or not Path(text).exists():
        return ""
    path = Path(text).resolve()
    return path.parent.name if path.stem in _OWN_NAMES else path.name if path.is_dir() else path.stem


def _with_classes_of(named: Mapping[str, Architecture], data: str) -> dict[str, Architecture]:
    from zeroshot_nas import load_data

    size = next(iter(named.values())).input_size
    classes = len(load_data(data, size).class_names)
    return {name: replace(each, num_classes=classes) for name, each in named.items()}


def _budget(options: Mapping[str, Any], first: str) -> Budget | None:
    """What hand-made networks may cost; None for what the first network does."""
    from zeroshot_nas import Budget, SearchResult
    from zeroshot_nas.comparing.compare import limits_of

    limits = cost_limits(options)
    if options["published"]:
        if limits:
            raise typer.BadParameter("--published leaves hand-made networks as they are; leave out the limits, or it")
        return Budget()
    if "latency_ms" in limits:
        raise typer.BadParameter("hand-made networks are scaled by what is counted; give --max-flops or --max-params")
    if limits:
        return Budget(**limits)
    path = Path(first) if "(" not in first and Path(first).exists() else Path()
    file = (path if path.is_dir() else path.parent) / "result.json"
    is_found = path.is_dir() or path.name == "best.json"
    if not is_found or path == Path() or not file.is_file():
        return None
    return limits_of(read_as(file, SearchResult.from_json))
