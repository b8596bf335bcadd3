"""What a sink is: somewhere results go. Sinks receive plain rows, so a new one is a few lines."""

import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.events import Event
from pipeline.picture import Image

Row = dict[str, Any]
NOTED = 1.0  # seconds; shorter gaps (a slow model has many) are only summed up where people read
KEPT = 10_000  # ages of the last answers that are summed up


class Closed(Exception):  # noqa: N818 - it is no error
    """Raised by a sink that somebody has closed: the stream ends as if the source had."""


class Sink:
    """Base of all sinks: does nothing with anything. Used as a context manager; leaving it keeps what was written.

    ``pictures``: whether ``picture`` is to be called, for sinks that show what a camera sees.
    """

    pictures = False

    def __init__(self, posteriors: bool = False) -> None:
        """``posteriors``: also deliver the posteriors of every step."""
        self.posteriors = posteriors

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """A stream begins: its name, the classes, and its clock (``hop`` samples per step at ``rate`` Hz)."""
        self.name, self.labels, self.rate, self.hop = name, labels, rate, hop

    def events(self, events: list[Event]) -> None:
        """Events that have ended."""
        for event in events:
            row: Row = {"start": self.seconds(event.start), "end": self.seconds(event.end), "label": event.label}
            self.event(row | {"score": round(event.score, 4)})

    def steps(self, first: int, posteriors: NDArray[np.float32], age: float | None = None) -> None:
        """Posteriors ``(T, K)`` of the steps from ``first`` on; a step's time is the end of what it has heard.

        ``age``: seconds since the newest of it was captured, for live sources.
        """
        late: Row = {} if age is None else {"age": round(age, 4)}
        for number, row in enumerate(posteriors.tolist() if self.posteriors else (), first + 1):
            scores = dict(zip(self.labels, (round(value, 6) for value in row), strict=True))
            self.step({"time": self.seconds(number * self.hop)} | scores | late)

    def seconds(self, samples: int) -> float:
        """Samples as seconds, to the millisecond."""
        return round(samples / self.rate, 3)

    def event(self, row: Row) -> None:
        """One event: start, end, label, score."""

    def step(self, row: Row) -> None:
        """One step: time, the posterior of each class, and the age of a live answer in seconds."""

    def begun(self, events: list[Event]) -> None:
        """The events that are open now."""

    def gap(self, row: Row) -> None:
        """A stretch without input: start, length (0: it has only begun), why, and what the stream does about it."""

    def picture(self, seconds: float, image: Image) -> None:
        """A picture ``(H, W, 3)`` as the source saw it, after the answers that were known by then."""

    def file(self, row: Row) -> None:
        """One classified file: path, status, code, label, score, seconds, and the posterior of each class."""

    def close(self) -> None:
        """All is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def event_line(row: Row) -> str:
    """An event, for people."""
    return f"{row['start']:8.2f} – {row['end']:7.2f} s  {row['label']:<16} {row['score']:.2f}"


def gap_line(row: Row) -> str:
    """A gap, for people: that it has begun, or how long it was."""
    if not row["length"]:
        return f"{row['start']:8.2f} s            {row['why']} ({row['how']})"
    return f"{row['start']:8.2f} – {row['start'] + row['length']:7.2f} s  gap: {row['why']} ({row['how']})"


class Delays:
    """What people want to know at the end of a live stream: how old its answers were, and the short gaps."""

    def __init__(self) -> None:
        self.ages: deque[float] = deque(maxlen=KEPT)
        self.gaps, self.seconds = 0, 0.0
        self.lost = False

    def noted(self, row: Row) -> bool:
        """Count a gap; whether it is worth a line of its own."""
        lost, self.lost = self.lost, not row["length"]
        if lost or self.lost or row["length"] >= NOTED:
            return True
        self.gaps, self.seconds = self.gaps + 1, self.seconds + row["length"]
        return False

    def lines(self) -> list[str]:
        """What there is to say."""
        found = []
        if self.gaps:
            found.append(f"{self.seconds:.1f} s were left out in {self.gaps} short gaps")
        if self.ages:
            middle, most = 1000 * np.quantile(self.ages, [0.5, 0.99])
            found.append(f"age of answers: median {middle:.0f} ms, 99 % below {most:.0f} ms")
        return found


def open_output(path: str | None) -> TextIO:
    """A text file to write rows to, line by line; standard output for None. OSError if it cannot be written."""
    if path is None:
        return sys.stdout
    Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
    return open(Path(path).expanduser(), "w", encoding="utf-8", errors="surrogateescape", newline="", buffering=1)
