"""Draw what a search did: every scored network by FLOPs and score, and the best score over time.

    python examples/plot_search.py runs/cifar-1m/result.json search.png

Needs matplotlib: pip install "zeroshot-nas[report]".
"""

import argparse
import itertools
from pathlib import Path

import matplotlib as mpl

import zeroshot_nas as zs

mpl.use("Agg")
import matplotlib.pyplot as plt


def plot(result: zs.SearchResult, path: Path) -> None:
    """Writes the picture; its format follows from the file's ending."""
    scored = [each for each in result.history if each.fitness > float("-inf")]
    values = [each.fitness for each in scored]
    flops = [each.costs.flops / 1e6 for each in scored]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")

    dots = left.scatter(flops, values, c=range(len(scored)), s=9, cmap="viridis", linewidths=0)
    left.scatter(result.best.costs.flops / 1e6, result.best.fitness, marker="*", s=160, color="crimson", label="winner")
    left.set(xlabel="FLOPs (million multiply-adds)", ylabel=result.settings["proxy"], title="every scored network")
    left.legend(loc="upper left", frameon=False)
    figure.colorbar(dots, ax=left, label="order")

    right.plot(list(itertools.accumulate(values, max)), color="crimson", label="best so far")
    right.plot(values, ".", markersize=2.5, color="0.7", zorder=0, label="scored")
    right.set(xlabel="networks scored", title=f"{result.counts.proposed:,} proposals, {result.seconds['total']:.0f} s")
    right.legend(loc="upper left", frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    plot(zs.SearchResult.from_json(arguments.result.read_text()), arguments.picture)
    print(f"wrote {arguments.picture}")


if __name__ == "__main__":
    main()
