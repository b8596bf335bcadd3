"""Many recordings through a model: decoded by processes that may die, computed in batches, one row each.

Every recording is a row of a batch for as long as it lasts, and then another takes its place: so nothing is padded to
the longest, and of a long one only what is being computed is held. Rows of a batch are independent to the bit
(``state_batch.py``), so an answer does not depend on what else is classified, on how many at a time, or on how many
processes decode.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.batch.decoders import Again, Asked, Decoders, Ended, Message
from pipeline.batch.decoding import Limits
from pipeline.batch.listing import Entry
from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.input_spec import Arrays, concatenate
from pipeline.model.classifier import Classifier, fingerprint
from pipeline.model.decoder import Decoder, Event
from pipeline.sinks.sink import Row
from pipeline.streaming.state_batch import StateBatch

BLOCK = 0.5  # seconds computed at once
TILE = 32  # recordings computed at once, at most
SIZE = 16 << 20  # bytes of a batch, at most
HELD = 64 << 20  # bytes of decoded recordings that wait, about
DEFAULT = Limits()
LITTLE, MUCH = 1, 2  # of what a batch lacks
PARTS = 8  # of that: much of one recording
LONGEST = 4096  # characters of a path
REFUSED = {
    "unsafe_path": "the manifest names a file outside of its folder; source.root=FOLDER allows what is below FOLDER"
}


class Recording:
    """A recording on its way. ``ticks`` have been received, of which ``chunks`` wait; ``steps`` have been answered."""

    def __init__(self, number: int, entry: Entry, decoder: Decoder | None) -> None:
        """``decoder``: of its events, if they are asked for."""
        self.number, self.entry, self.decoder = number, entry, decoder
        self.chunks: deque[Arrays] = deque()
        self.newest: Arrays | None = None
        self.ticks = self.waiting = self.steps = 0
        self.row: int | None = None
        self.ended: Ended | None = None
        self.scores: NDArray[np.float32] | None = None
        self.events: list[Any] = []


@dataclass(frozen=True)
class Work:
    """How files are classified: by which model, ``batch`` at a time, decoded by so many ``workers`` within limits.
    ``decoder``: its settings, changed by these, make events; None: none are made.
    """

    model: Classifier
    batch: int = TILE
    workers: int = 2
    limits: Limits = DEFAULT
    decoder: Mapping[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """What decides about the rows: the same for the same rows of the same files."""
        model, head, limits = self.model, dict(self.model.config["head"]), self.limits
        settings = {
            "window": head.pop("window", None),
            "precision": model.precision,
            "device": model.anchor.device.type,
            "longest": limits.longest,
            "largest": limits.largest,
        }
        return {
            "model": fingerprint(model, {**model.config, "head": head}),
            "settings": settings,
            "decoder": self.decoder,
        }


def classify(work: Work, asked: Iterable[Asked]) -> Iterator[tuple[int, Row]]:
    """The row of each of the numbered entries, as soon as it is known, with its number.

    Columns: path, start and end (of parts), status, code, label, score, seconds, truth (where there is one), reason,
    posteriors (by class), and events (a list of rows), if they are to be made. ``status`` is ok, warning (an answer,
    but ``code`` says what is doubtful) or error (no answer; ``code`` and ``reason`` say why). ConfigError if the model
    is not causal.
    """
    with Predictor(work) as predictor:
        yield from predictor.rows(asked)


class Predictor:
    """A model and its processes, ready for one listing after another: it takes half a second to make."""

    def __init__(self, work: Work) -> None:
        """ConfigError if the model is not causal."""
        self.model, self.course = work.model, Batch(work)
        self.decoders = Decoders((), work.model.spec, work.workers, work.limits)

    def rows(self, asked: Iterable[Asked]) -> Iterator[tuple[int, Row]]:
        """As ``classify``. Those of one listing have to be drawn to the end before another begins."""
        course, decoders, refused = self.course, self.decoders, deque[Asked]()

        def admitted() -> Iterator[Asked]:
            for number, entry in asked:
                if entry.refused or len(entry.path) > LONGEST:
                    refused.append((number, entry))
                else:
                    yield number, entry

        decoders.entries = admitted()
        while True:
            while (lacks := course.lacks) and not course.has(decoders.current()):
                said = decoders.next(wait_for=lacks == MUCH)
                if said is None:
                    break
                (number, entry), message = said
                if row := course.take(number, entry, message):
                    yield number, row
            while refused:
                number, entry = refused.popleft()
                error = MediaError(entry.refused or "not_found", REFUSED.get(entry.refused, "no file can be named so"))
                yield number, failed(entry, error, self.model.labels)
            if not course.open:
                return
            yield from course.turn()

    def close(self) -> None:
        """End the processes."""
        self.decoders.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Batch:
    """The recordings that are being computed."""

    def __init__(self, work: Work) -> None:
        model = work.model
        if not model.causal:
            raise ConfigError("encoder: looks into the future (causal = False) and cannot be computed in blocks")
        self.model, self.spec, self.settings = model, model.spec, work.decoder
        self.size = max(1, round(BLOCK * model.rate / model.grain)) * model.grain  # ticks
        grains = self.size // self.spec.grain
        steps = [(track.steps * math.prod(track.shape), np.dtype(track.kind)) for track in self.spec.tracks]
        block = grains * sum(count * kind.itemsize for count, kind in steps)  # bytes
        tile = min(TILE, 1 << max(0, (SIZE // block).bit_length() - 1))
        self.states = StateBatch(model, self.size, tile, exact=True)
        self.batch = min(work.batch, tile)
        self.room = HELD * self.size // block  # ticks
        self.held = 0  # ticks that wait
        self.open: dict[int, Recording] = {}

    @property
    def lacks(self) -> int:
        """How much must come before there is enough to compute: ``MUCH``; a ``LITTLE``, so that those who decode need
        not wait while this is computed; or nothing.
        """
        ready = len(self.ready())
        if ready >= 2 * self.batch or (ready > 0 and self.held > self.room):
            return 0
        return LITTLE if ready >= self.batch else MUCH

    def take(self, number: int, entry: Entry, message: Message) -> Row | None:
        """What a decoder says; the row of a recording that has none but its error."""
        if isinstance(message, MediaError):
            self.drop(number)
            return failed(entry, message, self.model.labels)
        if number not in self.open:
            decoder = None if self.settings is None else self.model.decoder(**self.settings)
            self.open[number] = Recording(number, entry, decoder)
        recording = self.open[number]
        if isinstance(message, Ended):
            recording.ended = message
        elif isinstance(message, Again):
            self.drop(number)
        else:
            ticks = self.spec.ticks(message)
            recording.chunks.append(message)
            recording.newest = tuple(array[-1:] for array in message)
            recording.ticks += ticks
            recording.waiting += ticks
            self.held += ticks
        return None

    def drop(self, number: int) -> None:
        """A recording is over, or of no use."""
        recording = self.open.pop(number, None)
        if recording:
            self.held -= recording.waiting
            if recording.row is not None:
                self.states.free.append(recording.row)

    def ready(self) -> list[Recording]:
        """Those of which a block can be computed, the first ones first: one that may be the last waits to be known."""
        return [held for held in self.open.values() if held.ended or held.waiting > self.size]

    def has(self, numbers: Iterable[int]) -> bool:
        """Whether much of each of these waits already: then more of them would not fill the batch."""
        return bool(self.open) and all(
            number in self.open and self.open[number].waiting > max(self.size, self.room // PARTS) for number in numbers
        )

    def turn(self) -> Iterator[tuple[int, Row]]:
        """Compute a block of each, of as many as go together; the rows of those that are done."""
        chosen = self.ready()[: self.batch]
        for recording in chosen:
            if recording.row is None:
                recording.row = self.states.reserve()
        rows = [recording.row for recording in chosen if recording.row is not None]
        y, good = self.states.run(rows, [self.block(recording) for recording in chosen])
        for recording, posteriors, fine in zip(chosen, y, good, strict=True):
            if not fine:
                self.drop(recording.number)
                error = MediaError("not_computed", "the model's state became infinite")
                yield recording.number, failed(recording.entry, error, self.model.labels)
            elif self.answered(recording, posteriors):
                self.drop(recording.number)
                yield recording.number, self.row_of(recording)

    def block(self, recording: Recording) -> Arrays:
        """The next block of a recording; behind its end, padded as training clips are."""
        parts, missing = [], self.size
        while missing and recording.chunks:
            first = recording.chunks.popleft()
            if self.spec.ticks(first) > missing:
                first, rest = self.spec.cut(first, missing)
                recording.chunks.appendleft(rest)
            parts.append(first)
            missing -= self.spec.ticks(first)
        recording.waiting -= self.size - missing
        self.held -= self.size - missing
        if missing:
            parts.append(self.spec.padding(recording.newest or self.spec.empty(), missing))
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def answered(self, recording: Recording, y: NDArray[np.float32]) -> bool:
        """Take the posteriors ``(T, K)`` of a recording's block; whether they were the last."""
        first, delay = recording.steps, self.model.delay
        recording.steps += len(y)
        last = None
        if recording.ended:
            last = max(1, -(-recording.ticks // self.model.hop)) - 1 + delay
        if recording.decoder:
            end = None if last is None else last + 1 - first
            recording.events += recording.decoder.decode(y[max(0, delay - first) : end])
        if last is None or last >= recording.steps:
            return False
        if last >= first:
            recording.scores = y[last - first]
        return True

    def row_of(self, recording: Recording) -> Row:
        """The row of a recording that has an answer."""
        assert recording.ended is not None and recording.scores is not None
        row, labels, entry = blank(recording.entry), self.model.labels, recording.entry
        scores = recording.scores.tolist()
        best = int(np.argmax(recording.scores))
        row["status"] = "warning" if recording.ended.warnings else "ok"
        row["code"] = " ".join(recording.ended.warnings)
        row |= {"label": labels[best], "score": round(scores[best], 4), "seconds": round(recording.ended.seconds, 3)}
        row["posteriors"] = {label: round(score, 6) for label, score in zip(labels, scores, strict=True)}
        if recording.decoder:
            events = recording.events + recording.decoder.close()
            row["events"] = [event_row(event, self.model.rate, entry.start) for event in events]
        return row


def blank(entry: Entry) -> Row:
    """An entry's row before anything is known; the columns are the same for every status."""
    row: Row = {"path": entry.path}
    if entry.start or entry.end is not None:
        row |= {"start": entry.start, "end": "" if entry.end is None else entry.end}
    row |= {"status": "error", "code": "", "label": "", "score": "", "seconds": ""}
    return row | ({"truth": entry.truth} if entry.truth else {}) | {"reason": "", "posteriors": {}}


def failed(entry: Entry, error: MediaError, labels: list[str]) -> Row:
    """The row of an entry that has no answer."""
    row = blank(entry)
    return row | {
        "code": error.code,
        "reason": str(error.args[0]).removeprefix(f"{entry.path}: "),
        "posteriors": dict.fromkeys(labels),
    }


def event_row(event: Event, rate: int, start: float) -> Row:
    """An event in seconds of its file."""
    times = {name: round(start + getattr(event, name) / rate, 3) for name in ("start", "end", "peak")}
    return {**times, "label": event.label, "score": round(event.score, 4)}
