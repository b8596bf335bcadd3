"""A stream of samples through a model: the only mutable object, one per microphone, client or file.

Whatever sizes the samples arrive in, the model always sees the same blocks, so the answers are the same to the bit.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.events import Decoder, Event
from pipeline.media import Samples, sane
from pipeline.model import Classifier
from pipeline.stage import State, detach, pick, stack


class Stream:
    """Samples in, events out; ``posteriors`` holds the steps that the last call has answered.

    Attributes:
        state: the model's state, a plain value.
        posteriors: ``(T, K)`` float32 of the last ``push`` or ``close``.
        first: index of the first of these steps; step s is known from sample ``(s + 1) * hop`` on.
    """

    def __init__(self, model: Classifier, block: int = 10, decoder: Decoder | None = None) -> None:
        """``block`` output steps are computed at a time: more is faster, less answers sooner. ConfigError if the model
        is not causal.
        """
        if not model.causal:
            blind = next(name for name, stage in zip(model.names, model.stages, strict=True) if not stage.causal)
            raise ConfigError(f"{blind}: looks into the future (causal = False) and cannot be streamed; choose another")
        self.model, self.size = model, block * model.hop
        self.decoder = decoder or model.decoder()
        self.state = detach(model.initial(1))
        self.waiting = np.zeros(0, np.float32)
        self.samples = 0  # received so far
        self.skip = model.delay  # steps still to drop: they answer for the time before the start
        self.first = self.steps = 0  # answered so far
        self.end = sys.maxsize  # step at which the stream ends, once known
        self.closed = False
        self.posteriors = np.zeros((0, len(model.labels)), np.float32)

    def push(self, samples: Samples) -> list[Event]:
        """Take samples ``(N,)``, any number; return the events that have ended."""
        self.feed(samples)
        events: list[Event] = []
        answers = [self.posteriors]
        while self.ready():
            y, self.state = step(self.model, self.take()[None], self.state)
            events += self.answer(y[0])
            answers.append(self.posteriors)
        self.posteriors = np.concatenate(answers)
        self.first = self.steps - len(self.posteriors)
        return events

    def feed(self, samples: Samples) -> None:
        """Only store samples; ``tick`` will compute. What is no sound is made harmless. ValueError once closed."""
        if self.closed:
            raise ValueError("this stream is closed; begin a new Stream")
        samples = sane(np.asarray(samples, np.float32).reshape(-1))
        self.samples += len(samples)
        self.waiting = np.concatenate([self.waiting, samples]) if len(self.waiting) else samples
        self.posteriors, self.first = self.posteriors[:0], self.steps

    def ready(self) -> bool:
        """Whether a whole block is waiting."""
        return len(self.waiting) >= self.size

    def take(self) -> Samples:
        """The oldest waiting block."""
        block, self.waiting = self.waiting[: self.size], self.waiting[self.size :]
        return block

    def answer(self, y: NDArray[np.float32]) -> list[Event]:
        """Take a block's posteriors ``(T, K)``, less the steps before the start and after the end."""
        dropped = min(self.skip, len(y))
        self.skip -= dropped
        self.posteriors, self.first = y[dropped:][: self.end - self.steps], self.steps
        self.steps += len(self.posteriors)
        return self.decoder.decode(self.posteriors)

    def close(self) -> list[Event]:
        """The stream is over: answer for what is left (padded with silence) and end the open events."""
        self.end = -(-self.samples // self.model.hop)
        missing = (self.end - self.steps + self.skip) * self.model.hop - len(self.waiting)
        missing += -(len(self.waiting) + missing) % self.size
        events = self.push(np.zeros(missing, np.float32)) + self.decoder.close()
        self.closed = True
        return events


def tick(model: Classifier, streams: Sequence[Stream]) -> list[list[Event]]:
    """One batched step for every stream that has a block waiting; the events of each (of all streams, in order).

    ValueError if their block sizes differ.
    """
    events: list[list[Event]] = [[] for _ in streams]
    for stream in streams:
        stream.posteriors, stream.first = stream.posteriors[:0], stream.steps
    ready = [index for index, stream in enumerate(streams) if stream.ready()]
    if len({streams[index].size for index in ready}) > 1:
        raise ValueError("streams of one batch must have one block size")
    if not ready:
        return events
    chosen = [streams[index] for index in ready]
    y, state = step(model, np.stack([stream.take() for stream in chosen]), stack([stream.state for stream in chosen]))
    for row, (index, stream) in enumerate(zip(ready, chosen, strict=True)):
        stream.state = pick(state, row)
        events[index] = stream.answer(y[row])
    return events


@torch.inference_mode()
def step(model: Classifier, block: Samples, state: State) -> tuple[NDArray[np.float32], State]:
    """Samples ``(B, N)`` through the model: posteriors ``(B, T, K)`` and the next state."""
    y, state = model(torch.from_numpy(block).to(model.anchor), state)
    return y.cpu().numpy(), state
