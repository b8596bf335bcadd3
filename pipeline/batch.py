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
from pipeline.media import Facts, Samples, open_blocks
from pipeline.model import Classifier
from pipeline.sink import Row

T = TypeVar("T")
WINDOW = 8  # batches that are decoded ahead and sorted by length


@dataclass
class Recording:
    """A decoded file, or why it could not be decoded."""

    path: Path
    wave: Samples
    facts: Facts | None = None
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
            recordings = list(pool.map(lambda path: decode(path, model.rate, longest), window))
            good = sorted((r for r in recordings if not r.error), key=lambda recording: len(recording.wave))
            answers: dict[int, list[float]] = {}
            for group in batched(good, batch):
                scores = posteriors(model, [recording.wave for recording in group])
                answers |= {id(recording): row for recording, row in zip(group, scores, strict=True)}
            for recording in recordings:
                yield row_of(recording, answers.get(id(recording)), model.labels)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items; the last may be shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def decode(path: Path, rate: int, longest: float) -> Recording:
    """A file as samples; never raises for what a file can do."""
    nothing = np.zeros(0, np.float32)
    try:
        facts, blocks = open_blocks(path, rate)
        parts, total = [], 0
        for block in blocks:
            parts.append(block)
            total += len(block)
            if total > longest * rate:
                raise MediaError("limit_duration", f"longer than {longest} s; stream it with source=file")
        return Recording(path, np.concatenate(parts), facts)
    except MediaError as error:
        return Recording(path, nothing, error=error)
    except Exception as error:  # a decoder's own failure is this file's row, not the end of the run
        return Recording(path, nothing, error=MediaError("unreadable", f"{type(error).__name__}: {error}"))


@torch.inference_mode()
def posteriors(model: Classifier, waves: list[Samples]) -> list[list[float]]:
    """The answer for each recording, computed as one right-padded batch."""
    lengths = torch.tensor([len(wave) for wave in waves])
    x = torch.zeros(len(waves), int(lengths.max()))
    for row, wave in enumerate(waves):
        x[row, : len(wave)] = torch.from_numpy(wave)
    answer: list[list[float]] = model.clip_posteriors(x.to(model.anchor), lengths).float().cpu().tolist()
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
