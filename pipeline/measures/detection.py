"""Detection on long recordings: events found and missed, and false alarms of a live model.

A recording has its truth beside it, NAME.csv with ``start,end,label`` in seconds, or NAME.txt with labels of Audacity;
without rows there is nothing in it. There are three views:

* events: a hit has its onset within 200 ms (``metrics.match_events``), at the model's own thresholds;
* DET: an answer is an alarm, raised where it begins (``metrics.match_alarms``): false, if it begins in no true event of
  its class, or hardly lies in it; a true event is missed if no right one begins in it. One threshold for all classes
  runs from high to low, and of its points the curve has those that no other one beats;
* PSD-ROC (Bilen et al., ICASSP 2020) with detection and ground-truth tolerance 0.5 and no cost of cross-triggers or of
  instability between classes. It differs from the published figure in that the events come from the decoder with its
  hysteresis and its shortest durations, on a grid of thresholds.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ConfigError, MediaError
from pipeline.decoders.decoder import RELEASE_SHARE, Decoder
from pipeline.measures.metrics import COLLAR_SECONDS, Alarms, Matches, Spans, count_alarms, match_alarms, match_events
from pipeline.measures.stream_output import StreamOutput, decode_scores, detect_spans, run_stream, to_events
from pipeline.media.annotations import Times, beyond_end, find_truth, own_overlaps, read_truth
from pipeline.media.chunks import open_chunks
from pipeline.media.tables import is_table, read_table, to_text
from pipeline.model.classifier import Classifier

LEVELS = [0.999, 0.995, 0.99, *(round(0.98 - 0.02 * step, 2) for step in range(48))]  # thresholds of a curve
MISS_RATE_FALSE_ALARMS = (1, 5, 10)  # false alarms an hour
MAX_FALSE_ALARMS = 100.0  # false alarms an hour to which the area under the PSD-ROC reaches
TOLERANCE = 0.5  # share of an answer, and of a true event, that must be covered in the PSD-ROC
Point = tuple[float, float, float]  # threshold, false alarms an hour, miss rate
Found = tuple[dict[str, Matches], Matches]  # by label, and in total


@dataclass(frozen=True)
class AnnotatedRecording:
    """A long recording and the events in it (start and end in seconds, label)."""

    path: Path
    events: list[Times]


def find_recordings(given: str | Sequence[str]) -> list[AnnotatedRecording]:
    """The recordings of the setting ``streams``: a path or several, each of a recording, or of a table with a column
    ``path``, beginning at the table's folder. ConfigError for what is missing or makes no sense.
    """
    found = []
    for entry in [given] if isinstance(given, str) else given:
        path = Path(entry).expanduser()
        if not path.is_file():
            raise ConfigError(f"streams: {entry!r} is no file; expected a recording (NAME.csv beside it), or a table")
        listed = [path.parent / name for name in read_paths(path)] if is_table(entry) else [path]
        found += [AnnotatedRecording(one, read_truth(find_truth(one), "streams")) for one in listed]
    if not found:
        raise ConfigError("streams: an empty list; expected recordings, or streams=null for none")
    return found


def read_paths(table: Path) -> list[str]:
    """The column ``path`` of a table. ConfigError if it has none, or a path leaves the table's folder or is no file."""
    names = [to_text(row["path"]) for row in read_table(str(table), "streams", ["path"])]
    folder = table.parent.resolve()
    for name in names:
        whole = (folder / name).resolve()
        if not whole.is_relative_to(folder) or not whole.is_file():
            raise ConfigError(f"streams: {table}: {name!r} is no file in {str(table.parent)!r}")
    return names


def run_recording(model: Classifier, recording: AnnotatedRecording) -> StreamOutput:
    """A recording through a live model, without events that begin behind its end. MediaError if it cannot be read."""
    audible = {model.labels[index] for index in model.decoder().audible}
    spans: dict[str, list[tuple[int, int]]] = {label: [] for label in model.labels}
    known = [
        (start, end, name)
        for start, end, label in recording.events
        if (name := model.task.name_event(label)) in audible
    ]
    for start, end, label in known:
        spans[label].append((round(start * model.rate), round(end * model.rate)))
    chunks = open_chunks(recording.path, model.spec)[1]
    found = run_stream(model, chunks, list(spans.values()), recording.path.name)
    inside = [np.minimum(one[one[:, 0] < found.ticks], found.ticks) for one in found.spans]
    return replace(found, spans=inside, left_out=len(recording.events) - sum(map(len, inside)))


def check_recordings(given: Iterable[AnnotatedRecording], model: Classifier) -> None:
    """MediaError now, not after the training, for a recording that does not even begin; a warning for events of labels
    that the model will not know, for those behind its end, and for those that overlap another of their label.
    """
    for recording in given:
        info, chunks = open_chunks(recording.path, model.spec)
        next(chunks, None)
        if late := beyond_end(recording.events, info.length):
            warnings.warn(f"streams: {find_truth(recording.path)}: by the recording's header {late}", stacklevel=2)
        if twice := own_overlaps(recording.events):
            warnings.warn(f"streams: {find_truth(recording.path)}: {twice}, and count as two", stacklevel=2)
        names = {label: model.task.name_event(label) for *_, label in recording.events}
        if other := sorted(label for label, name in names.items() if name not in (None, *model.labels)):
            what = f"no label of the data: {', '.join(other)} ({', '.join(model.labels)})"
            warnings.warn(f"streams: {recording.path}: {what}", stacklevel=2)


def evaluate_recordings(model: Classifier, given: Iterable[AnnotatedRecording]) -> dict[str, Any]:
    """All figures of a model on recordings, as plain values; it listens as it will live. One that turns out to be
    damaged is left out.
    """
    live, outputs = model.for_streaming(), []
    for recording in given:
        try:
            outputs.append(run_recording(live, recording))
        except MediaError as error:
            warnings.warn(f"streams: left out {recording.path}: {error}", stacklevel=2)
    return evaluate_outputs(live, outputs)


def evaluate_outputs(model: Classifier, outputs: Sequence[StreamOutput]) -> dict[str, Any]:
    """The same figures, from what the model gave for the recordings."""
    decoder, hours = model.decoder(), sum(one.ticks for one in outputs) / model.rate / 3600
    matches, onsets, late, total = list[Found](), list[Found](), list[float](), Alarms()
    for one in outputs:
        found = detect_spans(model, one)
        true, answered = to_events(model, dict(enumerate(one.spans))), to_events(model, found)
        matches.append(match_events(true, answered))
        onsets.append(match_events(true, answered, offset=False))
        for index, spans in found.items():
            total += count_alarms(one.spans[index], spans, COLLAR_SECONDS * model.rate)
            late += find_latencies(one.spans[index], spans, model, decoder)
    classes = {model.labels[index]: f"{decoder.high[index]:.4g}" for index in decoder.audible}
    return {
        "recordings": [one.name for one in outputs],
        "hours": round(hours, 5),
        "left_out": sum(one.left_out for one in outputs),
        "events": sum_matches(matches) | {"onset_only": sum_matches(onsets)["micro"]},
        "thresholds": {label: float(level) for label, level in classes.items()},
        "false": total.false,
        "false_an_hour": round(total.false / hours, 3) if hours else 0.0,
        "missed": (total.truths - total.hits) / total.truths if total.truths else None,
        "latency": percentiles(late),
        **threshold_curves(model, outputs, hours),
    }


def percentiles(values: Sequence[float]) -> dict[str, Any]:
    """Median and 90th percentile; None of nothing."""
    p50, p90 = (float(value) for value in np.percentile(values, [50, 90])) if values else (None, None)
    return {"count": len(values), "p50": p50, "p90": p90}


def find_latencies(spans: Spans, found: Spans, model: Classifier, decoder: Decoder) -> list[float]:
    """Seconds from where a true event begins to where the first answer that is right about it (``match_alarms``) is
    shown: when it is as long as the shortest event, and the model's delay is over. A block's length and the computing
    are still to be added. An answer may begin ``COLLAR_SECONDS`` before its event; one that begins earlier does not
    count.
    """
    shown = (max(1, decoder.minimum) + model.delay) * model.hop
    truths, right = match_alarms(spans, found, COLLAR_SECONDS * model.rate)
    first = np.full(len(spans), np.iinfo(np.int64).max)
    np.minimum.at(first, truths, found[right, 0])
    there = np.unique(truths)
    late: list[float] = ((first[there] + shown - spans[there, 0]) / model.rate).tolist()
    return late


def sum_matches(parts: Sequence[Found]) -> dict[str, Any]:
    """Matches of several recordings as figures: ``micro`` over all, ``macro_f1``, the mean of the classes that are
    there, and of each of the ``classes``.
    """

    def add(counts: Iterable[Matches]) -> dict[str, Any]:
        total = sum(counts, Matches())
        return vars(total) | dict(zip(("precision", "recall", "f1"), total.scores, strict=True))

    labels = sorted({label for classes, _ in parts for label in classes})
    rows = {label: add(classes[label] for classes, _ in parts if label in classes) for label in labels}
    present = [row["f1"] for row in rows.values() if row["truths"]]
    macro = float(np.mean(present)) if present else 0.0
    return {"micro": add(total for _, total in parts), "macro_f1": macro, "classes": rows}


def threshold_curves(model: Classifier, outputs: Sequence[StreamOutput], hours: float) -> dict[str, Any]:
    """What would have been with other thresholds: ``det`` (``pareto_front``), the miss rate at so many false alarms an
    hour, and ``psd_roc``, the PSD-ROC and its area.
    """
    own, collar = model.decoder(), COLLAR_SECONDS * model.rate
    there = [index for index in own.audible if any(len(one.spans[index]) for one in outputs)]
    points, tolerated = [], {index: list[tuple[float, float]]() for index in there}
    for level in LEVELS:
        total = Alarms()
        for index in own.audible:
            tolerant = Alarms()
            for one in outputs:
                found = decode_scores(own.for_label(index, level, level * RELEASE_SHARE), one.posteriors[:, index])
                total += count_alarms(one.spans[index], found, collar)
                tolerant += count_tolerant(one.spans[index], found)
            if index in tolerated:
                tolerated[index].append((tolerant.false / hours if hours else 0.0, tolerant.hits / tolerant.truths))
        missed = round((total.truths - total.hits) / total.truths, 5) if total.truths else 0.0
        points.append((level, round(total.false / hours, 5) if hours else 0.0, missed))
    roc, area = psd_roc(list(tolerated.values()), MAX_FALSE_ALARMS)
    return {
        "det": [list(point) for point in pareto_front(points)] if there else [],
        "miss_at": {str(most): miss_rate_at(points, most) if there else None for most in MISS_RATE_FALSE_ALARMS},
        "psd": {"area": area if there else None, "most": MAX_FALSE_ALARMS, "points": roc},
    }


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points that miss less than all with at most as many false alarms, by rising false alarms. For more false
    alarms do not always buy anything: where thresholds are so low that events run into each other, there are fewer of
    both.
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point[1], point[2])):
        if not found or point[2] < found[-1][2]:
            found.append(point)
    return found


def miss_rate_at(points: Iterable[Point], most: float) -> float | None:
    """The lowest miss rate with at most so many false alarms an hour; None if all have more."""
    return min((missed for _, false, missed in points if false <= most), default=None)


def count_tolerant(spans: Spans, found: Spans) -> Alarms:
    """Hits, true events and false alarms of one class by the tolerance of the PSDS: an answer counts if it lies in true
    events for ``TOLERANCE`` of its length, and else is a false alarm; a true event is hit if answers that count cover
    ``TOLERANCE`` of it.
    """
    good = covered_ticks(found, spans) >= TOLERANCE * (found[:, 1] - found[:, 0])
    hit = covered_ticks(spans, found[good]) >= TOLERANCE * (spans[:, 1] - spans[:, 0])
    return Alarms(int(hit.sum()), len(spans), int((~good).sum()))


def covered_ticks(spans: Spans, others: Spans) -> NDArray[np.float64]:
    """How many ticks of each of the spans ``(N, 2)`` lie in any of the others ``(M, 2)``, which are in order."""
    if not len(others):
        return np.zeros(len(spans))
    reached = np.maximum.accumulate(others[:, 1])  # others may overlap: each tick counts once
    starts = np.maximum(others[:, 0], np.concatenate([[0], reached[:-1]]))
    lengths = (reached - starts).clip(0)
    edges = np.stack([starts, starts + lengths], 1).reshape(-1)
    total = np.stack([lengths.cumsum() - lengths, lengths.cumsum()], 1).reshape(-1)
    before, after = (np.interp(spans[:, side], edges, total) for side in (0, 1))
    return np.asarray(after - before, np.float64)


def psd_roc(classes: Sequence[Sequence[tuple[float, float]]], most: float) -> tuple[list[list[float]], float]:
    """The PSD-ROC from the points (false alarms an hour, true-positive ratio) of each class, and the area below it up
    to ``most``, as a share of what is possible. Each class's curve is a staircase that never falls; it is their mean.
    """
    edges = sorted({0.0} | {x for points in classes for x, _ in points if x <= most})
    tops = [[max((y for x, y in points if x <= edge), default=0.0) for points in classes] for edge in edges]
    heights = [float(np.mean(row or [0.0])) for row in tops]
    widths = np.diff([*edges, most])
    area = float((np.array(heights) * widths).sum() / most)
    return [[round(x, 3), round(y, 5)] for x, y in zip(edges, heights, strict=True)], area
