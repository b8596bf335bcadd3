"""The operating point: the thresholds at which a live model keeps to a wish, at most so many false alarms an hour.

False alarms are counted on recordings in which there is nothing to be found, hits on streams with known events. Minutes
without any alarm promise little: an event that never came in h hours may still come ``3 / h`` times an hour (at 95 %:
the rule of three of Hanley & Lippman-Hand, JAMA 249, 1983). So two figures are kept apart: what is expected, for which
the rate of the last alarms is followed beyond where they end, and what can be promised.

With enough events, each label has its own threshold. Some are said by chance more often than others, and it costs most
to be sure of all alike: of all thresholds that keep to the wish together, those with the most hits are taken.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from pipeline.decoders.decoder import RELEASE_SHARE
from pipeline.measures.detection import pareto_front
from pipeline.measures.metrics import COLLAR_SECONDS, count_alarms
from pipeline.measures.stream_output import StreamOutput, Stretches, decode_scores, run_stretches
from pipeline.model.classifier import Classifier
from pipeline.tasks.uncertainty import wilson

ODDS = np.linspace(-3, 9, 97)  # log odds of the thresholds that are tried
LEVELS = 1 / (1 + np.exp(-ODDS))
TAIL = 3, 40  # false alarms of all labels: between these many, their logarithm falls as a straight line over the odds
SLOPE = -1.0  # of the line, where there are too few alarms to tell: posteriors that mean what they say
RATES = (0.1, 0.5, 1.0, 5.0, 10.0)  # false alarms an hour, at which misses are told
PRICES = np.geomspace(1e-4, 1e4, 161)  # hits that a false alarm an hour costs
ENOUGH = 20  # events of each label, for thresholds of their own
CONFIDENCE = 0.95
SUSPECTS = 10  # places in negatives that are told
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Curves:
    """At each of the thresholds ``LEVELS (L,)``, of each of K labels: how many ``hits (K, L)`` of so many ``truths
    (K,)``, and how many ``false`` alarms ``(K, L)`` in so many ``hours`` without any true event; the K ``labels``.
    """

    hits: Counts
    truths: Counts
    false: Counts
    hours: float
    labels: Sequence[str]

    def expected(self) -> NDArray[np.float64]:
        """False alarms an hour to be expected ``(K, L)``.

        Of all labels together, those counted, and where they are few, along the line of the tail. Each label has its
        share of them, which is counted where there are many: a single label has too few for a line of its own.
        """
        total = self.false.sum(0)
        last = int(np.flatnonzero(total >= TAIL[0]).max(initial=0))
        used = np.flatnonzero((total >= TAIL[0]) & (total <= TAIL[1]))
        slope = SLOPE
        if len(np.unique(total[used])) > 2:
            slope = float(np.polyfit(ODDS[used], np.log(total[used]), 1, w=np.sqrt(total[used]))[0])
        start = max(float(total[last]), 0.5)
        whole = np.where(np.arange(len(ODDS)) <= last, total, start * np.exp(min(0.0, slope) * (ODDS - ODDS[last])))
        many = self.false[:, int(np.flatnonzero(total >= TAIL[1]).max(initial=0))] + 0.5
        rates: NDArray[np.float64] = (
            np.maximum.accumulate(whole[::-1])[::-1] * (many / many.sum())[:, None] / self.hours
        )
        return rates

    def best(self, wish: float) -> NDArray[np.int64] | None:
        """Places of the thresholds ``(K,)`` with the most hits of those that keep to the wish together; None if none
        do.

        Each label takes the threshold with the most hits less the price of its false alarms; the price rises until the
        wish is kept (Lagrange's multiplier), so all labels pay the same for a hit. Where a label has fewer than
        ``ENOUGH`` events, all have the same threshold: so few say little about a single label.
        """
        hits, expected = self.hits, self.expected()
        if self.truths.min(initial=ENOUGH) < ENOUGH:
            hits, expected = hits.sum(0, keepdims=True), expected.sum(0, keepdims=True)
        for price in PRICES:
            places: NDArray[np.int64] = (hits - price * expected).argmax(1)  # the lowest of equals
            if expected[np.arange(len(places)), places].sum() <= wish:
                return np.broadcast_to(places, len(self.hits))
        return None

    def describe(self, places: NDArray[np.int64], wish: float | None = None) -> dict[str, Any]:
        """What thresholds bring, in all and of each label, as plain values."""
        rows = np.arange(len(places))
        hits, false = self.hits[rows, places].tolist(), self.false[rows, places].tolist()
        total = describe_counts(sum(hits), int(self.truths.sum()), sum(false))
        classes = map(describe_counts, hits, self.truths.tolist(), false)
        return total | {
            "wish": wish,
            "expected": round(float(self.expected()[rows, places].sum()), 3),
            "below": round(upper_limit(total["false"], self.hours), 2),
            "classes": dict(zip(self.labels, classes, strict=True)),
        }

    def det(self) -> dict[str, list[tuple[float, float]]]:
        """Detection error trade-off (Martin et al. 1997): false alarms an hour, as counted, and misses, with one
        threshold for ``all`` labels, and of each label by itself. Points that others beat are left out.
        """
        rows = {"all": slice(None)} | {label: slice(row, row + 1) for row, label in enumerate(self.labels)}
        found = {}
        for name, part in rows.items():
            hits, true, false = self.hits[part].sum(0), self.truths[part].sum(), self.false[part].sum(0)
            missed = ((true - hits) / max(1, true)).round(5).tolist()
            points = zip(LEVELS.tolist(), (false / self.hours).round(5).tolist(), missed, strict=True)
            found[name] = [point[1:] for point in pareto_front(points)] if true else []
        return found


def upper_limit(count: int, hours: float) -> float:
    """The rate an hour that a Poisson process, of which so many events came, does not exceed, at ``CONFIDENCE``."""
    return float(chi2.ppf(CONFIDENCE, 2 * count + 2) / 2 / hours)


def describe_counts(hits: int, true: int, false: int) -> dict[str, Any]:
    """Counts, and the share of true events that is missed, with its interval at 95 % (Wilson); None without any."""
    share, limits = ((true - hits) / true, wilson(true - hits, true)) if true else (None, None)
    return {"false": false, "found": hits, "true": true, "missed": share, "interval": limits}


def measure_curves(model: Classifier, heard: Sequence[StreamOutput], silent: Sequence[StreamOutput]) -> Curves:
    """Of all audible labels, one threshold after the other; the decoder's other settings are the model's."""
    own, collar = model.decoder(), COLLAR_SECONDS * model.rate
    hits, false = np.zeros((2, len(own.audible), len(LEVELS)), np.int64)
    for row, index in enumerate(own.audible):
        for place, level in enumerate(LEVELS.tolist()):
            decoder = own.for_label(index, level, level * RELEASE_SHARE)
            for one in heard:
                found = decode_scores(decoder.for_label(0), one.posteriors[:, index])
                hits[row, place] += count_alarms(one.spans[index], found, collar).hits
            for one in silent:
                false[row, place] += len(decode_scores(decoder.for_label(0), one.posteriors[:, index]))
    truths = np.array([sum(len(one.spans[index]) for one in heard) for index in own.audible])
    hours = sum(one.ticks for one in silent) / model.rate / 3600
    return Curves(hits, truths, false, hours, [model.labels[index] for index in own.audible])


def tune_on_silence(model: Classifier, heard: StreamOutput, negatives: Stretches, wish: float | None) -> dict[str, Any]:
    """Set the model's thresholds by a ``wish`` (None: leave them); what is brought by the best ones at each of the
    ``RATES`` that can be kept, by those that were ``chosen``, and where in the negatives the scores are highest.
    """
    live, silent, suspects = model.for_streaming(), [], list[tuple[float, str, float, str]]()
    for first, output in run_stretches(live, negatives):
        silent.append(output)
        for index in model.decoder().audible:
            peak = int(output.posteriors[:, index].argmax())
            second = round((first + peak * live.hop) / live.rate, 1)
            suspects.append((-float(output.posteriors[peak, index]), output.name, second, live.labels[index]))
    curves = measure_curves(model, [heard], silent)
    rates = [(rate, places) for rate in RATES if (places := curves.best(rate)) is not None]
    chosen = None
    if wish is not None:
        if (places := curves.best(wish)) is None:
            places = np.full(len(curves.truths), len(LEVELS) - 1)
            least = curves.describe(places)["expected"]
            told = f"no thresholds keep to {wish:g} an hour; took the highest, with {least:.3g} an hour"
            warnings.warn(f"false_alarms: {told}", stacklevel=2)
        levels = dict(zip(curves.labels, LEVELS[places].round(5).tolist(), strict=True))
        releases = {label: level * RELEASE_SHARE for label, level in levels.items()}
        model.config["decoder"] |= {"threshold": levels, "release": releases}
        chosen = curves.describe(places, wish) | {"thresholds": levels}
    return {
        "hours": curves.hours,
        "det": curves.det(),
        "misses": [curves.describe(places, rate) for rate, places in rates],
        "chosen": chosen,
        "suspects": [(*place, round(-score, 3)) for score, *place in sorted(suspects)[:SUSPECTS]],
    }
