"""Scenes: clips at random times in background noise, as a stream has them, and the times of what is in them.

A model that was trained on clips alone has never heard a word begin after a minute of rain. ``Scenes`` puts each
training clip somewhere into a longer piece of noise, with ``trainer.carry`` one piece goes on where another ended;
``SceneStream`` strings the clips of a split together, for choosing thresholds on what a stream will be like.
"""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch.utils.data import Dataset

from datasets.negatives import Negatives
from datasets.strings import StringSettings
from pipeline.media.audio import Samples
from pipeline.media.sample import Derived, Sample, Split

TEXTURE_COUNT = 48  # of noise that are drawn; as many, at most, are made of background clips
TEXTURE_SECONDS = 8.0
MAX_STREAM_SECONDS = 1800.0
BESIDE = 6.0  # dB
Rng = np.random.Generator


class SceneSettings(BaseModel):
    """``dataset.scene``. ``seconds``: length of a training scene (longer clips stay as they are). ``snr``: lowest and
    highest ratio of a clip's sound to the noise, in dB. ``gap``: shortest and longest pause in a ``SceneStream``, in
    seconds. ``plain``: share of training clips that stay as they are. ``trim``: up to so many seconds are cut off each
    end of a training clip (never more than a fifth of it), as where weak sounds were taken for silence.

    ``together``: fewest and most clips in one scene, each at a time of its own, the others up to ``BESIDE`` dB softer
    or louder than the first; for tags. None: one.

    ``strings``: clips one after another take the place of single ones, see ``strings.py``; for strings.

    With ``dataset.negatives``: in a share ``under`` of the scenes, a window of them takes the place of the noise, which
    longer clips get, too; and windows ``alone`` are added, that many for each training clip.
    """

    model_config = ConfigDict(extra="forbid")
    seconds: PositiveFloat = 2.0
    snr: tuple[float, float] = (0.0, 30.0)
    gap: tuple[float, float] = (0.5, 3.0)
    plain: Annotated[float, Field(ge=0, le=1)] = 0.3
    trim: NonNegativeFloat = 0.0
    under: Annotated[float, Field(ge=0, le=1)] = 0.3
    alone: NonNegativeFloat = 1.0
    together: tuple[PositiveInt, PositiveInt] | None = None
    strings: StringSettings | None = None

    @model_validator(mode="after")
    def ordered(self) -> "SceneSettings":
        """ValueError for a range that begins after its end."""
        for key in ("snr", "gap", "together"):
            low, high = getattr(self, key) or (0, 0)
            if low > high or (key == "gap" and low < 0):
                raise ValueError(f"{key}: got {low} to {high}; expected the lower one first, pauses from 0")
        if self.together and self.strings:
            raise ValueError("together: expected null with strings, whose words follow one another")
        return self


class Scenes(Derived):
    """The clips of a split, each at a random time of a piece of noise, alone or with others; all of that is another in
    each epoch.
    """

    def __init__(
        self, clips: Split, scene: SceneSettings, background: int, rate: int, negatives: Negatives | None = None
    ) -> None:
        """``clips`` with known spans; ``background`` is the class whose clips are noise; ``rate`` in Hz."""
        super().__init__(clips)
        self.scene, self.rate, self.negatives = scene, rate, negatives
        self.noise = Noise(clips, background, rate)
        classes = getattr(clips, "classes", [None] * len(clips))  # which not every split knows
        self.sounds = [index for index, label in enumerate(classes) if label != background]

    @property
    def overlap(self) -> str:
        """In words, that labels may be at the same time; '' if they may not."""
        several = self.scene.together and self.scene.together[1] > 1
        inside = str(getattr(self.split, "overlap", ""))
        return "dataset.scene.together puts several labels into one scene" if several else inside

    def __getitem__(self, index: int) -> Sample | None:
        rng, sample = np.random.default_rng([self.epoch, index]), self.split[index]
        ticks = round(self.scene.seconds * self.rate)
        alone = not self.negatives and not self.scene.together and not self.scene.strings
        if sample is None or (len(sample.x[0]) >= ticks and alone) or rng.random() < self.scene.plain:
            return sample
        ticks, weak = max(ticks, len(sample.x[0])), sample.spans is None
        if self.scene.trim:
            sample = trim(rng, sample, self.scene.trim * self.rate)
        parts = [sample, *self.beside(rng, sample, ticks)]
        wave = np.zeros(ticks, np.float32)
        spans = [span for one in parts for span in add_clip(wave, one, int(rng.integers(ticks - len(one.x[0]) + 1)))]
        under = self.negatives is not None and rng.random() < self.scene.under
        noise = normalize(self.negatives.draw(rng, ticks)) if self.negatives and under else self.noise.draw(rng, ticks)
        wave += noise * sound_level(sample) * 10 ** (-rng.uniform(*self.scene.snr) / 20)
        labels = tuple(dict.fromkeys(label for one in parts for label in one.labels))
        return replace(sample, x=(wave,), labels=labels, spans=None if weak else spans, key="")

    def beside(self, rng: Rng, sample: Sample, ticks: int) -> list[Sample]:
        """Other clips for a scene of so many ``ticks``, about as loud as its first one. None without ``together``."""
        if not self.scene.together or sample.spans == []:
            return []
        low, high = self.scene.together
        found = []
        for index in rng.choice(self.sounds, int(rng.integers(low, high + 1)) - 1).tolist():
            other, decibel = self.split[index], rng.uniform(-BESIDE, BESIDE)
            if other is not None and other.spans:
                other = trim(rng, other, self.scene.trim * self.rate)
                gain = sound_level(sample) / sound_level(other) * 10 ** (decibel / 20)
                spans = [(a, min(b, ticks), label) for a, b, label in other.spans or [] if a < ticks]
                if not spans:
                    continue
                found.append(replace(other, x=((other.x[0][:ticks] * np.float32(gain)),), spans=spans))
        return found


class SceneStream(Dataset[Sample | None]):
    """The clips of a split in an order drawn once, with pauses, in pieces of some half a minute; each piece has its own
    noise, at its own ratio to the mean level of its clips. The label of a piece is of no use. It ends after 30 minutes.
    """

    epoch = 0

    def __init__(self, clips: Split, scene: SceneSettings, background: int, rate: int, piece: float = 30.0) -> None:
        """As ``Scenes``; ``piece`` in seconds."""
        rng = np.random.default_rng(len(clips))
        noise = Noise(clips, background, rate)
        self.pieces: list[Sample] = []
        now: list[Sample] = []
        for index in rng.permutation(len(clips)).tolist():
            if (sample := clips[index]) is not None and background not in sample.labels:
                now.append(sample)
            if sum(len(sample.x[0]) + np.mean(scene.gap) * rate for sample in now) >= piece * rate:
                self.pieces.append(join_clips(rng, now, scene, noise, rate))
                now = []
                if sum(len(made.x[0]) for made in self.pieces) >= MAX_STREAM_SECONDS * rate:
                    break
        if now:
            self.pieces.append(join_clips(rng, now, scene, noise, rate))

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Sample | None:
        return self.pieces[index]


def join_clips(rng: Rng, clips: list[Sample], scene: SceneSettings, noise: "Noise", rate: int) -> Sample:
    """Clips one after another with pauses, in noise."""
    starts, position = [], 0
    for sample in clips:
        starts.append(position + round(rng.uniform(*scene.gap) * rate))
        position = starts[-1] + len(sample.x[0])
    wave = np.zeros(position + round(scene.gap[1] * rate), np.float32)
    spans = [span for sample, start in zip(clips, starts, strict=True) for span in add_clip(wave, sample, start)]
    loud = float(np.mean([sound_level(sample) for sample in clips]))
    wave += noise.draw(rng, len(wave)) * loud * 10 ** (-rng.uniform(*scene.snr) / 20)
    return Sample((wave,), clips[0].labels, spans)


def trim(rng: Rng, sample: Sample, most: float) -> Sample:
    """A clip without up to ``most`` samples at each end."""
    wave = sample.x[0]
    first, last = (rng.uniform(0, min(most, len(wave) / 5), 2)).astype(int).tolist()
    end = len(wave) - last
    spans = [(max(0, a - first), min(b, end) - first, c) for a, b, c in sample.spans or [] if a < end and b > first]
    return replace(sample, x=(wave[first:end],), spans=spans)


def add_clip(wave: Samples, sample: Sample, start: int) -> list[tuple[int, int, int]]:
    """Add a clip at sample ``start``; its spans there."""
    wave[start : start + len(sample.x[0])] += sample.x[0]
    return [(start + begin, start + end, label) for begin, end, label in sample.spans or []]


def sound_level(sample: Sample) -> float:
    """RMS of a clip where its sound is; of all of it, if nothing is known."""
    there = [sample.x[0][begin:end] for begin, end, _ in sample.spans or [(0, len(sample.x[0]), 0)]]
    return float(np.sqrt(np.mean(np.square(np.concatenate(there))) + 1e-12))


class Noise:
    """Textures of noise with an RMS of 1: drawn ones, and clips of the background played to and fro."""

    def __init__(self, clips: Split, background: int, rate: int) -> None:
        """Drawn once; which clips are background is read from ``clips.classes``, if it has them."""
        rng = np.random.default_rng(len(clips))
        size = round(TEXTURE_SECONDS * rate)
        self.textures = [draw_texture(rng, size, rate) for _ in range(TEXTURE_COUNT)]
        quiet = [index for index, label in enumerate(getattr(clips, "classes", [])) if label == background]
        for index in rng.permutation(quiet)[:TEXTURE_COUNT].tolist():
            if (sample := clips[index]) is not None and np.ptp(sample.x[0]) > 0:
                there = sample.x[0] - sample.x[0].mean()
                self.textures.append(normalize(np.resize(np.concatenate([there, there[::-1]]), size)))

    def draw(self, rng: Rng, ticks: int) -> Samples:
        """A random part of a random texture, so many samples long."""
        chosen = self.textures[rng.integers(len(self.textures))]
        return np.resize(np.roll(chosen, -int(rng.integers(len(chosen)))), ticks)


def draw_texture(rng: Rng, size: int, rate: int) -> Samples:
    """Noise of a random colour with a broad hill in its spectrum, steady or with something in it."""
    hertz = np.fft.rfftfreq(size, 1 / rate).clip(20)
    octaves = np.log2(hertz / np.exp(rng.uniform(np.log(150), np.log(0.4 * rate))))
    hill = rng.uniform(0, 15) * np.exp(-0.5 * (octaves / rng.uniform(0.3, 1.5)) ** 2)
    decibel = hill - rng.uniform(0, 6) * np.log2(hertz / 1000)
    wave = normalize(np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * 10 ** (decibel / 20), size))
    return normalize((add_nothing, swell, add_clicks, add_sounds)[rng.integers(4)](rng, wave, rate))


def add_nothing(rng: Rng, wave: Samples, rate: int) -> NDArray[Any]:
    """As it is."""
    return wave


def swell(rng: Rng, wave: Samples, rate: int) -> NDArray[Any]:
    """Louder and softer by 2 to 8 dB, some times in its length."""
    turns = rng.integers(1, 5)
    curve: NDArray[Any] = np.sin(2 * np.pi * turns * np.arange(len(wave)) / len(wave))
    return wave * 10 ** (rng.uniform(2, 8) / 20 * curve)


def add_clicks(rng: Rng, wave: Samples, rate: int) -> NDArray[Any]:
    """With 20 to 300 clicks a second."""
    drops = (rng.random(len(wave)) < rng.uniform(20, 300) / rate) * rng.exponential(1, len(wave))
    click = np.exp(-np.arange(rate // 100) / (rng.uniform(0.0005, 0.003) * rate)) * rng.standard_normal(rate // 100)
    return wave + rng.uniform(0.3, 1.5) * normalize(np.convolve(drops, click)[: len(wave)])


def add_sounds(rng: Rng, wave: Samples, rate: int) -> NDArray[Any]:
    """With sounds that are no words, 0 to 20 dB above it: noise, or a gliding pitch with its harmonics."""
    made: NDArray[Any] = wave.astype(np.float64)
    for _ in range(rng.integers(4, 16)):
        t = np.arange(round(rng.uniform(0.05, 0.7) * rate)) / rate
        pitch = np.exp(rng.uniform(np.log(100), np.log(1500))) * np.linspace(1, np.exp(rng.uniform(-0.5, 0.5)), len(t))
        turns = 2 * np.pi * np.cumsum(pitch) / rate
        count = max(1, int(min(8, 0.4 * rate / pitch.max())))
        tone = np.sum([rng.exponential() / k * np.sin(k * turns + rng.uniform(0, 6)) for k in range(1, count + 1)], 0)
        sound = normalize(tone if rng.random() < 0.6 else rng.standard_normal(len(t)))
        shape = np.minimum(1, t / rng.uniform(0.002, 0.1)) * np.exp(-t / rng.uniform(0.05, 1))
        start = rng.integers(len(wave) - len(t))
        made[start : start + len(t)] += sound * shape * 10 ** (rng.uniform(0, 20) / 20)
    return made


def normalize(wave: NDArray[Any]) -> Samples:
    """The same with an RMS of 1."""
    found: Samples = (wave / np.sqrt(np.mean(np.square(wave, dtype=np.float64)) + 1e-20)).astype(np.float32)
    return found
