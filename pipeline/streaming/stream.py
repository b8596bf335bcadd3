"""A stream of chunks through a model: the only mutable object, one per microphone, camera, client or file.

Whatever sizes the chunks arrive in, the model always sees the same blocks, so the answers are the same to the bit.
"""

import operator
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.decoder import Decoder, Event
from pipeline.media.input_spec import Arrays, Chunk
from pipeline.model.stream_model import Bound, Memory, StreamModel, finite
from pipeline.sources.source import Policy
from pipeline.streaming.backlog import Backlog
from pipeline.streaming.guard import Guard, clean
from pipeline.streaming.snapshot import Card, Remembered, engine_of, pack, refused, unpack

MAX_FILL_SECONDS = 10.0  # seconds of a gap that are computed at most
COUNTERS = "size", "ticks", "surplus", "skip", "steps", "end", "closed"  # of a stream, in its snapshots


class Stream:
    """Chunks of what the model takes (``input_spec.py``) in, events out; ``posteriors`` holds the steps last answered.

    Attributes:
        fetch: where a ``Scheduler`` keeps the state, the function that copies it from there; None otherwise.
        posteriors: ``(T, K)`` float32 of the last ``push`` or ``close``.
        first: index of the first of these steps; step s is known from tick ``(s + 1) * hop`` on.
        guard: what it has met that was not sound, in ``guard.counts``; see ``guard.py`` for what is done about it.
    """

    def __init__(self, model: StreamModel, block: int = 10, decoder: Decoder | None = None) -> None:
        """``block`` output steps are computed at a time, with sound and pictures rounded up to whole pictures: more is
        faster, less answers sooner. ConfigError if the model is not causal, or cannot compute such blocks.
        """
        self.model, self.spec = model, model.spec
        self.size = -(-block * model.hop // model.grain) * model.grain  # ticks
        model.check_block(self.size)
        self.decoder = decoder or model.decoder()
        self.fetch: Callable[[], Memory] | None = None
        self.value: Memory | None = model.begin(1)  # None: it is in ``bound``
        bounded = model.link != "linear"
        self.guard = Guard(model.rate, bool(self.spec.sound), self.value, len(model.labels), bounded)
        self.last = self.spec.empty()  # the last chunk that came
        self.waiting = Backlog(self.spec)
        self.ticks = 0  # received so far, and passed in gaps
        self.surplus = 0  # ticks to leave out after a gap, so that steps stay multiples of the hop
        self.skip = model.delay  # steps still to drop: they answer for the time before the start
        self.first = self.steps = 0  # answered so far
        self.end: int | None = None  # step at which the stream ends, once known
        self.closed = False
        self.posteriors = self.nothing = np.zeros((0, len(model.labels)), np.float32)

    @property
    def state(self) -> Memory:
        """The model's state: a plain value, which no later step changes."""
        if self.fetch:
            return self.fetch()
        return self.bound.memory() if self.value is None else self.value

    @state.setter
    def state(self, state: Memory) -> None:
        self.fetch, self.value = None, state

    @cached_property
    def bound(self) -> Bound:
        """Where this stream is computed, unless a ``Scheduler`` does."""
        return self.model.bound(1, self.size)

    def push(self, chunk: Chunk) -> list[Event]:
        """Take a chunk, of any length: samples ``(N,)``, RGB pictures ``(T, h, w, 3)`` of any size, or both; return the
        events that have ended.
        """
        self.feed(chunk)
        events: list[Event] = []
        answers = []
        while self.ready():
            bound = self.bound
            if self.fetch or self.value is not None:
                bound.gather(self.state, [0])
                self.fetch = self.value = None
            block, start = self.take()
            bound.put(0, block)
            clean([self.guard], bound.tracks, [start])
            bound.run(1)
            if good := bool(bound.good(1)[0]):
                bound.accept()
            events += self.answer(bound.y[0].copy(), good)
            answers.append(self.posteriors)
        if len(answers) > 1:
            self.posteriors = np.concatenate(answers)
        self.first = self.steps - len(self.posteriors)
        return events

    def feed(self, chunk: Chunk) -> None:
        """Only store a chunk; a ``Scheduler`` will compute it. ValueError once closed, or if the chunk is not what the
        model takes.
        """
        if self.closed:
            raise ValueError("this stream is closed; begin a new Stream")
        parts = self.spec.parts(chunk)
        if self.surplus:
            left_out = min(self.surplus, self.spec.ticks(parts))
            self.surplus -= left_out
            parts = self.spec.cut(parts, left_out)[1]
        if ticks := self.spec.ticks(parts):
            self.ticks += ticks
            self.waiting.put(parts)
            self.last = parts
        self.posteriors, self.first = self.nothing, self.steps  # those of the last call, as its warnings
        self.guard.warnings.clear()

    @property
    def received(self) -> int:
        """The tick up to which all was received, or passed in gaps."""
        return self.ticks - self.surplus

    @property
    def answered(self) -> int:
        """The tick up to which nothing waits to be computed."""
        return self.received - self.waiting.ticks

    @property
    def newest(self) -> Arrays:
        """The last step of each track, which padding may repeat."""
        return tuple(array[-1:] for array in self.last)

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """Rows ``{time, code, text}`` of what was not sound in the last ``push``, ``gap`` or ``close``; time in
        seconds. One for each episode; the codes are those of ``guard.py``.
        """
        return self.guard.warnings

    def ready(self) -> bool:
        """Whether a whole block is waiting."""
        return self.waiting.ticks >= self.size

    def take(self) -> tuple[Arrays, int]:
        """The oldest waiting block as it came, and its first tick."""
        start = self.ticks - self.waiting.ticks
        return self.waiting.take(self.size), start

    def answer(self, y: NDArray[np.float32], good: bool, quiet: bool = False) -> list[Event]:
        """Take a block's posteriors ``(T, K)``, less the steps before the start and after the end. Unless they and the
        state after them were ``good``, that is finite, the state must still be the one before the block. ``quiet``:
        they reach none of the decoder's ``levels``.
        """
        if good:
            self.guard.held, self.guard.counts.failing = y[-1], 0
        else:
            start = (self.steps + self.model.delay - self.skip) * self.model.hop
            y, restart = self.guard.replaced(y, not finite(self.state, self.guard.initial).all(), start, self.size)
            if restart:
                self.state = self.guard.initial
        if self.skip or self.end is not None:
            dropped = min(self.skip, len(y))
            self.skip -= dropped
            y = y[dropped:][: None if self.end is None else self.end - self.steps]
        self.posteriors, self.first = y, self.steps
        self.steps += len(y)
        if quiet and not self.decoder.open:
            self.decoder.pass_over(len(y))
            return []
        return self.decoder.decode(y)

    def close(self) -> list[Event]:
        """The stream is over: answer for what is left (padded as training clips are) and end the open events."""
        events = self.flush()
        self.closed = True
        return events

    def flush(self) -> list[Event]:
        """Answer for all that was received, and end the open events. The state is of no use afterwards."""
        now, surplus, self.surplus = self.ticks, self.surplus, 0
        self.end = -(-self.ticks // self.model.hop)
        wanted = (self.end - self.steps + self.skip) * self.model.hop
        missing = wanted + -wanted % self.size - self.waiting.ticks
        events = self.push(self.spec.padding(self.newest, missing)) + self.decoder.close()
        self.ticks, self.surplus = now, surplus
        return events

    def gap(self, ticks: int, how: Policy = "reset") -> list[Event]:
        """Time passes, but nothing came for so many ticks; the events that have ended by that.

        ``reset``: open events end, and what follows begins anew. ``hold``: the last picture stands still, sound is
        silent; ``zeros``: black, and silent. Both are computed for ``MAX_FILL_SECONDS`` at most. ``keep``: the state
        waits as it is. Steps that are not computed have no posteriors; time stamps stay exact. ValueError if ``ticks``
        is no multiple of the spec's grain.
        """
        ticks = operator.index(ticks)  # never a number of numpy, which has an end
        if ticks < 0 or ticks % self.spec.grain:
            raise ValueError(f"a gap of {ticks} ticks; expected a multiple of {self.spec.grain}")
        counted = min(ticks, self.surplus)  # by the gap before, already
        ticks, self.surplus = ticks - counted, self.surplus - counted
        if how == "reset":
            events = self.flush()
            self.state, self.end = self.model.begin(1), None
            self.guard.reset()
            self.last = self.spec.empty()
            self.waiting = Backlog(self.spec)
            self.jump(ticks)
            return events
        fill = self.model.delay * self.model.hop if how == "keep" else round(MAX_FILL_SECONDS * self.model.rate)
        fill += -(self.waiting.ticks + fill) % self.size  # whole blocks, so that nothing waits
        fill = min(ticks, fill)
        held = self.newest if how != "zeros" else self.spec.empty()
        events = self.push(self.spec.padding(held, fill))
        if fill < ticks:
            self.jump(ticks - fill)
        return events

    def pass_over(self, ticks: int, how: Literal["keep", "reset"]) -> list[Event]:
        """A gap for ``ticks`` that were taken and not answered, before what waits; the events that have ended by that.

        Nothing is computed, unlike in ``gap``: passing over must not add to a load. So with ``head.delay`` the answers
        for so long before the gap are lost, too.
        """
        later = self.waiting.ticks
        self.ticks -= ticks + later
        events = self.decoder.close() if how == "reset" else []
        if how == "reset":
            self.state = self.model.begin(1)
            self.guard.reset()
        self.jump(ticks)
        self.ticks += later
        self.posteriors, self.first = self.nothing, self.steps
        return events

    def jump(self, ticks: int) -> None:
        """Go on so many ticks later, at a step that is next."""
        later = self.ticks - self.surplus + ticks
        self.surplus = -later % self.model.grain
        self.ticks = later + self.surplus
        steps = self.ticks // self.model.hop
        self.decoder.pass_over(steps - self.steps)
        self.steps, self.skip = steps, self.model.delay

    def snapshot(self) -> bytes:
        """All that the stream remembers, for ``restore``; what was answered last is not in it. SnapshotError if more
        is waiting than ``snapshot.MAX_WAITING_BYTES``, which only a stream that nobody computes has.
        """
        counters = {name: getattr(self, name) for name in COUNTERS}
        card = Card(**counters, decoder=self.decoder.snapshot(), guard=self.guard.counts)
        return pack(self.model, Remembered(card, self.state, self.waiting.parts(), self.newest, self.guard.held))

    @classmethod
    def restore(cls, model: StreamModel, data: bytes, decoder: Decoder | None = None) -> Self:
        """The stream of a ``snapshot``, in any process: it goes on as if nothing had been, bit for bit.

        ``decoder``: a new one with the settings that the stream's had, if they were not the model's. SnapshotError if
        the bytes are damaged, or of another model or version. A UserWarning tells that another engine took it.
        """
        card, state, waiting, newest, held = unpack(model, data)
        if card.engine != (engine := engine_of(model)):
            told = f"snapshot: of a stream computed by {card.engine}, which goes on by {engine} with other last bits"
            warnings.warn(f"{told}; compute={card.engine} keeps them", stacklevel=2)
        try:
            stream = cls(model, card.size // model.hop, decoder)
            stream.decoder.restore(card.decoder)
        except ValueError as error:
            raise refused(str(error)) from None
        if stream.decoder.step != card.steps:
            raise refused(f"its decoder is at step {stream.decoder.step}; expected {card.steps}")
        for name in COUNTERS:
            setattr(stream, name, getattr(card, name))
        stream.state, stream.last, stream.first = state, newest, card.steps
        stream.waiting.put(waiting)
        stream.guard.counts, stream.guard.held = card.guard, held
        return stream

    @property
    def open(self) -> list[Event]:
        """The events that have begun and not ended."""
        return self.decoder.open_events()
