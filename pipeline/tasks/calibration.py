"""How far scores can be believed: what was claimed against what came true."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit

CALIBRATION_BINS = 15  # bins of scores for the calibration error (Guo et al. 2017)
HISTOGRAM_BINS = 20  # bins of a histogram of scores
MIN_SCORE = 1e-7  # nearer to 0 or 1, a score is taken for this much
MAX_SCALE = 20.0  # of logits; where all answers are right, there would be no end


def score_bin(score: float, bins: int) -> int:
    """Which of the bins from 0 to 1 a score is in."""
    return min(bins - 1, max(0, int(score * bins)))


def histogram(scores: ArrayLike, bins: int = HISTOGRAM_BINS) -> list[int]:
    """How many of the scores ``(N,)`` are in each of the bins from 0 to 1, as ``score_bin`` puts them."""
    places = (np.asarray(scores, np.float64) * bins).astype(np.int64).clip(0, bins - 1)
    counts: list[int] = np.bincount(places, minlength=bins).tolist()
    return counts


def histograms(labels: Sequence[str], scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, Any]:
    """By label, of scores ``(N, K)``: the histogram of clips that have it (``truth (N, K)``), and of all others."""
    columns = zip(labels, scores.T, truth.T, strict=True)
    return {label: {"own": histogram(own[there]), "others": histogram(own[~there])} for label, own, there in columns}


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


def fit_temperature(scores: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """By what logits are to be multiplied so that their softmax is most likely, of posteriors ``(N, K)`` and classes
    ``(N,)``: the inverse of the temperature of Guo et al. (ICML 2017), section 4.2.
    """
    logits = np.log(scores.clip(MIN_SCORE).astype(np.float64))

    def loss(exponent: float) -> float:
        return -float(log_softmax(np.exp(exponent) * logits, axis=1)[np.arange(len(truth)), truth].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(MAX_SCALE), np.log(MAX_SCALE)), method="bounded").x))


def fit_sigmoid(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """By what the logits of one label are to be multiplied, and what is to be added, so that posteriors ``(N,)`` are
    most likely. The targets are those of Platt (1999), not quite 0 and 1; 1 and 0 where only one of both occurs.
    """
    there, missing = int(truth.sum()), int((~truth).sum())
    if not there or not missing:
        return 1.0, 0.0
    logits = logit(scores.astype(np.float64).clip(MIN_SCORE, 1 - MIN_SCORE))
    target = np.where(truth, (there + 1) / (there + 2), 1 / (missing + 2))

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        y = np.exp(point[0]) * logits + point[1]
        slope = (expit(y) - target) / len(y)
        cost = float(np.mean(np.logaddexp(0, y) - target * y))
        return cost, np.array([(slope * np.exp(point[0]) * logits).sum(), slope.sum()])

    limit = np.log(MAX_SCALE)
    exponent, shift = minimize(loss, np.zeros(2), jac=True, bounds=[(-limit, limit), (None, None)]).x
    return float(np.exp(exponent)), float(shift)
