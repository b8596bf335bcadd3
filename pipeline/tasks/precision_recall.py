"""Precision over recall, and the area below it: average precision."""

import numpy as np
import torch
from numpy.typing import NDArray

STEP_BINS = 1000  # of posteriors from 0 to 1
MAX_POINTS = 100  # of a curve that is kept


def average_precisions(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> list[float | None]:
    """Of each label's scores ``(N, K)``; None of a label that is nowhere ``(N, K)``."""
    from torchmetrics.functional.classification import binary_average_precision  # takes a second

    return [
        float(binary_average_precision(torch.from_numpy(own.copy()), torch.from_numpy(there.astype(np.int64))))
        if there.any()
        else None
        for own, there in zip(scores.T, truth.T, strict=True)
    ]


def binned_average_precision(counts: NDArray[np.int64]) -> list[float | None]:
    """Of scores that are counted in rising bins, of what is not there and of what is ``(2, K, bins)``: as if all of a
    bin were equal. The sum of precisions, weighted by the recall that each bin adds.
    """
    absent, present = np.flip(counts, 2).astype(np.float64)
    hits, answers = present.cumsum(1), (absent + present).cumsum(1)
    total = hits[:, -1:] if hits.size else hits
    gained = present * hits / np.maximum(answers, 1)
    return [float(row.sum() / all_) if all_ else None for row, all_ in zip(gained, total[:, 0], strict=True)]


def mean_known(values: list[float | None]) -> float | None:
    """The mean of those that are not None; None if all are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def thinned(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> list[list[float]]:
    """Points (recall, precision, threshold) of the curve of one label, from the highest threshold on, ``MAX_POINTS`` at
    most; none of a label that is nowhere ``(N,)``.
    """
    if not truth.any():
        return []
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.inf))  # equal scores are told together
    hits = truth[order].cumsum()[last]
    points = np.stack([hits / hits[-1], hits / (last + 1), scores[order][last]], 1)
    places = np.unique(np.linspace(0, len(points) - 1, min(MAX_POINTS, len(points))).round().astype(int))
    return [[round(value, 5) for value in point] for point in points[places].tolist()]
