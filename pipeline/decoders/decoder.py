"""From posteriors to events: thresholds with hysteresis, bridged pauses, minimum length, refractory time.

Times are whole ticks of the model's clock; seconds are derived only where people read them.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field, NonNegativeFloat

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.decoders.phrases import read_phrases
from pipeline.media.tables import to_label, to_text

Score = Annotated[float, Field(ge=0, le=1)]
Step = Annotated[int, Field(ge=0, le=2**62, strict=True)]


def by_label(setting: Any, got: str = "") -> Any:
    """A list of pairs, ``[["a,b", 0.7], ["null", 0.3]]``, as a mapping: labels that a command line can hardly have as
    keys can be texts in it. Anything else as it is. ConfigError, which begins with ``got``, for another list.
    """
    if not isinstance(setting, list):
        return setting
    if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], (str, int)) for pair in setting):
        raise ConfigError(f'{got}expected pairs of a label and a posterior, [["a,b",0.7],["null",0.3]]')
    found = {to_text(label): level for label, level in setting}
    if len(found) < len(setting):
        raise ConfigError(f"{got}expected each label once")
    return found


Level = Annotated[Score | dict[str, float], BeforeValidator(by_label)]  # a posterior for all labels, or one for each
THRESHOLD = 0.6  # where none is set, or chosen in training
RELEASE_SHARE = 2 / 3  # of the threshold: the release, where none is set
NEVER = np.float32(np.inf)


@dataclass(frozen=True)
class Event:
    """An event from tick ``start`` to tick ``end`` (exclusive). ``score`` is its best posterior, first reached by the
    step at tick ``peak``. Until it is ``final``, all but label and start may change.
    """

    label: str
    start: int
    end: int
    score: float
    peak: int
    final: bool = True
    details: str = ""  # what else is known of it


class OpenEvent(NamedTuple):
    """An event that is not final, in steps; ``end`` is None until the posterior falls below the release."""

    start: Step
    score: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    peak: Step
    end: Step | None


class Snapshot(BaseModel):
    """What a decoder remembers: steps, and events and steps by label."""

    step: Step
    open: dict[str, OpenEvent]
    free: dict[str, Step]


class Decoder:
    """Turns posterior steps into events, one class at a time; the same code for files and for live streams.

    A class's event opens when its posterior reaches ``threshold``, and closes when it falls below ``release``. If it
    opens again after a pause of at most ``merge`` seconds, it is still the same event. Events shorter than ``minimum``
    seconds are dropped; the same class opens again only ``refractory`` seconds after its last event. Labels in
    ``background`` never make events.

    An event is among the ``open_events`` once it is ``minimum`` long; its end, peak and score may change, its label and
    start do not. ``decode`` (or ``close``) returns it once, when it is final: ``merge`` seconds after its end. Every
    event that was open becomes final.

    ``reads``: what is found in the steps, which the model's task has to give.
    """

    reads: Literal["events", "numbers", "strings"] = "events"
    bounded = True  # scores are from 0 to 1

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

        ``threshold`` and ``release``: a number, or one for each label (a mapping, or a list of pairs). Where there is
        none, the threshold is ``THRESHOLD``, and the release two thirds of the threshold. ValueError for a label that
        is not there, or a release above its threshold.
        """
        self.labels, self.hop = labels, hop
        high = label_levels(threshold, labels, "threshold", THRESHOLD)
        low = label_levels(release, labels, "release", high * RELEASE_SHARE)
        # In the posteriors' own precision: what is printed as 0.7 reaches a threshold of 0.7.
        self.high, self.low = high.astype(np.float32), low.astype(np.float32)
        quiet = {"background"} if background is None else {*background, *map(to_label, background)}
        self.audible = [index for index, label in enumerate(labels) if label not in quiet]
        self.high[[label in quiet for label in labels]] = NEVER
        for index in np.flatnonzero(self.low > self.high):
            above = (
                f"decoder.release ({self.low[index]:.4g}) must not be above decoder.threshold ({self.high[index]:.4g})"
            )
            raise ValueError(f"{above}, here of {labels[index]!r}")
        # In whole steps; minimum and refractory are rounded up, merge is rounded down.
        self.minimum = -(-round(minimum * rate) // hop)
        self.merge = round(merge * rate) // hop
        self.refractory = -(-round(refractory * rate) // hop)
        self.step = 0  # steps decoded so far
        self.open: dict[int, OpenEvent] = {}  # by class
        self.free: dict[int, int] = {}  # class -> step from which it may open again

    @property
    def told(self) -> list[str]:
        """The labels of the events that it may tell, as far as they are known before."""
        return [self.labels[index] for index in self.audible]

    @property
    def levels(self) -> NDArray[np.float32]:
        """Scores ``(K,)``: while no event is open, steps that reach none of them are only passed over."""
        own = type(self).decode is not Decoder.decode  # a subclass may count what it likes
        return np.full_like(self.high, -NEVER) if own else self.high

    def decode(self, posteriors: NDArray[np.float32]) -> list[Event]:
        """Events that become final within these steps ``(T, K)``, in order of their end."""
        posteriors = np.asarray(posteriors, np.float32)
        reached = posteriors >= self.high
        found: list[tuple[int, int, Event]] = []
        if self.open or np.count_nonzero(reached):  # most blocks of a quiet stream reach no threshold
            for index in sorted({*self.open, *np.flatnonzero(reached.any(axis=0)).tolist()}):
                scores = posteriors[:, index].tolist()
                found += [(event.end, index, event) for event in self.follow(index, scores)]
            found.sort(key=lambda row: row[:2])
        self.step += len(posteriors)
        return [event for _, _, event in found]

    def follow(self, index: int, scores: Sequence[float]) -> Iterator[Event]:
        """One class through these steps: its events that become final."""
        high, low = float(self.high[index]), float(self.low[index])
        now = self.open.pop(index, None)
        if now and now.end is not None and self.step - now.end > self.merge:  # after ``pass_over``
            yield from self.finish(index, now)
            now = None
        for step, score in enumerate(scores, self.step):
            if now is None:
                if score >= high and step >= self.free.get(index, 0):
                    now = OpenEvent(step, score, step, None)
                continue
            if now.end is None:
                if score < low:
                    now = OpenEvent(now.start, now.score, now.peak, step)
                elif score > now.score:
                    now = OpenEvent(now.start, score, step, None)
            elif score >= high:  # the pause was short: the same event
                best = (score, step) if score > now.score else (now.score, now.peak)
                now = OpenEvent(now.start, *best, None)
            if now.end is not None and step + 1 - now.end > self.merge:
                yield from self.finish(index, now)
                now = None
        if now:
            self.open[index] = now

    def finish(self, index: int, now: OpenEvent) -> Iterator[Event]:
        """The final event, unless it is too short."""
        event = self.event(index, now, final=True)
        if event.end - event.start >= self.minimum * self.hop:
            self.free[index] = event.end // self.hop + self.refractory
            yield event

    def event(self, index: int, now: OpenEvent, final: bool) -> Event:
        """The event as it is now."""
        end = self.step if now.end is None else now.end
        return Event(
            self.labels[index], now.start * self.hop, end * self.hop, now.score, now.peak * self.hop, final=final
        )

    def open_events(self) -> list[Event]:
        """The events that are not final, as they are now, in order of their start."""
        rows = sorted(self.open.items(), key=lambda row: (row[1].start, row[0]))
        events = [self.event(index, now, final=False) for index, now in rows]
        return [event for event in events if event.end - event.start >= self.minimum * self.hop]

    def pass_over(self, steps: int) -> None:
        """Move on by steps without posteriors; open events stay open."""
        self.step += steps

    def close(self) -> list[Event]:
        """End the open events: the stream is over."""
        rows = sorted((self.step if now.end is None else now.end, index, now) for index, now in self.open.items())
        self.open = {}
        return [event for end, index, now in rows for event in self.finish(index, now._replace(end=end))]

    def for_label(self, index: int, threshold: float | None = None, release: float | None = None) -> "Decoder":
        """A new decoder of one label, for its scores ``(T, 1)``, with this one's settings where none are given."""
        other = copy.copy(self)
        other.labels, other.audible = [self.labels[index]], [0]
        other.high = np.array([self.high[index] if threshold is None else threshold], np.float32)
        other.low = np.array([self.low[index] if release is None else release], np.float32)
        other.step, other.open, other.free = 0, {}, {}
        return other

    def choose(self, scores: NDArray[np.float32], link: str, events: Sequence[Event] = ()) -> str:
        """What is told of a whole file by its posteriors ``(K,)``: the label with the highest; with ``sigmoid`` those
        that reach their thresholds, joined by ', '. A decoder of strings reads it from the file's ``events``.
        """
        if link == "softmax":
            return self.labels[int(np.argmax(scores))]
        return ", ".join(label for label, told in zip(self.labels, scores >= self.high, strict=True) if told)

    def certainty(self, scores: NDArray[np.float32], events: Sequence[Event] = ()) -> float:
        """How sure that is, 0 to 1: the highest posterior."""
        return float(scores.max())

    def snapshot(self) -> dict[str, Any]:
        """The state as plain values for JSON, without labels and settings, which are the model's."""
        return {
            "step": self.step,
            "open": {self.labels[index]: list(now) for index, now in self.open.items()},
            "free": {self.labels[index]: step for index, step in self.free.items()},
        }

    def restore(self, found: Mapping[str, Any]) -> None:
        """Take the state of ``found``, a ``snapshot`` of a decoder of the same labels and hop. ValueError, and nothing
        changed, if it is none.
        """
        try:
            memory = Snapshot.model_validate(found)
            opened = {self.labels.index(label): event for label, event in memory.open.items()}
            free = {self.labels.index(label): step for label, step in memory.free.items()}
            if self.bounded and not all(0 <= event.score <= 1 for event in opened.values()):
                raise ValueError("a score is not from 0 to 1")
        except ValueError as error:
            raise ValueError(f"no snapshot of a decoder of these labels ({error}); expected step, open, free") from None
        self.step, self.open, self.free = memory.step, opened, free


def label_levels(setting: Level | None, labels: Sequence[str], key: str, default: Any) -> NDArray[np.float64]:
    """The level of each label ``(K,)``: as set, or ``default`` (a number, or one for each). ValueError for a label that
    does not exist, or a value outside 0 to 1.
    """
    setting = by_label(setting)
    level = np.broadcast_to(np.asarray(default, np.float64), len(labels)).copy()
    if not isinstance(setting, Mapping):
        level[:] = level if setting is None else setting
        return level
    for given, value in setting.items():
        label = given if given in labels else to_label(given)
        if label not in labels:
            raise ValueError(f"decoder.{key}.{label}: no such label{nearest(label, list(labels))}")
        if not 0 <= value <= 1:
            raise ValueError(f"decoder.{key}.{label}: got {value}; expected a posterior, 0 to 1")
        level[labels.index(label)] = value
    return level


def merge_settings(stored: Mapping[str, Any], given: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """The decoder's settings in ``given`` that change those ``stored`` with a model. None changes nothing; labels that
    a given mapping leaves out keep their stored level.
    """
    settings = {key: value for key, value in given.items() if value is not None}
    if isinstance(path := settings.get("phrases"), str):
        settings["phrases"] = read_phrases(path, labels)
    for key in settings.keys() & {"threshold", "release"}:
        settings[key] = by_label(settings[key], f"decoder.{key}: got {settings[key]!r}; ")
    for key, value in settings.items():
        if isinstance(value, Mapping):
            before = by_label(stored.get(key))
            rest = before if isinstance(before, Mapping) else dict.fromkeys(labels, before)
            settings[key] = {label: level for label, level in (dict(rest) | dict(value)).items() if level is not None}
    return settings
