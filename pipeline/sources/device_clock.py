"""How fast a device delivers, and how late its sound is: its frames against our clock.

A block arrives when it is complete, or later if the scheduler or a jam delays it. So only the least late block of a
window counts. The device's own time stamps are not used: through a sound server they ran 16 % fast for seconds, while
the sound came at its exact rate.
"""

import math
from collections import deque
from itertools import pairwise

WINDOW_SECONDS = 0.2  # the least late block of each window counts
RATE_WINDOWS = 7  # windows that measure a rate: less than two seconds
MIN_RATE_ERROR = 0.03  # share by which a measured rate must differ; 44.1 and 48 kHz differ by 8 %
MAX_SLOPE_RATIO = 3.0  # between windows; beyond, it is a jam and no other rate
RECENT_WINDOWS = 5  # windows that say how late sound is now
STEADY_SLOPE = 0.02  # below it, the device delivers at its rate again
SEGMENT_SECONDS = 10.0  # the least late block of each segment measures drift
DRIFT_SEGMENTS = 4
MIN_DRIFT = 200e-6  # drift that is reported; good crystals have up to 100e-6


class LeastLate:
    """The least late block of each window of ``seconds``, as ``(offset, when)``: of the last ``count`` windows."""

    def __init__(self, seconds: float, count: int) -> None:
        self.seconds, self.begin = seconds, math.nan
        self.newest = math.inf, 0.0  # of the window that has not ended
        self.windows: deque[tuple[float, float]] = deque(maxlen=count)

    def add(self, offset: float, now: float) -> None:
        self.newest = min(self.newest, (offset, now))
        self.begin = now if math.isnan(self.begin) else self.begin
        if now - self.begin >= self.seconds:
            self.windows.append(self.newest)
            self.begin, self.newest = now, (math.inf, 0.0)

    def slopes(self) -> list[float]:
        """How much the offset grows a second, from each window to the next."""
        return [(b[0] - a[0]) / max(b[1] - a[1], 1e-3) for a, b in pairwise(self.windows)]


class DeviceClock:
    """The clock of a device that says it has ``rate`` frames a second.

    An *offset* is our clock less the duration of the frames so far, in seconds.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.windows = LeastLate(WINDOW_SECONDS, RATE_WINDOWS)
        self.segments = LeastLate(SEGMENT_SECONDS, DRIFT_SEGMENTS)
        self.late = 0.0  # seconds, of the newest block

    def add(self, arrived: float, frames: int) -> None:
        """A block has arrived that ends with the device's frame number ``frames``."""
        offset = arrived - frames / self.rate
        self.late = offset - min(self.offset(), offset)
        self.windows.add(offset, arrived)
        self.segments.add(offset, arrived)

    def offset(self) -> float:
        """The offset of the least late block of about the last second."""
        return min([*self.windows.windows, self.windows.newest][-RECENT_WINDOWS - 1 :])[0]

    def first_offset(self) -> float:
        """The same, of the oldest window that is known."""
        return self.windows.windows[0][0]

    def steady(self) -> bool:
        """Whether the offset stands still, so that a jam is over."""
        found = self.windows.slopes()
        return bool(found) and abs(found[-1]) < STEADY_SLOPE

    def other_rate(self) -> float | None:
        """The measured frames a second, if they clearly and steadily differ from what the device says."""
        found = self.windows.slopes()
        if len(found) < RATE_WINDOWS - 1 or min(found) < 0 < max(found):
            return None
        sizes = [abs(slope) for slope in found]
        if min(sizes) < MIN_RATE_ERROR or max(sizes) > MAX_SLOPE_RATIO * min(sizes):
            return None
        (first, began), (last, ended) = self.windows.windows[0], self.windows.windows[-1]
        return self.rate * (1 - (last - first) / (ended - began))

    def drift(self) -> float | None:
        """The share by which the device's clock is slower than ours (negative: faster), if it is large and lasts."""
        found = self.segments.slopes()
        if len(found) < DRIFT_SEGMENTS - 1 or min(found) < 0 < max(found):
            return None
        mean = sum(found) / len(found)
        return mean if abs(mean) > MIN_DRIFT and min(map(abs, found)) > abs(mean) / 2 else None
