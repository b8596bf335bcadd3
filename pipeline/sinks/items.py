"""What sinks are given: small frozen values with times in seconds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.decoder import Event
from pipeline.media.picture import Image

Row: TypeAlias = dict[str, Any]
Status: TypeAlias = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class StreamInfo:
    """A stream: its name, the classes, and its clock (``hop`` ticks per step, ``rate`` ticks a second)."""

    name: str
    labels: list[str]
    rate: int
    hop: int

    def seconds(self, ticks: int) -> float:
        """Ticks as seconds."""
        return to_seconds(ticks, self.rate)


@dataclass(frozen=True)
class TimedEvent:
    """An event that has ended; ``score`` is its best posterior, first reached at ``peak``; ``details``: what else is
    known of it, "" for nothing.
    """

    start: float
    end: float
    peak: float
    label: str
    score: float
    details: str = field(default="", kw_only=True)

    @classmethod
    def of(cls, event: Event, rate: int, offset: float = 0.0) -> Self:
        """A decoder's event; its ticks are counted from ``offset`` seconds on."""
        start, end, peak = (round(offset + tick / rate, 3) for tick in (event.start, event.end, event.peak))
        return cls(start, end, peak, event.label, round(event.score, 4), details=event.details)

    def row(self) -> Row:
        """As one object, without details if there are none."""
        return {key: value for key, value in vars(self).items() if value or key != "details"}


@dataclass(frozen=True)
class OpenEvents:
    """The events that have not ended: all that are open now."""

    events: tuple[TimedEvent, ...]


@dataclass(frozen=True)
class Steps:
    """Posteriors ``(T, K)`` of the steps from number ``first`` on. ``age``: seconds since the newest of their input was
    captured, for live sources.
    """

    first: int
    posteriors: NDArray[np.float32]
    age: float | None = None

    def rows(self, stream: StreamInfo) -> Iterator[Row]:
        """A row for each step: the end of what it has heard as its time, the posteriors by class, and the age."""
        late: Row = {} if self.age is None else {"age": round(self.age, 4)}
        for number, row in enumerate(self.posteriors.tolist(), self.first + 1):
            scores = dict(zip(stream.labels, (round(value, 6) for value in row), strict=True))
            yield {"time": stream.seconds(number * stream.hop), "posteriors": scores} | late


@dataclass(frozen=True)
class TimedGap:
    """A stretch without input (``length`` 0: it has only begun), why, and what the stream does about it."""

    start: float
    length: float
    why: str
    how: str


@dataclass(frozen=True)
class StreamWarning:
    """Something doubtful about a stream."""

    time: float
    code: str
    text: str


@dataclass(frozen=True)
class Clock:
    """Where the stream stands, before the ``Sound`` that brought it there: ``seconds`` have been received, gaps
    included, and the last of them was captured at ``time`` (seconds since 1970; None: the source is not live).
    """

    seconds: float = 0.0
    time: float | None = None

    def utc(self, seconds: float) -> str | None:
        """When another second of the stream was captured, as 2026-11-30T14:05:09.250Z; None if it is not live."""
        return None if self.time is None else to_utc(self.time + seconds - self.seconds)


@dataclass(frozen=True)
class Sound:
    """Samples ``(N,)`` as the model gets them, and the greatest in dB of full scale, if the source knows."""

    samples: NDArray[np.float32]
    level: float | None = None


@dataclass(frozen=True)
class Frame:
    """A picture ``(H, W, 3)`` as the source saw it. It comes after the answers that were known by then."""

    seconds: float
    image: Image


@dataclass(frozen=True)
class Clip:
    """A file with the sound or the pictures around the event ``label`` that began at ``start``, from ``first`` to
    ``last`` in seconds of the stream.
    """

    path: Path
    label: str
    start: float
    first: float
    last: float


@dataclass(frozen=True)
class Metadata:
    """What else there is to say of the whole run."""

    facts: Mapping[str, str]


@dataclass(frozen=True)
class FileResult:
    """The answer for a file, or for the part of it from ``start`` to ``end`` in seconds (None: its end).

    Attributes:
        status: ok, warning (``code`` says what is doubtful) or error (no answer; ``code`` and ``reason`` say why).
        label: the best class; of a model of tags all labels that reach their thresholds, joined by ", "; "" if none.
        score, seconds: the highest posterior, and the duration; None if there is no answer.
        posteriors: by class; of None if there is no answer.
        events: None if no events were looked for.
        timed, labelled: whether rows have the columns of parts, and of truths, though this file has none.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    status: Status = "error"
    code: str = ""
    label: str = ""
    score: float | None = None
    seconds: float | None = None
    truth: str = ""
    reason: str = ""
    posteriors: Mapping[str, float | None] = field(default_factory=dict)
    events: tuple[TimedEvent, ...] | None = None
    timed: bool = False
    labelled: bool = False

    def row(self) -> Row:
        """As one object, "" where nothing is known: a line of JSON, and of ledgers."""
        found = self.head() | {"label": self.label, "score": blank(self.score)} | self.tail()
        found["posteriors"] = self.posteriors
        return found if self.events is None else found | {"events": [event.row() for event in self.events]}

    @classmethod
    def of(cls, row: Row) -> Self:
        """The inverse of ``row``. TypeError if it is no such row."""
        known = {key: value for key, value in row.items() if value != "" or key == "path"}
        if "events" in known:
            known["events"] = tuple(TimedEvent(**event) for event in known["events"])
        return cls(**known)

    def table_rows(self) -> Iterator[Row]:
        """As rows of a table: one, with a column for each class; or with events, one for each of them, or one without
        any, so that each file is accounted for. The times of a part are then ``part_start`` and ``part_end``.
        """
        if self.events is None:
            scores = {f"p_{label}": blank(value) for label, value in self.posteriors.items()}
            yield self.head() | {"label": self.label, "score": blank(self.score)} | self.tail() | scores
            return
        rows = [{key: getattr(event, key) for key in EVENT_COLUMNS} for event in self.events] or [NO_EVENT]
        yield from (self.head("part_") | row | self.tail() for row in rows)

    def head(self, prefix: str = "") -> Row:
        """The first columns: which file, or part of it, and how it went."""
        part = {f"{prefix}start": self.start, f"{prefix}end": blank(self.end)}
        has_part = self.timed or self.start > 0 or self.end is not None
        return {"path": self.path} | (part if has_part else {}) | {"status": self.status, "code": self.code}

    def tail(self) -> Row:
        """The columns behind the answer."""
        truth = {"truth": self.truth} if self.labelled or self.truth else {}
        return {"seconds": blank(self.seconds)} | truth | {"reason": self.reason}


Item: TypeAlias = (
    TimedEvent | OpenEvents | Steps | TimedGap | StreamWarning | Clock | Sound | Frame | Clip | Metadata | FileResult
)  # what ``Sink.write`` takes
EVENT_COLUMNS = tuple(each.name for each in fields(TimedEvent) if each.name != "details")
NO_EVENT: Row = dict.fromkeys(EVENT_COLUMNS, "")


def to_seconds(ticks: int, rate: int) -> float:
    """Ticks as seconds, to the millisecond."""
    return round(ticks / rate, 3)


def to_utc(time: float) -> str:
    """Seconds since 1970 as text that sorts by time."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def blank(value: float | None) -> float | str:
    """A number, or nothing to be seen."""
    return "" if value is None else value
