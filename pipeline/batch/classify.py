"""Many files through a model into sinks, each with one answer or with its events."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from pipeline.batch.batch import Work
from pipeline.batch.engine import Engine
from pipeline.batch.files import Files
from pipeline.batch.job import Job
from pipeline.batch.ledger import Ledger
from pipeline.batch.tally import Tally
from pipeline.core.errors import ConfigError
from pipeline.model.classifier import Classifier
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import Metadata


def classify_files(
    model: Classifier, files: Files, sink: Fanout, engine: Engine, decoder: Mapping[str, Any] | None
) -> tuple[Tally, str]:
    """Classify all files; ``decoder``: its settings, if events are looked for. The sum of the results, and what else
    people want to know. ConfigError if a sink has no use for files, or would write over one that is read.
    """
    sink.check_files()
    entries = files.entries()
    sink.check_overwrites([*files.given, *(entry.path for entry in entries)])
    work = Work(model, files.batch, files.workers, files.limits, decoder)
    with ExitStack() as stack:
        path = files.ledger_beside(sink.written)
        if path in sink.written:
            raise ConfigError(f"source.ledger: {path} is written by a sink, too; choose another name")
        ledger = stack.enter_context(Ledger(path)) if path else None
        job = Job(files, entries, sink, ledger, decoder is not None)
        identity = work.identity()
        job.begin(identity | {"shard": files.shard})
        sink.write(Metadata({"fingerprint": identity["model"], "shard": files.shard}))
        job.run(lambda asked: engine.results(work, asked))
        again = "" if sink.written else " (they are not told again; a sink with a path gets all)"
        notes = [f"{job.resumed:,} of them were known before, from {path}{again}"] if job.resumed else []
        notes += [f"written: {', '.join(map(str, sink.written))}"] if sink.written else []
    return job.tally, "\n".join(notes)
