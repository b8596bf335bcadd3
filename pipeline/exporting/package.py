"""What goes with ``model.onnx`` to where there is no Rivulet: its card to read, and a program that runs it."""

import hashlib
import json
import shutil
from pathlib import Path

from pipeline.core.atomic import write_text
from pipeline.exporting import rivulet_runtime
from pipeline.model.file import GRAPH
from pipeline.model.onnx_model import OnnxModel


def write_package(folder: Path) -> list[Path]:
    """Write ``model.json`` and ``rivulet_runtime.py`` beside the graph in ``folder``."""
    card, runtime = folder / "model.json", folder / "rivulet_runtime.py"
    write_text(card, json.dumps(card_of(folder / GRAPH), indent=1, ensure_ascii=False))
    shutil.copyfile(rivulet_runtime.__file__, runtime)
    return [card, runtime]


def card_of(path: Path) -> dict[str, object]:
    """A graph's card, with its arrays and the SHA-256 of the file."""
    graph = OnnxModel(path)
    arrays = {
        kind: [{"name": one.name, "type": one.type, "shape": one.shape} for one in found]
        for kind, found in (("inputs", graph.session.get_inputs()), ("outputs", graph.session.get_outputs()))
    }
    return graph.card.model_dump() | arrays | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
