"""One source through a stream into a sink, until it ends or somebody stops it."""

import time
from contextlib import suppress

from pipeline.errors import ConfigError
from pipeline.events import Decoder
from pipeline.model import Classifier
from pipeline.sink import Closed, Sink
from pipeline.source import Gap, Piece, Source
from pipeline.stream import Stream


def listen(model: Classifier, source: Source, sink: Sink, block: float, decoder: Decoder | None = None) -> bool:
    """Stream a source, ``block`` seconds at a time; on Ctrl-C, what has been received so far is answered and kept.

    Returns whether the source came to its end, or the sink was closed. Raises what the source raises, once all it gave
    is answered; ConfigError if the sink shows pictures and there are none.
    """
    if sink.pictures and model.intake.picture is None:
        raise ConfigError("sink: shows pictures, but the model takes sound alone; choose sink=console")
    stream = Stream(model, max(1, round(block * model.rate / model.hop)), decoder)
    sink.start(source.name, model.labels, model.rate, model.hop)
    newest: float | None = None  # when what was last taken was captured
    try:
        for item in source.pieces(model.intake, sink.pictures):
            newest = (item.captured if isinstance(item, Piece) else None) or newest
            take(stream, item, sink, newest)
    except Closed:
        return True
    except KeyboardInterrupt:
        return False
    finally:  # whatever ended the source: what it has given is answered
        with suppress(Closed):
            sink.events(stream.close())
            sink.steps(stream.first, stream.posteriors, since(newest))
    return True


def since(captured: float | None) -> float | None:
    """Seconds since then."""
    return None if captured is None else time.monotonic() - captured


def take(stream: Stream, item: Piece | Gap, sink: Sink, captured: float | None) -> None:
    """One piece, or one gap, and all that follows from it."""
    if isinstance(item, Gap):
        start, length = sink.seconds(stream.ticks), sink.seconds(item.ticks)
        sink.events(stream.gap(item.ticks, item.how))
        sink.steps(stream.first, stream.posteriors, since(captured))
        sink.begun(stream.open)
        sink.gap({"start": start, "length": length, "why": item.why, "how": item.how})
        return
    sink.events(stream.push(item.x))
    sink.steps(stream.first, stream.posteriors, since(captured))
    if item.seen:
        sink.begun(stream.open)
    for seconds, image in item.seen:
        sink.picture(seconds, image)
