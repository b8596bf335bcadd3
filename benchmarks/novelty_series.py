"""Is the one heartbeat that is unlike the others in a pressure curve found? (UCR anomaly 135, Wu & Keogh, TKDE 2021)

    RIVULET_AEON=AEON_WHEEL python benchmarks/novelty_series.py [KEY=VALUE ...]      # a folder into which aeon's wheel is unpacked

The first 1,200 rows are normal, and learnt from: ``task=novelty encoder=ahead`` guesses each row from those before it. The other 6,301
are a stream, in which 12 rows are marked. As the archive has it, the answer is the row at which the score is highest, and right within
100 rows of the mark. Scores are those of the model for streams, which holds a row's error against its own past.
"""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from table import report

from pipeline.model.classifier import load

NAME = "KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TEST.csv"
NORMAL, PIECE, NEAR, ROWS_A_SECOND = 1200, 150, 100, 10
SETTINGS = ["dataset=series", "extractor=values", "extractor.columns=[value]", f"extractor.rate={ROWS_A_SECOND}", "task=novelty", "encoder=ahead", "encoder.convolutions=[]",
            "encoder.hidden=64", "trainer.epochs=60", "trainer.batch=4", "trainer.workers=0", "trainer.threads=1", "export=false"]  # fmt: skip


def read():
    """The numbers, and which of them are marked: both ``(N,)``."""
    with open(Path(os.environ["RIVULET_AEON"]) / "aeon" / "datasets" / "data" / NAME, newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([float(row["value"]) for row in rows]), np.array([row["is_anomaly"] == "1" for row in rows])


def trained(values, folder, settings):
    """A model of the normal rows, in pieces, of which each fourth chooses the epoch."""
    for number, start in enumerate(range(0, NORMAL, PIECE)):
        path = folder / ("val" if number % 4 == 3 else "train") / "normal" / f"{number}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("value\n" + "".join(f"{value}\n" for value in values[start : start + PIECE]))
    command = [
        sys.executable,
        ROOT / "train.py",
        *SETTINGS,
        f"dataset.root={folder}",
        f"hydra.run.dir={folder}/run",
        *settings,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load(folder / "run").for_streaming()


@torch.inference_mode()
def scores_of(model, values):
    """How unusual each row is, in deviations less three ``(N,)``."""
    x = torch.from_numpy(values[:, None].astype(np.float32))[None]
    y, _ = model.extractor(x, model.extractor.initial(1))
    y, _ = model.encoder(model.encoder_input([y]), model.encoder.initial(1))
    return model.head(y, model.head.initial(1))[0][0, :, 0].numpy()


def main():
    values, marked = read()
    with tempfile.TemporaryDirectory() as folder:
        scores = scores_of(trained(values, Path(folder), sys.argv[1:]), values)
    places = np.flatnonzero(marked)
    best = NORMAL + int(scores[NORMAL:].argmax())
    hit = places[0] - NEAR <= best <= places[-1] + NEAR
    order = scores[NORMAL:].argsort().argsort()
    there = marked[NORMAL:]
    auroc = (order[there].sum() - there.sum() * (there.sum() - 1) / 2) / (there.sum() * (~there).sum())
    row = [
        f"{places[0]}-{places[-1]}",
        str(best),
        "hit" if hit else "missed",
        f"{scores[best] + 3:.1f}",
        f"{auroc:.3f}",
    ]
    report(
        "novelty_series",
        ["marked rows", "highest at", "", "deviations", "AUROC of rows"],
        [row],
        " ".join(sys.argv[1:]),
    )


if __name__ == "__main__":
    main()
