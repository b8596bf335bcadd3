"""A trained model for answers, from its file: computed by onnxruntime where its graph is there, else by torch."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipeline.core.errors import ConfigError, ModelError, UserError
from pipeline.model.file import CLIPS_GRAPH, GRAPH, identify_file, model_file
from pipeline.model.onnx_model import ANEW, OnnxModel
from pipeline.model.stream_model import StreamModel, block_ticks

Compute: TypeAlias = Literal["auto", "onnx", "torch"]
Window: TypeAlias = Literal["auto"] | float | None


def open_model(
    checkpoint: str | None,
    compute: Compute = "auto",
    live: bool = True,
    block: float = 0.1,
    threads: int = 1,
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    window: Window = "auto",
    gate: Mapping[str, Any] | None = None,
) -> tuple[StreamModel, Path]:
    """A model for streams (``live``) or whole clips, and the file that was asked for: a run's folder, its
    ``model.safetensors``, or an exported ``.onnx``.

    ``block``: seconds that will be computed at a time. ``threads``: 0 for as many as the library likes. ``gate``:
    another than the model's own. ``auto`` takes torch where the graph is missing or cannot do what is asked for.
    ConfigError or ModelError says what is wrong.
    """
    if checkpoint is None:
        raise ConfigError("checkpoint: is not set; give a trained model: checkpoint=runs/.../model.safetensors")
    path = model_file(checkpoint)
    if path.suffix == ".onnx" and compute == "torch":
        raise ConfigError(f"compute=torch needs the weights, but checkpoint={path} is a graph; give model.safetensors")
    asked = compute == "onnx" or path.suffix == ".onnx"
    if asked or (compute == "auto" and device == "cpu" and precision == "fp32"):
        try:
            return open_graph(path, live, block, threads, device, precision, window, gate), path
        except UserError as error:
            if asked:
                raise
            if not isinstance(error, MissingError):
                print(f"note: computing with torch: {error}", file=sys.stderr)
    return open_classifier(path, live, threads, device, precision, window, gate), path


class MissingError(ModelError):
    """There is no graph."""


def open_graph(
    path: Path,
    live: bool,
    block: float,
    threads: int,
    device: str,
    precision: str,
    window: Window,
    gate: Mapping[str, Any] | None,
) -> OnnxModel:
    """The graph beside the weights at ``path``, or that itself."""
    if device != "cpu" or precision != "fp32":
        raise ConfigError(f"compute=onnx is for device=cpu and precision=fp32; got {device} and {precision}")
    graph = path
    if path.suffix != ".onnx":
        graph = path.with_name(GRAPH if live else CLIPS_GRAPH)
        graph = graph if graph.is_file() else path.with_name(GRAPH)
        if not graph.is_file():
            raise MissingError(f"{graph}: no such file; {ANEW}")
    model = OnnxModel(graph, threads)
    if graph != path and model.identity(window=False) != identify_file(path):
        raise ModelError(f"{graph}: not of the weights beside it; {ANEW}")
    head = model.config["head"]
    wanted = window if window != "auto" else head.get("live") if live else model.card.clip_window
    if wanted != head.get("window"):
        raise ConfigError(f"window={wanted}: {graph.name} pools {head.get('window')} s; {ANEW}")
    if gate is not None and dict(gate) != model.config.get("gate", {}):
        raise ConfigError(f"gate: {graph.name} has another, or none; {ANEW}")
    if model.config.get("gate") and model.card.gated != live:
        use = "streams, behind the gate" if model.card.gated else "whole clips, without the gate"
        raise ConfigError(f"checkpoint: {graph.name} is for {use}; {ANEW}")
    if live:
        model.check_block(block_ticks(model, block))
    return model


def open_classifier(
    path: Path,
    live: bool,
    threads: int,
    device: str,
    precision: Any,
    window: Window,
    gate: Mapping[str, Any] | None,
) -> StreamModel:
    """The weights, computed by torch."""
    import torch

    from pipeline.model.classifier import load

    if threads:
        torch.set_num_threads(threads)
    if device != "cpu" and not getattr(torch, device).is_available():
        raise ConfigError(f"device: {device!r} is not there; set device=cpu")
    model = load(path, device).with_precision(precision)
    model = model if gate is None else model.with_gate(gate)
    if window != "auto":
        return model.with_window(window, gated=live)
    return model.for_streaming() if live else model
