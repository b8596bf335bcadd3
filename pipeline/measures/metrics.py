"""Events held against the truth, as pure functions on arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from pipeline.tasks.classification import precision_recall_f1

COLLAR_SECONDS = 0.2  # seconds by which an answer may begin too soon, or in event-based matching too late
MIN_OVERLAP = 0.1  # of an answer, that must lie in the true event that it is right about
Span = tuple[float, float, str]  # start and end in seconds, label
Spans = NDArray[np.int64]  # (N, 2): start and end, in ticks
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """Counts of an event comparison, for one label or for all."""

    hits: int = 0
    truths: int = 0
    answers: int = 0

    def __add__(self, other: "Matches") -> "Matches":
        return Matches(self.hits + other.hits, self.truths + other.truths, self.answers + other.answers)

    @property
    def scores(self) -> tuple[float, float, float]:
        """Precision, recall, F1."""
        return precision_recall_f1(self.hits, self.truths, self.answers)


@dataclass(frozen=True)
class Alarms:
    """How many of the true spans are found, and how many answers are ``false``."""

    hits: int = 0
    truths: int = 0
    false: int = 0

    def __add__(self, other: "Alarms") -> "Alarms":
        return Alarms(self.hits + other.hits, self.truths + other.truths, self.false + other.false)


def count_alarms(truth: Spans, answer: Spans, collar: float) -> Alarms:
    """Compare true spans ``(N, 2)`` with answers ``(M, 2)`` of one class, all in one unit, by ``match_alarms``."""
    found, right = match_alarms(truth, answer, collar)
    return Alarms(len(np.unique(found)), len(truth), len(answer) - len(np.unique(right)))


def match_alarms(truth: Spans, answer: Spans, collar: float) -> tuple[Indices, Indices]:
    """Which answers are right about which true spans: places of both, pair by pair.

    An answer is an alarm that is raised where it begins. It is right about a true span if it begins in it, or at most
    ``collar`` before it, and at least ``MIN_OVERLAP`` of it lies in that span. So one that never ends is right about
    nothing, however much is true of its time, and one that began long before an event does not announce it.
    """
    spans, others = pairs_within(answer[:, 0], truth[:, 0] - collar, truth[:, 1])
    shared = np.minimum(truth[spans, 1], answer[others, 1]) - np.maximum(truth[spans, 0], answer[others, 0])
    right = (shared > 0) & (shared >= MIN_OVERLAP * (answer[others, 1] - answer[others, 0]))
    return spans[right], others[right]


def pairs_within(values: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> tuple[Indices, Indices]:
    """Which of the values ``(M,)`` lie in which windows ``(N,)`` from ``low`` to ``high`` (exclusive): places of both,
    window and value, pair by pair.
    """
    order = np.argsort(values, kind="stable")
    first, last = np.searchsorted(values[order], low), np.searchsorted(values[order], high)
    sizes = (last - first).clip(0)
    which = np.repeat(np.arange(len(sizes)), sizes)
    return which, order[np.arange(len(which)) + np.repeat(first - (sizes.cumsum() - sizes), sizes)]


def match_events(
    truth: Sequence[Span],
    answer: Sequence[Span],
    collar: float = COLLAR_SECONDS,
    offset_share: float = 0.5,
    offset: bool = True,
) -> tuple[dict[str, Matches], Matches]:
    """Event-based matching as in sed_eval (Mesaros et al. 2016): by label, and in total (micro).

    A hit has the right label, an onset within ``collar`` seconds, and (with ``offset``) an end within the greater of
    ``collar`` and ``offset_share`` of the true length. Each true event is hit at most once; the assignment is optimal.
    """
    wanted, found = group_by_label(truth), group_by_label(answer)
    nothing = np.zeros((0, 2))
    result = {}
    for label in sorted(wanted.keys() | found.keys()):
        true, answered = wanted.get(label, nothing), found.get(label, nothing)
        hits = max_matching(*allowed_pairs(true, answered, collar, offset_share, offset), (len(true), len(answered)))
        result[label] = Matches(hits, len(true), len(answered))
    return result, sum(result.values(), Matches())


def group_by_label(spans: Sequence[Span]) -> dict[str, NDArray[np.float64]]:
    """The spans ``(N, 2)`` of each label."""
    found: dict[str, list[tuple[float, float]]] = {}
    for start, end, label in spans:
        found.setdefault(label, []).append((start, end))
    return {label: np.array(rows, np.float64) for label, rows in found.items()}


def allowed_pairs(
    truth: NDArray[np.float64], answer: NDArray[np.float64], collar: float, offset_share: float, offset: bool
) -> tuple[Indices, Indices]:
    """Which answers may count for which true events of their label: places of both, pair by pair."""
    wide = collar + 1e-6  # a little too wide: rounding is not to leave out any that fits
    rows, columns = pairs_within(answer[:, 0], truth[:, 0] - wide, truth[:, 0] + wide)
    begin, end = np.abs(truth[rows] - answer[columns]).T
    slack = np.maximum(collar, offset_share * (truth[rows, 1] - truth[rows, 0]))
    fits = (begin <= collar) & ((end <= slack) | (not offset))
    return rows[fits], columns[fits]


def max_matching(rows: Indices, columns: Indices, shape: tuple[int, int]) -> int:
    """Size of the greatest matching of rows to columns, of the pairs that are allowed (Hopcroft & Karp 1973)."""
    if not len(rows):
        return 0
    allowed = csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape)
    return int((maximum_bipartite_matching(allowed, "column") >= 0).sum())
