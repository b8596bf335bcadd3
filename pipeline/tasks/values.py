"""Numbers with units: one or several quantities of each step and each clip."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.layers.smoothing import Link
from pipeline.media.sample import Batch, Split, StepGrid
from pipeline.tasks.classification import online_accuracy
from pipeline.tasks.columns import InColumns
from pipeline.tasks.losses import SmoothL1
from pipeline.tasks.predictions import Predictions
from pipeline.tasks.task import Task

MAX_POINTS = 500  # told over true, that are kept


@dataclass
class Measured(Predictions):
    """Predictions whose ``truth (N, K)`` is a number of each quantity, NaN where it is not known; so are the scores.

    Attributes:
        spread: ``(K,)``: the deviation of the truths in training.
    """

    spread: NDArray[np.float64] = field(default_factory=lambda: np.ones(0))

    @property
    def errors(self) -> NDArray[np.float64]:
        """What was told too much, ``(N, K)``."""
        return np.asarray(self.scores - self.truth, np.float64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether all that is known was told to the last digit, ``(N,)``."""
        return np.asarray((np.nan_to_num(self.errors) == 0).all(1))

    @property
    def of_truth(self) -> NDArray[np.float32]:
        """1 / (1 + the greatest error in deviations), ``(N,)``."""
        worst = np.nan_to_num(np.abs(self.errors) / self.spread).max(1, initial=0.0)
        return np.asarray(1 / (1 + worst), np.float32)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The first quantity as it was told, ``(N,)``."""
        return self.scores[:, 0]

    def told(self, row: int) -> tuple[str, str]:
        """The numbers of a clip, and those that were told."""
        return spell(self.labels, self.truth[row]), spell(self.labels, self.scores[row])


class Values(Task[Measured]):
    """Scale and shift, and smooth L1 on truths that are scaled by their mean and deviation in training."""

    link: Link = "linear"
    best, hit, kept, unknown, labelled = "r2", "near", ("r2", "mae", "rmse", "loss"), float("nan"), False
    reads = "numbers"

    def __init__(self, units: dict[str, str] | None = None) -> None:
        """``units`` by quantity."""
        self.units = units or {}
        self.truths = list[NDArray[np.float32]]()  # of the batches that were measured

    def columns(self, labels: Sequence[str], background: str | None) -> list[str]:
        """The quantities with their units: ``snr (dB)``. ConfigError for one without, or a unit of something else."""
        for name in labels:
            if name not in self.units:
                hint = (
                    "dataset=manifest dataset.values=[snr]"
                    if background is not None
                    else f"task.units={{{name}: UNIT}}"
                )
                raise ConfigError(f"task.units: has no unit for {name!r}; set {hint}, '' for a number without one")
        for name in self.units:
            if name not in labels:
                raise ConfigError(f"task.units: the dataset has no values {name!r}{nearest(name, list(labels))}")
        return [f"{name} ({self.units[name]})" if self.units[name] else name for name in labels]

    def in_columns(self, split: Split, labels: Sequence[str], background: str | None) -> Split:
        """The split, without labels."""
        return InColumns(split, {}, ())

    def meet(self, batch: Batch) -> None:
        """Mean and deviation of the truths so far become shift and scale; 0 and 1 where none is known yet."""
        self.truths.append(self.clip_truth(batch, self.link_stage.shift.numel()).numpy())
        known = torch.from_numpy(np.concatenate(self.truths)).double()
        mean = known.nanmean(0).nan_to_num(0.0)
        std = (known - mean).square().nanmean(0).sqrt()
        self.link_stage.shift.copy_(mean)
        self.link_stage.scale.copy_(torch.where(std > 0, std, 1))

    def met(self) -> None:
        """ConfigError if of some quantity no value is known in any batch."""
        if self.truths and np.isnan(np.concatenate(self.truths)).all(0).any():
            raise ConfigError("task: no value is known of some quantity; expected dataset.values or dataset.targets")

    def clip_truth(self, batch: Batch, columns: int) -> Tensor:
        """The mean of each quantity over a clip, as far as it is known, ``(B, K)``."""
        rows = [
            torch.full((1, columns), self.unknown) if one is None else torch.from_numpy(one) for one in batch.values
        ]
        return torch.stack([row.double().nanmean(0).float() for row in rows])

    def step_truth(self, batch: Batch, steps: StepGrid, background: int | None, columns: int) -> Tensor:
        """The value at the last tick of each step, ``(B, T, K)``, of clips that have several one after another."""
        truth = torch.full((len(batch.values), steps.count, columns), self.unknown)
        for row, values, length in zip(truth, batch.values, batch.lengths.tolist(), strict=True):
            if values is not None and len(values) > 1:
                own = row[steps.of(length)]
                last = (torch.arange(1, len(own) + 1) * steps.hop).clamp(max=length) - 1
                own[:] = torch.from_numpy(values)[last * len(values) // length]
        return truth

    def loss(self, label_smoothing: float, focal: float, weights: Tensor | None) -> SmoothL1:
        """Smooth L1."""
        return SmoothL1(stage=self.link_stage)

    def hits(self, logits: Tensor, truth: Tensor) -> float:
        """The sum of the clips' nearness: 1 less the error in deviations, at least 0."""
        apart = (logits.detach() - (truth.to(logits) - self.link_stage.shift) / self.link_stage.scale).abs().nanmean(1)
        return float((1 - apart.nan_to_num(1.0)).clamp(min=0).sum())

    def predictions(self, labels: list[str], thresholds: NDArray[np.float32]) -> Measured:
        """Thresholds mean nothing here."""
        empty = np.zeros((0, len(labels)), np.float32)
        return Measured(labels, empty, empty, spread=self.link_stage.scale.double().cpu().numpy())

    def right(self, found: Measured, posteriors: Tensor, truth: Tensor) -> Tensor:
        """The error after each step in deviations, the mean of the quantities, ``(B, T)``."""
        apart = (posteriors.float().cpu() - truth[:, None]).abs() / torch.from_numpy(found.spread).float()
        return apart.nanmean(-1).nan_to_num()

    def summarize(self, found: Measured) -> dict[str, Any]:
        """R2, mean absolute error and its root mean square, each the mean of the quantities; figures of each; loss; and
        the error after so much of a clip (``online``), in deviations.
        """
        rows = {label: self.figures(found, k) for k, label in enumerate(found.labels)}
        mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in ("r2", "mae", "rmse", "loss")}
        online = {"step": found.step, "error": online_accuracy(found.right)}
        return mean | {"count": len(found.truth), "classes": rows, "online": online}

    def figures(self, found: Measured, k: int) -> dict[str, Any]:
        """Of one quantity, by torchmetrics, in its unit; ``guess``: the mean absolute error of telling the mean."""
        from torchmetrics.functional import mean_absolute_error, mean_squared_error, r2_score

        known = ~np.isnan(found.truth[:, k])
        told, truth = (torch.from_numpy(one[known, k].copy()) for one in (found.scores, found.truth))
        if len(truth) < 2:  # there is no R2
            return dict.fromkeys(("r2", "mae", "rmse", "guess", "loss"), 0.0) | {"support": len(truth)}
        scaled = (told - truth) / found.spread[k]
        return {
            "r2": float(r2_score(told, truth)),
            "mae": float(mean_absolute_error(told, truth)),
            "rmse": float(mean_squared_error(told, truth, squared=False)),
            "guess": float((truth - truth.mean()).abs().mean()),
            "loss": float(torch.nn.functional.smooth_l1_loss(scaled, torch.zeros_like(scaled))),
            "support": len(truth),
        }

    def details(self, found: Measured) -> dict[str, Any]:
        """Told over true numbers of each quantity."""
        rows = np.linspace(0, len(found.truth) - 1, min(MAX_POINTS, len(found.truth))).round().astype(int)
        pairs = np.stack([found.truth[rows], found.scores[rows]], -1).round(5).tolist()  # (N, K, 2)
        points = {label: [row[k] for row in pairs if row[k][0] == row[k][0]] for k, label in enumerate(found.labels)}
        return {"points": points, "spread": found.spread.tolist()}


def spell(labels: Sequence[str], numbers: NDArray[np.float32]) -> str:
    """Numbers with their quantities, as one text; '–' for what is not known."""
    texts = zip(labels, numbers.tolist(), strict=True)
    return ", ".join(f"{label} {number:.4g}" if number == number else f"{label} –" for label, number in texts)
