"""What is unusual, learnt from recordings of what is normal alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.layers.usual import LEAST_DEVIATION, SIGMAS
from pipeline.media.sample import Split
from pipeline.tasks.calibration import MIN_SCORE
from pipeline.tasks.columns import InColumns
from pipeline.tasks.labelled import Labelled, Tagged
from pipeline.tasks.losses import Loss
from pipeline.tasks.normal import NormalClips, fit_normal

UNUSUAL = "unusual"
MAX_BANDS = 8
REGIONS = ["top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"]
FALSE_SHARE = 0.1  # of false positives, up to which the partial AUROC looks


@dataclass
class Novel(Tagged):
    """Predictions of one label, ``unusual``.

    Attributes:
        columns: the scores ``(N, K)`` of the clips, also of their parts.
        energies: of steps whose truth is known, log energies ``(S, K)``, batch by batch.
        there: and whether they are unusual, likewise.
    """

    columns: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    energies: list[Tensor] = field(default_factory=list)
    there: list[Tensor] = field(default_factory=list)

    @property
    def explained(self) -> float:
        """1 less the mean square of what was not expected at normal steps, in variances of the training data."""
        normal = self.normal_steps[:, 0].exp()
        return 1 - float(normal.mean()) if len(normal) else 0.0

    @property
    def normal_steps(self) -> Tensor:
        """The log energies ``(S, K)`` of steps that are known to be normal, in float64."""
        return torch.cat(
            [one[there == 0].double() for one, there in zip(self.energies, self.there, strict=True)]
            or [torch.zeros(0, 1)]
        )


@dataclass(frozen=True)
class Square(Loss):
    """The mean square of what was not expected, of normal steps: the exponential of their log energy."""

    stepwise: bool = False

    @property
    def of_steps(self) -> Self:
        """Only steps cost something."""
        return replace(self, stepwise=True)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of log energies ``(N, K)`` and truths ``(N, K)``: the sum over the normal ones."""
        normal = (targets[:, 0] == 0).to(logits.device) & self.stepwise
        return torch.where(normal, logits[:, 0].float().exp(), 0.0).sum()


class Novelty(Labelled[Novel]):
    """One label, ``unusual``: it is where nothing normal is. An encoder that measures what it did not expect, the head
    ``energy`` and the decoder ``bands`` belong to it.
    """

    kind = Novel
    best, hit, alone, examines, rescaled = "explained", "explained", True, True, True
    kept = ("explained", "auroc", "loss")

    def __init__(self, normal: list[str] | None = None) -> None:
        """``normal``: the labels of what is normal; None: the background of the dataset, or if it has none, all."""
        self.normal = normal

    def is_normal(self, label: str, background: str | None) -> bool:
        """Whether that label means what is normal."""
        normal = self.normal or ([background] if background else None)
        return normal is None or label in normal

    def columns(self, labels: Sequence[str], background: str | None) -> list[str]:
        """One, before the parts are known. ConfigError for a normal label that is not there."""
        for label in set(self.normal or ()) - set(labels):
            raise ConfigError(f"task.normal: no such label in the data: {label!r}{nearest(label, list(labels))}")
        return [UNUSUAL]

    def recorded(self, settings: Mapping[str, Any], labels: Sequence[str], background: str | None) -> Mapping[str, Any]:
        """With the labels of what is normal."""
        normal = {label for label in labels if self.is_normal(label, background)} | {background or ""} - {""}
        return {**settings, "normal": sorted(normal)}

    def name_columns(self, labels: Sequence[str], extractor: Any) -> list[str]:
        """One more for each part of a step: bands by their frequencies, regions of a picture by their places."""
        if len(labels) > 1:  # of a model's file
            return list(labels)
        shape, bands = extractor.out_shape, extractor.bands()
        if len(shape) == 3 and min(shape[1:]) >= 3:
            return [UNUSUAL, *REGIONS]
        if bands is None:
            return [UNUSUAL]
        count = min(MAX_BANDS, len(bands))
        edges = [*bands[torch.arange(count) * len(bands) // count].tolist(), bands[-1].item()]
        return [UNUSUAL, *(f"{low:.0f}-{high:.0f} Hz" for low, high in pairwise(edges))]

    def name_event(self, label: str) -> str | None:
        """All that is told of in a recording is unusual, but for what is normal."""
        return None if label in (self.normal or ()) else UNUSUAL

    def in_columns(self, split: Split, labels: Sequence[str], background: str | None) -> Split:
        """All labels but the normal ones are one."""
        places = {number: 0 for number, label in enumerate(labels) if not self.is_normal(label, background)}
        return InColumns(split, places, ())

    def to_train(self, split: Split) -> Split:
        """What is normal. ConfigError if nothing is."""
        classes = getattr(split, "classes", None)
        places = range(len(split)) if classes is None else [place for place, one in enumerate(classes) if not one]
        if not places:
            raise ConfigError("task.normal: no clip is normal in the training split; give recordings of what is")
        return split if len(places) == len(split) else NormalClips(split, places)

    def examine(self, steps: Sequence[Tensor], names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See ``fit_normal``."""
        return fit_normal(steps, names)

    def known(self, truth: Tensor) -> int:
        """Of how many steps it is known that they are normal."""
        return int((truth[..., 0] == 0).sum())

    def loss(self, label_smoothing: float, focal: float, weights: Tensor | None) -> Square:
        """Nothing but its own square."""
        return Square()

    def hits(self, logits: Tensor, truth: Tensor) -> float:
        """Of which share of the variance each clip's mean log energy leaves: the sum of the rest."""
        return float((1 - logits[:, 0].detach().float().exp()).sum())

    def predictions(self, labels: list[str], thresholds: NDArray[np.float32]) -> Novel:
        """Of the first column alone."""
        found = super().predictions(labels[:1], thresholds[:1])
        found.columns = np.zeros((0, len(labels)), np.float32)
        return found

    def add(self, found: Novel, scores: NDArray[np.float32], truth: NDArray[Any]) -> None:
        """Of the first column, and keep all."""
        super().add(found, scores[:, :1], truth[:, :1])
        found.columns = np.concatenate([found.columns, scores])

    def add_steps(self, found: Novel, logits: Tensor, truth: Tensor) -> None:
        """Keep the log energies of steps whose truth is known."""
        known = ~truth[..., 0].isnan()
        found.energies.append(logits.float().cpu()[known])
        found.there.append(truth[..., 0][known])

    def right(self, found: Novel, posteriors: Tensor, truth: Tensor) -> Tensor:
        """Whether it is told to be what it is."""
        return super().right(found, posteriors[..., :1], truth[:, :1])

    def calibrate(self, found: Novel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """So that clips and steps ``(2, K)`` are counted in deviations of normal ones above their mean; clips less
        ``SIGMAS``.
        """
        clips, steps = found.columns[~found.truth[:, 0]].astype(np.float64), found.normal_steps.numpy()
        if not len(clips) or not len(steps):
            raise ConfigError("dataset: no normal clip is held out for validation; set dataset.val higher")
        logits = logit(clips.clip(MIN_SCORE, 1 - MIN_SCORE))
        factor = 1 / np.stack([logits.std(0), steps.std(0)]).clip(LEAST_DEVIATION)
        return factor, -np.stack([logits.mean(0), steps.mean(0)]) * factor - [[SIGMAS], [0.0]]

    def summarize(self, found: Novel) -> dict[str, Any]:
        """As of tags; ``explained``, its loss, and the AUROC, also up to ``FALSE_SHARE`` false positives (``pauc``, as
        McClish 1989), of clips and of steps; None if only one kind of them is known.
        """
        there = torch.cat([torch.zeros(0), *found.there])
        energies = torch.cat([torch.zeros(0), *(one[:, 0] for one in found.energies)])
        scores, truth = torch.from_numpy(found.scores[:, 0]), torch.from_numpy(found.truth[:, 0])
        return super().summarize(found) | {
            "explained": found.explained,
            "loss": 1 - found.explained,
            "auroc": auroc(scores, truth),
            "pauc": auroc(scores, truth, FALSE_SHARE),
            "frame_auroc": auroc(energies, there > 0.5),
        }


def auroc(scores: Tensor, there: Tensor, most: float | None = None) -> float | None:
    """The area under the ROC of scores ``(N,)``, up to ``most`` false positives; None if all or none are there."""
    if bool(there.all()) or not bool(there.any()):
        return None
    return float(binary_auroc(scores, there.long(), max_fpr=most))
