"""Where a training stands, and which of its epochs is the best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Report: TypeAlias = Callable[[int, Mapping[str, Any]], None]  # is called after each epoch; what it raises ends it
Train: TypeAlias = Callable[[list[str], Path, Report | None], object]  # with these overrides, here; no report: and test


@dataclass
class Progress:
    """Where the training stands: all that is needed to go on, beside the weights."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # steps done of the next one
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # of these: loss, right answers, clips
    step: int = 0
    seconds: float = 0.0  # of training, in earlier processes, too
    best_epoch: int = 0
    hard: list[tuple[int, int]] = field(default_factory=list)  # places of negatives, see ``mining.py``
    history: list[dict[str, Any]] = field(default_factory=list)


def best(history: Sequence[Mapping[str, Any]], figure: str = "accuracy") -> Mapping[str, Any]:
    """The epoch whose ``figure`` of the validation clips is greatest; of equals the one with the lower loss."""
    return max(history, key=lambda row: (row[f"val_{figure}"], -row["val_loss"]))
