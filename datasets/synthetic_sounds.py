"""Twelve kinds of sound, made on the fly: the embedded default, so that everything works offline at once.

Each clip draws its own pitch, tempo, length, level, place, reverberation and background, so no two are alike and the
task is not trivial. Times are exact, which real recordings seldom offer: a model can learn where sounds begin and end.

    python -m datasets.synthetic_sounds FOLDER     write a 30-s scene, the truth beside it, and a folder of clips
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.signal import butter, fftconvolve, sosfilt

from datasets.generated import Event, Generated, Rng, write_recordings
from pipeline.media.input_spec import Arrays, InputSpec

Wave = NDArray[Any]  # (N,) float64 while sounds are made
Maker = Callable[[Rng, Wave], Wave]
BACKGROUND = "background"


def sine(hertz: Wave | float, t: Wave) -> Wave:
    """A sine whose frequency may change over time; ``t (N,)`` in seconds, evenly spaced."""
    rate = 1 / (t[1] - t[0])
    phase: Wave = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, t.shape)) / rate
    return np.sin(phase)


def tones(t: Wave, *hertz: float) -> Wave:
    """Several steady sines."""
    mixed: Wave = np.mean([sine(h, t) for h in hertz], axis=0)
    return mixed


def gate(t: Wave, period: float, share: float) -> Wave:
    """1 during the first ``share`` of each period, else 0, with 5-ms ramps."""
    phase = t % period
    ramp: Wave = np.minimum(phase, share * period - phase) / 0.005
    return ramp.clip(0, 1)


def noise(rng: Rng, t: Wave) -> Wave:
    """White noise."""
    return rng.standard_normal(len(t))


def band(x: Wave, low: float, high: float, t: Wave) -> Wave:
    """Butterworth band-pass, as far as it lies below half the rate."""
    rate = 1 / (t[1] - t[0])
    edges = [min(low, 0.4 * rate), min(high, 0.45 * rate)]
    filtered: Wave = sosfilt(butter(2, edges, "bandpass", fs=rate, output="sos"), x)
    return filtered


def hits(t: Wave, times: Wave, hertz: Wave, decay: float) -> Wave:
    """Decaying sines that start at ``times``; each is followed until it is 60 dB down."""
    y = np.zeros_like(t)
    for start, h in zip(times, hertz, strict=True):
        first, last = np.searchsorted(t, (start, start + 7 * decay))
        since = t[first:last] - start
        y[first:last] += np.exp(-since / decay) * np.sin(2 * np.pi * h * since)
    return y


def siren(rng: Rng, t: Wave) -> Wave:
    """A pitch that wails up and down."""
    centre, depth, speed = rng.uniform(700, 1100), rng.uniform(0.25, 0.45), rng.uniform(0.8, 2.5)
    return sine(centre * (1 + depth * np.sin(2 * np.pi * speed * t + rng.uniform(0, 6))), t)


def two_tone(rng: Rng, t: Wave) -> Wave:
    """Two pitches in turn, as a fire engine."""
    low, ratio, half = rng.uniform(400, 700), rng.uniform(1.2, 1.45), rng.uniform(0.15, 0.4)
    pitch = np.where(t % (2 * half) < half, low, low * ratio)
    driven: Wave = np.tanh(2 * sine(pitch, t))
    return driven


def dial_tone(rng: Rng, t: Wave) -> Wave:
    """Two steady low tones, as in a telephone."""
    shift = rng.uniform(0.9, 1.15)
    return tones(t, 350 * shift, 440 * shift)


def busy_tone(rng: Rng, t: Wave) -> Wave:
    """The same kind of tones, interrupted."""
    shift = rng.uniform(0.9, 1.15)
    return tones(t, 480 * shift, 620 * shift) * gate(t, rng.uniform(0.2, 0.4), 0.5)


def chirp(rng: Rng, t: Wave) -> Wave:
    """Short, high, quickly rising notes, as of a bird."""
    period, low, rise = rng.uniform(0.12, 0.3), rng.uniform(2000, 3200), rng.uniform(1.3, 2.0)
    return sine(low * rise ** ((t % period) / period), t) * gate(t, period, rng.uniform(0.4, 0.7))


def knock(rng: Rng, t: Wave) -> Wave:
    """Dull blows on wood."""
    times = np.cumsum(rng.uniform(0.12, 0.3, 16)) - 0.1
    wood = hits(t, times, rng.uniform(120, 280) * rng.uniform(0.95, 1.05, 16), rng.uniform(0.015, 0.035))
    return wood + 0.3 * hits(t, times, rng.uniform(500, 900, 16), 0.008)


def engine(rng: Rng, t: Wave) -> Wave:
    """A low hum of many harmonics that shakes."""
    base = rng.uniform(28, 70) * (1 + 0.06 * np.sin(2 * np.pi * rng.uniform(0.3, 2) * t))
    strokes = np.exp(5 * sine(base, t) - 5)  # one short push per turn: all harmonics at once
    return band(strokes, 20, rng.uniform(400, 1200), t) + 0.1 * band(noise(rng, t), 60, 600, t)


def bell(rng: Rng, t: Wave) -> Wave:
    """Inharmonic partials that ring out."""
    base, again = rng.uniform(500, 1100), rng.uniform(0.4, 0.8)
    times = np.arange(0, t[-1], again)
    parts = [hits(t, times, np.full(len(times), base * k), d) for k, d in ((1, 0.5), (2.76, 0.3), (5.4, 0.15))]
    rung: Wave = np.sum(parts, axis=0)
    return rung


def hiss(rng: Rng, t: Wave) -> Wave:
    """Steam: high noise."""
    low = rng.uniform(2500, 4000)
    return band(noise(rng, t), low, low * rng.uniform(1.6, 2.2), t)


def pulse_train(rng: Rng, t: Wave) -> Wave:
    """Regular clicks, as a Geiger counter or a clock gone mad."""
    times = np.arange(0, t[-1], 1 / rng.uniform(9, 20))
    return hits(t, times, np.full(len(times), rng.uniform(1200, 2600)), 0.003)


def whistle(rng: Rng, t: Wave) -> Wave:
    """A person's whistle: one slowly gliding, slightly trembling pure tone with breath."""
    glide = np.linspace(rng.uniform(900, 1600), rng.uniform(900, 1600), len(t))
    tone = sine(glide * (1 + 0.01 * np.sin(2 * np.pi * rng.uniform(4, 7) * t)), t)
    return tone + 0.1 * band(noise(rng, t), 900, 3000, t)


MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        siren, two_tone, dial_tone, busy_tone, chirp, knock, engine, bell, hiss, pulse_train, whistle,
    )
}  # fmt: skip


def draw_noise(rng: Rng, t: Wave) -> Wave:
    """Room noise of a random colour, with or without mains hum; standard deviation 1."""
    colour, size = rng.uniform(0.3, 1.2), 1 << (len(t) - 1).bit_length()  # a power of two: fast transforms
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (colour / 2)
    x = np.fft.irfft(spectrum)[: len(t)]
    x = x / x.std() + (rng.random() < 0.3) * rng.uniform(0.2, 0.8) * sine(rng.choice([50.0, 60.0]) * 2, t)
    result: Wave = x / x.std()
    return result


def reverberate(rng: Rng, x: Wave, rate: int) -> Wave:
    """``x`` in a room of random size: decaying noise as its impulse response, same length."""
    length = rng.uniform(0.02, 0.25)
    t = np.arange(int(rate * length)) / rate
    room = rng.standard_normal(len(t)) * np.exp(-t / (length / 4)) * rng.uniform(0.05, 0.4) / np.sqrt(len(t) / 8)
    room[0] = 1.0
    wet: Wave = fftconvolve(x, room)[: len(x)]
    return wet


def add_sound(rng: Rng, wave: Wave, label: str, start: int, end: int, rate: int, floor: float) -> None:
    """Add one sound of ``label`` from sample ``start`` to ``end``; its level is drawn against the ``floor`` (RMS)."""
    t = np.arange(end - start) / rate
    sound = reverberate(rng, MAKERS[label](rng, t), rate)
    ramp = max(2, int(0.01 * rate))
    sound[:ramp] *= np.linspace(0, 1, ramp)
    sound[-ramp:] *= np.linspace(1, 0, ramp)
    ratio = 10 ** (rng.uniform(-6, 18) / 20)  # signal to noise: -6 to 18 dB
    wave[start:end] += sound * ratio * floor / (np.sqrt(np.mean(sound**2)) + 1e-9)


def compose(
    rng: Rng, rate: int, seconds: float, labels: list[str], gap: tuple[float, float]
) -> tuple[Wave, list[Event]]:
    """Background with one sound after another, random gaps between; the wave and ``(start, end, label)`` in samples."""
    wave = draw_noise(rng, np.arange(int(seconds * rate)) / rate)
    spans, position = [], 0
    for label in labels:
        start = position + int(rng.uniform(*gap) * rate)
        end = start + int(rng.uniform(0.5, 1.5) * rate)
        if end > len(wave):
            break
        add_sound(rng, wave, label, start, end, rate, 1.0)
        spans.append((start, end, label))
        position = end
    # The room's loudness is drawn, not that of the loudest sound in it: so long scenes and short clips are alike.
    wave *= min(10 ** (rng.uniform(-46, -26) / 20), 0.95 / np.abs(wave).max())
    return wave.astype(np.float32), spans


@dataclass(eq=False)
class SyntheticSounds(Generated):
    """Clips with one sound each, or none: ``background``. ``seconds``: of a clip, ``gap``: of its lead-in."""

    title = "synthetic_sounds"
    seconds: Annotated[float, Field(ge=2)] = 2.0
    held_out: PositiveInt = 360
    gap: PositiveFloat = 0.4

    def __post_init__(self) -> None:
        self.labels, self.background = sorted([*MAKERS, BACKGROUND]), BACKGROUND

    def check(self, spec: InputSpec) -> None:
        """ConfigError for a model of pictures."""
        spec.require_sound("dataset=synthetic_sounds")

    def make(self, rng: Rng, label: str, split: str, spec: InputSpec) -> tuple[Arrays, list[Event]]:
        """A clip of ``label``; the splits differ by ``rng`` alone."""
        sounds = [] if label == BACKGROUND else [label]
        wave, events = compose(rng, spec.rate, self.seconds, sounds, (0.0, self.gap))
        return (wave,), events


def write_demo(folder: Path, rate: int = 16000, seed: int = 2026, clips: int = 24) -> None:
    """A 30-s scene as ``scene.wav`` with the truth in ``scene.csv``, and ``clips`` recordings in ``folder/clips``."""
    rng = np.random.default_rng(seed)
    order = [str(label) for label in rng.permutation(list(MAKERS))]
    wave, spans = compose(rng, rate, 30.0, order, (0.6, 1.7))
    data = SyntheticSounds(seed=seed).split("test", InputSpec(sound=rate))
    write_recordings(folder, wave, spans, [data[index] for index in range(clips)], rate, soundfile.write, "wav")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    write_demo(Path(sys.argv[1]))
