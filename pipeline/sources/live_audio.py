"""Live sound on a model's clock: a lost device is opened again, and every loss becomes a gap of its length."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field, NonNegativeInt, PositiveFloat

from pipeline.media.audio import Samples
from pipeline.media.input_spec import InputSpec
from pipeline.sources.audio_timeline import AudioTimeline, WrongRateError
from pipeline.sources.block_queue import Block, BlockQueue
from pipeline.sources.capture import LostError
from pipeline.sources.live import LiveSource
from pipeline.sources.source import Gap, Piece

POLL_SECONDS = 0.005  # until we look again for sound
MAX_PAUSE_SECONDS = 0.25  # if we did not look for so long, we were busy: the device's time limit begins anew
MAX_AGE_SECONDS = 2.0  # a greater age of sound, as a device states it, is not believed
STANDARD_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)  # Hz
RATE_TOLERANCE = 0.01  # share by which a measured rate may differ from a standard one

Put = Callable[[Samples, float, bool], None]


class AudioDevice(Protocol):
    """An open device: ``rate`` frames a second of ``channels``; ``ended``: it will deliver no more."""

    what: str
    rate: int
    channels: int
    ended: bool

    def start(self, put: Put) -> None:
        """Call ``put(data (N, channels), age of its first frame in seconds, whether something was lost before)`` from
        now on, from any thread. LostError if that fails.
        """


@dataclass(eq=False, kw_only=True)
class LiveAudio(LiveSource):
    """One channel of a device, or the mean of all.

    ``channel``: from 0 on, or the mean of all. ``buffer``: seconds of sound that may wait for a busy model. ``muted``:
    seconds of nothing but zeros before a warning (None: never).
    """

    channel: NonNegativeInt | Literal["mix"] = 0
    buffer: Annotated[float, Field(ge=1.0, le=600.0)] = 10.0
    muted: PositiveFloat | None = 5.0

    resamples = True

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)

    def begin(self, spec: InputSpec) -> None:
        rate = spec.require_sound(f"source={type(self).__name__.lower()}")
        self.timeline = AudioTimeline(rate, self.channel, self.gap, self.muted, self.warn)
        self.suspected: dict[int, int] = {}  # rate that a device states -> standard rate that it delivered once
        self.measured: dict[int, int] = {}  # the same, after it happened again: used from then on

    def report(self) -> None:
        if self.timeline.overflows + self.timeline.overruns:
            ours = f", and we had no room for it {self.timeline.overruns} times" if self.timeline.overruns else ""
            self.warn(f"the device has lost sound {self.timeline.overflows} times{ours}; see the gaps")

    def read(self, device: AudioDevice, spec: InputSpec, seen: bool, end: float) -> Iterator[Piece | Gap]:
        self.stated_rate = device.rate
        self.timeline.begin(self.measured.get(device.rate, device.rate))
        for block in self.blocks(device, end):
            self.delivered()
            yield from self.timeline.add(block)

    def lose(self, error: LostError) -> Iterator[Piece | Gap]:
        if isinstance(error, WrongRateError):
            self.suspect(self.stated_rate, error.rate)
        yield from self.timeline.lose(error)

    def finish(self) -> Iterator[Piece | Gap]:
        yield from self.timeline.finish()

    def blocks(self, device: AudioDevice, end: float) -> Iterator[Block]:
        """What the device delivers until ``end``. LostError once it delivers no more."""
        queue = BlockQueue(max(1, round(self.buffer * device.rate)))

        def put(data: Samples, age: float, overflow: bool) -> None:
            now, length = self.clock(), len(data) / device.rate
            queue.put(data, now, now - max(0.0, min(age, MAX_AGE_SECONDS) - length), overflow)

        device.start(put)
        since = looked = self.clock()
        limit = self.opening
        try:
            while (now := self.clock()) < end:
                if now - looked > MAX_PAUSE_SECONDS:
                    since = now
                looked = now
                block = queue.take()
                if block is not None:
                    limit = self.timeout
                    yield block
                elif device.ended:
                    raise LostError("the device has gone")
                elif now - max(since, queue.last_arrived) >= limit:
                    raise LostError(f"no sound for {limit:g} s")
                else:
                    self.sleep(POLL_SECONDS)
        except (KeyboardInterrupt, SystemExit):
            while (block := queue.take()) is not None:
                yield block
            raise

    def suspect(self, stated: int, measured: float) -> None:
        """The device delivered another rate than it states. Opened again it may be right; if not, use the measured
        rate.
        """
        near = min(STANDARD_RATES, key=lambda rate: abs(rate - measured))
        rate = near if abs(near - measured) < RATE_TOLERANCE * near else round(measured)
        if self.measured.pop(stated, None) is None and self.suspected.get(stated) == rate:
            self.measured[stated] = rate
        self.suspected[stated] = rate
