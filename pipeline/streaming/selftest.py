"""Before a live stream: does the model, as it listens here, answer as it did when it was saved?"""

from itertools import cycle

import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.core.errors import ModelError
from pipeline.media.audio import Resampler
from pipeline.media.input_spec import Arrays
from pipeline.model.golden_clip import TOLERANCE, clip, difference, sound
from pipeline.model.stream_model import StreamModel
from pipeline.streaming.stream import Stream

CHUNK_SECONDS = 0.001, 0.02, 0.0003, 0.1, 0.013  # seconds that arrive at a time: odd ones
DEVICE_RATE = 48000  # Hz of a microphone that is played
OFF = "turn this check off with selftest=false"


def check(model: StreamModel, block: int = 10, microphone: bool = False) -> None:
    """Play the golden clip through the live path, ``block`` steps at a time, and a ``microphone``'s resampler alone.

    The model judges the answers. ModelError says what differs.
    """
    parts = clip(model.spec, model.grain)
    model.check_golden(parts, streamed(model, parts, block))
    if microphone and model.spec.sound:
        resampled(model.spec.sound)


def streamed(model: StreamModel, parts: Arrays, block: int) -> NDArray[np.float32]:
    """Posteriors ``(T, K)`` of a clip that arrives in chunks."""
    stream, found = Stream(model, block), []
    grain, rate = model.spec.grain, model.rate
    for seconds in cycle(CHUNK_SECONDS):
        if not model.spec.ticks(parts):
            break
        chunk, parts = model.spec.cut(parts, max(1, round(seconds * rate / grain)) * grain)
        stream.push(chunk)
        found.append(stream.posteriors)
    stream.close()
    return np.concatenate([*found, stream.posteriors])


def resampled(rate: int) -> None:
    """A microphone's sound at ``rate`` Hz must be the same whatever its chunks. ModelError if it is not."""
    wave, convert = sound(DEVICE_RATE), Resampler(DEVICE_RATE, rate)
    chunks = [convert(chunk) for chunk in np.array_split(wave, 601)]
    apart = difference(np.concatenate([*chunks, convert.close()]), soxr.resample(wave, DEVICE_RATE, rate, "HQ"))
    if apart > TOLERANCE:
        raise ModelError(f"self-test: the resampler differs by {apart:.2g} in chunks; install another soxr, or {OFF}")
