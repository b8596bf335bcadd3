"""What a live model hears, kept so that events can be told from it again and again: with other thresholds, by class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.measures.metrics import Spans
from pipeline.media.input_spec import Arrays
from pipeline.model.classifier import Classifier
from pipeline.model.decoder import Decoder, Event
from pipeline.streaming.stream import Stream

BLOCK = 1.0  # seconds computed at a time


@dataclass(frozen=True)
class StreamOutput:
    """A stream as a live model heard it: ``posteriors (T, K)``; the true ``spans (N, 2)`` of each class in ticks, by
    their start; and its length in ``ticks``.
    """

    posteriors: NDArray[np.float32]
    spans: list[Spans]
    ticks: int
    name: str = ""
    left_out: int = 0  # true events whose label the model does not have, or passes over


def run_stream(
    model: Classifier,
    chunks: Iterable[Arrays],
    true: Sequence[list[tuple[int, int]]],
    name: str = "",
    left_out: int = 0,
) -> StreamOutput:
    """Chunks through a model. ``true`` spans of each class in ticks; they may still come while chunks are drawn."""
    stream = Stream(model, max(1, round(BLOCK * model.rate / model.hop)))
    blocks = []
    for chunk in chunks:
        stream.push(chunk if model.spec.both else chunk[0])
        blocks.append(stream.posteriors)
    stream.close()
    blocks.append(stream.posteriors)
    spans = [np.array(sorted(found), np.int64).reshape(-1, 2) for found in true]
    return StreamOutput(np.concatenate(blocks), spans, stream.ticks, name, left_out)


def decode_scores(decoder: Decoder, scores: NDArray[np.float32]) -> Spans:
    """Events ``(N, 2)`` in ticks of a new decoder of one label, from all its scores ``(T,)``; where none can be is
    passed over.
    """
    events: list[Event] = []
    edges = np.flatnonzero(np.diff((scores >= decoder.low[0]).astype(np.int8), prepend=0, append=0))
    for start, end in edges.reshape(-1, 2).tolist():
        if scores[start:end].max() >= decoder.high[0]:
            decoder.pass_over(start - decoder.step)
            events += decoder.decode(scores[start : end + 1, None])
    return event_spans(events + decoder.close())


def event_spans(events: Iterable[Event]) -> Spans:
    """Start and end of events, ``(N, 2)`` in ticks."""
    return np.array([(event.start, event.end) for event in events], np.int64).reshape(-1, 2)
