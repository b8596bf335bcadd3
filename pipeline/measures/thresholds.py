"""Thresholds from a wish: at most so many false alarms an hour, on a stream made of clips.

The live model gets the clips of a split one after another, in an order that is drawn once. ``metrics.match_alarms``
defines what is found and what is a false alarm. Such a stream is never quiet for long, so that it has more false alarms
than most streams. And it is short: what never happened in 0.1 h may still happen 30 times an hour (3 / 0.1, at 95 %).

Few false alarms cost events, and minutes of validation clips leave the thresholds of single classes unsure: on half an
hour of keywords in noise, event F1 was lower than with 0.6 for all, whatever the wish. So a wish is not the default.

The other way is ``tune_f1``: the decoder's settings, one for all classes, with which the most events are right.
"""

import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.decoders.decoder import RELEASE_SHARE, label_levels
from pipeline.measures.metrics import COLLAR_SECONDS, Alarms, Matches, count_alarms, match_events
from pipeline.measures.operating_point import tune_on_silence, upper_limit
from pipeline.measures.stream_output import (
    StreamOutput,
    decode_scores,
    detect_spans,
    run_stream,
    to_events,
)
from pipeline.measures.tail import tune_on_normal
from pipeline.media.input_spec import Arrays
from pipeline.media.sample import Split
from pipeline.model.classifier import Classifier
from pipeline.model.file import Promise

MAX_SECONDS = 1800.0  # of clips that are used
LEVELS = [level / 100 for level in range(99, 4, -1)]  # thresholds that are tried
GRID = {  # what ``tune_f1`` tries, in this order: shares of the threshold for the release, seconds for the others
    "threshold": [level / 100 for level in range(10, 96, 5)],
    "release": [0.2, 0.35, 0.5, 2 / 3, 0.85, 1.0],
    "minimum": [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3],
    "merge": [0.0, 0.1, 0.2, 0.3],
}


def run_split(model: Classifier, split: Split) -> StreamOutput:
    """The clips of a split, or the ``stream()`` that it makes of them, through a live model; those that cannot be read
    are left out.
    """
    split = split.stream() if hasattr(split, "stream") else split
    true: list[list[tuple[int, int]]] = [[] for _ in model.labels]

    def chunks() -> Iterator[Arrays]:
        begin = 0
        for index in np.random.default_rng(0).permutation(len(split)).tolist():
            sample = split[index]
            if sample is None:
                continue
            ticks = model.spec.ticks(sample.x)
            whole = [(0, ticks, label) for label in sample.labels]
            for start, end, label in whole if sample.spans is None else sample.spans:
                true[label].append((begin + start, begin + end))
            yield sample.x
            begin += ticks
            if begin >= MAX_SECONDS * model.rate:
                break

    return run_stream(model, chunks(), true)


def tune_false_alarms(model: Classifier, found: StreamOutput, wish: float) -> dict[str, float]:
    """Of the thresholds of each audible label at and above which it keeps to its share of the ``wish``, the one that
    finds the most; of those the one with the fewest false alarms, and then the lowest. All labels together are to have
    at most so many false alarms an hour, and each of them may have as many as the others.

    The highest of ``LEVELS``, with a warning, if none does. The model's other decoder settings are kept.
    """
    own, hours = model.decoder(), found.ticks / model.rate / 3600
    releases = label_levels(model.config["decoder"].get("release"), model.labels, "release", np.nan).tolist()
    chosen, never = {}, []
    for index in own.audible:
        lowest = releases[index]  # not a number: none is set
        possible = [level for level in LEVELS if not level < lowest] or [lowest]
        kept = []
        for level in possible:
            decoder = own.for_label(index, level, level * RELEASE_SHARE if np.isnan(lowest) else lowest)
            answer = decode_scores(decoder, found.posteriors[:, index])
            count = count_alarms(found.spans[index], answer, COLLAR_SECONDS * model.rate)
            if count.false > wish / len(own.audible) * hours:
                break
            kept.append((count.hits, -count.false, -level))
        chosen[model.labels[index]] = -max(kept)[2] if kept else possible[0]
        never += [] if kept else [model.labels[index]]
    if never:
        what = f"no threshold of {', '.join(never)} keeps to its share of {wish:g} an hour; took the highest"
        warnings.warn(f"false_alarms: {what}", stacklevel=2)
    return chosen


def tune_f1(model: Classifier, found: StreamOutput) -> tuple[dict[str, float], Matches]:
    """The decoder's threshold, release, minimum and merge with the greatest event-based F1 over all audible labels
    (onset within 0.2 s, end within 0.2 s or half the length: ``match_events``), and what was matched.

    One key after the other, twice: the best of ``GRID``, where neighbours count half, so that a lone peak is no choice.
    One setting serves all labels: what minutes of validation clips show of a single one is mostly chance.
    """
    now = {"threshold": 0.6, "release": 2 / 3, "minimum": 0.05, "merge": 0.0}
    for key in [*GRID, *GRID]:
        scores = [match_with(model, found, now | {key: value}).scores[2] for value in GRID[key]]
        best = int(np.convolve(np.pad(scores, 1, "edge"), [0.25, 0.5, 0.25], "valid").argmax())
        if scores[best] > scores[GRID[key].index(now[key])]:
            now[key] = GRID[key][best]
    return decoder_settings(now), match_with(model, found, now)


def decoder_settings(now: Mapping[str, float]) -> dict[str, float]:
    """A point of ``GRID`` as the decoder wants it, the release as a posterior."""
    return {**now, "release": round(now["threshold"] * now["release"], 4)}


def match_with(model: Classifier, found: StreamOutput, now: Mapping[str, float]) -> Matches:
    """The events of all audible labels with settings of ``GRID``, held against the true spans."""
    own = model.decoder(**decoder_settings(now))
    truth = {index: found.spans[index] for index in own.audible}
    answer = {index: decode_scores(own.for_label(index), found.posteriors[:, index]) for index in own.audible}
    return match_events(to_events(model, truth), to_events(model, answer))[1]


def evaluate_decoder(model: Classifier, found: StreamOutput) -> dict[str, Any]:
    """How the model's own decoder does on a stream: spans found, and false alarms, of each audible label and of
    all; as plain values.
    """
    decoder, hours = model.decoder(), found.ticks / model.rate / 3600
    rows, total = {}, Alarms()
    for index, spans in detect_spans(model, found).items():
        count = count_alarms(found.spans[index], spans, COLLAR_SECONDS * model.rate)
        rows[model.labels[index]] = {"threshold": round(float(decoder.high[index]), 4), **to_figures(count)}
        total += count
    an_hour = round(total.false / hours, 1) if hours else 0.0
    return {"hours": round(hours, 6), "an_hour": an_hour, **to_figures(total), "classes": rows}


def to_figures(count: Alarms) -> dict[str, Any]:
    return {"found": count.hits, "true": count.truths, "false": count.false}


def tune_decoder(
    model: Classifier, splits: Mapping[str, Split], wish: float | None, f1: bool = False
) -> dict[str, Any]:
    """Choose the decoder's settings on the split ``val`` and set them: those with the most F1, if so wanted, and then
    the thresholds by a ``wish`` (None: there is none), with the model's ``promise``; how the model does with them on
    each of the splits, and how many seconds all took. Where ``val`` has negatives ``held_out``, false alarms are
    counted there (``operating_point.py``); a wish without any is told.
    """
    started, live = time.perf_counter(), model.for_streaming()
    streams = {name: run_split(live, split) for name, split in splits.items()}
    if f1:
        model.config["decoder"] |= tune_f1(model, streams["val"])[0]
    done: dict[str, Any] = {}
    if negatives := getattr(splits["val"], "held_out", None):
        done["silence"] = tune_on_silence(model, streams["val"], negatives, wish)
    elif wish is not None:
        hours = streams["val"].ticks / model.rate / 3600
        there = f"false alarms are counted on {60 * hours:.1f} min of validation clips alone"
        most = f"without any, below {upper_limit(0, hours):,.2f} an hour can be promised (95 %)"
        warnings.warn(f"false_alarms: {there}: {most}; set dataset.negatives for more", stacklevel=2)
        tune = tune_on_normal if model.task.examines else tune_false_alarms
        model.config["decoder"] |= {"threshold": tune(model, streams["val"], wish)}
    done |= {name: evaluate_decoder(model, found) for name, found in streams.items()}
    if wish is not None:
        model.promise = make_promise(wish, done)
        done["promise"] = model.promise.model_dump()
    return {"wish": wish, "seconds": round(time.perf_counter() - started, 1)} | done


def make_promise(wish: float, done: Mapping[str, Any]) -> Promise:
    """What came of a wish, where false alarms were counted."""
    silence = done.get("silence")
    row, hours = (silence["chosen"], silence["hours"]) if silence else (done["val"], done["val"]["hours"])
    return Promise(
        wish=wish,
        sound="negatives" if silence else "validation clips",
        hours=hours,
        alarms=row["false"],
        below=upper_limit(row["false"], hours),
        recall=row["found"] / row["true"] if row["true"] else None,
        events=row["true"],
    )
