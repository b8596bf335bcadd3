"""Groups that nobody has named: clips whose embeddings are near to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor

from pipeline.layers.smoothing import Link
from pipeline.media.sample import Batch, Split
from pipeline.tasks.columns import InColumns
from pipeline.tasks.losses import Loss
from pipeline.tasks.predictions import Predictions
from pipeline.tasks.task import Task

MAX_POINTS = 300  # clips on a map
LEAST = 1e-30  # a score below counts as this much on a map


@dataclass
class Grouped(Predictions):
    """Predictions whose ``truth (N,)`` is the number of a label that the dataset knows, -1 where it knows none."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The groups with the highest scores, ``(N,)``."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """No group is right or wrong."""
        return np.zeros(len(self.truth), bool)

    @property
    def of_truth(self) -> NDArray[np.float32]:
        """The place of each clip within its group, the surest first, as a share of all clips: so the clips that are
        kept as the worst are those that are typical of the groups. ``(N,)``
        """
        places = np.zeros(len(self.truth), np.float32)
        for group in range(self.scores.shape[1]):
            rows = np.flatnonzero(self.predicted == group)
            places[rows[np.argsort(-self.scores[rows, group], kind="stable")]] = np.arange(len(rows))
        return np.asarray(places / max(1, len(places)), np.float32)

    def told(self, row: int) -> tuple[str, str]:
        """The label that is known of a clip, and its group."""
        known = self.known[self.truth[row]] if self.truth[row] >= 0 and self.known else ""
        return known, self.labels[self.predicted[row]]


class Groups(Task[Grouped]):
    """K-means on the embeddings of a trained model; nothing is learnt by gradients."""

    kind = Grouped
    link: Link = "softmax"
    best, hit, kept, unknown, alone, learns, labelled = "sure", "sure", ("sure",), -1, True, False, False

    def __init__(self, count: PositiveInt = 8) -> None:
        """How many groups."""
        self.count = count

    def columns(self, labels: Sequence[str], background: str | None) -> list[str]:
        """The groups, whatever the labels."""
        return [f"group {number}" for number in range(1, self.count + 1)]

    def in_columns(self, split: Split, labels: Sequence[str], background: str | None) -> Split:
        """The split with its own labels, by which groups are compared."""
        found = InColumns(split, {number: number for number, label in enumerate(labels) if label}, ())
        found.known = list(labels)
        return found

    def clip_truth(self, batch: Batch, columns: int) -> Tensor:
        """The first label of each clip, ``(B,)``."""
        return torch.tensor([labels[0] if labels else -1 for labels in batch.labels])

    def loss(self, label_smoothing: float, focal: float, weights: Tensor | None) -> Loss:
        """None: nothing is learnt by it."""
        return Loss()

    def right(self, found: Grouped, posteriors: Tensor, truth: Tensor) -> Tensor:
        """No answer is right."""
        return torch.zeros(posteriors.shape[:2], dtype=torch.bool)

    def summarize(self, found: Grouped) -> dict[str, Any]:
        """How sure the clips' groups are; normalized mutual information (Vinh et al. 2010) and adjusted Rand index of
        groups and labels, None unless several labels are known; clips of each group, and labels in it.
        """
        known = found.truth >= 0
        told, truth = found.predicted[known], found.truth[known]
        nmi = ari = None
        if len(set(truth.tolist())) > 1:
            from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # takes a second

            nmi, ari = float(normalized_mutual_info_score(truth, told)), float(adjusted_rand_score(truth, told))
        table = np.zeros((len(found.labels), max(1, len(found.known))), np.int64)
        np.add.at(table, (found.predicted[known], found.truth[known]), 1)
        sizes = np.bincount(found.predicted, minlength=len(found.labels)).tolist()
        sure = float(found.confidence.mean()) if len(found.truth) else 0.0
        return {
            "nmi": nmi,
            "ari": ari,
            "sure": sure,
            "count": len(found.truth),
            "classes": {label: {"support": size} for label, size in zip(found.labels, sizes, strict=True)},
            "table": table.tolist(),
            "known": found.known,
            "online": {},
        }

    def details(self, found: Grouped) -> dict[str, Any]:
        """A map: places ``(x, y)`` of clips, with group and label, by the two main axes of their log scores, which are
        distances from the groups.
        """
        rows = np.linspace(0, len(found.truth) - 1, min(MAX_POINTS, len(found.truth))).round().astype(int)
        logs = np.log(found.scores[rows].clip(LEAST).astype(np.float64))
        left, sizes, _ = np.linalg.svd(logs - logs.mean(0), full_matrices=False)
        axes = np.zeros((len(rows), 2))
        axes[:, : left.shape[1]] = (left * sizes)[:, :2]
        places = zip(axes.round(4).tolist(), map(found.told, rows), strict=True)
        return {"points": [[*place, group, label] for place, (label, group) in places]}
