"""A search for settings: many trainings, each choosing by what those before it reached (Optuna; Akiba et al. 2019).

A trial is an ordinary run in a folder of its own, but it is not tested. What is known of all is in ``study.db``
(SQLite) beside them; a sweep that ended in whatever way goes on there, and the trial that was being trained goes on
from its ``last.ckpt``. Only the figure of the validation clips
by which an epoch is chosen, too, is looked at: accuracy, or the mean average precision of tags. In the end the best
trial is tested, once.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.core.build import Config, build
from pipeline.core.errors import ConfigError
from pipeline.core.search_space import keys_of, parse_space
from pipeline.model.file import DEFAULTS
from pipeline.tasks.task import Task
from pipeline.training.progress import Train

FIXED_KEYS = "seed", "sampler", "pruner", "warmup"  # of a sweep: with others, it would end with other trials


@dataclass(eq=False)
class Sweep:
    """Trains again and again, and finds the settings of the best figure of the validation clips.

    ``trials`` in all, those of an earlier start included; after ``minutes`` no other one begins. ``sampler``: tpe
    (Bergstra et al. 2011) or random. ``pruner``: which trials are ended early: median, those below the median of the
    others at that epoch; hyperband (Li et al. 2018); none. ``warmup``: epochs that each is granted. ``space``: see
    ``search_space.py``; ConfigError if it makes no sense.
    """

    trials: PositiveInt = 30
    minutes: PositiveFloat | None = None
    seed: NonNegativeInt = 0
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    warmup: PositiveInt = 5
    space: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.space = parse_space(self.space or {})

    def run(self, train: Train, given: Sequence[str], settings: Config, out: Path) -> None:
        """Search in the folder ``out``. ``given``: the command line, whose keys are not searched; ``settings`` as they
        are without a trial's.

        ConfigError if Optuna is missing, if nothing is left to search, or if ``out`` holds a search of other settings;
        UserError if no trial has succeeded, or if the best one cannot be tested.
        """
        space = {key: part for key, part in (self.space or {}).items() if key not in keys_of(given)}
        trainer = settings.get("trainer", {})
        if not space:
            raise ConfigError("sweep.space: is empty; say what to search: +sweep.space.optimizer.lr={low:1e-4,high:1}")
        if trainer.get("resume"):
            raise ConfigError("trainer.resume: is of one run; a sweep goes on with hydra.run.dir=ITS_FOLDER")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("sweep: trains in one process; start it without torchrun")
        with quiet_optuna():
            from pipeline.training.search import Search, open_study

            options = {key: getattr(self, key) for key in ("trials", "minutes", *FIXED_KEYS)}
            own = {key: getattr(self, key) for key in FIXED_KEYS}
            about = {"settings": settings, "space": {key: vars(part) for key, part in space.items()}, "sweep": own}
            study = open_study(out / "study.db", about)
            task: Task[Any] = build(settings.get("task", DEFAULTS["task"]), Task, at="task")
            Search(train, given, space, study, trainer.get("epochs", 1), out, figure=task.best, **options).run()


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna prints nothing by itself. ConfigError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("sweep: needs Optuna, which is not installed: pip install 'optuna>=4'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield
