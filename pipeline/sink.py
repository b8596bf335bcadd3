"""What a sink is: somewhere results go. Sinks receive plain rows, so a new one is a few lines."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.events import Event

Row = dict[str, Any]


class Sink:
    """Base of all sinks: does nothing with anything. Used as a context manager; leaving it keeps what was written."""

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

    def steps(self, first: int, posteriors: NDArray[np.float32]) -> None:
        """Posteriors ``(T, K)`` of the steps from ``first`` on; a step's time is the end of what it has heard."""
        for number, row in enumerate(posteriors.tolist() if self.posteriors else (), first + 1):
            scores = dict(zip(self.labels, (round(value, 6) for value in row), strict=True))
            self.step({"time": self.seconds(number * self.hop)} | scores)

    def seconds(self, samples: int) -> float:
        """Samples as seconds, to the millisecond."""
        return round(samples / self.rate, 3)

    def event(self, row: Row) -> None:
        """One event: start, end, label, score."""

    def step(self, row: Row) -> None:
        """One step: time, and the posterior of each class."""

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


def open_output(path: str | None) -> TextIO:
    """A text file to write rows to, line by line; standard output for None. OSError if it cannot be written."""
    if path is None:
        return sys.stdout
    Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
    return open(Path(path).expanduser(), "w", encoding="utf-8", errors="surrogateescape", newline="", buffering=1)
