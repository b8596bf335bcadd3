"""Answers against the truth, counted one by one in bounded memory."""

from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.text import shorten
from pipeline.tasks.calibration import CALIBRATION_BINS, score_bin

MAX_KEYS = 1000  # of what may be anything, counted one by one
Counts = NDArray[np.int64]
T = TypeVar("T")


class Prediction(NamedTuple):
    """A file's answer, to be listed."""

    path: str
    label: str
    score: float
    truth: str = ""


class Smallest(Generic[T]):
    """Of all items that are added, the ``size`` of smallest rank, in order; of equal ones the first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.ranked: list[tuple[float, T]] = []

    def accepts(self, rank: float) -> bool:
        """Whether an item of this rank would be kept."""
        return len(self.ranked) < self.size or (self.size > 0 and rank < self.ranked[-1][0])

    def add(self, rank: float, item: T) -> None:
        """Keep an item, or not."""
        if self.accepts(rank):
            insort(self.ranked, (rank, item), key=itemgetter(0))
            del self.ranked[self.size :]

    def __iter__(self) -> Iterator[T]:
        return (item for _, item in self.ranked)


class CappedCounter(Counter[str]):
    """A counter of at most ``MAX_KEYS`` keys; all others are counted as one."""

    def add(self, key: str) -> str:
        """Count a key, shortened. Returns the key that it was counted as."""
        key = shorten(key)
        key = key if key in self or len(self) < MAX_KEYS else "(others)"
        self[key] += 1
        return key


class Accuracy:
    """Counts of pairs (truth, answer). Only pairs that occur take memory, so that there may be thousands of classes.

    Attributes:
        pairs: how often each pair occurs, which is known by the number truth * classes + answer.
        claims: by bins of scores, how many answers, how many right ones, and the sum of their scores ``(3, B)``.
        mistakes: the wrong answers with the highest scores.
        unknown: truths that are no label of the model.
        unanswered: how many files with a known truth have no answer.
    """

    def __init__(self, labels: Sequence[str], worst: int) -> None:
        """``labels`` of the model; ``worst`` mistakes are kept."""
        self.labels, self.places = labels, {label: index for index, label in enumerate(labels)}
        self.pairs = Counter[int]()
        self.claims = np.zeros((3, CALIBRATION_BINS))
        self.mistakes = Smallest[Prediction](worst)
        self.unknown, self.unanswered = CappedCounter(), 0

    def add(self, truth: str, answer: str | None, score: float | None, path: str) -> None:
        """Count a file whose truth is given; ``answer`` None: there is none."""
        if truth not in self.places:
            self.unknown.add(truth)
            return
        if answer not in self.places:
            self.unanswered += 1
            return
        self.pairs[self.places[truth] * len(self.labels) + self.places[answer]] += 1
        if score is not None:
            self.claims[:, score_bin(score, CALIBRATION_BINS)] += 1, truth == answer, score
            if truth != answer:
                self.mistakes.add(-score, Prediction(path, answer, score, truth))

    def counts(self) -> tuple[Counts, Counts]:
        """The pairs that occur ``(P,)``, and how often each of them does ``(P,)``."""
        found = np.array(sorted(self.pairs.items()), np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def totals(self) -> tuple[Counts, Counts, Counts]:
        """By class ``(K,)``: right answers, truths, answers."""
        pairs, counts = self.counts()
        hits, truths, answers = (np.zeros(len(self.labels), np.int64) for _ in range(3))
        truth, answer = np.divmod(pairs, max(1, len(self.labels)))
        np.add.at(hits, truth[truth == answer], counts[truth == answer])
        np.add.at(truths, truth, counts)
        np.add.at(answers, answer, counts)
        return hits, truths, answers
