"""Before a live stream: does the model, as it listens here, answer as it did when it was saved?"""

import sys
from itertools import cycle

import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.core.errors import ModelError
from pipeline.media.audio import Resampler
from pipeline.media.input_spec import Arrays
from pipeline.model.classifier import Classifier, on_device
from pipeline.model.golden import TOLERANCE, clip, explain_difference, offline, sound
from pipeline.streaming.stream import Stream

CHUNK_SECONDS = 0.001, 0.02, 0.0003, 0.1, 0.013  # seconds that arrive at a time: odd ones
LOOSE_TOLERANCE = 0.02  # of a posterior: bf16, and processors that choose another algorithm for another length
DEVICE_RATE = 48000  # Hz of a microphone that is played
OFF = "turn this check off with selftest=false"


def check(model: Classifier, block: int = 10, microphone: bool = False) -> None:
    """Play the golden clip through the live path, ``block`` steps at a time, and a ``microphone``'s resampler alone.

    The answers must be those of the offline path, and these the ones that were stored with the model; that is looked at
    only on the processor, with the window for streams and in full precision, as they were stored. ModelError says what
    differs.
    """
    parts = clip(model.spec, model.grain)
    ticks = model.spec.ticks(parts)
    x = on_device(model.pad(model.spec.stack([parts]), ticks), model)
    expected = offline(model, x)[: -(-ticks // model.hop)]
    exact = model.precision == "fp32" and model.anchor.device.type == "cpu"
    apart = difference(streamed(model, parts, block), expected)
    if apart > (TOLERANCE if exact else LOOSE_TOLERANCE):
        raise ModelError(
            f"self-test: the stream differs from the offline path by {apart:.2g}: a fault of the stream, or of a "
            f"stage's state; set precision=fp32 and device=cpu, or {OFF}"
        )
    golden, head = model.golden, model.config["head"]
    if golden is not None and exact and head.get("window") == head.get("live"):
        if model.gated:  # they were stored without the gate
            expected = offline(model.with_window(head.get("live")), x)[: len(expected)]
        apart = difference(expected, golden.posteriors)
        if apart > TOLERANCE:
            raise ModelError(
                f"self-test: the answers differ by {apart:.2g} from those stored with the model: "
                f"{explain_difference(model, x, golden)}; install what it was made with, save it again, or {OFF}"
            )
    if microphone and model.spec.sound:
        resampled(model.spec.sound)


def streamed(model: Classifier, parts: Arrays, block: int) -> NDArray[np.float32]:
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


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The greatest difference of two arrays; infinite if they have other shapes or hold NaN."""
    if found.shape != expected.shape:
        return float("inf")
    apart = float(np.abs(found - expected).max(initial=0.0))
    return apart if apart == apart else sys.float_info.max
