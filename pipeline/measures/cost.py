"""What a model costs: parameters, multiply-adds per second of input, and the time of one live block."""

import math
import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.cells.cell import Cell
from pipeline.extractors.spectral import MelSpectrum
from pipeline.layers.tracks import to_tensors
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.model.classifier import Classifier, on_device
from pipeline.model.stream_model import StreamModel
from pipeline.streaming.stream import Stream

BLOCK_SECONDS = 0.02  # of sound in a block whose time is measured: what a live stream may be given
WARM_UP_BLOCKS, BLOCKS = 20, 120  # blocks before the measuring begins, and measured
MAX_SECONDS = 1.0  # for both together


def count_multiply_adds(model: Classifier) -> float:
    """Multiplications with an addition per second of input, of one stream.

    Counted are the products: matrices, convolutions, and recurrent products, on a clip of a second. Products that torch
    computes are counted by its own counter as they happen. Cells run as kernels of ours, too, which it cannot see, so
    they are counted from the shapes of their weights. A transform of N samples counts as 1.25 N log2 N (half of the 2.5
    N log2 N operations of a real one, Frigo & Johnson 2005). Left out is what is done number by number (gates,
    normalisation, pooling, smoothing), and what other libraries compute: ``uncounted``.
    """
    model = model.eval()
    ticks = math.ceil(model.rate / model.grain) * model.grain
    counted: list[float] = []
    stages = {name: stage for name, stage in model.named_modules() if isinstance(stage, Cell | MelSpectrum)}

    def note(stage: Cell | MelSpectrum, given: Any, made: Any) -> None:
        y = made[0]  # (B, T, ...)
        if isinstance(stage, MelSpectrum):
            counted.append(1.25 * stage.fft * math.log2(stage.fft) * y.shape[1])
        else:  # each weight meets each step, and over images each pixel, once
            weights = [weight.numel() for weight in (stage.weight_ih, stage.weight_hh) if weight is not None]
            counted.append(float(sum(weights) * y[0, :, 0].numel()))

    hooks = [stage.register_forward_hook(note) for stage in stages.values()]
    x = on_device(to_tensors(model.spec, model.spec.stack([silent_chunk(model.spec, ticks)])), model)
    counter: Any = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            model(x, model.initial(1))
    finally:
        for hook in hooks:
            hook.remove()
    known = counter.get_flop_counts()
    apart = [name for name, stage in stages.items() if isinstance(stage, Cell)] + ["smoothing"]
    inside = [sum(known.get(f"{type(model).__name__}.{name}", {}).values()) for name in apart]
    return float((counter.get_total_flops() - sum(inside)) / 2 + sum(counted)) * model.rate / ticks


def silent_chunk(spec: InputSpec, ticks: int) -> Arrays:
    """A chunk of zeros in which all tracks are there."""
    made = spec.pad(spec.empty(), ticks)
    return (*made[:-1], np.ones_like(made[-1])) if spec.both else made


def measure_step(model: StreamModel) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds, of ``Stream.push`` of one live block on this machine, on one thread;
    ``chunk``: seconds of input in it (20 ms of sound, one picture, or the smallest block that the ``model`` for streams
    computes, in whole steps).
    """
    rng = np.random.default_rng(0)
    stream = Stream(model, max(1, round(BLOCK_SECONDS * model.rate / model.hop), -(-model.unit // model.hop)))
    chunk: list[Any] = []
    for track in model.spec.tracks:
        noise = rng.random((stream.size // model.spec.grain * track.steps, *track.shape))
        chunk.append((noise * (255 if track.kind is np.uint8 else 0.1)).astype(track.kind))
    if model.spec.both:
        chunk[-1][:] = 1
    threads, taken, began = torch.get_num_threads(), list[float](), time.perf_counter()
    torch.set_num_threads(1)
    try:
        while len(taken) < WARM_UP_BLOCKS + BLOCKS and (len(taken) < 3 or time.perf_counter() - began < MAX_SECONDS):
            start = time.perf_counter()
            stream.push(tuple(chunk))
            taken.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    p50, p99 = np.percentile(taken[min(WARM_UP_BLOCKS, len(taken) // 2) :], [50, 99])
    return {"chunk": stream.size / model.rate, "p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}


def measure_cost(model: Classifier, size: int | None = None) -> dict[str, Any]:
    """Numbers of a model but for its time, as plain values; ``size`` of its file in bytes, if there is one.
    ``uncounted``: names of extractors whose work other libraries do (OpenCV's optical flow).
    """
    return {
        "parameters": model.parameter_count(),
        **({} if size is None else {"bytes": size}),
        "multiply_adds": round(count_multiply_adds(model.for_streaming())),
        "uncounted": [type(stage).__name__ for stage in model.modules() if getattr(stage, "uncounted", False)],
    }
