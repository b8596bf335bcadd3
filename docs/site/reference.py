"""The pages of the reference, made of the code: settings, what sinks write, and the Python API."""

import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from settings import describe, groups
from settings import pages as settings_pages

from pipeline.sinks.csv import CSV
from pipeline.sinks.items import FileResult, Steps, StreamInfo, StreamWarning, TimedEvent, TimedGap
from pipeline.sinks.jsonl import JSONLines
from pipeline.sinks.labels import Labels
from pipeline.sinks.sink import Sink
from pipeline.sinks.sqlite import SQLite
from pipeline.sinks.vtt import VTT

STREAM = StreamInfo("street.wav", ["background", "dog"], rate=16000, hop=640)
EVENT = TimedEvent(start=12.32, end=13.04, peak=12.6, label="dog", score=0.9312)
ITEMS = [
    Steps(307, np.array([[0.0688, 0.9312]], np.float32)),
    EVENT,
    TimedGap(start=40.0, length=1.25, why="device_lost", how="reset"),
    StreamWarning(time=61.5, code="clipped", text="samples stand at full scale; lower the gain of the recording"),
]
FILES = [
    FileResult("a.wav", 0, None, "warning", "clipped", "dog", 0.93, 1.5, posteriors={"background": 0.07, "dog": 0.93}),
    FileResult("b.wav", code="no_samples", reason="the file has no samples", posteriors=dict.fromkeys(STREAM.labels)),
]
API = {
    "Open a model": ["pipeline.model.open.open_model", "pipeline.model.classifier.load"],
    "Stream": ["pipeline.streaming.stream.Stream", "pipeline.streaming.scheduler.Scheduler"],
    "Events": ["pipeline.decoders.decoder.Decoder", "pipeline.decoders.decoder.Event"],
    "The law": ["pipeline.layers.stage.Stage", "pipeline.layers.stage.Chain", "pipeline.layers.laws.check"],
    "Sequences": ["pipeline.encoders.unroll"],
    "Parts to inherit from": ["pipeline.cells.cell.Cell", "pipeline.extractors.extractor.Extractor",
                              "pipeline.sources.source.Source", "pipeline.sinks.sink.Sink",
                              "pipeline.tasks.task.Task", "pipeline.batch.engine.Engine"],
    "Build and check": ["pipeline.core.build"],
    "Read recordings": ["pipeline.media.audio.read"],
    "Without torch": ["pipeline.exporting.rivulet_runtime.Stream"],
}  # fmt: skip


def pages() -> dict[str, str]:
    """All pages, by name."""
    found = settings_pages() | {"output.md": output_page(), "api.md": api_page()}
    return {f"reference/{name}": text for name, text in {"index.md": index_page(), **found}.items()}


def index_page() -> str:
    """What there is, and from where it comes."""
    links = " ".join(f"[`{name}`]({name}.md)" for name in groups())
    return f"""# Reference

These pages are made from the code each time the site is built.

* **Settings.** [train.py](train.md), [infer.py](infer.md), and their groups: {links}.
  Keys, defaults and comments are those of `conf/`. Types are those of the constructors, which check each value.
* **[What sinks write](output.md).** Rows, tables and examples.
* **[Python API](api.md).**
* **[Codes and exit codes](../codes.md)**, and **[formats](../formats.md)** of recordings.
"""


def api_page() -> str:
    """Classes and functions for programs, by mkdocstrings."""
    parts = (f"## {name}\n\n" + "\n\n".join(f"::: {one}" for one in names) for name, names in API.items())
    return "\n\n".join(["# Python API", "Examples: [Use Python](../python.md).", *parts, ""])


def output_page() -> str:
    """What sinks are given, and what those of text and the database make of it."""
    lines = ["# What sinks write\n", "A sink is given items, one at a time. Times are seconds of the stream.\n"]
    for item in (TimedEvent, Steps, TimedGap, StreamWarning, FileResult):
        text = " ".join((item.__doc__ or "").partition("Attributes:")[0].split()).replace("``", "`")
        lines += [f"## {item.__name__}\n", text, "\n| field | type |", "| --- | --- |"]
        lines += [f"| `{one.name}` | {describe(one.type)} |" for one in fields(item)] + [""]
    lines += ["## Examples\n", "Each sink below was given the same event, step, gap and warning.\n"]
    made: dict[str, tuple[type[Sink], dict[str, Any], list[Any]]] = {
        "jsonl": (JSONLines, {"posteriors": True}, ITEMS),
        "jsonl with source=files": (JSONLines, {}, FILES),
        "csv": (CSV, {}, ITEMS),
        "csv with source=files": (CSV, {}, FILES),
        "labels": (Labels, {}, ITEMS),
        "vtt": (VTT, {}, ITEMS),
    }
    for name, (sink, options, items) in made.items():
        lines += [f"### {name}\n", "```text", written(sink, items, **options).rstrip(), "```\n"]
    return "\n".join([*lines, "### sqlite\n", *tables(), ""])


def written(sink: type[Sink], items: list[Any], **options: Any) -> str:
    """What a sink writes into its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        with sink(path=str(path), **options) as target:  # type: ignore[call-arg]
            target.setup(STREAM.labels, ["background"])
            if not isinstance(items[0], FileResult):
                target.start(STREAM)
            for item in items:
                target.write(item)
            target.finish()
        return path.read_text()


def tables() -> Iterator[str]:
    """The tables of a database that ``sink=sqlite`` has made."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.sqlite"
        with SQLite(path=str(path)) as target:
            target.setup(STREAM.labels, ["background"])
            target.start(STREAM)
        with sqlite3.connect(path) as database:
            yield from ("| table | column | type |", "| --- | --- | --- |")
            for (table,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
                for _, column, kind, *_ in database.execute(f"PRAGMA table_info({table})"):
                    yield f"| `{table}` | `{column}` | {kind} |"
        database.close()
