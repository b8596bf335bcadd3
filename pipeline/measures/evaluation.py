"""What a model answers on a split; what is measured of it says its task."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.measures.accuracy import Smallest
from pipeline.media.sample import Batch, StepGrid
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features
from pipeline.tasks.predictions import Predictions, WorstClip


@torch.inference_mode()
def predict(
    model: Classifier, batches: Iterable[Batch], features: Features | None = None, worst: int = 0
) -> Predictions:
    """What a model answers to clips. With ``features``, what they keep of the clips is used; so many of the ``worst``
    clips are kept.
    """
    model.eval()
    task, features = model.task, features or Features(model, None)
    found: Predictions = task.predictions(model.labels, model.decoder().high)
    found.step = model.hop / model.rate
    kept, lengths = Smallest[WorstClip](worst), [found.seconds]
    for batch in batches:
        hidden = model.encode(features.compute(batch))
        y, last, before = model.pooled(hidden), model.last_step(batch.lengths), len(found.names)
        truth = task.clip_truth(batch, len(model.labels))
        task.add_clips(found, y, model.delay, last, truth)
        if task.stepwise:
            steps = StepGrid(hidden.shape[1], model.hop, model.delay)
            known = task.step_truth(batch, steps, None, len(model.labels))
            first = model.head.stages[0]
            task.add_steps(found, first(hidden, first.initial(len(hidden)))[0], known)
        lengths.append(batch.lengths.numpy() / model.rate)
        hits = task.right(found, y, truth).tolist()
        for row, spans, end in zip(hits, batch.spans, last.tolist(), strict=True):
            found.right.append(row[(spans[0][0] // model.hop if spans else 0) + model.delay : end + 1])
        found.names += batch.names
        found.groups += batch.groups
        keep_worst(kept, batch, found.of_truth[before:], before, model)
    found.seconds, found.worst = np.concatenate(lengths), list(kept)
    return found


def keep_worst(
    kept: Smallest[WorstClip], batch: Batch, ranks: NDArray[np.float32], first: int, model: Classifier
) -> None:
    """Keep what is among the worst of a batch, whose rows stand from ``first`` on: what has the lowest ranks."""
    for row, rank in enumerate(ranks.tolist()):
        if kept.accepts(rank):
            grains = -(-int(batch.lengths[row]) // model.spec.grain)
            tracks = zip(batch.x, model.spec.tracks, strict=True)
            x = tuple(x[row, : grains * track.steps].numpy().copy() for x, track in tracks)
            kept.add(rank, WorstClip(first + row, x))
