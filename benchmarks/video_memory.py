"""Does an hour of video stream in flat memory? Resident memory of this process, minute by minute of the stream.

    python benchmarks/video_memory.py [MINUTES]

Makes a 320x240 file of moving shapes at 25 pictures a second (H.264), and streams it as `infer.py source=file` does:
reading ahead, ConvLSTM on 32x32 differences at 10 a second, decoder, events counted.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import torch
from table import report  # beside this file

RATE = 25


def resident():
    """MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def make(path, minutes):
    """One minute of motion, again and again, so that making it is quick."""
    from datasets.moving_shapes import LABELS, compose
    from pipeline.media.picture import Picture
    from pipeline.media.video_writer import VideoWriter

    rng = np.random.default_rng(0)
    images, _ = compose(rng, list(LABELS) * 3, 1.2, (0.2, 0.5), Picture(RATE, 240, 320))
    writer = VideoWriter(path, RATE)
    for number in range(round(minutes * 60 * RATE)):
        writer.write(images[number % len(images)], number / RATE)
    writer.close()


def main():
    from conftest import configured

    from datasets.moving_shapes import LABELS
    from pipeline.model.classifier import Classifier
    from pipeline.sources.file import File
    from pipeline.streaming.stream import Stream

    torch.set_num_threads(1)
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    model = Classifier(configured("train", "experiment=moving_shapes"), LABELS).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.mp4"
        make(path, minutes)
        size, started, rows, events = path.stat().st_size / 1e6, time.perf_counter(), [], 0
        stream, seen = Stream(model, 1), []
        for piece in File(str(path)).pieces(model.spec):
            events += len(stream.push(piece.x))
            if stream.ticks >= (len(seen) + 1) * 60 * model.rate:
                seen.append(resident())
        stream.close()
        took = time.perf_counter() - started
    for minute in sorted({1, 2, 5, 10, 20, 30, 40, 50, len(seen)}):
        if minute <= len(seen):
            rows.append([minute, f"{seen[minute - 1]:.1f}", f"{seen[minute - 1] - seen[0]:+.1f}"])
    report("video_memory", ["minute", "resident MB", "since the first"], rows,
           f"{minutes:.0f} min of 320x240 at {RATE} a second ({size:.0f} MB) in {took:.0f} s; greatest growth "
           f"{max(seen) - seen[0]:+.1f} MB; one thread")  # fmt: skip


if __name__ == "__main__":
    main()
