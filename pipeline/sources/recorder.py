"""A microphone that is watched: a loss is told, it is tried again, and a gap tells how long it was away."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.media.audio import Samples
from pipeline.sources.camera import LostError
from pipeline.sources.ring import Block, Ring
from pipeline.sources.source import Gap, Piece, Policy
from pipeline.sources.timeline import Channel, Line, Tell, WrongRateError

POLL = 0.005  # seconds until we look again for sound
ABSENT = 0.25  # seconds without a look: then it was us who stood still, and the device gets its time anew
OLDEST = 2.0  # seconds; what a device says to be older when it comes is not believed
FIRST, WAIT = 0.25, 5.0  # seconds until a lost device is tried again: twice as many each time, up to the second
STANDARD = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)  # Hz
NEAR = 0.01  # share by which a measured rate may differ from one of those

Put = Callable[[Samples, float, bool], None]


class Device(Protocol):
    """An open device: ``rate`` frames a second of ``channels``; ``ended``: it will deliver no more."""

    rate: int
    channels: int
    what: str
    ended: bool

    def start(self, put: Put) -> None:
        """Deliver ``(data (N, channels), age of its first frame in seconds, whether something was lost before)`` from
        now on, from any thread. LostError if it cannot.
        """

    def close(self) -> None:
        """Never fails, and does not hang."""


@dataclass
class Recorder:
    """How a microphone is watched; ``pieces`` does it.

    Attributes:
        open: opens a device; LostError if that fails. Its argument: whether one was lost before.
        name: of the source, for messages.
        timeout: seconds without sound until the device counts as lost.
        opening: the same for the first sound.
        patience: seconds after which a lost device is given up (LostError); None: never.
        gap: what a gap does to the state of the stream.
        seconds: when to stop; None: never.
        channel: which, from 0 on, or the mean of all.
        buffer: seconds of sound that may wait for a model that is busy.
        muted: seconds of nothing but zeros that are warned of; None: never.
        clock: what ``captured`` is counted by; ``sleep`` waits on it; ``tell`` warns.
    """

    open: Callable[[bool], Device]
    name: str
    timeout: float = 1.5
    opening: float = 10.0
    patience: float | None = None
    gap: Policy = "reset"
    seconds: float | None = None
    channel: Channel = 0
    buffer: float = 10.0
    muted: float | None = 5.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    tell: Tell = field(default=lambda text: print(f"warning: {text}", file=sys.stderr))
    doubted: dict[int, int] = field(default_factory=dict)  # rate that a device said -> standard one it delivered
    believed: dict[int, int] = field(default_factory=dict)  # the same, after it happened again
    away: float | None = None  # when the device was lost; None once it has given sound again
    wait: float = FIRST  # before it is tried again

    def pieces(self, rate: int) -> Iterator[Piece | Gap]:
        """Mono samples at ``rate`` Hz until ``seconds`` are over. LostError if there is no sound, or no more."""
        line = Line(rate, self.channel, self.gap, self.muted, self.tell)
        device: Device | None = self.open(False)
        end = math.inf if self.seconds is None else self.clock() + self.seconds
        heard = False
        try:
            while device is not None and self.clock() < end:
                try:
                    for block in self.blocks(device, line, end):
                        heard, self.away, self.wait = True, None, FIRST
                        yield from line.add(block)
                except LostError as error:
                    if not heard:
                        raise
                    if isinstance(error, WrongRateError):
                        self.doubt(device.rate, error.rate)
                    device.close()
                    yield from line.lose(error)
                    device = None
                    for attempt in self.again(str(error), end):
                        device = attempt
                        yield Piece((np.zeros(0, np.float32),))  # so that whoever listens can leave
            yield from line.finish()
        except (KeyboardInterrupt, SystemExit):  # what has been received is answered all the same
            yield from line.finish()
            raise
        finally:
            if device is not None:
                device.close()
            if line.overflows + line.overruns:
                ours = f", and we had no room for it {line.overruns} times" if line.overruns else ""
                self.tell(f"the device has lost sound {line.overflows} times{ours}; see the gaps")

    def blocks(self, device: Device, line: Line, end: float) -> Iterator[Block]:
        """What the device delivers until the ``end``. LostError once it does so no more."""
        ring = Ring(max(1, round(self.buffer * device.rate)), device.channels)
        clock, shortest = self.clock, 1 / device.rate

        def put(data: Samples, age: float, overflow: bool) -> None:
            now, length = clock(), len(data) * shortest
            ring.put(data, now, now - max(0.0, min(age, OLDEST) - length), overflow)

        line.begin(self.believed.get(device.rate, device.rate))
        if not line.away:
            print(f"{self.name}: {device.what}", file=sys.stderr)
        device.start(put)
        since = looked = self.clock()
        limit = self.opening
        try:
            while (now := self.clock()) < end:
                if now - looked > ABSENT:
                    since = now
                looked = now
                block = ring.take()
                if block is not None:
                    limit = self.timeout
                    yield block
                elif device.ended:
                    raise LostError("the device has gone")
                elif now - max(since, ring.last) >= limit:
                    raise LostError(f"no sound for {limit:g} s")
                else:
                    self.sleep(POLL)
        except (KeyboardInterrupt, SystemExit):
            while (block := ring.take()) is not None:
                yield block
            raise

    def doubt(self, said: int, measured: float) -> None:
        """Another rate than a device said: opened again it may be right; if it is not, the ear is believed."""
        near = min(STANDARD, key=lambda rate: abs(rate - measured))
        real = near if abs(near - measured) < NEAR * near else round(measured)
        if self.believed.pop(said, None) is None and self.doubted.get(said) == real:
            self.believed[said] = real
        self.doubted[said] = real

    def again(self, lost: str, end: float) -> Iterator[Device | None]:
        """Open it again, less often with time: None while it waits, the device at last; neither once the ``end`` has
        come. LostError if ``patience`` is over.
        """
        again = self.away is not None  # it could be opened, but gave no sound
        self.away = self.clock() if self.away is None else self.away
        why = "it gives no sound"
        while self.clock() < end:
            if not again:
                try:
                    yield self.open(True)
                    return
                except LostError as error:
                    why = str(error)
            if self.patience is not None and self.clock() - self.away >= self.patience:
                raise LostError(f"{lost}, and it did not come back in {self.patience:g} s ({why})")
            for _ in range(round(self.wait / FIRST)):
                self.sleep(FIRST)
                yield None
            self.wait, again = min(2 * self.wait, WAIT), False
