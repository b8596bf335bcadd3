"""Many recordings through a model: decoded in threads, computed in batches of like length, one row each.

Memory stays flat however many and however long they are: short recordings are held for a batch, and of a long one only
the block that is being computed.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import MediaError
from pipeline.intake import Arrays, Intake, Tensors, joined, recut
from pipeline.model import Classifier, on_device
from pipeline.sink import Row
from pipeline.tracks import Known, open_chunks

WINDOW = 8  # batches that are decoded and sorted by length, at most
HELD = 64 << 20  # bytes of decoded recordings held at once, and of a batch
SHORT = 16 << 20  # bytes of a recording that is held as a whole; the rest of a longer one is decoded as it is computed
BLOCK = 2 << 20  # bytes computed at once


@dataclass
class Recording:
    """A decoded file, or why it could not be decoded; ``rest``: what of a long one is still to come."""

    path: Path
    x: Arrays = ()
    ticks: int = 0
    facts: Known | None = None
    error: MediaError | None = None
    rest: Iterator[Arrays] | None = None

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in self.x)


def classify(
    model: Classifier, paths: Iterable[Path], batch: int = 32, workers: int = 2, longest: float = 600.0
) -> Iterator[Row]:
    """One row per file, in order: path, status, code, label, score, seconds, posteriors (by class).

    ``status`` is ok, warning (an answer, but ``code`` says what is doubtful) or error (no answer, ``code`` says why).
    ``longest`` seconds are the most that is read of a file.
    """
    short = SHORT if model.causal else math.inf
    with ThreadPoolExecutor(workers) as pool:
        recordings = decoded(pool, paths, model.intake, longest, short, 2 * workers)
        for window in windows(recordings, batch * WINDOW):
            answers: dict[int, list[float]] = {}
            for group in groups(window, batch):
                try:
                    scores = posteriors(model, group)
                except MediaError as error:  # in the rest of a long one, which is alone in its group
                    group[0].error = error
                else:
                    answers |= {id(recording): row for recording, row in zip(group, scores, strict=True)}
            for recording in window:
                yield row_of(recording, answers.get(id(recording)), model.labels)


def decoded(
    pool: ThreadPoolExecutor, paths: Iterable[Path], intake: Intake, longest: float, short: float, early: int
) -> Iterator[Recording]:
    """The recordings in order, ``early`` of them decoded while the last one is still being used."""
    waiting: deque[Future[Recording]] = deque()
    for path in paths:
        waiting.append(pool.submit(decode, path, intake, longest, short))
        if len(waiting) > early:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def windows(recordings: Iterable[Recording], count: int) -> Iterator[list[Recording]]:
    """Lists of up to ``count`` recordings that take no more memory than may be held."""
    window: list[Recording] = []
    for recording in recordings:
        window.append(recording)
        if len(window) == count or sum(held.size for held in window) >= HELD:
            yield window
            window = []
    if window:
        yield window


def groups(window: Iterable[Recording], batch: int) -> Iterator[list[Recording]]:
    """The usable recordings as batches of like length; a long one is alone."""
    group: list[Recording] = []
    for recording in sorted((held for held in window if not held.error), key=lambda held: held.ticks):
        if group and (recording.rest or len(group) == batch or (len(group) + 1) * recording.size > HELD):
            yield group
            group = []
        group.append(recording)
    if group:
        yield group


def decode(path: Path, intake: Intake, longest: float, short: float = math.inf) -> Recording:
    """A file as the model takes it, or the first ``short`` bytes of it and the rest; never raises for what a file can
    do, but the rest may raise MediaError.
    """
    try:
        facts, opened = open_chunks(path, intake)
        chunks, parts, size = bounded(opened, intake, longest), [intake.nothing()], 0
        for chunk in chunks:
            parts.append(chunk)
            size += sum(array.nbytes for array in chunk)
            if size > short:
                break
        x = joined(parts)
        return Recording(path, x, intake.ticks(x), facts, rest=chunks if size > short else None)
    except MediaError as error:
        return Recording(path, error=error)
    except Exception as error:  # a decoder's own failure is this file's row, not the end of the run
        return Recording(path, error=failed(error))


def bounded(chunks: Iterator[Arrays], intake: Intake, longest: float) -> Iterator[Arrays]:
    """The same chunks; MediaError if they are too long, or for whatever a decoder does."""
    total = 0
    try:
        for chunk in chunks:
            total += intake.ticks(chunk)
            if total > longest * intake.rate:
                raise MediaError("limit_duration", f"longer than {longest} s; stream it with source=file")
            yield chunk
    except MediaError:
        raise
    except Exception as error:
        raise failed(error) from None


def failed(error: Exception) -> MediaError:
    """A decoder's own failure."""
    return MediaError("unreadable", f"{type(error).__name__}: {error}")


@torch.inference_mode()
def posteriors(model: Classifier, recordings: list[Recording]) -> list[list[float]]:
    """The answer for each recording, computed as one right-padded batch, block by block of time."""
    state, found = model.initial(len(recordings)), []
    for x in blocks(model, recordings):
        y, state = model(on_device(x, model), state)
        found.append(y)
    last = model.last_step(torch.tensor([recording.ticks for recording in recordings]))
    answer: list[list[float]] = torch.cat(found, 1)[torch.arange(len(last)), last].float().cpu().tolist()
    return answer


def blocks(model: Classifier, recordings: list[Recording]) -> Iterator[Tensors]:
    """What the model is called with, one time block after another: all at once if it must see the whole clip."""
    intake = model.intake
    grains = model.grain // intake.grain
    step = sum(grains * track.steps * math.prod(track.shape) * np.dtype(track.kind).itemsize for track in intake.tracks)
    size = max(1, BLOCK // (step * len(recordings))) * model.grain
    if recordings[0].rest is not None:
        yield from long_blocks(model, recordings[0], size)
        return
    longest = max(recording.ticks for recording in recordings)
    whole = model.whole(intake.stacked([recording.x for recording in recordings]), longest)
    tracks = whole if isinstance(whole, tuple) else (whole,)
    ticks = tracks[0].shape[1]
    size = size if model.causal else ticks
    for start in range(0, ticks, size):
        first, last = start // intake.grain, min(start + size, ticks) // intake.grain
        x = tuple(x[:, first * at.steps : last * at.steps] for x, at in zip(tracks, intake.tracks, strict=True))
        yield x if intake.both else x[0]


def long_blocks(model: Classifier, recording: Recording, size: int) -> Iterator[Tensors]:
    """A recording that is still being decoded; its ticks are counted on the way."""
    assert recording.rest is not None
    intake, lag, chunk = model.intake, model.delay * model.hop, recording.x
    first, recording.x, recording.ticks = recording.x, (), 0
    for chunk in recut(chain([first], recording.rest), intake, size):
        recording.ticks += intake.ticks(chunk)
        yield intake.tensors(intake.stacked([chunk]), intake.ticks(chunk) + -intake.ticks(chunk) % model.grain)
    if lag:
        yield intake.tensors(intake.stacked([intake.padding(chunk, lag + -lag % model.grain)]))


def row_of(recording: Recording, scores: list[float] | None, labels: list[str]) -> Row:
    """A file's row; the columns are the same for every status."""
    row: Row = {"path": str(recording.path), "status": "error", "code": "", "label": "", "score": "", "seconds": ""}
    if scores is None or recording.facts is None:
        row["code"] = recording.error.code if recording.error else "unreadable"
        return row | {"posteriors": dict.fromkeys(labels)}
    best = int(np.argmax(scores))
    row["status"] = "warning" if recording.facts.warnings else "ok"
    row["code"] = " ".join(recording.facts.warnings)
    row |= {"label": labels[best], "score": round(scores[best], 4), "seconds": round(recording.facts.seconds, 3)}
    return row | {"posteriors": {label: round(score, 6) for label, score in zip(labels, scores, strict=True)}}
