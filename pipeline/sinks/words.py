"""Sinks that say on standard output, in words for people, what happens in a stream."""

from collections import deque

import numpy as np

import pipeline.sinks.items as items
from pipeline.core.text import clean
from pipeline.sinks.sink import Sink

LONG_GAP_SECONDS = 1.0  # shorter gaps (a slow model has many) are only summed up
KEPT_AGES = 10_000  # ages of the last answers that are summed up


class Words(Sink):
    """Base of such sinks: a line for each event, warning and long gap; at the end a summary."""

    verb = "listening to"

    def start(self, stream: items.StreamInfo) -> None:
        """Say what the stream is."""
        super().start(stream)
        self.info = stream
        self.count = self.warnings = 0  # events; warnings
        self.ages: deque[float] = deque(maxlen=KEPT_AGES)  # of live answers, in seconds
        self.lost_seconds, self.short_gaps, self.short_gap_seconds, self.gap_is_open = 0.0, 0, 0.0, False
        self.say(f"{self.verb} {clean(stream.name)}")

    def say(self, line: str) -> None:
        if self.stdout:
            print(line, flush=True)

    def write(self, item: items.Item) -> None:
        """A line, if it deserves one."""
        match item:
            case items.TimedEvent():
                self.count += 1
                self.say(event_line(item) + self.comment(item))
            case items.Steps() if item.age is not None and len(item.posteriors):
                self.ages.append(item.age)
            case items.TimedGap():
                self.gap(item)
            case items.StreamWarning():
                self.warnings += 1
                self.say(f"{item.time:8.2f} s            warning: {clean(item.text)} ({item.code})")

    def comment(self, event: items.TimedEvent) -> str:
        """What stands behind an event in its line."""
        return ""

    def gap(self, gap: items.TimedGap) -> None:
        """Count a gap; a line if it is long, or has only begun, or ends one that has a line."""
        was_open, self.gap_is_open = self.gap_is_open, not gap.length
        self.lost_seconds += gap.length
        if not (was_open or self.gap_is_open or gap.length >= LONG_GAP_SECONDS):
            self.short_gaps, self.short_gap_seconds = self.short_gaps + 1, self.short_gap_seconds + gap.length
            return
        why, end = f"{clean(gap.why)} ({gap.how})", f"– {gap.start + gap.length:7.2f} s  gap:"
        self.say(f"{gap.start:8.2f} {end if gap.length else 's           '} {why}")
        self.show_gap(gap)

    def show_gap(self, gap: items.TimedGap) -> None:
        """A gap that has a line, for sinks that show pictures, too."""

    def close(self) -> None:
        """Sum up."""
        if self.stream is None:
            return
        self.say(f"{self.count} events")
        if self.short_gaps:
            self.say(f"{self.short_gap_seconds:.1f} s were left out in {self.short_gaps} short gaps")
        if self.ages:
            middle, most = 1000 * np.quantile(self.ages, [0.5, 0.99])
            self.say(f"age of answers: median {middle:.0f} ms, 99 % below {most:.0f} ms")


def event_line(event: items.TimedEvent) -> str:
    """An event as a line."""
    details = f"  ({clean(event.details)})" if event.details else ""
    return f"{event.start:8.2f} – {event.end:7.2f} s  {clean(event.label):<16} {event.score:.2f}{details}"
