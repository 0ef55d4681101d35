"""Optuna as the searcher: TPE for the best score within a budget, then NSGA-II for score against FLOPs.

pip install "zeroshot-nas[optuna]"
python examples/optuna_search.py --trials 200
"""

import argparse

import optuna

import zeroshot_nas as zs

BUDGET = zs.Budget(params=200e3, layers=12)
SHAPE = (3, 32, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    objective = zs.objective("cet", "resnet", BUDGET, input_size=SHAPE)
    study = optuna.create_study(directions=objective.directions, sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials)
    best = objective.architecture(study.best_trial)
    print(f"TPE: cet {study.best_value:.2f}, {zs.cost(best).params:,} parameters\n  {best}")

    objective = zs.objective(None, "resnet", BUDGET, input_size=SHAPE, objectives=("cet", "flops"))
    study = optuna.create_study(directions=objective.directions, sampler=optuna.samplers.NSGAIISampler(seed=0))
    study.optimize(objective, n_trials=trials)
    print("NSGA-II: the front")
    for trial in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        print(f"  cet {trial.values[0]:7.2f}, {trial.values[1]:>11,.0f} FLOPs")


if __name__ == "__main__":
    main()
