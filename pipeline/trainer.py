"""The training loop, on Lightning Fabric: one readable loop, any device and precision, resumable.

Each epoch seeds its own random draws from (seed, epoch), so training that was interrupted and resumed ends with the
same weights as training that was not.
"""

import json
import math
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning_fabric import Fabric, seed_everything
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.tensorboard import SummaryWriter

from pipeline.augmentation import Augmentation
from pipeline.build import Config, build
from pipeline.errors import ConfigError, DivergedError
from pipeline.evaluation import Answers, answers, plain
from pipeline.features import Features
from pipeline.intake import Intake
from pipeline.model import Classifier
from pipeline.sample import IGNORE, Batch, Split, collate
from pipeline.stage import State, detach, tree

PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}
console = Console(stderr=True, soft_wrap=True)


@dataclass
class Progress:
    """Where the training stands: all that is needed to go on, beside the weights."""

    epoch: int = 0  # finished epochs
    step: int = 0
    best: float = -math.inf  # validation score of the best model
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains a classifier, keeps the best model by validation accuracy, and stops when it no longer improves."""

    def __init__(
        self,
        epochs: PositiveInt = 30,
        minutes: PositiveFloat | None = None,
        batch: PositiveInt = 32,
        warmup: NonNegativeFloat = 1.0,
        clip: PositiveFloat = 1.0,
        patience: PositiveInt = 10,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05,
        frames: NonNegativeFloat = 1.0,
        carry: Annotated[float, Field(ge=0, le=1)] = 0.5,
        precision: Literal["fp32", "bf16"] = "fp32",
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        workers: NonNegativeInt = 2,
        threads: NonNegativeInt = 0,
        resume: str | None = None,
    ) -> None:
        """``minutes``: stop after this time, even within an epoch; the learning rate then follows the clock, so that
        runs are comparable, but not repeatable to the bit. ``warmup`` in epochs, then a cosine to zero. ``clip``:
        greatest gradient norm. ``patience``: epochs without a better validation accuracy. ``frames``: weight of the
        loss of single steps, where the data know the times. ``carry``: share of clips that begin in the state in which
        another clip ended, as in a stream. ``workers`` load data; ``threads`` compute (0: half the cores; all of them
        if there are no workers). ``resume``: a run's folder or ``last.ckpt``.
        """
        self.minutes = minutes
        self.epochs, self.batch, self.warmup, self.clip, self.patience = epochs, batch, warmup, clip, patience
        self.label_smoothing, self.frames, self.carry = label_smoothing, frames, carry
        self.workers, self.resume = workers, resume
        cores = os.cpu_count() or 1
        torch.set_num_threads(threads or (max(1, cores // 2) if workers else cores))
        self.fabric = Fabric(accelerator=device, devices=1, precision=PRECISION[precision])

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
    ) -> Progress:
        """Train; ``out`` receives model.safetensors (best), last.ckpt, history.jsonl and TensorBoard curves.

        ``background``: the label of steps outside the known spans. ``settings`` are stored with the model.
        DivergedError if the loss becomes NaN or infinite; ConfigError if ``resume`` does not fit.
        """
        out.mkdir(parents=True, exist_ok=True)
        run = Run(self, model, background, train, optimizer, augment, out, settings)
        if self.resume:
            run.restore(Path(self.resume))
        else:
            run.features.fit(self.batches(train, model.intake, shuffle=True))
            run.keep()
        progress = run.progress
        try:
            with SummaryWriter(str(out / "tensorboard")) as board:
                while not self.finished(run):
                    row = self.epoch(run, train, val)
                    for key, value in row.items():
                        board.add_scalar(key, value, progress.epoch)
                    console.print(line(row, self.epochs, progress), highlight=False)
        except KeyboardInterrupt:
            go_on = f"the same command with {shlex.quote(f'trainer.resume={out}')}"
            console.print(f"stopped after epoch {progress.epoch}; to go on: {go_on}", soft_wrap=True, markup=False)
            raise
        return progress

    def finished(self, run: "Run") -> bool:
        """Whether all epochs are done, the time is over, or nothing got better for long."""
        progress = run.progress
        late = progress.epoch - progress.best_epoch >= self.patience
        return progress.epoch >= self.epochs or late or self.spent(run) >= 1

    def spent(self, run: "Run") -> float:
        """Share of ``minutes`` that is over, also in a training before a resumption."""
        if self.minutes is None:
            return 0.0
        earlier: float = sum(row["seconds"] for row in run.earlier)
        return (earlier + time.perf_counter() - run.started) / (60 * self.minutes)

    def seed(self, seed: int) -> None:
        """All random generators."""
        seed_everything(seed, verbose=False)

    def epoch(self, run: "Run", train: Split, val: Split) -> dict[str, Any]:
        """Train, validate, keep; the epoch's figures. All that is random depends on the seed and the epoch alone."""
        started = time.perf_counter()
        self.seed((int(run.settings.get("seed", 0)) * 100_003 + run.progress.epoch + 1) % 2**32)
        train.epoch = run.progress.epoch
        row = {"epoch": run.progress.epoch + 1} | self.learn(run, train)
        found = self.evaluate(run.model, val, run.features)
        row |= {f"val_{key}": found[key] for key in ("accuracy", "loss", "macro_f1")}
        row["seconds"] = round(time.perf_counter() - started, 2)
        run.finish_epoch(row)
        return row

    def learn(self, run: "Run", train: Split) -> dict[str, Any]:
        """One pass over the training data; mean loss, accuracy and learning rate."""
        run.model.train()
        run.carried = None
        total, hits, count = 0.0, 0, 0
        title, rounds = f"epoch {run.progress.epoch + 1}/{self.epochs}", math.ceil(len(train) / self.batch)
        for batch in track(
            self.batches(train, run.model.intake, shuffle=True), title, rounds, console=console, transient=True
        ):
            loss, right = self.loss(run, batch)
            if not math.isfinite(loss.item()):
                raise DivergedError(
                    f"the loss is {loss.item()} in {title}; lower optimizer.lr or trainer.clip, or look at the data"
                )
            run.adapt.zero_grad()
            self.fabric.backward(loss)
            self.fabric.clip_gradients(run.wrapped, run.adapt, max_norm=self.clip)
            run.adapt.step()
            run.schedule.step()
            run.progress.step += 1
            total, hits, count = total + loss.item() * len(batch.labels), hits + right, count + len(batch.labels)
            if self.spent(run) >= 1:
                break
        if not count:
            raise DivergedError(f"no training clip could be read in {title}")
        return {"train_loss": total / count, "train_accuracy": hits / count, "lr": run.schedule.get_last_lr()[0]}

    def loss(self, run: "Run", batch: Batch) -> tuple[Tensor, int]:
        """The cost of a batch, its clips mixed in pairs if so set; and how many answers were right."""
        x, batch = run.features.changed(batch)
        rows, alpha = len(batch.labels), run.features.augment.mixup
        share = float(torch.distributions.Beta(alpha, alpha).sample()) if alpha else 1.0
        order = torch.randperm(rows) if alpha else torch.arange(rows)
        if alpha:
            x = share * x + (1 - share) * x[order.to(x.device)]
        logits, pooled, run.carried = run.wrapped.logits(x, self.begin(run, rows))
        answer = pooled[torch.arange(rows), run.model.last_step(batch.lengths)].float()
        loss = self.cost(run, answer, logits, batch, torch.arange(rows))
        if alpha:
            loss = share * loss + (1 - share) * self.cost(run, answer, logits, batch, order)
        return loss, int((answer.argmax(1).cpu() == batch.labels).sum())

    def cost(self, run: "Run", answer: Tensor, logits: Tensor, batch: Batch, order: Tensor) -> Tensor:
        """Cross-entropy of the clips' answers, plus that of single steps where their class is known.

        Row n is held against the labels of clip ``order[n]``.
        """
        model = run.model
        loss = cross_entropy(answer, batch.labels[order].to(answer.device), label_smoothing=self.label_smoothing)
        if self.frames:
            targets = batch.targets(logits.shape[1], model.hop, model.delay, run.background)[order]
            if (targets != IGNORE).any():
                single = cross_entropy(logits.flatten(0, 1).float(), targets.flatten().to(logits.device))
                loss = loss + self.frames * single
        return loss

    def begin(self, run: "Run", rows: int) -> State:
        """Where the encoder starts: from the beginning, or (a share ``carry`` of the rows) in the state in which some
        clip of the last batch ended. So it learns to work in the middle of a stream, where clips never begin.
        """
        fresh = run.model.encoder.initial(rows)
        if run.carried is None or not self.carry:
            return fresh
        chosen = torch.rand(rows, device=run.model.anchor.device) < self.carry
        last = detach(run.carried)

        def mixed(old: Tensor, new: Tensor) -> Tensor:
            again = old[torch.arange(rows, device=old.device) % len(old)].to(new.dtype)
            return torch.where(chosen.view(-1, *[1] * (new.ndim - 1)), again, new)

        return tree(mixed, last, fresh)

    def evaluate(self, model: Classifier, split: Split, features: Features | None = None) -> dict[str, Any]:
        """The main figures of a model on a split (``evaluation.plain``)."""
        return plain(self.answers(model, split, features))

    def answers(self, model: Classifier, split: Split, features: Features | None = None, worst: int = 0) -> Answers:
        """What a model answers on a split. With ``features``, what they keep of the clips is used; so many of the
        ``worst`` clips are kept.
        """
        return answers(model, self.batches(split, model.intake, shuffle=False), features, worst)

    def batches(self, split: Split, intake: Intake, shuffle: bool) -> Iterator[Batch]:
        """Batches of a split; those of which nothing could be read are left out."""
        generator = torch.Generator().manual_seed(torch.initial_seed())
        loader: DataLoader[Any] = DataLoader(
            split,  # type: ignore[arg-type]
            self.batch,
            sampler=RandomSampler(split, generator=generator) if shuffle else None,
            collate_fn=partial(collate, intake=intake),
            num_workers=min(self.workers, max(0, len(split) // self.batch)),
            timeout=120 if self.workers and len(split) >= self.batch else 0,
            generator=generator,
        )
        return (batch for batch in loader if batch is not None)

    def rate_at(self, epoch: float, spent: float) -> float:
        """Share of the learning rate at a point in time: linear warm-up, then a cosine to zero."""
        if epoch < self.warmup:
            return (epoch + 1e-3) / self.warmup
        rest = (epoch - self.warmup) / max(1e-9, self.epochs - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, max(rest, spent))))


class Run:
    """One training under way: the model with what changes it, where it stands, and its files."""

    def __init__(
        self,
        trainer: Trainer,
        model: Classifier,
        background: str | None,
        train: Split,
        optimizer: Config,
        augment: Augmentation | None,
        out: Path,
        settings: Mapping[str, Any],
    ) -> None:
        self.model, self.out, self.settings = model, out, settings
        self.features = Features(model, augment)
        self.background = model.labels.index(background) if background is not None else None
        adapt: torch.optim.Optimizer = build(
            optimizer, torch.optim.Optimizer, at="optimizer", params=parameter_groups(model, optimizer)
        )
        self.started, self.earlier = time.perf_counter(), list[dict[str, Any]]()
        steps = max(1, math.ceil(len(train) / trainer.batch))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            adapt, lambda step: trainer.rate_at(step / steps, trainer.spent(self))
        )
        self.wrapped, self.adapt = trainer.fabric.setup(model, adapt)
        self.wrapped.mark_forward_method("logits")
        self.progress = Progress()
        self.best = self.weights()
        self.carried: State | None = None  # in which the clips of the last batch ended

    def weights(self) -> dict[str, Tensor]:
        """The model's numbers as they are now."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def finish_epoch(self, row: dict[str, Any]) -> None:
        """Note an epoch's figures, and keep the model if it is the best so far."""
        progress = self.progress
        progress.epoch += 1
        progress.history.append(row)
        score = row["val_accuracy"] - 1e-4 * row["val_loss"]  # among equal accuracies, the lower loss
        if score > progress.best:
            progress.best, progress.best_epoch = score, progress.epoch
            self.best = self.weights()
        self.keep()

    def keep(self) -> None:
        """Write history.jsonl, model.safetensors (the best weights) and last.ckpt, the last two whole or not at all."""
        rows = "".join(json.dumps(row) + "\n" for row in self.progress.history)
        (self.out / "history.jsonl").write_text(rows)
        if 0 < self.progress.best_epoch == self.progress.epoch:
            self.model.save(
                self.out / "model.safetensors", {"settings": self.settings, "history": self.progress.history}
            )
        state = {
            "model": self.weights(),
            "best": self.best,
            "optimizer": self.adapt.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progress": json.dumps(vars(self.progress)),
            "config": json.dumps([self.model.config, self.model.labels]),
        }
        temporary = self.out / "last.tmp"
        torch.save(state, temporary)
        temporary.replace(self.out / "last.ckpt")

    def restore(self, path: Path) -> None:
        """Go on where a run's last.ckpt left it. ConfigError if it is missing, broken or of another model."""
        path = path / "last.ckpt" if path.is_dir() else path
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ConfigError(f"trainer.resume: {path} does not exist; expected a run's folder or last.ckpt") from None
        except Exception as error:
            raise ConfigError(f"trainer.resume: {path} is no whole checkpoint ({type(error).__name__})") from None
        if not isinstance(state, dict) or state.get("config") != json.dumps([self.model.config, self.model.labels]):
            raise ConfigError(f"trainer.resume: {path} is of another model or other labels; resume as it was begun")
        self.best = state["best"]
        self.model.load_state_dict(self.best)
        self.model.save(self.out / "model.safetensors", {"settings": self.settings})
        self.model.load_state_dict(state["model"])
        self.adapt.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        vars(self.progress).update(json.loads(state["progress"]))
        self.earlier = self.progress.history.copy()


def parameter_groups(model: Classifier, optimizer: Config) -> list[dict[str, Any]]:
    """Weight decay pulls on matrices only, not on biases, normalisation, peepholes and learned initial memories."""
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    matrices = [n for n, p in trainable.items() if p.ndim > 1 and not n.endswith((".weight_ch", ".start"))]
    decay = optimizer.get("weight_decay", 0.0)
    return [
        {"params": [trainable[name] for name in matrices], "weight_decay": decay},
        {"params": [p for name, p in trainable.items() if name not in matrices], "weight_decay": 0.0},
    ]


def line(row: Mapping[str, Any], epochs: int, progress: Progress) -> str:
    """An epoch in one line."""
    star = " *" if progress.best_epoch == progress.epoch else ""
    return (
        f"epoch {row['epoch']:3}/{epochs}  loss {row['train_loss']:.3f}  train {row['train_accuracy']:.1%}"
        f"  val {row['val_accuracy']:.1%}  {row['seconds']:.1f} s{star}"
    )
