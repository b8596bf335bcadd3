"""Sinks that show pictures: what the model thinks of each, and the same on standard output in words."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from pipeline.core.text import clean
from pipeline.model.decoder import Event
from pipeline.sinks.overlay import Scene, Span, font
from pipeline.sinks.sink import Delays, Row, Sink, event_line, gap_line, warning_line

LAST, BLOCKS = 32, 4096  # events and blocks of answers that are remembered
NOW = 0.001  # seconds: times of events are rounded to it


class Screen(Sink):
    """Base of sinks that show pictures: keeps what was said lately, so that ``scene`` can be asked for any of it."""

    pictures = True
    stdout = "asides"

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Nothing is known yet. ConfigError if the OpenCV that is installed is too old."""
        font()
        super().start(name, labels, rate, hop)
        self.running: list[Span] = []
        self.ended: deque[Span] = deque(maxlen=LAST)
        self.answers: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=BLOCKS)
        self.known = 0  # steps answered
        self.found = 0  # events
        self.age: float | None = None
        self.delays = Delays()
        self.say(f"watching {clean(name)}")

    def steps(self, first: int, posteriors: NDArray[np.float32], age: float | None = None) -> None:
        """Remember the answers."""
        super().steps(first, posteriors, age)
        if len(posteriors):
            self.answers.append((first, posteriors))
            self.known = first + len(posteriors)
            self.age = age
            if age is not None:
                self.delays.ages.append(age)

    def events(self, events: list[Event]) -> None:
        """Remember what has ended; ``begun`` will say what is still open."""
        self.running = []
        super().events(events)

    def event(self, row: Row) -> None:
        """Remember and print an event."""
        self.ended.append(Span(row["label"], row["start"], row["end"]))
        self.found += 1
        self.say(event_line(row))

    def begun(self, events: list[Event]) -> None:
        """Remember what is open."""
        self.running = [Span(event.label, self.seconds(event.start), float("inf")) for event in events]

    def gap(self, row: Row) -> None:
        """Print and show a gap that is worth it."""
        if self.delays.noted(row):
            self.say(gap_line(row))
            self.missing(row["start"], row["why"])

    def warning(self, row: Row) -> None:
        """Print a warning."""
        self.say(warning_line(row))

    def say(self, text: str) -> None:
        """Lines on standard output, unless another sink is there for that."""
        if not self.quiet:
            print(text, flush=True)

    def missing(self, seconds: float, why: str) -> None:
        """From here on there is no picture, until one comes."""

    def step_at(self, seconds: float) -> int:
        """The step that answers for a picture: the one whose time it falls into."""
        return int((seconds + 1e-6) * self.rate / self.hop)

    def answer(self, step: int) -> NDArray[np.float32] | None:
        """Posteriors ``(K,)`` of a step, or the last before it if it has none (yet); those before are forgotten."""
        while len(self.answers) > 1 and self.answers[1][0] <= step:
            self.answers.popleft()
        if not self.answers or step < self.answers[0][0]:
            return None
        first, posteriors = self.answers[0]
        newest: NDArray[np.float32] = posteriors[min(step - first, len(posteriors) - 1)]
        return newest

    def scene(self, seconds: float, age: float | None = None, notice: str = "") -> Scene:
        """What is known of a moment."""
        now = seconds + NOW
        running = [span for span in [*self.ended, *self.running] if span.start <= now < span.end]
        ended = [span for span in self.ended if span.end <= now]
        answer = self.answer(self.step_at(seconds))
        return Scene(self.labels, seconds, answer, tuple(running), tuple(ended), age, notice)

    def close(self) -> None:
        """Sum up."""
        if hasattr(self, "labels"):
            self.say("\n".join([f"{self.found} events", *self.delays.lines()]))
