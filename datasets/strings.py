"""Strings of clips of single words, one after another, as people say them in one breath."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from pipeline.media.sample import Derived, Sample, Split

AROUND_SECONDS = 0.1  # of a clip that are heard before and behind its sound: words begin and end softly
Range = tuple[float, float]


class StringSettings(BaseModel):
    """``dataset.scene.strings``. ``count``: fewest and most words of a string. ``pauses``: shortest and longest pauses
    between two words in seconds, one of which is drawn for each string. ``edge``: the same before and behind it.
    """

    model_config = ConfigDict(extra="forbid")
    count: tuple[PositiveInt, PositiveInt] = (2, 7)
    pauses: list[Range] = [(0.0, 0.0), (0.0, 0.1), (0.2, 0.5)]
    edge: Range = (0.05, 0.6)

    @model_validator(mode="after")
    def ordered(self) -> Self:
        """ValueError for a range that begins after its end, or below 0."""
        for low, high in (self.count, *self.pauses, self.edge):
            if not 0 <= low <= high:
                raise ValueError(f"strings: got {low:g} to {high:g}; expected the lower one first, seconds from 0")
        if not self.pauses:
            raise ValueError("strings.pauses: got none; expected pairs such as [[0.0,0.1],[0.2,0.5]]")
        return self


class Composed(Derived):
    """For each clip a string that begins with it, of clips of the same speaker, less the silence around their sound; a
    clip of the background stays as it is. Strings are others in each epoch if they are ``drawn``.
    """

    def __init__(
        self, clips: Split, settings: StringSettings, background: int, rate: int, speakers: Sequence[str], drawn: bool
    ) -> None:
        """``clips`` with known spans, of ``speakers`` (all of '' are one); ``rate`` in Hz."""
        super().__init__(clips)
        self.settings, self.background, self.rate, self.drawn = settings, background, rate, drawn
        self.speakers = speakers
        self.words: dict[str, list[int]] = defaultdict(list)
        for index, (speaker, label) in enumerate(zip(speakers, clips.classes, strict=True)):  # type: ignore[attr-defined]
            if label != background:
                self.words[speaker].append(index)

    def __getitem__(self, index: int) -> Sample | None:
        rng, first = np.random.default_rng([self.epoch * self.drawn, index, 1]), self.split[index]
        if first is None or not first.spans:
            return first
        low, high = self.settings.count
        others = rng.choice(self.words[self.speakers[index]], int(rng.integers(low, high + 1)) - 1).tolist()
        words = [first, *(found for other in others if (found := self.split[other]) is not None and found.spans)]
        shortest, longest = self.settings.pauses[rng.integers(len(self.settings.pauses))]
        before, behind = (round(rng.uniform(*self.settings.edge) * self.rate) for _ in range(2))
        parts, spans, place = [np.zeros(before, np.float32)], [], before
        for number, word in enumerate(words):
            pause = round(rng.uniform(shortest, longest) * self.rate) if number else 0
            start, end, wave = self.sound(word)
            parts += [np.zeros(pause, np.float32), wave]
            spans.append((place + pause + start, place + pause + end, word.labels[0]))
            place += pause + len(wave)
        wave = np.concatenate([*parts, np.zeros(behind, np.float32)])
        return replace(first, x=(wave,), labels=tuple(label for _, _, label in spans), spans=spans, key="")

    def sound(self, word: Sample) -> tuple[int, int, Any]:
        """Where the sound of a word begins and ends in the part of its clip that is used; and that part."""
        (wave,), spans, around = word.x, word.spans or [], round(AROUND_SECONDS * self.rate)
        start, end = spans[0][0], spans[-1][1]
        first, last = max(0, start - around), min(len(wave), end + around)
        return start - first, end - first, wave[first:last]
