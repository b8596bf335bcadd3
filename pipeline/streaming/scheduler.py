"""Many streams through one model, in batches: oldest blocks first, the wait of each known, and a policy for overload.

A stream's answers do not depend on the others, to the bit (``state_batch.py``).
"""

import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.decoder import Event
from pipeline.media.input_spec import Chunk
from pipeline.model.stream_model import StreamModel
from pipeline.sources.source import BEHIND, Gap, Policy
from pipeline.streaming.guard import clean
from pipeline.streaming.state_batch import StateBatch
from pipeline.streaming.stream import Stream

NEWEST_TURNS = 256  # for the load


class Answer(NamedTuple):
    """The answer to a block of one stream, or the gap that stands for some.

    Attributes:
        stream: the stream; its own ``posteriors`` are those of its newest answer.
        events: those that have ended.
        first, posteriors: index of the first step, and ``(T, K)`` float32, as in ``Stream``.
        answered: the tick up to which its stream is answered.
        waited: seconds from the arrival of the block's last sample to its answer.
        warnings: rows as in ``Stream.warnings``, from where they are taken.
        gap: what was not computed, and why; it begins at tick ``at``.
    """

    stream: Stream
    events: list[Event]
    first: int
    posteriors: NDArray[np.float32]
    answered: int
    waited: float = 0.0
    warnings: Sequence[dict[str, Any]] = ()
    gap: Gap | None = None
    at: int = 0

    @classmethod
    def of(cls, stream: Stream, events: list[Event], *more: Any) -> Self:
        """What a stream has just answered; ``more``: ``waited`` and what follows it."""
        return cls(stream, events, stream.first, stream.posteriors, stream.answered, *more)


@dataclass(eq=False)
class ScheduledStream:
    """A stream that takes part: its row, how many joined before it, when each of its waiting blocks arrived, and its
    place in the queue.
    """

    stream: Stream
    row: int
    number: int
    arrived: deque[float] = field(default_factory=deque)
    place: "Place | None" = None


Place: TypeAlias = tuple[float, int, ScheduledStream]  # when its oldest block arrived, its number: never the same twice
Warnings: TypeAlias = tuple[dict[str, Any], ...]
Taken: TypeAlias = tuple[ScheduledStream, float, Warnings]  # whose block it is, its arrival, its warnings


class Scheduler:
    """Serves the streams of one model that have joined, in turns of at most ``tile`` blocks.

    One thread computes. All methods are its own, but for ``feed`` and ``wait``, which any thread may call. A stream's
    ``state`` can be read and set meanwhile, as that of any other.
    """

    def __init__(
        self,
        model: StreamModel,
        block: int = 10,
        tile: int = 64,
        exact: bool = True,
        overload: Literal["keep", "drop"] = "keep",
        patience: float = 1.0,
        gap: Literal["keep", "reset"] = "keep",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``block``: steps of a block, as the streams have it. ``tile``: rows of a batch at most; see
        ``benchmarks/streams.py``.

        ``exact``: no answer depends on the others of its batch, not even by a rounding; the model is tried
        for that here, with the threads set now. Otherwise batches are as large as it comes. ``overload``: what becomes
        of blocks that have waited for more than ``patience`` seconds. ``keep``: they are answered, late. ``drop``:
        every stream passes over all blocks that have waited for half of it, with the policy ``gap``; an ``Answer`` with
        a gap stands for them.
        """
        if overload not in ("keep", "drop") or gap not in ("keep", "reset"):
            raise ValueError(f"overload is {overload!r}, gap is {gap!r}; expected keep or drop, and keep or reset")
        if tile < 1 or patience <= 0:
            raise ValueError(
                f"tile is {tile}, patience is {patience}; expected at least 1 row, and more than 0 seconds"
            )
        self.model, self.size = model, Stream(model, block).size
        self.overload, self.patience, self.policy, self.clock = overload, patience, gap, clock
        self.batch = StateBatch(model, self.size, tile, exact)
        self.streams, self.joined = dict[Stream, ScheduledStream](), 0
        self.queue: list[Place] = []  # the streams of which blocks wait, in order
        self.spans: deque[tuple[float, float]] = deque(maxlen=NEWEST_TURNS)  # seconds of computing, seconds of streams
        self.changed = threading.Condition()

    def join(self, stream: Stream) -> None:
        """A stream takes part from now on, with what it has remembered and what waits in it.

        ValueError if it has another model or block size, or takes part already.
        """
        if stream.model is not self.model or stream.size != self.size:
            raise ValueError(f"got a stream of {stream.size} ticks a block; expected {self.size}, and the same model")
        if stream in self.streams:
            raise ValueError("this stream takes part already")
        entry = ScheduledStream(stream, self.batch.reserve(), self.joined)
        self.joined += 1
        with self.changed:
            self.streams[stream] = entry
            self.note_arrivals(entry, self.clock())

    def leave(self, stream: Stream) -> None:
        """A stream takes no part any more; what waits in it stays there."""
        with self.changed:
            entry = self.scheduled(stream)
            del self.streams[stream]
            entry.arrived.clear()
            self.queue_up(entry)
            stream.state = stream.state  # no longer in the batch
            self.batch.free.append(entry.row)

    def feed(self, stream: Stream, chunk: Chunk, arrived: float | None = None) -> None:
        """A chunk of a stream, as for ``Stream.feed``; ``arrived`` on the clock, by default now. Any thread."""
        arrived = self.clock() if arrived is None else arrived
        with self.changed:
            entry = self.scheduled(stream)
            stream.feed(chunk)
            if self.note_arrivals(entry, arrived):
                self.changed.notify()

    def wait(self, seconds: float) -> bool:
        """Wait until some block does, for so many seconds at most; whether one does. Any thread."""
        with self.changed:
            return self.changed.wait_for(lambda: bool(self.queue), seconds)

    def turn(self, meanwhile: Callable[[], object] | None = None) -> list[Answer]:
        """The blocks that have waited longest, one of each stream at most, answered as one batch; and what was passed
        over. Empty if nothing waits.

        ``meanwhile`` is called while a thread computes the batch, if there is one; of the methods here it may call
        ``feed`` and ``wait`` alone.
        """
        start = self.clock()
        with self.changed:
            answers = self.drop_late(start) if self.overload == "drop" else []
            taken = self.take([entry for *_, entry in self.queue[: self.batch.tile]])
        return answers + self.compute(taken, start, meanwhile)

    def gap(self, stream: Stream, ticks: int, how: Policy = "reset") -> list[Answer]:
        """Answer what waits in a stream; then ``Stream.gap``, which is the last answer. Meanwhile, ``feed`` waits."""
        with self.changed:
            answers = self.drain(stream)
            events = stream.gap(ticks, how)
            self.note_arrivals(self.scheduled(stream), self.clock())
            return [*answers, Answer.of(stream, events, 0.0, take_warnings(stream))]

    def snapshot(self, stream: Stream) -> bytes:
        """``Stream.snapshot``, for a stream that takes part. Meanwhile, ``feed`` waits."""
        with self.changed:
            self.scheduled(stream)
            return stream.snapshot()

    def close(self, stream: Stream) -> list[Answer]:
        """Answer what waits in a stream; then ``Stream.close``, which is the last answer. It takes no part any more.
        Meanwhile, ``feed`` waits; then it is refused.
        """
        with self.changed:
            answers = self.drain(stream)
            self.leave(stream)
        return [*answers, Answer.of(stream, stream.close(), 0.0, take_warnings(stream))]

    @property
    def behind(self) -> float:
        """Seconds that the oldest block has waited until now; 0 if none waits."""
        with self.changed:
            return max(0.0, self.clock() - self.queue[0][0]) if self.queue else 0.0

    @property
    def load(self) -> float:
        """Seconds of computing that all streams here need for a second of each, by the last turns; above 1 they are
        too many.
        """
        computing, streams = (sum(part) for part in zip(*self.spans, strict=True)) if self.spans else (0.0, 1.0)
        return len(self.streams) * computing / streams

    def scheduled(self, stream: Stream) -> ScheduledStream:
        """A stream's entry; ValueError if it takes no part."""
        if stream not in self.streams:
            raise ValueError("this stream takes no part; join it first")
        return self.streams[stream]

    def note_arrivals(self, entry: ScheduledStream, now: float) -> bool:
        """Note when new blocks arrived; whether a block waits."""
        ready, arrived = entry.stream.waiting.ticks // self.size, entry.arrived
        while len(arrived) < ready:
            arrived.append(now)
        while len(arrived) > ready:  # a gap has answered them
            arrived.popleft()
        self.queue_up(entry)
        return ready > 0

    def queue_up(self, entry: ScheduledStream) -> None:
        """Queue an entry by the arrival of its oldest block, then in the order in which they joined; or take it out."""
        oldest = entry.arrived[0] if entry.arrived else None
        if entry.place:
            if entry.place[0] == oldest:
                return
            del self.queue[bisect_left(self.queue, entry.place)]
        entry.place = None if oldest is None else (oldest, entry.number, entry)
        if entry.place:
            insort(self.queue, entry.place)

    def drain(self, stream: Stream) -> list[Answer]:
        """Answer all blocks that wait in a stream, in batches like those of turns."""
        entry, answers = self.scheduled(stream), []
        while entry.arrived:
            start = self.clock()
            answers += self.compute(self.take([entry]), start)
        return answers

    def take(self, entries: Sequence[ScheduledStream]) -> list[Taken]:
        """The oldest block of each of some streams, made sound together, in its place in the batch."""
        if not entries:
            return []
        starts, arrived = [], []
        for row, entry in enumerate(entries):
            block, start = entry.stream.take()
            self.batch.bound.put(row, block)
            starts.append(start)
            arrived.append(entry.arrived.popleft())
            self.queue_up(entry)
        clean([entry.stream.guard for entry in entries], self.batch.bound.tracks, starts)
        return [(entry, when, take_warnings(entry.stream)) for entry, when in zip(entries, arrived, strict=True)]

    def compute(
        self, taken: Sequence[Taken], start: float, meanwhile: Callable[[], object] | None = None
    ) -> list[Answer]:
        """Answer a block of each of some streams, as one batch."""
        if not taken:
            return []
        for entry, *_ in taken:
            if entry.stream.fetch is None:  # it has just joined, or was given another state
                self.batch.write(entry.row, entry.stream.state)
                entry.stream.fetch = partial(self.batch.read, entry.row)
        y, good = self.batch.run([entry.row for entry, *_ in taken], meanwhile)
        levels = np.concatenate([entry.stream.decoder.levels for entry, *_ in taken]).reshape(len(y), -1)
        quiet = good & (y.max(1) < levels).all(1)
        now = self.clock()
        answers = []
        with self.changed:
            rows = zip(taken, y, good.tolist(), quiet.tolist(), strict=True)
            for (entry, arrived, warnings), posteriors, fine, still in rows:
                stream, waited = entry.stream, max(0.0, now - arrived)
                events = stream.answer(posteriors, fine, still)
                answers.append(Answer.of(stream, events, waited, warnings + take_warnings(stream)))
        self.spans.append((self.clock() - start, len(taken) * self.size / self.model.rate))
        return answers

    def drop_late(self, now: float) -> list[Answer]:
        """If a block has waited for more than ``patience``, all streams pass over what has waited for half of it: the
        last in the queue would always be the same ones.
        """
        answers = list[Answer]()
        if not self.queue or now - self.queue[0][0] <= self.patience:
            return answers
        for *_, entry in [*self.queue]:
            stream, oldest, passed = entry.stream, entry.arrived[0], list[Taken]()
            while entry.arrived and now - entry.arrived[0] > self.patience / 2:
                passed += self.take([entry])
            if not passed:
                break
            warnings = tuple(warning for *_, found in passed for warning in found)
            ticks = len(passed) * self.size
            at = stream.ticks - stream.waiting.ticks - ticks
            events = stream.pass_over(ticks, self.policy)
            gap = Gap(ticks, BEHIND, self.policy)
            answers.append(Answer.of(stream, events, now - oldest, warnings, gap, at))
            self.note_arrivals(entry, now)
        return answers


def take_warnings(stream: Stream) -> Warnings:
    """The warnings of a stream, out of it: the next ``feed``, perhaps of another thread, clears them."""
    if not stream.guard.warnings:
        return ()
    warnings, stream.guard.warnings = tuple(stream.guard.warnings), []
    return warnings
