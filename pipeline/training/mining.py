"""Hard negatives: the places in recordings without any of the classes where a model raises alarms, or nearly does."""

from typing import NamedTuple

from pipeline.measures.stream_output import Stretches, decode_events, detect_spans, run_stretches
from pipeline.model.classifier import Classifier

NEARLY = 0.1  # share of a threshold from which on an event is nearly an alarm
MOST = 300  # places that are kept
Place = tuple[int, int]  # number of a stretch, tick within its recording


class Mined(NamedTuple):
    """The places of the highest scores, the highest first; how many alarms there were, and how many of them an hour."""

    places: list[Place]
    alarms: int
    an_hour: float


def mine(model: Classifier, negatives: Stretches) -> Mined:
    """A model hears all negatives as streams, with its own decoder."""
    live, decoder = model.for_streaming().eval(), model.decoder()
    found, alarms, ticks = list[tuple[float, int, int]](), 0, 0
    for number, (first, output) in enumerate(run_stretches(live, negatives)):
        ticks += output.ticks
        alarms += sum(map(len, detect_spans(live, output).values()))
        for index in decoder.audible:
            near = decoder.for_label(index, float(decoder.high[index]) * NEARLY, float(decoder.low[index]) * NEARLY)
            events = decode_events(near, output.posteriors[:, index])
            found += [(-event.score, number, first + event.peak) for event in events]
    hours = ticks / live.rate / 3600
    return Mined([(number, tick) for _, number, tick in sorted(found)[:MOST]], alarms, alarms / hours if hours else 0.0)
