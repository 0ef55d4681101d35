"""`score` and `cost`: what is known of a network before it is trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    AsJson,
    BatchSize,
    Classes,
    Device,
    Input,
    InSpace,
    Model,
    Repeats,
    Seed,
    SqueezeExcite,
    app,
    cost_rows,
    print_json,
    print_rows,
    read_architecture,
)
from zeroshot_nas.cli.help import completes_public
from zeroshot_nas.searchers.words import bits_rows

if TYPE_CHECKING:
    from zeroshot_nas.architecture.architecture import Architecture
    from zeroshot_nas.closed_form.cet.explain import LayerShare


@app.command("score")
def score_command(
    model: Model,
    proxy: Annotated[
        str,
        typer.Option(
            "--proxy",
            "--proxies",
            help="Proxies, separated by commas.",
            autocompletion=completes_public("list_proxies"),
        ),
    ] = "cet",
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    space: InSpace = None,
    repeats: Repeats = 4,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="With cet: its parts, see docs/cet.md, and what each convolution adds.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="With --explain: bars as a .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a network with training-free proxies."""
    from zeroshot_nas import score

    if explain and ("," in proxy or proxy.partition(":")[0] != "cet"):
        raise typer.BadParameter(f"--explain tells what a network's cet is made of: use --proxy cet, not {proxy!r}")
    if plot is not None and not explain:
        raise typer.BadParameter("--plot draws what --explain tells: give both")
    architecture = read_architecture(model, image, classes, squeeze_excite, space)
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
        print_json(data)
        return
    for each in scores.values():
        typer.echo(str(each))
        if each.details and explain:
            print_rows([(f"  {name}", f"{value:,.6g}") for name, value in each.details.items()])
    if rows:
        from zeroshot_nas.plots.explanation import explanation_table

        typer.echo(f"\n{explanation_table(rows)}")
        if plot is not None:
            typer.echo(f"\nwritten to {plot}")


def _explained(architecture: Architecture, title: str, plot: Path | None) -> list[LayerShare]:
    """What each convolution adds to the network's CET; drawn too, where a file is named."""
    from zeroshot_nas.closed_form.cet.explain import cet_explain
    from zeroshot_nas.plots.explanation import write_explanation

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
    space: InSpace = None,
    as_json: AsJson = False,
) -> None:
    """Parameters, FLOPs (multiply-adds), layers, activations and other costs of a network."""
    from zeroshot_nas import cost

    architecture = read_architecture(model, image, classes, squeeze_excite, space)
    costs = cost(architecture)
    if as_json:
        print_json(costs.to_dict())
    else:
        print_rows([*bits_rows(architecture), *cost_rows(costs)])
