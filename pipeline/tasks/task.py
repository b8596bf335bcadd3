"""The task: what the numbers of a step mean.

It says what they are called, which truth they are held against, what a mistake costs, how logits become posteriors, and
what is measured. All else (the network, streams, decoder, sinks) is the same for every task.

Shapes: B clips, T steps, K columns, as many as a model has labels.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.layers.smoothing import Link
from pipeline.media.sample import Batch, Split, StepGrid
from pipeline.tasks.columns import InColumns
from pipeline.tasks.losses import Loss
from pipeline.tasks.predictions import Predictions
from pipeline.tasks.uncertainty import LEVEL, interval

Found = TypeVar("Found", bound=Predictions)


class Task(Generic[Found]):
    """Base of all tasks.

    Attributes:
        kind: what ``predictions`` makes.
        link: how logits become posteriors.
        best: the figure, the greater the better, that chooses the epoch.
        kept: the figures of an epoch, of those that ``summarize`` finds.
        hit: what ``hits`` counts, in the history as ``train_...``.
        unknown: the truth of a step of which nothing is known.
        stepwise: whether posteriors of single steps are measured, too (``add_steps``).
        learns: whether a model is trained by gradients.
        labelled: whether columns are labels, which thresholds and truths of long recordings mean.
        link_stage: the model's stage that makes posteriors of logits.
        alone: whether one label, or none, is enough in the training clips, and others may be in the other splits.
        examines: whether it looks at the features of training clips (``examine``) before the first epoch.
        rescaled: whether the answers to clips mean something only after ``calibrate``.
        reads: what a decoder finds in the steps; ``strings`` have a loss over whole sequences (``sequence_cost``).
        warm: the share of the time in which single steps are learnt instead.
    """

    kind: type[Found]
    link: Link
    best: str
    kept: tuple[str, ...]
    hit: str
    unknown: float
    stepwise: bool = False
    alone: bool = False
    examines: bool = False
    rescaled: bool = False
    learns: bool = True
    labelled: bool = True
    link_stage: Any
    reads: Literal["events", "numbers", "strings"] = "events"
    warm: float = 0.0

    def check(self, settings: Mapping[str, Any]) -> None:
        """ConfigError for settings of a training that do not go with the task."""
        given = {key: settings[key] for key in ("false_alarms", "events", "calibrate", "streams")}
        given |= {f"trainer.{key}": settings["trainer"].get(key) for key in ("balance", "focal")}
        for key, value in given.items():
            if value not in (None, False, "none") and not self.labelled:
                name = type(self).__name__.lower()
                raise ConfigError(f"{key}: is of labels, which task={name} does not have; leave it out")
            if key in ("false_alarms", "events") and None not in (value, settings["decoder"].get("threshold")):
                raise ConfigError(f"{key} and decoder.threshold: each says where events begin; set only one of them")

    @property
    def bounded(self) -> bool:
        """Whether posteriors are from 0 to 1, so that thresholds mean something."""
        return self.link != "linear"

    def meet(self, batch: Batch) -> None:
        """Learn of a batch of training clips, before the training; those by which features are standardised."""

    def met(self) -> None:
        """After the last of those batches. ConfigError if they lack what has to be known."""

    def columns(self, labels: Sequence[str], background: str | None) -> list[str]:
        """The names of the K columns, of a dataset's labels and the one that means nothing."""
        raise NotImplementedError

    def recorded(self, settings: Mapping[str, Any], labels: Sequence[str], background: str | None) -> Mapping[str, Any]:
        """Settings of the task as a model keeps them, which knows neither a dataset's labels nor its background."""
        return settings

    def name_columns(self, labels: Sequence[str], extractor: Any) -> list[str]:
        """The names of all columns of a model with such an extractor."""
        return list(labels)

    def name_event(self, label: str) -> str | None:
        """The column that an event of a recording with known times is held against, by its label; None: none."""
        return label

    def to_train(self, split: Split) -> Split:
        """The clips of the training split that are trained on. ConfigError if there are none."""
        return split

    def examine(self, steps: Sequence[Tensor], names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean ``(F,)`` and covariance ``(F, F)`` of the steps ``(T, ...)`` of training clips. ConfigError for such as
        nothing can be learnt from.
        """
        raise NotImplementedError

    def nothing(self, background: int | None) -> tuple[int, ...]:
        """The labels of a clip that has none; ``background``: the one that means nothing, if there is one."""
        return () if background is None else (background,)

    def in_columns(self, split: Split, labels: Sequence[str], background: str | None) -> Split:
        """A split of a dataset with these labels, as a model is trained on it."""
        columns = self.columns(labels, background)
        places = {number: columns.index(label) for number, label in enumerate(labels) if label in columns}
        quiet = labels.index(background) if background in labels else None
        return InColumns(split, places, self.nothing(quiet))

    def clip_truth(self, batch: Batch, columns: int) -> Tensor:
        """The truth of each clip ``(B, ...)``. ConfigError for labels that the task has no words for."""
        raise NotImplementedError

    def step_truth(self, batch: Batch, steps: StepGrid, background: int | None, columns: int) -> Tensor:
        """The truth of each step ``(B, T, ...)``, ``unknown`` where it is not known."""
        raise NotImplementedError

    def known(self, truth: Tensor) -> int:
        """Of how many steps ``(B, T, ...)`` the truth is known."""
        there = ~truth.isnan() if math.isnan(self.unknown) else truth != self.unknown
        return int((there.any(-1) if there.ndim > 2 else there).sum())

    def loss(self, label_smoothing: float, focal: float, weights: Tensor | None) -> Loss:
        """What logits ``(N, K)`` cost that are held against truths ``(N, ...)``."""
        raise NotImplementedError

    def sequence_cost(self, logits: Tensor, steps: Tensor, batch: Batch, step: float) -> tuple[Tensor, float]:
        """What whole sequences of logits ``(B, T, K)`` cost, of which ``steps (B,)`` count, each of ``step`` seconds:
        the sum; and how many are right, or how far.
        """
        raise NotImplementedError

    def hits(self, logits: Tensor, truth: Tensor) -> float:
        """How many of the clips' answers ``(B, K)`` are right, or how far: a number for training to show."""
        raise NotImplementedError

    def predictions(self, labels: list[str], thresholds: NDArray[np.float32]) -> Found:
        """What a model of these labels answers to no clips. ``thresholds (K,)``: posteriors from which on a label is
        told.
        """
        return self.kind(labels, np.zeros(0, np.int64), np.zeros((0, len(labels)), np.float32))

    def add(self, found: Found, scores: NDArray[np.float32], truth: NDArray[Any]) -> None:
        """Append the posteriors ``(B, K)`` of clips and their truths."""
        found.scores, found.truth = np.concatenate([found.scores, scores]), np.concatenate([found.truth, truth])

    def add_clips(self, found: Found, posteriors: Tensor, delay: int, last: Tensor, truth: Tensor) -> None:
        """Append clips by their posteriors ``(B, T, K)``, which lag by ``delay`` steps and end with step ``last (B,)``,
        and their truths.
        """
        self.add(found, posteriors[torch.arange(len(posteriors)), last].float().cpu().numpy(), truth.numpy())

    def add_steps(self, found: Found, logits: Tensor, truth: Tensor) -> None:
        """Take what is told of single steps ``(B, T, K)``, and their truth ``(B, T, ...)``."""

    def right(self, found: Found, posteriors: Tensor, truth: Tensor) -> Tensor:
        """Whether the answers after each step ``(B, T, K)`` are those for the whole clips, ``(B, T)``."""
        raise NotImplementedError

    def calibrate(self, found: Found) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By what the logits of each label are to be multiplied, and what is to be added ``(K,)``, so that posteriors
        mean what they say.
        """
        raise NotImplementedError

    def summarize(self, found: Found) -> dict[str, Any]:
        """The main figures as plain values, at least ``kept``, accuracy, macro F1, loss, ``count``, ``classes``, and
        how soon the answers are right (``online``).
        """
        raise NotImplementedError

    def measure(self, found: Found) -> dict[str, Any]:
        """All figures as plain values: of ``summarize`` and ``details``, how many clips could not be read, and where
        labels can be right or wrong the interval of the accuracy.
        """
        common: dict[str, Any] = {"skipped": found.skipped, "seconds": round(float(found.seconds.sum()), 3)}
        if self.labelled:
            (low, high), method = interval(found.correct.tolist(), found.groups)
            groups = len({group for group in found.groups if group})
            common["interval"] = {"low": low, "high": high, "level": LEVEL, "method": method, "groups": groups}
        return self.summarize(found) | common | self.details(found)

    def details(self, found: Found) -> dict[str, Any]:
        """The figures that take longer than those of ``summarize``."""
        return {}

    def to_json_lines(self, split: str, found: Found) -> Iterator[str]:
        """A line of JSON for each clip: what it is, its truth, the answer and both scores. So runs can be pooled."""
        for place, name in enumerate(found.names):
            truth, answer = found.told(place)
            row = {
                "split": split,
                "name": name,
                "group": found.groups[place],
                "truth": truth,
                "answer": answer,
                "score": round(float(found.confidence[place]), 4),
                "truth_score": round(float(found.of_truth[place]), 4),
            }
            yield json.dumps(row) + "\n"
