"""For people: a live line with the top classes, then a table of events; a table of files with counts."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console as Terminal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.errors import ConfigError
from pipeline.sink import Delays, Row, Sink, event_line, gap_line

BAR = 24  # characters of a full bar


class Console(Sink):
    """Rich text on the terminal; plain text when redirected."""

    def __init__(self, posteriors: bool = False, truth: str | None = None) -> None:
        """``posteriors``: print every step too. ``truth``: a csv with start, end, label in seconds to print beside."""
        super().__init__(posteriors)
        self.truth = read_truth(truth) if truth else None
        self.terminal = Terminal(highlight=False, soft_wrap=True, markup=False, emoji=False)
        self.live: Live | None = None
        self.found: list[Row] = []
        self.delays = Delays()
        self.counts: Counter[str] = Counter()

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Show the live line, if somebody can see it."""
        super().start(name, labels, rate, hop)
        self.terminal.print(f"listening to {name}")
        if self.terminal.is_terminal:
            self.live = Live(console=self.terminal, refresh_per_second=10, transient=True)
            self.live.start()

    def steps(self, first: int, posteriors: NDArray[np.float32], age: float | None = None) -> None:
        """Show the newest step as bars, and how old it is."""
        super().steps(first, posteriors, age)
        if age is not None and len(posteriors):
            self.delays.ages.append(age)
        if self.live and len(posteriors):
            newest = posteriors[-1]
            late = "" if age is None else f"  {1000 * age:.0f} ms old"
            lines = [f"{(first + len(posteriors)) * self.hop / self.rate:8.1f} s{late}"]
            for index in np.argsort(-newest)[:3]:
                lines.append(
                    f"  {self.labels[index]:<16} {'█' * round(float(newest[index]) * BAR)} {newest[index]:.2f}"
                )
            self.live.update(Text("\n".join(lines)))

    def step(self, row: Row) -> None:
        """A step, as a line."""
        self.terminal.print("  ".join(f"{key} {value:.3f}" for key, value in row.items()))

    def event(self, row: Row) -> None:
        """An event, as soon as it has ended."""
        self.found.append(row)
        line = event_line(row)
        if self.truth is not None:
            line += f"   {beside(row, self.truth)}"
        self.terminal.print(line)

    def gap(self, row: Row) -> None:
        """A stretch without input, as soon as it is known; short ones are summed up in the end."""
        if self.delays.noted(row):
            self.terminal.print(gap_line(row))

    def file(self, row: Row) -> None:
        """A classified file, as a line."""
        self.counts[row["status"]] += 1
        answer = f"{row['label']:<16} {row['score']:.2f}" if row["label"] else f"{row['code']}"
        note = f"  ({row['code']})" if row["label"] and row["code"] else ""
        self.terminal.print(f"{row['status']:<8}{answer:<22} {row['path']}{note}", markup=False)

    def close(self) -> None:
        """End the live line and sum up."""
        if self.live:
            self.live.stop()
        if self.counts:
            self.terminal.print("  ".join(f"{status}: {count}" for status, count in self.counts.items()))
        elif hasattr(self, "labels"):
            for line in (f"{len(self.found)} events", *self.delays.lines()):
                self.terminal.print(line)
            missed = [span for span in self.truth or [] if not any(overlaps(row, span) for row in self.found)]
            if self.truth is not None:
                table = Table(title=f"{len(missed)} of {len(self.truth)} true events were not found")
                for start, end, label in missed:
                    table.add_row(f"{start:.2f}", f"{end:.2f}", Text(label))
                self.terminal.print(table if missed else table.title)


def read_truth(path: str) -> list[tuple[float, float, str]]:
    """Events from a csv with start, end, label; ConfigError if it is none."""
    try:
        with open(Path(path).expanduser(), newline="", encoding="utf-8") as file:
            return [(float(row["start"]), float(row["end"]), row["label"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"sink.truth: {path} is no csv with start, end, label ({error})") from None


def overlaps(row: Row, span: tuple[float, float, str]) -> bool:
    """Whether an answer has the label of a true event and a part of its time."""
    return bool(row["label"] == span[2] and row["start"] < span[1] and span[0] < row["end"])


def beside(row: Row, truth: list[tuple[float, float, str]]) -> str:
    """What was really there during an event."""
    there = [span for span in truth if row["start"] < span[1] and span[0] < row["end"]]
    return "; ".join(f"truth {span[0]:.2f} – {span[1]:.2f} {span[2]}" for span in there) or "truth: nothing"
