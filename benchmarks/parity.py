"""Is the streamed answer the offline answer? Every clip of a test split, offline and in 20-ms chunks.

python benchmarks/parity.py MODEL.safetensors MANIFEST_FOLDER [SPLIT]
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from table import report  # beside this file

from pipeline.media.audio import read
from pipeline.model.classifier import load
from pipeline.streaming.stream import Stream


def streamed(model, wave):
    """The last posterior of a stream fed 20 ms at a time."""
    stream = Stream(model, 1)
    chunk = model.rate // 50
    last = None
    for start in range(0, len(wave), chunk):
        stream.push(wave[start : start + chunk])
        last = stream.posteriors[-1] if len(stream.posteriors) else last
    stream.close()
    return stream.posteriors[-1] if len(stream.posteriors) else last


def main():
    torch.set_num_threads(1)
    model, root, split = load(sys.argv[1]), Path(sys.argv[2]), (sys.argv[3:] or ["test"])[0]
    with open(root / "manifest.csv", newline="") as file:
        clips = [row for row in csv.DictReader(file) if row["split"] == split]
    same = right_offline = right_streamed = 0
    worst = 0.0
    for row in clips:
        wave, _ = read(root / row["path"], model.rate)
        with torch.inference_mode():
            offline = model.clip_posteriors(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))[0].numpy()
        live = streamed(model, wave)
        worst = max(worst, float(np.abs(offline - live).max()))
        answers = model.labels[int(offline.argmax())], model.labels[int(live.argmax())]
        same += answers[0] == answers[1]
        right_offline += answers[0] == row["label"]
        right_streamed += answers[1] == row["label"]
    count = len(clips)
    report("parity", ["clips", "same label", "offline accuracy", "streamed accuracy", "largest difference"],
           [[count, same, f"{right_offline / count:.4f}", f"{right_streamed / count:.4f}", f"{worst:.1e}"]],
           f"{split} split of {root.name}, offline and in 20-ms chunks")  # fmt: skip


if __name__ == "__main__":
    main()
