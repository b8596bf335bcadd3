"""The posteriors of a stream, kept to be decoded again and again: with other thresholds, by class."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.decoder import Decoder, Event
from pipeline.measures.metrics import Span, Spans
from pipeline.media.input_spec import Arrays
from pipeline.model.classifier import Classifier
from pipeline.streaming.stream import Stream

BLOCK_SECONDS = 10.0  # of sound that are computed at a time
PICTURE_BLOCK_SECONDS = 1.0  # the same with pictures, which take more memory


class Stretches(Protocol):
    """Parts of recordings: how many, and of each its recording's name, its first tick there, and all in chunks."""

    def __len__(self) -> int: ...

    def chunks(self, number: int, /) -> tuple[str, int, Iterator[Arrays]]: ...


@dataclass(frozen=True)
class StreamOutput:
    """What a live model gave for a stream: ``posteriors (T, K)``; the true ``spans (N, 2)`` of each class in ticks, by
    their start; and the stream's length in ``ticks``.
    """

    posteriors: NDArray[np.float32]
    spans: list[Spans]
    ticks: int
    name: str = ""
    left_out: int = 0  # true events behind the end, or whose label the model does not have or passes over


def run_stream(
    model: Classifier,
    chunks: Iterable[Arrays],
    true: Sequence[list[tuple[int, int]]],
    name: str = "",
) -> StreamOutput:
    """Run chunks through a model. ``true`` spans of each class in ticks may still be added while chunks are drawn."""
    seconds = PICTURE_BLOCK_SECONDS if model.spec.picture else BLOCK_SECONDS
    stream = Stream(model, max(1, round(seconds * model.rate / model.hop)))
    blocks = []
    for chunk in chunks:
        stream.push(chunk if model.spec.both else chunk[0])
        blocks.append(stream.posteriors)
    stream.close()
    blocks.append(stream.posteriors)
    spans = [np.array(sorted(found), np.int64).reshape(-1, 2) for found in true]
    return StreamOutput(np.concatenate(blocks), spans, stream.ticks, name)


def run_stretches(model: Classifier, stretches: Stretches) -> Iterator[tuple[int, StreamOutput]]:
    """Each stretch through a model, as a stream of its own: its first tick, and what the model gave."""
    for number in range(len(stretches)):
        name, first, chunks = stretches.chunks(number)
        yield first, run_stream(model, chunks, [[] for _ in model.labels], name)


def decode_scores(decoder: Decoder, scores: NDArray[np.float32]) -> Spans:
    """Events ``(N, 2)`` in ticks that a new decoder of one label finds in all its scores ``(T,)``."""
    return event_spans(decode_events(decoder, scores))


def decode_events(decoder: Decoder, scores: NDArray[np.float32]) -> list[Event]:
    """The same events as they are. Stretches without any event are passed over."""
    events: list[Event] = []
    edges = np.flatnonzero(np.diff((scores >= decoder.low[0]).astype(np.int8), prepend=0, append=0))
    for start, end in edges.reshape(-1, 2).tolist():
        if scores[start:end].max() >= decoder.high[0]:
            decoder.pass_over(start - decoder.step)
            events += decoder.decode(scores[start : end + 1, None])
    return events + decoder.close()


def detect_spans(model: Classifier, output: StreamOutput) -> dict[int, Spans]:
    """The events ``(N, 2)`` in ticks that the model's own decoder finds, by class; only classes that make events."""
    decoder = model.decoder()
    events = decoder.decode(output.posteriors) + decoder.close()
    return {index: event_spans(one for one in events if one.label == model.labels[index]) for index in decoder.audible}


def to_events(model: Classifier, spans: Mapping[int, Spans]) -> list[Span]:
    """Spans ``(N, 2)`` in ticks by class, as events in seconds."""
    return [(a / model.rate, b / model.rate, model.labels[index]) for index in spans for a, b in spans[index].tolist()]


def event_spans(events: Iterable[Event]) -> Spans:
    """Start and end of events, ``(N, 2)`` in ticks."""
    return np.array([(event.start, event.end) for event in events], np.int64).reshape(-1, 2)
