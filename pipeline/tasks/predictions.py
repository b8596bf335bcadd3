"""What a model answers to the clips of a split: computed once, and all figures are functions of it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.media.input_spec import Arrays


class WorstClip(NamedTuple):
    """A clip that is kept to be shown: its row among the predictions, and its tracks (``input_spec.py``)."""

    row: int
    x: Arrays


@dataclass
class Predictions:
    """What a model of ``labels`` answers to the N clips of a split that could be read, in the split's order.

    Attributes:
        truth: of each clip ``(N, ...)``, as the task has it.
        scores: the posteriors ``(N, K)`` of whole clips.
        names: the clips' names, '' where they have none.
        groups: whose clips are alike (a speaker, a place), '' if unknown.
        seconds: the clips' lengths ``(N,)``.
        right: of each clip, whether the answer was right after each step from where its span begins.
        step: seconds between two steps.
        worst: clips whose truth got the lowest scores, the lowest first.
        skipped: how many more clips of the split could not be read.
        known: the dataset's labels, where they are not the model's.
    """

    labels: list[str]
    truth: NDArray[Any]
    scores: NDArray[np.float32]
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    right: list[list[bool]] = field(default_factory=list)
    step: float = 0.0
    worst: list[WorstClip] = field(default_factory=list)
    skipped: int = 0
    known: list[str] = field(default_factory=list)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each answer is right, ``(N,)``."""
        raise NotImplementedError

    @property
    def of_truth(self) -> NDArray[np.float32]:
        """How far the scores bear out each truth, 0 to 1, ``(N,)``."""
        raise NotImplementedError

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The highest scores, ``(N,)``."""
        return np.asarray(self.scores.max(1, initial=0.0), np.float32)

    def told(self, row: int) -> tuple[str, str]:
        """The truth and the answer of a clip in words."""
        raise NotImplementedError
