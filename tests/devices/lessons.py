"""What each of several processes comes to, whose shares of the clips are uneven; `torchrun ... lessons.py FOLDER`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from test_lesson import SHARES, batches, lesson, lively

from pipeline.training.devices import make_fabric


def main(out):
    made = make_fabric("cpu", int(os.environ["WORLD_SIZE"]), 1, "fp32")
    made.launch()
    rank = made.global_rank
    for case, steps in SHARES.items():
        model = lively()
        if rank:  # which only the first one's weights can mend
            torch.nn.init.zeros_(model.head.stages[0].map.weight)
        teach = lesson(model, out, fabric=made)
        found = []
        for step in steps:
            parts = [None if not part else batches(part)[0] for part in step[rank]]
            found.append(teach.truncated(parts[0], 0.1) if case == "blocks" else teach.full(parts))
        torch.save({"found": found, "weights": model.state_dict()}, out / f"{case}-{rank}.pt")


main(Path(sys.argv[1]))
