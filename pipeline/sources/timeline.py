"""What a microphone delivers on a model's clock: every sample in its place, and every loss told with its length.

Time is counted in samples. Where they are missing, our clock tells how many: once the sound that follows has come in
step, the least late of its blocks is compared with the least late before the loss (``pace.py``). Until then, ``SETTLE``
seconds, what follows waits, so that the gap stands where it was. A drift between the device's clock and ours is told
and not mended: sound alone needs no other clock.
"""

import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal

import numpy as np

from pipeline.media.audio import Resampler, Samples, sanitize
from pipeline.sources.camera import LostError
from pipeline.sources.pace import Pace
from pipeline.sources.ring import Block
from pipeline.sources.source import BEHIND, Gap, Piece, Policy

LATE = 0.25  # seconds by which a block is late when something may have been lost before it
SETTLE = 0.5  # seconds of sound that tell how long a loss was
LONGEST = 2.0  # the same, if the sound does not come in step
JITTER = 0.02  # seconds below which a delay is no loss, unless the device says so
QUIETEST = -120.0  # dB of full scale

Channel = int | Literal["mix"]
Tell = Callable[[str], None]


class WrongRateError(LostError):
    """The device does not deliver what it says; ``rate`` is what it does."""

    def __init__(self, rate: float, said: int) -> None:
        super().__init__(f"it delivers {rate:.0f} samples a second, not {said}")
        self.rate = rate


class Line:
    """What a device delivers, block by block, as pieces and gaps at ``rate`` ticks a second.

    Attributes:
        overflows: how often the device said that it lost something; ``overruns``: how often we had no room.
    """

    def __init__(self, rate: int, channel: Channel, how: Policy, muted: float | None, tell: Tell) -> None:
        """``muted``: seconds of nothing but zeros that are told (None: never), by ``tell``."""
        self.rate, self.channel, self.how, self.muted, self.tell = rate, channel, how, muted, tell
        self.due = Fraction(0)  # ticks that all frames and gaps so far amount to
        self.given = 0  # ticks
        self.overflows = self.overruns = 0
        self.peak, self.zeros = 0.0, 0
        self.ended = math.nan  # when, on our clock, the sound ended that was last passed on
        self.away = ""  # why there is none now

    def begin(self, rate: int) -> None:
        """A device has been opened, of ``rate`` Hz."""
        self.own, self.frames = rate, 0
        self.convert = Resampler(rate, self.rate) if rate != self.rate else None
        self.pace = self.fresh = Pace(rate)
        self.held: list[Block] = []
        self.drifting = False

    def add(self, block: Block) -> Iterator[Piece | Gap]:
        """The next block. WrongRateError if the device delivers another rate than it says."""
        self.zeros = 0 if block.data.any() else self.zeros + len(block.data)
        before, frames = self.pace.best(), block.start + len(block.data)
        self.pace.add(block.arrived, frames)
        self.overflows += block.overflow
        other = self.pace.other_rate()
        if other is not None:
            self.held.append(block)
            raise WrongRateError(other, self.own)
        if not self.held and (self.away or ((block.overflow or self.pace.late > LATE) and math.isfinite(before))):
            if not self.away:
                self.fresh, self.ended = Pace(self.own), before + block.start / self.own
            self.held.append(block)
        elif self.held:
            self.held.append(block)
        if not self.held:
            yield from self.passed(block)
            self.doubt()
            return
        if self.fresh is not self.pace:
            self.fresh.add(block.arrived, frames)
        spent = block.arrived - self.held[0].arrived
        if (spent >= SETTLE and self.fresh.flat()) or spent >= LONGEST:
            yield from self.settled()

    def settled(self) -> Iterator[Piece | Gap]:
        """The sound is in step again: now it is known how much was lost."""
        first = self.held[0]
        lost = self.fresh.best() + first.start / self.own - self.ended
        if self.away or first.overflow or lost > JITTER:
            why = f"{self.away}; it is back" if self.away else "the device has lost sound"
            yield from self.gap(Fraction(round(max(0.0, lost) * 1e6), 10**6), why)
            self.pace = self.fresh
        self.away = ""
        yield from self.released()

    def finish(self) -> Iterator[Piece | Gap]:
        """No more will come: what waits, and what the resampler holds."""
        if self.held:
            yield from self.settled()
        yield from self.rest()

    def released(self) -> Iterator[Piece | Gap]:
        """What was held back."""
        held, self.held = self.held, []
        for block in held:
            yield from self.passed(block)

    def passed(self, block: Block) -> Iterator[Piece | Gap]:
        """A block at the model's rate, after what found no room before it."""
        missing = block.start - self.frames
        if missing:
            self.overruns += 1
            yield from self.gap(Fraction(missing, self.own), BEHIND)
        mono = block.data[:, self.channel] if isinstance(self.channel, int) else block.data.mean(1)
        self.peak = max(self.peak, float(np.abs(sanitize(mono)).max(initial=0.0)))
        self.frames = block.start + len(mono)
        self.due += Fraction(len(mono) * self.rate, self.own)
        yield from self.piece(self.convert(mono) if self.convert else mono, block.captured)

    def piece(self, x: Samples, captured: float | None) -> Iterator[Piece]:
        """Samples at the model's rate, if there are any; ``captured``: the newest that the resampler has taken in."""
        if not len(x):
            return
        self.given += len(x)
        if captured is not None:
            captured -= max(0.0, float(self.due - self.given) / self.rate)
        level = 20 * math.log10(self.peak) if self.peak > 0 else QUIETEST
        self.peak = 0.0
        yield Piece((x,), captured, level=max(level, QUIETEST))

    def gap(self, seconds: Fraction, why: str) -> Iterator[Piece | Gap]:
        """Nothing for so long, after what the resampler still holds."""
        yield from self.rest()
        self.due += seconds * self.rate
        ticks = max(1, round(self.due) - self.given)
        self.given += ticks
        yield Gap(ticks, why, self.how)

    def rest(self) -> Iterator[Piece]:
        """What the resampler still holds."""
        if self.convert:
            yield from self.piece(self.convert.close(), None)
            self.convert = Resampler(self.own, self.rate)

    def lose(self, error: LostError) -> Iterator[Piece | Gap]:
        """The device is lost: what there is of it, and that it is."""
        wrong = isinstance(error, WrongRateError)
        if wrong and not self.away:
            yield from self.released()
        yield from self.finish()
        if not self.away:
            offset = self.pace.points[0][0] if wrong else self.pace.best()  # before it went wrong
            self.ended = offset + self.frames / self.own
            self.away = str(error)
            yield Gap(0, self.away, self.how)

    def doubt(self) -> None:
        """Tell what is odd about the device, once each time."""
        drift = None if self.drifting else self.pace.drift()
        if drift is not None:
            self.drifting = True
            slower = "slower" if drift > 0 else "faster"
            self.tell(f"the device's clock is {1e6 * abs(drift):.0f} ppm {slower} than ours; times are the device's")
        if self.muted is not None and self.zeros >= self.muted * self.own:
            self.zeros = -sys.maxsize  # until there is sound
            self.tell(f"digital silence for {self.muted:g} s: is the microphone muted?")
