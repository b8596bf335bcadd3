"""A model as live streams run it: its exported graph, in onnxruntime."""

import tempfile
from pathlib import Path

from pipeline.exporting.graph import to_graph
from pipeline.model.onnx_model import OnnxModel


def as_graph(model, ticks, threads=1):
    """The graph of a ``model`` for streams, ``ticks`` at a time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(to_graph(model, ticks, model.config["head"].get("window"), start=False))
        return OnnxModel(path, threads)
