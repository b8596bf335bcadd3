"""A listing of files into sinks, by way of a ledger: no row is lost, doubled or torn, whatever ends the program.

Results are in the ledger as soon as they are known. Terminals and pipes get them soon, in the order of the listing (but
for one that takes long). Files are written in the end, in that order, and take their place as a whole.
"""

import sys
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.batch.batch import Work
from pipeline.batch.decoders import Asked
from pipeline.batch.engine import Engine
from pipeline.batch.files import DEFAULT_WORKERS, Files
from pipeline.batch.ledger import Ledger, key_of
from pipeline.batch.listing import Entry
from pipeline.batch.tally import Columns, Tally, record
from pipeline.core.errors import ConfigError
from pipeline.core.progress import bar
from pipeline.core.settings import differences
from pipeline.media.tables import to_label
from pipeline.media.walk import tell
from pipeline.model.stream_model import StreamModel
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import FileResult, Metadata
from pipeline.streaming.interrupts import Interrupts, welcoming

UNKNOWN = -1
NOT_FINISHED = "not all files are classified: the same command goes on"
MAX_HELD = 10_000  # results that may wait for one that takes long


class Job:
    """The entries of a listing, and what has become of each."""

    def __init__(
        self, files: Files, entries: Sequence[Entry], sink: Fanout, ledger: Ledger | None, with_events: bool
    ) -> None:
        """``entries`` of ``files``. ``ledger``: where results are kept; without one, nothing can be resumed, and no
        files can be written.
        """
        self.files, self.entries, self.sink, self.ledger = files, entries, sink, ledger
        self.columns = Columns(files.timed, files.labelled, with_events)
        self.places = array("q", [UNKNOWN]) * len(entries)  # in the ledger; without one, 0
        self.keys = array("Q", bytes(8)) * len(entries)
        self.tally = Tally()
        self.resumed = 0
        self.order = deque[int]()  # entries that were asked for and not shown, in order
        self.held: dict[int, FileResult] = {}  # results that are not shown yet

    def begin(self, head: dict[str, Any]) -> None:
        """Look which results of the same model and settings (``head``) are known already.

        ConfigError if the ledger is of an unfinished run with others, whose results must not be thrown away.
        """
        if self.ledger is None:
            return
        old = self.ledger.head
        anew = self.files.resume == "never" or old is None
        if not anew and (other := differences(run_settings(old or {}, head), run_settings(head, head))):
            path, anew = self.ledger.path, True
            if self.ledger.complete is None:
                hint = "Finish that one, choose another name, or begin anew with source.resume=never"
                there = f"{path} holds {self.ledger.count} rows of an unfinished run with other settings: {other}"
                raise ConfigError(f"source.ledger: {there}. {hint}")
            print(f"{path} is of a finished run with other settings ({other}); beginning anew", file=sys.stderr)
        self.ledger.begin(head, anew)
        for number, entry in enumerate(self.entries if self.ledger.known else ()):
            place = self.ledger.known.get(key_of(entry), UNKNOWN)
            if place != UNKNOWN and (self.files.resume != "errors" or self.ledger.result(place).status != "error"):
                self.places[number] = place
                self.resumed += 1

    def missing(self) -> Iterator[Asked]:
        """The entries that have no result yet."""
        for number, entry in enumerate(self.entries):
            if self.places[number] == UNKNOWN:
                if self.ledger:
                    self.keys[number] = key_of(entry)
                self.order.append(number)
                yield number, entry

    def run(self, engine: Engine, work: Work) -> None:
        """Classify all entries; on an interrupt, files get what is known by then."""
        with Interrupts() as interrupts:  # also while files are written
            try:
                try:
                    with closing(welcoming(interrupts, engine.results(work, self.missing()))) as results:
                        self.classify(results)
                finally:
                    self.show(len(self.held))
                    self.write_files()
            except (KeyboardInterrupt, SystemExit):
                self.tally.show(NOT_FINISHED if self.ledger else "")
                raise

    def classify(self, results: Iterator[tuple[int, FileResult]]) -> None:
        """Take all results, with a bar on standard error."""

        def note(spent: float) -> str:
            status, speed = self.tally.status, self.tally.seconds / spent
            return f"{status.total() / spent:.0f} files/s, {speed:.0f} x real time, {status['error']} errors"

        for number, result in bar(results, "classifying", len(self.entries), self.resumed, note):
            self.take(number, result)

    def take(self, number: int, result: FileResult) -> None:
        """Keep and count a new result, and show it when its turn comes."""
        self.places[number] = self.ledger.add(self.keys[number], result) if self.ledger else 0
        self.tally.add(result)
        self.held[number] = result
        self.show(MAX_HELD // 2 if len(self.held) > MAX_HELD else 0)

    def show(self, early: int) -> None:
        """Results to terminals and pipes in the order of the listing; ``early``: how many before their turn."""
        due = [self.held.pop(number) for number in sorted(self.held)[:early]] if early else []
        while self.order and (self.order[0] in self.held or self.places[self.order[0]] != UNKNOWN):
            result = self.held.pop(self.order.popleft(), None)
            due += [result] if result else []
        for result in self.columns.of(due):
            self.sink.write_result(result, to_files=False)

    def write_files(self) -> None:
        """Write files, and count anew, from all results that are known, in the order of the listing."""
        if self.ledger is None:
            return
        missing = self.places.count(UNKNOWN)
        if missing:
            self.sink.write(Metadata({"not classified yet": f"{missing:,} of {len(self.entries):,}"}))
        if self.resumed or self.sink.written:
            write = partial(self.sink.write_result, to_files=True)
            self.tally = record(self.columns.of(self.known()), self.sink, write)
        if not missing:
            count, digest = self.files.listed
            self.ledger.finish({"rows": len(self.entries), "count": count, "digest": digest}, self.places)

    def known(self) -> Iterator[FileResult]:
        """The results that are known. What a manifest says may have changed since; the answer has not."""
        assert self.ledger is not None
        for entry, place in zip(self.entries, self.places, strict=True):
            if place != UNKNOWN:
                yield replace(self.ledger.result(place), truth=entry.truth)


def classify_files(
    model: StreamModel, files: Files, sink: Fanout, engine: Engine, decoder: Mapping[str, Any] | None
) -> tuple[Tally, str]:
    """Classify all files; ``decoder``: its settings, if events are looked for. The sum of the results, and what else
    people want to know. ConfigError if a sink has no use for files, or would write over one that is read.
    """
    sink.check_files()
    entries = files.entries(series=model.spec.series is not None)
    if own := {to_label(label): label for label in model.labels if to_label(label) != label}:  # a model of before
        entries = [entry._replace(truth=own.get(entry.truth, entry.truth)) for entry in entries]
    several = model.link == "sigmoid"  # a truth may then name several labels, as an answer does
    strings = model.decoder().reads == "strings"
    truths = {word for entry in entries for word in (entry.truth.split() if strings else [entry.truth])}
    if not several and (strange := sorted(truths - {"", *model.labels})):
        tell("source.paths", f"labels that the model does not have: {', '.join(map(repr, strange[:8]))}")
    sink.check_overwrites([*files.given, *(entry.path for entry in entries)])
    work = Work(model, files.batch, files.workers or DEFAULT_WORKERS, files.limits, decoder)
    with ExitStack() as stack:
        path = files.ledger_beside(sink.written)
        if path in sink.written:
            raise ConfigError(f"source.ledger: {path} is written by a sink, too; choose another name")
        ledger = stack.enter_context(Ledger(path)) if path else None
        job = Job(files, entries, sink, ledger, decoder is not None)
        identity = work.identity()
        job.begin(identity | {"shard": files.shard})
        sink.write(Metadata({"fingerprint": identity["model"], "shard": files.shard}))
        job.run(engine, work)
        again = "" if sink.written else " (they are not told again; a sink with a path gets all)"
        notes = [f"{job.resumed:,} of them were known before, from {path}{again}"] if job.resumed else []
        notes += [f"written: {', '.join(map(str, sink.written))}"] if sink.written else []
    return job.tally, "\n".join(notes)


def run_settings(found: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    """What a ledger's head says of all that ``head`` has, its settings beside the rest."""
    facts = {**found, **found.get("settings", {})}
    return {key: facts.get(key) for key in {**head, **head.get("settings", {})} if key != "settings"}
