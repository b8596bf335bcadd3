"""Many recordings through a model: decoded in threads, computed in batches of like length, one row each."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from pipeline.errors import MediaError
from pipeline.intake import Arrays, Intake, joined
from pipeline.model import Classifier
from pipeline.sink import Row
from pipeline.tracks import Known, open_chunks

T = TypeVar("T")
WINDOW = 8  # batches that are decoded ahead and sorted by length


@dataclass
class Recording:
    """A decoded file, or why it could not be decoded."""

    path: Path
    x: Arrays = ()
    ticks: int = 0
    facts: Known | None = None
    error: MediaError | None = None


def classify(
    model: Classifier, paths: Iterable[Path], batch: int = 32, workers: int = 2, longest: float = 600.0
) -> Iterator[Row]:
    """One row per file, in order: path, status, code, label, score, seconds, then the posterior of every class.

    ``status`` is ok, warning (an answer, but ``code`` says what is doubtful) or error (no answer, ``code`` says why).
    ``longest`` seconds are the most that is read of a file.
    """
    with ThreadPoolExecutor(workers) as pool:
        for window in batched(paths, batch * WINDOW):
            recordings = list(pool.map(lambda path: decode(path, model.intake, longest), window))
            good = sorted((r for r in recordings if not r.error), key=lambda recording: recording.ticks)
            answers: dict[int, list[float]] = {}
            for group in batched(good, batch):
                scores = posteriors(model, group)
                answers |= {id(recording): row for recording, row in zip(group, scores, strict=True)}
            for recording in recordings:
                yield row_of(recording, answers.get(id(recording)), model.labels)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items; the last may be shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def decode(path: Path, intake: Intake, longest: float) -> Recording:
    """A file as the model takes it; never raises for what a file can do."""
    try:
        facts, chunks = open_chunks(path, intake)
        parts, total = [intake.nothing()], 0
        for chunk in chunks:
            parts.append(chunk)
            total += intake.ticks(chunk)
            if total > longest * intake.rate:
                raise MediaError("limit_duration", f"longer than {longest} s; stream it with source=file")
        return Recording(path, joined(parts), total, facts)
    except MediaError as error:
        return Recording(path, error=error)
    except Exception as error:  # a decoder's own failure is this file's row, not the end of the run
        return Recording(path, error=MediaError("unreadable", f"{type(error).__name__}: {error}"))


@torch.inference_mode()
def posteriors(model: Classifier, recordings: list[Recording]) -> list[list[float]]:
    """The answer for each recording, computed as one right-padded batch."""
    lengths = torch.tensor([recording.ticks for recording in recordings])
    x = model.intake.stacked([recording.x for recording in recordings])
    answer: list[list[float]] = model.clip_posteriors(x, lengths).float().cpu().tolist()
    return answer


def row_of(recording: Recording, scores: list[float] | None, labels: list[str]) -> Row:
    """A file's row; the columns are the same for every status."""
    row: Row = {"path": str(recording.path), "status": "error", "code": "", "label": "", "score": "", "seconds": ""}
    if scores is None or recording.facts is None:
        row["code"] = recording.error.code if recording.error else "unreadable"
        return row | dict.fromkeys(labels, "")
    best = int(np.argmax(scores))
    row["status"] = "warning" if recording.facts.warnings else "ok"
    row["code"] = " ".join(recording.facts.warnings)
    row |= {"label": labels[best], "score": round(scores[best], 4), "seconds": round(recording.facts.seconds, 3)}
    return row | {label: round(score, 6) for label, score in zip(labels, scores, strict=True)}
