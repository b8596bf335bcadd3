"""Live pictures on a model's clock.

The picture of time k / rate is the last one before it, as for files. Files know the next time stamp. Here the camera's
frame period predicts whether another picture will come before k / rate; if none will, the answer does not wait.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from pydantic import PositiveFloat

from pipeline.media.input_spec import InputSpec
from pipeline.sources.capture import Capture, Keep, LostError, VideoFrame
from pipeline.sources.live import LiveSource
from pipeline.sources.source import BEHIND, Gap, Piece

SNAP_TICKS = 0.25  # how late a picture without a time stamp may be for its tick
STAMPED_SNAP_TICKS = 0.02  # the same with a time stamp
MIN_PERIOD_SHARE = 0.75  # no picture comes earlier than this share of the camera's period after the last one
HOLD_SECONDS = 0.5  # how long the last picture stands for missing ones
MAX_STAMP_ERROR_SECONDS = 1.0  # beyond it, a stream's time stamps have jumped and are aligned anew


Decided: TypeAlias = list[tuple[int, VideoFrame, int]]  # (ticks, picture, missed): ``missed`` ticks come before


@dataclass(eq=False, kw_only=True)
class LiveVideo(LiveSource):
    """Pictures of a camera or a network stream. ``open`` starts the capture.

    ``keep``: the ``newest`` picture, so that answers are never late, or ``every`` one. ``frozen``: seconds of equal
    pictures that count as a loss (None: never).
    """

    keep: Keep = "newest"
    frozen: PositiveFloat | None = None

    def begin(self, spec: InputSpec) -> None:
        self.picture = spec.require_pictures(f"source={type(self).__name__.lower()}")
        self.grid = VideoGrid(self.picture.rate)
        self.waiting_since: float | None = None
        self.lost = ""  # why there are no pictures; empty if there are

    def read(self, device: Capture, spec: InputSpec, seen: bool, end: float) -> Iterator[Piece | Gap]:
        while self.clock() < end:
            frame, decided = self.next_frame(device)
            for ticks, shown, missed in decided:
                if missed:
                    why, how = (f"{self.lost}; it is back", self.gap) if self.lost else (BEHIND, "keep")
                    yield Gap(missed * spec.grain, why, how)
                self.lost = ""
                if ticks:
                    fitted = self.picture.fit(shown.image, shown.aspect)
                    yield Piece(spec.from_pictures(np.repeat(fitted[None], ticks, axis=0)), shown.captured)
            if seen and frame is not None:
                yield Piece(spec.empty(), frame.captured, ((self.grid.place / self.grid.rate, frame.image),))

    def lose(self, error: LostError) -> Iterator[Gap]:
        self.grid.restart()
        self.waiting_since = None
        if not self.lost:
            self.lost = str(error)
            yield Gap(0, self.lost, self.gap)

    def next_frame(self, capture: Capture) -> tuple[VideoFrame | None, Decided]:
        """The next picture, if one comes in time, and what ``VideoGrid`` decides by it."""
        now = self.clock()
        self.waiting_since = now if self.waiting_since is None else self.waiting_since
        limit = self.timeout if self.grid.last else self.opening
        until = min(self.waiting_since + limit - now, self.grid.seconds_to_tick(now))
        frame: VideoFrame | None = capture.next(max(0.0, until))
        if frame is not None:
            self.waiting_since = None
            self.delivered()
            return frame, self.grid.add(frame)
        now = self.clock()
        if now - self.waiting_since >= limit:
            self.waiting_since = None
            raise LostError(f"no picture for {limit:g} s")
        return None, self.grid.pass_time(now)


class VideoGrid:
    """Decides which picture stands at which tick of the model's clock. Tick 0 is when the first one was captured."""

    def __init__(self, rate: int) -> None:
        """``rate`` ticks a second."""
        self.rate = rate
        self.zero: float | None = None  # when tick 0 was, on the clock of the captures
        self.next = 0  # tick
        self.last: VideoFrame | None = None
        self.place = 0.0  # of the last picture, in ticks
        self.captured = 0.0  # the same, on the clock
        self.aligned: tuple[float, float] | None = None  # a time stamp, and the second of the grid that it means

    def add(self, frame: VideoFrame) -> Decided:
        """What a new picture decides."""
        if self.zero is None:
            self.zero = frame.captured
        place = self.seconds(frame) * self.rate
        snap = SNAP_TICKS if frame.stamp is None else STAMPED_SNAP_TICKS
        before, last = math.ceil(place - snap) - self.next, self.last
        period = (place - self.place) / (frame.dropped + 1) if last else 0.0
        found = []
        if before > 0:  # ticks of the picture before
            missing = last is None or frame.dropped > 0  # the pictures of these ticks are lost
            found.append((0, frame, before) if missing else (before, last or frame, 0))
            self.next += before
        soonest = place + MIN_PERIOD_SHARE * period  # of the next picture
        if self.next - snap <= place <= self.next + snap or self.next < soonest <= self.next + 1:
            found.append((1, frame, 0))
            self.next += 1
        self.last, self.place, self.captured = frame, place, frame.captured
        return found

    def pass_time(self, now: float) -> Decided:
        """The ticks that are over without a new picture: the last one stands for them, for up to ``HOLD_SECONDS``."""
        if self.last is None or self.zero is None or self.aligned:
            return []
        until = min(now, self.captured + HOLD_SECONDS) - self.zero
        count = math.floor(until * self.rate - SNAP_TICKS) + 1 - self.next
        if count <= 0:
            return []
        self.next += count
        return [(count, self.last, 0)]

    def seconds_to_tick(self, now: float) -> float:
        """Seconds until the next tick is over, if no picture comes."""
        if self.last is None or self.zero is None or self.aligned or now > self.captured + HOLD_SECONDS:
            return math.inf
        return max(0.001, self.zero + (self.next + SNAP_TICKS) / self.rate - now)

    def seconds(self, frame: VideoFrame) -> float:
        """The time of a picture on the grid, by its time stamp while that agrees with the clock."""
        assert self.zero is not None
        arrived = frame.captured - self.zero
        if frame.stamp is None:
            return arrived
        if self.aligned is not None:
            stamp, second = self.aligned
            meant = second + frame.stamp - stamp
            if abs(meant - arrived) <= MAX_STAMP_ERROR_SECONDS and meant * self.rate > self.place:
                return meant
        self.aligned = frame.stamp, max(arrived, math.ceil(self.place) / self.rate)
        return self.aligned[1]

    def restart(self) -> None:
        """After a loss, the first picture shows how many ticks were missed."""
        self.aligned = self.last = None
