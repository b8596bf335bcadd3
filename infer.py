"""Classify with a trained model: `python infer.py --help`."""

if __name__ == "__main__":
    from pipeline.core.environment import check
    from pipeline.core.interrupt import hold

    check()
    hold()  # before the imports that take a second

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

from pydantic import NonNegativeInt, PositiveFloat

from conf.launch import OK, SOME_ROWS, TERMINATED, launch
from pipeline.core.interrupt import INTERRUPTED

Precision: TypeAlias = Literal["fp32", "bf16"]
Window: TypeAlias = Literal["auto"] | float | None


def infer(
    *,
    checkpoint: str | None,
    device: Literal["cpu", "cuda", "mps"],
    threads: NonNegativeInt | None,
    compute: Literal["auto", "onnx", "torch"],
    precision: Precision,
    block: PositiveFloat,
    selftest: bool,
    window: Window,
    output: Literal["labels", "events", "hard_negatives", "embeddings"],
    decoder: dict[str, Any],
    gate: dict[str, Any] | None,
    engine: dict[str, Any],
    source: dict[str, Any],
    sink: dict[str, dict[str, Any]],
) -> int:
    """A stream, many files, or ledgers: what the source is. The signature is the schema of conf/infer.yaml."""
    from pipeline.batch.engine import Engine
    from pipeline.batch.files import Files
    from pipeline.batch.job import classify_files
    from pipeline.batch.ledgers import Ledgers
    from pipeline.core.build import build
    from pipeline.serving.browser import Browser
    from pipeline.sinks.items import Metadata
    from pipeline.sinks.listen import listen
    from pipeline.sources.source import Source

    origin: Any = build(source, at="source")
    if isinstance(origin, Source) and (devices := origin.list_devices()) is not None:
        print(devices)
        return OK
    if isinstance(origin, Ledgers):
        with sinks(sink) as target:
            return finished(origin.merge(target), origin.fail_on)
    where = build(engine, Engine, at="engine") if isinstance(origin, Files) else None
    mining = output == "hard_negatives" or "hard_negatives" in sink
    with_events = where is None or mining or output in ("events", "hard_negatives")
    count = threads if threads is not None else where.threads() if where else 1
    listening = origin if where is None and selftest and origin.live else None
    opened = partial(
        open_tested, source=listening, decoder=decoder, block=block, compute=compute, threads=count, device=device,
        precision=precision, window=window, gate=gate, embeddings=output == "embeddings",
    )  # fmt: skip
    if isinstance(origin, Browser):
        return serve_pages(origin, sink, checkpoint, opened, block)
    model, settings, path = opened(checkpoint, with_events)
    if where is not None:
        where.prepare(bool(model.spec.picture))
    with sinks(sink, mining, steps=output == "embeddings" and where is None) as target:
        target.check_overwrites([path, *(origin.reads if where is None else ())])
        reader = model.decoder(**settings)
        target.setup(*event_labels(model, reader))
        as_trained = with_events and not settings
        facts = {"model": str(checkpoint), "output": "events" if with_events else "labels"}
        target.write(Metadata(facts | (promised(model) if as_trained else {})))
        if where is not None:
            tally, note = classify_files(model, origin, target, where, settings if with_events else None)
            return finished(tally, origin.fail_on, note)
        return OK if listen(model, origin, target, block, reader) else INTERRUPTED


def open_tested(
    checkpoint: str | None, live: bool, source: Any, decoder: dict[str, Any], block: float, embeddings: bool, **how: Any
) -> Any:
    """A model, its decoder's settings, and its file. For a live ``source`` it is tested first, if it is to listen.
    ``embeddings``: the model that tells those of its encoder.
    """
    from pipeline.decoders.decoder import merge_settings
    from pipeline.model.open import open_model
    from pipeline.streaming.selftest import check

    how |= {"compute": "torch" if embeddings and how["compute"] == "auto" else how["compute"]}
    model, path = open_model(checkpoint, live=live, block=block, **how)
    if embeddings:
        from pipeline.model.embedding import embedding_of

        model = embedding_of(model, live)
    if how["window"] != "auto" or how["gate"] is not None:
        model.promise = None  # which was of the model as it was trained
    settings = merge_settings(model.config["decoder"], decoder, model.labels)
    if model.link == "sigmoid" or model.decoder().reads == "strings":
        model.config["decoder"] |= settings  # they also decide the labels of whole files
    if live and source is not None:
        check(model, max(1, round(block * model.rate / model.hop)), source.resamples)
    return model, settings, path


def serve_pages(
    origin: Any, sink: dict[str, Any], checkpoint: str | None, opened: Callable[..., Any], block: float
) -> int:
    """Streams of browsers, until a signal; its exit code."""
    from pipeline.serving.serve import serve

    with sinks(sink) as target:
        target.check_several()
        return TERMINATED if serve(origin, target, checkpoint, opened, block) else INTERRUPTED


def sinks(settings: dict[str, dict[str, Any]], mining: bool = False, steps: bool = False) -> Any:
    """All sinks as one; with ``mining``, one for hard negatives even if none was chosen. ConfigError if they are to
    write embeddings of ``steps``, and none does.
    """
    from pipeline.core.build import build
    from pipeline.core.errors import ConfigError
    from pipeline.sinks.fanout import Fanout
    from pipeline.sinks.sink import Sink

    if steps and not any(setting.get("posteriors") for setting in settings.values()):
        hint = "sink=jsonl sink.jsonl.posteriors=true"
        raise ConfigError(f"output=embeddings: of a stream, each step has one, which no sink here writes; set {hint}")
    found = {name: build(setting, Sink, at=f"sink.{name}") for name, setting in settings.items()}
    if mining and "hard_negatives" not in found:
        from pipeline.sinks.hard_negatives import HardNegatives

        found["hard_negatives"] = HardNegatives()
    return Fanout(found)


def event_labels(model: Any, reader: Any) -> tuple[list[str], list[str]]:
    """For sinks: all labels, those of the events that ``reader`` (a decoder) may find first; and the background labels
    alone, which make no events, in the order of the settings.
    """
    audible = {model.labels[index] for index in reader.audible}
    background = model.config["decoder"].get("background") or []
    quiet = sorted(set(model.labels) - audible, key=lambda label: [*background, label].index(label))
    return [*reader.told, *quiet], quiet


def promised(model: Any) -> dict[str, str]:
    """What a wish promises of a model as it was trained, which is printed, too."""
    if not model.promise:
        return {}
    print(f"false alarms: {model.promise}", file=sys.stderr)
    return {"false alarms": str(model.promise)}


def finished(tally: Any, fail_on: str, note: str = "") -> int:
    """Print the sum of all results; the exit code."""
    tally.show(note)
    return SOME_ROWS if tally.fails(fail_on) else OK


if __name__ == "__main__":
    launch(infer, "infer")  # fish completes what has @hydra.main in its text
