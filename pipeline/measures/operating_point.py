"""The operating point: the threshold at which a live model keeps to a wish, at most so many false alarms an hour.

False alarms are counted on recordings in which there is nothing to be found, hits on streams with known events. Minutes
without any alarm promise little: an event that never came in h hours may still come ``3 / h`` times an hour (at 95 %:
the rule of three of Hanley & Lippman-Hand, JAMA 249, 1983). So two figures are kept apart: what is expected, for which
the rate of the last alarms is followed beyond where they end, and what can be promised.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from pipeline.measures.metrics import COLLAR_SECONDS, count_alarms
from pipeline.measures.stream_output import StreamOutput, Stretches, decode_scores, run_stretches
from pipeline.model.classifier import Classifier
from pipeline.model.decoder import RELEASE_SHARE

LEVELS = 1 / (1 + np.exp(-np.linspace(-3, 9, 97)))  # thresholds, evenly spaced in log odds
TAIL = 3, 40  # false alarms: between these many, their logarithm is followed as a straight line over the log odds
RATES = (0.1, 0.5, 1.0, 5.0, 10.0)  # false alarms an hour, at which misses are told
CONFIDENCE = 0.95
SUSPECTS = 10  # places in negatives that are told


@dataclass(frozen=True)
class Curve:
    """At each of the thresholds ``LEVELS``: how many ``hits`` of so many ``truths``, and how many ``false`` alarms in
    so many ``hours`` without any true event.
    """

    hits: NDArray[np.int64]
    truths: int
    false: NDArray[np.int64]
    hours: float

    @property
    def expected(self) -> NDArray[np.float64]:
        """False alarms an hour to be expected: those counted, or where they are few, on the line of the tail."""
        least, most = TAIL
        counted = self.false / self.hours
        odds = np.log(LEVELS / (1 - LEVELS))
        last = int(np.flatnonzero(self.false > most).max(initial=-1)) + 1
        tail = np.arange(len(LEVELS)) >= last
        used = tail & (self.false >= least)
        if len(np.unique(self.false[used])) < 2:
            return np.maximum.accumulate(counted[::-1])[::-1]
        slope, start = np.polyfit(odds[used], np.log(self.false[used]), 1, w=np.sqrt(self.false[used]))
        line = np.exp(start + min(slope, 0.0) * odds) / self.hours
        found = np.where(tail & (self.false < least), np.maximum(line, 0.0), counted)
        return np.maximum.accumulate(found[::-1])[::-1]

    def best(self, wish: float) -> int | None:
        """The place of the lowest threshold with the most hits of those that keep to the wish; None if none does."""
        kept = np.flatnonzero(self.expected <= wish)
        return int(kept[self.hits[kept].argmax()]) if len(kept) else None


def upper_limit(count: int, hours: float) -> float:
    """The rate an hour that a Poisson process, of which so many events came, does not exceed, at ``CONFIDENCE``."""
    return float(chi2.ppf(CONFIDENCE, 2 * count + 2) / 2 / hours)


def measure_curve(model: Classifier, heard: Sequence[StreamOutput], silent: Sequence[StreamOutput]) -> Curve:
    """One threshold for all labels after the other; the decoder's other settings are the model's."""
    own, collar = model.decoder(), COLLAR_SECONDS * model.rate
    hits, false, truths = np.zeros(len(LEVELS), np.int64), np.zeros(len(LEVELS), np.int64), 0
    for index in own.audible:
        truths += sum(len(one.spans[index]) for one in heard)
        for place, level in enumerate(LEVELS.tolist()):
            decoder = own.for_label(index, level, level * RELEASE_SHARE)
            for one in heard:
                found = decode_scores(decoder.for_label(0), one.posteriors[:, index])
                hits[place] += count_alarms(one.spans[index], found, collar).hits
            for one in silent:
                false[place] += len(decode_scores(decoder.for_label(0), one.posteriors[:, index]))
    return Curve(hits, truths, false, sum(one.ticks for one in silent) / model.rate / 3600)


def describe(curve: Curve, place: int, wish: float | None = None) -> dict[str, Any]:
    """What a threshold brings, as plain values."""
    return {
        "wish": wish,
        "threshold": round(float(LEVELS[place]), 5),
        "false": int(curve.false[place]),
        "hours": round(curve.hours, 4),
        "expected": round(float(curve.expected[place]), 3),
        "below": round(upper_limit(int(curve.false[place]), curve.hours), 2),
        "found": int(curve.hits[place]),
        "true": curve.truths,
    }


def tune_on_silence(model: Classifier, heard: StreamOutput, negatives: Stretches, wish: float | None) -> dict[str, Any]:
    """Set the model's threshold by a ``wish`` (None: leave it); what is brought by the best threshold at each of the
    ``RATES`` that can be kept, by the one that was ``chosen``, and where in the negatives the scores are highest.
    """
    live, silent, suspects = model.for_streaming(), [], list[tuple[float, str, float, str]]()
    for first, output in run_stretches(live, negatives):
        silent.append(output)
        for index in model.decoder().audible:
            peak = int(output.posteriors[:, index].argmax())
            second = round((first + peak * live.hop) / live.rate, 1)
            suspects.append((-float(output.posteriors[peak, index]), output.name, second, live.labels[index]))
    curve = measure_curve(model, [heard], silent)
    rates = [(rate, place) for rate in RATES if (place := curve.best(rate)) is not None]
    chosen = None
    if wish is not None:
        place = curve.best(wish)
        if place is None:
            place = len(LEVELS) - 1
            told = f"no threshold keeps to {wish:g} an hour; took the highest, with {curve.expected[place]:.3g} an hour"
            warnings.warn(f"false_alarms: {told}", stacklevel=2)
        chosen, level = describe(curve, place, wish), float(LEVELS[place])
        model.config["decoder"] |= {"threshold": level, "release": level * RELEASE_SHARE}
    return {
        "hours": curve.hours,
        "misses": [describe(curve, place, rate) for rate, place in rates],
        "chosen": chosen,
        "suspects": [
            (name, second, label, round(-score, 3)) for score, name, second, label in sorted(suspects)[:SUSPECTS]
        ],
    }
