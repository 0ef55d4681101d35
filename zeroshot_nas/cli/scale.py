"""`scale`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroshot_nas.cli.base import (
    AsJson,
    Classes,
    Force,
    Input,
    InSpace,
    Model,
    SqueezeExcite,
    app,
    print_result,
    read_architecture,
)
from zeroshot_nas.cli.help import completes_public
from zeroshot_nas.core.files import explained_writes, write_text

if TYPE_CHECKING:
    from zeroshot_nas.families.scaling import ScaledNetwork


@app.command("scale")
def scale_command(
    model: Model,
    phi: Annotated[str, typer.Option(help="Doublings of FLOPs, separated by commas.")] = "1",
    factors: Annotated[
        str,
        typer.Option(
            help="found, efficientnet, fast, depth, width, resolution, or three numbers for depth, width, resolution."
        ),
    ] = "found",
    proxy: Annotated[
        str | None,
        typer.Option(
            help="What factors are found by; default: what `search` ranks by.",
            autocompletion=completes_public("list_proxies"),
        ),
    ] = None,
    width_step: Annotated[int, typer.Option(help="Every width is a multiple of it.")] = 1,
    image: Input = "3x32x32",
    classes: Classes = 10,
    squeeze_excite: SqueezeExcite = False,
    space: InSpace = None,
    out: Annotated[Path | None, typer.Option(help="Folder for an architecture file of each: phi-1.json.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Scale a network: deeper, wider, of a higher resolution, 2^phi times the FLOPs."""
    from zeroshot_nas.families.scaling import find_factors, read_factors, scale
    from zeroshot_nas.scoring.proxy import DEFAULT_SEARCH_PROXY, get_proxy

    architecture = read_architecture(model, image, classes, squeeze_excite, space)
    doublings = [_number(text) for text in phi.split(",")]
    files = {} if out is None else {each: out / f"phi-{each:g}.json" for each in doublings}
    if not force and (there := [str(file) for file in files.values() if file.exists()]):
        raise typer.BadParameter(f"{there[0]} is there; --force replaces it")
    ranked_by = get_proxy(DEFAULT_SEARCH_PROXY if proxy is None else proxy)
    chosen = find_factors(architecture, ranked_by) if factors == "found" else read_factors(factors)
    networks = [scale(architecture, each, chosen, width_step=width_step) for each in doublings]
    scores = [ranked_by.closed_form(network.architecture) for network in networks]
    if out is not None:
        with explained_writes(out, typer.BadParameter, "name another folder with --out"):
            out.mkdir(parents=True, exist_ok=True)
            for network in networks:
                write_text(files[network.phi], network.architecture.to_json(indent=1))
    print_result(as_json, lambda: _data(networks, scores, files), lambda: _rows(networks, scores, ranked_by.key, files))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"--phi must be numbers separated by commas, such as 1,2,3; got {text!r}") from None


def _data(
    networks: Sequence[ScaledNetwork], scores: Sequence[float], files: Mapping[float, Path]
) -> list[dict[str, Any]]:
    return [
        {
            "phi": network.phi,
            "factors": network.factors._asdict(),
            "architecture": network.architecture.to_dict(),
            "costs": network.costs.to_dict(),
            "score": score,
            "file": files.get(network.phi),
        }
        for network, score in zip(networks, scores, strict=True)
    ]


def _rows(
    networks: Sequence[ScaledNetwork], scores: Sequence[float], proxy: str, files: Mapping[float, Path]
) -> list[tuple[str, str]]:
    depth, width, resolution = networks[0].factors
    cells = [["input", "layers", "params", "FLOPs", proxy]]
    for network, score in zip(networks, scores, strict=True):
        shape = "x".join(map(str, network.architecture.input_size))
        costs = network.costs
        cells.append([shape, str(costs.layers), f"{costs.params:,}", f"{costs.flops:,}", f"{score:.6g}"])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return [
        ("factors", f"depth {depth:.3f}, width {width:.3f}, resolution {resolution:.3f}, a doubling of FLOPs"),
        *zip(["phi", *(f"{network.phi:g}" for network in networks)], texts, strict=True),
        *((f"phi {network.phi:g}", str(files.get(network.phi, network.architecture))) for network in networks),
    ]
