"""The loss of wrong answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss


@dataclass(frozen=True)
class Loss:
    """Base of losses with variations; a sum, so that parts of a batch add up to the whole.

    Attributes:
        smoothing: share of the truth that is spread over all answers (Szegedy et al. 2016).
        focal: gamma of Lin et al. (2017): answers that are right already weigh (1 - p)^gamma; 0 is off.
        weights: of the classes ``(K,)``, 1 on average over the training data; None: all are 1.
    """

    smoothing: float = 0.0
    focal: float = 0.0
    weights: Tensor | None = None

    @property
    def of_steps(self) -> Self:
        """For single steps of time: without smoothing, and without weights, which are those of clips."""
        return replace(self, smoothing=0.0, weights=None)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of ``(N, K)`` and truths ``(N, ...)``: their sum; what is not known costs nothing."""
        raise NotImplementedError


class CrossEntropy(Loss):
    """Of one class among others."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of ``(N, K)`` and classes ``(N,)``, where ``IGNORE`` costs nothing: their sum."""
        logits, targets = logits.float(), targets.to(logits.device)
        weights = None if self.weights is None else self.weights.to(logits.device)
        if not self.focal:
            return cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=self.smoothing)
        each = cross_entropy(logits, targets, weights, reduction="none", label_smoothing=self.smoothing)
        right = logits.softmax(1).gather(1, targets.clamp_min(0)[:, None])[:, 0]
        return (down_weight(right, self.focal) * each).sum()


class BinaryCrossEntropy(Loss):
    """Of each label by itself; the mean of the labels. ``smoothing`` goes half to being there, half to not being there;
    ``weights`` are those of labels that are there.
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of ``(N, K)`` and truths ``(N, K)`` from 0 to 1, where NaN costs nothing: the sum of the rows."""
        logits, targets = logits.float(), targets.to(logits.device)
        known = ~targets.isnan()
        truth = targets.nan_to_num()
        smooth = truth * (1 - self.smoothing) + self.smoothing / 2
        weights = None if self.weights is None else self.weights.to(logits.device)
        each = binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights, reduction="none")
        if self.focal:
            told = logits.sigmoid()
            each = down_weight(truth * told + (1 - truth) * (1 - told), self.focal) * each
        return torch.where(known, each, 0.0).sum() / max(1, logits.shape[1])


@dataclass(frozen=True)
class SmoothL1(Loss):
    """Of numbers (Huber 1964), whose truths are scaled as those of the stage that tells them (``EMA``): half the square
    of an error up to a deviation of the truths, then the error itself. The mean of the quantities.
    """

    stage: Any = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of ``(N, K)`` and truths ``(N, K)``, where NaN costs nothing: the sum of the rows."""
        scaled = (targets.to(logits.device) - self.stage.shift) / self.stage.scale
        each = smooth_l1_loss(logits.float(), scaled.nan_to_num(), reduction="none")
        return torch.where(scaled.isnan(), 0.0, each).sum() / max(1, logits.shape[1])


def down_weight(right: Tensor, focal: float) -> Tensor:
    """What answers weigh in the focal loss by the probability of what is ``right``."""
    wrong = (1 - right).clamp_min(1e-6)  # at 0 the root of a small gamma has no slope
    return wrong**focal


def class_weights(classes: Sequence[int], count: int) -> Tensor:
    """A weight for each of ``count`` classes, so that all weigh the same: N / (K N_k); 1 on average over the data."""
    there = torch.bincount(torch.as_tensor(classes), minlength=count).double()
    found = (there > 0).sum()
    return torch.where(there > 0, there.sum() / (found * there.clamp_min(1)), 0.0).float()
