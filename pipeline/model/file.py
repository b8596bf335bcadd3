"""A model's file, ``model.safetensors``: the weights, and a JSON header. What of it can be known without torch."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, deserialize

from pipeline.core.errors import ModelError
from pipeline.core.moved import with_new_names, with_old_names

FORMAT = 1
HEADER = "rivulet"
GRAPH = "model.onnx"  # beside it: its step as streams take it, see ``onnx_model.py``
CLIPS_GRAPH = "clips.onnx"  # the same with the head's window for whole clips, where that is another
GOLDEN = "golden."  # begins the names of answers that are stored with the weights
MAX_HEADER_BYTES = 32_000_000
PARTS = ("extractor", "encoder", "cell", "head", "smoothing", "decoder", "task", "gate")
# Of parts that files did not always have.
DEFAULTS: dict[str, Any] = {"task": {"_target_": "pipeline.tasks.classes.Classes"}, "gate": {}}


class ModelHeader(BaseModel):
    """The header of a model file. ``config`` holds one component per name in ``PARTS``."""

    model_config = ConfigDict(extra="forbid")
    format: int
    labels: list[str]
    config: dict[str, dict[str, Any]]
    promise: dict[str, Any] = {}  # what the thresholds bring, see ``Classifier.promise``
    trained: dict[str, Any] = {}  # where the model comes from: the run's whole configuration and its figures
    versions: dict[str, str] = {}  # of the libraries that gave the golden answers


def model_file(path: str | Path) -> Path:
    """A model's file: ``path`` itself, or the one in a run's folder. ModelError for a folder without any."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    if not (path / "model.safetensors").is_file():
        raise ModelError(f"checkpoint={path}: a folder without model.safetensors; give a run's folder or its model")
    return path / "model.safetensors"


def identify(config: Mapping[str, Mapping[str, Any]], labels: Sequence[str], weights: Iterable[tuple[str, Any]]) -> str:
    """A short hash of settings and weights, bytes by name: the same for the same answers."""
    settings = {part: value for part, value in config.items() if value != DEFAULTS.get(part)}
    digest = hashlib.sha256(json.dumps([with_old_names(settings), labels], sort_keys=True).encode())
    for name, data in sorted(weights):
        digest.update(name.encode() + data)
    return digest.hexdigest()[:16]


def without_window(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Settings less the head's window, which changes with the use of a model."""
    return {**config, "head": {name: value for name, value in config["head"].items() if name != "window"}}


def identify_file(path: Path) -> str:
    """``identify`` of a model's file, whatever its window. ModelError if it is none."""
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = ModelHeader.model_validate_json(json.loads(data[8 : 8 + size])["__metadata__"][HEADER])
        read: Any = deserialize
        weights = [(name, part["data"]) for name, part in read(data) if not name.startswith(GOLDEN)]
        return identify(without_window(with_new_names(header.config)), header.labels, weights)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"checkpoint={path}: not a whole model.safetensors ({error})") from None
