"""One source through a stream into a sink, until it ends or somebody stops it."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pipeline.sinks.items as items
from pipeline.core.errors import ConfigError
from pipeline.decoders.decoder import Decoder, Event
from pipeline.model.stream_model import StreamModel
from pipeline.sinks.sink import Closed, Sink
from pipeline.sources.source import Gap, Piece, Source
from pipeline.streaming.interrupts import Interrupts, welcoming
from pipeline.streaming.stream import Stream


def listen(model: StreamModel, source: Source, sink: Sink, block: float, decoder: Decoder | None = None) -> bool:
    """Stream a source, ``block`` seconds at a time; on Ctrl-C, what has been received so far is answered and kept.

    The sink starts with the first piece, or with the end of a source that has none: one that cannot be read leaves no
    trace. Returns whether the source came to its end, or the sink was closed. Raises what the source raises, once all
    it gave is answered; ConfigError if the sink shows pictures and there are none.
    """
    if sink.pictures and model.spec.picture is None:
        raise ConfigError(f"sink: shows pictures, but the model takes {model.spec.what} alone; choose sink=console")
    stream = Stream(model, max(1, round(block * model.rate / model.hop)), decoder)
    runner = StreamRunner(stream, sink)
    with Interrupts() as interrupts:
        try:
            seen = sink.pictures is not False and model.spec.picture is not None
            for item in welcoming(interrupts, source.pieces(model.spec, seen)):
                runner.start(source.name)
                runner.take(item)
            runner.start(source.name)
        except Closed:
            return True
        except KeyboardInterrupt:
            return False
        finally:  # whatever ended the source: what it has given is answered
            runner.end()
    return True


class StreamRunner:
    """Runs what a source gives through a stream, and what that answers into a sink."""

    def __init__(self, stream: Stream, sink: Sink) -> None:
        self.stream, self.sink, self.rate = stream, sink, stream.model.rate
        self.started = False
        self.captured: float | None = None  # when the newest input was, on time.monotonic

    def start(self, name: str) -> None:
        """Start the sink, if it has not been."""
        if not self.started:
            model = self.stream.model
            self.sink.start(items.StreamInfo(name, model.labels, model.rate, model.hop))
            self.started = True

    def take(self, item: Piece | Gap) -> None:
        """One piece, or one gap, and all that follows from it."""
        if isinstance(item, Gap):
            start, length = items.to_seconds(self.stream.ticks, self.rate), items.to_seconds(item.ticks, self.rate)
            self.answer(self.stream.gap(item.ticks, item.how))
            self.sink.write(items.TimedGap(start, length, item.why, item.how))
            return
        self.captured = item.captured or self.captured
        if ticks := self.stream.spec.ticks(item.x):
            received = (self.stream.received + ticks) / self.rate
            time_captured = None if item.captured is None else time.time() - (time.monotonic() - item.captured)
            self.sink.write(items.Clock(received, time_captured))
        if self.stream.spec.sound and len(item.x[0]):
            self.sink.write(items.Sound(item.x[0], item.level))
        self.answer(self.stream.push(item.x))
        for seconds, image in item.seen:
            self.sink.write(items.Frame(seconds, image))

    def answer(self, ended: list[Event]) -> None:
        """Events that have ended, the newest posteriors, what is open, and what is doubtful."""
        age = None if self.captured is None else time.monotonic() - self.captured
        steps = items.Steps(self.stream.first, self.stream.posteriors, age)
        tell_answer(self.sink, self.rate, ended, steps, self.stream.open, self.stream.warnings)

    def end(self) -> None:
        """Answer for what is left."""
        if self.started:
            with suppress(Closed):
                self.answer(self.stream.close())


def tell_answer(
    sink: Sink,
    rate: int,
    ended: Sequence[Event],
    steps: items.Steps,
    opened: Sequence[Event],
    warnings: Sequence[dict[str, Any]],
) -> None:
    """What a stream of ``rate`` ticks a second has answered, to its sink."""
    for event in ended:
        sink.write(items.TimedEvent.of(event, rate))
    sink.write(steps)
    sink.write(items.OpenEvents(tuple(items.TimedEvent.of(event, rate) for event in opened)))
    for row in warnings:
        sink.write(items.StreamWarning(**row))
    sink.flush()
