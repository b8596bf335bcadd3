"""From posteriors to events: thresholds with hysteresis, bridged pauses, minimum length, refractory time.

Times are whole ticks of the model's clock; seconds are derived only where people read them.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, NonNegativeFloat, Tag

from pipeline.core.build import nearest

Score = Annotated[float, Field(ge=0, le=1)]


def kind(level: Any) -> str:
    """Which of the two a ``Level`` is: what is wrong with a setting can then be told."""
    return "each" if isinstance(level, Mapping) else "all"


Level = Annotated[  # a posterior for all labels, or one for each
    Annotated[Score, Tag("all")] | Annotated[dict[str, float], Tag("each")], Discriminator(kind)
]
THRESHOLD = 0.6  # where none is set, or chosen in training
SHARE = 2 / 3  # of the threshold: the release, where none is set
NEVER = np.float32(np.inf)


@dataclass(frozen=True)
class Event:
    """Something heard: from tick ``start`` to tick ``end`` (exclusive), with its best posterior ``score``, which the
    step at tick ``peak`` had first. Until it is ``final``, all but label and start may still change.
    """

    label: str
    start: int
    end: int
    score: float
    peak: int
    final: bool = True


class Begun(NamedTuple):
    """An event that is not final, in steps; ``end`` is None until the posterior falls below the release."""

    start: int
    score: float
    peak: int
    end: int | None


class Decoder:
    """Turns posterior steps into events, one class at a time; the same code for files and for live streams.

    A class's event opens when its posterior reaches ``threshold``, and closes when it falls below ``release``. If it
    opens again after a pause of at most ``merge`` seconds, it is still the same event. Events shorter than ``minimum``
    seconds are dropped; the same class opens again only ``refractory`` seconds after its last event. Labels in
    ``background`` never make events.

    The life of an event: ``begun`` shows it from the moment when it is ``minimum`` long; its end, peak and best score
    may change, its label and start do not. ``decode`` (or ``close``) returns it once, when it is final: ``merge``
    seconds after its end. Whatever was shown becomes final.
    """

    def __init__(
        self,
        labels: list[str],
        hop: int,
        rate: int,
        threshold: Level | None = None,
        release: Level | None = None,
        minimum: NonNegativeFloat = 0.05,
        merge: NonNegativeFloat = 0.0,
        refractory: NonNegativeFloat = 0.1,
        background: list[str] | None = None,
    ) -> None:
        """``labels`` in the order of the posteriors, ``hop`` ticks per step, ``rate`` ticks a second; times in seconds.

        ``threshold`` and ``release``: a number, or one for each label. Where there is none, the threshold is
        ``THRESHOLD``, and the release two thirds of the threshold. ValueError for a label that is not there, or a
        release above its threshold.
        """
        self.labels, self.hop = labels, hop
        high = levels(threshold, labels, "threshold", THRESHOLD)
        low = levels(release, labels, "release", high * SHARE)
        # In the posteriors' own precision: what is printed as 0.7 reaches a threshold of 0.7.
        self.high, self.low = high.astype(np.float32), low.astype(np.float32)
        quiet = {"background"} if background is None else set(background)
        self.audible = [index for index, label in enumerate(labels) if label not in quiet]
        self.high[[label in quiet for label in labels]] = NEVER
        for index in np.flatnonzero(self.low > self.high):
            above = (
                f"decoder.release ({self.low[index]:.4g}) must not be above decoder.threshold ({self.high[index]:.4g})"
            )
            raise ValueError(f"{above}, here of {labels[index]!r}")
        # In whole steps: of at least so long, of at most so long, after at least so long.
        self.minimum = -(-round(minimum * rate) // hop)
        self.merge = round(merge * rate) // hop
        self.refractory = -(-round(refractory * rate) // hop)
        self.step = 0  # steps decoded so far
        self.open: dict[int, Begun] = {}  # by class
        self.free: dict[int, int] = {}  # class -> step from which it may open again

    def decode(self, posteriors: NDArray[np.float32]) -> list[Event]:
        """Events that become final within these steps ``(T, K)``, in order of their end."""
        posteriors = np.asarray(posteriors, np.float32)
        # Most blocks of a quiet stream reach no threshold, and cost nothing more.
        reached = (posteriors >= self.high).any(axis=0)
        found: list[tuple[int, int, Event]] = []
        if self.open or reached.any():
            for index in sorted({*self.open, *np.flatnonzero(reached).tolist()}):
                scores = posteriors[:, index].tolist()
                found += [(event.end, index, event) for event in self.follow(index, scores)]
            found.sort(key=lambda row: row[:2])
        self.step += len(posteriors)
        return [event for _, _, event in found]

    def follow(self, index: int, scores: Sequence[float]) -> Iterator[Event]:
        """One class through these steps: its events that become final."""
        high, low = float(self.high[index]), float(self.low[index])
        now = self.open.pop(index, None)
        if now and now.end is not None and self.step - now.end > self.merge:  # time has been passed over
            yield from self.final(index, now)
            now = None
        for step, score in enumerate(scores, self.step):
            if now is None:
                if score >= high and step >= self.free.get(index, 0):
                    now = Begun(step, score, step, None)
                continue
            if now.end is None:
                if score < low:
                    now = Begun(now.start, now.score, now.peak, step)
                elif score > now.score:
                    now = Begun(now.start, score, step, None)
            elif score >= high:  # the pause was short: the same event
                best = (score, step) if score > now.score else (now.score, now.peak)
                now = Begun(now.start, *best, None)
            if now.end is not None and step + 1 - now.end > self.merge:
                yield from self.final(index, now)
                now = None
        if now:
            self.open[index] = now

    def final(self, index: int, now: Begun) -> Iterator[Event]:
        """An event that will not change any more; nothing if it is too short."""
        event = self.event(index, now, final=True)
        if event.end - event.start >= self.minimum * self.hop:
            self.free[index] = event.end // self.hop + self.refractory
            yield event

    def event(self, index: int, now: Begun, final: bool) -> Event:
        """An event as it stands."""
        end = self.step if now.end is None else now.end
        return Event(
            self.labels[index], now.start * self.hop, end * self.hop, now.score, now.peak * self.hop, final=final
        )

    def begun(self) -> list[Event]:
        """The events that have begun and are not final, as they stand, in order of their start."""
        rows = sorted(self.open.items(), key=lambda row: (row[1].start, row[0]))
        events = [self.event(index, now, final=False) for index, now in rows]
        return [event for event in events if event.end - event.start >= self.minimum * self.hop]

    def pass_over(self, steps: int) -> None:
        """Time passes without posteriors; what is open stays so."""
        self.step += steps

    def close(self) -> list[Event]:
        """End what has begun: the stream is over."""
        rows = sorted((self.step if now.end is None else now.end, index, now) for index, now in self.open.items())
        self.open = {}
        return [event for end, index, now in rows for event in self.final(index, now._replace(end=end))]

    def alone(self, index: int, threshold: float | None = None, release: float | None = None) -> "Decoder":
        """A new decoder of one label, for its scores ``(T, 1)``; settings that are not given stay the same."""
        other = copy.copy(self)
        other.labels, other.audible = [self.labels[index]], [0]
        other.high = np.array([self.high[index] if threshold is None else threshold], np.float32)
        other.low = np.array([self.low[index] if release is None else release], np.float32)
        other.step, other.open, other.free = 0, {}, {}
        return other

    def snapshot(self) -> dict[str, Any]:
        """All that is remembered, as JSON's plain values. Labels and settings are the model's, and are not in it."""
        return {
            "step": self.step,
            "open": {self.labels[index]: list(now) for index, now in self.open.items()},
            "free": {self.labels[index]: step for index, step in self.free.items()},
        }

    def restore(self, found: Mapping[str, Any]) -> None:
        """Remember what a decoder of the same labels and hop remembered when ``found`` was its ``snapshot``.

        ValueError, and nothing changed, if it is none.
        """
        try:
            place = {label: index for index, label in enumerate(self.labels)}
            step = whole(found["step"])
            begun = {place[label]: remembered(*row) for label, row in found["open"].items()}
            free = {place[label]: whole(value) for label, value in found["free"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"no snapshot of a decoder of these labels ({error!r}); expected step, open, free"
            ) from None
        self.step, self.open, self.free = step, begun, free


def whole(value: Any) -> int:
    """A count of steps; TypeError if it is none."""
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no count of steps")
    return value


def remembered(start: Any, score: Any, peak: Any, end: Any) -> Begun:
    """An event of a snapshot; TypeError if it is none."""
    if type(score) not in (int, float) or not 0 <= score <= 1:
        raise TypeError(f"{score!r} is no score")
    return Begun(whole(start), float(score), whole(peak), None if end is None else whole(end))


def levels(setting: Level | None, labels: Sequence[str], key: str, default: Any) -> NDArray[np.float64]:
    """The level of each label ``(K,)``: as set, or else ``default`` (a number, or one for each)."""
    level = np.broadcast_to(np.asarray(default, np.float64), len(labels)).copy()
    if not isinstance(setting, Mapping):
        level[:] = level if setting is None else setting
        return level
    for label, value in setting.items():
        if label not in labels:
            raise ValueError(f"decoder.{key}.{label}: no such label{nearest(label, list(labels))}")
        if not 0 <= value <= 1:
            raise ValueError(f"decoder.{key}.{label}: got {value}; expected a posterior, 0 to 1")
        level[labels.index(label)] = value
    return level


def changed(stored: Mapping[str, Any], given: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A decoder's settings, ``stored`` with a model, changed by those ``given`` on a command line.

    None changes nothing; labels that a given mapping leaves out keep what is stored.
    """
    settings = {key: value for key, value in given.items() if value is not None}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            before = stored.get(key)
            rest = before if isinstance(before, Mapping) else dict.fromkeys(labels, before)
            settings[key] = {label: level for label, level in (dict(rest) | dict(value)).items() if level is not None}
    return settings
