"""Detection on long recordings: what a live model finds in them, and what it raises false alarms about.

A recording has its truth beside it, NAME.csv with ``start,end,label`` in seconds; a table without rows says that there
is nothing in it. Three views, as no one of them tells all:

* events: a hit has its onset within 200 ms (``metrics.match_events``), at the model's own thresholds;
* DET: a true event is missed if no answer of its class touches it, an answer is a false alarm if it touches no true
  event of its class; one threshold for all classes, which runs from high to low;
* PSD-ROC (Bilen et al., ICASSP 2020) with detection and ground-truth tolerance 0.5 and no cost of cross-triggers or of
  instability between classes. It differs from the published figure in that the events come from the decoder with its
  hysteresis and its shortest durations, on a grid of thresholds.
"""

import csv
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.build import TARGET, arguments_for
from pipeline.errors import ConfigError, MediaError
from pipeline.events import SHARE, Decoder
from pipeline.intake import Intake
from pipeline.measures.metrics import Alarms, Matches, alarms, match_events
from pipeline.measures.thresholds import answers, spans_of
from pipeline.model import Classifier
from pipeline.reading.tracks import open_chunks
from pipeline.stream import Stream

BLOCK = 1.0  # seconds computed at a time
LEVELS = [0.999, 0.995, 0.99, *(round(0.98 - 0.02 * step, 2) for step in range(48))]  # thresholds of a curve
AN_HOUR = (1, 5, 10)  # false alarms at which the miss rate is told
MOST = 100.0  # false alarms an hour to which the area under the PSD-ROC reaches
TOLERANCE = 0.5  # share of an answer, and of a true event, that must be covered
MATCHED = ("start", "end", "label")
Spans = NDArray[np.int64]
Times = tuple[float, float, str]  # start and end in seconds, label


@dataclass(frozen=True)
class Recording:
    """A long recording and what is in it, as its table says."""

    path: Path
    events: list[Times]


@dataclass(frozen=True)
class Heard:
    """A recording as a live model heard it: ``posteriors (T, K)``; the true ``spans (N, 2)`` of each class in ticks, by
    their start; and its length in ``ticks``.
    """

    name: str
    posteriors: NDArray[np.float32]
    spans: list[Spans]
    ticks: int
    left_out: int = 0  # true events whose label the model does not have, or passes over


def recordings(given: str | Sequence[str]) -> list[Recording]:
    """The recordings of the setting ``streams``: a path or several, each of a recording, or of a csv or jsonl table
    with a column ``path``, beginning at the table's folder. ConfigError for what is missing or makes no sense.
    """
    found = []
    for entry in [given] if isinstance(given, str) else given:
        path = Path(entry).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"streams: {entry!r} is no file; expected a recording with NAME.csv beside it, or a table"
            )
        listed = [path.parent / name for name in paths(path)] if path.suffix in (".csv", ".jsonl") else [path]
        found += [Recording(one, truth(one.with_suffix(".csv"))) for one in listed]
    if not found:
        raise ConfigError("streams: an empty list; expected recordings, or streams=null for none")
    return found


def paths(table: Path) -> list[str]:
    """The column ``path`` of a table. ConfigError if it has none, or a path leaves the table's folder or is no file."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(map(json.loads, file)) if table.suffix == ".jsonl" else list(csv.DictReader(file))
        names = [str(row["path"]) for row in rows]
    except (OSError, ValueError, csv.Error, KeyError, TypeError) as error:
        raise ConfigError(f"streams: {table} is no table of recordings ({error!r}); expected a column 'path'") from None
    folder = table.parent.resolve()
    for name in names:
        whole = (folder / name).resolve()
        if not whole.is_relative_to(folder) or not whole.is_file():
            raise ConfigError(f"streams: {table}: {name!r} is no file in {str(table.parent)!r}")
    return names


def truth(table: Path) -> list[Times]:
    """The true events of a recording. ConfigError if the table is missing, or a row makes no sense."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            missing = [column for column in MATCHED if column not in (reader.fieldnames or ())]
    except FileNotFoundError:
        raise ConfigError(
            f"streams: {table} does not exist; expected a table start,end,label of what is in the recording (without "
            "rows, if there is nothing)"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"streams: {table} cannot be read as a table: {error}") from None
    if missing:
        raise ConfigError(f"streams: {table} has no column {missing[0]!r}; expected start,end,label")
    found = []
    for number, row in enumerate(rows, 1):
        try:
            start, end = float(row["start"]), float(row["end"])
        except (TypeError, ValueError):
            start, end = math.nan, math.nan
        if not (0 <= start < end < math.inf) or not row["label"]:
            raise ConfigError(f"streams: {table} row {number}: expected 0 <= start < end in seconds and a label")
        found.append((start, end, str(row["label"])))
    return found


def hear(model: Classifier, recording: Recording) -> Heard:
    """A recording through a live model. MediaError if it cannot be read."""
    stream = Stream(model, max(1, round(BLOCK * model.rate / model.hop)))
    blocks = []
    for chunk in open_chunks(recording.path, model.intake)[1]:
        stream.push(chunk if model.intake.both else chunk[0])
        blocks.append(stream.posteriors)
    stream.close()
    blocks.append(stream.posteriors)
    audible = {model.labels[index] for index in stream.decoder.audible}
    spans: dict[str, list[tuple[int, int]]] = {label: [] for label in model.labels}
    known = [event for event in recording.events if event[2] in audible]
    for start, end, label in known:
        spans[label].append((round(start * model.rate), round(end * model.rate)))
    rows = [np.array(sorted(found), np.int64).reshape(-1, 2) for found in spans.values()]
    return Heard(recording.path.name, np.concatenate(blocks), rows, stream.ticks, len(recording.events) - len(known))


def readable(given: Iterable[Recording], intake: Intake) -> None:
    """MediaError now, not after the training, for a recording that does not even begin."""
    for recording in given:
        next(open_chunks(recording.path, intake)[1], None)


def detected(model: Classifier, given: Iterable[Recording]) -> dict[str, Any]:
    """All figures of a model on recordings, as plain values; it listens as it will live. One that turns out to be
    damaged is left out.
    """
    live, heard = model.live, []
    for recording in given:
        try:
            heard.append(hear(live, recording))
        except MediaError as error:
            warnings.warn(f"streams: left out {recording.path}: {error}", stacklevel=2)
    return measured(live, heard)


def measured(model: Classifier, heard: Sequence[Heard]) -> dict[str, Any]:
    """The same of what was heard."""
    decoder, hours = model.decoder(), sum(one.ticks for one in heard) / model.rate / 3600
    matches, onsets, late = list[dict[str, Matches]](), list[dict[str, Matches]](), list[float]()
    each: dict[int, list[Alarms]] = {index: [] for index in decoder.audible}
    for one in heard:
        own = model.decoder()
        events = own.decode(one.posteriors) + own.close()
        found = {index: spans_of([e for e in events if e.label == model.labels[index]]) for index in decoder.audible}
        true, answered = seconds(model, dict(enumerate(one.spans))), seconds(model, found)
        matches.append(match_events(true, answered))
        onsets.append(match_events(true, answered, offset=False))
        for index, spans in found.items():
            each[index].append(alarms(one.spans[index], spans))
            late += latencies(one.spans[index], spans, model, decoder)
    classes = {model.labels[index]: f"{decoder.high[index]:.4g}" for index in decoder.audible}
    total = [one for found in each.values() for one in found]
    false = sum(one.false for one in total)
    return {
        "recordings": [one.name for one in heard],
        "hours": round(hours, 5),
        "left_out": sum(one.left_out for one in heard),
        "events": summed(matches) | {"onset_only": summed(onsets)["micro"]},
        "thresholds": {label: float(level) for label, level in classes.items()},
        "false": false,
        "false_an_hour": round(false / hours, 3) if hours else 0.0,
        "missed": rate(sum(one.truths - one.hits for one in total), sum(one.truths for one in total)),
        "latency": spread(late),
        **curves(model, heard, hours),
    }


def rate(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole else None


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and 90th percentile; None of nothing."""
    p50, p90 = (float(value) for value in np.percentile(values, [50, 90])) if values else (None, None)
    return {"count": len(values), "p50": p50, "p90": p90}


def seconds(model: Classifier, spans: Mapping[int, Spans]) -> list[Times]:
    """Spans ``(N, 2)`` in ticks of each class as events."""
    return [(a / model.rate, b / model.rate, model.labels[index]) for index in spans for a, b in spans[index].tolist()]


def latencies(spans: Spans, found: Spans, model: Classifier, decoder: Decoder) -> list[float]:
    """Seconds from where a true event begins to where the first answer that touches it is shown: when it is as long as
    the shortest event, and the model's delay is over. A block's length and the computing are still to be added.
    """
    shown = (max(1, decoder.minimum) + model.delay) * model.hop
    late = []
    for start, end in spans.tolist():
        touching = found[(found[:, 0] < end) & (found[:, 1] > start)]
        if len(touching):
            late.append((int(touching[:, 0].min()) + shown - start) / model.rate)
    return late


def summed(parts: Sequence[Mapping[str, Matches]]) -> dict[str, Any]:
    """Matches of several recordings as figures by class, ``micro`` over all, and ``macro_f1``, the mean of the classes
    that are there.
    """
    rows: dict[str, Any] = {}
    for label in [*sorted({label for part in parts for label in part} - {"micro"}), "micro"]:
        there = [part[label] for part in parts if label in part]
        total = Matches(*(sum(getattr(one, key) for one in there) for key in ("hits", "truths", "answers")))
        rows[label] = vars(total) | dict(zip(("precision", "recall", "f1"), total.scores, strict=True))
    micro = rows.pop("micro")
    present = [row["f1"] for row in rows.values() if row["truths"]]
    return {"micro": micro, "macro_f1": float(np.mean(present)) if present else 0.0, "classes": rows}


def curves(model: Classifier, heard: Sequence[Heard], hours: float) -> dict[str, Any]:
    """What would have been with other thresholds: ``det``, points by falling threshold, the miss rate at so many false
    alarms an hour, and ``psd``, the PSD-ROC and its area.
    """
    audible = model.decoder().audible
    there = [index for index in audible if any(len(one.spans[index]) for one in heard)]
    points, tolerated = [], {index: list[tuple[float, float]]() for index in there}
    for level in LEVELS:
        total: list[Alarms] = []
        for index in audible:
            decoder = alone(model, index, level)
            found = [answers(decoder(), one.posteriors[:, index]) for one in heard]
            total += [alarms(one.spans[index], spans) for one, spans in zip(heard, found, strict=True)]
            if index in tolerated:
                both = [tolerant(one.spans[index], spans) for one, spans in zip(heard, found, strict=True)]
                hits, truths, false = (sum(part) for part in zip(*both, strict=True))
                tolerated[index].append((false / hours if hours else 0.0, hits / truths))
        missed, truths = sum(one.truths - one.hits for one in total), sum(one.truths for one in total)
        false = sum(one.false for one in total)
        points.append([level, false / hours if hours else 0.0, missed / truths if truths else 0.0])
    roc, area = psd(list(tolerated.values()), MOST)
    return {
        "det": [[round(value, 5) for value in point] for point in points],
        "miss_at": {str(most): miss_at(points, most) if there else None for most in AN_HOUR},
        "psd": {"area": area if there else None, "most": MOST, "points": roc},
    }


def alone(model: Classifier, index: int, level: float) -> Callable[[], Decoder]:
    """Decoders of one label at a threshold, with the model's other settings; the release falls with the threshold."""
    settings = {key: value for key, value in model.config["decoder"].items() if key != TARGET}
    settings |= {"threshold": level, "release": level * SHARE, "background": []}
    plain = arguments_for(Decoder, settings, "decoder")
    return lambda: Decoder([model.labels[index]], model.hop, model.rate, **plain)


def miss_at(points: Sequence[Sequence[float]], most: float) -> float | None:
    """The lowest miss rate of points (threshold, false alarms an hour, miss rate) with at most so many false alarms;
    None if all have more.
    """
    return min((missed for _, false, missed in points if false <= most), default=None)


def tolerant(spans: Spans, found: Spans) -> tuple[int, int, int]:
    """Hits, true events and false alarms of one class by the tolerance of the PSDS: an answer counts if it lies in true
    events for ``TOLERANCE`` of its length, and else is a false alarm; a true event is hit if answers that count cover
    ``TOLERANCE`` of it.
    """
    good = covered(found, spans) >= TOLERANCE * (found[:, 1] - found[:, 0])
    hit = covered(spans, found[good]) >= TOLERANCE * (spans[:, 1] - spans[:, 0])
    return int(hit.sum()), len(spans), int((~good).sum())


def covered(spans: Spans, others: Spans) -> NDArray[np.float64]:
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


def psd(classes: Sequence[Sequence[tuple[float, float]]], most: float) -> tuple[list[list[float]], float]:
    """The PSD-ROC from the points (false alarms an hour, true-positive ratio) of each class, and the area below it up
    to ``most``, as a share of what is possible. Each class's curve is a staircase that never falls; it is their mean.
    """
    edges = sorted({0.0} | {x for points in classes for x, _ in points if x <= most})
    heights = [
        float(np.mean([max((y for x, y in points if x <= edge), default=0.0) for points in classes] or [0.0]))
        for edge in edges
    ]
    widths = np.diff([*edges, most])
    area = float((np.array(heights) * widths).sum() / most)
    return [[round(x, 3), round(y, 5)] for x, y in zip(edges, heights, strict=True)], area
