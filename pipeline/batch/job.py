"""A listing of files into sinks, by way of a ledger: nothing is lost, doubled or torn, whatever ends the program.

Rows are in the ledger as soon as they are known. Terminals and pipes are told soon, in the order of the listing (but
for one that takes long). Files are written in the end, in that order, and take their place as a whole.
"""

import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline.batch.decoders import Asked
from pipeline.batch.files import Files
from pipeline.batch.ledger import Ledger, key_of
from pipeline.batch.listing import Entry
from pipeline.batch.tally import Tally, even, record
from pipeline.core.errors import ConfigError
from pipeline.core.settings import differences
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.sink import Row
from pipeline.streaming.interrupts import Interrupts, welcoming

Rows: TypeAlias = Callable[[Iterator[Asked]], Iterator[tuple[int, Row]]]  # what answers for entries
UNKNOWN = -1
GO_ON = "not all files are classified: the same command goes on"
LATE = 10_000  # rows that may wait for one that takes long


class Job:
    """The entries of a listing, and what has become of each."""

    def __init__(self, origin: Files, entries: Sequence[Entry], target: Fanout, ledger: Ledger | None) -> None:
        """``entries`` of ``origin``. ``ledger``: where rows are kept; without one, nothing can be resumed, and no files
        can be written.
        """
        self.origin, self.entries, self.target, self.ledger = origin, entries, target, ledger
        self.places = array("q", [UNKNOWN]) * len(entries)  # in the ledger; without one, 0
        self.keys = array("Q", bytes(8)) * len(entries)
        self.tally = Tally()
        self.resumed = 0
        self.turns = deque[int]()  # entries that were asked for and not told, in order
        self.held: dict[int, Row] = {}  # rows that are not told yet

    def begin(self, head: dict[str, Any]) -> None:
        """Look which rows are known already, to the same model and settings (``head``).

        ConfigError if the ledger is of others and not complete: its rows are worth something to somebody.
        """
        if self.ledger is None:
            return
        there = self.ledger.head
        anew = self.origin.resume == "never" or there is None
        if there is not None and not anew and (other := differences(of_run(there, head), of_run(head, head))):
            if self.ledger.complete is None:
                raise ConfigError(
                    f"source.ledger: {self.ledger.path} holds {len(self.ledger.keys)} rows of an unfinished run with "
                    f"other settings: {other}. Finish that one, choose another name, or begin anew with "
                    "source.resume=never"
                )
            print(
                f"{self.ledger.path} is of a finished run with other settings ({other}); beginning anew",
                file=sys.stderr,
            )
            anew = True
        known = {} if anew else self.ledger.known()
        self.ledger.begin(head, anew)
        for number, entry in enumerate(self.entries if known else ()):
            place = known.get(key_of(entry), UNKNOWN)
            if place != UNKNOWN and (self.origin.resume != "errors" or self.ledger.row(place)["status"] != "error"):
                self.places[number] = place
                self.resumed += 1

    def asked(self) -> Iterator[Asked]:
        """What has no row yet."""
        for number, entry in enumerate(self.entries):
            if self.places[number] == UNKNOWN:
                if self.ledger:
                    self.keys[number] = key_of(entry)
                self.turns.append(number)
                yield number, entry

    def run(self, rows: Rows) -> None:
        """Have all entries answered for; on an interrupt, files get what is known by then."""
        seconds = 0.0
        with Interrupts() as interrupts:  # also while files are written
            try:
                with progress() as shown:
                    task = shown.add_task("classifying", total=len(self.entries), completed=self.resumed, note="")
                    for number, row in welcoming(interrupts, rows(self.asked())):
                        self.take(number, row)
                        seconds += row["seconds"] or 0.0
                        advance(shown, task, self.tally, seconds)
            except BaseException as error:
                self.conclude()
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    self.tally.show(GO_ON if self.ledger else "")
                raise
            self.conclude()

    def conclude(self) -> None:
        """Tell and write what is known."""
        self.tell(len(self.held))
        self.deliver()

    def take(self, number: int, row: Row) -> None:
        """A row that is new."""
        self.places[number] = self.ledger.add(self.keys[number], row) if self.ledger else 0
        self.tally.add(row)
        self.held[number] = row
        self.tell(LATE // 2 if len(self.held) > LATE else 0)

    def tell(self, early: int) -> None:
        """Tell rows in the order of the listing; ``early``: how many before their turn, which would wait for long."""
        told = [self.held.pop(number) for number in sorted(self.held)[:early]] if early else []
        while self.turns and (self.turns[0] in self.held or self.places[self.turns[0]] != UNKNOWN):
            row = self.held.pop(self.turns.popleft(), None)
            told += [row] if row else []
        for row in told:
            self.target.file(even(row, self.origin.timed, self.origin.labelled))

    def deliver(self) -> None:
        """Write files, and count anew, from all rows that are known, in the order of the listing."""
        if self.ledger is None:
            return
        missing = self.places.count(UNKNOWN)
        if missing:
            self.target.describe({"not classified yet": f"{missing:,} of {len(self.entries):,}"})
        if self.resumed or self.target.lasting:
            self.tally = record(self.known(), self.target, self.origin.timed, self.origin.labelled)
        if not missing:
            count, digest = self.origin.listed
            self.ledger.end({"rows": len(self.entries), "count": count, "digest": digest}, self.places)

    def known(self) -> Iterator[Row]:
        """The rows that are known. What a manifest says may have changed since; what was heard has not."""
        assert self.ledger is not None
        for entry, place in zip(self.entries, self.places, strict=True):
            if place != UNKNOWN:
                yield self.ledger.row(place) | {"truth": entry.truth}


def progress() -> Progress:
    """A bar on standard error; where that is no terminal, nothing."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def advance(shown: Progress, task: TaskID, tally: Tally, seconds: float) -> None:
    """Bring the bar up to date."""
    spent = shown.tasks[0].elapsed or 1e-9
    done = sum(tally.status.values())
    note = f"{done / spent:.0f} files/s, {seconds / spent:.0f} x real time, {tally.status['error']} errors"
    shown.update(task, advance=1, note=note)


def of_run(found: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    """What a ledger's head says of all that ``head`` has, its settings beside the rest."""
    facts = {**found, **found.get("settings", {})}
    return {key: facts.get(key) for key in {**head, **head.get("settings", {})} if key != "settings"}
