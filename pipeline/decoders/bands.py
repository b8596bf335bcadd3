"""Events of one score, each with the parts of a step (bands, regions) that were strangest where it was highest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.decoder import NEVER, Decoder, Event, OpenEvent

TOLD = 2  # parts of an event, at most
STRANGE = 0.5  # the score from which on a part is told


class Bands(Decoder):
    """The first column makes events; all others tell of what they are. Settings: see ``Decoder``."""

    def __init__(self, labels: list[str], hop: int, rate: int, **options: Any) -> None:
        """``labels`` of all columns."""
        super().__init__(labels, hop, rate, **options)
        self.high[1:], self.audible = NEVER, [0]
        self.block = np.zeros((0, len(labels)), np.float32)  # the newest steps
        self.first = 0  # the number of the first of them
        self.best = np.zeros(len(labels), np.float32)  # the columns where the open event was highest before them

    def decode(self, posteriors: NDArray[np.float32]) -> list[Event]:
        """As any decoder, and remember the columns at the peak."""
        self.block, self.first = np.asarray(posteriors, np.float32), self.step
        events = super().decode(posteriors)
        if 0 in self.open:
            self.best = self.at(self.open[0].peak)
        return events

    def at(self, step: int) -> NDArray[np.float32]:
        """The columns at the peak of an event."""
        return self.block[step - self.first].copy() if step >= self.first else self.best

    def event(self, index: int, now: OpenEvent, final: bool) -> Event:
        """The event, and what was strange."""
        scores = self.at(now.peak)
        order = [place for place in np.argsort(-scores[1:], kind="stable")[:TOLD] + 1 if scores[place] >= STRANGE]
        return replace(super().event(index, now, final), details=", ".join(self.labels[place] for place in order))

    def certainty(self, scores: NDArray[np.float32], events: Sequence[Event] = ()) -> float:
        """How unusual it is."""
        return float(scores[0])

    def for_label(self, index: int, threshold: float | None = None, release: float | None = None) -> "Bands":
        """As of any decoder; nothing is known of the parts."""
        other = super().for_label(index, threshold, release)
        assert isinstance(other, Bands)
        other.best = np.zeros(1, np.float32)
        other.block, other.first = other.best[:0, None], 0
        return other

    def snapshot(self) -> dict[str, Any]:
        """Also the columns at the peak."""
        return super().snapshot() | {"best": [float(score) for score in self.best]}

    def restore(self, found: Mapping[str, Any]) -> None:
        """As of any decoder. ValueError, and nothing changed, without the columns."""
        best = found.get("best")
        if not isinstance(best, list) or len(best) != len(self.best) or not all(isinstance(one, float) for one in best):
            raise ValueError(f"no snapshot of a decoder of bands; expected {len(self.best)} numbers as best")
        super().restore({key: value for key, value in found.items() if key != "best"})
        self.best, self.block, self.first = np.array(best, np.float32), self.block[:0], self.step
