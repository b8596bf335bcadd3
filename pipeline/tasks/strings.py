"""Strings of symbols, as of spoken digits: connectionist temporal classification (``ctc.py``)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torchmetrics.functional.text import word_error_rate

from pipeline.core.errors import ConfigError
from pipeline.decoders.transcript import best_columns, collapse
from pipeline.layers.smoothing import Link
from pipeline.media.sample import IGNORE, Batch, Sample, Split, StepGrid
from pipeline.tasks.classification import label_figures
from pipeline.tasks.columns import InColumns
from pipeline.tasks.ctc import ctc_cost, pad, warn_too_short
from pipeline.tasks.losses import CrossEntropy
from pipeline.tasks.predictions import Predictions
from pipeline.tasks.task import Task

BLANK = "_blank_"  # the column that says nothing, where no label means that
MIN_PROBABILITY = 1e-9  # a posterior below this counts as this much


@dataclass
class Transcribed(Predictions):
    """Predictions whose truth is a string for each clip. ``scores (N, K)``: the highest posteriors of each symbol.

    Attributes:
        strings, answers: numbers of symbols, true ones and told ones; those that are not told are in neither.
        costs: see ``ctc_cost``.
        quiet: symbols that are never told.
        level: the posterior from which on a step says a symbol.
    """

    strings: list[list[int]] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    quiet: frozenset[int] = frozenset()
    level: float = 0.5

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each string is right, ``(N,)``."""
        return np.array([one == other for one, other in zip(self.strings, self.answers, strict=True)], bool)

    @property
    def of_truth(self) -> NDArray[np.float32]:
        """The probability of each true string, by symbol, ``(N,)``."""
        return np.exp(-np.array(self.costs, np.float32))

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The lowest of the highest posteriors of the symbols that are told, ``(N,)``; 1 where none is."""
        pairs = zip(self.scores, self.answers, strict=True)
        return np.array([row[told].min(initial=1.0) for row, told in pairs], np.float32)

    def told(self, row: int) -> tuple[str, str]:
        """The string of a clip, and the one that was told."""
        truth, answer = (" ".join(self.labels[one] for one in found[row]) for found in (self.strings, self.answers))
        return truth, answer


class InOrder(InColumns):
    """A split whose labels stand in the order of their times, where these are known."""

    def __getitem__(self, index: int) -> Sample | None:
        sample = super().__getitem__(index)
        if sample is None or sample.spans is None:
            return sample
        return replace(sample, labels=tuple(label for _, _, label in sorted(sample.spans)))


class Strings(Task[Transcribed]):
    """The labels are symbols; the last column is the blank.

    At first, for a share ``warm`` of the time, single steps are learnt where the times of symbols are known: from
    nothing, CTC often finds blanks alone.
    """

    link: Link = "softmax"
    best, hit, unknown, reads = "token_accuracy", "accuracy", IGNORE, "strings"
    kept = ("token_accuracy", "accuracy", "loss")

    def __init__(self, warm: Annotated[float, Field(ge=0, lt=1)] = 0.4) -> None:
        self.warm = warm

    def check(self, settings: Mapping[str, Any]) -> None:
        """ConfigError for what strings cannot be read from, or have no figures for."""
        augment, smoothing, head = settings["augment"] or {}, settings["smoothing"], settings["head"]
        wrong = {
            "trainer.tbptt": (settings["trainer"].get("tbptt"), "null: the loss is that of whole clips"),
            "augment.mixup": (augment.get("mixup", 0), "0: two strings have no mean"),
            "head": (head.get("pool") != "last" and head.get("pool"), "last: each step adds to the string"),
            "smoothing.seconds": (smoothing.get("seconds", 0), "0: a symbol may last for one step (smoothing=none)"),
            "calibrate": (settings["calibrate"], "false: that fits scores of whole clips"),
            "events": (settings["events"], "null: a string has no thresholds"),
            "false_alarms": (settings["false_alarms"], "null: a string has no thresholds"),
            "streams": (settings["streams"], "null: measure strings with benchmarks/strings.py"),
        }
        for key, (value, expected) in wrong.items():
            if value or (value is not None and key == "false_alarms"):
                raise ConfigError(f"task=strings: {key} is {value!r}; expected {expected}")

    def columns(self, labels: Sequence[str], background: str | None) -> list[str]:
        """All labels, and behind them the blank, which has the name of the background."""
        return [*(label for label in labels if label != background), background or BLANK]

    def in_columns(self, split: Split, labels: Sequence[str], background: str | None) -> Split:
        """The symbols of each clip in their order; the background is none."""
        columns = self.columns(labels, background)
        places = {number: columns.index(label) for number, label in enumerate(labels) if label != background}
        return InOrder(split, places, ())

    def clip_truth(self, batch: Batch, columns: int) -> Tensor:
        """Each string ``(B, L)``, filled up with ``IGNORE``."""
        return pad(batch.labels, IGNORE)

    def step_truth(self, batch: Batch, steps: StepGrid, background: int | None, columns: int) -> Tensor:
        """Symbols ``(B, T)``, the blank outside the spans."""
        return batch.targets(steps, columns - 1)

    def loss(self, label_smoothing: float, focal: float, weights: Tensor | None) -> CrossEntropy:
        """Cross-entropy of single steps, for the warm start."""
        return CrossEntropy(0.0, focal, None)

    def sequence_cost(self, logits: Tensor, steps: Tensor, batch: Batch, step: float) -> tuple[Tensor, float]:
        """The sum of ``ctc_cost``, and how many strings are right. Clips that are too short for theirs are told."""
        warn_too_short(batch.labels, steps.tolist(), batch.names, step)
        cost = ctc_cost(logits, steps, batch.labels, logits.shape[-1] - 1).sum()
        rows = zip(logits.argmax(-1).tolist(), steps.tolist(), batch.labels, strict=True)
        return cost, sum(collapse(best[:end], logits.shape[-1] - 1) == [*truth] for best, end, truth in rows)

    def predictions(self, labels: list[str], thresholds: NDArray[np.float32]) -> Transcribed:
        """A symbol whose threshold is never reached is not told."""
        quiet = frozenset(np.flatnonzero(np.isinf(thresholds)).tolist())
        empty = np.zeros((0, len(labels)), np.float32)
        return Transcribed(labels, np.zeros(0, np.int64), empty, quiet=quiet, level=float(thresholds.min()))

    def add_clips(self, found: Transcribed, posteriors: Tensor, delay: int, last: Tensor, truth: Tensor) -> None:
        """Read each clip's string from its steps."""
        posteriors, steps = posteriors[:, delay:].float().cpu(), last - delay + 1
        blank = posteriors.shape[-1] - 1
        strings = [[one for one in row if one != IGNORE] for row in truth.tolist()]
        found.costs += ctc_cost(posteriors.clamp_min(MIN_PROBABILITY).log(), steps, strings, blank).tolist()
        columns = best_columns(posteriors.numpy(), found.level).tolist()
        best = [row[:end] for row, end in zip(columns, steps.tolist(), strict=True)]
        for target, rows in ((found.strings, strings), (found.answers, [collapse(row, blank) for row in best])):
            target += [[one for one in row if one not in found.quiet] for row in rows]
        highest = [row[:end].amax(0).numpy() for row, end in zip(posteriors, steps.tolist(), strict=True)]
        self.add(found, np.stack(highest), np.zeros(len(best), np.int64))

    def right(self, found: Transcribed, posteriors: Tensor, truth: Tensor) -> Tensor:
        """Of no step: a string is right at its end."""
        return torch.zeros(len(posteriors), 0, dtype=torch.bool)

    def summarize(self, found: Transcribed) -> dict[str, Any]:
        """Token error rate (symbols swapped, lost and added, by true ones), 1 less it, accuracy (strings that are
        right), loss, and figures of each symbol: how often it was there, right, swapped, lost and added.
        """
        texts = [[" ".join(map(str, row)) for row in rows] for rows in (found.answers, found.strings)]
        error = float(word_error_rate(*texts)) if any(texts[1]) else float(any(texts[0]))
        swaps, lost, added = align(found.strings, found.answers, len(found.labels))
        hits = swaps.diagonal()
        rows, macro_f1 = label_figures(found.labels, hits, swaps.sum(1) + lost, swaps.sum(0) + added)
        changes = np.stack([swaps.sum(1) - hits, lost, added], 1).tolist()
        for row, counts in zip(rows.values(), changes, strict=True):
            row |= zip(("swapped", "lost", "added"), counts, strict=True)
        return {
            "token_error": error,
            "token_accuracy": max(0.0, 1 - error),
            "accuracy": float(found.correct.mean()) if found.strings else 0.0,
            "macro_f1": macro_f1,
            "loss": float(np.mean(found.costs)) if found.costs else 0.0,
            "count": len(found.strings),
            "classes": rows,
            "swaps": swaps.tolist(),
            "online": {"step": found.step, "accuracy": []},
        }


def align(
    strings: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], columns: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How often each symbol was taken for which ``(K, K)``, lost, and added ``(K,)``, with the fewest changes of each
    string to its answer (Levenshtein 1966).
    """
    swaps, lost, added = np.zeros((columns, columns), np.int64), *np.zeros((2, columns), np.int64)
    for string, answer in zip(strings, answers, strict=True):
        left = Counter(string)
        for edit in Levenshtein.editops(string, answer):
            if edit.tag == "insert":
                added[answer[edit.dest_pos]] += 1
                continue
            symbol = string[edit.src_pos]
            left[symbol] -= 1
            if edit.tag == "delete":
                lost[symbol] += 1
            else:
                swaps[symbol, answer[edit.dest_pos]] += 1
        for symbol, count in left.items():
            swaps[symbol, symbol] += count
    return swaps, lost, added
