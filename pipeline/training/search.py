"""The search of a sweep: trials drawn, trained, pruned and kept by Optuna."""

import json
import shlex
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from rich.table import Table
from sqlalchemy.pool import NullPool

from pipeline.core.atomic import write_text
from pipeline.core.errors import ConfigError, UserError
from pipeline.core.moved import with_new_names
from pipeline.core.search_space import Choices, Part, quote, to_override
from pipeline.core.settings import differences
from pipeline.core.text import clean
from pipeline.model.file import DEFAULTS
from pipeline.report.sweep import TrialResult, rank_trials, render_sweep
from pipeline.training.progress import Train, best

FIGURE_NAMES = {"map": "mAP", "token_accuracy": "symbols right"}  # for people
STUDY_NAME = "sweep"
TESTED_KEY = "tested"  # the number of the trial that was tested
STATE_NAMES = {"COMPLETE": "done", "FAIL": "failed", "PRUNED": "pruned"}
MAX_STARTS = 3  # of a trial that ends the program each time, as one that takes all memory does
MAX_ROWS, MAX_WIDTH = 10, 160  # trials in the table; characters of it where there is no terminal
MIN_TRIALS = 6  # for an estimate of what matters
RANDOM_TRIALS = 10  # that are drawn at random before any is chosen
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


@dataclass
class Search:
    """One search under way in the folder ``out``; see ``Sweep``. ``epochs``: of a trial that is not pruned;
    ``figure``: of the validation clips, the greater the better.
    """

    train: Train
    given: Sequence[str]
    space: Mapping[str, Part]
    study: optuna.Study
    epochs: int
    out: Path
    trials: int
    minutes: float | None
    seed: int
    sampler: str
    pruner: str
    warmup: int
    figure: str = "accuracy"

    @property
    def named(self) -> str:
        """The figure's name."""
        return FIGURE_NAMES.get(self.figure, self.figure)

    def run(self) -> None:
        """Search, print the results, and test the best trial."""
        try:
            self.run_trials()
        except (KeyboardInterrupt, SystemExit):
            again = shlex.quote(f"hydra.run.dir={self.out}")
            console.print(f"the sweep is stopped; to go on: the same command with {again}")
            raise
        finally:
            self.print_results()
        self.check_success()
        self.test_best()

    def run_trials(self) -> None:
        """Trials until there are enough, or the time is over; first those that were interrupted."""
        self.study.pruner = self.make_pruner()
        began, limit = time.monotonic(), 60 * (self.minutes or float("inf"))
        for frozen in self.study.get_trials(states=[TrialState.RUNNING]):
            trial, starts = Trial(self.study, frozen._trial_id), frozen.user_attrs.get("starts", 0)
            if frozen.params.keys() == self.space.keys() and starts < MAX_STARTS:
                self.run_trial(trial)
            else:
                self.fail(trial, f"it ended the program {starts} times")
        distributions = {key: to_distribution(part) for key, part in self.space.items()}
        while len(self.study.trials) < self.trials and time.monotonic() - began < limit:
            self.study.sampler = self.make_sampler(len(self.study.trials))
            self.run_trial(self.study.ask(distributions))

    def make_sampler(self, number: int) -> BaseSampler:
        """What draws trial ``number``: from the seed, the number and the trials before it alone, however often the
        sweep was interrupted.
        """
        seed = (self.seed * 100_003 + number) % 2**32
        random = self.sampler == "random"
        return RandomSampler(seed) if random else TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)

    def make_pruner(self) -> BasePruner:
        if self.pruner == "hyperband":
            return HyperbandPruner(min_resource=min(self.warmup, self.epochs), max_resource=self.epochs)
        return MedianPruner(n_warmup_steps=self.warmup) if self.pruner == "median" else NopPruner()

    def run_trial(self, trial: Trial) -> None:
        """Train one, from its beginning or from where it was interrupted."""
        attrs, folder, began = trial.user_attrs, self.out / str(trial.number), time.monotonic()
        overrides = self.overrides(trial.params)
        console.print(f"trial {trial.number} of {self.trials}: {'  '.join(overrides)}")
        folder.mkdir(exist_ok=True)
        reported = set(self.study.trials[trial.number].intermediate_values)

        def report(epoch: int, row: Mapping[str, Any]) -> None:
            trial.set_user_attr("seconds", attrs.get("seconds", 0.0) + time.monotonic() - began)
            if epoch not in reported:
                trial.report(row[f"val_{self.figure}"], epoch)
            if epoch < self.epochs and trial.should_prune():
                raise optuna.TrialPruned

        trial.set_user_attr("starts", attrs.get("starts", 0) + 1)
        resume = [f"trainer.resume={quote(str(folder))}"] if (folder / "last.ckpt").is_file() else []
        try:
            with open(folder / "train.log", "w", encoding="utf-8") as log, redirect_stdout(log):
                self.train(overrides + resume, folder, report)
        except optuna.TrialPruned:
            self.finish(trial, TrialState.PRUNED)
        except (UserError, torch.OutOfMemoryError) as error:
            self.fail(trial, str(error))
            if isinstance(error, ConfigError) and not has_learned(self.study):
                raise  # all trials would fail with it
        else:
            self.finish(trial, TrialState.COMPLETE)
        self.save_page()

    def finish(self, trial: Trial, state: TrialState) -> None:
        """Keep what a trial has reached."""
        lines = (self.out / str(trial.number) / "history.jsonl").read_text().splitlines()
        row, done = best([json.loads(line) for line in lines], self.figure), state is TrialState.COMPLETE
        for key, value in (("loss", row["val_loss"]), ("epoch", row["epoch"]), ("epochs", len(lines))):
            trial.set_user_attr(key, value)
        reached = row[f"val_{self.figure}"]
        self.study.tell(trial, reached if done else None, None if done else state)
        console.print(f"trial {trial.number}: {'' if done else 'pruned, '}validation {reached:.1%}")

    def fail(self, trial: Trial, why: str) -> None:
        trial.set_user_attr("error", why)
        self.study.tell(trial, state=TrialState.FAIL)
        console.print(f"trial {trial.number} failed: {clean(why)}")

    def check_success(self) -> None:
        """UserError if all trials have failed."""
        trials = self.study.trials
        if trials and all("error" in trial.user_attrs for trial in trials):
            last = trials[-1].user_attrs["error"]
            raise UserError(f"sweep: none of the {len(trials)} trials has succeeded; the last one: {last}")

    def test_best(self) -> None:
        """Test the best trial, unless that was done: what was chosen on the validation clips is tried on others. Its
        training is over, so to go on with it is to test it. UserError if that fails.
        """
        done = [one for one in rank_trials(self.results()) if one.state == "done"]
        if not done or self.study.user_attrs.get(TESTED_KEY) == done[0].number:
            return
        first, folder = done[0], self.out / str(done[0].number)
        console.print(f"trial {first.number} is the best one, and is tested now")
        try:
            self.train([*self.overrides(first.settings), f"trainer.resume={quote(str(folder))}"], folder, None)
        except torch.OutOfMemoryError as error:
            raise UserError(f"sweep: trial {first.number}, the best one, cannot be tested: {error}") from None
        self.study.set_user_attr(TESTED_KEY, first.number)

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """A trial's part of the command line."""
        return [to_override(key, values[key]) for key in self.space]

    def command(self, trial: TrialResult) -> str:
        """The command line that trains like this trial."""
        return shlex.join(["python", "train.py", *self.given, *self.overrides(trial.settings)])

    def results(self) -> list[TrialResult]:
        return [to_result(trial, list(self.space)) for trial in self.study.trials]

    def save_page(self) -> None:
        text = render_sweep(self.results(), self.space, estimate_importances(self.study), self.command, self.named)
        write_text(self.out / "sweep.html", text)

    def print_results(self) -> None:
        """Print the best trials, the command line of the best, and where all is."""
        if not has_learned(self.study):
            return
        self.save_page()
        ranked = rank_trials(self.results())
        table = Table(title=f"{len(self.study.trials)} trials, by validation {self.named}", title_justify="left")
        for column in ("trial", self.named, "epochs", "seconds", *short_names(list(self.space))):
            table.add_column(column, justify="right", overflow="fold")
        for one in ranked[:MAX_ROWS]:
            values = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in one.settings.values())
            table.add_row(str(one.number), f"{one.reached:.1%}", str(one.epochs), f"{one.seconds:.0f}", *values)
        width = None if sys.stdout.isatty() else MAX_WIDTH
        terminal = Console(soft_wrap=True, highlight=False, markup=False, width=width)
        terminal.print(table, soft_wrap=False)
        if ranked:
            terminal.print(f"best: {self.command(ranked[0])}")
            terminal.print(f"its model: {self.out / str(ranked[0].number) / 'model.safetensors'}")
        terminal.print(f"all trials, with pictures: {self.out / 'sweep.html'}")


def to_result(trial: FrozenTrial, keys: Sequence[str]) -> TrialResult:
    attrs, reached = trial.user_attrs, trial.intermediate_values
    done = trial.state is TrialState.COMPLETE
    return TrialResult(
        number=trial.number,
        state=STATE_NAMES.get(trial.state.name, trial.state.name.lower()),
        best=trial.value if done else max(reached.values(), default=None),
        loss=attrs.get("loss", float("nan")),
        epoch=attrs.get("epoch", 0),
        epochs=attrs.get("epochs", len(reached)),
        seconds=attrs.get("seconds", 0.0),
        settings={key: trial.params.get(key) for key in keys},
        curve=sorted(reached.items()),
        error=attrs.get("error", ""),
    )


def short_names(keys: Sequence[str]) -> list[str]:
    """Keys without what stands before their last dot, where that tells them apart."""
    last = [key.rpartition(".")[2] for key in keys]
    return [key if last.count(name) > 1 else name for key, name in zip(keys, last, strict=True)]


def to_distribution(part: Part) -> BaseDistribution:
    if isinstance(part, Choices):
        return CategoricalDistribution(part.texts)
    if part.whole:
        return IntDistribution(int(part.low), int(part.high), part.log, int(part.step or 1))
    return FloatDistribution(part.low, part.high, part.log, part.step)


def estimate_importances(study: optuna.Study) -> dict[str, float]:
    """How much of what trials differ by goes with each key, in all 1; empty where too little is known."""
    done = study.get_trials(states=[TrialState.COMPLETE])
    if len(done) < MIN_TRIALS or len({trial.value for trial in done}) < 2:
        return {}
    try:
        return optuna.importance.get_param_importances(study)
    except (RuntimeError, ValueError):  # too few trials for its method
        return {}


def has_learned(study: optuna.Study) -> bool:
    """Whether any trial has ended an epoch."""
    return any(trial.intermediate_values for trial in study.trials)


def open_study(path: Path, about: Mapping[str, Any]) -> optuna.Study:
    """The study in ``path``, or a new one ``about`` these settings. ConfigError if there is one of others."""
    about = json.loads(json.dumps(about))
    if path.exists():
        study = optuna.load_study(study_name=STUDY_NAME, storage=open_storage(path))
        there = {key: with_new_names(study.user_attrs.get(key)) for key in about}
        then, now = (DEFAULTS | (part.get("settings") or {}) for part in (there, about))
        other = differences(then, now) or differences(there | {"settings": then}, {**about, "settings": now})
        if not other:
            return study
        if has_learned(study):
            hint = "give the same command, or another folder"
            raise ConfigError(f"hydra.run.dir: {path.parent} holds a sweep with other settings: {other}; {hint}")
    part = path.with_name(path.name + ".tmp")  # a half-made database cannot be opened
    part.unlink(missing_ok=True)
    study = optuna.create_study(study_name=STUDY_NAME, storage=open_storage(part), direction="maximize")
    for key, value in about.items():
        study.set_user_attr(key, value)
    part.replace(path)
    return optuna.load_study(study_name=STUDY_NAME, storage=open_storage(path))


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """An SQLite file under any name: in an address, some characters would mean something."""
    settings = {"creator": lambda: sqlite3.connect(path), "poolclass": NullPool}  # no connection stays open
    return optuna.storages.RDBStorage("sqlite:///study", engine_kwargs=settings)
