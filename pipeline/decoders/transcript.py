"""From posterior steps to strings: greedy decoding of connectionist temporal classification, and phrases of a list.

Graves et al. (ICML 2006), section 3.2.1: the best column of each step; repetitions are one symbol, blanks are none.
Here a symbol need not be likelier than the blank, but as likely as a threshold says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, NonNegativeFloat

from pipeline.decoders.decoder import Decoder, Event, Score, Step
from pipeline.decoders.phrases import Trie

MAX_SYMBOLS = 200  # of a phrase, which then ends, pause or not


@dataclass(frozen=True)
class Phrase(Event):
    """The symbols between two pauses: their labels joined by blanks, the times of the first and the last of them, and
    their lowest score, at ``peak``.
    """


class Run(NamedTuple):
    """Steps in which a symbol is the best column: its column, first step, best posterior and the step of that; and the
    step behind them, None while they last.
    """

    column: Step
    start: Step
    score: Score
    peak: Step
    end: Step | None = None


class Memory(BaseModel):
    """What is remembered: the step, that behind the last symbol, the run that lasts, the symbols of the phrase, and how
    likely those of the list are.
    """

    step: Step
    heard: Step
    run: Run | None
    phrase: list[Run]
    trie: str


class Transcript(Decoder):
    """An event for each symbol, once it is over, and a ``Phrase`` once nothing was heard for ``pause`` seconds.

    ``open_events`` is the phrase so far, whose label grows. With ``phrases``, a closed list, the phrase is the one of
    these that is most likely (``phrases.py``), or there is none.
    """

    reads = "strings"

    def __init__(
        self,
        labels: list[str],
        hop: int,
        rate: int,
        threshold: Annotated[Score, Field(gt=0)] = 0.5,
        pause: NonNegativeFloat = 1.2,
        tell: Literal["tokens", "phrases", "both"] = "both",
        background: list[str] | None = None,
        phrases: list[str] | None = None,
        match: Score = 0.01,
    ) -> None:
        """``labels``: the columns, the last of which is the blank. A step says its best symbol if that reaches
        ``threshold``, or else nothing; those in ``background`` are heard, and not told. ``match``: how likely a phrase
        of the list must be, beside what is likeliest without it. ValueError for words of ``phrases`` that are none.
        """
        blank = len(labels) - 1
        quiet = [*(background or []), labels[blank]]
        super().__init__(labels, hop, rate, threshold, threshold, minimum=0.0, refractory=0.0, background=quiet)
        self.level, self.symbols, self.blank = float(np.float32(threshold)), {*self.audible}, blank
        self.pause = max(1, round(pause * rate) // hop)
        self.kinds = {"tokens": Event, "phrases": Phrase}.get(tell)
        self.match, self.trie = match, Trie(phrases, labels) if phrases is not None else None
        self.run: Run | None = None
        self.phrase: list[Run] = []
        self.heard = 0  # step behind the last symbol, or from which the list is looked through

    @property
    def told(self) -> list[str]:
        """Symbols, and phrases of the list, each if they are told; other phrases are not known before."""
        symbols = super().told if self.kinds in (None, Event) else []
        return [*dict.fromkeys([*symbols, *(self.trie.texts if self.trie and self.kinds in (None, Phrase) else [])])]

    def decode(self, posteriors: NDArray[np.float32]) -> list[Event]:
        """Symbols and phrases that end within these steps ``(T, K)``."""
        posteriors = np.asarray(posteriors, np.float32)
        best, scores = best_columns(posteriors, self.level), posteriors[:, : self.blank].max(1, initial=0.0)
        events: list[Event] = []
        for row, column, score in zip(posteriors, best.tolist(), scores.tolist(), strict=True):
            events += self.advance(column, score)  # first: it may begin the list anew
            if self.trie:
                self.trie.step(row)
            self.step += 1
        return self.chosen(events)

    def advance(self, column: int, score: float) -> list[Event]:
        """One step: its best column, and that one's posterior."""
        ends = self.run is not None and (self.run.column != column or self.run.end is not None)
        events = self.end_run() if ends else []
        if self.step - self.heard >= self.pause:
            events += self.end_phrase()
        if column != self.blank:
            now = self.run or Run(column, self.step, score, self.step)
            self.run = now._replace(score=score, peak=self.step) if score > now.score else now
            self.heard = self.step + 1
        return events

    def end_run(self) -> list[Event]:
        """The symbol that is over, if it is told."""
        now, self.run = self.run, None
        if now is None or now.column not in self.symbols:
            return []
        now = now if now.end is not None else now._replace(end=self.step)
        self.phrase.append(now)
        full = self.end_phrase() if len(self.phrase) >= MAX_SYMBOLS else []
        return [self.event_of([now], Event), *full]

    def end_phrase(self) -> list[Event]:
        """The phrase that is over; another can begin."""
        runs, self.phrase, self.heard = self.phrase, [], self.step
        found = [self.event_of(runs, Phrase)] if runs else []
        if self.trie:
            text, score = self.trie.best()
            found = [Phrase(**vars(one) | {"label": text, "score": score}) for one in found if score >= self.match]
            self.trie.begin()
        return found

    def event_of(self, runs: Sequence[Run], kind: type[Event], final: bool = True) -> Event:
        """Symbols as one event."""
        label, worst = " ".join(self.labels[run.column] for run in runs), min(runs, key=lambda run: run.score)
        end = self.step if runs[-1].end is None else runs[-1].end
        return kind(label, runs[0].start * self.hop, end * self.hop, worst.score, worst.peak * self.hop, final)

    def chosen(self, events: list[Event]) -> list[Event]:
        """What is to be told of them."""
        return [event for event in events if self.kinds in (None, type(event))]

    def open_events(self) -> list[Event]:
        """The phrase so far."""
        now = [self.run] if self.run and self.run.column in self.symbols else []
        runs = [*self.phrase, *now]
        return [self.event_of(runs, Phrase, final=False)] if runs else []

    def pass_over(self, steps: int) -> None:
        """As of any decoder; a symbol is over."""
        self.run = self.run and self.run._replace(end=self.step)
        super().pass_over(steps)

    def close(self) -> list[Event]:
        """End the symbol and the phrase: the stream is over."""
        return self.chosen([*self.end_run(), *self.end_phrase()])

    def for_label(self, index: int, threshold: float | None = None, release: float | None = None) -> Decoder:
        """A decoder of one symbol by a threshold, for its posteriors ``(T, 1)``."""
        own = Decoder(self.labels, self.hop, self.hop, background=[self.labels[self.blank]])
        return own.for_label(index, threshold, release)

    def choose(self, scores: NDArray[np.float32], link: str, events: Sequence[Event] = ()) -> str:
        """The string of a whole file: its phrases, or its symbols where phrases are not told."""
        kind = self.kinds or Phrase
        return " ".join(event.label for event in events if type(event) is kind)

    def certainty(self, scores: NDArray[np.float32], events: Sequence[Event] = ()) -> float:
        """The lowest score of what is told; of nothing, how unlikely each symbol was."""
        return min((event.score for event in events), default=float(1 - scores[: self.blank].max(initial=0.0)))

    def snapshot(self) -> dict[str, Any]:
        """The state as plain values for JSON, without labels and settings, which are the model's."""
        trie = self.trie.snapshot() if self.trie else ""
        return {"step": self.step, "heard": self.heard, "run": self.run, "phrase": self.phrase, "trie": trie}

    def restore(self, found: Mapping[str, Any]) -> None:
        """Take the state of ``found``, a ``snapshot`` of a decoder of the same labels, hop and list. ValueError, and
        nothing changed, if it is none.
        """
        try:
            memory = Memory.model_validate(found)
            if any(run.column >= self.blank for run in (*memory.phrase, memory.run) if run):
                raise ValueError(f"a symbol is none of {self.blank}")
            if self.trie:
                self.trie.restore(memory.trie)
        except ValueError as error:
            raise ValueError(f"no snapshot of a decoder of these strings ({error})") from None
        self.step, self.heard, self.run, self.phrase = memory.step, memory.heard, memory.run, memory.phrase


def best_columns(posteriors: NDArray[np.float32], level: float) -> NDArray[np.int64]:
    """The best symbol of each step ``(..., K)``, if it reaches a level; else the blank, the last column."""
    blank = posteriors.shape[-1] - 1
    best: NDArray[np.int64] = posteriors[..., :blank].argmax(-1)
    return np.where(posteriors[..., :blank].max(-1) >= level, best, blank)


def collapse(best: Sequence[int], blank: int) -> list[int]:
    """The string of the best columns of steps ``(T,)``: repetitions are one symbol, and blanks are none."""
    return [column for column, _ in groupby(best) if column != blank]
