"""How well does a model of tags tell sounds that overlap? Scenes of one, two and three sounds of ESC-10, and a stream.

    python benchmarks/overlaps.py MODEL.safetensors ESC10_ROOT FOLD        (as shared/data/esc10 and 4, or fold4)

ESC10_ROOT holds manifest.csv with path, label, split; only clips of the official fold FOLD are used, so a model that
was trained without it has heard none of them. A scene has 5 seconds. Each sound of it is another label's, begins up to
2.5 s early or late (so that at least half of it is heard), and is up to 6 dB softer or louder than the others; 40 dB
below there is white noise. Seeds are fixed. True times are the stretches that are at most 20 dB below a clip's loudest
moment (``find_sounds``). Frames are the model's own steps, before pooling and smoothing.

On the stream, of 120 s, each sound overlaps the next by 30 % of the shorter one. Both sounds of such a pair are told if
the model's own decoder has an event of each label while that sound is there.
"""

import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from table import report  # beside this file

from datasets.energy import find_sounds
from pipeline.measures.evaluation import predict
from pipeline.measures.stream_output import detect_spans, run_stream
from pipeline.media.chunks import read_chunk
from pipeline.media.sample import Sample, collate
from pipeline.media.tables import read_table
from pipeline.model.classifier import load

SCENES, SECONDS, STREAM_SECONDS = 200, 5.0, 120.0
LEVEL, BESIDE, NOISE, SHARE = 0.05, 6.0, -40.0, 0.3


class Fold:
    """The clips of a fold by label, and where each sounds, in samples."""

    def __init__(self, root, fold, model):
        self.rate, self.labels, self.clips = model.rate, model.labels, {}
        for row in read_table(f"{root}/manifest.csv", "ESC10_ROOT", ("path", "label", "split")):
            if row["split"].removeprefix("fold") == fold.removeprefix("fold"):
                (wave,), _ = read_chunk(Path(root) / row["path"], model.spec)
                times = find_sounds(wave, self.rate)
                loud = np.sqrt(np.mean(np.concatenate([wave[a:b] for a, b in times]) ** 2))
                self.clips.setdefault(model.labels.index(row["label"]), []).append((wave / loud, times))
        if not self.clips:
            sys.exit(f"{root}/manifest.csv has no clips of fold {fold!r}")

    def draw(self, rng, label):
        wave, times = self.clips[label][rng.integers(len(self.clips[label]))]
        return wave * LEVEL * 10 ** (rng.uniform(-BESIDE, BESIDE) / 20), times

    def scene(self, rng, count):
        size, spans = round(SECONDS * self.rate), []
        mix = rng.standard_normal(size) * LEVEL * 10 ** (NOISE / 20)
        for label in rng.permutation(sorted(self.clips))[:count].tolist():
            wave, times = self.draw(rng, label)
            there = 0
            while 2 * there < sum(end - start for start, end in times):
                shift = int(rng.uniform(-0.5, 0.5) * size)
                moved = [(max(0, a + shift), min(size, b + shift)) for a, b in times]
                moved = [(start, end) for start, end in moved if start < end]
                there = sum(end - start for start, end in moved)
            add(mix, wave, shift)
            spans += [(start, end, label) for start, end in moved]
        labels = tuple({label for *_, label in spans})
        return Sample((mix.astype(np.float32),), labels, spans, f"{count} sounds")

    def stream(self, rng):
        """Sounds, each of which begins before the last one ends: the samples, and start, end and label of each."""
        size = round(STREAM_SECONDS * self.rate)
        mix, sounds = rng.standard_normal(size) * LEVEL * 10 ** (NOISE / 20), []
        while True:
            begin, end, before = sounds[-1] if sounds else (0, 0, None)
            label = int(rng.choice([one for one in sorted(self.clips) if one != before]))
            wave, times = self.draw(rng, label)
            first, last = times[0][0], times[-1][1]
            start = end - round(SHARE * min(end - begin, last - first))
            if start + last - first > size:
                return mix.astype(np.float32), sounds
            add(mix, wave[first:last], start)
            sounds.append((start, start + last - first, label))


def add(mix, wave, start):
    end = min(len(mix), start + len(wave))
    mix[max(0, start) : end] += wave[max(0, -start) : end - start]


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    model, rows = load(sys.argv[1]), []
    fold = Fold(Path(sys.argv[2]).expanduser(), sys.argv[3], model)
    for count in (1, 2, 3):
        rng = np.random.default_rng(count)
        scenes = [fold.scene(rng, count) for _ in range(SCENES)]
        batches = (collate(scenes[start : start + 20], model.spec) for start in range(0, SCENES, 20))
        found = model.task.summarize(predict(model, batches))
        rows.append([count, SCENES, f"{found['map']:.3f}", f"{found['frame_map']:.3f}", f"{found['accuracy']:.3f}"])
    wave, sounds = fold.stream(np.random.default_rng(0))
    live = model.for_streaming()
    events = detect_spans(live, run_stream(live, iter([(wave,)]), [[] for _ in model.labels]))
    told = [any(a < end and b > start for a, b in events.get(label, ())) for start, end, label in sounds]
    both = sum(one and other for one, other in pairwise(told))
    step = 1000 * model.hop / model.rate
    report(f"overlaps-{sys.argv[3]}", ["sounds", "scenes", "clip mAP", "frame mAP", "exactly right"], rows,
           f"ESC-10, fold {sys.argv[3]}, steps of {step:g} ms; of {len(sounds) - 1} overlapping pairs in "
           f"{STREAM_SECONDS:g} s, both sounds of {both} are told; of {len(sounds)} sounds {sum(told)}")  # fmt: skip


if __name__ == "__main__":
    main()
