"""Weights & Biases and MLflow as callbacks: each is one function, and a run is logged to it by name.

    zeroshot-nas --plugin examples/add_a_callback.py train best.json --data digits --log wandb:project=digits
    zeroshot-nas --plugin examples/add_a_callback.py search --max-params 1M --out runs/a --log csv,mlflow

A distribution that names this file as an entry point needs no --plugin:

    [project.entry-points."zeroshot_nas.callbacks"]
    trackers = "my_package.add_a_callback"
"""

from pathlib import Path

import zeroshot_nas as zs


@zs.register_callback("wandb")
def wandb_writer(folder: Path | None, /, *, project: str = "zeroshot-nas") -> zs.Callback:
    """A run of Weights & Biases; each kind of event has a step axis of its own."""
    import wandb

    run = wandb.init(project=project, dir=folder and folder.parent)

    def log(event: zs.Event) -> None:
        if event.kind == "begin":
            run.config.update(event.about["settings"])
        run.log({f"{event.kind}/{name}": value for name, value in {**event.values, "step": event.step}.items()})
        if event.kind == "end":
            run.finish(exit_code=0 if event.about["state"] == "done" else 1)

    return log


@zs.register_callback("mlflow")
def mlflow_writer(_folder: Path | None, /, *, experiment: str = "zeroshot-nas") -> zs.Callback:
    """A run of MLflow, where MLFLOW_TRACKING_URI says."""
    import mlflow

    mlflow.set_experiment(experiment)

    def log(event: zs.Event) -> None:
        if event.kind == "begin":
            mlflow.start_run(run_name=event.folder and event.folder.name)
            mlflow.log_dict(dict(event.about), "settings.json")
        # MLflow's names take no colon or equals sign
        for name, value in event.values.items():
            mlflow.log_metric(f"{event.kind}/{name.replace(':', '.').replace('=', '.')}", value, step=event.step)
        if event.kind == "end":
            mlflow.end_run("FINISHED" if event.about["state"] == "done" else "FAILED")

    return log
