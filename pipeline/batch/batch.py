"""Many files through a model: decoded by processes that may die, computed in batches, one result each.

Every file has a slot of a batch for as long as it lasts, and then another takes its place: so nothing is padded to
the longest, and of a long one only what is being computed is held. Rows of a batch are independent to the bit
(``state_batch.py``), so an answer does not depend on what else is classified, on how many at a time, or on how many
processes decode.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.batch.decoders import Again, Asked, Decoders, Ended, Message
from pipeline.batch.files import Limits
from pipeline.batch.listing import Entry
from pipeline.core.errors import MediaError
from pipeline.decoders.decoder import Decoder, Event
from pipeline.media.input_spec import Arrays, InputSpec, concatenate
from pipeline.model.stream_model import StreamModel
from pipeline.sinks.items import FileResult, TimedEvent
from pipeline.streaming.backlog import Backlog
from pipeline.streaming.state_batch import StateBatch

BLOCK_SECONDS = 0.5  # computed at once
MAX_FILES = 32  # computed at once
MAX_BATCH_BYTES = 16 << 20
WAITING_BYTES = 64 << 20  # of decoded files that wait, about
FILE_SHARE = 1 / 8  # of that: so much of one file is enough
MAX_PATH_CHARACTERS = 4096
DEFAULT_LIMITS = Limits()
REFUSED = {
    "unsafe_path": "the manifest names a file outside of its folder; source.root=FOLDER allows what is below FOLDER"
}


class OpenFile:
    """A file on its way. ``ticks`` have been received, ``steps`` have been answered. ``slot``: its row of the batch."""

    def __init__(self, number: int, entry: Entry, spec: InputSpec, decoder: Decoder | None) -> None:
        """``decoder``: of its events, if they are asked for."""
        self.number, self.entry, self.decoder = number, entry, decoder
        self.waiting, self.newest = Backlog(spec), spec.empty()
        self.ticks = self.steps = 0
        self.slot: int | None = None
        self.ended: Ended | None = None
        self.scores: NDArray[np.float32] | None = None
        self.events: list[Event] = []


@dataclass(frozen=True)
class Work:
    """How files are classified: by which model, ``batch`` at a time, decoded by so many ``workers`` within limits.
    ``decoder``: its settings, changed by these, make events; None: none are made.
    """

    model: StreamModel
    batch: int = MAX_FILES
    workers: int = 2
    limits: Limits = DEFAULT_LIMITS
    decoder: Mapping[str, Any] | None = None

    def failed(self, entry: Entry, error: MediaError) -> FileResult:
        """The result of an entry that has no answer."""
        reason = str(error.args[0]).removeprefix(f"{entry.path}: ")
        result = FileResult(entry.path, entry.start, entry.end, "error", error.code, truth=entry.truth, reason=reason)
        events = None if self.decoder is None else ()
        return replace(result, posteriors=dict.fromkeys(self.model.labels), events=events)

    def identity(self) -> dict[str, Any]:
        """What decides about the results: the same for the same results of the same files."""
        model, limits = self.model, {"longest": self.limits.longest, "largest": self.limits.largest}
        settings = {"window": model.config["head"].get("window"), **model.engine, **limits}
        rule = self.decoder
        if rule is None and model.decoder().reads == "strings":  # whose labels depend on the decoder, too
            rule = model.config["decoder"]
        return {"model": model.identity(window=False), "settings": settings, "decoder": rule}


def classify(work: Work, asked: Iterable[Asked]) -> Iterator[tuple[int, FileResult]]:
    """The result of each of the numbered entries, as soon as it is known, with its number. ConfigError if the model is
    not causal.
    """
    with closing(Predictor(work)) as predictor:
        yield from predictor.results(asked)


class Predictor:
    """A model and its processes, ready for one listing after another: it takes half a second to make."""

    def __init__(self, work: Work) -> None:
        """ConfigError if the model is not causal."""
        self.work, self.batch = work, Batch(work)
        self.decoders = Decoders((), work.model.spec, work.workers, work.limits)

    def results(self, asked: Iterable[Asked]) -> Iterator[tuple[int, FileResult]]:
        """As ``classify``. Those of one listing have to be drawn to the end before another begins."""
        batch, decoders, refused = self.batch, self.decoders, deque[Asked]()

        def admitted() -> Iterator[Asked]:
            for number, entry in asked:
                if entry.refused or len(entry.path) > MAX_PATH_CHARACTERS:
                    refused.append((number, entry))
                else:
                    yield number, entry

        decoders.entries = admitted()
        while True:
            while not batch.full and not batch.has_much_of(decoders.current()):
                received = decoders.next(wait_for=not batch.enough)
                if received is None:
                    break
                (number, entry), message = received
                if result := batch.take(number, entry, message):
                    yield number, result
            while refused:
                number, entry = refused.popleft()
                error = MediaError(entry.refused or "not_found", REFUSED.get(entry.refused, "no file can be named so"))
                yield number, self.work.failed(entry, error)
            if not batch.open:
                return
            yield from batch.compute()

    def close(self) -> None:
        self.decoders.close()


class Batch:
    """The files that are being computed, and what of them is decoded."""

    def __init__(self, work: Work) -> None:
        model = work.model
        self.work, self.model, self.spec = work, model, model.spec
        self.block_ticks = max(1, round(BLOCK_SECONDS * model.rate / model.unit)) * model.unit
        block_bytes = self.block_ticks // self.spec.grain * sum(track.grain_bytes for track in self.spec.tracks)
        tile = min(MAX_FILES, 1 << max(0, (MAX_BATCH_BYTES // block_bytes).bit_length() - 1))
        self.states = StateBatch(model, self.block_ticks, tile, exact=True)
        self.size = min(work.batch, self.states.tile)  # files
        self.max_waiting = WAITING_BYTES * self.block_ticks // block_bytes  # ticks
        self.open: dict[int, OpenFile] = {}
        self.rule = model.decoder(**(work.decoder or {}))

    @property
    def waiting(self) -> int:
        """Ticks that are decoded and not computed."""
        return sum(file.waiting.ticks for file in self.open.values())

    @property
    def enough(self) -> bool:
        """Whether a batch can be computed."""
        return len(self.ready()) >= self.size

    @property
    def full(self) -> bool:
        """Whether no more should be decoded before some is computed."""
        ready = len(self.ready())
        return ready >= 2 * self.size or (ready > 0 and self.waiting > self.max_waiting)

    def take(self, number: int, entry: Entry, message: Message) -> FileResult | None:
        """What a decoder says; the result of a file that has none but its error."""
        if isinstance(message, MediaError):
            self.drop(number)
            return self.work.failed(entry, message)
        if number not in self.open:
            reads = self.work.decoder is not None or self.rule.reads == "strings"
            decoder = self.model.decoder(**(self.work.decoder or {})) if reads else None
            self.open[number] = OpenFile(number, entry, self.spec, decoder)
        file = self.open[number]
        if isinstance(message, Ended):
            file.ended = message
        elif isinstance(message, Again):
            self.drop(number)
        else:
            file.waiting.put(message)
            file.newest = tuple(array[-1:] for array in message)
            file.ticks += self.spec.ticks(message)
        return None

    def drop(self, number: int) -> None:
        """A file is over, or of no use."""
        file = self.open.pop(number, None)
        if file and file.slot is not None:
            self.states.free.append(file.slot)

    def ready(self) -> list[OpenFile]:
        """Those of which a block can be computed, the first ones first: one that may be the last waits to be known."""
        return [file for file in self.open.values() if file.ended or file.waiting.ticks > self.block_ticks]

    def has_much_of(self, numbers: Iterable[int]) -> bool:
        """Whether much of each of these waits already: then more of them would not fill the batch."""
        much = max(self.block_ticks, int(self.max_waiting * FILE_SHARE))
        return bool(self.open) and all(
            number in self.open and self.open[number].waiting.ticks > much for number in numbers
        )

    def compute(self) -> Iterator[tuple[int, FileResult]]:
        """Compute a block of each, of as many as go together; the results of those that are done."""
        chosen = self.ready()[: self.size]
        for file in chosen:
            if file.slot is None:
                file.slot = self.states.reserve()
        slots = [file.slot for file in chosen if file.slot is not None]
        for row, file in enumerate(chosen):
            self.states.bound.put(row, self.block(file))
        y, good = self.states.run(slots)
        for file, posteriors, fine in zip(chosen, y, good, strict=True):
            if not fine:
                self.drop(file.number)
                error = MediaError("not_computed", "the model's state became infinite")
                yield file.number, self.work.failed(file.entry, error)
            elif self.answered(file, posteriors):
                self.drop(file.number)
                yield file.number, self.result(file)

    def block(self, file: OpenFile) -> Arrays:
        """The next block of a file; behind its end, padded as training clips are."""
        there = min(self.block_ticks, file.waiting.ticks)
        parts = file.waiting.take(there)
        if missing := self.block_ticks - there:
            parts = concatenate([parts, self.spec.padding(file.newest, missing)])
        return parts

    def answered(self, file: OpenFile, y: NDArray[np.float32]) -> bool:
        """Take the posteriors ``(T, K)`` of a file's block; whether they were the last."""
        first, delay = file.steps, self.model.delay
        file.steps += len(y)
        last = max(1, -(-file.ticks // self.model.hop)) - 1 + delay if file.ended else None
        own = y[max(0, delay - first) : None if last is None else last + 1 - first]
        if file.decoder:
            file.events += file.decoder.decode(own)
        if self.rule.reads == "strings" and len(own):  # p_ columns: the highest of the whole file
            file.scores = np.maximum(own.max(0), 0 if file.scores is None else file.scores)
        if last is None or last >= file.steps:
            return False
        if last >= first and self.rule.reads != "strings":
            file.scores = y[last - first]
        return True

    def result(self, file: OpenFile) -> FileResult:
        """The result of a file that has an answer."""
        assert file.ended is not None and file.scores is not None
        entry, labels, scores = file.entry, self.model.labels, file.scores.tolist()
        events = [*file.events, *(file.decoder.close() if file.decoder else ())]
        timed = (TimedEvent.of(event, self.model.rate, entry.start) for event in events)
        return FileResult(
            entry.path, entry.start, entry.end,
            status="warning" if file.ended.warnings else "ok",
            code=" ".join(file.ended.warnings),
            label=self.rule.choose(file.scores, self.model.link, events),
            score=round(self.rule.certainty(file.scores, events), 4),
            seconds=round(file.ended.seconds, 3),
            truth=entry.truth,
            posteriors={label: round(score, 6) for label, score in zip(labels, scores, strict=True)},
            events=None if self.work.decoder is None else tuple(timed),
        )  # fmt: skip
