"""Classify with a trained model: `python infer.py --help`."""

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
    window: Literal["auto"] | float | None,
    decoder: dict[str, float | None],
    source: dict[str, Any],
    sink: dict[str, Any],
) -> int:
    """A source through a model into a sink. The signature is the schema of conf/infer.yaml."""
    import torch

    from pipeline.build import build
    from pipeline.errors import ConfigError
    from pipeline.listen import listen
    from pipeline.model import load
    from pipeline.sink import Sink
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
    with build(sink, Sink, at="sink") as target:
        if many:
            if target.pictures:
                raise ConfigError("sink: shows the pictures of one stream; for source=files choose sink=console or csv")
            return classify_files(model, origin, target)
        settings = {key: value for key, value in decoder.items() if value is not None}
        return OK if listen(model, origin, target, block, model.decoder(**settings)) else INTERRUPTED


def classify_files(model: Any, origin: Any, target: Any) -> int:
    """Classify many files, with a progress bar."""
    from rich.console import Console
    from rich.progress import track

    from pipeline.batch import classify

    paths = origin.paths()
    rows = classify(model, paths, origin.batch, origin.workers, origin.longest)
    bad = 0
    for row in track(rows, "classifying", len(paths), console=Console(stderr=True), transient=True):
        target.file(row)
        bad += row["status"] == "error"
    return SOME_ROWS if bad else OK


if __name__ == "__main__":
    launch(infer, "infer")
