"""What does a trained model of sound cost on a stream? CPU time for a second of sound, streams a core, and bytes.

    python benchmarks/models.py MODEL... [gate=none]

By the exported graph, one thread, in CPU time, as others may use the machine: step by step as they come (blocks of at
least 0.1 s where the model's steps are shorter), and batches of 64 streams; by torch, step by step. "Streams a core" is
what a second of computing does in batches, without the time that a queue needs. "extractor": the graph of its extractor
alone, behind which is a GRU of one unit. ``gate=``: another gate than the model's own.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from graphs import as_graph  # beside this file
from table import report

from conf.command_line import compose_config
from conf.launch import to_plain
from pipeline.model.classifier import Classifier, load
from pipeline.model.stream_model import block_ticks
from pipeline.streaming.stream import Stream

SECONDS, ROUNDS, ROWS = 8, 5, 64


def main():
    torch.set_num_threads(1)
    gate = [argument for argument in sys.argv[1:] if argument.startswith(("gate=", "gate."))]
    paths = [argument for argument in sys.argv[1:] if argument not in gate]
    if not paths:
        sys.exit(__doc__)
    rows = []
    for path in paths:
        model = load(path)
        if gate:
            model = model.with_gate(to_plain(compose_config("infer", gate))["gate"])
        live = model.for_streaming()
        ticks = block_ticks(live, 0.1)
        graph, front = as_graph(live, ticks), as_graph(bare(model), ticks)
        one, batch = per_second(graph, ticks, 1), per_second(graph, ticks, ROWS) / ROWS
        place = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
        rows.append([
            place.parent.name, f"{1000 * ticks / model.rate:.0f}", f"{place.stat().st_size / 1e6:.1f}",
            f"{one:.1f}", f"{per_second(front, ticks, 1):.1f}", f"{per_second(live, ticks, 1):.1f}",
            f"{batch:.2f}", round(1000 / batch),
        ])  # fmt: skip
    columns = ["model", "block ms", "MB", "graph", "extractor", "torch", f"in {ROWS}s", "streams a core"]
    report("models", columns, rows, f"CPU ms for a second of sound; gate: {gate[0] if gate else 'its own'}")


def bare(model):
    """The model's extractor, with next to nothing behind it."""
    config = {part: dict(model.config[part]) for part in model.config} | {"gate": {}}
    config["encoder"] |= {"hidden": 1, "layers": 1, "convolutions": [], "spectrum": None}
    other = Classifier(config, model.labels).eval()
    other.extractor.load_state_dict(model.extractor.state_dict())
    return other.for_streaming()


def per_second(model, ticks, rows):
    """The least CPU milliseconds of some rounds: of a stream, pushed block by block, or of a batch."""
    sound = 0.1 * np.random.default_rng(0).standard_normal((rows, SECONDS * model.rate)).astype(np.float32)
    blocks = [sound[:, start : start + ticks] for start in range(0, sound.shape[1] - ticks + 1, ticks)]
    stream, memory, taken = Stream(model, ticks // model.hop), model.begin(rows), []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for block in blocks:
            if rows == 1:
                stream.push(block[0])
            else:
                _, memory = model.advance((block,), memory)
        taken.append(time.thread_time() - began)
    return 1000 * min(taken) / (len(blocks) * ticks / model.rate)


if __name__ == "__main__":
    main()
