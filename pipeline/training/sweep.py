"""A search for settings: many trainings, each choosing by what those before it reached (Optuna; Akiba et al. 2019).

A trial is an ordinary run in a folder of its own, but it is not tested. What is known of all is in ``study.db``
(SQLite) beside them; a sweep that ended in whatever way goes on there, and the trial that was being trained goes on
from its ``last.ckpt``. Only validation accuracy is looked at; in the end the best trial is tested, once.
"""

import json
import os
import shlex
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from rich.console import Console
from rich.table import Table

import pipeline.report.page as page
from pipeline.core.build import Config
from pipeline.core.errors import ConfigError, UserError
from pipeline.core.journal import emptied
from pipeline.core.search_space import Choices, Part, override, parsed, set_by, spelt
from pipeline.core.settings import differences
from pipeline.core.text import clean
from pipeline.report.sweep import Tried, best_first, written
from pipeline.training.progress import best

if TYPE_CHECKING:
    import optuna

Report: TypeAlias = Callable[[int, Mapping[str, Any]], None]  # is called after each epoch; what it raises ends it
Train: TypeAlias = Callable[[list[str], Path, Report | None], object]  # with these overrides, here; no report: and test
STUDY = "sweep"
TESTED = "tested"  # the number of the trial that was
FIXED = "seed", "sampler", "pruner", "warmup"  # of a sweep: with others, it would end with other trials
STARTS = 3  # of a trial that ends the program each time, as one that takes all memory does
SHOWN, BROAD = 10, 160  # trials in the table; characters of it where there is no terminal
ENOUGH = 6  # trials for an estimate of what matters
BEGUN = 10  # trials that are drawn at random before any is chosen
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


class Sweep:
    """Trains again and again, and finds the settings of the best validation accuracy."""

    def __init__(
        self,
        trials: PositiveInt = 30,
        minutes: PositiveFloat | None = None,
        seed: NonNegativeInt = 0,
        sampler: Literal["tpe", "random"] = "tpe",
        pruner: Literal["median", "hyperband", "none"] = "median",
        warmup: PositiveInt = 5,
        space: dict[str, Any] | None = None,
    ) -> None:
        """``trials`` in all, those of an earlier start included; after ``minutes`` no other one begins. ``sampler``:
        tpe (Bergstra et al. 2011) or random. ``pruner``: which trials are ended early: median, those below the median
        of the others at that epoch; hyperband (Li et al. 2018); none. ``warmup``: epochs that each is granted.
        ``space``: see ``search_space.py``. ConfigError if there is nothing to search.
        """
        self.trials, self.minutes, self.seed, self.sampler = trials, minutes, seed, sampler
        self.pruner, self.warmup, self.space = pruner, warmup, parsed(space or {})

    def run(self, train: Train, given: Sequence[str], settings: Config, out: Path) -> None:
        """Search in the folder ``out``. ``given``: the command line, whose keys are not searched; ``settings`` as they
        are without a trial's.

        ConfigError if Optuna is missing, if nothing is left to search, or if ``out`` holds a search of other settings;
        UserError if no trial has succeeded, or if the best one cannot be tested.
        """
        fixed = set_by(given)
        space = {key: part for key, part in self.space.items() if key not in fixed}
        if not space:
            raise ConfigError(
                "sweep.space: is empty; say what to search: +sweep.space.optimizer.lr={low:1e-4,high:0.1}"
            )
        if settings.get("trainer", {}).get("resume"):
            raise ConfigError("trainer.resume: is of one run; a sweep goes on with hydra.run.dir=ITS_FOLDER")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("sweep: trains in one process; start it without torchrun")
        epochs = settings.get("trainer", {}).get("epochs", 1)
        with quiet(), alone(out / "sweep.lock"):
            own = {key: getattr(self, key) for key in FIXED}
            about = {"settings": settings, "space": {key: vars(part) for key, part in space.items()}, "sweep": own}
            search = Search(self, train, given, space, opened(out / "study.db", about), epochs, out)
            try:
                search.go_on()
            except (KeyboardInterrupt, SystemExit):
                again = shlex.quote(f"hydra.run.dir={out}")
                console.print(f"the sweep is stopped; to go on: the same command with {again}")
                raise
            finally:
                search.tell()
            search.check()
            search.judge()


class Search:
    """One search under way."""

    def __init__(
        self,
        sweep: Sweep,
        train: Train,
        given: Sequence[str],
        space: Mapping[str, Part],
        study: "optuna.Study",
        epochs: int,
        out: Path,
    ) -> None:
        self.sweep, self.train, self.given, self.space = sweep, train, given, space
        self.study, self.epochs, self.out = study, epochs, out
        self.study.pruner = pruner_of(sweep, epochs)

    def go_on(self) -> None:
        """Trials until there are enough, or the time is over."""
        from optuna.trial import Trial, TrialState

        began, limit = time.monotonic(), 60 * (self.sweep.minutes or float("inf"))
        for frozen in self.study.get_trials(states=[TrialState.RUNNING]):
            trial = Trial(self.study, frozen._trial_id)
            if frozen.params.keys() == self.space.keys() and frozen.user_attrs.get("starts", 0) < STARTS:
                self.attempt(trial)
            else:
                self.fail(trial, f"it ended the program {frozen.user_attrs.get('starts', 0)} times")
        while len(self.study.trials) < self.sweep.trials and time.monotonic() - began < limit:
            self.study.sampler = sampler_of(self.sweep, len(self.study.trials))
            self.attempt(self.study.ask({key: distribution(part) for key, part in self.space.items()}))

    def attempt(self, trial: "optuna.Trial") -> None:
        """Train one, from its beginning or from where it was interrupted."""
        import optuna

        known = {key: trial.user_attrs.get(key, value) for key, value in (("starts", 0), ("seconds", 0.0))}
        folder, began = self.out / str(trial.number), time.monotonic()
        overrides = self.overrides(trial.params)
        console.print(f"trial {trial.number} of {self.sweep.trials}: {'  '.join(overrides)}")
        folder.mkdir(exist_ok=True)
        reported = set(self.study.trials[trial.number].intermediate_values)

        def report(epoch: int, row: Mapping[str, Any]) -> None:
            trial.set_user_attr("seconds", known["seconds"] + time.monotonic() - began)
            if epoch not in reported:
                trial.report(row["val_accuracy"], epoch)
            if epoch < self.epochs and trial.should_prune():
                raise optuna.TrialPruned

        trial.set_user_attr("starts", known["starts"] + 1)
        more = [resuming(folder)] if (folder / "last.ckpt").is_file() else []
        try:
            with open(folder / "train.log", "w", encoding="utf-8") as log, redirect_stdout(log):
                self.train(overrides + more, folder, report)
        except optuna.TrialPruned:
            self.end(trial, optuna.trial.TrialState.PRUNED)
        except (UserError, torch.OutOfMemoryError) as error:
            if isinstance(error, ConfigError) and not learned(self.study):
                self.fail(trial, str(error))
                raise  # it is not this trial that is wrong
            self.fail(trial, str(error))
        else:
            self.end(trial, optuna.trial.TrialState.COMPLETE)
        self.save()

    def end(self, trial: "optuna.Trial", state: "optuna.trial.TrialState") -> None:
        """What a trial has reached, told to the study."""
        from optuna.trial import TrialState

        lines = (self.out / str(trial.number) / "history.jsonl").read_text().splitlines()
        row = best([json.loads(line) for line in lines])
        trial.set_user_attr("loss", row["val_loss"])
        trial.set_user_attr("epoch", row["epoch"])
        trial.set_user_attr("epochs", len(lines))
        done = state is TrialState.COMPLETE
        self.study.tell(trial, row["val_accuracy"] if done else None, None if done else state)
        console.print(f"trial {trial.number}: {'' if done else 'pruned, '}validation {row['val_accuracy']:.1%}")

    def fail(self, trial: "optuna.Trial", why: str) -> None:
        """A trial that came to nothing."""
        from optuna.trial import TrialState

        trial.set_user_attr("error", why)
        self.study.tell(trial, state=TrialState.FAIL)
        console.print(f"trial {trial.number} failed: {clean(why)}")

    def check(self) -> None:
        """UserError if no trial has come to anything."""
        trials = self.study.trials
        if trials and all("error" in trial.user_attrs for trial in trials):
            last = trials[-1].user_attrs["error"]
            raise UserError(f"sweep: none of the {len(trials)} trials has succeeded; the last one: {last}")

    def judge(self) -> None:
        """Test the best trial, unless that was done: what was chosen on the validation clips is tried on others. Its
        training is over, so to go on with it is to test it. UserError if that fails.
        """
        done = [one for one in best_first(self.tried()) if one.state == "done"]
        if not done or self.study.user_attrs.get(TESTED) == done[0].number:
            return
        first, folder = done[0], self.out / str(done[0].number)
        console.print(f"trial {first.number} is the best one, and is tested now")
        try:
            self.train([*self.overrides(first.values), resuming(folder)], folder, None)
        except torch.OutOfMemoryError as error:
            raise UserError(f"sweep: trial {first.number}, the best one, cannot be tested: {error}") from None
        self.study.set_user_attr(TESTED, first.number)

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """A trial's part of the command line."""
        return [override(key, values[key]) for key in self.space]

    def tried(self) -> list[Tried]:
        """All trials so far."""
        return [tried(trial, list(self.space)) for trial in self.study.trials]

    def save(self) -> None:
        """Write the page."""
        page.save(self.out / "sweep.html", written(self.tried(), self.space, importances(self.study), self.command))

    def command(self, trial: Tried) -> str:
        """The command line that trains like this trial."""
        return shlex.join(["python", "train.py", *self.given, *self.overrides(trial.values)])

    def tell(self) -> None:
        """The best trials, the command line of the best, and where all is."""
        if not learned(self.study):
            return
        self.save()
        ranked = best_first(self.tried())
        table = Table(title=f"{len(self.study.trials)} trials, by validation accuracy", title_justify="left")
        for column in ("trial", "accuracy", "epochs", "seconds", *names(list(self.space))):
            table.add_column(column, justify="right", overflow="fold")
        for one in ranked[:SHOWN]:
            numbers = str(one.number), f"{one.accuracy:.1%}", str(one.epochs), f"{one.seconds:.0f}"
            table.add_row(*numbers, *(brief(value) for value in one.values.values()))
        room = None if sys.stdout.isatty() else BROAD
        told = Console(soft_wrap=True, highlight=False, markup=False, width=room)
        told.print(table, soft_wrap=False)
        if ranked:
            told.print(f"best: {self.command(ranked[0])}")
            told.print(f"its model: {self.out / str(ranked[0].number) / 'model.safetensors'}")
        told.print(f"all trials, with pictures: {self.out / 'sweep.html'}")


def tried(trial: "optuna.trial.FrozenTrial", keys: Sequence[str]) -> Tried:
    """A trial as people are told of it."""
    attrs, reached = trial.user_attrs, list(trial.intermediate_values.values())
    state = {"COMPLETE": "done", "FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
    return Tried(
        number=trial.number,
        state=state,
        accuracy=trial.value if state == "done" else max(reached, default=None),
        loss=attrs.get("loss", float("nan")),
        epoch=attrs.get("epoch", 0),
        epochs=attrs.get("epochs", len(reached)),
        seconds=attrs.get("seconds", 0.0),
        values={key: trial.params.get(key) for key in keys},
        curve=sorted(trial.intermediate_values.items()),
        error=attrs.get("error", ""),
    )


def resuming(folder: Path) -> str:
    """What goes on with a trial."""
    return f"trainer.resume={spelt(str(folder))}"


def names(keys: Sequence[str]) -> list[str]:
    """Keys without what stands before their last dot, where that tells them apart."""
    last = [key.rpartition(".")[2] for key in keys]
    return [key if last.count(name) > 1 else name for key, name in zip(keys, last, strict=True)]


def brief(value: Any) -> str:
    """A value in a table."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def distribution(part: Part) -> "optuna.distributions.BaseDistribution":
    """What Optuna draws from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(part, Choices):
        return CategoricalDistribution(part.texts)
    if part.whole:
        return IntDistribution(int(part.low), int(part.high), part.log, int(part.step or 1))
    return FloatDistribution(part.low, part.high, part.log, part.step)


def sampler_of(sweep: Sweep, number: int) -> "optuna.samplers.BaseSampler":
    """What draws trial ``number``: from the seed, the number and the trials before it alone, however often the sweep
    was interrupted.
    """
    from optuna.samplers import RandomSampler, TPESampler

    seed = (sweep.seed * 100_003 + number) % 2**32
    return RandomSampler(seed) if sweep.sampler == "random" else TPESampler(n_startup_trials=BEGUN, seed=seed)


def pruner_of(sweep: Sweep, epochs: int) -> "optuna.pruners.BasePruner":
    """What ends trials early."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if sweep.pruner == "hyperband":
        return HyperbandPruner(min_resource=min(sweep.warmup, epochs), max_resource=epochs)
    return MedianPruner(n_warmup_steps=sweep.warmup) if sweep.pruner == "median" else NopPruner()


def importances(study: "optuna.Study") -> dict[str, float]:
    """How much of what trials differ by goes with each key, in all 1; empty where too little is known."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    done = study.get_trials(states=[TrialState.COMPLETE])
    if len(done) < ENOUGH or len({trial.value for trial in done}) < 2:
        return {}
    try:
        return {key: float(value) for key, value in get_param_importances(study).items()}
    except (RuntimeError, ValueError):  # too few trials for its method
        return {}


def learned(study: "optuna.Study") -> bool:
    """Whether any trial has ended an epoch."""
    return any(trial.intermediate_values for trial in study.trials)


def opened(path: Path, about: Mapping[str, Any]) -> "optuna.Study":
    """The study in ``path``, or a new one ``about`` these settings. ConfigError if there is one of others."""
    import optuna

    about = json.loads(json.dumps(about))
    if path.exists():
        study = optuna.load_study(study_name=STUDY, storage=storage(path))
        there = {key: study.user_attrs.get(key) for key in about}
        other = differences(there.get("settings"), about.get("settings")) or differences(there, about)
        if not other:
            return study
        if learned(study):
            raise ConfigError(
                f"hydra.run.dir: {path.parent} holds a sweep with other settings: {other}. Give the same command, or "
                "another folder"
            )
    part = path.with_name(path.name + ".tmp")  # a half-made database cannot be opened
    part.unlink(missing_ok=True)
    made = storage(part)
    study = optuna.create_study(study_name=STUDY, storage=made, direction="maximize")
    for key, value in about.items():
        study.set_user_attr(key, value)
    made.engine.dispose()
    part.replace(path)
    return optuna.load_study(study_name=STUDY, storage=storage(path))


def storage(path: Path) -> "optuna.storages.RDBStorage":
    """An SQLite file under any name: in an address, some characters would mean something."""
    from optuna.storages import RDBStorage

    return RDBStorage("sqlite:///study", engine_kwargs={"creator": lambda: sqlite3.connect(path)})


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder. OSError if there is one."""
    file = emptied(path)
    try:
        yield
    finally:
        os.close(file)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna tells nothing by itself. ConfigError if it is not there."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("sweep: needs Optuna, which is not installed: pip install 'optuna>=4'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield
