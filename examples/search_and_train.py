"""From a budget to a trained network: search for a small digit classifier, train only the winner.

    python examples/search_and_train.py --out runs/demo

The images are scikit-learn's digits: 1,797 real scans, 8x8, resized to 16x16. The budget is
100k parameters and 5M FLOPs.
"""

import argparse
import time
from pathlib import Path

import zeroshot_nas as zs

BUDGET = zs.Budget(params=100e3, flops=5e6, layers=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", help="what to rank by, cet or zen, say; default: as zs.search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--proposals", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    start = time.perf_counter()
    result = zs.search(
        proxy=arguments.proxy,
        budget=BUDGET,
        input_size=(1, 16, 16),
        proposals=arguments.proposals,
        seed=arguments.seed,
    )
    best, searched = result.best, time.perf_counter()
    trained = zs.train(
        best.architecture,
        "digits",
        zs.Recipe(epochs=arguments.epochs),
        out=arguments.out,
        seed=arguments.seed,
        force=True,
    )
    done = time.perf_counter()

    print(f"architecture          {best.architecture.to_string()}")
    print(f"params                {best.costs.params:,}")
    print(f"FLOPs (multiply-adds) {best.costs.flops:,}")
    print(f"layers                {best.costs.layers}")
    print(f"score                 {next(iter(best.scores.values()))}")
    counts = result.counts
    print(f"proposals             {counts.proposed:,}, {counts.screened:,} screened, {counts.ranked:,} ranked")
    print(f"test accuracy         {trained.test_accuracy:.2%}")
    print(f"time                  search {searched - start:.1f} s, training {done - searched:.1f} s")
    if trained.weights:
        print(f"weights               {trained.weights}")


if __name__ == "__main__":
    main()
