"""Clips in noise, at a signal-to-noise ratio that is known: what a model of numbers can learn to tell."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from torch.utils.data import Dataset

from datasets.clips import Clips, Corpus
from pipeline.core.errors import ConfigError
from pipeline.media.audio import Samples
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Sample

Range = tuple[float, float]
Rng = np.random.Generator
LEVELS = -40.0, -15.0  # dB of full scale of the noise, so that loudness tells nothing


class Noisy:
    """Clips of ``sound`` one after another, with pauses, in recordings of ``noise``. The ``snr`` in dB is the power of
    the clips while they sound by that of the noise, the same all the time.

    Attributes:
        labels: what is told: ``snr``.
    """

    background = None

    def __init__(
        self,
        sound: Callable[..., Corpus],
        noise: Callable[..., Corpus],
        label: str | None = None,
        seconds: PositiveFloat = 4.0,
        snr: Range = (-5.0, 25.0),
        gap: Range = (0.0, 0.4),
        clips: PositiveInt = 960,
        held_out: PositiveInt = 300,
        seed: int = 0,
    ) -> None:
        """Both have splits of their own. ``label``: of the noise that is taken; None: all. ``gap``: seconds of a pause.
        ``clips``: of an epoch, drawn anew in each; validation and test are ``held_out`` fixed ones.
        """
        self.labels, self.sound, self.noise = ["snr"], sound(), noise()
        self.noise.clips = [clip for clip in self.noise.clips if label in (None, clip.label)]
        if {clip.split for clip in self.noise.clips} != {"train", "val", "test"}:
            raise ConfigError(
                f"dataset.label: expected noise {label or ''!r} in train, val and test; see dataset.noise"
            )
        self.seconds, self.snr, self.gap = seconds, snr, gap
        self.clips, self.held_out, self.seed = clips, held_out, seed

    def split(self, name: str, spec: InputSpec) -> "NoisySplit":
        """``train``, ``val`` or ``test``; neither a clip nor a recording of noise stands in two of them."""
        return NoisySplit(self, name, spec.require_sound("dataset=noisy"))


class NoisySplit(Dataset[Sample]):
    """Mixtures of one split."""

    def __init__(self, recipe: Noisy, name: str, rate: int) -> None:
        """All recordings are kept in memory."""
        self.recipe, self.name, self.rate, self.epoch = recipe, name, rate, 0
        self.number = ("train", "val", "test").index(name)
        self.sounds, self.noises = (self.read(corpus) for corpus in (recipe.sound, recipe.noise))

    def read(self, corpus: Corpus) -> list[Samples]:
        """The recordings of a table that are of this split."""
        own = [replace(clip, label="") for clip in corpus.clips if clip.split == self.name]
        part = Clips(own, [""], InputSpec(self.rate), corpus.cache)
        part.drop_unreadable(self.name)
        found = [sample.x[0] for sample in map(part.__getitem__, range(len(part))) if sample and sample.x[0].any()]
        if not found:
            raise ConfigError(f"dataset: none of the {len(own)} {self.name} files can be read, or they are silent")
        return found

    def __len__(self) -> int:
        return self.recipe.held_out if self.number else self.recipe.clips

    def __getitem__(self, index: int) -> Sample:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.number, 0 if self.number else self.epoch, index])
        size = round(recipe.seconds * self.rate)
        noise = self.noises[rng.integers(len(self.noises))]
        noise = np.roll(np.resize(noise, max(size, len(noise))), int(rng.integers(len(noise))))[:size]
        sound, there = self.speech(rng, size)
        snr = rng.uniform(*recipe.snr)
        sound *= 10 ** (snr / 20) * rms(noise) / rms(sound[there])
        wave = (noise + sound) * 10 ** (rng.uniform(*LEVELS) / 20) / rms(noise)
        wave *= min(1.0, 0.99 / np.abs(wave).max())
        key = f"noisy/{recipe.seed}/{self.name}/{index}" if self.number else ""
        values = np.full((2, 1), snr, np.float32)  # of both halves: it holds at every step
        return Sample((wave.astype(np.float32),), (), None, f"{self.name} {index}", key, values=values)

    def speech(self, rng: Rng, size: int) -> tuple[Samples, Any]:
        """Clips with pauses ``(N,)``, and where there are some."""
        wave, there = np.zeros(size, np.float32), np.zeros(size, bool)
        at = int(rng.uniform(*self.recipe.gap) * self.rate)
        while at < size:
            clip = self.sounds[rng.integers(len(self.sounds))][: size - at]
            wave[at : at + len(clip)], there[at : at + len(clip)] = clip, True
            at += len(clip) + int(rng.uniform(*self.recipe.gap) * self.rate)
        return wave, there


def rms(wave: Samples) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) + 1e-12
