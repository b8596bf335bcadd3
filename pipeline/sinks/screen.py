"""Sinks that show pictures: what the model thinks of each, and the same on standard output in words."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

import pipeline.sinks.items as items
from pipeline.media.picture import Image
from pipeline.sinks.overlay import Plan, Scene, draw, font, plan
from pipeline.sinks.words import Words

MAX_ENDED, MAX_ANSWERS = 32, 4096  # events and blocks of answers that are remembered
EVENT_SECONDS = 0.001  # times of events are rounded to it


class Screen(Words):
    """Base of sinks that show pictures: remembers what was answered lately, so that ``scene`` can be asked for it."""

    pictures = True
    stdout = "asides"
    verb = "watching"
    place: Plan | None = None
    last: Image | None = None

    def start(self, stream: items.StreamInfo) -> None:
        """Nothing is known yet. ConfigError if the OpenCV that is installed is too old."""
        font()
        super().start(stream)
        self.open: tuple[items.TimedEvent, ...] = ()
        self.ended: deque[items.TimedEvent] = deque(maxlen=MAX_ENDED)
        self.answers: deque[items.Steps] = deque(maxlen=MAX_ANSWERS)
        self.steps = 0  # answered
        self.age: float | None = None

    def write(self, item: items.Item) -> None:
        """Remember answers and events, show pictures."""
        super().write(item)
        match item:
            case items.Steps() if len(item.posteriors):
                self.answers.append(item)
                self.steps, self.age = item.first + len(item.posteriors), item.age
            case items.TimedEvent():
                self.ended.append(item)
            case items.OpenEvents():
                self.open = item.events
            case items.Frame():
                self.show(item)

    def show(self, frame: items.Frame) -> None:
        """Show a picture."""

    def draw(self, image: Image, seconds: float, age: float | None = None, notice: str = "") -> Image:
        """A picture beside what is known of its time; all are as large as the first one."""
        self.place, self.last = self.place or plan(*image.shape[:2]), image
        return draw(image, self.scene(seconds, age, notice), self.place)

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
