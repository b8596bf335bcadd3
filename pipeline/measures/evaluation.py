"""What a model answers on a split, and what is measured of it: the answers are computed once, figures are functions of
them.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.measures.accuracy import Smallest
from pipeline.measures.calibration import calibration_error, claims, histogram
from pipeline.measures.metrics import classification_report, online_accuracy
from pipeline.measures.uncertainty import interval
from pipeline.media.input_spec import Arrays
from pipeline.media.sample import Batch
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features

MIN_PROBABILITY = 1e-9  # a probability below this counts as this much in the loss


class WorstClip(NamedTuple):
    """A clip that is kept to be shown: its row among the predictions, and its tracks (``input_spec.py``)."""

    row: int
    x: Arrays


@dataclass
class Predictions:
    """What a model of ``labels`` answers to the N clips of a split that could be read, in the split's order.

    Attributes:
        truth: the clips' classes ``(N,)``.
        scores: the posteriors ``(N, K)`` of whole clips.
        names: the clips' names, '' where they have none.
        groups: whose clips are alike (a speaker, a place), '' if unknown.
        seconds: the clips' lengths ``(N,)``.
        right: of each clip, whether the answer was right after each step from where its span begins.
        step: seconds between two steps.
        worst: clips whose truth got the lowest scores, the lowest first.
        skipped: how many more clips of the split could not be read.
    """

    labels: list[str]
    truth: NDArray[np.int64]
    scores: NDArray[np.float32]
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    right: list[list[bool]] = field(default_factory=list)
    step: float = 0.0
    worst: list[WorstClip] = field(default_factory=list)
    skipped: int = 0

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The classes with the highest scores, ``(N,)``."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each answer is right, ``(N,)``."""
        return np.asarray(self.predicted == self.truth)

    @property
    def of_truth(self) -> NDArray[np.float32]:
        """The scores of the truths, ``(N,)``."""
        return np.asarray(self.scores[np.arange(len(self.truth)), self.truth], np.float32)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The scores of the answers, ``(N,)``."""
        return np.asarray(self.scores.max(1, initial=0.0), np.float32)


@torch.inference_mode()
def predict(
    model: Classifier, batches: Iterable[Batch], features: Features | None = None, worst: int = 0
) -> Predictions:
    """What a model answers to clips. With ``features``, what they keep of the clips is used; so many of the ``worst``
    clips are kept.
    """
    model.eval()
    features = features or Features(model, None)
    found = Predictions(model.labels, np.zeros(0, np.int64), np.zeros((0, len(model.labels)), np.float32))
    found.step = model.hop / model.rate
    truth, scores, lengths = [found.truth], [found.scores], [found.seconds]
    kept = Smallest[WorstClip](worst)
    for batch in batches:
        y = model.posteriors(features.compute(batch))
        last = model.last_step(batch.lengths)
        scores.append(y[torch.arange(len(y)), last].float().cpu().numpy())
        truth.append(batch.labels.numpy())
        lengths.append(batch.lengths.numpy() / model.rate)
        hits = (y.argmax(-1).cpu() == batch.labels[:, None]).tolist()
        for row, spans, end in zip(hits, batch.spans, last.tolist(), strict=True):
            found.right.append(row[(spans[0][0] // model.hop if spans else 0) + model.delay : end + 1])
        keep_worst(kept, batch, scores[-1], len(found.names), model)
        found.names += batch.names
        found.groups += batch.groups
    found.truth, found.scores, found.seconds = np.concatenate(truth), np.concatenate(scores), np.concatenate(lengths)
    found.worst = list(kept)
    return found


def keep_worst(
    kept: Smallest[WorstClip], batch: Batch, scores: NDArray[np.float32], first: int, model: Classifier
) -> None:
    """Keep what is among the worst of a batch, whose rows stand from ``first`` on."""
    for row, label in enumerate(batch.labels.tolist()):
        if kept.accepts(rank := float(scores[row, label])):
            grains = -(-int(batch.lengths[row]) // model.spec.grain)
            tracks = zip(batch.x, model.spec.tracks, strict=True)
            x = tuple(x[row, : grains * track.steps].numpy().copy() for x, track in tracks)
            kept.add(rank, WorstClip(first + row, x))


def summarize(found: Predictions) -> dict[str, Any]:
    """Accuracy, macro F1, per-class figures, confusions, loss, and how soon the answers are right (``online``)."""
    result = classification_report(found.truth.tolist(), found.predicted.tolist(), found.labels)
    scores, truth = torch.from_numpy(found.scores), torch.from_numpy(found.truth)
    loss = torch.nn.functional.nll_loss(scores.clamp_min(MIN_PROBABILITY).log(), truth)
    soon = {"step": found.step, "accuracy": online_accuracy(found.right)}
    return result | {"loss": loss.item() if len(found.truth) else 0.0, "online": soon}


def compute_metrics(found: Predictions) -> dict[str, Any]:
    """All of ``summarize``; how many clips could not be read, the accuracy's interval, that of the best two answers,
    calibration, histograms of scores.
    """
    (low, high), method = interval(found.correct.tolist(), found.groups)
    groups = len({group for group in found.groups if group})
    better = (found.scores > found.of_truth[:, None]).sum(1)
    bins = claims(found.confidence, found.correct)
    return summarize(found) | {
        "interval": {"low": low, "high": high, "level": 0.95, "method": method, "groups": groups},
        "skipped": found.skipped,
        "top2": float((better < 2).mean()) if len(better) else 0.0,
        "seconds": round(float(found.seconds.sum()), 3),
        "calibration": {
            "error": calibration_error(bins),
            "bins": dict(zip(("count", "right", "score"), bins.tolist(), strict=True)),
        },
        "scores": {
            "right": histogram(found.confidence[found.correct]),
            "wrong": histogram(found.confidence[~found.correct]),
            "classes": {
                label: {
                    "own": histogram(found.scores[found.truth == index, index]),
                    "others": histogram(found.scores[found.truth != index, index]),
                }
                for index, label in enumerate(found.labels)
            },
        },
    }


def to_json_lines(split: str, found: Predictions) -> Iterator[str]:
    """A line of JSON for each clip: what it is, its truth, the answer and both scores. So runs can be pooled."""
    for place, name in enumerate(found.names):
        row = {
            "split": split,
            "name": name,
            "group": found.groups[place],
            "truth": found.labels[found.truth[place]],
            "answer": found.labels[found.predicted[place]],
            "score": round(float(found.confidence[place]), 4),
            "truth_score": round(float(found.of_truth[place]), 4),
        }
        yield json.dumps(row) + "\n"
