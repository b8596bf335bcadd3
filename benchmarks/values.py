"""How loud digits are in rain, told in dB: a speaker and rain that were never heard, each of five speakers in turn.

    python benchmarks/values.py FSDD ESC10            # folders of shared data: spoken digits, environmental sounds

A run is ``train.py experiment=loudness dataset.sound.fold=i/5`` on one thread. Runs that are done are kept under
runs/values and not repeated. Guessing tells the mean of the test truths. Draws docs/values.png.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib
from table import report

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUT = ROOT / "runs" / "values"
AFTER = 1.0, 3.0, 4.0  # seconds heard


def learn(fold, digits, sounds):
    out = OUT / str(fold)
    if not (out / "metrics.json").exists():
        command = [sys.executable, "train.py", "experiment=loudness", f"dataset.sound.root={digits}", f"dataset.noise.root={sounds}",
                   f"dataset.sound.fold={fold}/5", "trainer.threads=1", f"hydra.run.dir={out}"]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads((out / "metrics.json").read_text())


def draw(path, folds, found):
    """Told over true of all speakers, and the error over the time heard."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for number, one in zip(folds, found):
        (points,) = one["test"]["points"].values()
        left.plot(*zip(*points), ".", markersize=3, label=f"speaker {number}, unheard")
        online = one["test"]["online"]
        seconds = [online["step"] * (place + 1) for place in range(len(online["error"]))]
        right.plot(seconds, [one["test"]["spread"][0] * error for error in online["error"]])
    left.plot([-5, 25], [-5, 25], "k--", linewidth=1)
    left.set(xlabel="true SNR, dB", ylabel="told SNR, dB")
    left.legend(fontsize=8)
    right.set(xlabel="seconds heard", ylabel="mean absolute error, dB", ylim=(0, None))
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options = parser.parse_args()
    rows, all_, every = [], [], []
    for fold in options.folds:
        found = learn(fold, options.digits.resolve(), options.sounds.resolve())
        every.append(found)
        test, (one,) = found["test"], found["test"]["classes"].values()
        error, step = test["online"]["error"], test["online"]["step"]
        late = [test["spread"][0] * error[min(len(error), round(seconds / step)) - 1] for seconds in AFTER]
        all_.append((found["val"]["mae"], one["mae"], one["rmse"], one["r2"], one["guess"], *late))
        rows.append([f"{fold}/5", *(f"{value:.2f}" for value in all_[-1]), f"{found['seconds']:.0f} s"])
        print(*rows[-1], flush=True)
    draw(ROOT / "docs" / "values.png", options.folds, every)
    rows.append(["mean", *(f"{statistics.mean(column):.2f}" for column in zip(*all_)), ""])
    columns = [
        "speaker left out",
        "val MAE",
        "MAE, dB",
        "RMSE",
        "R2",
        "guessing",
        *(f"after {s:g} s" for s in AFTER),
        "training",
    ]
    report(
        "values",
        columns,
        rows,
        "SNR of digits in rain, -5 to 25 dB; speaker and rain unheard; 300 mixtures of 4 s each; one thread",
    )


if __name__ == "__main__":
    main()
