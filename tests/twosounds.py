"""Clips of none, one or two of three tones, also at the same time."""

import numpy as np

from pipeline.media.sample import Sample

TONES = {"high": 2400.0, "low": 300.0, "middle": 900.0}


class Clips:
    epoch = 0

    def __init__(self, count, seed, spec, weak):
        self.count, self.seed, self.spec, self.weak = count, seed, spec, weak

    def __len__(self):
        return self.count

    @property
    def classes(self):
        return [self[index].labels for index in range(self.count)]

    @property
    def names(self):
        return [f"clip{index}" for index in range(self.count)]

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, index])
        rate = self.spec.sound
        wave, spans = 0.01 * rng.standard_normal(rate), []
        for label in rng.permutation(3)[: index % 3].tolist():
            start, end = rng.integers(0, rate // 3), rng.integers(rate // 2, rate)
            wave[start:end] += 0.1 * np.sin(2 * np.pi * [*TONES.values()][label] * np.arange(end - start) / rate)
            spans.append((int(start), int(end), label))
        labels = tuple(label for *_, label in spans) or (3,)
        return Sample(
            (wave.astype(np.float32),), labels, None if self.weak else spans, f"clip{index}", f"{self.seed}/{index}"
        )


class TwoSounds:
    def __init__(self, weak: bool = False, clips: int = 48) -> None:
        self.labels, self.background = [*TONES, "nothing"], "nothing"
        self.weak, self.clips = weak, clips

    def split(self, name, spec):
        return Clips(self.clips if name == "train" else 24, ("train", "val", "test").index(name), spec, self.weak)
