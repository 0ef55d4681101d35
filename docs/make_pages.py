"""Writes docs/proxies.md from the registry and the benchmark's results, and docs/layers.md from the imports.

python docs/make_pages.py
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from zeroshot_nas.scoring.proxy import PROXIES, ProxyInfo

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"

ABOUT = """Every proxy that `zeroshot-nas list` names, with what it asks for. Formula, departures from the authors'
code and an example are in each function's docstring: `help(zeroshot_nas.get_proxy("naswot").info.function)`. This page
is written by `docs/make_pages.py`."""

COLUMNS = """By default inputs are Gaussian and labels are seeded random ones, so that nothing needs data; `batch=`
takes real ones. *Real data* says that the source computes it on real images. *Depth* marks scores that
grow with depth, for which a search needs a limit on it. *Agrees with itself* is Spearman's rank
correlation between seeds over 100 random networks (`benchmarks/proxy_repeatability.py`, one repeat a
score); a dash marks what has no noise. *ms* is one `score` call, one repeat at batch 16, on a residual
network of 513,776 parameters at 3x32x32 on one thread (`benchmarks/proxy_speed.py`)."""

ABOUT_LAYERS = """A folder imports from folders on lower floors, and from itself without a circle.
`python -m tests.layers` reads the imports and prints the floors, `tests/test_layers.py` keeps them. Words are explained
in [glossary.md](glossary.md). This page is written by `docs/make_pages.py`."""

ABOUT_PLUGINS = (
    """a new file there that registers something is found by itself, and no file of the same folder imports it."""
)

COST_CLASSES = {
    "graph": "the graph alone",
    "weights": "the weights",
    "forward": "1-2 forward",
    "backward": "1-2 backward",
    "many": "many passes",
}


def proxies_page() -> str:
    """The page of all proxies."""
    speed, repeatability = _result("proxy_speed"), _result("proxy_repeatability")
    lines = [
        "# The proxies",
        "",
        *textwrap.wrap(ABOUT, 116),
        "",
        *textwrap.wrap(COLUMNS, 116),
        "",
        "| proxy | what it measures | better | weights | needs | costs | real data | depth | agrees with itself | ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in PROXIES:
        info = PROXIES[name]
        if info.parts:
            continue
        lines.append("| " + " | ".join(_row(info, speed, repeatability)) + " |")
    lines += ["", "Aggregates are functions of a pool of networks (`score_pool`), not of one:", ""]
    for name in PROXIES:
        info = PROXIES[name]
        if info.parts:
            how = {"log_rank": "sum of log ranks", "mean_rank": "mean rank", "vote": "vote"}[info.aggregation]
            lines.append(f"- `{name}` ({info.source}): {how} of {', '.join(f'`{part}`' for part in info.parts)}.")
    together = _together(speed)
    return "\n".join([*lines, *together, ""])


def _row(info: ProxyInfo, speed: dict[str, Any], repeatability: dict[str, Any]) -> list[str]:
    function = info.function or info.closed_form
    summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    summary = summary.rstrip(".").partition("; higher is better")[0]
    if info.closed_form is not None and info.function is None:
        needs = "an architecture"
    else:
        wants = (
            ("batch norm", info.needs_batch_norm),
            ("gradients", info.needs_gradients),
            ("labels", info.needs_labels),
        )
        needs = ", ".join(word for word, wanted in wants if wanted)
    itself = repeatability.get(info.name)
    milliseconds = speed.get("alone", {}).get(info.name)
    return [
        f"`{info.name}`",
        summary,
        info.direction,
        info.init if info.function is not None and info.cost != "graph" else "",
        needs,
        COST_CLASSES[info.cost],
        "yes" if info.real_data else "",
        "yes" if info.grows_with_depth else "",
        "-" if info.cost == "graph" else f"{itself:.2f}" if itself is not None else "",
        f"{milliseconds:.1f}" if milliseconds is not None else "",
    ]


def _together(speed: dict[str, Any]) -> list[str]:
    if "together" not in speed:
        return []
    names, together, alone = speed["together"]
    return [
        "",
        f"All of {', '.join(f'`{name}`' for name in names)} in one call take {together:.0f} ms; one by one "
        f"{alone:.0f} ms. They share the module, its weights and its passes, and each has the value that it has alone.",
    ]


def _result(name: str) -> dict[str, Any]:
    """What the page reads of a benchmark's results; empty where there are none."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return {}
    return READERS[name](json.loads(file.read_text(encoding="utf-8")))


def _speed(data: dict[str, Any]) -> dict[str, Any]:
    figures = {each["what"]: each["figure"] for part in data.values() for each in part["figures"]}
    alone = {
        what.partition(":")[0]: figure
        for what, figure in figures.items()
        if what.endswith("whole call of score, one repeat")
    }
    found: dict[str, Any] = {"alone": alone}
    count = next((what.split()[0] for what in figures if what.endswith("proxies in one call")), None)
    if count is not None:
        names = [what.split()[2] for what in figures if what.startswith("score of ")]
        found["together"] = (names, figures[f"{count} proxies in one call"], figures[f"{count} proxies, one call each"])
    return found


def _repeatability(data: dict[str, Any]) -> dict[str, Any]:
    figures = {each["what"]: each["figure"] for part in data.values() for each in part["figures"]}
    ending = ": Spearman between seeds, mean"
    return {what.removesuffix(ending): figure for what, figure in figures.items() if what.endswith(ending)}


def layers_page() -> str:
    """The page of the package's folders, the top floor first."""
    sys.path.insert(0, str(DOCS.parent))
    from tests.layers import FLOORS, PLUGIN_PACKAGES, modules

    doc = {module.name: ast.get_docstring(module.tree) or "" for module in modules()}
    lines = [
        "# The layers",
        "",
        *textwrap.wrap(ABOUT_LAYERS, 116),
        "",
        "| floor | folder | holds |",
        "|---|---|---|",
    ]
    for floor, names in reversed(list(enumerate(FLOORS))):
        for name in names:
            plain = "zeroshot_nas" if name == "__init__" else name
            holds = doc[name].split("\n\n")[0].replace("\n", " ")
            lines.append(f"| {floor} | `{plain}` | {holds} |")
    scanned = ", ".join(f"`{package}`" for package in PLUGIN_PACKAGES)
    return "\n".join([*lines, "", *textwrap.wrap(f"Plug-ins live in {scanned}: {ABOUT_PLUGINS}", 116), ""])


READERS = {"proxy_speed": _speed, "proxy_repeatability": _repeatability}

if __name__ == "__main__":
    for name, page in (("proxies", proxies_page), ("layers", layers_page)):
        (DOCS / f"{name}.md").write_text(page(), encoding="utf-8")
