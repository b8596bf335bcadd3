"""What a hall has done, in figures: for ``/metrics``, and to know whether it has time for more."""

import time
from bisect import bisect_left
from collections import Counter

WAITS = 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0  # seconds: bounds of the histogram
SMOOTHING = 0.2  # share of the last second in how late answers are


class Figures:
    """One thread writes them.

    Attributes:
        waits: how many answers waited up to each of WAITS, or longer. ``waited``: seconds of all of them.
        counts: ticks, events, gaps, resumed.
        load: the share of the last second or so that was computed.
        late: mean seconds that blocks waited in the last ones.
    """

    def __init__(self) -> None:
        self.waits, self.counts = [0] * (len(WAITS) + 1), Counter[str]()
        self.load = self.late = self.waited = self.busy = 0.0
        self.before, self.summed = (0.0, 0), time.monotonic()

    def add_wait(self, seconds: float) -> None:
        """An answer came so many seconds after its input."""
        self.waits[bisect_left(WAITS, seconds)] += 1
        self.waited += seconds

    def sum_up(self, now: float) -> None:
        """Load and lateness since the last time (``now``: on time.monotonic)."""
        self.load, self.busy = self.busy / (now - self.summed), 0.0
        (waited, answers), self.before = self.before, (self.waited, sum(self.waits))
        late = min(1.0, (self.waited - waited) / max(1, self.before[1] - answers))
        self.late += SMOOTHING * (late - self.late)  # smoothed, as who sends much at once waits for himself
        self.summed = now
