"""Pictures that come when they come, on a model's clock: no waiting, no lag that grows, and every gap told.

The picture of time k / rate is the last one until then, as for files. Where files know the next time stamp, here the
camera's rhythm tells whether another picture will come before k / rate; if none will, the answer need not wait.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.sources.camera import Capture, LostError, Shot
from pipeline.sources.source import BEHIND, Gap, Piece, Policy

SNAP = 0.25  # periods of the model's clock by which a picture may be late, as cameras without time stamps are
EXACT = 0.02  # the same for pictures with time stamps
RHYTHM = 0.75  # share of a camera's period that passes for sure until its next picture
STILL = 0.5  # seconds for which the last picture stands for those that do not come
JUMP = 1.0  # seconds by which a stream's own time stamps may part from the time at which they come
FIRST, WAIT = 0.25, 5.0  # seconds until a lost source is tried again: twice as many each time, up to the second


@dataclass
class Live:
    """How a live source is watched; ``pieces`` does it.

    Attributes:
        open: opens a capture; LostError if that fails.
        name: of the source, for messages.
        timeout: seconds of waiting without a picture until it counts as lost.
        opening: the same for the first picture.
        patience: seconds after which a lost source is given up (LostError); None: never.
        gap: what a gap does to the state of the stream.
        seconds: when to stop; None: never.
        clock: what ``captured`` is counted by; ``sleep`` waits on it.
    """

    open: Callable[[], Capture]
    name: str
    timeout: float = 2.0
    opening: float = 10.0
    patience: float | None = None
    gap: Policy = "reset"
    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    since: float | None = None  # when the waiting for a picture began
    away: float | None = None  # when the source was lost; None once it has given a picture again
    wait: float = FIRST  # before it is tried again

    def pieces(self, spec: InputSpec, picture: Picture, seen: bool = False) -> Iterator[Piece | Gap]:
        """Until ``seconds`` are over. LostError if the source gives no picture at all, or is given up."""
        capture: Capture | None = self.open()
        assert capture is not None
        print(f"{self.name}: {capture.what}", file=sys.stderr)
        grid, lost = Grid(picture.rate), ""
        end = None if self.seconds is None else self.clock() + self.seconds
        try:
            while capture is not None and (end is None or self.clock() < end):
                try:
                    new, decided = self.shown(capture, grid)
                    for ticks, shot, missed in decided:
                        if missed:
                            why, how = (f"{lost}; it is back", self.gap) if lost else (BEHIND, "keep")
                            yield Gap(missed * spec.grain, why, how)
                        lost = ""
                        if ticks:
                            fitted = picture.fit(shot.image, shot.aspect)
                            yield Piece(spec.of_pictures(np.repeat(fitted[None], ticks, axis=0)), shot.captured)
                    if seen and new is not None:
                        yield Piece(spec.nothing(), new.captured, ((grid.place / picture.rate, new.image),))
                except LostError as error:
                    if grid.zero is None:
                        raise
                    capture.close()
                    if not lost:
                        lost = str(error)
                        yield Gap(0, lost, self.gap)
                    capture = None
                    for attempt in self.again(lost, end):
                        capture = attempt
                        yield Piece(spec.nothing())  # so that whoever listens can leave
                    grid.begin_again()
        finally:
            if capture is not None:
                capture.close()

    def shown(self, capture: Capture, grid: "Grid") -> tuple[Shot | None, list[tuple[int, Shot, int]]]:
        """The next picture, if one comes, and what it or the time that passes without one decides: ``Grid.add``."""
        now = self.clock()
        self.since = now if self.since is None else self.since
        limit = self.timeout if grid.held else self.opening
        shot = capture.next(max(0.0, min(self.since + limit - now, grid.due(now))))
        if shot is not None:
            self.since, self.away, self.wait = None, None, FIRST
            return shot, grid.add(shot)
        now = self.clock()
        if now - self.since >= limit:
            self.since = None
            raise LostError(f"no picture for {limit:g} s")
        return None, grid.pass_time(now)

    def again(self, lost: str, end: float | None) -> Iterator[Capture | None]:
        """Open it again, less often with time: None while it waits, the capture at last; neither once the ``end`` has
        come. LostError if ``patience`` is over.
        """
        again = self.away is not None  # it could be opened, but gave no picture
        self.away = self.clock() if self.away is None else self.away
        why = "it gives no picture"
        while end is None or self.clock() < end:
            if not again:
                try:
                    yield self.open()
                    return
                except LostError as error:
                    why = str(error)
            if self.patience is not None and self.clock() - self.away >= self.patience:
                raise LostError(f"{lost}, and it did not come back in {self.patience:g} s ({why})")
            for _ in range(round(self.wait / FIRST)):
                self.sleep(FIRST)
                yield None
            self.wait, again = min(2 * self.wait, WAIT), False


class Grid:
    """Which picture stands at which tick of the model's clock. Tick 0 is when the first one was captured."""

    def __init__(self, rate: int) -> None:
        """``rate`` ticks a second."""
        self.rate = rate
        self.zero: float | None = None  # when tick 0 was, on the clock of the captures
        self.next = 0  # tick
        self.held: Shot | None = None  # the last picture
        self.place = 0.0  # where it stands, in ticks
        self.last = 0.0  # when it was captured
        self.stamped: tuple[float, float] | None = None  # a time stamp, and the second of the grid that it means

    def add(self, shot: Shot) -> list[tuple[int, Shot, int]]:
        """What a new picture decides: ``(ticks, picture, missed)``: after ``missed`` ticks it stands for ``ticks``."""
        if self.zero is None:
            self.zero = shot.captured
        place = self.seconds(shot) * self.rate
        snap = SNAP if shot.stamp is None else EXACT
        before, held = math.ceil(place - snap) - self.next, self.held
        period = (place - self.place) / (shot.passed + 1) if held else 0.0
        found = []
        if before > 0:  # ticks of the picture before
            jammed = held is None or shot.passed > 0  # the pictures of these ticks are gone
            found.append((0, shot, before) if jammed else (before, held or shot, 0))
            self.next += before
        if self.next - snap <= place <= self.next + snap or self.next < place + RHYTHM * period <= self.next + 1:
            found.append((1, shot, 0))
            self.next += 1
        self.held, self.place, self.last = shot, place, shot.captured
        return found

    def pass_time(self, now: float) -> list[tuple[int, Shot, int]]:
        """The ticks that are over although no picture came: the last one stands still, but not for long."""
        if self.held is None or self.zero is None or self.stamped:
            return []
        until = min(now, self.last + STILL) - self.zero
        count = math.floor(until * self.rate - SNAP) + 1 - self.next
        if count <= 0:
            return []
        self.next += count
        return [(count, self.held, 0)]

    def due(self, now: float) -> float:
        """Seconds until the next tick is over, if no picture comes."""
        if self.held is None or self.zero is None or self.stamped or now > self.last + STILL:
            return math.inf
        return max(0.001, self.zero + (self.next + SNAP) / self.rate - now)

    def seconds(self, shot: Shot) -> float:
        """Where a picture stands on the grid: by its own time stamps, as long as they go with the time."""
        assert self.zero is not None
        came = shot.captured - self.zero
        if shot.stamp is None:
            return came
        if self.stamped is not None:
            stamp, second = self.stamped
            meant = second + shot.stamp - stamp
            if abs(meant - came) <= JUMP and meant * self.rate > self.place:
                return meant
        self.stamped = shot.stamp, max(came, math.ceil(self.place) / self.rate)
        return self.stamped[1]

    def begin_again(self) -> None:
        """After a loss: the first picture will tell how many ticks were missed."""
        self.stamped = self.held = None
