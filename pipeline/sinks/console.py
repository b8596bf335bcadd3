"""For people: a live panel, and the events above it; a table of files with counts."""

import sys
import time
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.core.text import clean
from pipeline.media.annotations import Times, read_truth
from pipeline.model.decoder import Event
from pipeline.sinks.panel import Strip, classes, meter, shortened
from pipeline.sinks.sink import Delays, Row, Sink, event_line, gap_line, warning_line

EVERY = 0.2  # seconds between two pictures of the panel
SHOWN = 4  # classes with bars, and open events
TALL, BROAD = 16, 30  # lines and characters below which the spectrogram is left out
RECENT = 500  # ages of answers that the panel sums up


class Terminal(RichConsole):
    """Whoever read us has gone: told as it is, not by an exit."""

    def on_broken_pipe(self) -> NoReturn:
        """BrokenPipeError."""
        raise BrokenPipeError


class Console(Sink):
    """A panel and a log on a terminal; plain lines when redirected."""

    files, stdout = True, "words"

    def __init__(self, posteriors: bool = False, truth: str | None = None) -> None:
        """``posteriors``: print every step too. ``truth``: a csv with start, end, label in seconds to print beside."""
        super().__init__(posteriors)
        self.truth = read_truth(truth, "sink.console.truth") if truth else None
        self.terminal = Terminal(highlight=False, soft_wrap=True, markup=False, emoji=False)
        self.plain = not self.terminal.encoding.lower().startswith("utf")
        self.live: Live | None = None
        self.found: list[Row] = []
        self.delays = Delays()
        self.strip: Strip | None = None
        self.level: float | None = None
        self.scores: NDArray[np.float32] | None = None
        self.known = 0.0  # seconds answered
        self.running: list[Event] = []
        self.drawn = 0.0
        self.lost, self.doubts = 0.0, 0  # seconds in gaps; warnings

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Show the panel, if somebody can see it."""
        super().start(name, labels, rate, hop)
        self.terminal.print(f"listening to {clean(name)}")
        if self.terminal.is_terminal and not self.terminal.is_dumb_terminal:
            above = sys.stderr.isatty()  # warnings
            self.live = Live(console=self.terminal, auto_refresh=False, transient=True, redirect_stderr=above)
            self.live.start()

    def sound(self, samples: NDArray[np.float32], level: float | None = None) -> None:
        """Sound for the meter and the spectrogram."""
        if self.live:
            self.strip = self.strip or Strip(self.rate)
            self.strip.add(samples)
            self.level = level

    def begun(self, events: list[Event]) -> None:
        """What is open, to show; and if it is time, the panel is drawn again."""
        self.running = events
        now = time.monotonic()
        if self.live and now - self.drawn >= EVERY:
            self.live.update(self.panel(), refresh=True)
            self.drawn = time.monotonic()

    def steps(self, first: int, posteriors: NDArray[np.float32], age: float | None = None) -> None:
        """The newest step, and how old it is."""
        super().steps(first, posteriors, age)
        if len(posteriors):
            self.scores, self.known = posteriors[-1], (first + len(posteriors)) * self.hop / self.rate
            if age is not None:
                self.delays.ages.append(age)

    def panel(self) -> Text:
        """What is known now."""
        width, height = self.terminal.size
        width -= 1
        lines: list[Text | str] = [self.headline()]
        if self.strip is not None:
            if self.terminal.color_system == "truecolor" and width >= BROAD and height >= TALL and not self.plain:
                lines += self.strip.draw(min(width, 100), colours=True)
            elif width >= BROAD and height >= TALL:
                lines += self.strip.draw(min(width, 100), colours=False)
            level = self.strip.level if self.level is None else self.level
            lines.append(f"  {meter(level, max(4, min(60, width) - 14), self.plain)}")
        if self.scores is not None:
            count = max(1, min(SHOWN, height - len(lines) - SHOWN))
            lines += classes(self.labels, self.scores, count, min(width, 80), self.plain)
        for event in self.running[:SHOWN]:
            since = self.known - self.seconds(event.start)
            lines.append(f"  > {shortened(event.label, 20)} for {since:.1f} s, best {event.score:.2f}")
        kept = [Text(line, no_wrap=True) if isinstance(line, str) else line for line in lines[: max(1, height - 1)]]
        for line in kept:
            line.truncate(width)
        return Text("\n", no_wrap=True).join(kept)

    def headline(self) -> str:
        """Time, age of answers, what was lost."""
        parts = [f"{self.known:8.1f} s", f"{len(self.found)} events"]
        if self.delays.ages:
            newest = list(self.delays.ages)[-RECENT:]
            middle, most = 1000 * np.quantile(newest, [0.5, 0.99])
            parts.append(f"answers {middle:.0f} ms old (99 %: {most:.0f})")
        if self.lost:
            parts.append(f"{self.lost:.1f} s lost")
        if self.doubts:
            parts.append(f"{self.doubts} warnings")
        return "  ".join(parts)

    def step(self, row: Row) -> None:
        """A step, as a line."""
        scores = {clean(label): value for label, value in row["posteriors"].items()}
        numbers = {"time": row["time"]} | scores | ({"age": row["age"]} if "age" in row else {})
        self.terminal.print("  ".join(f"{key} {value:.3f}" for key, value in numbers.items()))

    def event(self, row: Row) -> None:
        """An event, as soon as it has ended."""
        self.found.append(row)
        line = event_line(row)
        if self.truth is not None:
            line += f"   {beside(row, self.truth)}"
        self.terminal.print(line)

    def gap(self, row: Row) -> None:
        """A stretch without input, as soon as it is known; short ones are summed up in the end."""
        self.lost += row["length"]
        if self.delays.noted(row):
            self.terminal.print(gap_line(row))

    def warning(self, row: Row) -> None:
        """A warning, as a line."""
        self.doubts += 1
        self.terminal.print(warning_line(row))

    def file(self, row: Row) -> None:
        """A classified file, as a line."""
        answer = f"{clean(row['label']):<16} {row['score']:.2f}" if row["label"] else f"{row['code']}"
        doubt = row["code"] if row["label"] else row.get("reason", "")
        note = f"  ({clean(doubt)})" if doubt else ""
        if "events" in row and row["status"] != "error":
            answer = f"{len(row['events'])} event{'s' * (len(row['events']) != 1)}"
        self.terminal.print(f"{row['status']:<8}{answer:<22} {clean(row['path'])}{note}", markup=False)
        for event in row.get("events", ()):
            self.terminal.print(event_line(event), markup=False)

    def close(self) -> None:
        """End the live line and sum up."""
        if self.live:
            self.live.stop()
        if hasattr(self, "labels"):
            for line in (f"{len(self.found)} events", *self.delays.lines()):
                self.terminal.print(line)
            missed = [span for span in self.truth or [] if not any(overlaps(row, span) for row in self.found)]
            if self.truth is not None:
                table = Table(
                    "start", "end", "label", title=f"{len(missed)} of {len(self.truth)} true events were not found"
                )
                for start, end, label in missed:
                    table.add_row(f"{start:.2f}", f"{end:.2f}", Text(clean(label)))
                self.terminal.print(table if missed else table.title)


def overlaps(row: Row, span: Times) -> bool:
    """Whether an answer has the label of a true event and a part of its time."""
    return bool(row["label"] == span[2] and row["start"] < span[1] and span[0] < row["end"])


def beside(row: Row, truth: list[Times]) -> str:
    """What was really there during an event."""
    there = [span for span in truth if row["start"] < span[1] and span[0] < row["end"]]
    return "; ".join(f"truth {span[0]:.2f} – {span[1]:.2f} {clean(span[2])}" for span in there) or "truth: nothing"
