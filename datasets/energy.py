"""Where the sound of a clip stands, by its energy."""

import numpy as np

from pipeline.media.audio import Samples

ENERGY_SAMPLES = 512  # about so many are summed where a clip's energy is looked at


def draw_start(rng: np.random.Generator, wave: Samples, length: int, grain: int, depth: float = 40.0) -> int:
    """Where a random cut of ``length`` samples begins, a multiple of ``grain``: anywhere but where it would hold
    ``depth`` dB less than the cut that holds most. Many recordings are filled up with silence, which would be learnt as
    the dog that barks in them.
    """
    step = grain if grain > 1 else ENERGY_SAMPLES
    frames = wave[: len(wave) // step * step].reshape(-1, step)
    energy = np.concatenate([[0.0], np.cumsum(np.einsum("ij,ij->i", frames, frames, dtype=np.float64))])
    span = min(length // step, len(frames))
    held = energy[span:] - energy[: len(energy) - span]
    held = held[: (len(wave) - length) // step + 1]
    start = int(rng.choice(np.flatnonzero(held >= held.max() * 10 ** (-depth / 10)))) * step
    return start if grain > 1 else start + int(rng.integers(min(step, len(wave) - length - start + 1)))


def find_sounds(
    wave: Samples, rate: int, every: bool = True, depth: float = 20.0, gap: float = 0.15
) -> list[tuple[int, int]]:
    """Where a clip sounds, ``(start, end)`` in samples: ``every`` time, as of several barks, or only the loudest.

    The stretches of 20-ms frames that are at most ``depth`` dB below the loudest one and 6 dB above the clip's quietest
    tenth, bridging pauses of up to ``gap`` seconds.
    """
    size = max(1, rate // 50)
    frames = np.pad(wave, (0, -len(wave) % size)).reshape(-1, size)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loudest = float(level.max())
    loud = np.flatnonzero(level >= max(loudest - depth, min(float(np.quantile(level, 0.1)) + 6, loudest - 6)))
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > gap * 50) + 1)
    if not every:
        parts = [part for part in parts if level.argmax() in part]
    return [(int(part[0]) * size, min(len(wave), (int(part[-1]) + 1) * size)) for part in parts]
