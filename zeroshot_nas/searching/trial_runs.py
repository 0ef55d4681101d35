"""Trials of a search: its finalists and hand-made networks are trained for a short while, and the best goes on.

torch is loaded where a network is trained, so that a search without trials does without it.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.progress import note, progress_bar
from zeroshot_nas.core.state import RunState
from zeroshot_nas.errors import DataError, TrainingError
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.searchers.base import Candidate, SearchResult
from zeroshot_nas.searchers.trial import Trial, Trials
from zeroshot_nas.searching.hand_made import hand_made
from zeroshot_nas.searching.request import Request
from zeroshot_nas.searching.rounds import Search
from zeroshot_nas.searching.start import costs_of
from zeroshot_nas.searching.trials import TrialSettings, entrants, halving
from zeroshot_nas.training.base import ImageData, Split, fit_to, load_data
from zeroshot_nas.training.recipe import Recipe
from zeroshot_nas.training.several import STOP, Task, Trainings

FOLDER = "trials"
"""Folder of a run in which each trial has its own, which a training can go on from."""


def check_data(asked: Request) -> None:
    """Reads the data, so that what can't be trained on is refused before the search.

    Raises:
        DataError: They are not there, or are not of the space's number of classes.
    """
    if asked.trials is not None and not asked.run.resume:  # a run that goes on has read them before
        _images(asked, None)


def remove_replaced_trials(run: RunOptions) -> None:
    """Removes the trials of a run that is replaced."""
    if run.force and run.folder is not None:
        shutil.rmtree(run.folder / FOLDER, ignore_errors=True)


def with_trials(asked: Request, search: Search, result: SearchResult) -> SearchResult:
    """The result of a search, its best network chosen by trials.

    Raises:
        TrainingError: No network could be trained.
    """
    start = perf_counter()
    with ExitStack() as stack:
        folder = asked.run.folder
        where = Path(stack.enter_context(tempfile.TemporaryDirectory())) if folder is None else folder / FOLDER
        try:
            tournament = _Tournament(asked, search, where)
        except KeyboardInterrupt:  # hand-made networks are scored, and where latency is limited all are measured
            return replace(result, state="interrupted")
        state = tournament.run()
    if (best := tournament.leader()) is not None:
        # of an aggregate's candidates the pool with hand-made networks has other values
        best = next((each for each in result.history if each.architecture == best.architecture), best)
        result = replace(result, best=best, latency=asked.latency.outcome(best) if asked.latency else None)
    seconds = {**result.seconds, "trials": perf_counter() - start}
    seconds["total"] += seconds["trials"]
    return replace(result, trials=tournament.table, state=state, seconds=seconds)


def train_trial(
    architecture: Architecture,
    images: ImageData,
    recipe: Recipe,
    until: int,
    folder: Path,
    seed: int,
    device: str | None,
) -> tuple[dict[str, float | None], str]:
    """What a worker does: goes on with a trial to an epoch; its accuracy, or None and why it can't be trained on."""
    from zeroshot_nas.training.trainer import train_until

    run = RunOptions(out=folder, resume=True, progress=False)
    try:
        # one thread wherever it is: other numbers give slightly other weights
        accuracy = train_until(
            until,
            architecture,
            images,
            recipe,
            run,
            seed=seed,
            device=device,
            threads=1,
            stops=(folder.parent / STOP).exists,
        )
    except TrainingError as error:
        return {"accuracy": None}, str(error)
    return {"accuracy": accuracy}, ""


class _Tournament:
    """Rounds of trainings, of which the better half goes on.

    Args:
        asked: What was asked for.
        search: What ranked.
        folder: Where each trial has its folder.

    Attributes:
        candidates: The networks, with their fitness.
        table: What became of each so far, in the same order.
    """

    def __init__(self, asked: Request, search: Search, folder: Path) -> None:
        assert asked.trials is not None, "asked for"
        self.asked, self.settings = asked, asked.trials
        self.session, self.executor = search.session, search.executor
        self.candidates, self.table = _chosen(asked, self.settings, search)
        self.trainings = Trainings(folder, self.session, "trial", partial(_images, asked))

    def run(self) -> RunState:
        """Runs the rounds; Ctrl-C cuts them short."""
        known = self.trainings.begin((trial.name for trial in self.table.trials), {"plan": self.table.plan()})
        shown, plan = self.asked.run.progress, f"trials: {self.table.plan()}"
        self.session.hooks.tell("plan", values={"epochs": self.table.epochs}, about={"plan": plan}, known=known)
        with progress_bar(what="trials", unit="epoch", shown=shown, total=self.table.epochs) as bar:
            if shown:
                note(bar, plan)
            try:
                for number in range(1, len(self.table.rounds) + 1):
                    if self.table.winner is None:
                        self._play(number, bar)
                        self._drop(number)
            except KeyboardInterrupt:
                self.trainings.stop()
                return "interrupted"
        return "done"

    def leader(self) -> Candidate | None:
        """The winner; where it is not decided the most accurate after the last whole round, or None before any."""
        alive = self._alive()
        rounds = min(len(self.table.trials[place].accuracies) for place in alive)
        if len(alive) == 1:
            return self.candidates[alive[0]]
        return self.candidates[self._by_accuracy(alive, rounds)[0]] if rounds else None

    def _play(self, number: int, bar: Any) -> None:
        """Trains all that are in a round to its end."""
        until = self.table.rounds[number - 1].until
        before = self.table.rounds[number - 2].until if number > 1 else 0
        alive = self._alive()
        tasks = [self._task(place, until) for place in alive]
        for place, (body, known) in zip(alive, self.trainings.run(self.executor, train_trial, tasks), strict=True):
            accuracy, failure = body.get("accuracy"), body["failure"]
            self._enter(place, accuracy, failure)
            values = {"validation_accuracy": accuracy, "round": number}
            about = {"name": self.table.trials[place].name, "failure": failure}
            self.session.hooks.tell("trial", until, values, about, known=known)
            bar.update(until - before)

    def _enter(self, place: int, accuracy: float | None, failure: str) -> None:
        trial = self.table.trials[place]
        accuracies = trial.accuracies if accuracy is None else (*trial.accuracies, accuracy)
        self._put(place, replace(trial, accuracies=accuracies, failure=failure))

    def _drop(self, number: int) -> None:
        """Ends a round: the better half goes on.

        Raises:
            TrainingError: None can.
        """
        alive = self._alive()
        trained = [place for place in alive if not self.table.trials[place].failure]
        if not trained:
            trial = self.table.trials[alive[0]]
            raise TrainingError(f"none of the trials could be trained; {trial.name}: {trial.failure}")
        later = self.table.rounds[number:]
        going_on = self._by_accuracy(trained, number)[: later[0].networks if later else 1]
        for place in alive:
            if place not in going_on:
                self._put(place, replace(self.table.trials[place], dropped=number))

    def _by_accuracy(self, places: Sequence[int], rounds: int) -> list[int]:
        """Places of trials, the most accurate after so many rounds first, of equals that of the better score."""
        accuracies = {place: self.table.trials[place].accuracies[rounds - 1] for place in places}
        return sorted(places, key=lambda place: (-accuracies[place], -self.candidates[place].fitness))

    def _alive(self) -> list[int]:
        """Places of the trials that were not dropped."""
        return [place for place, trial in enumerate(self.table.trials) if trial.dropped is None]

    def _put(self, place: int, trial: Trial) -> None:
        trials = self.table.trials
        self.table = replace(self.table, trials=(*trials[:place], trial, *trials[place + 1 :]))

    def _task(self, place: int, until: int) -> Task:
        trial, settings, trainings = self.table.trials[place], self.asked.settings, self.trainings
        how = (self.settings.recipe, until, trainings.folder / trial.name, settings.seed, settings.device)
        key = {"name": trial.name, "until": until}
        return Task(key, lambda: (trial.architecture, trainings.images, *how))


def _chosen(asked: Request, settings: TrialSettings, search: Search) -> tuple[list[Candidate], Trials]:
    """The networks to try, and their table before any is trained."""
    names = _hand_made(asked)
    ranked = search.ranked_with([_unscored(asked, architecture) for architecture in names])
    found, by_hand = ranked[: len(ranked) - len(names)], ranked[len(ranked) - len(names) :]
    candidates = entrants(found, by_hand, settings.count, asked.latency.keeps if asked.latency else None)
    order = sorted(found, key=lambda candidate: -candidate.fitness)
    places = {candidate.architecture: place for place, candidate in enumerate(order, start=1)}
    trials = []
    for candidate in candidates:
        architecture, score = candidate.architecture, candidate.scores[search.proxy.key]
        place = places.get(architecture, 1 + sum(other.fitness > candidate.fitness for other in found))
        name = f"found-{place}" if architecture in places else names[architecture]
        trials.append(Trial(name, architecture, candidate.costs, score.value if score.ok else None, place))
    recipe, data = settings.recipe, settings.filed_under["data"]
    rounds = halving(len(trials), recipe.epochs, recipe.warmup_epochs)
    return candidates, Trials(tuple(trials), rounds, recipe.epochs, data)


def _hand_made(asked: Request) -> dict[Architecture, str]:
    """The hand-made networks within the budget, with their names."""
    budget = asked.budget if asked.latency is None else asked.latency.budget(asked.budget)
    size, classes = asked.space.input_size, asked.space.num_classes
    made = hand_made(budget, size, classes, lambda architecture: costs_of(architecture, asked.table))
    return {architecture: name for name, architecture in made}


def _unscored(asked: Request, architecture: Architecture) -> Candidate:
    costs = costs_of(architecture, asked.table)
    return Candidate(architecture, costs, {}, -math.inf, str(architecture))  # a space may write none for it


def _images(asked: Request, split: Split | None) -> ImageData:
    """The images to train on; of several sizes, where they are files, in the largest that a network takes.

    Raises:
        DataError: They are not of the space's number of classes.
    """
    assert asked.trials is not None, "asked for"
    sizes = asked.space.input_sizes
    images = load_data(asked.trials.data, sizes[-1], split)
    classes = len(images.class_names)
    if classes != asked.space.num_classes:
        raise DataError(
            f"the search is for num_classes={asked.space.num_classes}, but {images.name!r} has {classes} classes; "
            f"search with num_classes={classes}, on the command line --classes {classes}"
        )
    # of several sizes each training takes its own from the images as they are
    return fit_to(images, sizes[-1]) if len(sizes) == 1 else images
