"""Sound and pictures of two devices on one clock: the sound's, whose samples are counted.

A microphone's crystal and the computer's clock drift apart by some seconds a day. Both devices say when, on the
computer's clock, their newest data were captured. So the sound is the reference: its least late pieces map samples to
the computer's clock, and a picture is placed at the sound that was captured with it. The picture of a period is the
last one before the period begins, as for files.
"""

import math
from collections import deque
from collections.abc import Iterator

import numpy as np

from pipeline.media.audio import Samples
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Image
from pipeline.sources.source import BEHIND, Gap, Piece, Policy

OFFSET_SECONDS = 3.0  # of sound whose least late piece maps samples to the clock
MAX_PICTURE_WAIT_SECONDS = 0.05  # then the last picture stands for one that is late
MAX_FILL_SECONDS = 10.0  # a longer loss of sound is a gap


class AVSync:
    """``add_sound`` and ``add_picture`` take what two sources yield. They, and ``advance``, yield what is complete.

    Attributes:
        lags: seconds by which the newest pictures are older than the beginning of their sound: between 0 and the
            camera's period, if both clocks agree.
    """

    def __init__(self, spec: InputSpec, gap: Policy = "reset", late: float = 0.0) -> None:
        """``gap``: what a loss of both does to the state; ``late``: seconds by which a camera's delay exceeds the
        microphone's.
        """
        assert spec.picture is not None
        self.spec, self.how, self.late, self.rate = spec, gap, late, spec.rate
        self.sound: Samples = np.zeros(0, np.float32)  # not given yet; NaN where there is none
        self.received = self.given = 0  # ticks
        self.sound_lost, self.why = False, ""
        self.ahead = 0  # ticks that passed without sound, before the microphone reported how many it has lost
        self.offsets: deque[tuple[float, float]] = deque()  # when, and the clock less the sound's time
        self.pictures: deque[tuple[float, Image | None]] = deque()  # when captured; None: the camera is lost
        self.current: tuple[float, Image | None] = -math.inf, None
        self.black = np.zeros((spec.picture.height, spec.picture.width, 3), np.uint8)
        self.lags: deque[float] = deque(maxlen=10_000)

    def add_sound(self, item: Piece | Gap, now: float) -> Iterator[Piece | Gap]:
        """Take what the microphone yields."""
        if isinstance(item, Gap):  # the loss of sound begins, or its length is known; a part may be filled already
            self.why, self.sound_lost = item.why, not item.ticks
            filled = min(self.ahead, item.ticks)
            self.ahead -= filled
            yield from self.fill(item.ticks - filled, skip=item.why == BEHIND)
        else:
            x: Samples = item.x[0]
            self.sound_lost = self.sound_lost and not len(x)
            filled = min(self.ahead, len(x))
            self.ahead -= filled
            self.append(x[filled:])
            if item.captured is not None:
                self.offsets.append((now, item.captured - (self.received - self.ahead) / self.rate))
                while now - self.offsets[0][0] > OFFSET_SECONDS:
                    self.offsets.popleft()
        yield from self.advance(now)

    def fill(self, ticks: int, skip: bool = False) -> Iterator[Piece | Gap]:
        """Time passes without sound. A long loss is a gap, and so is what we were too slow for (``skip``): to compute
        it would make us slower.
        """
        rest = -self.received % self.spec.grain
        if ticks > MAX_FILL_SECONDS * self.rate or (skip and ticks >= rest + self.spec.grain):
            self.append(np.full(rest, np.nan, np.float32))
            yield from self.complete(math.inf)
            whole = (ticks - rest) // self.spec.grain * self.spec.grain
            self.given, self.received = self.given + whole, self.received + whole
            yield Gap(whole, self.why, "keep" if skip else self.how)
            ticks -= rest + whole
        self.append(np.full(ticks, np.nan, np.float32))

    def add_picture(self, item: Piece | Gap, now: float) -> Iterator[Piece | Gap]:
        """What the camera yields: fitted pictures, each with its time of capture."""
        if isinstance(item, Gap):
            if not item.ticks:
                self.pictures.append((now, None))
        elif item.captured is not None and len(item.x[0]):
            captured = item.captured - self.late
            if not self.pictures or self.pictures[-1][0] < captured:
                self.pictures.append((captured, item.x[0][-1]))
        yield from self.advance(now)

    def advance(self, now: float) -> Iterator[Piece | Gap]:
        """Give what is complete, now that time has passed."""
        if self.sound_lost and self.offsets and self.has_pictures:
            passed = math.floor((now - self.offset) * self.rate) - self.received
            if passed > 0:
                self.ahead += passed
                yield from self.fill(passed)
        yield from self.complete(now)

    def append(self, x: Samples) -> None:
        self.sound = np.concatenate([self.sound, x])
        self.received += len(x)

    def seconds(self, captured: float) -> float:
        """The sound's time at which something was captured."""
        return captured - self.late - self.offset if self.offsets else 0.0

    @property
    def offset(self) -> float:
        """The clock less the sound's time, by the least late piece of the last seconds."""
        return min(offset for _, offset in self.offsets)

    @property
    def has_pictures(self) -> bool:
        return (self.pictures[-1] if self.pictures else self.current)[1] is not None

    def complete(self, now: float) -> Iterator[Piece]:
        """The periods whose sound is there, and whose picture is there or too late."""
        grain = self.spec.grain
        while len(self.sound) >= grain and self.offsets:
            begin = self.offset + self.given / self.rate
            while self.pictures and self.pictures[0][0] <= begin:
                self.current = self.pictures.popleft()
            if not self.pictures and self.has_pictures and now < begin + MAX_PICTURE_WAIT_SECONDS:
                return
            sound, self.sound = self.sound[:grain], self.sound[grain:]
            self.given += grain
            captured, image = self.current
            if image is not None:
                self.lags.append(begin - captured)
            present = ~np.isnan(sound)
            marks = np.array([[2 * present.sum() >= grain, image is not None]], np.float32)
            picture = (self.black if image is None else image)[None]
            yield Piece((np.where(present, sound, 0.0).astype(np.float32), picture, marks), begin + grain / self.rate)

    def summary(self) -> str:
        """How well the two went together."""
        if not self.lags:
            return "no picture stood with sound"
        middle, most = 1000 * np.quantile(self.lags, [0.5, 0.99])
        return f"pictures are {middle:.0f} ms older than their sound in the median, 99 % at most {most:.0f} ms"
