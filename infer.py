"""Classify with a trained model: `python infer.py --help`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat

from conf.launch import INTERRUPTED, OK, SOME_ROWS, launch


def infer(
    *,
    checkpoint: str | None,
    device: Literal["cpu", "cuda", "mps"],
    threads: NonNegativeInt,
    precision: Literal["fp32", "bf16"],
    block: PositiveFloat,
    selftest: bool,
    window: Literal["auto"] | float | None,
    decoder: dict[str, Any],
    source: dict[str, Any],
    sink: dict[str, dict[str, Any]],
) -> int:
    """A source through a model into its sinks. The signature is the schema of conf/infer.yaml."""
    import torch

    from pipeline.build import build
    from pipeline.errors import ConfigError
    from pipeline.events import changed
    from pipeline.fanout import Fanout
    from pipeline.listen import listen
    from pipeline.model import load, model_file
    from pipeline.selftest import check
    from pipeline.sink import Sink
    from pipeline.source import Source
    from pipeline.sources.files import Files

    origin: Any = build(source, at="source")
    if getattr(origin, "listing", False):
        print(origin.devices())
        return OK
    if threads:
        torch.set_num_threads(threads)
    if checkpoint is None:
        raise ConfigError("checkpoint: is not set; give a trained model: checkpoint=runs/.../model.safetensors")
    if device != "cpu" and not getattr(torch, device).is_available():
        raise ConfigError(f"device: {device!r} is not there; set device=cpu")
    model = load(checkpoint, device).with_precision(precision)
    many = isinstance(origin, Files)
    if window != "auto":
        model = model.with_window(window)
    elif not many:
        model = model.live
    if selftest and isinstance(origin, Source) and origin.live:
        check(model, max(1, round(block * model.rate / model.hop)), origin.heard)
    with Fanout({name: build(setting, Sink, at=f"sink.{name}") for name, setting in sink.items()}) as target:
        paths = origin.paths() if many else list(origin.reads)
        target.spare([*paths, model_file(checkpoint)])
        if many:
            if target.streamed:
                names = ", ".join(target.streamed)
                raise ConfigError(f"sink: {names} takes one stream; for source=files choose console, csv or jsonl")
            return classify_files(model, origin, paths, target)
        settings = changed(model.config["decoder"], decoder, model.labels)
        return OK if listen(model, origin, target, block, model.decoder(**settings)) else INTERRUPTED


def classify_files(model: Any, origin: Any, paths: list[Path], target: Any) -> int:
    """Classify many files, with a progress bar."""
    from rich.console import Console
    from rich.progress import track

    from pipeline.batch import classify
    from pipeline.interrupts import Interrupts, welcoming

    rows = classify(model, paths, origin.batch, origin.workers, origin.longest)
    bad = 0
    with Interrupts() as interrupts:
        shown = track(rows, "classifying", len(paths), console=Console(stderr=True), transient=True)
        for row in welcoming(interrupts, iter(shown)):
            target.file(row)
            bad += row["status"] == "error"
    return SOME_ROWS if bad else OK


if __name__ == "__main__":
    launch(infer, "infer")
