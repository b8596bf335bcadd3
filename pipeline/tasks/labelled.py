"""What tasks with any number of labels at once have in common: each label of a step has a posterior of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from pipeline.layers.smoothing import Link
from pipeline.media.sample import Batch, StepGrid, own_steps
from pipeline.tasks.calibration import fit_sigmoid, histogram, histograms
from pipeline.tasks.classification import label_figures, online_accuracy
from pipeline.tasks.losses import BinaryCrossEntropy, Loss
from pipeline.tasks.precision_recall import STEP_BINS, average_precisions, binned_average_precision, mean_known, thinned
from pipeline.tasks.predictions import Predictions
from pipeline.tasks.task import Task

Found = TypeVar("Found", bound="Tagged")


@dataclass
class Tagged(Predictions):
    """Predictions whose ``truth (N, K)`` says which labels are in each clip.

    Attributes:
        thresholds: ``(K,)``: posteriors from which on a label is told.
        steps: how often steps whose truth is known have a posterior in each bin, where a label is not there and where
            it is ``(2, K, STEP_BINS)``.
    """

    thresholds: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 0, STEP_BINS), np.int64))

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Which labels are told, ``(N, K)``."""
        return np.asarray(self.scores >= self.thresholds)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether exactly the labels of a clip are told, ``(N,)``."""
        return np.asarray((self.predicted == self.truth).all(1))

    @property
    def of_truth(self) -> NDArray[np.float32]:
        """The probability that the scores give the worst judged label of each clip, ``(N,)``."""
        right = np.where(self.truth, self.scores, 1 - self.scores)
        return np.asarray(right.min(1, initial=1.0), np.float32)

    def told(self, row: int) -> tuple[str, str]:
        """The labels of a clip, and those that were told."""
        truth, answer = (np.flatnonzero(found[row]) for found in (self.truth, self.predicted))
        return join(self.labels[index] for index in truth), join(self.labels[index] for index in answer)


class Labelled(Task[Found]):
    """Base: sigmoid and binary cross-entropy."""

    link: Link = "sigmoid"
    unknown, stepwise = float("nan"), True

    def columns(self, labels: Sequence[str], background: str | None) -> list[str]:
        """All labels but the background: nothing is there where no label is. ConfigError if no label is left."""
        return [label for label in labels if label != background]

    def nothing(self, background: int | None) -> tuple[int, ...]:
        """A clip without labels is what it is."""
        return ()

    def clip_truth(self, batch: Batch, columns: int) -> Tensor:
        """1 for each label of a clip, else 0: ``(B, K)``. (The end of an event that is cut off may be no label.)"""
        truth = torch.zeros(len(batch.labels), columns)
        for row, labels in zip(truth, batch.labels, strict=True):
            row[list(labels)] = 1.0
        return truth

    def step_truth(self, batch: Batch, steps: StepGrid, background: int | None, columns: int) -> Tensor:
        """1 where a label's spans are, else 0, ``(B, T, K)``; NaN outside the clips, and in those with labels whose
        times are not known.
        """
        truth = torch.full((len(batch.labels), steps.count, columns), self.unknown)
        for row, labels, spans, length in zip(truth, batch.labels, batch.spans, batch.lengths.tolist(), strict=True):
            if spans is None and labels:
                continue
            row[steps.of(length)] = 0.0
            for label in {label for _, _, label in spans or ()}:
                times = [(start, end, 1) for start, end, one in spans or () if one == label]
                own_steps(row[:, label], times, steps, length)
        return truth

    def loss(self, label_smoothing: float, focal: float, weights: Tensor | None) -> Loss:
        """Binary cross-entropy of logits ``(N, K)`` and truths ``(N, K)``."""
        return BinaryCrossEntropy(label_smoothing, focal, weights)

    def hits(self, logits: Tensor, truth: Tensor) -> float:
        """The sum of the clips' F1 at a posterior of 0.5; 1 where nothing is there, and nothing told."""
        told, there = logits.detach().cpu() > 0, truth > 0.5
        total = told.sum(1) + there.sum(1)
        return float(torch.where(total > 0, 2 * (told & there).sum(1) / total.clamp_min(1), 1.0).sum())

    def predictions(self, labels: list[str], thresholds: NDArray[np.float32]) -> Found:
        """A label is told from its threshold on."""
        empty = np.zeros((0, len(labels)), np.float32)
        steps = np.zeros((2, len(labels), STEP_BINS), np.int64)
        return self.kind(labels, empty.astype(bool), empty, thresholds=thresholds, steps=steps)

    def add(self, found: Found, scores: NDArray[np.float32], truth: NDArray[Any]) -> None:
        """Append the posteriors ``(B, K)`` of clips and their truths ``(B, K)``."""
        super().add(found, scores, truth > 0.5)

    def add_steps(self, found: Found, logits: Tensor, truth: Tensor) -> None:
        """Count the posteriors of steps, not smoothed, where the truth is known: both ``(B, T, K)``."""
        known = ~truth.isnan().any(-1)
        scores, there = logits.sigmoid().float().cpu()[known].numpy(), truth[known].numpy() > 0.5
        for column in range(scores.shape[1]):
            for side in (0, 1):
                found.steps[side, column] += histogram(scores[there[:, column] == side, column], STEP_BINS)

    def right(self, found: Found, posteriors: Tensor, truth: Tensor) -> Tensor:
        """Whether exactly the labels of the clip are told."""
        told = posteriors.float().cpu() >= torch.from_numpy(found.thresholds)
        return (told == (truth > 0.5)[:, None]).all(-1)

    def calibrate(self, found: Found) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A scale and a shift for each label."""
        scale, shift = np.transpose([fit_sigmoid(*pair) for pair in zip(found.scores.T, found.truth.T, strict=True)])
        return scale, shift

    def summarize(self, found: Found) -> dict[str, Any]:
        """Mean average precision of clips and of steps (``frame_map``, None if no times are known), macro F1, accuracy
        (clips of which exactly the labels are told), loss, figures of each label, and how soon answers are right.
        """
        precisions, steps = average_precisions(found.scores, found.truth), binned_average_precision(found.steps)
        hits, truths, answers = (
            table.sum(0) for table in (found.truth & found.predicted, found.truth, found.predicted)
        )
        rows, macro_f1 = label_figures(found.labels, hits, truths, answers)
        for row, precision, of_steps in zip(rows.values(), precisions, steps, strict=True):
            row |= {"ap": precision, "frame_ap": of_steps}
        truth, scores = torch.from_numpy(found.truth).float(), torch.from_numpy(found.scores)
        return {
            "map": mean_known(precisions) or 0.0,
            "frame_map": mean_known(steps),
            "accuracy": float(found.correct.mean()) if len(found.truth) else 0.0,
            "macro_f1": macro_f1,
            "loss": binary_cross_entropy(scores.clamp(0, 1), truth).item() if len(truth) else 0.0,
            "count": len(found.truth),
            "classes": rows,
            "online": {"step": found.step, "accuracy": online_accuracy(found.right)},
        }

    def details(self, found: Found) -> dict[str, Any]:
        """Thresholds (None: never told), precision-recall curves, how often labels are told beside true ones, and
        histograms of scores.
        """
        table = found.truth.T.astype(np.int64) @ found.predicted.astype(np.int64)
        columns = list(enumerate(found.labels))
        return {
            "thresholds": {label: finite(found.thresholds[k]) for k, label in columns},
            "cooccurrence": table.tolist(),
            "curves": {label: thinned(found.scores[:, k], found.truth[:, k]) for k, label in columns},
            "scores": {"classes": histograms(found.labels, found.scores, found.truth)},
        }


def finite(threshold: np.float32) -> float | None:
    """A threshold to be written; None if it is never reached."""
    return round(float(threshold), 4) if threshold <= 1 else None


def join(labels: Iterable[str]) -> str:
    """Labels as one text."""
    return ", ".join(labels)
