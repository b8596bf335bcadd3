"""For people: a live panel, and the events above it; a table of files with counts."""

import sys
import time
from collections import deque
from typing import NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

import pipeline.sinks.items as items
from pipeline.core.text import clean
from pipeline.media.annotations import Times, beyond_end, read_truth
from pipeline.sinks.panel import Spectrogram, class_bars, fitted, meter
from pipeline.sinks.words import KEPT_AGES, Words, event_line

REDRAW_SECONDS = 0.2  # between two pictures of the panel
MAX_LISTED = 4  # classes with bars, and open events
MIN_LINES, MIN_COLUMNS = 16, 30  # of a terminal that has room for the spectrogram
MAX_COLUMNS = 100  # of the spectrogram
RECENT_AGES = 500  # of answers, which the panel sums up


class Terminal(RichConsole):
    def on_broken_pipe(self) -> NoReturn:
        """BrokenPipeError, instead of an exit."""
        raise BrokenPipeError


class Console(Words):
    """A panel and a log on a terminal; plain lines when redirected."""

    files, stdout, several, prefix = True, "words", True, ""

    def __init__(self, posteriors: bool = False, truth: str | None = None) -> None:
        """``posteriors``: print every step too. ``truth``: a table with start, end, label in seconds, or labels
        of Audacity, to print beside.
        """
        self.posteriors = posteriors
        self.truth = read_truth(truth, "sink.console.truth") if truth else None
        self.terminal = Terminal(highlight=False, soft_wrap=True, markup=False, emoji=False)
        self.ascii = not self.terminal.encoding.lower().startswith("utf")
        self.live: Live | None = None
        self.drawn = 0.0  # when, on time.monotonic
        self.found: list[items.TimedEvent] = []
        self.whole = self  # that sums up
        self.open: tuple[items.TimedEvent, ...] = ()
        self.spectrogram: Spectrogram | None = None
        self.level: float | None = None
        self.scores: NDArray[np.float32] | None = None
        self.now = 0.0  # seconds answered

    def start(self, stream: items.StreamInfo) -> None:
        """Show the panel, if it is a terminal that can."""
        super().start(stream)
        if self.terminal.is_terminal and not self.terminal.is_dumb_terminal:
            above = sys.stderr.isatty()  # warnings
            self.live = Live(console=self.terminal, auto_refresh=False, transient=True, redirect_stderr=above)
            self.live.start()

    def beside(self, stream: items.StreamInfo) -> Self:
        """Lines with the stream's name; there is no panel of several."""
        if self.live:
            self.live.stop()
            self.live = None
        other = super().beside(stream)
        other.prefix, other.info, other.whole = f"{clean(stream.name)}  ", stream, self
        other.count, other.ages = 0, deque(maxlen=KEPT_AGES)
        return other

    def leave(self) -> None:
        """What is summed up at the end."""
        self.whole.count += self.count
        self.whole.ages.extend(self.ages)

    def say(self, line: str) -> None:
        """A line, above the panel."""
        self.terminal.print(self.prefix + line)

    def comment(self, event: items.TimedEvent) -> str:
        """What is true during the event, if that is known."""
        return "" if self.truth is None else f"   {truth_during(event, self.truth)}"

    def write(self, item: items.Item) -> None:
        """Lines for events, gaps, warnings, files and, if asked for, steps; the rest is for the panel."""
        super().write(item)
        match item:
            case items.Sound() if self.live:
                self.spectrogram = self.spectrogram or Spectrogram(self.info.rate)
                self.spectrogram.add(item.samples)
                self.level = item.level
            case items.OpenEvents():
                self.open = item.events
                self.redraw()
            case items.TimedEvent() if self.truth:
                self.found.append(item)
            case items.Steps():
                self.print_steps(item)
            case items.FileResult():
                self.file(item)

    def redraw(self) -> None:
        """Draw the panel again, if it is time."""
        if self.live and time.monotonic() - self.drawn >= REDRAW_SECONDS:
            self.live.update(self.panel(), refresh=True)
            self.drawn = time.monotonic()

    def print_steps(self, steps: items.Steps) -> None:
        """Remember the newest step; print all, if asked for."""
        for row in steps.rows(self.info) if self.posteriors else ():
            scores = {clean(label): value for label, value in row.pop("posteriors").items()}
            numbers = {"time": row.pop("time")} | scores | row
            self.say("  ".join(f"{key} {value:.3f}" for key, value in numbers.items()))
        if len(steps.posteriors):
            last = steps.first + len(steps.posteriors)
            self.scores, self.now = steps.posteriors[-1], last * self.info.hop / self.info.rate

    def panel(self) -> Text:
        """What is known now: level, spectrogram, classes, open events."""
        width, height = self.terminal.size
        width -= 1
        lines: list[Text | str] = [self.headline()]
        if self.spectrogram is not None:
            if width >= MIN_COLUMNS and height >= MIN_LINES:
                colours = self.terminal.color_system == "truecolor" and not self.ascii
                lines += self.spectrogram.draw(min(width, MAX_COLUMNS), colours)
            level = self.spectrogram.level if self.level is None else self.level
            lines.append(f"  {meter(level, max(4, min(60, width) - 14), self.ascii)}")
        if self.scores is not None:
            count = max(1, min(MAX_LISTED, height - len(lines) - MAX_LISTED))
            lines += class_bars(self.info.labels, self.scores, count, min(width, 80), self.ascii)
        for event in self.open[:MAX_LISTED]:
            lines.append(f"  > {fitted(event.label, 20)} for {self.now - event.start:.1f} s, best {event.score:.2f}")
        kept = [Text(line, no_wrap=True) if isinstance(line, str) else line for line in lines[: max(1, height - 1)]]
        for line in kept:
            line.truncate(width)
        return Text("\n", no_wrap=True).join(kept)

    def headline(self) -> str:
        """Time, age of answers, what was lost."""
        parts = [f"{self.now:8.1f} s", f"{self.count} events"]
        if self.ages:
            newest = list(self.ages)[-RECENT_AGES:]
            middle, most = 1000 * np.quantile(newest, [0.5, 0.99])
            parts.append(f"answers {middle:.0f} ms old (99 %: {most:.0f})")
        if self.lost_seconds:
            parts.append(f"{self.lost_seconds:.1f} s lost")
        if self.warnings:
            parts.append(f"{self.warnings} warnings")
        return "  ".join(parts)

    def file(self, result: items.FileResult) -> None:
        """A classified file, as a line, and a line for each of its events."""
        answered = result.score is not None  # a model of tags may give no label at all
        answer = f"{clean(result.label) or '–':<16} {result.score:.2f}" if answered else result.code
        doubt = result.code if answered else result.reason
        note = f"  ({clean(doubt)})" if doubt else ""
        events = result.events or ()
        if result.events is not None and result.status != "error":
            answer = f"{len(events)} event{'s' * (len(events) != 1)}"
        self.say(f"{result.status:<8}{answer:<22} {clean(result.path)}{note}")
        for event in events:
            self.say(event_line(event))

    def close(self) -> None:
        """End the live panel and sum up."""
        if self.live:
            self.live.stop()
        super().close()
        if self.stream is None or self.truth is None:
            return
        if late := beyond_end(self.truth, self.now):
            print(f"warning: sink.console.truth: {late}", file=sys.stderr)
        truth = [span for span in self.truth if span[0] < self.now]
        missed = [span for span in truth if not any(overlaps(event, span) for event in self.found)]
        table = Table("start", "end", "label", title=f"{len(missed)} of {len(truth)} true events were not found")
        for start, end, label in missed:
            table.add_row(f"{start:.2f}", f"{end:.2f}", Text(clean(label)))
        self.terminal.print(table if missed else table.title)


def overlaps(event: items.TimedEvent, span: Times) -> bool:
    """Whether an answer has the label of a true event and a part of its time."""
    start, end, label = span
    return event.label == label and event.start < end and start < event.end


def truth_during(event: items.TimedEvent, truth: list[Times]) -> str:
    """What was really there during an event."""
    there = [span for span in truth if event.start < span[1] and span[0] < event.end]
    return "; ".join(f"truth {span[0]:.2f} – {span[1]:.2f} {clean(span[2])}" for span in there) or "truth: nothing"
