"""Results on their way to the sinks that write files, and the sum of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core.errors import FailOn
from pipeline.core.text import clean
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import FileResult


class Tally:
    """Counts of results."""

    def __init__(self) -> None:
        self.status, self.seconds = Counter[str](), 0.0
        self.found = {"label": Counter[str](), "warning": Counter[str](), "error": Counter[str]()}

    def add(self, result: FileResult) -> None:
        self.status[result.status] += 1
        self.seconds += result.seconds or 0.0
        if result.label:
            self.found["label"][result.label] += 1
        if result.status != "ok":
            self.found[result.status].update(result.code.split())

    def show(self, note: str = "") -> None:
        """Print the counts on standard error."""
        console = Console(stderr=True)
        total = self.status.total()
        counts = ", ".join(f"{count:,} {status}" for status, count in sorted(self.status.items(), reverse=True))
        files = "1 file" if total == 1 else f"{total:,} files"
        console.print(f"{files}, {self.seconds / 3600:.2f} h: {counts}", highlight=False, soft_wrap=True)
        if total:
            console.print(self.table())
        if note:
            console.print(note, highlight=False, soft_wrap=True, markup=False)

    def fails(self, on: FailOn) -> bool:
        """Whether some results are what the user does not want to see."""
        return on != "never" and bool(self.status["error"] or (on == "warnings" and self.status["warning"]))

    def table(self) -> Table:
        """The counts of labels and codes."""
        table = Table()
        for column in ("", "what", "files"):
            table.add_column(column, justify="right" if column == "files" else "left")
        for kind, found in self.found.items():
            for number, (name, count) in enumerate(found.most_common()):
                table.add_row("" if number else kind, Text(clean(name)), f"{count:,}")
        return table


@dataclass(frozen=True)
class Columns:
    """Which columns the rows of all files have: of parts and of truths, if any file has one, and of events."""

    timed: bool
    labelled: bool
    events: bool

    def of(self, results: Iterable[FileResult]) -> Iterator[FileResult]:
        """The same results with these columns."""
        for result in results:
            events = (result.events or ()) if self.events else None
            yield replace(result, timed=self.timed, labelled=self.labelled, events=events)


def record(results: Iterable[FileResult], sink: Fanout, write: Callable[[FileResult], None]) -> Tally:
    """Write all results, and count them."""
    tally = Tally()
    for result in results:
        tally.add(result)
        write(result)
    sink.finish()
    return tally
