"""Thresholds from a wish: at most so many false alarms an hour, on a stream made of clips.

The model listens, as it will live, to the clips of a split one after another, in an order that is drawn once. An event
is a false alarm if it touches no span of its class. Such a stream is never quiet for long: an hour of it is harder than
most hours of life. And it is short: what never happened in 0.1 h may still happen 30 times an hour (3 / 0.1, at 95 %).

Few false alarms cost events, and minutes of validation clips leave the thresholds of single classes unsure: on half an
hour of keywords in noise, event F1 was lower than with 0.6 for all, whatever the wish. So a wish is not the default.

The other way is ``most``: the decoder's settings, one for all classes, with which the most events are right.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.build import TARGET, arguments_for
from pipeline.events import Decoder, Event, levels
from pipeline.measures.metrics import Matches, Span, alarms, match_events
from pipeline.model import Classifier
from pipeline.sample import Split
from pipeline.stream import Stream

LONGEST = 1800.0  # seconds of clips that are heard at most
BLOCK = 1.0  # seconds computed at a time
LEVELS = [level / 100 for level in range(99, 4, -1)]  # thresholds that are tried
GRID = {  # what ``most`` tries, in this order: shares of the threshold for the release, seconds for the others
    "threshold": [level / 100 for level in range(10, 96, 5)],
    "release": [0.2, 0.35, 0.5, 2 / 3, 0.85, 1.0],
    "minimum": [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3],
    "merge": [0.0, 0.1, 0.2, 0.3],
}
Spans = NDArray[np.int64]


@dataclass(frozen=True)
class Heard:
    """A stream of clips as a model heard it: ``posteriors (T, K)``, the true ``spans`` ``(N, 2)`` of each class in
    ticks, by their start; and its length in ``hours``.
    """

    posteriors: NDArray[np.float32]
    spans: list[Spans]
    hours: float


def hear(model: Classifier, split: Split) -> Heard:
    """The clips of a split, or the ``stream()`` that it makes of them, through a live model; those that cannot be read
    are left out.
    """
    split = split.stream() if hasattr(split, "stream") else split
    stream = Stream(model, max(1, round(BLOCK * model.rate / model.hop)))
    spans: list[list[tuple[int, int]]] = [[] for _ in model.labels]
    blocks = []
    for index in np.random.default_rng(0).permutation(len(split)).tolist():
        sample = split[index]
        if sample is None:
            continue
        begin = stream.ticks
        stream.push(sample.x if model.intake.both else sample.x[0])
        blocks.append(stream.posteriors)
        whole = [(0, stream.ticks - begin, sample.label)]
        for start, end, label in whole if sample.spans is None else sample.spans:
            spans[label].append((begin + start, begin + end))
        if stream.ticks >= LONGEST * model.rate:
            break
    stream.close()
    blocks.append(stream.posteriors)
    rows = [np.array(sorted(found), np.int64).reshape(-1, 2) for found in spans]
    return Heard(np.concatenate(blocks), rows, stream.ticks / model.rate / 3600)


def choose(model: Classifier, found: Heard, wish: float) -> dict[str, float]:
    """The lowest threshold of each audible label at and above which it keeps to its share of the ``wish``: all labels
    together are to have at most so many false alarms an hour, and each of them may have as many as the others.

    The highest of ``LEVELS`` if none does. The model's other decoder settings are kept.
    """
    settings = {key: value for key, value in model.config["decoder"].items() if key not in (TARGET, "background")}
    plain = arguments_for(Decoder, settings, "decoder")
    releases = levels(plain.pop("release", None), model.labels, "release", np.nan).tolist()
    audible = model.decoder().audible
    chosen = {}
    for index in audible:
        label, lowest = model.labels[index], releases[index]  # not a number: none is set
        release = None if np.isnan(lowest) else lowest
        possible = [level for level in LEVELS if not level < lowest] or [lowest]
        chosen[label] = possible[0]
        for level in possible:
            plain |= {"threshold": level, "release": release, "background": []}
            answer = answers(Decoder([label], model.hop, model.rate, **plain), found.posteriors[:, index])
            if alarms(found.spans[index], answer).false > wish / len(audible) * found.hours:
                break
            chosen[label] = level
    return chosen


def most(model: Classifier, found: Heard) -> tuple[dict[str, float], Matches]:
    """The decoder's threshold, release, minimum and merge with the greatest event-based F1 over all audible labels
    (onset within 0.2 s, end within 0.2 s or half the length: ``match_events``), and what was matched.

    One key after the other, twice: the best of ``GRID``, where neighbours count half, so that a lone peak is no choice.
    One setting serves all labels: what minutes of validation clips tell about one of them is mostly chance.
    """
    now = {"threshold": 0.6, "release": 2 / 3, "minimum": 0.05, "merge": 0.0}
    for key in [*GRID, *GRID]:
        scores = [matched(model, found, now | {key: value}).scores[2] for value in GRID[key]]
        best = int(np.convolve(np.pad(scores, 1, "edge"), [0.25, 0.5, 0.25], "valid").argmax())
        if scores[best] > scores[GRID[key].index(now[key])]:
            now[key] = GRID[key][best]
    return decoder_settings(now), matched(model, found, now)


def decoder_settings(now: Mapping[str, float]) -> dict[str, float]:
    """A point of ``GRID`` as the decoder wants it, the release as a posterior."""
    return {**now, "release": round(now["threshold"] * now["release"], 4)}


def matched(model: Classifier, found: Heard, now: Mapping[str, float]) -> Matches:
    """The events of all audible labels with settings of ``GRID``, held against the true spans."""
    truth: list[Span] = []
    answer: list[Span] = []
    for index in model.decoder().audible:
        decoder = Decoder([model.labels[index]], model.hop, model.rate, background=[], **decoder_settings(now))
        pairs = ((truth, found.spans[index]), (answer, answers(decoder, found.posteriors[:, index])))
        for rows, spans in pairs:
            rows += [(*row, model.labels[index]) for row in (spans / model.rate).tolist()]
    return match_events(truth, answer)["micro"]


def answers(decoder: Decoder, scores: NDArray[np.float32]) -> Spans:
    """Events ``(N, 2)`` in ticks of a decoder of one label, from all its scores ``(T,)``; where none can be is passed
    over.
    """
    events: list[Event] = []
    edges = np.flatnonzero(np.diff((scores >= decoder.low[0]).astype(np.int8), prepend=0, append=0))
    for start, end in edges.reshape(-1, 2).tolist():
        if scores[start:end].max() >= decoder.high[0]:
            decoder.pass_over(start - decoder.step)
            events += decoder.decode(scores[start : end + 1, None])
    return spans_of(events + decoder.close())


def spans_of(events: list[Event]) -> Spans:
    """Start and end of events, ``(N, 2)`` in ticks."""
    return np.array([(event.start, event.end) for event in events], np.int64).reshape(-1, 2)


def figures(model: Classifier, found: Heard) -> dict[str, Any]:
    """How the model's own decoder does on what was heard: spans found, and false alarms, of each audible label and of
    all; as plain values.
    """
    decoder = model.decoder()
    events = decoder.decode(found.posteriors) + decoder.close()
    rows = {}
    for index in decoder.audible:
        label = model.labels[index]
        count = alarms(found.spans[index], spans_of([event for event in events if event.label == label]))
        rows[label] = {"threshold": round(float(decoder.high[index]), 4), "found": count.hits, "true": count.truths}
        rows[label] |= {"false": count.false}
    total = {key: sum(row[key] for row in rows.values()) for key in ("found", "true", "false")}
    rate = total["false"] / found.hours if found.hours else 0.0
    return {"hours": round(found.hours, 4), "an_hour": round(rate, 1)} | total | {"classes": rows}


def tune(model: Classifier, splits: Mapping[str, Split], wish: float | None) -> dict[str, Any]:
    """Choose the decoder's settings on the split ``val`` and set them, by a ``wish`` or (None) for the most F1; how the
    model does with them on each of the splits, and how many seconds all took.
    """
    started, live = time.perf_counter(), model.live
    streams = {name: hear(live, split) for name, split in splits.items()}
    if wish is None:
        model.config["decoder"] |= most(model, streams["val"])[0]
    else:
        model.config["decoder"] |= {"threshold": choose(model, streams["val"], wish)}
    done: dict[str, Any] = {name: figures(model, found) for name, found in streams.items()}
    return {"wish": wish, "seconds": round(time.perf_counter() - started, 1)} | done
