"""Every dense cell on the twelve keywords: the same recipe, the same time, two seeds each.

    python benchmarks/keywords.py DATA/sc12 --minutes 4 --parallel 2

A run is `train.py experiment=keywords cell=CELL seed=SEED trainer.minutes=4` on one thread; runs that are done are kept
under runs/keywords_cells and not repeated. The latency is that of one step (80 ms of sound) of the trained cell alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
from table import report

from pipeline.model.classifier import load

OUT = ROOT / "runs" / "keywords_cells"


def train(cell, seed, data, minutes):
    out = OUT / f"{cell}_{seed}"
    if not (out / "metrics.json").exists():
        command = [
            sys.executable,
            "train.py",
            "experiment=keywords",
            f"dataset.root={data}",
            f"cell={cell}",
            f"seed={seed}",
        ]
        command += [f"trainer.minutes={minutes}", "trainer.threads=1", f"hydra.run.dir={out}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        print(out.name, json.loads((out / "metrics.json").read_text())["test"]["accuracy"], flush=True)
    return out


def step_latency(model, repeats=2000):
    cell = model.encoder.recurrent1.cell
    x, state, times = torch.randn(1, 1, *cell.in_shape), cell.initial(1), []
    with torch.inference_mode():
        for _ in range(repeats):
            begin = time.perf_counter()
            _, state = cell(x, state)
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    cells = sorted(path.stem for path in (ROOT / "conf" / "cell").glob("*.yaml") if not path.stem.startswith("conv_"))
    jobs = [(cell, seed) for seed in range(options.seeds) for cell in cells]
    with ThreadPoolExecutor(options.parallel) as pool:
        runs = list(pool.map(lambda job: train(*job, options.data.resolve(), options.minutes), jobs))
    torch.set_num_threads(1)
    rows = []
    for cell in cells:
        mine = [run for run, job in zip(runs, jobs) if job[0] == cell]
        accuracy = [json.loads((run / "metrics.json").read_text())["test"]["accuracy"] for run in mine]
        epochs = [json.loads(line) for run in mine for line in (run / "history.jsonl").read_text().splitlines()]
        seconds = statistics.median(row["seconds"] for row in epochs)
        model = load(mine[0] / "model.safetensors")
        own = sum(p.numel() for p in model.encoder.recurrent1.cell.parameters())
        rows.append(
            [cell, f"{statistics.mean(accuracy):.1%}", " ".join(f"{a:.1%}" for a in accuracy), f"{own:,}",
             f"{model.parameter_count():,}", f"{seconds:.1f} s", len(epochs) // len(mine), f"{step_latency(model) * 1e6:.0f} us"]
        )  # fmt: skip
    columns = ["cell", "accuracy", "of each seed", "cell's parameters", "model's", "epoch", "epochs", "one step"]
    note = f"twelve keywords, unseen speakers, {options.minutes:g} minutes each on one thread, {options.parallel} runs at a time"
    report("keywords_cells", columns, sorted(rows, key=lambda row: row[1], reverse=True), note)


if __name__ == "__main__":
    main()
