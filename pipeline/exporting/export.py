"""A trained model as files that any ONNX runtime computes, each proven to answer as the model does."""

import copy
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pipeline.core.atomic import atomic_write
from pipeline.core.errors import ModelError
from pipeline.exporting.graph import to_graph
from pipeline.exporting.weights import TOLERANCES, Weights, with_weights
from pipeline.model.classifier import Classifier
from pipeline.model.file import CLIPS_GRAPH, GRAPH
from pipeline.model.golden_clip import clip, difference
from pipeline.model.onnx_model import OnnxModel
from pipeline.model.stream_model import Memory, block_ticks
from pipeline.streaming.state_batch import full_block

TOLERANCE = 1e-5  # of a posterior
BATCHES = 1, 3, 64
PICTURE_BATCHES = 1, 3, 8  # the same for pictures, which take longer
BLOCKS = 50  # that are carried on
BLOCK_SECONDS = 0.1  # computed at a time by streams, unless they ask for something else


def export(
    model: Classifier, folder: Path, block: float = BLOCK_SECONDS, weights: Weights = "fp32", start: bool = False
) -> list[Path]:
    """Write ``model.onnx`` for streams, ``block`` seconds at a time, and ``clips.onnx`` for whole clips where the head
    pools another window for them, or where there is a gate. ``start``: with that input, for other programs. ConfigError
    if the model cannot be exported; ModelError if a graph answers otherwise: then no file is written.
    """
    window = model.config["head"].get("window")
    model = copy.deepcopy(model).cpu().eval()  # wherever it was trained
    stream = model.for_streaming()
    same = stream.config["head"].get("window") == window and not stream.gated
    wanted = {GRAPH: stream} if same else {GRAPH: stream, CLIPS_GRAPH: model}
    found = {name: to_graph(one, block_ticks(one, block), window, start) for name, one in wanted.items()}
    if weights != "fp32":
        exact = {f"model.{name}" for name, _ in model.named_buffers()}
        found = {name: with_weights(data, weights, exact) for name, data in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    new = {name: folder / f".{name}" for name in found}
    with ExitStack() as leaving:
        for name, data in found.items():
            leaving.callback(new[name].unlink, missing_ok=True)
            with atomic_write(new[name]) as file:
                file.write(data)
            prove(wanted[name], OnnxModel(new[name]), TOLERANCES.get(weights, TOLERANCE))
        for name, path in new.items():
            path.replace(folder / name)
    if CLIPS_GRAPH not in found:
        (folder / CLIPS_GRAPH).unlink(missing_ok=True)  # of another model
    return [folder / name for name in found]


def prove(model: Classifier, graph: OnnxModel, tolerance: float = TOLERANCE) -> float:
    """The greatest difference of a posterior from torch's, on the golden clip and on noise in batches of several sizes,
    one of them carried on for ``BLOCKS`` blocks. ModelError if it is above the ``tolerance``.
    """
    apart, random, unit = 0.0, np.random.default_rng(0), graph.unit
    parts = model.spec.stack([clip(model.spec, unit)])
    blocks = [tuple(piece) for piece in graph.pieces(parts)]
    apart = max(apart, compare(model, graph, blocks, graph.begin(1)))
    for rows in BATCHES if model.spec.picture is None else PICTURE_BATCHES:
        count = BLOCKS if rows == BATCHES[1] else 3
        noise = [full_block(model, unit, rows, random) for _ in range(count)]
        used = tuple(np.full_like(array, np.nan if array.dtype.kind == "f" else 7) for array in graph.begin(rows))
        apart = max(apart, compare(model, graph, noise, used))
    if not apart <= tolerance:
        raise ModelError(
            f"export: the graph's answers differ by {apart:.2g} from torch's; expected {tolerance:g} at most: a "
            "fault of the exporter, or of a stage; nothing was written"
        )
    return apart


def compare(model: Classifier, graph: OnnxModel, blocks: list[tuple[np.ndarray, ...]], used: Memory) -> float:
    """The greatest difference over some blocks; a graph with ``start`` begins with a ``used`` memory, which it must
    undo.
    """
    memory = model.begin(len(blocks[0][0]))
    apart, start = 0.0, [np.ones((len(blocks[0][0]), 1), np.float32)] * graph.has_start
    used = used if graph.has_start else memory
    for block in blocks:
        y, memory = model.advance(block, memory)
        found, *after = graph.session.run(None, dict(zip(graph.inputs, (*block, *start, *used), strict=True)))
        start, used = [np.zeros_like(one) for one in start], tuple(after)
        apart = max(apart, difference(found, y))
    return apart
