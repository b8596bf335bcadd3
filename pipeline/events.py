"""From posteriors to events: thresholds with hysteresis, minimum length, refractory time.

Times are whole sample indices of the model's rate; seconds are derived only where people read them.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat

Score = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Event:
    """Something heard: from sample ``start`` to sample ``end`` (exclusive), with its best posterior ``score``."""

    label: str
    start: int
    end: int
    score: float


class Decoder:
    """Turns posterior steps into events, one class at a time; the same code for files and for live streams.

    A class's event opens when its posterior reaches ``threshold``, and closes when it falls below ``release``. Events
    shorter than ``minimum`` seconds are dropped; the same class opens again only ``refractory`` seconds after its last
    event. Labels in ``background`` never make events.
    """

    def __init__(
        self,
        labels: list[str],
        hop: int,
        rate: int,
        threshold: Score = 0.6,
        release: Score = 0.4,
        minimum: NonNegativeFloat = 0.05,
        refractory: NonNegativeFloat = 0.1,
        background: list[str] | None = None,
    ) -> None:
        """``labels`` in the order of the posteriors, ``hop`` samples per step, ``rate`` in Hz; times in seconds."""
        if release > threshold:
            raise ValueError(f"decoder.release ({release}) must not be above decoder.threshold ({threshold})")
        self.labels, self.hop = labels, hop
        self.threshold, self.release = threshold, release
        self.minimum, self.refractory = round(minimum * rate), round(refractory * rate)
        quiet = {"background"} if background is None else set(background)
        self.audible = [index for index, label in enumerate(labels) if label not in quiet]
        self.step = 0  # steps decoded so far
        self.open: dict[int, tuple[int, float]] = {}  # class -> (start step, best score)
        self.free: dict[int, int] = {}  # class -> sample from which it may open again

    def decode(self, posteriors: NDArray[np.float32]) -> list[Event]:
        """Events that end within these steps ``(T, K)``, in order of their end."""
        events = []
        active = self.audible if self.open else self.candidates(posteriors)
        for row in posteriors if active else ():
            for index in self.audible:
                event = self.advance(index, float(row[index]))
                if event:
                    events.append(event)
            self.step += 1
        if not active:
            self.step += len(posteriors)
        return events

    def candidates(self, posteriors: NDArray[np.float32]) -> list[int]:
        """Classes that reach the threshold at all: most blocks of a quiet stream have none, and cost nothing."""
        return [index for index in self.audible if (posteriors[:, index] >= self.threshold).any()]

    def advance(self, index: int, score: float) -> Event | None:
        """One step of one class."""
        if index in self.open:
            start, best = self.open[index]
            if score >= self.release:
                self.open[index] = start, max(best, score)
                return None
            return self.finish(index)
        if score >= self.threshold and self.step * self.hop >= self.free.get(index, 0):
            self.open[index] = self.step, score
        return None

    def finish(self, index: int) -> Event | None:
        """Close an open event at the current step; None if it was too short."""
        start, best = self.open.pop(index)
        event = Event(self.labels[index], start * self.hop, self.step * self.hop, best)
        if event.end - event.start < self.minimum:
            return None
        self.free[index] = event.end + self.refractory
        return event

    def begun(self) -> list[Event]:
        """The events that are open now, as they stand."""
        now = self.step * self.hop
        return [Event(self.labels[index], start * self.hop, now, best) for index, (start, best) in self.open.items()]

    def pass_over(self, steps: int) -> None:
        """Time passes without posteriors; what is open stays so."""
        self.step += steps

    def close(self) -> list[Event]:
        """End what is still open: the stream is over."""
        return [event for index in list(self.open) if (event := self.finish(index))]
