"""Answers against the truth: counted one by one in bounded memory, and shown as sections of a page."""

import heapq
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import pipeline.report.page as page
from pipeline.measures.calibration import TRUST, calibration_error, score_bin
from pipeline.measures.metrics import f1
from pipeline.measures.uncertainty import wilson
from pipeline.report.page import Dot, Html, Section

SQUARE = 60  # classes of a confusion matrix that is shown as a whole
LISTED = 100  # rows of a table, at most
KINDS = 1000  # of what may be anything, counted one by one
PENDING = 1 << 16  # answers that wait to be counted


class Found(NamedTuple):
    """A file that is listed."""

    place: str
    label: str
    score: float
    truth: str = ""


class Least:
    """Of all that is added, the ``size`` of least rank; of equal ones the first."""

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, 0
        self.heap: list[tuple[float, int, Found]] = []  # the greatest rank first

    def add(self, rank: float, found: Found) -> None:
        """Keep it, or not."""
        self.seen += 1
        entry = (-rank, -self.seen, found)
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, entry)
        elif self.heap and entry > self.heap[0]:
            heapq.heapreplace(self.heap, entry)

    def __iter__(self) -> Iterator[Found]:
        return (found for *_, found in sorted(self.heap, reverse=True))


class Accuracy:
    """Counts of pairs (truth, answer). Only pairs that occur take memory, so that there may be thousands of classes."""

    def __init__(self, labels: Sequence[str], worst: int) -> None:
        """``labels`` of the model; of the surest mistakes, ``worst`` are kept."""
        self.labels, self.places = labels, {label: index for index, label in enumerate(labels)}
        self.waiting = array("q")  # pairs as truth * classes + answer
        self.pairs = self.counts = np.zeros(0, np.int64)
        self.claims = np.zeros((3, TRUST))  # by bins of scores: answers, right ones, sum of scores
        self.mistakes = Least(worst)
        self.unknown: Counter[str] = Counter()
        self.unanswered = 0

    def add(self, truth: str, answer: str | None, score: float | None, place: str) -> None:
        """A file whose truth is given; ``answer`` None: there is none."""
        if truth not in self.places:
            self.unknown[known(self.unknown, page.short(truth))] += 1
            return
        if answer not in self.places:
            self.unanswered += 1
            return
        self.waiting.append(self.places[truth] * len(self.labels) + self.places[answer])
        if len(self.waiting) == PENDING:
            self.settle()
        if score is not None:
            self.claims[:, score_bin(score, TRUST)] += 1, truth == answer, score
            if truth != answer:
                self.mistakes.add(-score, Found(place, answer, score, truth))

    def settle(self) -> None:
        """Count the pairs that wait."""
        fresh = np.array(self.waiting, np.int64)
        self.waiting = array("q")
        counts = np.concatenate([self.counts, np.ones_like(fresh)])
        self.pairs, inverse = np.unique(np.concatenate([self.pairs, fresh]), return_inverse=True)
        self.counts = np.zeros_like(self.pairs)
        np.add.at(self.counts, inverse, counts)

    def totals(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """By class ``(K,)``: right answers, truths, answers."""
        self.settle()
        hits, truths, answers = (np.zeros(len(self.labels), np.int64) for _ in range(3))
        truth, answer = np.divmod(self.pairs, max(1, len(self.labels)))
        np.add.at(hits, truth[truth == answer], self.counts[truth == answer])
        np.add.at(truths, truth, self.counts)
        np.add.at(answers, answer, self.counts)
        return hits, truths, answers


def known(counts: Counter[str], key: str) -> str:
    """What to count something as that may be anything: itself, unless there are too many kinds already."""
    return key if key in counts or len(counts) < KINDS else "(others)"


def sections(found: Accuracy) -> Iterator[Section]:
    """What there is to see: accuracy and classes, confusions, calibration, mistakes."""
    hits, truths, answers = (counts.tolist() for counts in found.totals())
    count, left = sum(truths), apart(found)
    if not count:
        if left:
            yield Section("Accuracy", f"It cannot be told. {left}")
        return
    rows = [
        (label, *f1(*counts), counts[1]) for label, *counts in zip(found.labels, hits, truths, answers, strict=True)
    ]
    present = [row[3] for row in rows if row[4]]
    low, high = (page.share(value) for value in wilson(sum(hits), count))
    yield Section(
        "Accuracy",
        f"Of {count:,} files whose truth is known, {sum(hits):,} were answered right: {page.share(sum(hits), count)}. "
        f"With chance taken into account, that is between {low} and {high} (95\u00a0%, Wilson). "
        f"The mean F1 of the classes is {np.mean(present):.3f}. {left}The weakest classes come first.",
        [by_class(sorted(rows, key=lambda row: (not row[4], row[3])))],
    )
    yield confused(found.labels, found.pairs, found.counts)
    if found.claims.any():
        yield calibrated(found.claims)
    if any(found.mistakes):
        says = "Wrong answers with the highest scores. Sometimes it is the truth that is wrong."
        yield Section("Surest mistakes", says, [listed(found.mistakes)])


def apart(found: Accuracy) -> str:
    """What is left out of the accuracy."""
    said = ""
    if found.unanswered:
        said += f"{found.unanswered:,} whose truth is known have no answer and do not count here. "
    if found.unknown:
        names = [f"{page.short(label, 40)} ({count:,})" for label, count in found.unknown.most_common(10)]
        more = " and others" if len(found.unknown) > len(names) else ""
        said += (
            f"{found.unknown.total():,} whose truth is no label of the model do not count: {', '.join(names)}{more}. "
        )
    return said


def by_class(rows: Sequence[tuple[str, float, float, float, int]], what: str = "files") -> Html:
    """Precision, recall, F1 and support, ``what`` being counted."""
    columns = "precision", "recall", "F1", what
    shown = [(label, *(f"{value:.3f}" for value in scores), f"{count:,}") for label, *scores, count in rows[:LISTED]]
    return page.join(page.table(("class", *columns), shown, numbers=columns), rest(len(rows)))


def rest(count: int) -> Html:
    """A remark that not all is shown, if so."""
    return page.tag("p", f"… and {count - LISTED:,} more.") if count > LISTED else Html()


def confused(labels: Sequence[str], pairs: NDArray[np.int64], counts: NDArray[np.int64]) -> Section:
    """Which classes are taken for which: how often each of the pairs occurs, truth * classes + answer."""
    classes = len(labels)
    if classes <= SQUARE:
        square = np.zeros(classes * classes, np.int64)
        square[pairs] = counts
        says = "Rows are the truth, columns the answers; the stronger a colour, the larger the share of its row."
        return Section("Confusions", says, [page.matrix(square.reshape(classes, classes).tolist(), labels)])
    truths = np.zeros(classes, np.int64)
    np.add.at(truths, pairs // classes, counts)
    wrong = np.flatnonzero(pairs // classes != pairs % classes)
    most = wrong[np.argsort(-counts[wrong], kind="stable")[:LISTED]]
    rows = [
        (labels[truth], labels[answer], f"{count:,}", page.share(count, truths[truth]))
        for truth, answer, count in zip(*np.divmod(pairs[most], classes), counts[most].tolist(), strict=True)
    ]
    numbers = "files", "of that truth"
    table = page.table(("truth", "taken for", *numbers), rows, numbers)
    return Section("Confusions", f"Which of the {classes:,} classes are most often taken for another.", [table])


def calibrated(claims: NDArray[np.float64]) -> Section:
    """How far scores can be believed, by bins of ``calibration.claims``."""
    total = claims[0].sum()
    dots = [
        Dot(claimed / count, right / count, *wilson(right, count), count / total)
        for count, right, claimed in claims.T.tolist()
        if count
    ]
    says = (
        "Where scores say how often answers are right, dots are on the dashed line; below it the model is too sure. "
        f"On average they are {100 * calibration_error(claims):.1f} points off (expected calibration error, "
        f"{TRUST} bins). The larger a dot, the more files; lines show what chance alone does (95\u00a0%)."
    )
    told = "Share of right answers"
    return Section("Calibration", says, [page.figure(told, page.reliability(dots, "score", f"{told} by score"))])


def listed(found: Least) -> Html:
    """Files with their answers, and with the truth where it is given."""
    rows = [(one.label, one.truth, f"{one.score:.4f}", page.name(one.place)) for one in found]
    if any(truth for _, truth, *_ in rows):
        return page.table(("answer", "truth", "score", "file"), rows, numbers=("score",))
    return page.table(("answer", "score", "file"), [(row[0], *row[2:]) for row in rows], numbers=("score",))
