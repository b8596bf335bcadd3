"""How much of what is unusual is found, and how much of what is normal is told to be unusual?

    python benchmarks/novelty.py DATA [KEY=VALUE ...]                    (as ../shared/data; settings are those of train.py)

Two trainings with the settings of conf/experiment/novelty.yaml. The first is of rain and sea (ESC-10, folds 1 and 2); it
hears DATA/streams: other rain and sea, with words, digits and sounds in them. An event is found if an answer begins in
it, or 0.2 s before; an answer is false if it is right about nothing (``match_alarms``). AUROC is that of steps, by their
scores. The second is of two of the long recordings of people in DATA/background, and hears the two others, and then the
other way round: all that it tells there is false. It does so twice, as it is and with the wish for one false alarm an
hour. "below": the upper limit of the rate an hour, at 95 % (Poisson).
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import soundfile
import torch
from sklearn.metrics import roc_auc_score
from table import report  # beside this file

from pipeline.measures.detection import find_recordings, run_recording
from pipeline.measures.metrics import COLLAR_SECONDS, count_alarms
from pipeline.measures.operating_point import upper_limit
from pipeline.measures.stream_output import detect_spans, run_stream
from pipeline.media.chunks import open_chunks
from pipeline.model.classifier import load

HALVES = ("speech_fr.ogg", "words.ogg"), ("speech_it.ogg", "letters.ogg")
PIECE, HELD_OUT = 10, 7  # seconds of a training clip; each so many-th chooses the epoch


def trained(out, *settings):
    command = [
        sys.executable,
        ROOT / "train.py",
        "experiment=novelty",
        f"hydra.run.dir={out}",
        "export=false",
        *settings,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load(out).for_streaming()


def pieces(root, names, path):
    """A table of long recordings, cut into clips."""
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "start", "end", "label", "split"])
        for name in names:
            for number in range(int(soundfile.info(root / name).duration) // PIECE):
                split = "train" if number % HELD_OUT else "val"
                table.writerow([name, number * PIECE, (number + 1) * PIECE, "normal", split])


def hear_streams(model, data):
    paths = sorted(str(path) for path in (data / "streams").glob("*.flac"))
    for recording in find_recordings(paths):
        one = run_recording(model, recording)
        count = count_alarms(one.spans[0], detect_spans(model, one)[0], COLLAR_SECONDS * model.rate)
        there = np.zeros(len(one.posteriors), bool)
        for start, end in one.spans[0].tolist():
            there[start // model.hop : -(-end // model.hop)] = True
        yield (
            one.name,
            count.hits,
            count.truths,
            count.false,
            one.ticks / model.rate / 60,
            roc_auc_score(there, one.posteriors[:, 0]),
        )


def hear_normal(model, root, names):
    for name in names:
        one = run_stream(model, open_chunks(root / name, model.spec)[1], [[] for _ in model.labels], name)
        yield name, 0, 0, len(detect_spans(model, one)[0]), one.ticks / model.rate / 60, None


def summed(name, rows):
    _, hits, truths, false, minutes, areas = zip(*rows, strict=True)
    area = None if None in areas else float(np.mean(areas))
    return name, sum(hits), sum(truths), sum(false), sum(minutes), area


def shown(row):
    name, hits, truths, false, minutes, area = row
    found = f"{hits} of {truths}" if truths else "–"
    return [
        name,
        found,
        false,
        f"{minutes:.1f}",
        f"{upper_limit(false, minutes / 60):.2f}",
        "–" if area is None else f"{area:.3f}",
    ]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    data, settings = Path(sys.argv[1]).resolve(), sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        out, people = Path(folder), data / "background"
        streams = [*hear_streams(trained(out / "rain", f"dataset.root={data / 'esc10'}", *settings), data)]
        rows = [*streams, summed("all streams", streams)]
        for wish in ("null", "1"):
            normal = []
            for own, others in (HALVES, HALVES[::-1]):
                pieces(people, own, out / "pieces.csv")
                where = (
                    f"dataset.root={people}",
                    f"dataset.file={out / 'pieces.csv'}",
                    "dataset.splits=null",
                    "task.normal=null",
                    f"false_alarms={wish}",
                )
                normal += hear_normal(trained(out / f"{own[0]} {wish}", *where, *settings), people, others)
            rows += [*normal, summed(f"all people, false_alarms={wish}", normal)]
    note = f"one setting for all: experiment=novelty {' '.join(settings)}".rstrip()
    report(
        "novelty",
        ["recording", "found", "false", "minutes", "false an hour, below", "AUROC"],
        [*map(shown, rows)],
        note,
    )


if __name__ == "__main__":
    main()
