"""Sound and pictures of two devices on one clock, which is the sound's: its samples are counted.

A microphone's crystal and the computer's clock part by some seconds a day. Both devices say when on the computer's
clock their newest was captured; so the sound tells what its samples mean there, again and again, and a picture stands
where the sound is that was captured with it. The picture of a period is the last one until it begins, as for files.
"""

import math
from collections import deque
from collections.abc import Iterator

import numpy as np

from pipeline.media.audio import Samples
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Image
from pipeline.sources.source import BEHIND, Gap, Piece, Policy

RECENT = 3.0  # seconds of sound whose least late piece tells when a sample was captured
SLACK = 0.05  # seconds that a picture may be late before the one before it stands for it
LONG = 10.0  # seconds; a longer loss of sound is passed over


class Together:
    """``hear`` and ``see`` take what two sources give; they and ``wait`` yield what is decided by that.

    Attributes:
        lags: seconds by which the newest pictures were captured before the sound that they stand with begins: between 0
            and the camera's period, if both clocks are one.
    """

    def __init__(self, spec: InputSpec, gap: Policy = "reset", late: float = 0.0) -> None:
        """``gap``: what a loss of both does to the state; ``late``: seconds that a camera needs until it has a picture,
        beyond what the microphone does.
        """
        assert spec.picture is not None
        self.spec, self.how, self.late, self.rate = spec, gap, late, spec.rate
        self.sound: Samples = np.zeros(0, np.float32)  # not given yet; NaN where there is none
        self.heard = self.given = 0  # ticks
        self.away, self.why = False, ""  # whether the sound is lost, and why
        self.ahead = 0  # ticks that passed without sound, before the microphone said how many it has lost
        self.offsets: deque[tuple[float, float]] = deque()  # when, and what the clock says less the sound's time
        self.shots: deque[tuple[float, Image | None]] = deque()  # when captured; None: there are no pictures any more
        self.shown: tuple[float, Image | None] = -math.inf, None
        self.nothing = np.zeros((spec.picture.height, spec.picture.width, 3), np.uint8)
        self.lags: deque[float] = deque(maxlen=10_000)

    def hear(self, item: Piece | Gap, now: float) -> Iterator[Piece | Gap]:
        """What the microphone gives."""
        if isinstance(item, Gap):
            yield from self.missed(item, now)
            return
        x: Samples = item.x[0]
        self.away = self.away and not len(x)
        left_out = min(self.ahead, len(x))
        self.ahead -= left_out
        self.append(x[left_out:])
        if item.captured is not None:
            self.offsets.append((now, item.captured - (self.heard - self.ahead) / self.rate))
            while now - self.offsets[0][0] > RECENT:
                self.offsets.popleft()
        yield from self.wait(now)

    def missed(self, gap: Gap, now: float) -> Iterator[Piece | Gap]:
        """Sound is lost, or it is known how much was: so far as time has not gone on without it."""
        self.why, self.away = gap.why, not gap.ticks
        counted = min(self.ahead, gap.ticks)
        self.ahead -= counted
        yield from self.without(gap.ticks - counted, over=gap.why == BEHIND)
        yield from self.wait(now)

    def without(self, ticks: int, over: bool = False) -> Iterator[Piece | Gap]:
        """Time goes on without sound; a long while of it is passed over, and what we were too slow for: to compute it
        would make us slower.
        """
        begun = -self.heard % self.spec.grain
        if ticks > LONG * self.rate or (over and ticks >= begun + self.spec.grain):
            self.append(np.full(begun, np.nan, np.float32))
            yield from self.decided(math.inf)
            whole = (ticks - begun) // self.spec.grain * self.spec.grain
            self.given, self.heard = self.given + whole, self.heard + whole
            yield Gap(whole, self.why, "keep" if over else self.how)
            ticks -= begun + whole
        self.append(np.full(ticks, np.nan, np.float32))

    def see(self, item: Piece | Gap, now: float) -> Iterator[Piece | Gap]:
        """What the camera gives: fitted pictures, each with the time when it was captured."""
        if isinstance(item, Gap):
            if not item.ticks:
                self.shots.append((now, None))
        elif item.captured is not None and len(item.x[0]):
            captured = item.captured - self.late
            if not self.shots or self.shots[-1][0] < captured:
                self.shots.append((captured, item.x[0][-1]))
        yield from self.wait(now)

    def wait(self, now: float) -> Iterator[Piece | Gap]:
        """Time has passed."""
        if self.away and self.offsets and self.seeing:
            passed = math.floor((now - self.offset) * self.rate) - self.heard
            if passed > 0:  # there are pictures
                self.ahead += passed
                yield from self.without(passed)
        yield from self.decided(now)

    def append(self, x: Samples) -> None:
        """More sound."""
        self.sound = np.concatenate([self.sound, x])
        self.heard += len(x)

    def place(self, captured: float) -> float:
        """Seconds of the sound's time at which something was captured."""
        return captured - self.late - self.offset if self.offsets else 0.0

    @property
    def offset(self) -> float:
        """What the clock says less the sound's time, by the least late piece of the last seconds."""
        return min(offset for _, offset in self.offsets)

    @property
    def seeing(self) -> bool:
        """Whether there are pictures now."""
        return (self.shots[-1] if self.shots else self.shown)[1] is not None

    def decided(self, now: float) -> Iterator[Piece]:
        """The periods whose sound is there, and whose picture too, or late."""
        grain = self.spec.grain
        while len(self.sound) >= grain and self.offsets:
            begins = self.offset + self.given / self.rate
            while self.shots and self.shots[0][0] <= begins:
                self.shown = self.shots.popleft()
            if not self.shots and self.seeing and now < begins + SLACK:
                return
            sound, self.sound = self.sound[:grain], self.sound[grain:]
            self.given += grain
            captured, image = self.shown
            if image is not None:
                self.lags.append(begins - captured)
            there = ~np.isnan(sound)
            marks = np.array([[2 * there.sum() >= grain, image is not None]], np.float32)
            shown = (self.nothing if image is None else image)[None]
            yield Piece((np.where(there, sound, 0.0).astype(np.float32), shown, marks), begins + grain / self.rate)

    def told(self) -> str:
        """How well the two went together."""
        if not self.lags:
            return "no picture stood with sound"
        middle, most = 1000 * np.quantile(self.lags, [0.5, 0.99])
        return f"pictures are {middle:.0f} ms older than their sound in the median, 99 % at most {most:.0f} ms"
