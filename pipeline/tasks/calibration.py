"""How far scores can be believed: what was claimed against what came true."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

CALIBRATION_BINS = 15  # bins of scores for the calibration error (Guo et al. 2017)
HISTOGRAM_BINS = 20  # bins of a histogram of scores


def score_bin(score: float, bins: int) -> int:
    """Which of the bins from 0 to 1 a score is in."""
    return min(bins - 1, max(0, int(score * bins)))


def histogram(scores: ArrayLike, bins: int = HISTOGRAM_BINS) -> list[int]:
    """How many of the scores ``(N,)`` are in each of the bins from 0 to 1, as ``score_bin`` puts them."""
    places = (np.asarray(scores, np.float64) * bins).astype(np.int64).clip(0, bins - 1)
    counts: list[int] = np.bincount(places, minlength=bins).tolist()
    return counts


def claims(scores: ArrayLike, right: ArrayLike, bins: int = CALIBRATION_BINS) -> NDArray[np.float64]:
    """``(3, bins)`` of answers by their scores ``(N,)``: how many, how many of them are ``right (N,)``, and the sum of
    their scores.
    """
    sure = np.asarray(scores, np.float64)
    places = (sure * bins).astype(np.int64).clip(0, bins - 1)
    weights = np.ones_like(sure), np.asarray(right, np.float64), sure
    return np.stack([np.bincount(places, weight, bins) for weight in weights])


def calibration_error(claims: NDArray[np.float64]) -> float:
    """Expected calibration error of bins ``(3, B)``: answers, right ones, sum of scores (Guo et al. 2017)."""
    count, right, claimed = claims
    return float(np.abs(right - claimed).sum() / max(1, count.sum()))
