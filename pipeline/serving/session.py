"""A client's connection as bytes and a clock: what it says becomes orders for the hall, or ends it. No network here.

Frames follow one another by their ticks: what is known already is cut off, a hole ends the connection. So frames can
be sent again after a loss, and each is taken once. Of two tracks the sound is the clock: the picture of a period is the
newest that was sent before its sound and was captured when it began, or earlier.
"""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from pipeline.media.audio import Samples
from pipeline.media.input_spec import InputSpec
from pipeline.serving import messages as said
from pipeline.serving.messages import Frame, Hello, Refused
from pipeline.serving.orders import Chunk, Enter, Leave, Lost, Order, Parts
from pipeline.sources.source import BEHIND, Policy
from pipeline.streaming.stream import MAX_FILL_SECONDS

SPEED = 4.0  # times real time, at most
MESSAGES = 150.0  # a second, at most
BURST_SECONDS = 2.0  # of both
GAP_SECONDS = 0.2  # of input that a gap counts for; more where it is filled
MAX_PICTURES, MAX_PICTURE_BYTES = 64, 4 << 20  # that wait for their sound
NOTHING: Samples = np.zeros(0, np.float32)


class Session:
    """One connection.

    Attributes:
        greeted, welcomed, ended: how far it is.
        expected: the tick that comes next. ``given``: all before is in orders. ``answered``: all before is, says the
            hall.
    """

    def __init__(self, spec: InputSpec, credit: int, gap: Policy, fits: Callable[[str], bool], now: float) -> None:
        """``credit``: ticks that may be without an answer. ``gap``: what it does to the state. ``fits``: whether a
        token is right. ``now``: seconds on any clock, as in ``take``.
        """
        self.spec, self.credit, self.gap, self.fits = spec, credit, gap, fits
        self.free_at = now - BURST_SECONDS
        self.greeted = self.welcomed = self.ended = False
        self.expected = self.answered = self.given = 0
        self.sound = NOTHING  # less than a period of it; NaN where there is none
        self.pictures: deque[tuple[int, bytes | None]] = deque()
        self.picture: bytes | None = None
        self.seen = 0  # tick of the newest picture

    def welcome(self, tick: int) -> None:
        """The hall has let it in; frames begin at a tick."""
        self.welcomed, self.expected, self.answered, self.given = True, tick, tick, tick

    def pause(self, now: float) -> float:
        """Seconds for which no more should be read: it would be too fast."""
        return self.free_at - now

    @property
    def has_credit(self) -> bool:
        """Whether more may be read: not too much is without an answer."""
        return self.expected - self.answered <= self.credit

    def take(self, message: str | bytes, now: float) -> Iterator[Order | str]:
        """What follows from a message: orders for the hall, texts for the client. Refused if it ends the connection."""
        self.free_at = max(self.free_at, now - BURST_SECONDS) + 1 / MESSAGES
        if isinstance(message, str):
            yield from self.take_text(said.parse_text(message))
        elif not self.welcomed or self.ended:
            raise Refused(said.MALFORMED, "a frame before the welcome, or after the end")
        else:
            frame = said.parse_frame(message, self.spec)
            seconds = frame.length / self.spec.rate
            if frame.kind == said.GAP:
                seconds = max(GAP_SECONDS, min(seconds, MAX_FILL_SECONDS) if self.gap in ("hold", "zeros") else 0.0)
            self.free_at += seconds / SPEED
            yield from self.take_frame(frame)

    def take_text(self, text: said.Said) -> Iterator[Order | str]:
        if isinstance(text, Hello):
            if self.greeted:
                raise Refused(said.MALFORMED, "a second hello")
            if not self.fits(text.token):
                raise Refused(said.TOKEN, "the token is wrong: open the address that the server printed")
            if text.tick % self.spec.grain:
                raise Refused(said.MALFORMED, f"tick {text.tick}: expected a multiple of {self.spec.grain}")
            self.greeted = True
            yield Enter(text)
        elif not self.greeted:
            raise Refused(said.MALFORMED, "expected hello first")
        elif isinstance(text, said.Ping):
            yield said.text_of("pong", time=text.time)
        elif self.welcomed and not self.ended:
            self.ended = True
            yield from self.rest()
            yield Leave()

    def take_frame(self, frame: Frame) -> Iterator[Order]:
        if frame.kind == said.PICTURE and self.spec.both:
            self.add_picture(frame.tick, frame.payload)
            return
        if frame.flags == said.CAMERA_LOST and frame.kind == said.GAP:
            self.add_picture(frame.tick, None)
            return
        if frame.tick > self.expected:
            raise Refused(said.HOLE, f"got tick {frame.tick}; expected {self.expected}: a gap has to be told")
        known = min(self.expected - frame.tick, frame.length)
        length = frame.length - known
        if not length:
            return
        if frame.kind != said.GAP and length > self.credit:
            raise Refused(said.TOO_LARGE, f"{length} ticks at once; expected {self.credit} at most")
        self.expected += length
        if frame.kind == said.SOUND and self.spec.both:
            yield from self.add_sound(said.samples_of(frame)[known:])
        elif frame.kind == said.SOUND:
            yield Parts((said.samples_of(frame)[known:],))
        elif frame.kind == said.PICTURE:
            yield Chunk(None, [frame.payload] * length, [])
        else:
            yield from self.add_gap(length, frame)

    def add_picture(self, tick: int, data: bytes | None) -> None:
        """A picture of a camera beside the sound, or its loss; one that is older than another before it is dropped."""
        if tick >= self.seen:
            self.pictures.append((tick, data))
            self.seen = tick
        size = sum(len(one or b"") for _, one in self.pictures)
        if len(self.pictures) > MAX_PICTURES or size > MAX_PICTURE_BYTES:
            raise Refused(said.TOO_LARGE, f"{len(self.pictures)} pictures of {size:,} bytes ahead of their sound")

    def add_sound(self, samples: Samples) -> Iterator[Order]:
        """The periods that are whole now, with their pictures."""
        grain = self.spec.grain
        self.sound = np.concatenate([self.sound, samples])
        whole = len(self.sound) // grain * grain
        if not whole:
            return
        sound, self.sound = self.sound[:whole], self.sound[whole:]
        pictures = []
        for tick in range(self.given, self.given + whole, grain):
            while self.pictures and self.pictures[0][0] <= tick:
                self.picture = self.pictures.popleft()[1]
            pictures.append(self.picture)
        self.given += whole
        there = ~np.isnan(sound)
        heard = (2 * there.reshape(-1, grain).sum(1) >= grain).tolist()
        yield Chunk(np.where(there, sound, np.float32(0)), pictures, heard)

    def add_gap(self, length: int, frame: Frame) -> Iterator[Order]:
        """Time without input; of two tracks whole periods of it, and the rest without sound."""
        why = frame.payload.decode("utf-8", "replace")
        how: Policy = "keep" if why == BEHIND else self.gap
        if not self.spec.both:
            yield Lost(length, why, how)
            return
        if frame.flags == said.SOUND_LOST and length > self.credit:
            raise Refused(said.TOO_LARGE, f"sound is lost for {length} ticks at once; expected {self.credit} at most")
        begun = min(-len(self.sound) % self.spec.grain, length)
        yield from self.add_sound(no_sound(begun))
        whole = 0 if frame.flags else (length - begun) // self.spec.grain * self.spec.grain
        if whole:
            self.given += whole
            yield Lost(whole, why, how)
        yield from self.add_sound(no_sound(length - begun - whole))

    def rest(self) -> Iterator[Order]:
        """Less than a period of sound that is left at the end: filled up with nothing."""
        yield from self.add_sound(no_sound(-len(self.sound) % self.spec.grain))


def no_sound(ticks: int) -> Samples:
    """So many ticks without sound, beside pictures."""
    return np.full(ticks, np.nan, np.float32)
