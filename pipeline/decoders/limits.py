"""From numbers to events: "snr above 30 dB", "level below 2 m", for some time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat

from pipeline.core.build import nearest
from pipeline.decoders.decoder import Decoder, Event


class Limits(Decoder):
    """Events of numbers beyond limits, each limit by itself, by the rules of ``Decoder``. An event's label says which,
    its score is the farthest number.
    """

    reads = "numbers"

    def __init__(
        self,
        labels: list[str],
        hop: int,
        rate: int,
        above: dict[str, float] | None = None,
        below: dict[str, float] | None = None,
        margin: NonNegativeFloat = 0.0,
        minimum: NonNegativeFloat = 0.0,
        merge: NonNegativeFloat = 0.0,
        refractory: NonNegativeFloat = 0.0,
    ) -> None:
        """``above``, ``below``: a limit by quantity, in its unit. An event begins at the limit, and ends when the
        number is back by ``margin``. The rest, in seconds: see ``Decoder``. ValueError for an unknown quantity.
        """
        super().__init__(labels, hop, rate, minimum=minimum, merge=merge, refractory=refractory, background=labels)
        names = [label.partition(" (")[0] for label in labels]
        levels, texts = list[float](), list[str]()
        self.columns, self.signs = list[int](), list[float]()
        for side, sign, limits in (("above", 1.0, above), ("below", -1.0, below)):
            for name, level in (limits or {}).items():
                if name not in names + labels:
                    raise ValueError(f"decoder.{side}.{name}: no such quantity{nearest(name, names)}")
                column = (names if name in names else labels).index(name)
                unit = labels[column].removeprefix(names[column]).strip(" ()")
                texts.append(f"{names[column]} {side} {level:g} {unit}".strip())
                levels.append(sign * level)
                self.columns.append(column)
                self.signs.append(sign)
        self.within = Decoder(texts, hop, rate, None, None, minimum, merge, refractory, [])
        self.within.high = np.array(levels, np.float32)
        self.within.low = np.array(levels, np.float32) - np.float32(margin)
        self.within.bounded = False

    @property
    def told(self) -> list[str]:
        """The limits."""
        return self.within.labels

    def decode(self, posteriors: NDArray[np.float32]) -> list[Event]:
        """Of numbers ``(T, K)``."""
        return self.signed(self.within.decode(posteriors[:, self.columns] * np.array(self.signs, np.float32)))

    def signed(self, events: Sequence[Event]) -> list[Event]:
        """Events with their scores as numbers of the quantity; the step goes on."""
        self.step = self.within.step
        side = dict(zip(self.within.labels, self.signs, strict=True))
        return [replace(event, score=side[event.label] * event.score) for event in events]

    def open_events(self) -> list[Event]:
        return self.signed(self.within.open_events())

    def pass_over(self, steps: int) -> None:
        self.within.pass_over(steps)
        self.step = self.within.step

    def close(self) -> list[Event]:
        return self.signed(self.within.close())

    def choose(self, scores: NDArray[np.float32], link: str, events: Sequence[Event] = ()) -> str:
        """The first quantity, whose number is then the score."""
        return self.labels[0]

    def certainty(self, scores: NDArray[np.float32], events: Sequence[Event] = ()) -> float:
        """The first number."""
        return float(scores[0])

    def snapshot(self) -> dict[str, Any]:
        return self.within.snapshot()

    def restore(self, found: Mapping[str, Any]) -> None:
        self.within.restore(found)
        self.step = self.within.step
