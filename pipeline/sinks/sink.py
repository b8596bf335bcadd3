"""What a sink is: somewhere results go. Sinks receive small values, so a new one is a few lines."""

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from pipeline.core.text import clean
from pipeline.sinks.items import Item, StreamInfo, StreamWarning, TimedEvent, TimedGap

LONG_GAP_SECONDS = 1.0  # shorter gaps (a slow model has many) are only summed up where people read
KEPT_AGES = 10_000  # ages of the last answers that are summed up


class Closed(Exception):  # noqa: N818 - it is no error
    """Raised by a sink that somebody has closed: the stream ends as if the source had."""


class Sink:
    """Base of all sinks: does nothing with anything. Used as a context manager; leaving it keeps what was written.

    A stream: ``setup``, ``start``, then ``write`` and ``flush`` by turns, ``close``. Files: ``setup``, ``write``,
    ``finish``, ``close``.

    Attributes:
        pictures: whether it takes each ``Frame``.
        files: whether it takes each ``FileResult``, besides what a stream says.
        stdout: what it writes to standard output: ``rows`` for programs, ``words`` for people, ``asides`` that it can
            do without, or nothing.
        outputs: the files that it writes.
    """

    pictures = False
    files = False
    stdout: Literal["rows", "words", "asides", ""] = ""
    outputs: tuple[Path, ...] = ()
    stream: StreamInfo | None = None

    def setup(self, labels: list[str], background: list[str]) -> None:
        """Before all: the classes of the model, and which of them are background and make no events. ConfigError if the
        sink has no use for such a model.
        """

    def start(self, stream: StreamInfo) -> None:
        """A stream has given its first piece. What a sink opens, it opens here (for files, at the first row): a source
        that cannot be read harms nothing.
        """
        self.stream = stream

    def write(self, item: Item) -> None:
        """Take an item; those that are of no use are passed over."""

    def flush(self) -> None:
        """Called after each answer: the time to force to the disk what was written before."""

    def finish(self) -> None:
        """Every file has had its row: move temporary files into place."""

    def close(self) -> None:
        """All is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def event_line(event: TimedEvent) -> str:
    """An event, for people."""
    return f"{event.start:8.2f} – {event.end:7.2f} s  {clean(event.label):<16} {event.score:.2f}"


def gap_line(gap: TimedGap) -> str:
    """A gap, for people: that it has begun, or how long it was."""
    why = f"{clean(gap.why)} ({gap.how})"
    if not gap.length:
        return f"{gap.start:8.2f} s            {why}"
    return f"{gap.start:8.2f} – {gap.start + gap.length:7.2f} s  gap: {why}"


def warning_line(warning: StreamWarning) -> str:
    """A warning, for people."""
    return f"{warning.time:8.2f} s            warning: {clean(warning.text)} ({warning.code})"


class LiveSummary:
    """What people want to know at the end of a live stream: how old its answers were, and the short gaps."""

    def __init__(self) -> None:
        self.ages: deque[float] = deque(maxlen=KEPT_AGES)
        self.short_gaps, self.short_gap_seconds = 0, 0.0
        self.gap_is_open = False

    def add_gap(self, gap: TimedGap) -> bool:
        """Count a gap; whether it deserves a line of its own."""
        was_open, self.gap_is_open = self.gap_is_open, not gap.length
        if was_open or self.gap_is_open or gap.length >= LONG_GAP_SECONDS:
            return True
        self.short_gaps, self.short_gap_seconds = self.short_gaps + 1, self.short_gap_seconds + gap.length
        return False

    def add_age(self, age: float | None) -> None:
        """Count the age of an answer in seconds, if it is a live one."""
        if age is not None:
            self.ages.append(age)

    def lines(self) -> list[str]:
        """The summary."""
        found = []
        if self.short_gaps:
            found.append(f"{self.short_gap_seconds:.1f} s were left out in {self.short_gaps} short gaps")
        if self.ages:
            middle, most = 1000 * np.quantile(self.ages, [0.5, 0.99])
            found.append(f"age of answers: median {middle:.0f} ms, 99 % below {most:.0f} ms")
        return found
