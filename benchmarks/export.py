"""Exported models: seconds to export, bytes, differences from torch, labels of clips, and the time of a step.

    python benchmarks/export.py NAME=RUN[,FOLDER] ...

Labels are of the first ``CLIPS`` test clips of the run, or files of the folder. Times are of one thread's own processor
time, as others may use the machine; the last column is the time of a block in ONNX Runtime and in torch.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch

from benchmarks.table import report
from pipeline.core.errors import UserError
from pipeline.exporting.check import check, test_clips
from pipeline.exporting.export import export, prove
from pipeline.model.classifier import load
from pipeline.model.onnx_model import OnnxModel
from pipeline.streaming.state_batch import full_block

CLIPS = 40
ROUNDS = 300


def clips(run, folder):
    """Files, each with its label or ''."""
    if folder:
        return [(path, "") for path in sorted(Path(folder).iterdir()) if path.is_file()][:CLIPS]
    return list(islice(test_clips(run), CLIPS))


def block_times(models, unit):
    """Median milliseconds of a block on the processor, the models by turns."""
    block = full_block(models[0], unit, 1, np.random.default_rng(0))
    memories, times = [model.begin(1) for model in models], []
    for _ in range(ROUNDS):
        times.append([])
        for k, model in enumerate(models):
            begun = time.thread_time()
            _, memories[k] = model.advance(block, memories[k])
            times[-1].append(1e3 * (time.thread_time() - begun))
    return [statistics.median(column) for column in zip(*times)]


def measured(name, run, folder):
    model = load(Path(run) / "model.safetensors")
    live, graphs, rows = model.for_streaming(), [], []
    with tempfile.TemporaryDirectory() as out:
        for weights in "fp32", "fp16", "int8":
            begun = time.thread_time()
            files = export(model, Path(out), weights=weights)
            seconds = time.thread_time() - begun
            graphs.append(OnnxModel(files[0]))
            told = check(model, OnnxModel(files[-1]), clips(Path(run), folder))
            size, apart = files[0].stat().st_size, prove(live, graphs[-1], 1)
            rows.append([f"{seconds:.0f}", f"{size / 1e3:,.0f}", f"{apart:.0e}", f"{told.same} of {told.clips}"])
    unit = graphs[0].unit
    times = [f"{time:.2f}" for time in block_times([*graphs, live], unit)]
    columns = [" / ".join(column) for column in [*list(zip(*rows))[1:], times[:3]]]
    return [name, rows[0][0], *columns[:3], f"{1e3 * unit / model.rate:.0f}", columns[3], times[3]]


def main():
    torch.set_num_threads(1)
    rows = []
    for argument in sys.argv[1:]:
        name, _, place = argument.partition("=")
        run, _, folder = place.partition(",")
        try:
            rows.append(measured(name, run, folder))
        except UserError as error:
            rows.append([name, *[""] * 6, str(error)[:80]])
        print(*rows[-1], sep=" | ", flush=True)
    columns = ["model", "s", "kB", "difference", "labels equal", "block ms", "onnx ms", "torch ms"]
    report("export", columns, rows, "fp32 / fp16 / int8 weights, one thread, processor time")


if __name__ == "__main__":
    main()
