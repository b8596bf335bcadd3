"""How fast a device delivers, and when its sound is late: its frames against our clock.

A block comes when it is whole, or later: with the scheduler, with a jam. So of all blocks of a while the least late one
tells the truth, and only that is looked at. The device's own time stamps are not used for this: through a sound
server they were seen to run 16 % fast for seconds while the sound itself came at its exact rate.
"""

import math
from collections import deque
from collections.abc import Iterable
from itertools import pairwise

WINDOW = 0.2  # seconds of which the least late block counts
STEADY = 7  # windows until a rate is believed: less than two seconds
WRONG = 0.03  # share by which a rate must differ to be another one; 44.1 and 48 kHz differ by 8 %
UNEVEN = 3.0  # ratio of the slopes between windows beyond which it is not a rate but a jam
RECENT = 5  # windows that say how late sound is now
FLAT = 0.02  # slope below which a device is in step again
SEGMENT = 10.0  # seconds whose least late block tells of drift
SEGMENTS = 4
DRIFT = 200e-6  # beyond it, drift is told; crystals have up to 100e-6


class Pace:
    """The pace of one device that says it has ``rate`` frames a second.

    An *offset* is what our clock says less the time that the frames so far make, in seconds.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.since: float | None = None  # when the window began
        self.least = math.inf, 0.0  # offset, and when
        self.points: deque[tuple[float, float]] = deque(maxlen=STEADY)
        self.begun = 0.0  # when the segment did
        self.segment = math.inf, 0.0  # least offset, and when
        self.segments: deque[tuple[float, float]] = deque(maxlen=SEGMENTS)
        self.late = 0.0  # seconds, of the newest block

    def add(self, arrived: float, frames: int) -> None:
        """A block has come that ends with the device's frame number ``frames``."""
        offset = arrived - frames / self.rate
        self.least = min(self.least, (offset, arrived))
        self.late = offset - self.best()
        if self.since is None:
            self.since = self.begun = arrived
        if arrived - self.since >= WINDOW:
            self.points.append(self.least)
            self.since, self.least = arrived, (math.inf, 0.0)
        self.segment = min(self.segment, (offset, arrived))
        if arrived - self.begun >= SEGMENT:
            self.segments.append(self.segment)
            self.begun, self.segment = arrived, (math.inf, 0.0)

    def best(self) -> float:
        """The offset of the least late block of about the last second."""
        return min([*self.points, self.least][-RECENT - 1 :])[0]

    def flat(self) -> bool:
        """Whether the offset stands still, so that a jam is over."""
        slopes = grown(self.points)
        return bool(slopes) and abs(slopes[-1]) < FLAT

    def other_rate(self) -> float | None:
        """Frames a second, if they are clearly and steadily not those that the device says."""
        slopes = grown(self.points)
        if len(slopes) < STEADY - 1 or min(slopes) < 0 < max(slopes):
            return None
        sizes = [abs(slope) for slope in slopes]
        if min(sizes) < WRONG or max(sizes) > UNEVEN * min(sizes):
            return None
        (first, began), (last, ended) = self.points[0], self.points[-1]
        return self.rate * (1 - (last - first) / (ended - began))

    def drift(self) -> float | None:
        """By which share the device's clock is slower than ours (negative: faster), if that is much and lasts."""
        steps = grown(self.segments)
        if len(steps) < SEGMENTS - 1 or min(steps) < 0 < max(steps):
            return None
        mean = sum(steps) / len(steps)
        return mean if abs(mean) > DRIFT and min(map(abs, steps)) > abs(mean) / 2 else None


def grown(points: Iterable[tuple[float, float]]) -> list[float]:
    """By how much the offset grows a second, from each point ``(offset, when)`` to the next."""
    return [(b[0] - a[0]) / max(b[1] - a[1], 1e-3) for a, b in pairwise(points)]
