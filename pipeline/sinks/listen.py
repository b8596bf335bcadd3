"""One source through a stream into a sink, until it ends or somebody stops it."""

import time
from contextlib import suppress

from pipeline.core.errors import ConfigError
from pipeline.model.classifier import Classifier
from pipeline.model.decoder import Decoder
from pipeline.sinks.sink import Closed, Sink
from pipeline.sources.source import Gap, Piece, Source
from pipeline.streaming.interrupts import Interrupts, welcoming
from pipeline.streaming.stream import Stream


def listen(model: Classifier, source: Source, sink: Sink, block: float, decoder: Decoder | None = None) -> bool:
    """Stream a source, ``block`` seconds at a time; on Ctrl-C, what has been received so far is answered and kept.

    The sink starts with the first piece, or with the end of a source that has none: one that cannot be read leaves no
    trace. Returns whether the source came to its end, or the sink was closed. Raises what the source raises, once all
    it gave is answered; ConfigError if the sink shows pictures and there are none.
    """
    if sink.pictures and model.spec.picture is None:
        raise ConfigError("sink: shows pictures, but the model takes sound alone; choose sink=console")
    stream = Stream(model, max(1, round(block * model.rate / model.hop)), decoder)
    course = Course(stream, sink)
    with Interrupts() as interrupts:
        try:
            for item in welcoming(interrupts, source.pieces(model.spec, sink.pictures)):
                course.begin(source.name)
                course.take(item)
            course.begin(source.name)
        except Closed:
            return True
        except KeyboardInterrupt:
            return False
        finally:  # whatever ended the source: what it has given is answered
            course.end()
    return True


class Course:
    """What a stream says, on its way to the sink."""

    def __init__(self, stream: Stream, sink: Sink) -> None:
        self.stream, self.sink = stream, sink
        self.begun = False
        self.newest: float | None = None  # when what was last taken was captured

    def begin(self, name: str) -> None:
        """Start the sink, if it has not been."""
        if not self.begun:
            model = self.stream.model
            self.sink.start(name, model.labels, model.rate, model.hop)
            self.begun = True

    def take(self, item: Piece | Gap) -> None:
        """One piece, or one gap, and all that follows from it."""
        if isinstance(item, Gap):
            self.skip(item)
            return
        self.newest = item.captured or self.newest
        if self.stream.spec.sound and len(item.x[0]):
            self.sink.sound(item.x[0], item.level)
        self.sink.events(self.stream.push(item.x))
        self.tell()
        for seconds, image in item.seen:
            self.sink.picture(seconds, image)

    def skip(self, gap: Gap) -> None:
        """A gap."""
        start, length = self.sink.seconds(self.stream.ticks), self.sink.seconds(gap.ticks)
        self.sink.events(self.stream.gap(gap.ticks, gap.how))
        self.tell()
        self.sink.gap({"start": start, "length": length, "why": gap.why, "how": gap.how})

    def tell(self) -> None:
        """The newest posteriors, what is open, and what is doubtful."""
        age = None if self.newest is None else time.monotonic() - self.newest
        self.sink.steps(self.stream.first, self.stream.posteriors, age)
        self.sink.begun(self.stream.open)
        for row in self.stream.warnings:
            self.sink.warning(row)

    def end(self) -> None:
        """Answer for what is left."""
        if self.begun:
            with suppress(Closed):
                self.sink.events(self.stream.close())
                self.tell()
