"""Classify with a trained model: `python infer.py --help`."""

from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat

from conf.launch import INTERRUPTED, OK, SOME_ROWS, launch

MINING = {"_target_": "pipeline.sinks.hard_negatives.HardNegatives"}


def infer(
    *,
    checkpoint: str | None,
    device: Literal["cpu", "cuda", "mps"],
    threads: NonNegativeInt,
    precision: Literal["fp32", "bf16"],
    block: PositiveFloat,
    selftest: bool,
    window: Literal["auto"] | float | None,
    output: Literal["labels", "events", "hard_negatives"],
    decoder: dict[str, Any],
    engine: dict[str, Any],
    source: dict[str, Any],
    sink: dict[str, dict[str, Any]],
) -> int:
    """A source through a model into its sinks. The signature is the schema of conf/infer.yaml."""
    from pipeline.batch.forkserver import start_server

    if source.get("_target_") == "pipeline.batch.files.Files" and "local" in str(engine.get("_target_")):
        start_server()
    from pipeline.batch.engine import Engine
    from pipeline.batch.files import Files
    from pipeline.batch.ledgers import Ledgers
    from pipeline.core.build import build
    from pipeline.model.classifier import model_file
    from pipeline.model.decoder import changed
    from pipeline.sinks.fanout import Fanout
    from pipeline.sinks.listen import listen
    from pipeline.sources.source import Source
    from pipeline.streaming.selftest import check

    origin: Any = build(source, at="source")
    if isinstance(origin, Source) and (devices := origin.list_devices()) is not None:
        print(devices)
        return OK
    if isinstance(origin, Ledgers):
        with Fanout(sinks(sink)) as target:
            return shown(origin.merge(target), origin.fail_on)
    model = loaded(checkpoint, device, threads).with_precision(precision)
    mining = output == "hard_negatives" or "hard_negatives" in sink
    answers = isinstance(origin, Files) and output == "labels" and not mining  # of whole clips
    if window != "auto":
        model = model.with_window(window)
    elif not answers:
        model = model.for_streaming()
    settings = changed(model.config["decoder"], decoder, model.labels)
    if selftest and isinstance(origin, Source) and origin.live:
        check(model, max(1, round(block * model.rate / model.hop)), origin.resamples)
    with Fanout(sinks(sink, mining)) as target:
        target.spare([model_file(checkpoint or "")])
        target.know(model.labels, quiet(model))
        target.describe({"model": str(checkpoint), "output": "labels" if answers else "events"})
        if isinstance(origin, Files):
            events = None if answers else settings
            return classify_files(model, origin, target, build(engine, Engine, at="engine"), events)
        target.spare(origin.reads)
        return OK if listen(model, origin, target, block, model.decoder(**settings)) else INTERRUPTED


def loaded(checkpoint: str | None, device: str, threads: int) -> Any:
    """The model, on its device, computed by so many threads."""
    import torch

    from pipeline.core.errors import ConfigError
    from pipeline.model.classifier import load

    if threads:
        torch.set_num_threads(threads)
    if checkpoint is None:
        raise ConfigError("checkpoint: is not set; give a trained model: checkpoint=runs/.../model.safetensors")
    if device != "cpu" and not getattr(torch, device).is_available():
        raise ConfigError(f"device: {device!r} is not there; set device=cpu")
    return load(checkpoint, device)


def shown(tally: Any, fail_on: str, note: str = "") -> int:
    """The sum of all rows, told; the exit code."""
    tally.show(note)
    return SOME_ROWS if tally.fails(fail_on) else OK


def quiet(model: Any) -> list[str]:
    """The labels that mean nothing, in the order of the settings."""
    audible = {model.labels[index] for index in model.decoder().audible}
    background = model.config["decoder"].get("background") or []
    return sorted(set(model.labels) - audible, key=lambda label: [*background, label].index(label))


def sinks(settings: dict[str, dict[str, Any]], mining: bool = False) -> dict[str, Any]:
    """The sinks by name; with ``mining``, one for hard negatives even if none was chosen."""
    from pipeline.core.build import build
    from pipeline.sinks.sink import Sink

    if mining:
        settings = settings | {"hard_negatives": settings.get("hard_negatives", MINING)}
    return {name: build(setting, Sink, at=f"sink.{name}") for name, setting in settings.items()}


def classify_files(model: Any, origin: Any, target: Any, engine: Any, decoder: dict[str, Any] | None) -> int:
    """Classify many files."""
    from contextlib import ExitStack

    from pipeline.batch.batch import Work
    from pipeline.batch.job import Job
    from pipeline.batch.ledger import Ledger
    from pipeline.core.errors import ConfigError

    if target.streamed:
        raise ConfigError(
            f"sink: {', '.join(target.streamed)} takes one stream; for source=files choose console, csv, jsonl, "
            "parquet or report"
        )
    entries = origin.entries()
    target.spare([*origin.given, *(entry.path for entry in entries)])
    work = Work(model, origin.batch, origin.workers, origin.limits, decoder)
    with ExitStack() as stack:
        path = origin.ledger_beside(target.written)
        if path in target.written:
            raise ConfigError(f"source.ledger: {path} is written by a sink, too; choose another name")
        ledger = stack.enter_context(Ledger(path)) if path else None
        job = Job(origin, entries, target, ledger)
        identity = work.identity()
        job.begin(identity | {"shard": origin.shard})
        target.describe({"fingerprint": identity["model"], "shard": origin.shard})
        job.run(lambda asked: engine.rows(work, asked))
        again = "" if target.written else " (they are not told again; a sink with a path gets all)"
        notes = [f"{job.resumed:,} of them were known before, from {path}{again}"] if job.resumed else []
        notes += [f"written: {', '.join(map(str, target.written))}"] if target.written else []
    return shown(job.tally, origin.fail_on, "\n".join(notes))


if __name__ == "__main__":
    launch(infer, "infer")
