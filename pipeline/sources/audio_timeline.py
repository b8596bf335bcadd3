"""A microphone's blocks on a model's clock: every sample in its place, and every loss as a gap of its length.

Time is counted in samples. Where samples are missing, our clock tells how many: once the sound after a loss is steady
again, its least late block is compared with the least late block before the loss (``device_clock.py``). Until then,
about ``SETTLE_SECONDS``, the sound after the loss is held back, so that the gap stands in its place. A drift between
the device's clock and ours is reported, not corrected: sound alone needs no other clock.
"""

import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal

import numpy as np

from pipeline.media.audio import Resampler, Samples, sanitize
from pipeline.sources.block_queue import Block
from pipeline.sources.capture import LostError
from pipeline.sources.device_clock import DeviceClock
from pipeline.sources.source import BEHIND, Gap, Piece, Policy

MAX_LATE_SECONDS = 0.25  # a block that is later may follow a loss
SETTLE_SECONDS = 0.5  # of sound that measure a loss
MAX_SETTLE_SECONDS = 2.0  # the same, if the sound does not become steady
MIN_LOSS_SECONDS = 0.02  # a shorter delay is no loss, unless the device reports one
MIN_LEVEL_DB = -120.0  # of full scale

Channel = int | Literal["mix"]


class WrongRateError(LostError):
    """The device delivers ``rate`` samples a second, not as many as it states."""

    def __init__(self, rate: float, said: int) -> None:
        super().__init__(f"it delivers {rate:.0f} samples a second, not {said}")
        self.rate = rate


class AudioTimeline:
    """Turns a device's blocks into pieces and gaps at ``rate`` ticks a second.

    Attributes:
        overflows: how often the device reported a loss; ``overruns``: how often there was no room for its blocks.
        lost: why there is no sound now; empty if there is.
    """

    def __init__(
        self, rate: int, channel: Channel, how: Policy, muted: float | None, warn: Callable[[str], None]
    ) -> None:
        """``muted``: seconds of nothing but zeros that ``warn`` is called for (None: never)."""
        self.rate, self.channel, self.how, self.muted, self.warn = rate, channel, how, muted, warn
        self.due = Fraction(0)  # ticks of all frames and gaps so far
        self.given = 0  # ticks
        self.overflows = self.overruns = 0
        self.peak, self.zeros = 0.0, 0
        self.ended = math.nan  # when, on our clock, the sound ended that was last given
        self.lost = ""
        self.held: list[Block] = []
        self.convert = Resampler(rate, rate)

    def begin(self, rate: int) -> None:
        """A device of ``rate`` Hz has been opened."""
        self.device_rate, self.frames = rate, 0
        self.convert = Resampler(rate, self.rate)
        self.clock = self.clock_after = DeviceClock(rate)  # the second one begins after a loss
        self.held = []
        self.drifts = False

    def add(self, block: Block) -> Iterator[Piece | Gap]:
        """The next block. WrongRateError if the device delivers another rate than it says."""
        self.zeros = 0 if block.data.any() else self.zeros + len(block.data)
        before, frames = self.clock.offset(), block.start + len(block.data)
        self.clock.add(block.arrived, frames)
        self.overflows += block.overflow
        rate = self.clock.other_rate()
        if rate is not None:
            self.held.append(block)
            raise WrongRateError(rate, self.device_rate)
        suspect = (block.overflow or self.clock.late > MAX_LATE_SECONDS) and math.isfinite(before)
        if not self.held and not self.lost and not suspect:
            yield from self.give(block)
            self.check()
            return
        if not self.held and not self.lost:
            self.clock_after, self.ended = DeviceClock(self.device_rate), before + block.start / self.device_rate
        self.held.append(block)
        if self.clock_after is not self.clock:
            self.clock_after.add(block.arrived, frames)
        spent = block.arrived - self.held[0].arrived
        if (spent >= SETTLE_SECONDS and self.clock_after.steady()) or spent >= MAX_SETTLE_SECONDS:
            yield from self.settle()

    def settle(self) -> Iterator[Piece | Gap]:
        """The sound is steady again, so the length of the loss is known: give the gap and what was held back."""
        first = self.held[0]
        lost = self.clock_after.offset() + first.start / self.device_rate - self.ended
        if self.lost or first.overflow or lost > MIN_LOSS_SECONDS:
            why = f"{self.lost}; it is back" if self.lost else "the device has lost sound"
            yield from self.gap(Fraction(round(max(0.0, lost) * 1e6), 10**6), why)
            self.clock = self.clock_after
        self.lost = ""
        yield from self.release()

    def release(self) -> Iterator[Piece | Gap]:
        """Give what was held back."""
        held, self.held = self.held, []
        for block in held:
            yield from self.give(block)

    def finish(self) -> Iterator[Piece | Gap]:
        """No more will come: give what was held back, and what the resampler holds."""
        if self.held:
            yield from self.settle()
        yield from self.flush()

    def lose(self, error: LostError) -> Iterator[Piece | Gap]:
        """The device is lost: give what is left of it, and the beginning of a gap."""
        wrong_rate = isinstance(error, WrongRateError)
        if wrong_rate and not self.lost:
            yield from self.release()
        yield from self.finish()
        if not self.lost:
            offset = self.clock.first_offset() if wrong_rate else self.clock.offset()  # before it went wrong
            self.ended = offset + self.frames / self.device_rate
            self.lost = str(error)
            yield Gap(0, self.lost, self.how)

    def give(self, block: Block) -> Iterator[Piece | Gap]:
        """A block at the model's rate, after a gap for the blocks that found no room before it."""
        missing = block.start - self.frames
        if missing:
            self.overruns += 1
            yield from self.gap(Fraction(missing, self.device_rate), BEHIND)
        mono = block.data[:, self.channel] if isinstance(self.channel, int) else block.data.mean(1)
        self.peak = max(self.peak, float(np.abs(sanitize(mono)).max(initial=0.0)))
        self.frames = block.start + len(mono)
        self.due += Fraction(len(mono) * self.rate, self.device_rate)
        yield from self.piece(self.convert(mono), block.captured)

    def piece(self, x: Samples, captured: float | None) -> Iterator[Piece]:
        """Samples at the model's rate, if any; ``captured``: of the newest sample that the resampler has taken in."""
        if not len(x):
            return
        self.given += len(x)
        if captured is not None:
            captured -= max(0.0, float(self.due - self.given) / self.rate)
        level = 20 * math.log10(self.peak) if self.peak > 0 else MIN_LEVEL_DB
        self.peak = 0.0
        yield Piece((x,), captured, level=max(level, MIN_LEVEL_DB))

    def gap(self, seconds: Fraction, why: str) -> Iterator[Piece | Gap]:
        """A gap, after what the resampler still holds."""
        yield from self.flush()
        self.due += seconds * self.rate
        ticks = max(1, round(self.due) - self.given)
        self.given += ticks
        yield Gap(ticks, why, self.how)

    def flush(self) -> Iterator[Piece]:
        """What the resampler still holds."""
        yield from self.piece(self.convert.close(), None)

    def check(self) -> None:
        """Warn of drift once, and of digital silence once each time."""
        drift = None if self.drifts else self.clock.drift()
        if drift is not None:
            self.drifts = True
            slower = "slower" if drift > 0 else "faster"
            self.warn(f"the device's clock is {1e6 * abs(drift):.0f} ppm {slower} than ours; times are the device's")
        if self.muted is not None and self.zeros >= self.muted * self.device_rate:
            self.zeros = -sys.maxsize  # until there is sound
            self.warn(f"digital silence for {self.muted:g} s: is the microphone muted?")
