"""`prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    AsJson,
    Changes,
    Device,
    Epochs,
    Force,
    ImagesPerStep,
    Log,
    Precision,
    Quiet,
    app,
    callbacks_of,
    cost_limits,
    print_result,
    recipe_changes,
    shows_progress,
    with_cost_limits,
)
from zeroshot_nas.cli.help import completes, completes_public
from zeroshot_nas.cli.train import GoOn, Teacher, TorchThreads
from zeroshot_nas.costs.base import COSTS


def _importances() -> list[str]:
    from zeroshot_nas.pruning.channels import IMPORTANCES

    return list(IMPORTANCES)


@app.command("prune")
@with_cost_limits(after="weights")
def prune_command(
    weights: Annotated[Path, typer.Argument(metavar="RUN", help="A trained run's folder, or its file of weights.")],
    device_table: Annotated[
        Path | None, typer.Option(help="Table that predicts latency, which --max-latency needs.")
    ] = None,
    importance: Annotated[
        str,
        typer.Option(
            help="What a channel is worth: taylor, norm, bn_scale, random.", autocompletion=completes(_importances)
        ),
    ] = "taylor",
    width_step: Annotated[int, typer.Option(help="Every width is a multiple of it.")] = 1,
    data: Annotated[
        str | None,
        typer.Option(help="Data set; default: the run's.", autocompletion=completes_public("list_data")),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe of what follows; default: the run's.", autocompletion=completes_public("list_recipes")
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: ImagesPerStep = None,
    precision: Precision = None,
    changes: Changes = None,
    teacher: Teacher = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness; default: the run's.")] = None,
    device: Device = None,
    threads: TorchThreads = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the pruned run; default: RUN-pruned, beside the run.")
    ] = None,
    resume: GoOn = False,
    log: Log = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **limits: Any,  # an option for each registered cost
) -> None:
    """Prune a trained network's channels until it is within a budget, and train it further."""
    from zeroshot_nas import Budget, prune
    from zeroshot_nas.pruning.prune import default_pruned_folder, read_about, tuning_recipe
    from zeroshot_nas.training.checkpoint import read_result

    asked = cost_limits(limits)
    if not asked:
        raise typer.BadParameter("a budget is missing: give --max-params, --max-flops or another --max-...")
    chosen = tuning_recipe(read_result(weights), recipe, **recipe_changes(epochs, batch_size, changes, precision))
    out = out or default_pruned_folder(weights)
    how: dict[str, Any] = {"out": out, "resume": resume, "seed": seed, "device": device, "threads": threads}
    how |= {"progress": shows_progress(quiet), "force": force, "callbacks": callbacks_of(log)}
    how |= {"importance": importance, "width_step": width_step, "device_table": device_table, "teacher": teacher}
    result = prune(weights, Budget(**asked), data, chosen, **how)
    about = read_about(out)
    assert about is not None, "written before training"
    own = {name: about[name] for name in ("settings", "before", "costs")}
    print_result(as_json, lambda: {"pruned": own, **result.to_dict()}, lambda: [*_rows(own), *result.rows()])
    if result.state == "interrupted":
        raise typer.Exit(130)


def _rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    """What the network cost and costs; of a network that loses nothing both are the same."""
    before, after = about["before"], about["costs"]
    return [
        (COSTS[name].label, f"{after[name]:,} of {before[name]:,} {COSTS[name].unit}".rstrip())
        for name in after
        if name in COSTS and name != "layers"
    ]
