"""Classify with a trained model: `python infer.py --help`."""

from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat

from conf.launch import INTERRUPTED, OK, SOME_ROWS, launch


def infer(
    *,
    checkpoint: str | None,
    device: Literal["cpu", "cuda", "mps"],
    threads: NonNegativeInt,
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
    from pipeline.model import load
    from pipeline.sink import Sink
    from pipeline.sources.files import Files
    from pipeline.sources.microphone import Microphone

    origin: Any = build(source, at="source")
    if isinstance(origin, Microphone) and origin.listing:
        print(origin.devices())
        return OK
    if threads:
        torch.set_num_threads(threads)
    if checkpoint is None:
        raise ConfigError("checkpoint: is not set; give a trained model: checkpoint=runs/.../model.safetensors")
    if device != "cpu" and not getattr(torch, device).is_available():
        raise ConfigError(f"device: {device!r} is not there; set device=cpu")
    model = load(checkpoint, device)
    many = isinstance(origin, Files)
    if window != "auto":
        model = model.with_window(window)
    elif not many:
        model = model.live
    with build(sink, Sink, at="sink") as target:
        if many:
            return classify_files(model, origin, target)
        return listen(model, origin, target, block, {key: v for key, v in decoder.items() if v is not None})


def listen(model: Any, origin: Any, target: Any, block: float, settings: dict[str, float]) -> int:
    """Stream a source; on Ctrl-C, what has been heard so far is answered and kept."""
    from pipeline.stream import Stream

    stream = Stream(model, max(1, round(block * model.rate / model.hop)), model.decoder(**settings))
    code = OK
    target.start(origin.name, model.labels, model.rate, model.hop)
    try:
        for chunk in origin.chunks(model.intake):
            target.events(stream.push(chunk))
            target.steps(stream.first, stream.posteriors)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:  # whatever ended the source: what it has said is answered
        target.events(stream.close())
        target.steps(stream.first, stream.posteriors)
    return code


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
