"""A threshold that scores of what is normal hardly ever reach, further out than they were ever heard.

Peaks over a threshold: what exceeds a high level has a generalised Pareto distribution (Balkema & de Haan 1974,
Pickands 1975; for streams Siffer et al., KDD 2017).
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import genpareto

from pipeline.core.errors import ConfigError
from pipeline.measures.stream_output import StreamOutput
from pipeline.model.classifier import Classifier

PEAK_SECONDS = 1.0  # one peak is taken of each such stretch, so that peaks are independent
HIGH = 0.8  # share of the peaks below the level from which on the tail is fitted
LEAST_PEAKS = 10  # above it, to fit
HIGHEST = 12.0  # log odds of a threshold, at most


def tune_on_normal(model: Classifier, found: StreamOutput, wish: float) -> dict[str, float]:
    """The threshold of the first label that what is normal in a stream, which is all outside of its true spans, reaches
    at most so many times an hour; with a warning, the highest that there is. ConfigError for too little of it.
    """
    normal = np.ones(len(found.posteriors), bool)
    for start, end in found.spans[0].tolist():
        normal[start // model.hop : -(-end // model.hop)] = False
    scores = logit(found.posteriors[normal, 0].astype(np.float64).clip(1e-9, 1 - 1e-7))
    level = tail_level(scores, model.hop / model.rate, wish)
    if level > HIGHEST:
        told = f"no threshold keeps to {wish:g} an hour; took the highest, {expit(HIGHEST):.6f}"
        warnings.warn(f"false_alarms: {told}", stacklevel=2)
    return {model.labels[0]: round(float(expit(min(level, HIGHEST))), 6)}


def tail_level(scores: NDArray[np.float64], step: float, wish: float) -> float:
    """The level that peaks of scores ``(T,)``, one each ``step`` seconds, reach at most ``wish`` times an hour.

    ConfigError for too few scores.
    """
    size = max(1, round(PEAK_SECONDS / step))
    peaks = scores[: len(scores) // size * size].reshape(-1, size).max(1)
    high = np.quantile(peaks, HIGH) if len(peaks) else 0.0
    above = peaks[peaks > high] - high
    if len(above) < LEAST_PEAKS:
        need = LEAST_PEAKS / (1 - HIGH) * PEAK_SECONDS
        raise ConfigError(
            f"false_alarms: {len(scores) * step:.0f} s of normal recordings are held out for validation; expected more "
            f"than {need:.0f} s that are not all alike; set dataset.val higher, or give dataset.negatives"
        )
    an_hour = len(above) / (len(peaks) * PEAK_SECONDS / 3600)
    if wish >= an_hour:
        return float(high)
    shape, _, scale = genpareto.fit(above, floc=0)
    return float(high + genpareto.isf(max(wish, 1e-9) / an_hour, shape, scale=scale))
