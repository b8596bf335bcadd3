"""What a sink is: somewhere results go. Sinks receive plain rows, so a new one is a few lines."""

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.core.text import clean
from pipeline.media.picture import Image
from pipeline.model.decoder import Event

Row = dict[str, Any]
NOTED = 1.0  # seconds; shorter gaps (a slow model has many) are only summed up where people read
EVENT = ("start", "end", "peak", "label", "score")  # the keys of an event's row
KEPT = 10_000  # ages of the last answers that are summed up


class Closed(Exception):  # noqa: N818 - it is no error
    """Raised by a sink that somebody has closed: the stream ends as if the source had."""


class Sink:
    """Base of all sinks: does nothing with anything. Used as a context manager; leaving it keeps what was written.

    Attributes:
        pictures: whether ``picture`` is to be called, for sinks that show what a camera sees.
        files: whether it takes classified files (``file``), besides what a stream says.
        stdout: what it writes to standard output: ``rows`` for programs, ``words`` for people, ``asides`` that it can
            do without (``quiet``), or nothing.
        outputs: the files that it writes.
    """

    pictures = False
    files = False
    stdout: Literal["rows", "words", "asides", ""] = ""
    quiet = False
    outputs: tuple[Path, ...] = ()

    def __init__(self, posteriors: bool = False) -> None:
        """``posteriors``: also deliver the posteriors of every step."""
        self.posteriors = posteriors

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """A stream has given its first piece: its name, the classes, and its clock (``hop`` ticks per step, ``rate``
        ticks a second). What a sink opens, it opens here (for files, at the first row): a source that cannot be read
        harms nothing.
        """
        self.name, self.labels, self.rate, self.hop = name, labels, rate, hop

    def events(self, events: list[Event]) -> None:
        """Events that have ended."""
        for event in events:
            times = {name: self.seconds(getattr(event, name)) for name in ("start", "end", "peak")}
            self.event({**times, "label": event.label, "score": round(event.score, 4)})

    def steps(self, first: int, posteriors: NDArray[np.float32], age: float | None = None) -> None:
        """Posteriors ``(T, K)`` of the steps from ``first`` on; a step's time is the end of what it has heard.

        ``age``: seconds since the newest of it was captured, for live sources.
        """
        late: Row = {} if age is None else {"age": round(age, 4)}
        for number, row in enumerate(posteriors.tolist() if self.posteriors else (), first + 1):
            scores = dict(zip(self.labels, (round(value, 6) for value in row), strict=True))
            self.step({"time": self.seconds(number * self.hop), "posteriors": scores} | late)
        self.settle()

    def settle(self) -> None:
        """Called after each answer: the time to force to the disk what was written before."""

    def seconds(self, samples: int) -> float:
        """Samples as seconds, to the millisecond."""
        return round(samples / self.rate, 3)

    def event(self, row: Row) -> None:
        """One event: start, end, peak (seconds), label, score."""

    def step(self, row: Row) -> None:
        """One step: time, posteriors (a dictionary by class), and the age of a live answer in seconds."""

    def begun(self, events: list[Event]) -> None:
        """The events that are open now."""

    def gap(self, row: Row) -> None:
        """A stretch without input: start, length (0: it has only begun), why, and what the stream does about it."""

    def warning(self, row: Row) -> None:
        """Something doubtful about the stream: time in seconds, code, text."""

    def sound(self, samples: NDArray[np.float32], level: float | None = None) -> None:
        """Samples ``(N,)`` as the model gets them, and the greatest in dB of full scale, if the source knows."""

    def picture(self, seconds: float, image: Image) -> None:
        """A picture ``(H, W, 3)`` as the source saw it, after the answers that were known by then."""

    def file(self, row: Row) -> None:
        """One classified file: path, status, code, label, score, seconds, and posteriors (a dictionary by
        class, of None where there is no answer).
        """

    def know(self, labels: list[str], quiet: list[str]) -> None:
        """Before all: the classes of the model, and which of them mean nothing and make no events."""

    def describe(self, facts: dict[str, str]) -> None:
        """What there is to be said of the whole run."""

    def finish(self) -> None:
        """Every file has had its row: what is written as a whole may take its place now."""

    def close(self) -> None:
        """All is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def expanded(row: Row) -> list[Row]:
    """A file's row as the rows of a table. With ``events``: one for each event, or one without any, so that each file
    is accounted for; if the file was a part, its times are ``part_start`` and ``part_end``. Else it is the row itself.
    """
    if "events" not in row:
        return [row]
    part = {f"part_{name}": row[name] for name in ("start", "end")} if "start" in row else {}
    head = {"path": row["path"]} | part | {"status": row["status"], "code": row["code"]}
    rest: Row = {key: row[key] for key in ("seconds", "truth", "reason") if key in row} | {"posteriors": {}}
    found = row["events"] or [dict.fromkeys(EVENT, "")]
    return [head | {key: event[key] for key in EVENT} | rest for event in found]


def event_line(row: Row) -> str:
    """An event, for people."""
    return f"{row['start']:8.2f} – {row['end']:7.2f} s  {clean(row['label']):<16} {row['score']:.2f}"


def gap_line(row: Row) -> str:
    """A gap, for people: that it has begun, or how long it was."""
    why = f"{clean(row['why'])} ({row['how']})"
    if not row["length"]:
        return f"{row['start']:8.2f} s            {why}"
    return f"{row['start']:8.2f} – {row['start'] + row['length']:7.2f} s  gap: {why}"


def warning_line(row: Row) -> str:
    """A warning, for people."""
    return f"{row['time']:8.2f} s            warning: {clean(str(row['text']))} ({row['code']})"


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
