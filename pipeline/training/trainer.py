"""The training loop, on Lightning Fabric: one readable loop, on any number of devices, that goes on to the bit.

Each epoch seeds its own random draws from (seed, epoch), and ``last.ckpt`` keeps where they stand within it; so
training that was interrupted anywhere and resumed ends with the same weights as training that was not.
"""

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning_fabric import seed_everything
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from pipeline.augmentations.augmentation import Augmentation
from pipeline.core.build import Config
from pipeline.core.errors import ConfigError, DivergedError
from pipeline.core.progress import bar
from pipeline.measures.evaluation import predict
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch, Split
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features
from pipeline.tasks.predictions import Predictions
from pipeline.tasks.task import Task
from pipeline.training.clustering import fit_groups
from pipeline.training.devices import make_fabric
from pipeline.training.licences import write_licences
from pipeline.training.loader import Balance, Loader, describe_clips, draw_order, loss_weights, plan_steps
from pipeline.training.mining import mine
from pipeline.training.pretrained import load_pretrained
from pipeline.training.progress import Progress
from pipeline.training.run import Run
from pipeline.training.schedule import Schedule, rate
from pipeline.training.step import TrainingStep

Share = Annotated[float, Field(ge=0, lt=1)]
FIT_BATCHES = 20  # by which features are standardised


@dataclass(eq=False)
class Trainer:
    """Trains a classifier, keeps the best model by its task's figure on the validation clips, and stops when that does
    not improve any more.

    Attributes:
        minutes: stop after this time, even within an epoch; the learning rate then follows the clock, so that runs are
            comparable, but not repeatable to the bit.
        batch: clips of a step, on all devices together, in ``accumulate`` parts one after another.
        schedule: with ``warmup`` in epochs, see ``schedule.py``.
        clip: greatest gradient norm.
        patience: epochs without a better one.
        keep: the model of the epoch with the best one, or of the last epoch (without patience), where validation clips
            are few.
        ema: decay of the average of the weights, which is what is validated and kept; 0: the weights themselves.
        label_smoothing, focal: see ``losses.py``.
        balance: classes weigh the same in the loss (``weights``), or are drawn equally often (``sampling``).
        frames: weight of the loss of single steps, where their times are known.
        carry: share of clips that begin in the state in which another ended, as streams do.
        tbptt: seconds after which the weights are changed and gradients end, while the state goes on (truncated
            backpropagation through time, Williams & Peng 1990).
        devices: on each of ``nodes`` machines, one process each, started by torchrun.
        workers: processes that load data, each of which may take ``timeout`` seconds for a clip.
        threads: of computation (0: half the cores; all of them if there are no workers).
        mine: epochs after which the model hears all negatives of the dataset (if it has any), so that windows in which
            it raises alarms are drawn more often (``mining.py``); 0: never.
        save_every: steps after which last.ckpt is written; it is after each epoch, too.
        pretrained: a run's folder or model whose weights training begins with (``pretrained.py``).
        resume: a run's folder or ``last.ckpt``.

    ConfigError for ``tbptt`` with ``accumulate``, for devices without as many processes, and for a device that is not
    there. The process is only changed by ``begin``.
    """

    epochs: PositiveInt = 30
    minutes: PositiveFloat | None = None
    batch: PositiveInt = 32
    accumulate: PositiveInt = 1
    schedule: Schedule = "cosine"
    warmup: NonNegativeFloat = 1.0
    clip: PositiveFloat = 1.0
    patience: PositiveInt = 10
    keep: Literal["best", "last"] = "best"
    ema: Share = 0.0
    label_smoothing: Share = 0.05
    focal: NonNegativeFloat = 0.0
    balance: Balance = "none"
    frames: NonNegativeFloat = 1.0
    carry: Annotated[float, Field(ge=0, le=1)] = 0.5
    tbptt: PositiveFloat | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    workers: NonNegativeInt = 2
    timeout: PositiveFloat = 10.0
    threads: NonNegativeInt = 0
    mine: NonNegativeInt = 5
    save_every: PositiveInt = 200
    pretrained: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        if self.tbptt and self.accumulate > 1:
            raise ConfigError("trainer.accumulate: means nothing with trainer.tbptt, whose steps are parts of time")
        self.fabric = make_fabric(self.device, self.devices, self.nodes, self.precision)
        self.console = Console(stderr=True, soft_wrap=True)
        self.ready: Classifier | None = None  # the model of the last ``begin``

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return bool(self.fabric.global_rank == 0)

    def splits(self, data: Any, model: Classifier) -> dict[str, Split]:
        """The splits of a dataset, with the labels as the model's task has them; of the processes of a node, one goes
        ahead, and the others find its cache. Says how large they are.
        """
        with self.fabric.rank_zero_first(local=True):
            found = {name: data.split(name, model.spec) for name in ("train", "val", "test")}
        told = {name: model.task.in_columns(split, data.labels, data.background) for name, split in found.items()}
        told["train"] = model.task.to_train(told["train"])
        clips = f"{len(told['train'])} training clips, {len(told['val'])} for validation"
        self.say(f"{clips}; an epoch is one pass over them, * marks the best so far")
        return told

    def begin(self, model: Classifier) -> None:
        """Join the other processes, set the number of threads, and give the model the ``pretrained`` weights, or those
        that its extractors borrow, if any.

        ``fit`` does so, too; call it earlier to find out early what does not suit. ConfigError for a model of other
        parts than the pretrained one, or for weights that are missing; ModelError if there is no pretrained one.
        """
        if model is self.ready:
            return
        self.fabric.launch()
        self.console.quiet = not self.leads
        cores = max(1, (os.cpu_count() or 1) // self.devices)
        torch.set_num_threads(self.threads or (max(1, cores // 2) if self.workers else cores))
        if self.pretrained and not self.resume:
            self.say(load_pretrained(model, self.pretrained))
        elif not self.resume:
            model.fetch()
        self.ready = model

    def say(self, text: str) -> None:
        """Print a line for people, in the first process alone."""
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def fit(
        self,
        model: Classifier,
        background: str | None,
        train: Split,
        val: Split,
        optimizer: Config,
        augment: Augmentation | None,
        out: Path,
        settings: Mapping[str, Any],
        report: Callable[[int, dict[str, Any]], None] | None = None,
    ) -> Progress:
        """Train; ``out`` receives model.safetensors (best), last.ckpt, history.jsonl and TensorBoard curves.

        ``background``: the label of steps outside the known spans. ``settings`` are stored with the model. ``report``
        is called with number and figures of each epoch once they are kept, and in a resumption of those before, too, as
        the end may have come between; what it raises ends the training. DivergedError if the loss becomes NaN or
        infinite; ConfigError if ``resume`` or ``pretrained`` does not fit; UserError if workers fail again and again;
        OSError if a file cannot be written.
        """
        if self.tbptt and augment and augment.mixup:
            raise ConfigError("augment.mixup: cannot act with trainer.tbptt, whose clips end in different blocks")
        self.begin(model)
        out.mkdir(parents=True, exist_ok=True)
        if not model.task.learns:
            return self.settle(model, train, out, settings)
        weights = loss_weights(train, self.balance, len(model.labels))
        run = Run(self.fabric, model, background, optimizer, augment, self.ema, out, settings, self.keep == "last")
        run.data = {"train": describe_clips(train), "val": describe_clips(val)}
        loader = Loader(model.spec, self.workers, self.timeout)
        loss = model.task.loss(self.label_smoothing, self.focal, weights)
        step = TrainingStep(self.fabric, run, loss, self.frames, self.clip, self.carry)
        if self.resume:
            run.restore(Path(self.resume))
            self.say(self.describe_resumption(run))
            if report:  # what was kept last may not have been reported before the end came
                for row in run.progress.history:
                    report(row["epoch"], row)
        else:
            write_licences(model, out)
            self.fit_features(run, loader, train)
            run.save_checkpoint()
        progress = run.progress
        try:
            with SummaryWriter(str(out / "tensorboard")) if self.leads else nullcontext() as board:
                while not self.stop_reason(run):
                    row = self.run_epoch(step, loader, train, val)
                    if board:
                        for key, value in row.items():
                            board.add_scalar(key, value, progress.epoch)
                        self.say(format_epoch(row, self.epochs, progress, model.task))
                    if report:
                        report(progress.epoch, row)
        except KeyboardInterrupt:
            if report is None:
                go_on = f"the same command with {shlex.quote(f'trainer.resume={out}')}"
                self.say(f"stopped after epoch {progress.epoch}; to go on: {go_on}")
            raise
        return progress

    def fit_features(self, run: Run, loader: Loader, train: Split) -> None:
        """What is fitted before the first epoch: the normalisation, unless pretrained weights are used to their own,
        and what the task looks for.
        """
        features, task = run.features, run.model.task
        steps = plan_steps(draw_order(train, torch.initial_seed(), "none", 0), self.batch)[:FIT_BATCHES]

        def batches() -> Iterator[Batch]:
            return (part for parts in loader.load_steps(train, steps) for part in parts if part is not None)

        if not self.pretrained or not task.bounded:
            features.fit(batches(), anew=not self.pretrained)  # else its weights are used to its own
        if task.examines:
            features.examine(batches())

    def settle(self, model: Classifier, train: Split, out: Path, settings: Mapping[str, Any]) -> Progress:
        """Instead of a training: groups of clips by the embeddings of the ``pretrained`` model, written as a model."""
        if not self.pretrained:
            raise ConfigError("trainer.pretrained: is not set; task=groups needs the encoder of a trained model")
        fit_groups(model, self.batches(train, model.spec), int(settings.get("seed", 0)))
        write_licences(model, out)
        model.save(out / "model.safetensors", {"settings": settings, "history": []})
        return Progress()

    def describe_resumption(self, run: Run) -> str:
        """Where a resumed training stands, for people."""
        progress = run.progress
        if key := self.stop_reason(run):
            return f"{self.resume}: is finished, after epoch {progress.epoch}, by trainer.{key}={getattr(self, key)}"
        within = f", step {progress.batch} of the next" if progress.batch else ""
        return f"{self.resume}: goes on after epoch {progress.epoch} of {self.epochs}{within}"

    def stop_reason(self, run: Run) -> str:
        """The key by which training is over: all epochs are done, nothing got better for long, or the time is over;
        '' if it goes on.
        """
        progress = run.progress
        if progress.epoch >= (self.epochs if run.learns else 1):
            return "epochs"
        if progress.epoch - progress.best_epoch >= self.patience:
            return "patience"
        return "minutes" if self.time_share(run) >= 1 else ""

    def time_share(self, run: Run) -> float:
        """Share of ``minutes`` that is over, also in a training before a resumption; the same for all processes."""
        if self.minutes is None:
            return 0.0
        seconds: float = self.fabric.broadcast(run.seconds)
        return seconds / (60 * self.minutes)

    def seed(self, seed: int) -> None:
        """All random generators."""
        seed_everything(seed, verbose=False)

    def run_epoch(self, step: TrainingStep, loader: Loader, train: Split, val: Split) -> dict[str, Any]:
        """Train, validate, keep; the epoch's figures. All that is random depends on the seed and the epoch alone."""
        run = step.run
        started = run.seconds
        seed = (int(run.settings.get("seed", 0)) * 100_003 + run.progress.epoch + 1) % 2**32
        if not run.progress.batch:  # else it goes on within an epoch
            self.seed((seed + 7919 * self.fabric.global_rank) % 2**32)
            run.carried = None
        train.epoch = run.progress.epoch
        if hasattr(train, "done") and not self.workers:  # other processes do not know what is kept
            train.done = run.features.has
        if negatives := getattr(train, "negatives", None):
            negatives.hard = run.progress.hard
        row = {"epoch": run.progress.epoch + 1} | self.train_epoch(step, loader, train, seed)
        with run.average.applied():
            found = self.evaluate(run.model, val, run.features) if self.leads else {}
            if negatives and self.mine and row["epoch"] % self.mine == 0:
                run.progress.hard = self.fabric.broadcast(mine(run.model, negatives).places if self.leads else [])
                held_out: Any = getattr(val, "negatives", None)
                row["val_false_alarms"] = mine(run.model, held_out).an_hour if self.leads and held_out else 0.0
        row |= {f"val_{key}": found[key] for key in run.model.task.kept if found.get(key) is not None}
        row["seconds"] = round(run.seconds - started, 2)
        shared: dict[str, Any] = self.fabric.broadcast(row)
        run.finish_epoch(shared)
        return shared

    def train_epoch(self, step: TrainingStep, loader: Loader, train: Split, seed: int) -> dict[str, Any]:
        """The rest of one pass over the training data; mean loss, accuracy and learning rate."""
        run, progress = step.run, step.run.progress
        if not run.learns:
            return {}
        run.model.train()
        order = draw_order(train, seed, self.balance, len(run.model.labels))
        steps = plan_steps(order, self.batch, self.accumulate, self.fabric.global_rank, self.fabric.world_size)
        title, share = f"epoch {progress.epoch + 1}/{self.epochs}", 0.0
        batches: Iterable[list[Batch | None]] = loader.load_steps(train, steps[progress.batch :])
        if self.leads:
            batches = bar(batches, title, len(steps), progress.batch)
        for parts in batches:
            epoch = progress.epoch + progress.batch / len(steps)
            share = rate(self.schedule, epoch, self.epochs, self.warmup, self.time_share(run))
            run.set_rate(share)
            step.over = self.time_share(run) if self.minutes else epoch / self.epochs
            found = step.truncated(parts[0], self.tbptt) if self.tbptt else step.full(parts)
            progress.sums = [old + new for old, new in zip(progress.sums, found, strict=True)]
            progress.batch += 1
            progress.step += 1
            if progress.step % self.save_every == 0 and progress.batch < len(steps):
                run.save_checkpoint()
            if self.time_share(run) >= 1:
                break
        total, hits, count = progress.sums
        if not count:
            raise DivergedError(f"no training clip could be read in {title}")
        return {"train_loss": total / count, f"train_{run.model.task.hit}": hits / count, "lr": run.rates[0] * share}

    def evaluate(self, model: Classifier, split: Split, features: Features | None = None) -> dict[str, Any]:
        """The main figures of a model on a split."""
        return model.task.summarize(self.predict(model, split, features))

    def predict(self, model: Classifier, split: Split, features: Features | None = None, worst: int = 0) -> Predictions:
        """What a model answers on a split. With ``features``, what they keep of the clips is used; so many of the
        ``worst`` clips are kept.
        """
        found = predict(model, self.batches(split, model.spec), features, worst)
        found.known = list(getattr(split, "known", ()))
        found.skipped = len(split) - len(found.truth) + int(getattr(split, "skipped", 0))
        return found

    def batches(self, split: Split, spec: InputSpec) -> Iterator[Batch]:
        """Batches of a split in its order; those of which nothing could be read are left out."""
        loader = Loader(spec, self.workers, self.timeout)
        for parts in loader.load_steps(split, plan_steps(range(len(split)), self.batch)):
            yield from (batch for batch in parts if batch is not None)


def format_epoch(row: Mapping[str, Any], epochs: int, progress: Progress, task: Task[Any]) -> str:
    """An epoch in one line."""
    star = " *" if progress.best_epoch == progress.epoch else ""
    if "train_loss" not in row:
        return f"fitted, nothing to train  val {row[f'val_{task.best}']:.1%}  {row['seconds']:.1f} s"
    return (
        f"epoch {row['epoch']:3}/{epochs}  loss {row['train_loss']:.3f}  train {row[f'train_{task.hit}']:.1%}"
        f"  val {row[f'val_{task.best}']:.1%}  {row['seconds']:.1f} s{star}"
    )
