"""Sinks that show pictures: what the model thinks of each, and the same on standard output in words."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

import pipeline.sinks.items as items
from pipeline.core.text import clean
from pipeline.sinks.overlay import Scene, font
from pipeline.sinks.sink import LiveSummary, Sink, event_line, gap_line, warning_line

MAX_ENDED, MAX_ANSWERS = 32, 4096  # events and blocks of answers that are remembered
EVENT_SECONDS = 0.001  # times of events are rounded to it


class Screen(Sink):
    """Base of sinks that show pictures: remembers what was answered lately, so that ``scene`` can be asked for it."""

    pictures = True
    stdout = "asides"

    def start(self, stream: items.StreamInfo) -> None:
        """Nothing is known yet. ConfigError if the OpenCV that is installed is too old."""
        font()
        super().start(stream)
        self.info = stream
        self.open: tuple[items.TimedEvent, ...] = ()
        self.ended: deque[items.TimedEvent] = deque(maxlen=MAX_ENDED)
        self.answers: deque[items.Steps] = deque(maxlen=MAX_ANSWERS)
        self.steps = self.count = 0  # answered; events
        self.age: float | None = None
        self.summary = LiveSummary()
        self.say(f"watching {clean(stream.name)}")

    def write(self, item: items.Item) -> None:
        """Remember answers and events, print events, gaps and warnings, show pictures and gaps."""
        match item:
            case items.Steps() if len(item.posteriors):
                self.answers.append(item)
                self.steps, self.age = item.first + len(item.posteriors), item.age
                self.summary.add_age(item.age)
            case items.TimedEvent():
                self.ended.append(item)
                self.count += 1
                self.say(event_line(item))
            case items.OpenEvents():
                self.open = item.events
            case items.TimedGap() if self.summary.add_gap(item):
                self.say(gap_line(item))
                self.show_gap(item)
            case items.StreamWarning():
                self.say(warning_line(item))
            case items.Frame():
                self.show(item)

    def say(self, text: str) -> None:
        """Lines on standard output, unless another sink writes there."""
        if self.stdout:
            print(text, flush=True)

    def show(self, frame: items.Frame) -> None:
        """Show a picture."""

    def show_gap(self, gap: items.TimedGap) -> None:
        """From here on there is no picture, until one comes."""

    def step_at(self, seconds: float) -> int:
        """The step that answers for a picture: the one whose time it falls into."""
        return int((seconds + 1e-6) * self.info.rate / self.info.hop)

    def answer(self, step: int) -> NDArray[np.float32] | None:
        """Posteriors ``(K,)`` of a step, or the last before it if it has none (yet); those before are forgotten."""
        while len(self.answers) > 1 and self.answers[1].first <= step:
            self.answers.popleft()
        if not self.answers or step < self.answers[0].first:
            return None
        first, posteriors = self.answers[0].first, self.answers[0].posteriors
        newest: NDArray[np.float32] = posteriors[min(step - first, len(posteriors) - 1)]
        return newest

    def scene(self, seconds: float, age: float | None = None, notice: str = "") -> Scene:
        """What is known of a moment."""
        now = seconds + EVENT_SECONDS
        running = [event for event in self.ended if event.start <= now < event.end]
        running += [event for event in self.open if event.start <= now]
        ended = [event for event in self.ended if event.end <= now]
        answer = self.answer(self.step_at(seconds))
        return Scene(self.info.labels, seconds, answer, tuple(running), tuple(ended), age, notice)

    def close(self) -> None:
        """Sum up."""
        if self.stream:
            self.say("\n".join([f"{self.count} events", *self.summary.lines()]))
