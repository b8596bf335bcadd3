"""One class for each clip and each step: the posteriors of a step add up to 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.layers.smoothing import Link
from pipeline.media.annotations import first_overlap
from pipeline.media.sample import IGNORE, Batch, Split, StepGrid
from pipeline.tasks.calibration import calibration_error, claims, fit_temperature, histogram, histograms
from pipeline.tasks.classification import classification_report, online_accuracy
from pipeline.tasks.losses import CrossEntropy
from pipeline.tasks.predictions import Predictions
from pipeline.tasks.task import Task

MIN_PROBABILITY = 1e-9  # a probability below this counts as this much in the loss


class Classified(Predictions):
    """Predictions whose ``truth (N,)`` is the class of each clip."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The classes with the highest scores, ``(N,)``."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each answer is right, ``(N,)``."""
        return np.asarray(self.predicted == self.truth)

    @property
    def of_truth(self) -> NDArray[np.float32]:
        """The scores of the truths, ``(N,)``."""
        return np.asarray(self.scores[np.arange(len(self.truth)), self.truth], np.float32)

    def told(self, row: int) -> tuple[str, str]:
        """The class of a clip, and the one that was told."""
        return self.labels[self.truth[row]], self.labels[self.predicted[row]]


class Classes(Task[Classified]):
    """Softmax and cross-entropy."""

    kind = Classified
    link: Link = "softmax"
    best, hit, kept, unknown = "accuracy", "accuracy", ("accuracy", "loss", "macro_f1"), IGNORE

    def columns(self, labels: Sequence[str], background: str | None) -> list[str]:
        """All labels: nothing is a class, too. ConfigError for a single one."""
        if len(labels) < 2:
            hint = "expected at least two classes; set task=tags for a single one"
            raise ConfigError(f"dataset: only one label ({', '.join(labels)}); {hint}")
        return list(labels)

    def in_columns(self, split: Split, labels: Sequence[str], background: str | None) -> Split:
        """As of any task. ConfigError for a split that says (``overlap``) that labels overlap in it."""
        if told := getattr(split, "overlap", ""):
            raise ConfigError(f"task: {told}; expected one label at a time; set task=tags")
        return super().in_columns(split, labels, background)

    def clip_truth(self, batch: Batch, columns: int) -> Tensor:
        """Classes ``(B,)``; of labels that are there one after another, the one that is there longest. ConfigError for
        a clip with several labels at once, or none.
        """
        found = []
        for name, labels, spans in zip(batch.names, batch.labels, batch.spans, strict=True):
            if not labels or (len(labels) > 1 and (spans is None or first_overlap(spans))):
                hint = "set task=tags" if labels else "set task=tags, or dataset.background"
                raise ConfigError(f"task: clip {name!r} has {len(labels)} labels; expected one for each clip; {hint}")
            ticks = {label: sum(end - start for start, end, one in spans or () if one == label) for label in labels}
            found.append(max(labels, key=lambda label: ticks[label]))
        return torch.tensor(found)

    def step_truth(self, batch: Batch, steps: StepGrid, background: int | None, columns: int) -> Tensor:
        """Classes ``(B, T)``: ``background`` outside the spans."""
        return batch.targets(steps, background)

    def loss(self, label_smoothing: float, focal: float, weights: Tensor | None) -> CrossEntropy:
        """Cross-entropy of logits ``(N, K)`` and classes ``(N,)``."""
        return CrossEntropy(label_smoothing, focal, weights)

    def hits(self, logits: Tensor, truth: Tensor) -> float:
        """How many of the greatest logits are those of the class."""
        return int((logits.argmax(1).cpu() == truth).sum())

    def right(self, found: Classified, posteriors: Tensor, truth: Tensor) -> Tensor:
        """Whether the class has the highest posterior."""
        return posteriors.argmax(-1).cpu() == truth[:, None]

    def calibrate(self, found: Classified) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One temperature for all classes: more of them fit validation clips, and no others (Guo et al. 2017)."""
        columns = len(found.labels)
        return np.full(columns, fit_temperature(found.scores, found.truth)), np.zeros(columns)

    def summarize(self, found: Classified) -> dict[str, Any]:
        """Accuracy, macro F1, per-class figures, confusions, loss, and how soon the answers are right (``online``)."""
        result = classification_report(found.truth.tolist(), found.predicted.tolist(), found.labels)
        scores, truth = torch.from_numpy(found.scores), torch.from_numpy(found.truth)
        loss = torch.nn.functional.nll_loss(scores.clamp_min(MIN_PROBABILITY).log(), truth)
        soon = {"step": found.step, "accuracy": online_accuracy(found.right)}
        return result | {"loss": loss.item() if len(found.truth) else 0.0, "online": soon}

    def details(self, found: Classified) -> dict[str, Any]:
        """The accuracy of the best two answers, calibration, histograms of scores."""
        better = (found.scores > found.of_truth[:, None]).sum(1)
        bins = claims(found.confidence, found.correct)
        return {
            "top2": float((better < 2).mean()) if len(better) else 0.0,
            "calibration": {
                "error": calibration_error(bins),
                "bins": dict(zip(("count", "right", "score"), bins.tolist(), strict=True)),
            },
            "scores": {
                "right": histogram(found.confidence[found.correct]),
                "wrong": histogram(found.confidence[~found.correct]),
                "classes": histograms(found.labels, found.scores, np.eye(len(found.labels), dtype=bool)[found.truth]),
            },
        }
