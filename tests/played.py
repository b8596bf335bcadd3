"""Streams for sinks, item by item, with sound that tells its own place."""

import numpy as np

from pipeline.sinks.items import Clip, Clock, Frame, OpenEvents, Sound, TimedEvent
from pipeline.sinks.sink import Sink

RATE = 8000
NOON = 1_796_040_000.25  # 2026-11-30T12:00:00.250Z
LIVELY = ["decoder.threshold=0.63", "decoder.release=0.62", "decoder.minimum=0"]


def ramp(start, stop):
    """Samples that tell their numbers, in 16 bits."""
    return ((np.arange(start, stop) % 30000) / 32768).astype(np.float32)


def event(label, start, end, score=0.9):
    return TimedEvent(start, end, start, label, score)


class Shared(Sink):
    """Keeps what other sinks share."""

    def __init__(self):
        self.clips = []

    def write(self, item):
        if isinstance(item, Clip):
            self.clips.append(item)


def play(sink, until, events=(), since=0.0, live=None, block=0.1, shots=False, lag=0.2):
    """A stream with events that become known ``lag`` seconds after their end, and are open from their start on."""
    for number in range(round(since / block), round(until / block)):
        start, now = number * block, (number + 1) * block
        sink.write(Clock(now, None if live is None else live + now))
        sink.write(Sound(ramp(round(start * RATE), round(now * RATE))))
        for one in events:
            if start < one.end + lag <= now + 1e-9:
                sink.write(one)
        opened = [TimedEvent(e.start, now, e.peak, e.label, e.score) for e in events if e.start <= now < e.end]
        sink.write(OpenEvents(tuple(opened)))
        sink.flush()
        if shots:
            sink.write(Frame(start, np.full((48, 64, 3), number % 200 + 20, np.uint8)))
    for one in events:
        if one.end <= until < one.end + lag:
            sink.write(one)


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "clips.jsonl")
