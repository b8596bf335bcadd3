"""What a model answers on a split, and what is measured of it: the answers are computed once, figures are functions of
them.
"""

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.measures.calibration import calibration_error, claims, histogram
from pipeline.measures.metrics import classification, online
from pipeline.measures.uncertainty import interval
from pipeline.media.input_spec import Arrays
from pipeline.media.sample import Batch
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features

LEAST = 1e-9  # a probability below this counts as this much in the loss


class Exhibit(NamedTuple):
    """A clip that is kept to be shown: its place among the answers, and its tracks (``input_spec.py``)."""

    place: int
    x: Arrays


@dataclass
class Answers:
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
    worst: list[Exhibit] = field(default_factory=list)
    skipped: int = 0

    @property
    def answer(self) -> NDArray[np.int64]:
        """The classes with the highest scores, ``(N,)``."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether each answer is right, ``(N,)``."""
        return np.asarray(self.answer == self.truth)

    @property
    def sure(self) -> NDArray[np.float32]:
        """The scores of the answers, ``(N,)``."""
        return np.asarray(self.scores.max(1, initial=0.0), np.float32)


@torch.inference_mode()
def answers(model: Classifier, batches: Iterable[Batch], features: Features | None = None, worst: int = 0) -> Answers:
    """What a model answers to clips. With ``features``, what they keep of the clips is used; so many of the ``worst``
    clips are kept.
    """
    model.eval()
    features = features or Features(model, None)
    found = Answers(model.labels, np.zeros(0, np.int64), np.zeros((0, len(model.labels)), np.float32))
    found.step = model.hop / model.rate
    truth, scores, lengths = [found.truth], [found.scores], [found.seconds]
    kept: list[tuple[float, int, Exhibit]] = []
    for batch in batches:
        y = model.answers(features.compute(batch))
        last = model.last_step(batch.lengths)
        scores.append(y[torch.arange(len(y)), last].float().cpu().numpy())
        truth.append(batch.labels.numpy())
        lengths.append(batch.lengths.numpy() / model.rate)
        hits = (y.argmax(-1).cpu() == batch.labels[:, None]).tolist()
        for row, spans, end in zip(hits, batch.spans, last.tolist(), strict=True):
            found.right.append(row[(spans[0][0] // model.hop if spans else 0) + model.delay : end + 1])
        keep(kept, batch, scores[-1], len(found.names), worst, model)
        found.names += batch.names
        found.groups += batch.groups
    found.truth, found.scores, found.seconds = np.concatenate(truth), np.concatenate(scores), np.concatenate(lengths)
    found.worst = [exhibit for *_, exhibit in sorted(kept, key=lambda entry: entry[:2], reverse=True)]
    return found


def keep(
    kept: list[tuple[float, int, Exhibit]], batch: Batch, scores: NDArray[np.float32], first: int, worst: int,
    model: Classifier,
) -> None:  # fmt: skip
    """Of a batch whose rows stand from ``first`` on, keep what is among the ``worst``: a heap, its best one first."""
    for row, label in enumerate(batch.labels.tolist()):
        rank = -float(scores[row, label]), -(first + row)
        if len(kept) == worst and (not worst or rank < kept[0][:2]):
            continue
        grains = -(-int(batch.lengths[row]) // model.spec.grain)
        tracks = zip(batch.x, model.spec.tracks, strict=True)
        exhibit = Exhibit(first + row, tuple(x[row, : grains * track.steps].numpy().copy() for x, track in tracks))
        (heapq.heappush if len(kept) < worst else heapq.heapreplace)(kept, (*rank, exhibit))


def plain(found: Answers) -> dict[str, Any]:
    """Accuracy, macro F1, per-class figures, confusions, loss, and how soon the answers are right (``online``)."""
    result = classification(found.truth.tolist(), found.answer.tolist(), found.labels)
    loss = torch.nn.functional.nll_loss(
        torch.from_numpy(found.scores).clamp_min(LEAST).log(), torch.from_numpy(found.truth)
    )
    soon = {"step": found.step, "accuracy": online(found.right)}
    return result | {"loss": loss.item() if len(found.truth) else 0.0, "online": soon}


def figures(found: Answers) -> dict[str, Any]:
    """All of ``plain``; how many clips could not be read, the accuracy's interval, that of the best two answers,
    calibration, histograms of scores.
    """
    (low, high), method = interval(found.hits.tolist(), found.groups)
    groups = len({group for group in found.groups if group})
    result = plain(found) | {"interval": {"low": low, "high": high, "level": 0.95, "method": method, "groups": groups}}
    of_truth = found.scores[np.arange(len(found.truth)), found.truth]
    better = (found.scores > of_truth[:, None]).sum(1)
    bins = claims(found.sure, found.hits)
    return result | {
        "skipped": found.skipped,
        "top2": float((better < 2).mean()) if len(better) else 0.0,
        "seconds": round(float(found.seconds.sum()), 3),
        "calibration": {
            "error": calibration_error(bins),
            "bins": dict(zip(("count", "right", "score"), bins.tolist(), strict=True)),
        },
        "scores": {
            "right": histogram(found.sure[found.hits]),
            "wrong": histogram(found.sure[~found.hits]),
            "classes": {
                label: {
                    "own": histogram(found.scores[found.truth == index, index]),
                    "others": histogram(found.scores[found.truth != index, index]),
                }
                for index, label in enumerate(found.labels)
            },
        },
    }


def rows(split: str, found: Answers) -> Iterator[str]:
    """A line of JSON for each clip: what it is, its truth, the answer and both scores. So runs can be pooled."""
    of_truth = found.scores[np.arange(len(found.truth)), found.truth]
    for place, name in enumerate(found.names):
        row = {
            "split": split,
            "name": name,
            "group": found.groups[place],
            "truth": found.labels[found.truth[place]],
            "answer": found.labels[found.answer[place]],
            "score": round(float(found.sure[place]), 4),
            "truth_score": round(float(of_truth[place]), 4),
        }
        yield json.dumps(row) + "\n"
