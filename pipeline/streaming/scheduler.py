"""Many streams through one model: oldest blocks first, in batches, with every wait told and overload survived.

Who shares a batch changes no bit of an answer (``tiles.py``), so a stream is told the same whatever the others do.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.layers.stage import State, pick, tree
from pipeline.media.input_spec import Arrays, Chunk
from pipeline.model.classifier import Classifier
from pipeline.model.decoder import Event
from pipeline.sources.source import BEHIND, Gap, Policy
from pipeline.streaming.state_batch import Tiles
from pipeline.streaming.stream import Stream

KEPT = 512  # waits of a stream that its figures are made of: the newest
SPAN = 256  # turns that the load is made of


class Answer(NamedTuple):
    """What became of a block of one stream.

    Attributes:
        stream: whose it is; its own ``posteriors`` are of its newest answer.
        events: those that have ended.
        first, posteriors: index of the first step, and ``(T, K)`` float32, as in ``Stream``.
        waited: seconds from the arrival of the block's last sample to its answer.
        warnings: rows of what was not sound (``Stream.warnings``), which the stream has no more.
        gap: what was not computed, and why; it begins at tick ``at``.
    """

    stream: Stream
    events: list[Event]
    first: int
    posteriors: NDArray[np.float32]
    waited: float = 0.0
    warnings: Sequence[dict[str, Any]] = ()
    gap: Gap | None = None
    at: int = 0


class Waits:
    """Seconds that blocks waited: how many, the longest, and the newest ``KEPT``."""

    def __init__(self) -> None:
        self.ring = np.zeros(KEPT, np.float32)
        self.count, self.longest = 0, 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.ring[self.count % KEPT] = seconds
        self.count += 1
        self.longest = max(self.longest, seconds)

    def quantile(self, share: float) -> float:
        """The wait that this share of the newest did not exceed; 0 if there was none."""
        kept = self.ring[: self.count]
        return float(np.quantile(kept, share, method="higher")) if self.count else 0.0


@dataclass(eq=False)
class Seat:
    """A stream's place: its row, ``shown`` (the view of that row), and when each of its waiting blocks arrived."""

    stream: Stream
    number: int
    row: int
    shown: State
    arrived: deque[float] = field(default_factory=deque)
    queued: bool = False
    waits: Waits = field(default_factory=Waits)


Taken: TypeAlias = tuple[Seat, Arrays, float, list[dict[str, Any]]]  # a seat's block, its arrival, and its warnings


class Scheduler:
    """Serves the streams of one model that have joined, in turns of at most ``tile`` blocks.

    One thread computes: all methods are its own, but for ``feed`` and ``wait``, which any thread may call. While a
    stream takes part, its ``state`` is a view of its row, which the next turn writes to: clone it to hold it. Another
    state may be set; the next turn goes on from it.
    """

    def __init__(
        self,
        model: Classifier,
        block: int = 10,
        tile: int = 64,
        exact: bool = True,
        overload: Literal["keep", "drop"] = "keep",
        patience: float = 1.0,
        gap: Literal["keep", "reset"] = "keep",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``block``: steps of a block, as the streams have it. ``tile``: rows of a batch at most; above 64, log-mel and
        the recurrent kernels are slower per row.

        ``exact``: only batch sizes that agree to the bit, which is tried here, with the threads set now; otherwise
        batches are as large as it comes. ``overload``: what becomes of blocks that have waited for more than
        ``patience`` seconds. ``keep``: they are answered, late. ``drop``: every stream passes over all blocks that have
        waited for half of it, with the policy ``gap``, and an ``Answer`` tells.

        ValueError if a row of a full tile depends on its neighbours.
        """
        if overload not in ("keep", "drop") or gap not in ("keep", "reset"):
            raise ValueError(f"overload is {overload!r}, gap is {gap!r}; expected keep or drop, and keep or reset")
        if tile < 1 or patience <= 0:
            raise ValueError(f"tile is {tile}, patience is {patience}; expected at least one row, and some time")
        self.model, self.size = model, Stream(model, block).size
        self.overload, self.patience, self.policy, self.clock = overload, patience, gap, clock
        self.tiles = Tiles(model, self.size, tile, exact)
        self.seats: dict[Stream, Seat] = {}
        self.queue: list[tuple[float, int, Seat]] = []  # a heap: the oldest block of each seat that has one
        self.joined = 0
        self.waits = Waits()
        self.spans: deque[tuple[float, float]] = deque(maxlen=SPAN)  # seconds of computing, seconds of streams
        self.fresh = threading.Condition()

    def join(self, stream: Stream) -> None:
        """A stream takes part from now on, with what it has remembered and what waits in it.

        ValueError if it has another model or block size, or takes part already.
        """
        if stream.model is not self.model or stream.size != self.size:
            raise ValueError(f"got a stream of {stream.size} ticks a block; expected {self.size}, and the same model")
        if stream in self.seats:
            raise ValueError("this stream takes part already")
        rows = self.tiles.rows
        row = self.tiles.reserve()
        if self.tiles.rows is not rows:
            self.show()
        seat = Seat(stream, self.joined, row, self.tiles.view(row))
        self.joined += 1
        with self.fresh:
            self.seats[stream] = seat
            self.settle(seat, self.clock())

    def leave(self, stream: Stream) -> None:
        """A stream takes no part any more, and has its state as a value of its own; what waits in it stays there."""
        with self.fresh:
            seat = self.seat(stream)
            del self.seats[stream]
            seat.arrived.clear()
            if stream.state is seat.shown:
                stream.state = pick(seat.shown, 0)
            self.tiles.free.append(seat.row)

    def feed(self, stream: Stream, chunk: Chunk, arrived: float | None = None) -> None:
        """A chunk of a stream, as for ``Stream.feed``; ``arrived`` on the clock, by default now. Any thread."""
        arrived = self.clock() if arrived is None else arrived
        with self.fresh:
            seat = self.seat(stream)
            stream.feed(chunk)
            if self.settle(seat, arrived):
                self.fresh.notify()

    def wait(self, seconds: float) -> bool:
        """Wait until some block does, for so many seconds at most; whether one does. Any thread."""
        with self.fresh:
            return self.fresh.wait_for(lambda: self.oldest() is not None, seconds)

    def turn(self) -> list[Answer]:
        """The blocks that have waited longest, one of each stream at most, answered as one batch; and what was passed
        over. Empty if nothing waits.
        """
        begun = self.clock()
        with self.fresh:
            answers = self.shed(begun) if self.overload == "drop" else []
            taken = [self.take(seat) for seat in self.longest_waiting()]
        return answers + self.serve(taken, begun)

    def gap(self, stream: Stream, ticks: int, how: Policy = "reset") -> list[Answer]:
        """Answer what waits in a stream; then ``Stream.gap``, which is the last answer."""
        answers = self.drain(stream)
        with self.fresh:
            seat = self.seat(stream)
            events = stream.gap(ticks, how)
            self.settle(seat, self.clock())
            return [*answers, Answer(stream, events, stream.first, stream.posteriors, 0.0, told(stream))]

    def snapshot(self, stream: Stream) -> bytes:
        """``Stream.snapshot``, the only way while a stream takes part: nobody feeds it meanwhile."""
        with self.fresh:
            self.seat(stream)
            return stream.snapshot()

    def close(self, stream: Stream) -> list[Answer]:
        """Answer what waits in a stream; then ``Stream.close``, which is the last answer. It takes no part any more."""
        answers = self.drain(stream)
        self.leave(stream)
        return [*answers, Answer(stream, stream.close(), stream.first, stream.posteriors, 0.0, told(stream))]

    @property
    def behind(self) -> float:
        """Seconds that the oldest block has waited until now; 0 if none waits."""
        with self.fresh:
            oldest = self.oldest()
        return 0.0 if oldest is None else max(0.0, self.clock() - oldest)

    @property
    def load(self) -> float:
        """Seconds of computing that all streams here need for a second of each, by the last turns; above 1 they are
        too many.
        """
        computing, streams = (sum(part) for part in zip(*self.spans, strict=True)) if self.spans else (0.0, 1.0)
        return len(self.seats) * computing / streams

    def seat(self, stream: Stream) -> Seat:
        """A stream's place, with its waits; ValueError if it takes no part."""
        if stream not in self.seats:
            raise ValueError("this stream takes no part; join it first")
        return self.seats[stream]

    def settle(self, seat: Seat, now: float) -> bool:
        """Write down the arrival of new blocks, and queue the oldest; whether one waits."""
        ready = seat.stream.spec.ticks(seat.stream.waiting) // self.size
        while len(seat.arrived) < ready:
            seat.arrived.append(now)
        while len(seat.arrived) > ready:  # a gap has answered them
            seat.arrived.popleft()
        if ready and not seat.queued:
            self.enqueue(seat)
        return ready > 0

    def oldest(self) -> float | None:
        """When the oldest waiting block arrived."""
        while self.queue:
            arrived, _, seat = self.queue[0]
            if seat.arrived and seat.arrived[0] == arrived:
                return arrived
            self.call()  # it has left, or that block was answered out of turn
            if seat.arrived:
                self.enqueue(seat)
        return None

    def enqueue(self, seat: Seat) -> None:
        """By the arrival of its oldest block, then in the order in which they joined."""
        seat.queued = True
        heapq.heappush(self.queue, (seat.arrived[0], seat.number, seat))

    def call(self) -> Seat:
        """The first in the queue."""
        seat = heapq.heappop(self.queue)[2]
        seat.queued = False
        return seat

    def longest_waiting(self) -> list[Seat]:
        """The seats whose turn it is, a tile of them at most."""
        chosen: list[Seat] = []
        while len(chosen) < self.tiles.tile and self.oldest() is not None:
            chosen.append(self.call())
        return chosen

    def drain(self, stream: Stream) -> list[Answer]:
        """Answer all blocks that wait in a stream, in batches like those of turns."""
        seat, answers = self.seat(stream), []
        while seat.arrived:
            begun = self.clock()
            with self.fresh:
                taken = [self.take(seat)]
            answers += self.serve(taken, begun)
        return answers

    def take(self, seat: Seat) -> Taken:
        """The oldest block of a seat."""
        return seat, seat.stream.take(), seat.arrived.popleft(), told(seat.stream)

    def serve(self, taken: Sequence[Taken], begun: float) -> list[Answer]:
        """A block of each of some seats, answered as one batch."""
        if not taken:
            return []
        for seat, *_ in taken:
            if seat.stream.state is not seat.shown:
                tree(lambda row, given: row.copy_(given), seat.shown, seat.stream.state)
                seat.stream.state = seat.shown
        y, good = self.tiles.run([seat.row for seat, *_ in taken], [block for _, block, *_ in taken])
        now = self.clock()
        answers = []
        with self.fresh:
            for row, (seat, _, arrived, warnings) in enumerate(taken):
                stream, waited = seat.stream, max(0.0, now - arrived)
                events = stream.answer(y[row], None if good[row] else seat.shown)
                warnings += told(stream)
                answers.append(Answer(stream, events, stream.first, stream.posteriors, waited, warnings))
                self.waits.add(waited)
                seat.waits.add(waited)
                self.settle(seat, now)
        self.spans.append((self.clock() - begun, len(taken) * self.size / self.model.rate))
        return answers

    def show(self) -> None:
        """The rows are others now."""
        for seat in self.seats.values():
            current = seat.stream.state is seat.shown
            seat.shown = self.tiles.view(seat.row)
            if current:
                seat.stream.state = seat.shown

    def shed(self, now: float) -> list[Answer]:
        """If a block has waited for more than ``patience``, all streams pass over what has waited for half of it: the
        last in the queue would always be the same ones.
        """
        answers = []
        allowed = self.patience
        while (oldest := self.oldest()) is not None and now - oldest > allowed:
            seat, allowed = self.call(), self.patience / 2
            taken = []
            while seat.arrived and now - seat.arrived[0] > allowed:
                taken.append(self.take(seat))
            warnings = [warning for *_, found in taken for warning in found]
            answers.append(self.passed(seat.stream, len(taken) * self.size, now - oldest, warnings))
            self.settle(seat, now)
        return answers

    def passed(self, stream: Stream, ticks: int, waited: float, warnings: list[dict[str, Any]]) -> Answer:
        """``ticks`` that were taken out of a stream are passed over."""
        at = stream.ticks - stream.spec.ticks(stream.waiting) - ticks
        events = stream.pass_over(ticks, self.policy)
        gap = Gap(ticks, BEHIND, self.policy)
        return Answer(stream, events, stream.first, stream.posteriors, waited, warnings, gap, at)


def told(stream: Stream) -> list[dict[str, Any]]:
    """The warnings of a stream, and none are left in it: the next ``feed`` may come from another thread."""
    warnings = list(stream.warnings)
    stream.warnings.clear()
    return warnings
