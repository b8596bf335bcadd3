"""Series of sensors that others measure: each set with three seeds, beside aeon's own Rocket.

    RIVULET_AEON=AEON_WHEEL python benchmarks/series.py        # a folder into which aeon's wheel is unpacked
    AEON_PYTHON=ENV/bin/python ...                             # a Python with aeon and all it needs: Rocket's figures, too

The sets (UCR and UEA archives) are read in aeon's wheel, written as csv files, and learnt by train.py like any others.
Draws docs/series.png. Settings were chosen by cross-validation of the training rows; of these, a tenth chooses nothing (``trainer.keep=last``).
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib
import numpy as np
import torch
from table import report

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from pipeline.extractors.values import Values
from pipeline.media.sample import Sample, collate

OUT = ROOT / "runs" / "series"
WHEEL = os.environ.get("RIVULET_AEON", "")
ALL = ["dataset=series", "dataset.cache=null", "dataset.val=0.1", "extractor=values", "encoder=recurrent", "augment=none", "smoothing=none",
       "trainer.keep=last", "trainer.ema=0.99", "trainer.workers=0", "trainer.threads=1", "optimizer.weight_decay=0.05", "export=false"]  # fmt: skip
SETS = {  # rows a second, and settings
    "BasicMotions": (10, ["trainer.epochs=30", "trainer.patience=30", "trainer.batch=8"]),
    "JapaneseVowels": (100, ["trainer.epochs=60", "trainer.patience=60", "trainer.batch=16", "encoder.layers=0", "encoder.dropout=0.4", "encoder.convolutions=[{channels: 128, kernel: 3, stride: 1},{channels: 128, kernel: 3, stride: 1}]"]),
    "ItalyPowerDemand": (1 / 3600, ["trainer.epochs=100", "trainer.patience=100", "trainer.batch=8", "head=last", "encoder.hidden=64", "encoder.dropout=0.3", "encoder.convolutions=[{channels: 64, kernel: 5, stride: 1},{channels: 64, kernel: 5, stride: 1}]"]),
}  # fmt: skip
ROCKET = """
import sys, numpy as np
from aeon.classification.convolution_based import RocketClassifier
from aeon.datasets import load_classification
name = sys.argv[1]
(x, y), (z, t) = (load_classification(name, split=split) for split in ("train", "test"))
if not isinstance(x, np.ndarray):  # of several lengths: zeros behind the shorter ones, as Rocket takes one
    longest = max(one.shape[1] for one in [*x, *z])
    x, z = (np.stack([np.pad(one, ((0, 0), (0, longest - one.shape[1]))) for one in rows]) for rows in (x, z))
for seed in range(int(sys.argv[2])):
    print(np.mean(RocketClassifier(random_state=seed).fit(x, y).predict(z) == t))
"""


def read_ts(path):
    """The series of a file ``.ts``, each as its rows and its class."""
    for line in path.read_text().splitlines():
        if line.strip() and line[0] not in "#@":
            *dimensions, label = line.split(":")
            yield list(zip(*(one.split(",") for one in dimensions))), label.strip()


def write_files(name, folder):
    """The series of a set as ``folder/train/CLASS/0.csv``; how many columns they have."""
    source = Path(WHEEL) / "aeon" / "datasets" / "data" / name
    for split in ("TRAIN", "TEST"):
        for number, (rows, label) in enumerate(read_ts(source / f"{name}_{split}.ts")):
            path = folder / split.lower() / label / f"{number}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "w", newline="") as file:
                csv.writer(file).writerows([[f"c{k}" for k in range(len(rows[0]))], *rows])
    return len(rows[0])


def learn(name, seed, columns):
    rate, settings = SETS[name]
    out = OUT / f"{name}_{seed}"
    names = ",".join(f"c{k}" for k in range(columns))
    command = [sys.executable, "train.py", *ALL, f"dataset.root={OUT / name}", f"extractor.columns=[{names}]", f"extractor.rate={rate}",
               f"seed={seed}", f"dataset.seed={seed}", *settings, f"hydra.run.dir={out}"]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads((out / "metrics.json").read_text())


def rocket(name, seeds):
    if not (python := os.environ.get("AEON_PYTHON")):
        return None
    done = subprocess.run([python, "-c", ROCKET, name, str(seeds)], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def spelt(figures):
    if figures is None:
        return "-"
    return f"{statistics.mean(figures):.1%} ({', '.join(f'{one:.1%}' for one in figures)})"


def draw(path):
    """Two sensors of which one is silent for a while, and what the encoder gets of them."""
    rng, t = np.random.default_rng(0), np.arange(80) / 10
    x = np.stack([20 + 3 * np.sin(t) + 0.2 * rng.standard_normal(80), 5 + np.cumsum(rng.standard_normal(80)) / 4], 1)
    x[28:46, 0] = np.nan
    x[rng.random(80) < 0.25, 1] = np.nan
    stage = Values(["temperature", "level"], 10.0)
    stage.meet(collate([Sample((x.astype(np.float32),), ())], stage.spec))
    y = stage(torch.from_numpy(x.astype(np.float32))[None], stage.initial(1))[0][0].numpy()
    figure, axes = plt.subplots(3, 1, figsize=(7, 5), sharex=True, layout="constrained")
    for k, name in enumerate(stage.spec.series.columns):
        axes[0].plot(t, x[:, k], ".", color=f"C{k}", label=name)
        axes[1].step(t, y[:, k], where="post", color=f"C{k}")
        axes[2].step(t, y[:, 2 + k] + 1.3 * k, where="post", color=f"C{k}")
    axes[0].legend(loc="upper right")
    for axis, title in zip(
        axes, ("rows of the table", "newest known value, by mean and deviation", "whether it is new")
    ):
        axis.set_title(title, fontsize=10, loc="left")
    axes[2].set_yticks([])
    axes[2].set_xlabel("seconds")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    draw(ROOT / "docs" / "series.png")
    if not (Path(WHEEL) / "aeon" / "datasets" / "data").is_dir():
        sys.exit("set RIVULET_AEON: pip download aeon==1.6.0 --no-deps, and unpack the wheel there")
    rows = []
    for name in SETS:
        columns = write_files(name, OUT / name)
        found = [learn(name, seed, columns) for seed in range(options.seeds)]
        ours, theirs = [one["test"]["accuracy"] for one in found], rocket(name, options.seeds)
        clips = found[0]["clips"]
        rows.append([name, columns, clips["train"] + clips["val"], clips["test"], spelt(ours), spelt(theirs), f"{found[0]['parameters']:,}", f"{statistics.mean(one['seconds'] for one in found):.0f} s"])  # fmt: skip
        print(*rows[-1], flush=True)
    columns = [
        "set",
        "columns",
        "training",
        "test",
        "Rivulet (seeds)",
        "aeon's Rocket (seeds)",
        "parameters",
        "training time",
    ]
    report("series", columns, rows, f"{options.seeds} seeds; one thread; aeon 1.6.0")


if __name__ == "__main__":
    main()
