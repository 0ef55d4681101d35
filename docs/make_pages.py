"""Writes the pages that `PAGES` names: from registries, imports and the benchmarks' results.

python docs/make_pages.py
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from zeroshot_nas.scoring.proxy import PROXIES, ProxyInfo
from zeroshot_nas.training.recipe import Recipe, recipe_table

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"

ABOUT = """Every proxy that `zeroshot-nas list` names, with what it asks for. Formula, departures from the authors'
code and an example are in each function's docstring: `help(zeroshot_nas.get_proxy("naswot").info.function)`. Which of
them have a value for which of timm's families is in [timm.md](timm.md). This page is written by
`docs/make_pages.py`."""

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

TIMM_INTERFACE = """## A network of ours where timm's is expected

```python
import torch
import zeroshot_nas as zs

network = zs.build(zs.get_space("resnet", input_size=(3, 64, 64)).initial())  # or zs.load("runs/photos")
backbone = zs.features(network, out_indices=(1, 2, 3))  # as timm.create_model(..., features_only=True, out_indices=...)

backbone.feature_info.channels()  # [16, 32, 128]
backbone.feature_info.reduction()  # [4, 8, 16]
maps = backbone(torch.rand(2, 3, 96, 128))  # a list, of images of any size
[tuple(each.shape) for each in maps]  # [(2, 16, 24, 32), (2, 32, 12, 16), (2, 128, 6, 8)]

network.reset_classifier(37)  # classes of your own; zs.train(network, "folder:pets") goes on from its weights
```

What is written against timm's interface takes it as it is: a feature pyramid asks for `feature_info.channels()` and
`.reduction()`, and gets a list of maps `(N, C, H, W)`.

| of timm | here |
|---|---|
| `create_model(name, features_only=True, ...)` | `zs.features(network, ...)`, also of an architecture or a candidate |
| `.feature_info.channels()`, `.reduction()`, `.module_name()`, `.get_dicts()`, `.out_indices` | the same |
| `model.feature_info` | the same: one entry a resolution, with `num_chs`, `reduction`, `module` |
| `forward_features(x)`, `forward_head(x, pre_logits=False)` | the same |
| `num_features`, `head_hidden_size`, `num_classes` | the same |
| `get_classifier(name_only=False)` | the same |
| `reset_classifier(num_classes, global_pool=None)` | the same: 0 classes give features, with `""` unpooled ones |

**Where the maps are.** There is one for each resolution that a network passes through, the finest first: what its last
block there gives, which is what the next block reads. Of a residual unit that is behind the sum, of a cell
(NAS-Bench-101, 201, TransNAS) the cell's output, before the ReLU that the next cell begins with. DARTS's networks
(`nasbench301`) are one graph of cells, which is entered: the map is the output of the last cell of a resolution. So
index 0 has stride 1 where the stem keeps the resolution, and not 2 as most of timm's; `reduction()` says it. A side
that a stride does not divide is rounded up. A map that is not there is refused, with the strides that there are; so is
a module of anyone else's, of which nothing is known.

**Weights are shared** with the network, not copied; `copy.deepcopy(network)` first gives some of their own. Keys of the
`state_dict` are the network's: `backbone.load_state_dict(weights, strict=False)` takes a checkpoint of the whole.
Blocks behind the last map are cut off.

**Images.** A trained network takes images in [0, 1], which it normalises itself, here too; a plain one takes what it
was built for. `torch.export`, ONNX (`zeroshot_nas.network.to_onnx.onnx_model`), pickles and training work as for any
module.
"""

ABOUT_TIMM = """timm ([github.com/huggingface/pytorch-image-models](https://github.com/huggingface/pytorch-image-models))
has networks of many families, and `score` takes any of them: `zs.score(timm.create_model("lcnet_050", num_classes=10),
"naswot", input_size=(3, 64, 64))`. The table says of one small network of each family which proxies have a value and
why others have none. A value is a number that follows the formula; whether it ranks the networks of that family is
another question, since nearly all proxies were made for convolutional networks with batch norm and ReLU. The page is
written by `docs/make_pages.py` from `benchmarks/results/timm_families.json`."""

ABOUT_EQUAL_BUDGET = """A search compares networks that fill one budget. Most of what a benchmark rewards is size,
so the tau over all of its networks says little about that: a score that counts parameters has one too. These tables say
what is left at equal size, on the benchmarks of the field. They are printed by
`benchmarks/equal_budget.py`; this page is written by `docs/make_pages.py` from
`benchmarks/results/equal_budget.json`, which also has the figures budget by budget and task by task.
`zeroshot-nas correlate` prints the same figures for any table and any proxy, before all others."""

HOW_EQUAL_BUDGET = (
    """**tau** is Kendall's tau-b of the pairs of networks within bins of equal cost, sum(C - D) / sqrt(sum(P - S)
sum(P - A)) with, of a bin's P pairs, C ordered alike by score and accuracy, D unlike, S tied in score and A
in accuracy, all sums over the bins. Each cost is a bin of its own where at least 2 % of all pairs have
exactly equal costs and nine of ten networks have an equal; else bins are 20 quantiles of the cost, fewer
where one would have less than ten networks.""",
    """**regret** is the accuracy of the best network within a budget less that of the network of best score within
it (ties shared), in points; the mean over budgets at the 5 %, 10 %, ... 100 % quantiles of the cost. Best
of 5: the five networks of best score are trained and the best one is kept. A random choice is in
expectation.""",
    """In brackets: 95 % intervals of a bootstrap over networks. Where a tau is "-", the score is the same for all
networks of a bin. Scores in italics are other people's, from one draw of weights and one minibatch, a
failed one being worst; all others are closed forms of this package. At most 2,000 networks of a benchmark,
drawn with seed 0.""",
)

EQUAL_BUDGET_PARTS = {
    "nasbench201_cifar10": (
        "NAS-Bench-201, CIFAR-10",
        "Cells with no dead operation, test accuracy after 200 epochs. Here parameters and FLOPs order networks alike. "
        "Latencies: the benchmark's own on a GPU, HW-NAS-Bench's on a Raspberry Pi 4.",
    ),
    "nasbench201_cifar100": ("NAS-Bench-201, CIFAR-100", "As above."),
    "nasbench201_imagenet16": ("NAS-Bench-201, ImageNet16-120", "As above."),
    "macro": ("NAS-Bench-Macro", "Chains of MobileNetV2 blocks, CIFAR-10, mean test accuracy of three trainings."),
    "nats_sss": ("NATS-Bench, sizes", "Only widths vary. CIFAR-10, test accuracy after 90 epochs."),
    "nasbench101": ("NAS-Bench-101", "CIFAR-10, validation accuracy."),
    "nasbench301": ("NAS-Bench-301", "DARTS cells, CIFAR-10, the surrogate's accuracy."),
    "transnas_micro": (
        "TransNAS-Bench-101, micro",
        "Mean of six tasks, the autoencoder apart; regret as a part of a random choice's, since tasks have units of "
        "their own.",
    ),
    "transnas_macro": ("TransNAS-Bench-101, macro", "As above."),
}

ABOUT_VCN = """Networks of our own spaces that fill one budget, 100,000 parameters and 4 million FLOPs, trained
on CIFAR-10 by one recipe ([VCN-Bench](vcn.md)): hand-made, found and random ones. The form of `ceres` was
chosen on others of them, 48 in all, so it is judged by those that are *held out*; all other scores were chosen
elsewhere. `ceres` of 20,000 images and 3,750 steps knows the recipe, of 10,000 and 1,250 it is what searches
rank by. That few layers train best at these budgets nobody says beforehand; it is a baseline all the same. Four
draws a score, printed by `benchmarks/vcn_proxies.py`; here the field's proxies are computed by this package. A
regret of 0 is the best network."""

VCN_PARTS = {
    "A held out": "held out",
    "A held out, random": "of these, random",
    "A held out, best third": "of these, best third",
    "A": "all",
}

REASONS = {
    "needs batch norm": ("no batch norm", "the proxy scales by batch norm's statistics, and the network has none"),
    "reads ReLUs and their like": ("no ReLU", "no activation of the network is a ReLU or like one"),
    "images on the first axis": (
        "other axes",
        "the network cuts its maps into patches, so that the first axis of its activations is not the images'",
    ),
    "feature maps are needed": ("no maps", "it has fewer maps `(N, C, H, W)` than the proxy compares, but tokens"),
    "has no logarithm of a gradient": ("negative flow", "a norm makes some gradients of the flow -1 or less"),
    "so that it can't be scaled": ("flow range", "the flow leaves the range of floating point and can't be scaled"),
    "the flow is zero": ("no flow", "the flow is zero: it is lost in a norm"),
    "changes part of a feature map in place": ("changed map", "it writes into a part of a map after that was computed"),
    "knows no way to read": ("unknown end", "its last map has an axis order that `cet` can't know"),
    "needs the output of torch's": ("unknown end", "its last map has an axis order that `cet` can't know"),
    "is not implemented": ("one derivative", "torch differentiates one of its functions once and not twice"),
    "one value per channel of": ("small map", "a batch norm sees one value a channel where images run one by one"),
    "smallest eigenvalue": ("singular kernel", "images are too alike to the untrained network for float32"),
    "has no running statistics": ("no statistics", "a batch norm has none, and images run one by one"),
    "Fisher information's spectrum are zero": (
        "zero spectrum",
        "the few images leave most of the Fisher information zero; more images help",
    ),
    "over ": ("too slow", "it took longer than the limit"),
}
"""Part of a reason that a score gives: two words for it, and what they mean."""

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


def timm_page() -> str:
    """The page of timm's families."""
    data = _result("timm_families")
    families = data["families"]
    cells = {
        proxy: tuple(_cell(family["scores"][proxy]) for family in families.values())
        for proxy in next(iter(families.values()))["scores"]
    }
    alike: dict[tuple[str, ...], list[str]] = {}
    for proxy, column in cells.items():
        alike.setdefault(column, []).append(f"`{proxy}`")
    everywhere = alike.pop(("value",) * len(families), [])
    settings = data["settings"]
    how = (
        f"Measured with timm {data['timm']} on Gaussian images of {'x'.join(map(str, settings['input_size']))}, "
        f"{settings['batch_size']} at a time, one repeat, with weights drawn anew and not trained; a score may take "
        f"{data['limit, s']:g} s. Proxies that fare alike share a column."
    )
    lines = ["# timm: its interface, its families", "", TIMM_INTERFACE, "## Proxies on timm's families", ""]
    lines += [*textwrap.wrap(ABOUT_TIMM, 116), "", *textwrap.wrap(how, 116), ""]
    if everywhere:
        lines += [*textwrap.wrap(f"A value for all of these families: {', '.join(everywhere)}.", 116), ""]
    lines += [f"| family | network | {' | '.join('<br>'.join(names) for names in alike.values())} |"]
    lines += ["|---" * (2 + len(alike)) + "|"]
    for index, (name, family) in enumerate(families.items()):
        lines.append(" | ".join([f"| {name}", f"`{family['model']}`", *(column[index] for column in alike)]) + " |")
    seen = {cell for column in alike for cell in column}
    legend = [f"- **{words}**: {meaning}." for words, meaning in dict(REASONS.values()).items() if words in seen]
    return "\n".join([*lines, "", *legend, ""])


def equal_budget_page() -> str:
    """The page of rankings at equal budget."""
    data = _result("equal_budget")
    lines = ["# Ranking at equal budget", "", *textwrap.wrap(ABOUT_EQUAL_BUDGET, 116)]
    for paragraph in HOW_EQUAL_BUDGET:
        lines += ["", *textwrap.wrap(paragraph, 116)]
    lines += _vcn_section(_result("vcn_proxies"))
    for part, (title, about) in EQUAL_BUDGET_PARTS.items():
        if part not in data:
            continue
        details = data[part]["details"]
        said = f"{about} {details['networks']:,} networks; {_bins(details)}."
        lines += ["", f"## {title}", "", *textwrap.wrap(said, 116)]
        lines += ["", *details["table"]]
        if "last_table" in details:
            lines += ["", "The autoencoder:", "", *details["last_table"]]
    parts = [data[part] for part in EQUAL_BUDGET_PARTS if part in data]
    if parts:
        commits = sorted({each["commit"][:7] for each in parts})
        seconds = sum(each["seconds"] for each in parts)
        versions = ", ".join(f"{name} {number}" for name, number in parts[0]["versions"].items())
        measured = (
            f"Measured at {', '.join(commits)} with {versions}, on {parts[0]['machine']['cpu']}, one core, which "
        )
        measured += f"other work shared: {seconds:.0f} s in all."
        lines += ["", *textwrap.wrap(measured, 116)]
    return "\n".join([*lines, ""])


def _vcn_section(data: dict[str, Any]) -> list[str]:
    """The table of VCN-Bench's networks, where it is measured."""
    parts = {part: (words, data[part]["details"]) for part, words in VCN_PARTS.items() if part in data}
    if not parts:
        return []
    lines = ["", "## VCN-Bench, one budget", "", *textwrap.wrap(ABOUT_VCN, 116), ""]
    heads = [f"tau, {words} ({details['networks']})" for words, details in parts.values()]
    _, first = next(iter(parts.values()))
    lines.append(f"| score | {' | '.join(heads)} | regret, held out: first, best of 5 |")
    lines.append(f"| --- |{' ---: |' * (len(heads) + 1)}")
    for key, row in first["scores"].items():
        taus = [details["scores"][key] for _, details in parts.values()]
        cells = [f"{each['tau']:.2f} ({each['interval'][0]:.2f} to {each['interval'][1]:.2f})" for each in taus]
        called = key if key == "fewest layers" else f"`{key}`"
        lines.append(f"| {called} | {' | '.join(cells)} | {row['regret']:.1f}, {row['regret of five']:.1f} |")
    about = next(iter(data.values()))
    return [*lines, "", f"Measured at {about['commit'][:7]}, on {about['machine']['cpu']}."]


def _bins(details: dict[str, Any]) -> str:
    """How each cost was divided, in a benchmark of tasks that of the first."""
    sweeps = details["sweeps"] if "sweeps" in details else next(iter(details["tasks"].values()))["sweeps"]
    words = {True: "groups of exactly equal", False: "quantile bins of"}
    names = {"flops": "FLOPs"}
    kinds = [f"{each['bins']} {words[each['exact']]} {names.get(kind, kind)}" for kind, each in sweeps.items()]
    return ", ".join(kinds).replace("_", " ")


def _cell(score: dict[str, Any]) -> str:
    """``value``, or two words for the reason why there is none."""
    if "value" in score:
        return "value"
    return next(words for part, (words, _) in REASONS.items() if part in score["reason"])


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


ABOUT_RECIPES = """What each recipe of `zeroshot-nas list recipes` holds; each row is an argument of `zs.Recipe`, and
what `train --set name=value` takes. This page is written by `docs/make_pages.py`."""


def recipes_page() -> str:
    """The page of the recipes, with what each hyper-parameter means."""
    names, *rows = recipe_table()
    text = inspect.getdoc(Recipe) or ""
    about = textwrap.dedent(text.partition("Args:\n")[2].partition("\n\n")[0])
    meaning = dict(
        line.replace("\n", " ").split(": ", 1) for line in re.sub(r"\n +", " ", about).splitlines() if ": " in line
    )
    lines = ["# Recipes", "", *textwrap.wrap(ABOUT_RECIPES, 116), ""]
    lines += [f"| {' | '.join(names)} | meaning |", "|---" * (len(names) + 1) + "|"]
    for name, *values in rows:
        told = meaning[name].replace("``", "`")
        lines.append(f"| `{name}` | {' | '.join(values)} | {told} |")
    return "\n".join([*lines, "", RECIPES_END, ""])


RECIPES_END = """`quick` is for a look, `standard` for a small data set; neither mirrors images, which digits and
text must not be. `photos` is `standard` for twice as long, mirrored and shifted by up to 4 pixels. `zennas` is
Zen-NAS's for CIFAR (arXiv:2102.01063). `qat` goes on from a run's weights, with values rounded to int8, for
[microcontrollers](microcontrollers.md#training-with-rounded-values). Which to take:
[train on your own data](howto/train.md#which-recipe)."""

TRIED_FORMS = (
    *("VC", "VC depth", "VC plain", "logW sum", "nGM", "nHM", "PRtan"),
    *("stage gm", "stage sum log", "only E stages", "hard cut out", "hard cut in and out"),
)
"""Names of forms in ``cet_tried.jsonl`` that the page of what failed shows."""

KEPT_FORM = "exact: CET-U "
"""The form that was kept, by the same samples; its name in the log ends with a space."""


def tried_page() -> str:
    """The page of what was tried and failed: a text, with the logs' figures in it."""
    forms = {each["name"]: each for each in _lines("cet_tried")}
    rows = [
        f"| `{each['name'].strip()}` | {each['rationale']} | "
        + " | ".join(f"{each['tau'][name]:.3f}" for name in ("c10", "in16", "macro"))
        + " |"
        for each in map(forms.__getitem__, (*TRIED_FORMS, KEPT_FORM))
    ]
    trained: dict[tuple[str, ...], list[float]] = {}
    for each in _lines("found_vs_hand_tried"):
        what = each["what"] + (f": {each['shape']}" if each.get("shape") else "")
        trained.setdefault((what, each["row"], each["dataset"], str(each["epochs"])), []).append(each["test_accuracy"])
    tried = [
        f"| {' | '.join(key)} | {len(accuracies)} | {100 * sum(accuracies) / len(accuracies):.2f} % |"
        for key, accuracies in trained.items()
    ]
    text = (DOCS / "tried.md.in").read_text(encoding="utf-8")
    counts = {"cet": len(forms), "ceres": len(_lines("ceres_tried")), "winners": len(_lines("ceres_winners"))}
    for name, count in counts.items():
        text = text.replace(f"{{{name}}}", f"{count:,}")
    return text.replace("{forms}", "\n".join(rows)).replace("{trained}", "\n".join(tried))


def _lines(name: str) -> list[dict[str, Any]]:
    """The lines of a log among the results."""
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def _timm(data: dict[str, Any]) -> dict[str, Any]:
    details: dict[str, Any] = data["families"]["details"]
    return details


READERS = {
    "vcn_proxies": dict,
    "proxy_speed": _speed,
    "proxy_repeatability": _repeatability,
    "timm_families": _timm,
    "equal_budget": dict,
}

PAGES = {
    "proxies": proxies_page,
    "layers": layers_page,
    "timm": timm_page,
    "equal_budget": equal_budget_page,
    "recipes": recipes_page,
    "tried": tried_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / f"{name}.md").write_text(page(), encoding="utf-8")
